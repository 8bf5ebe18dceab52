"""The documentation's blocks run and print what they say; the site is built without a warning."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import inspect
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import gpumlp
from gpumlp.cli.app import app
from tests.support.cli_cases import run

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
# a block of Python, and the block of output that may follow it; or of commands with their output
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<printed>.*?)^```\n)?"
    r"|^```console\n(?P<commands>.*?)^```\n",
    re.MULTILINE | re.DOTALL,
)
COMMAND = re.compile(r"^\$ gpumlp (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


@pytest.mark.parametrize("page", [page for page in PAGES if BLOCK.search(page.read_text("utf-8"))],
                         ids=lambda page: page.stem)  # fmt: skip
def test_blocks_run_and_print_what_they_say(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {"__name__": "__main__"}
    for found in BLOCK.finditer(page.read_text("utf-8")):
        for line, expected in COMMAND.findall(found["commands"] or ""):
            refused = expected.startswith("gpumlp: error: ")
            check(line, expected, run(*shlex.split(line), code=2 * refused).output)
        if found["code"] is None:
            continue
        for library in re.findall(r"^(?:import|from) (torch|jax)\b", found["code"], re.MULTILINE):
            pytest.importorskip(library)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(found["code"], page.name, "exec"), space)
        check(found["code"], found["printed"] or "", out.getvalue())


def check(code, expected, printed):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.OutputChecker().check_output(expected, printed, flags), (
        f"{code}\nis to print\n\n{expected}\nand prints\n\n{printed}"
    )


def test_the_operations_of_the_device_page_are_operations():
    from gpumlp.backends import Backend

    page = (DOCS / "device.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.*?) \|", page.partition("## The seam")[0], re.MULTILINE)
    operations = [operation for row in rows for operation in re.findall(r"`(\w+)`", row)]
    assert len(operations) > 20
    assert [operation for operation in operations if not hasattr(Backend, operation)] == []


def test_every_example_is_on_its_page():
    shown = re.findall(r"```\{example\} (\w+)", (DOCS / "examples.md").read_text("utf-8"))
    assert shown == sorted(path.stem for path in (ROOT / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built with warnings as errors; the examples have tests of their own."""
    pytest.importorskip("myst_parser")
    pytest.importorskip("pydata_sphinx_theme")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-E", "-b", "html"]
    done = subprocess.run(
        [*build, "-d", folder / "doctrees", "-D", "run_examples=0", DOCS, folder / "html"],
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


def in_docs(name):
    """A module of the site's own."""
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DOCS / "_ext"))


def public_names():
    """module.name of all that the reference must have."""
    names = in_docs("public_names")
    for module in names.public_modules():
        with contextlib.suppress(ImportError):  # of a library that is not installed
            yield from (f"{module}.{name}" for name in names.public_names(module))


def test_every_public_name_is_in_the_reference(site):
    from sphinx.util.inventory import InventoryFile

    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    documented = {name for kind, names in inventory.data.items() if kind.startswith("py:")
                  for name in names}  # fmt: skip
    wanted = set(public_names())
    assert {f"gpumlp.{name}" for name in gpumlp.__all__} <= wanted
    assert wanted - documented == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_names_on_pages_lead_to_the_reference(site, page):
    """Sphinx warns of none that begins like another library's or a module's."""
    html = (site / page.relative_to(DOCS)).with_suffix(".html").read_text("utf-8")
    names = re.findall(r"\{py:\w+\}`~?([\w.]+)`", page.read_text("utf-8"))
    assert [name for name in names if not re.search(rf'#(module-)?{name}"', html)] == []


def test_the_command_line_is_that_of_the_app(site):
    page = (site / "command_line.html").read_text("utf-8")
    sections = dict(re.findall(r'<section id="gpumlp-([\w-]+)">(.*?)</section>', page, re.DOTALL))
    commands = typer.main.get_command(app).commands
    assert sections.keys() == commands.keys() >= {"train", "predict", "export", "bench"}
    for name, command in commands.items():
        options = [flag for parameter in command.params for flag in parameter.opts]
        assert [flag for flag in options if flag[0] == "-" and flag not in sections[name]] == []


def test_the_accuracies_are_those_of_the_committed_results(site):
    page = re.sub(r"<[^>]+>", " ", (site / "guide" / "sklearn.html").read_text("utf-8"))
    results = json.loads((ROOT / "benchmarks" / "results" / "accuracy.json").read_text("utf-8"))
    for name, by in results["sets"].items():
        unit = 100 if by["metric"] == "accuracy" else 1
        means = [f"{unit * by[who]['mean']:.1f} " for who in ("gpumlp", "scikit-learn", "torch")]
        assert re.search(rf"\b{name}\b.*?{'.*?'.join(means)}", page, re.DOTALL)


def test_no_section_of_a_docstring_is_left_as_it_was(site):
    for page in (site / "reference").glob("*.html"):
        text = re.sub(r"<[^>]+>", "", page.read_text("utf-8"))
        assert re.findall(r"^(?:Args|Source|Columns):$", text, re.MULTILINE) == []


def test_documented_arguments_are_those_of_the_signature():
    """All of them and in their order, where a docstring lists any."""
    docscrape = pytest.importorskip("numpydoc.docscrape")
    names, sections = in_docs("public_names"), in_docs("sections")
    checked = 0
    for name, value in public_callables(names):
        lines = inspect.cleandoc(value.__doc__ or "").splitlines()
        doc = docscrape.NumpyDocString("\n".join(sections.numpydoc_sections(lines)))
        listed = [one for item in doc["Parameters"] for one in item.name.split(", ")]
        if listed and "Parameters and attributes are" not in value.__doc__:
            asked = [each for each in inspect.signature(value).parameters if each != "self"]
            assert listed == [each for each in asked if each != "cls"], name
            checked += 1
    assert checked > 20


def public_callables(names):
    """(name, object) of public functions, classes, and the classes' methods."""
    for module in names.public_modules():
        with contextlib.suppress(ImportError):  # of a library that is not installed
            for name in names.public_names(module):
                value = getattr(importlib.import_module(module), name)
                if callable(value):
                    yield name, value
                for method in names.members(value) if inspect.isclass(value) else ():
                    found = inspect.getattr_static(value, method)
                    found = getattr(found, "__func__", found)
                    if inspect.isroutine(found):
                        yield f"{name}.{method}", found


def test_the_loops_are_quoted_beside_the_book(site):
    page = re.sub(r"<[^>]+>", "", (site / "algorithms.html").read_text("utf-8"))
    for line in ("backend.affine_activation(h[k - 1], W[k], b[k], f[k], z[k], h[k])",
                 "backend.weight_gradient(gz[k], s.recompute(k - 1), d.W[k], d.factors)"):  # fmt: skip
        assert line in (ROOT / "gpumlp" / "backprop.py").read_text("utf-8")
        assert page.count(line) == 2  # beside the book's line, and in the whole file
