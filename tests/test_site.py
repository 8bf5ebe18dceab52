"""Sphinx builds the documentation without warnings, and its pages have what they should."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys

import pytest
import typer

import gpumlp
from gpumlp.cli.app import app
from tests.support.pages import DOCS, PAGES, ROOT, in_docs

pytestmark = pytest.mark.slow


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


def test_loops_are_quoted_next_to_the_book(site):
    page = re.sub(r"<[^>]+>", "", (site / "algorithms.html").read_text("utf-8"))
    for line in (
        "backend.affine_activation(h[k - 1], W[k], b[k], f[k], z[k], h[k])",
        "backend.weight_gradient(gz[k], h[k - 1], d.W[k], d.factors)",
    ):
        assert line in (ROOT / "gpumlp" / "backprop.py").read_text("utf-8")
        assert page.count(line) == 2  # next to the book's line, and in the whole file
