"""The README's example and commands run; its loops and figures are those of code and results."""

import json
import re
import shlex
import textwrap

import numpy as np
import pytest

from tests.support.cli_cases import run
from tests.support.pages import ROOT, compare, python_blocks

README = (ROOT / "README.md").read_text("utf-8")
PAGES_WITH_COMMANDS = ("README.md", "docs/command_line.md", "docs/benchmarks.md")
BLOCKS = python_blocks(ROOT / "README.md")
RESULTS = ROOT / "benchmarks" / "results"


def results(name):
    return json.loads((RESULTS / name).read_text("utf-8"))


def test_readme_is_short_and_begins_with_its_status():
    lines = README.splitlines()
    assert len(lines) <= 140
    assert "not yet measured on a GPU" in "\n".join(lines[:10])


def test_example_learns_and_prints_what_it_says(capsys):
    [example] = [block for block in BLOCKS if "Trainer" in block]
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    space = {}
    exec(example, space)
    assert space["history"]["val_metric"][-1] > 0.9
    printed = capsys.readouterr().out
    assert "MLP(20-128-128-2" in printed
    [expected] = re.findall(r"and prints\n\n```text\n(.*?)```", README, re.DOTALL)
    compare(example, expected, printed)


def test_every_python_block_is_run_or_quoted():
    known = ("Trainer", "backend.")
    assert [any(name in block for name in known) for block in BLOCKS] == [True] * 3


def test_links_lead_to_files_and_headings():
    for path, anchor in re.findall(r"\]\((\w[^)#]*)#?([^)]*)\)", README):
        text = (ROOT / path).read_text("utf-8")
        headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
        assert not anchor or anchor in [h.lower().replace(" ", "-") for h in headings], path


def test_commands_run(tmp_path, monkeypatch, rng):
    """On a table of houses; the benchmarks have no time for their parts."""
    monkeypatch.chdir(tmp_path)
    x = rng.normal(size=(300, 3))
    rows = np.column_stack([x, x @ [3.0, -2.0, 1.0]])
    for name in ("housing.csv", "new.csv"):
        np.savetxt(name, rows, delimiter=",", header="size,age,area,price", comments="")
    pages = "\n".join((ROOT / page).read_text("utf-8") for page in PAGES_WITH_COMMANDS)
    blocks = "\n".join(re.findall(r"^```(?:text)?\n(.*?)^```\n", pages, re.MULTILINE | re.DOTALL))
    commands = dict.fromkeys(re.findall(r"^gpumlp .*", blocks, re.MULTILINE))
    assert len(commands) >= 9
    for line in commands:
        program, command, *arguments = shlex.split(line, comments=True)
        assert program == "gpumlp"
        short = {"train": ["--epochs", 20], "bench": ["--minutes", 0]}
        done = run(command, *arguments, *short.get(command, []))
        if command == "bench":  # its parts are chosen, and none is begun
            assert "stopped before gpumlp on" in done.output
    assert (tmp_path / "predictions.csv").read_text().count("\n") == 301
    for name in ("residuals.png", "housing.onnx", "runs/housing/run.toml", "runs/again/run.toml"):
        assert (tmp_path / name).stat().st_size > 0
    assert "lr = 0.002" in (tmp_path / "runs/again/run.toml").read_text()


def test_loops_are_quoted_from_the_code():
    driver = (ROOT / "gpumlp" / "backprop.py").read_text("utf-8")
    loops = [block for block in BLOCKS if block.startswith("for k")]
    assert len(loops) == 2
    for loop in loops:
        assert textwrap.indent(loop, "    ") in driver


def test_figures_of_speed_are_those_of_the_committed_results():
    cpu, fits = results("cpu.json"), results("estimators.json")
    committed = {
        f"{entry['gpumlp_over_this']:.2f}"
        for part in ("step", "step, 25 in a row", "epoch")
        for name, entry in cpu[part].items()
        if name != "gpumlp"
    }
    committed |= {
        f"{fits[part]['scikit-learn']['gpumlp_over_this']:.2f}"
        for part in ("fit, float64", "fit, float32")
    }
    page = (ROOT / "docs/benchmarks.md").read_text("utf-8")
    quoted = set(re.findall(r"\| (\d+\.\d+) of (?:its|their) time", page))
    assert quoted == committed


def test_figures_of_epochs_are_those_of_the_committed_results():
    epochs = results("cpu_epochs.json")
    del epochs["machine"]
    rows = re.findall(r"^\| (\S+ @.+?) \| (\d\.\d\d.*) \|$", README, re.MULTILINE)
    assert len(rows) == 6
    for name, figures in rows:
        ratios = epochs[name]["cpu_over_this"]
        others = ratios["jax"], ratios["torch.compile reduce-overhead"], ratios["numpy"]
        assert figures == " | ".join(f"{ratio:.2f}" for ratio in others), name
    page = (ROOT / "docs/benchmarks.md").read_text("utf-8")
    torch = ["torch eager", "torch eager AVX-512", "torch eager medium"]
    for file, own in (("cpu_epochs", torch), ("cpu_epochs_intel", torch[::2])):
        peers = ["jax", *own, "torch.compile reduce-overhead", "numpy"]
        table = page.partition(f"results/{file}.json")[2].partition("\n\n`python")[0]
        rows = re.findall(r"^\| (\S+ @.+?) \| (\d+\.\d) \| (.*) \|$", table, re.MULTILINE)
        epochs = results(f"{file}.json")
        del epochs["machine"]
        rows = rows[: len(epochs)]
        assert [name for name, *_ in rows] == list(epochs)
        for name, micros, figures in rows:
            found = epochs[name]
            assert micros == f"{found['median_us_a_step']['cpu']:.1f}"
            assert figures == " | ".join(f"{found['cpu_over_this'][peer]:.2f}" for peer in peers)


def test_figures_of_simple_chains_are_those_of_the_committed_results():
    found = results("simple_chains.json")
    page = (ROOT / "docs/benchmarks.md").read_text("utf-8")
    section = page.partition("benchmarks.simple_chains`")[2].partition("\n## ")[0]
    assert f"| {found['epochs']:,} epochs | seconds |" in section
    rows = re.findall(r"^\| .* \| (\d+\.\d\d) \| (\d\.\d\d) \|$", section, re.MULTILINE)
    here = found["here"].values()
    assert rows == [(f"{each['seconds']:.2f}", f"{each['cpu_over_this']:.2f}") for each in here]
    quoted = re.findall(r"\d+\.\d\d\b", section.partition("The authors of SimpleChains")[2])
    published = found["published"]["seconds"].values()
    assert quoted == [f"{seconds:.2f}" for by in published for seconds in by.values()]


def test_figure_of_streaming_is_the_worst_of_the_committed_ones():
    steps = results("streaming_numpy.json")["step"]
    worst = max(
        value for entry in steps.values() for name, value in entry.items() if name[:5] == "over_"
    )
    assert (
        f"needs at most {worst:.2f} of its time with data in\nmemory "
        "(`benchmarks/results/streaming_numpy.json`)"
    ) in README


@pytest.mark.parametrize("page", ["README.md", "docs/guide/tables.md"])
def test_memory_of_large_files_is_the_committed_one(page):
    kinds = results("large_files.json")["files"]
    worst = max(kind["train"]["resident_over_imports_mb"] for kind in kinds.values())
    assert 300 < worst < 350
    assert min(kind["bytes"] for kind in kinds.values()) > 1.9e9
    text = " ".join((ROOT / page).read_text("utf-8").split())
    assert "train in less than 350 MB on top of the imports" in text
