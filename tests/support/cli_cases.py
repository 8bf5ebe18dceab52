"""A data set and a way to run the commands, for the tests of the command line."""

import csv
import io

import numpy as np
from typer.testing import CliRunner

from gpumlp.cli.app import app

RNG = np.random.default_rng(11)
M = 150
CENTRES = np.array([[0.0, 0, 0], [2, 0, 1], [0, 3, -1]])
LABELS = np.arange(M) % 3
X = (CENTRES[LABELS] + RNG.normal(size=(M, 3))) * [1, 100, 0.01] + [5, -300, 0]
NAMES = np.array(["setosa", "virginica", "versicolor"])[LABELS]
SMALL = ["--hidden", "16", "--epochs", "5", "--batch-size", "32", "--backend", "numpy", "--quiet"]


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def write_flowers(path):
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["length", "width", "species", "depth"])
        rows.writerows([a, b, s, c] for (a, b, c), s in zip(X.tolist(), NAMES, strict=True))
    return path


def train_flowers(flowers, folder):
    run("train", flowers, "--target", "species", "--out", folder, *SMALL)
    return folder / "model.safetensors"
