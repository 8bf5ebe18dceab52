"""The documentation's blocks run and print what they say; Sphinx builds it without warnings."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import typer

import gpumlp
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.cli.app import app
from tests.support.harness.host_device import HostDevice
from tests.support.pages import BLOCK, ROOT, run_blocks

DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)


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


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site with warnings as errors; the examples have tests of their own."""
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
    """Import a module of docs/_ext."""
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DOCS / "_ext"))


def public_names():
    """Yield module.name for every name that the reference must contain."""
    names = in_docs("public_names")
    for module in names.public_modules():
        with contextlib.suppress(ImportError):  # a library is not installed
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
def test_names_on_pages_link_to_the_reference(site, page):
    """Sphinx does not warn of names that begin like those of another library or a module."""
    html = (site / page.relative_to(DOCS)).with_suffix(".html").read_text("utf-8")
    names = re.findall(r"\{py:\w+\}`~?([\w.]+)`", page.read_text("utf-8"))
    assert [name for name in names if not re.search(rf'#(module-)?{name}"', html)] == []


def test_command_line_page_has_every_option(site):
    page = (site / "command_line.html").read_text("utf-8")
    sections = dict(re.findall(r'<section id="gpumlp-([\w-]+)">(.*?)</section>', page, re.DOTALL))
    commands = typer.main.get_command(app).commands
    assert sections.keys() == commands.keys() >= {"train", "predict", "export", "bench"}
    for name, command in commands.items():
        options = [flag for parameter in command.params for flag in parameter.opts]
        assert [flag for flag in options if flag[0] == "-" and flag not in sections[name]] == []


def test_accuracies_are_those_of_the_committed_results(site):
    page = re.sub(r"<[^>]+>", " ", (site / "guide" / "sklearn.html").read_text("utf-8"))
    results = json.loads((ROOT / "benchmarks" / "results" / "accuracy.json").read_text("utf-8"))
    for name, by in results["sets"].items():
        unit = 100 if by["metric"] == "accuracy" else 1
        means = [f"{unit * by[who]['mean']:.1f} " for who in ("gpumlp", "scikit-learn", "torch")]
        assert re.search(rf"\b{name}\b.*?{'.*?'.join(means)}", page, re.DOTALL)


def test_real_tables_are_those_of_the_committed_results(site):
    page = (site / "guide" / "tables.html").read_text("utf-8")
    rows = [re.findall(r"<td><p>(.*?)</p></td>", row) for row in page.split("<tr")]
    shown = {row[0]: row for row in rows if len(row) == 11}
    results = json.loads((ROOT / "benchmarks" / "results" / "real_tables.json").read_text("utf-8"))
    assert shown.keys() == results["tables"].keys()
    assert len(shown) >= 25
    for name, by in results["tables"].items():
        assert (by["status"], by["options"][::2]) in (
            (0, ["--target"]),
            (0, ["--target", "--drop"]),
        )
        assert by["value"] > by["baseline"]
        unit, digits = (100, 1) if by["metric"] == "accuracy" else (1, 2)
        assert shown[name][7:9] == [
            f"{unit * by[key]:.{digits}f}" for key in ("value", "baseline")
        ]  # fmt: skip


def test_embeddings_are_those_of_the_committed_results(site):
    page = (site / "guide" / "tables.html").read_text("utf-8")
    rows = [re.findall(r"<td><p>(.*?)</p></td>", row) for row in page.split("<tr")]
    results = json.loads((ROOT / "benchmarks" / "results" / "embeddings.json").read_text("utf-8"))
    for name, by in results["tables"].items():
        [shown] = [row for row in rows if row[:2] == [name, f"{by['most_categories']:,}"]]
        ways = by["ways"].values()
        figures = [f"{way['r2']:.3f}" for way in ways] + [f"{way['seconds']:.1f}" for way in ways]
        assert shown[2:] == figures


def test_every_section_of_a_docstring_is_converted(site):
    for page in (site / "reference").glob("*.html"):
        text = re.sub(r"<[^>]+>", "", page.read_text("utf-8"))
        assert re.findall(r"^(?:Args|Source|Columns):$", text, re.MULTILINE) == []


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


def test_loops_are_quoted_next_to_the_book(site):
    page = re.sub(r"<[^>]+>", "", (site / "algorithms.html").read_text("utf-8"))
    for line in (
        "backend.affine_activation(h[k - 1], W[k], b[k], f[k], z[k], h[k])",
        "backend.weight_gradient(gz[k], h[k - 1], d.W[k], d.factors)",
    ):
        assert line in (ROOT / "gpumlp" / "backprop.py").read_text("utf-8")
        assert page.count(line) == 2  # next to the book's line, and in the whole file
