"""Runs the blocks of Python and of commands on a page of Markdown, and compares what they print."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.cli_cases import run

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
# a block of Python, and the block of output that may follow it; or commands with their output
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<printed>.*?)^```\n)?"
    r"|^```console\n(?P<commands>.*?)^```\n",
    re.MULTILINE | re.DOTALL,
)
COMMAND = re.compile(r"^\$ gpumlp (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


def python_blocks(page: Path) -> list[str]:
    found = (block["code"] for block in BLOCK.finditer(page.read_text("utf-8")))
    return [code for code in found if code is not None]


def run_blocks(page: Path) -> dict[str, Any]:
    """Run a page as one program in the current folder, and return its variables."""
    space: dict[str, Any] = {"__name__": "__main__"}
    for block in BLOCK.finditer(page.read_text("utf-8")):
        for line, expected in COMMAND.findall(block["commands"] or ""):
            refused = expected.startswith("gpumlp: error: ")
            compare(line, expected, run(*shlex.split(line), code=2 * refused).output)
        if block["code"] is None:
            continue
        for library in re.findall(r"^(?:import|from) (torch|jax)\b", block["code"], re.MULTILINE):
            pytest.importorskip(library)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(block["code"], page.name, "exec"), space)
        compare(block["code"], block["printed"] or "", out.getvalue())
    return space


def compare(code: str, expected: str, printed: str) -> None:
    """Fail unless `printed` is `expected`, where ... stands for anything."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.OutputChecker().check_output(expected, printed, flags), (
        f"{code}\nshould print\n\n{expected}\nbut printed\n\n{printed}"
    )


def in_docs(name: str) -> ModuleType:
    """Import a module of docs/_ext."""
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DOCS / "_ext"))
