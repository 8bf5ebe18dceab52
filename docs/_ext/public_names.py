"""Two directives that document every public name of a module.

    ```{public} gpumlp.data
    ```

documents all of `gpumlp.data.__all__`.  Where a module has names of several other modules, ``:of:``
selects those that are defined in the modules it lists, and ``:but:`` those that are not.
```{modules}``` does the same for every other public module than gpumlp and gpumlp.data, with a
section for each.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from docutils import nodes
from sections import numpydoc_sections
from sphinx.application import Sphinx
from sphinx.ext.autodoc.mock import mock
from sphinx.util.docutils import SphinxDirective

import gpumlp
from gpumlp.functions.entry import Entry

OTHERS = (  # the public modules next to gpumlp and gpumlp.data, some of them optional
    "estimators", "search", "callbacks", "distributed", "interop.torch", "interop.onnx",
)  # fmt: skip


def public_modules() -> list[str]:
    """Return the modules whose names users import."""
    others = (f"gpumlp.{name}" for name in OTHERS)
    return ["gpumlp", "gpumlp.data", *(name for name in others if find_spec(name))]


def public_names(module: str) -> list[str]:
    """Return the names of `__all__`, or those that the module defines, without gpumlp's own."""
    found = importlib.import_module(module)
    names = getattr(found, "__all__", None) or [
        name for name, value in vars(found).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module
    ]  # fmt: skip
    if module == "gpumlp":
        return list(names)
    return [name for name in names if getattr(found, name) is not getattr(gpumlp, name, found)]


def home(value: Any) -> str:
    """Return the module that defines a public value, or the entries of a table."""
    if isinstance(value, Mapping):
        return home(next(iter(value.values()), None))
    return getattr(value, "__module__", None) or type(value).__module__


def members(kind: type) -> list[str]:
    """Return the public methods and properties of a class that gpumlp defines."""
    found: dict[str, None] = {}
    for base in kind.__mro__:
        if base.__module__.startswith("gpumlp"):
            found |= dict.fromkeys(name for name in vars(base) if not name.startswith("_"))
    if issubclass(kind, Entry):  # the other methods of entries are for the library
        found = dict.fromkeys(["set"])
    if issubclass(kind, gpumlp.Callback) and kind is not gpumlp.Callback:  # so are the hooks
        found = {name: None for name in found if name not in vars(gpumlp.Callback)}
    return [name for name in found if ours(inspect.getattr_static(kind, name, None))]


def ours(value: Any) -> bool:
    """Whether this is a method or a property of gpumlp; scikit-learn adds some of its own."""
    function = getattr(value, "fget", value)
    if not (inspect.isroutine(value) or isinstance(value, (property, classmethod, staticmethod))):
        return False
    return str(getattr(function, "__module__", "")).startswith("gpumlp")


def described(module: str, name: str) -> str:
    """Return the Markdown that documents one name."""
    value = getattr(importlib.import_module(module), name)
    if isinstance(value, Mapping) and home(value).startswith("gpumlp.functions"):
        return f"```{{entries}} {name}\n```\n"
    if isinstance(value, (tuple, Mapping)):
        listed = ", ".join(f"``{one}``" for one in value)
        return f"```{{eval-rst}}\n.. py:data:: {name}\n   :module: {module}\n\n   {listed}.\n```\n"
    options = ""
    if inspect.isclass(value):
        kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
        if found := members(value):
            options = f"   :members: {', '.join(found)}\n   :member-order: bysource\n"
    else:
        kind = "autofunction" if callable(value) else "autodata"
        options = "" if callable(value) else "   :no-value:\n"
    return f"```{{eval-rst}}\n.. {kind}:: {module}.{name}\n{options}```\n"


def among(path: str, modules: str) -> bool:
    """Whether a module is in a list of modules, or within one of them."""
    return any(path == module or path.startswith(f"{module}.") for module in modules.split())


class Public(SphinxDirective):
    """The directive `public`."""

    required_arguments = 1
    option_spec = {"of": str, "but": str}  # noqa: RUF012  (docutils needs a dict)

    def run(self) -> list[nodes.Node]:
        """Return the nodes that document the names."""
        module, parts = self.arguments[0], []
        for name in public_names(module):
            at = home(getattr(importlib.import_module(module), name))
            if among(at, self.options.get("of", at)) and not among(at, self.options.get("but", "")):
                parts.append(described(module, name))
        return self.parse_text_to_nodes("\n".join(parts))


class Modules(SphinxDirective):
    """The directive `modules`; gpumlp and gpumlp.data have pages of their own."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        return list(self._sections())

    def _sections(self) -> Iterator[nodes.Node]:
        for module in public_modules()[2:]:
            section = nodes.section(ids=[nodes.make_id(module)], names=[module])
            section += nodes.title(text=module)
            doc = inspect.getdoc(importlib.import_module(module)) or ""
            text = f"```{{eval-rst}}\n{doc}\n```\n\n```{{public}} {module}\n```\n"
            section += self.parse_text_to_nodes(text)
            yield section


def docstring(
    app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Convert a docstring to the form that numpydoc reads."""
    lines[:] = numpydoc_sections(lines)
    for i, line in enumerate(lines):  # |x| and classes_ in the text are not markup
        parts = re.split(r"(`+[^`]*`+)", line)  # every second one is in backticks
        parts[::2] = [re.sub(r"\||(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
        lines[i] = "".join(parts)


def signature(
    app: Sphinx, what: str, name: str, value: Any, options: Any, written: str | None, gives: Any
) -> tuple[str | None, Any]:
    """Remove from a signature what Sphinx cannot read or writes wrongly."""
    written = re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", written or "")
    return written.replace("<factory>", "...") or None, gives


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives and the conversions."""
    if find_spec("torch") is None:  # 2 GB, and the page needs its names alone
        with mock(["torch"]):
            importlib.import_module("gpumlp.interop.torch")
    app.connect("autodoc-process-docstring", docstring, priority=400)  # before numpydoc
    app.connect("autodoc-process-signature", signature)
    app.add_directive("public", Public)
    app.add_directive("modules", Modules)
    return {"parallel_read_safe": True}
