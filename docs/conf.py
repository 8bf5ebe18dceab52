"""Settings of the documentation, which `make docs` builds."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

import gpumlp  # noqa: E402

project, author = "gpumlp", "The gpumlp authors"
project_copyright = author
version = release = gpumlp.__version__

extensions = [
    "myst_parser", "sphinx.ext.autodoc", "numpydoc", "sphinx.ext.viewcode",
    "public_names", "entry_tables", "command_line", "example_runs", "measured",
]  # fmt: skip
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [
    # text in backticks becomes a link where it is a public name, and is code everywhere else
    ("py:obj", r".*"),
    # the site is built without a network, so the inventories of other projects are missing
    ("py:class", r"(?!gpumlp\.[A-Z]).*"),
    ("py:exc", r"(?!gpumlp\.).*"),
    ("py:data", r".*"),
]

# ---- Python --------------------------------------------------------------------------------------

default_role = "py:obj"
smartquotes_action = "D"  # dashes; quotes are Python's
add_module_names = False
autodoc_typehints_format = "short"
autodoc_type_aliases = {
    name: name.removeprefix("npt.")
    for name in (
        "Array", "ArrayLike", "ClassWeight", "HostArray", "Matrix", "Metric", "Metrics", "Numbers",
        "npt.ArrayLike", "npt.DTypeLike",
    )
}  # fmt: skip
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
numpydoc_show_class_members = False  # autodoc shows them
toc_object_entries_show_parents = "hide"

# ---- Markdown ------------------------------------------------------------------------------------

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# ---- the site ------------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = "gpumlp"
html_static_path = ["_static"]
html_css_files = ["gpumlp.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_sidebars = {"[!r]*": [], "guide/*": [], "reference/*": ["sidebar-nav-bs"]}
html_theme_options = {
    "header_links_before_dropdown": 9,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
}
