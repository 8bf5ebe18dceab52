"""The blocks of the documentation run and print what they say; docstrings list all arguments."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda.backend import CudaBackend
from tests.support.harness.host_device import HostDevice
from tests.support.pages import BLOCK, DOCS, PAGES, ROOT, in_docs, run_blocks


@pytest.mark.parametrize(
    "page", [page for page in PAGES if BLOCK.search(page.read_text("utf-8"))],
    ids=lambda page: page.stem,
)  # fmt: skip
def test_blocks_run_and_print_what_they_say(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_blocks(page)


@pytest.fixture(scope="module")
def own_functions(tmp_path_factory):
    """The entries that the page on own functions defines."""
    with contextlib.chdir(tmp_path_factory.mktemp("own")):
        return run_blocks(DOCS / "guide" / "functions.md")


def test_own_activation_has_the_right_derivative(own_functions):
    f, z = own_functions["squareplus"], np.linspace(-3, 3, 61)
    e = 1e-6
    slope = (f.f(z + e, **f.params) - f.f(z - e, **f.params)) / (2 * e)
    np.testing.assert_allclose(f.df(z, None, **f.params), slope, rtol=1e-8)
    net = gpumlp.MLP([20, 64, 2], activation=f.set(b=2.0))
    J, _ = net.cost_and_gradients(np.ones((4, 20)), [0, 1, 0, 1])
    assert np.isfinite(J)


def test_own_functions_are_the_same_on_both_backends(own_functions):
    """Their CUDA expressions run on the CPU."""
    x = np.random.default_rng(0).normal(size=(40, 3))
    theta = []
    for backend in ("numpy", CudaBackend(HostDevice(), "float64")):
        net = gpumlp.MLP(
            [3, 9, 2], own_functions["squareplus"], loss=own_functions["pseudo_huber"],
            regularizer=own_functions["cauchy"].set(lam=0.1), precision="float64", backend=backend,
        )  # fmt: skip
        trainer = gpumlp.Trainer(net, own_functions["signum"], lr=0.01, batch_size=8)
        trainer.fit(x, x[:, :2] * x[:, 1:], epochs=2, progress=False)
        theta.append(np.concatenate([tensor.ravel() for tensor in net.tensors().values()]))
    np.testing.assert_allclose(theta[1], theta[0], rtol=1e-9)


def test_device_page_lists_operations():
    from gpumlp.backends import Backend

    page = (DOCS / "device.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.*?) \|", page.partition("## The device protocol")[0], re.MULTILINE)
    operations = [operation for row in rows for operation in re.findall(r"`(\w+)`", row)]
    assert len(operations) > 20
    assert [operation for operation in operations if not hasattr(Backend, operation)] == []


def test_every_example_is_on_its_page():
    shown = re.findall(r"```\{example\} (\w+)", (DOCS / "examples.md").read_text("utf-8"))
    assert shown == sorted(path.stem for path in (ROOT / "examples").glob("*.py"))


def test_documented_arguments_are_those_of_the_signature():
    """A docstring that lists arguments lists all of them, in their order."""
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
    """Yield (name, object) of public functions, classes, and methods of classes."""
    for module in names.public_modules():
        with contextlib.suppress(ImportError):  # a library is not installed
            for name in names.public_names(module):
                value = getattr(importlib.import_module(module), name)
                if callable(value):
                    yield name, value
                for method in names.members(value) if inspect.isclass(value) else ():
                    found = inspect.getattr_static(value, method)
                    found = getattr(found, "__func__", found)
                    if inspect.isroutine(found):
                        yield f"{name}.{method}", found
