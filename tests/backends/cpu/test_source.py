"""The source of the library is C++ that clang takes, too: wheels for macOS are compiled by it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gpumlp.backends.cpu import source
from gpumlp.backends.cpu.flags import FLAGS
from tests.support.compiled import needs_compiler

pytestmark = needs_compiler


def include_folders() -> list[str]:
    """Those in which the compiler of this machine finds its headers."""
    compiler = shutil.which("c++")
    assert compiler is not None
    command = [compiler, "-xc++", "-E", "-v", os.devnull]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    listed = said.rpartition("search starts here:")[2].partition("End of search list")[0]
    return listed.split()


def test_clang_compiles_the_source(tmp_path: Path) -> None:
    """It is parsed, with all templates.  GCC's header of SSE is no clang's, so it is left out."""
    cindex = pytest.importorskip("clang.cindex")
    path = tmp_path / "library.cpp"
    path.write_text(source.built_in(source.headers()), encoding="utf-8")
    folders = [each for name in include_folders() for each in ("-isystem", name)]
    arguments = [*FLAGS, "-U__SSE2__", "-nostdinc", "-nostdinc++", *folders]
    parsed = cindex.Index.create().parse(path, [*arguments, f"-I{source.headers()}"])
    severe = [each for each in parsed.diagnostics if each.severity >= cindex.Diagnostic.Error]
    assert not severe, "\n".join(f"{each.location}: {each.spelling}" for each in severe[:5])
    names = {each.spelling for each in parsed.cursor.get_children()}
    assert "gpumlp" in names
