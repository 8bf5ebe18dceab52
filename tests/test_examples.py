"""Every example runs as a user would run it, and what it prints is so."""

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

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, folder: Path) -> str:
    """What an example prints; whatever it writes, it writes into `folder`."""
    [path] = EXAMPLES.glob(f"{name}*.py")
    # one thread: beside other tests, threads that wait by spinning take each other's cores
    alone = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = os.environ | alone | {"PYTHONIOENCODING": "utf-8", "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        capture_output=True, encoding="utf-8", check=False, cwd=folder, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def numbers(text: str, after: str) -> list[float]:
    """The numbers of the line that begins with `after`; 12% is 0.12."""
    [line] = [line for line in text.splitlines() if line.startswith(after)]
    found = re.findall(r"(\d+(?:\.\d+)?(?:e-?\d+)?)(%?)", line.removeprefix(after))
    return [float(value) / (100 if percent else 1) for value, percent in found]


def test_they_are_numbered_and_each_is_tested():
    names = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert all(re.fullmatch(r"\d\d_[a-z_]+\.py", name) for name in names)
    tested = re.findall(r'run\("(\d\d)"', Path(__file__).read_text(encoding="utf-8"))
    assert sorted(tested) == [name[:2] for name in names]


def test_digits_in_15_lines(tmp_path):
    said = run("01", tmp_path)
    assert numbers(said, "accuracy ")[0] > 0.95
    assert len(re.findall(r"^   [ ░▒▓█]{16}$", said, re.MULTILINE)) == 8
    code = (EXAMPLES / "01_digits.py").read_text(encoding="utf-8").split('"""', 2)[2]
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 15


def test_a_custom_activation_goes_on_beyond_the_data(tmp_path):
    said = run("02", tmp_path)
    assert numbers(said, "f' beside central differences: within ")[0] < 1e-8
    errors = {name: numbers(said, name)[-2:] for name in ("relu", "tanh", "snake, a = 1")}
    assert errors["snake, a = 1"][0] < 0.02
    assert errors["snake, a = 1"][1] < min(errors["relu"][1], errors["tanh"][1]) / 3


def test_gradients_say_what_the_outputs_should_have_been(tmp_path):
    said = run("03", tmp_path)
    for layer in ("h0 = x", "h1", "h2", "h3"):
        by, guided, blind = numbers(said, layer)
        assert 0 < by < 0.5
        assert guided > 0.9
        assert blind < 0.2


def test_a_file_larger_than_its_training(tmp_path):
    said = run("04", tmp_path)
    file, cast, peak, accuracy = (
        numbers(said, line)[-1]
        for line in ("on disk, as uint8", "cast to float32", "arrays at the peak", "accuracy")
    )
    assert (file, cast) == (100, 400)
    assert peak < 40
    assert accuracy > 0.88
    assert list(tmp_path.iterdir()) == []


def test_a_torch_model_learns_through_fused_layers(tmp_path):
    pytest.importorskip("torch")
    said = run("05", tmp_path)
    assert numbers(said, "accuracy on days that it has not seen: ")[0] > 0.9
    assert numbers(said, "correlation of the cities' learnt numbers and their warmth: ")[0] > 0.98
    assert numbers(said, "difference from torch's own layers: ")[0] < 1e-5


def test_a_grid_search_finds_a_network(tmp_path):
    lines = run("06", tmp_path).splitlines()
    areas = [float(line.split()[-1]) for line in lines[1:-1]]
    assert len(areas) == 8
    assert areas == sorted(areas, reverse=True)
    assert areas[0] > 0.98
    assert float(lines[-1].split()[-1]) > 0.97


def test_a_model_is_exported_and_served(tmp_path):
    said = run("07", tmp_path)
    assert numbers(said, "asked for ")[0] == 171
    assert numbers(said, "right: ")[0] > 0.9
    assert numbers(said, "farthest from net.predict: ")[0] < 1e-5
    assert "asked with three numbers: HTTP Error 400: send rows of 30 numbers" in said
    assert (tmp_path / "tumours.onnx").stat().st_size > 4 * (30 * 64 + 64 * 2)


def test_burgers_at_unseen_viscosities(tmp_path):
    said = run("08", tmp_path)
    errors = [numbers(line, "ν = ")[-1] for line in said.splitlines()]
    assert len(errors) == 3
    assert max(errors) < 0.03
    picture = matplotlib.image.imread(tmp_path / "burgers.png")
    assert picture.shape[0] > 300
    assert picture[..., :3].std() > 0.05


def test_the_solver_of_burgers_is_right():
    """Beside the exact one, −2ν φ_x / φ of a φ that diffuses (Hopf 1950, Cole 1951)."""
    space: dict[str, object] = {}
    code = (EXAMPLES / "08_burgers.py").read_text(encoding="utf-8")
    exec(code.partition("\nknown =")[0], space)
    nu, n = 0.1, np.arange(1, 100)
    x, t, solve = np.asarray(space["X"]), np.asarray(space["TIMES"]), space["solve"]
    mode = np.exp(-nu * n**2 * t[:, None]) * special.ive(n, 1 / (2 * nu))
    phi = special.ive(0, 1 / (2 * nu)) + 2 * mode @ np.cos(np.outer(n, x))
    exact = 4 * nu * (mode * n) @ np.sin(np.outer(n, x)) / phi
    np.testing.assert_allclose(solve(nu), exact, atol=1e-6)
