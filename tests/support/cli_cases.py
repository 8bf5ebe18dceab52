"""A data set, and ways to run the commands, for the tests of the command line."""

import contextlib
import csv
import functools
import io
import json
import signal

import numpy as np
import typer.testing
from typer.testing import CliRunner

import gpumlp
from gpumlp.cli import run_folder
from gpumlp.cli.app import app
from gpumlp.data import load, split
from gpumlp.training.stepping import Stepping

# `CliRunner.invoke` would make all commands of the application anew, which takes most of its time
typer.testing._get_command = functools.cache(typer.testing._get_command)

RNG = np.random.default_rng(11)
M = 150
CENTRES = np.array([[0.0, 0, 0], [2, 0, 1], [0, 3, -1]])
LABELS = np.arange(M) % 3
X = (CENTRES[LABELS] + RNG.normal(size=(M, 3))) * [1, 100, 0.01] + [5, -300, 0]
NAMES = np.array(["setosa", "virginica", "versicolor"])[LABELS]
SMALL = ["--hidden", "16", "--epochs", "5", "--batch-size", "32", "--backend", "numpy", "--quiet"]
FLOWERS = ["--target", "species", *SMALL]
LONGER = ["--epochs", "12", "--lr", "0.03"]


def run(*arguments, code=0):
    """Run a command in this process and check its exit status."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def refused(*arguments):
    """Run a command that must fail with one line on stderr; returns the line."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert_one_line(result)
    return result.stderr


def assert_one_line(result):
    """Exit status 2, one line on stderr, nothing on stdout."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("gpumlp: error: ")
    assert (result.stderr.count("\n"), result.stdout) == (1, "")


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def columns(folder):
    """The columns of the history in a run's folder."""
    return json.loads((folder / "history.json").read_text())["columns"]


@contextlib.contextmanager
def pressed(monkeypatch, steps, seed=0):
    """Ctrl-C after so many steps of the network with this seed."""
    step = Stepping.step

    def press(trainer, batches, count=1):
        step(trainer, batches, 1)
        if trainer.net.seed == seed and trainer.steps == steps:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Stepping, "step", press)
        yield


def plotted(monkeypatch):
    """The arguments of all calls that draw a history from now on, by position and by name."""
    calls, plot = [], run_folder.plot_history

    def drawn(*arguments, **named):
        calls.append((arguments, named))
        plot(*arguments, **named)

    monkeypatch.setattr(run_folder, "plot_history", drawn)
    return calls


def theta(folder):
    """All parameters of the model in a run's folder."""
    return gpumlp.MLP.load(folder / "model.safetensors", "numpy").theta.flat


def write_flowers(path):
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["length", "width", "species", "depth"])
        rows.writerows([a, b, s, c] for (a, b, c), s in zip(X.tolist(), NAMES, strict=True))
    return path


def train_flowers(flowers, folder):
    run("train", flowers, *FLOWERS, "--out", folder)
    return folder / "model.safetensors"


def flowers_in_python(path, rule="adamw", seed=0, **settings):
    """What train builds for FLOWERS, in Python: trainer, training and validation data, scale."""
    train, held_out = split(load(path, "species"), 0.2, seed)
    mean, std = train.x.mean(0), train.x.std(0)
    loss = gpumlp.LOSSES["softmax_cross_entropy"].set(smoothing=0.1)
    net = gpumlp.MLP([3, 16, 3], loss=loss, backend="numpy", seed=seed)
    trainer = gpumlp.Trainer(net, rule, batch_size=32, seed=seed, **settings)
    data = ((train.x - mean) / std, train.y)
    return trainer, data, ((held_out.x - mean) / std, held_out.y), (mean, std)


def fit_flowers(path, epochs=5, fit=None, **settings):
    """What `gpumlp train` with FLOWERS does, in Python: the network, its history, and the scale."""
    trainer, data, held_out, scale = flowers_in_python(path, schedule="warmup_cosine", **settings)
    history = trainer.fit(
        *data, epochs, validation=held_out, train_metric=True, progress=False, **(fit or {})
    )
    return trainer.net, history, scale
