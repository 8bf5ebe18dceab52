"""The fakes of CuPy and cublasLt have what the libraries have, with the same parameters."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import libraries
from tests.support.fake_cublaslt import FakeCublasLt
from tests.support.fake_cupy import FakeCupy, FakeGraph

CUPY, CUBLASLT = "cupy", "nvmath.bindings.cublasLt"
KNOWN = [libraries.parts(line) for line in libraries.lines()]


def fakes() -> dict[str, Any]:
    """Module -> its fake."""
    cupy: Any = FakeCupy()
    cupy.cuda.graph = SimpleNamespace(Graph=FakeGraph)  # what `end_capture` returns
    return {CUPY: cupy, CUBLASLT: FakeCublasLt()}


def names(root: Any, before: str = "") -> Iterator[str]:
    """The public names of a fake's namespaces, and of the classes in them."""
    for name, value in vars(root).items():
        if name.startswith("_") or (inspect.isclass(root) and not callable(value)):
            continue  # what only tests use
        yield before + name
        if isinstance(value, SimpleNamespace) or (inspect.isclass(value) and name != "ndarray"):
            yield from names(value, f"{before}{name}.")


def test_fakes_take_what_the_libraries_take() -> None:
    compared = 0
    for module, name, rest in KNOWN:
        try:
            found = libraries.resolved(fakes()[module], name)
        except (KeyError, AttributeError):
            continue  # no fake has it
        if " = " in rest:
            assert libraries.described(found) == rest, name
            compared += 1
        elif rest and (given := libraries.parameters(found)) is not None:
            wanted = [each for each in rest[1:-1].split(", ") if each]
            if module == CUPY:
                assert given == wanted[: len(given)], name
            else:  # all arguments are passed by position
                assert len(given) == len(wanted), name
            compared += 1
    assert compared > 50


def test_fakes_have_nothing_else() -> None:
    known = {module: [name for each, name, _ in KNOWN if each == module] for module in fakes()}
    own: Any = fakes()[CUPY]
    for module, found in (
        (CUPY, [*names(FakeCupy), *(f"cuda.{name}" for name in names(own.cuda))]),
        (CUBLASLT, names(FakeCublasLt)),
    ):
        for name in found:
            assert any(f"{each}.".startswith(f"{name}.") for each in known[module]), name


@pytest.mark.parametrize("module", list(dict.fromkeys(module for module, *_ in KNOWN)))
def test_installed_library(module: str) -> None:
    """Where the libraries are installed; no GPU is needed."""
    pytest.importorskip(module.partition(".")[0])
    try:
        library = importlib.import_module(module)
    except ImportError as error:
        pytest.skip(str(error))
    if not getattr(library, "available", True):
        pytest.skip("no NCCL")
    for each, name, rest in KNOWN:
        if each == module:
            assert libraries.described(libraries.resolved(library, name)) == rest, name
