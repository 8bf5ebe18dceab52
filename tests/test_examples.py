"""Every example runs as a user would run it, and its output is right."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from scipy import special

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, folder: Path) -> str:
    """Run an example in `folder` and return what it prints."""
    [path] = EXAMPLES.glob(f"{name}*.py")
    environment = os.environ | {"PYTHONIOENCODING": "utf-8", "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        capture_output=True, encoding="utf-8", check=False, cwd=folder, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def numbers(text: str, after: str) -> list[float]:
    """Return the numbers of the line that begins with `after`; 12% is 0.12."""
    [line] = [line for line in text.splitlines() if line.startswith(after)]
    found = re.findall(r"(\d+(?:\.\d+)?(?:e-?\d+)?)(%?)", line.removeprefix(after))
    return [float(value) / (100 if percent else 1) for value, percent in found]


def test_examples_are_numbered_and_each_is_tested():
    names = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert all(re.fullmatch(r"\d\d_[a-z_]+\.py", name) for name in names)
    tested = re.findall(r'run\("(\d\d)"', Path(__file__).read_text(encoding="utf-8"))
    assert sorted(tested) == [name[:2] for name in names]


def test_digits_in_15_lines(tmp_path):
    printed = run("01", tmp_path)
    assert numbers(printed, "accuracy ")[0] > 0.95
    assert len(re.findall(r"^   [ ░▒▓█]{16}$", printed, re.MULTILINE)) == 8
    code = (EXAMPLES / "01_digits.py").read_text(encoding="utf-8").split('"""', 2)[2]
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 15


def test_custom_activation_extrapolates(tmp_path):
    printed = run("02", tmp_path)
    assert numbers(printed, "f' and central differences differ by at most ")[0] < 1e-8
    errors = {name: numbers(printed, name)[-2:] for name in ("relu", "tanh", "snake, a = 1")}
    assert errors["snake, a = 1"][0] < 0.02
    assert errors["snake, a = 1"][1] < min(errors["relu"][1], errors["tanh"][1]) / 3


def test_moving_outputs_along_their_gradients_corrects_predictions(tmp_path):
    printed = run("03", tmp_path)
    for layer in ("h0 = x", "h1", "h2", "h3"):
        by, guided, blind = numbers(printed, layer)
        assert 0 < by < 0.5
        assert guided > 0.9
        assert blind < 0.2


def test_file_larger_than_the_memory_of_its_training(tmp_path):
    printed = run("04", tmp_path)
    file, cast, peak, accuracy = (
        numbers(printed, line)[-1]
        for line in ("on disk, as uint8", "cast to float32", "arrays at the peak", "accuracy")
    )
    assert (file, cast) == (100, 400)
    assert peak < 40
    assert accuracy > 0.88
    assert list(tmp_path.iterdir()) == []


def test_torch_model_learns_through_fused_layers(tmp_path):
    pytest.importorskip("torch")
    printed = run("05", tmp_path)
    assert numbers(printed, "accuracy on new days: ")[0] > 0.9
    assert numbers(printed, "correlation of the learnt numbers with the warmth: ")[0] > 0.98
    assert numbers(printed, "difference from torch's own layers: ")[0] < 1e-5


def test_grid_search_finds_a_network(tmp_path):
    lines = run("06", tmp_path).splitlines()
    areas = [float(line.split()[-1]) for line in lines[1:-1]]
    assert len(areas) == 8
    assert areas == sorted(areas, reverse=True)
    assert areas[0] > 0.98
    assert float(lines[-1].split()[-1]) > 0.97


def test_model_is_exported_and_served(tmp_path):
    printed = run("07", tmp_path)
    assert numbers(printed, "sent ")[0] == 171
    assert numbers(printed, "accuracy: ")[0] > 0.9
    assert numbers(printed, "largest difference from net.predict: ")[0] < 1e-5
    assert "a row of three numbers is refused: HTTP Error 400: send rows of 30 numbers" in printed
    assert (tmp_path / "tumours.onnx").stat().st_size > 4 * (30 * 64 + 64 * 2)


def test_burgers_at_unseen_viscosities(tmp_path):
    printed = run("08", tmp_path)
    errors = [numbers(line, "ν = ")[-1] for line in printed.splitlines()]
    assert len(errors) == 3
    assert max(errors) < 0.03
    picture = matplotlib.image.imread(tmp_path / "burgers.png")
    assert picture.shape[0] > 300
    assert picture[..., :3].std() > 0.05


def test_solver_of_burgers_is_right():
    """The exact solution is −2ν φ_x / φ for a φ that diffuses (Hopf 1950, Cole 1951)."""
    space: dict[str, object] = {}
    code = (EXAMPLES / "08_burgers.py").read_text(encoding="utf-8")
    exec(code.partition("\nknown =")[0], space)
    nu, n = 0.1, np.arange(1, 100)
    x, t, solve = np.asarray(space["X"]), np.asarray(space["TIMES"]), space["solve"]
    mode = np.exp(-nu * n**2 * t[:, None]) * special.ive(n, 1 / (2 * nu))
    phi = special.ive(0, 1 / (2 * nu)) + 2 * mode @ np.cos(np.outer(n, x))
    exact = 4 * nu * (mode * n) @ np.sin(np.outer(n, x)) / phi
    np.testing.assert_allclose(solve(nu), exact, atol=1e-6)
