"""What the CUDA backend uses of CuPy, nvmath-python and cuda-bindings: names, parameters, numbers.

The lines of `tests/resources/gpu_libraries.txt` are of CuPy 14.2, nvmath-python 1.0, cuda-bindings
13.5.  No GPU is needed to write them again, after a change of what is used or with other versions:

    python -m tests.support.libraries
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "resources" / "gpu_libraries.txt"


def lines() -> list[str]:
    """Those of the file: "module:name.of.an.attribute(parameter, …)", or "… = number"."""
    return FILE.read_text(encoding="utf-8").splitlines()


def parts(line: str) -> tuple[str, str, str]:
    """The module, the attribute's name, and the rest of a line."""
    found = re.fullmatch(r"([\w.]+):([\w.]+)(.*)", line)
    assert found, line
    return found[1], found[2], found[3]


def described(found: Any) -> str:
    """The rest of a line for an attribute: its parameters, or its number."""
    if isinstance(found, int) and not isinstance(found, bool):
        return f" = {int(found)}"
    names = parameters(found)
    return "" if names is None else f"({', '.join(names)})"


def parameters(found: Any) -> list[str] | None:
    """The names of what a function, a method or a class takes; None for something else."""
    if not callable(found) or (isinstance(found, type) and issubclass(found, BaseException)):
        return None
    try:
        names = list(inspect.signature(found).parameters)
    except (TypeError, ValueError):  # Cython writes the parameters as the text's first line
        text = re.match(r"[\w.]+\((.*?)\)(?: ->|$)", inspect.getdoc(found) or "", re.MULTILINE)
        if text is None:
            return None
        given = [each.partition("=")[0].split() for each in text[1].split(",")]
        names = [words[-1] for words in given if words and words != ["*"]]
    return [name for name in names if name not in ("self", "args", "kwargs")]


def resolved(root: Any, name: str) -> Any:
    """The attribute of this name; AttributeError if there is none."""
    for each in name.split("."):
        root = getattr(root, each)
    return root


def main() -> None:
    """Write the file anew, with the names that it has."""
    text = ""
    for module, name, rest in map(parts, lines()):
        found = importlib.import_module(module)
        if getattr(found, "available", True):  # not so the module of a missing NCCL
            rest = described(resolved(found, name))
        text += f"{module}:{name}{rest}\n"
    FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
