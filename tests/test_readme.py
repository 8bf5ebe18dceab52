"""The README's Python runs as it stands, and quotes the loops as they are."""

import json
import re
import textwrap
from pathlib import Path

import numpy as np

import gpumlp

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_example_learns(capsys):
    [example] = [block for block in BLOCKS if "Trainer" in block]
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    space = {}
    exec(example, space)
    assert space["history"]["val_metric"][-1] > 0.9
    assert "MLP(20-128-128-2" in capsys.readouterr().out


def test_an_activation_is_one_entry():
    [example] = [block for block in BLOCKS if "squareplus" in block]
    space = {}
    exec(example, space)
    f, z = space["squareplus"], np.linspace(-3, 3, 61)
    e = 1e-6
    slope = (f.f(z + e, **f.params) - f.f(z - e, **f.params)) / (2 * e)
    np.testing.assert_allclose(f.df(z, None, **f.params), slope, rtol=1e-8)
    J, _ = space["net"].cost_and_gradients(np.ones((4, 20)), [0, 1, 0, 1])
    assert np.isfinite(J)
    assert isinstance(space["net"], gpumlp.MLP)


def test_the_loops_are_quoted():
    driver = (ROOT / "gpumlp" / "backprop.py").read_text()
    loops = [block for block in BLOCKS if block.startswith(("for k", "room."))]
    assert len(loops) == 2
    for loop in loops:
        assert textwrap.indent(loop, "    ") in driver


def test_figures_are_those_of_the_committed_results():
    results = json.loads((ROOT / "benchmarks" / "results" / "cpu.json").read_text())
    committed = {
        f"{entry['gpumlp_over_this']:.2f}"
        for part in ("step", "step, 25 in a row", "epoch")
        for name, entry in results[part].items()
        if name != "gpumlp"
    }
    quoted = set(re.findall(r"\| (\d+\.\d+) of (?:its|their) time", README))
    assert quoted == committed


def test_the_figure_of_streaming_is_the_worst_of_the_committed_ones():
    path = ROOT / "benchmarks" / "results" / "streaming_numpy.json"
    steps = json.loads(path.read_text())["step"]
    worst = max(entry["over_the_room"] for entry in steps.values())
    assert (
        f"takes at most {worst:.2f} of its time on data in\nmemory (`{path.relative_to(ROOT)}`"
        in README
    )
