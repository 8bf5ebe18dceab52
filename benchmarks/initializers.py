"""The distribution of the first parameters: what each costs or gains in short and long trainings.

    python -m benchmarks.initializers DIR [--only NAMES] [--write]

DIR has the packages of `benchmarks.data_sets`. At most 2,500 rows of each data set are used, with
standardised inputs and, for numbers, targets.

Networks with 1, 3 and 6 hidden layers are trained by AdamW at the command line's defaults (learning
rate 0.001, minibatches of 64), float32, backend "cpu". The five members of an ensemble have a split
and a seed each: 60 % for training, 15 % for validation, 25 % for the test. Member i of each
distribution has the same split, the same orders and the same random numbers behind its parameters.

The cost is the log-loss of the test part, for numbers the RMSE of the standardised targets; the
error is the share of wrong classes. "short" is after 5 epochs, "long" after 60, "best" after the
epoch of the lowest validation cost. "he, glorot" has He's weights in the hidden layers and Glorot's
in the last. "torch" is the default of `torch.nn.Linear`, "sklearn" that of scikit-learn's MLP; both
draw biases.

"against" is the mean difference from torch or sklearn over the members, in standard errors of that
difference; above 0 the distribution is worse. A member's difference is the mean, over the depths
and activations, of the logarithm of the ratio of the figures, so that no network outweighs others;
of classes' errors it is the mean of the differences. The last rows count the data sets on which a
distribution is behind torch, and behind sklearn, by more than one standard error. Of two equal
distributions, one would be so on 0.19 of the sets, by chance. Another table compares the default of
`MLP` with the one before it. With --write all is stored in results/.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split

import gpumlp
from benchmarks.data_sets import NUMBERS, TASKS, Array, packages
from benchmarks.output import write
from gpumlp.cli.output import print_table

Raw = dict[str, dict[str, dict[int, dict[str, dict[str, list[float]]]]]]
"""Data set, activation, number of hidden layers, distribution, column: a figure of each member."""
Networks = list[tuple[str, int]]
"""Activations, and numbers of hidden layers."""


class Start(NamedTuple):
    """A distribution: of W in the hidden layers and in the last one, and of all biases.

    b is uniform within ± the limit of this uniform distribution of W; None: b = 0.
    """

    hidden: str
    last: str
    biases: str | None = None


STARTS = {
    "fan_in": Start("fan_in", "fan_in"),
    "fan_in, glorot": Start("fan_in", "glorot"),
    "lecun, glorot": Start("lecun", "glorot"),
    "glorot": Start("glorot", "glorot"),
    "he, glorot": Start("he", "glorot"),
    "orthogonal, glorot": Start("orthogonal", "glorot"),
    "isometric, glorot": Start("isometric", "glorot"),
    "torch": Start("fan_in", "fan_in", "fan_in"),
    "sklearn": Start("glorot", "glorot", "glorot"),
}
RIVALS = "torch", "sklearn"
DEFAULT = "isometric, glorot"  # of MLP
BEFORE = {"relu, gelu": "lecun, glorot", "tanh": "glorot"}  # the default before this one
FIGURES = "cost", "error"
ACTIVATIONS = {"relu, gelu": ("relu", "gelu"), "tanh": ("tanh",)}
HIDDEN = {1: (100,), 3: (64,) * 3, 6: (64,) * 6}
SHORT, LONG = 5, 60
LENGTHS = "short", "long", "best"
ROWS = 2500
SEEDS = 5


class Task(NamedTuple):
    """A data set, (m, n_0) and (m,) or (m, 1), and for each member its three parts of the rows."""

    x: Array
    y: Array
    parts: list[tuple[Array, Array, Array]]

    @property
    def numbers(self) -> bool:
        """Whether the targets are numbers, not classes."""
        return self.y.ndim == 2


def prepared(name: str, packages: Path) -> Task:
    """At most ROWS rows, standardised, and the split of each member."""
    x, y = TASKS[name](packages)
    kept = np.random.default_rng(0).permutation(len(x))[:ROWS]
    x, y = x[kept], y[kept]
    scale = x.std(axis=0)
    x = ((x - x.mean(axis=0)) / np.where(scale > 0, scale, 1)).astype("f4")
    if name in NUMBERS:
        classes, y = None, ((y - y.mean()) / y.std()).astype("f4")[:, None]
    else:
        classes = y = np.unique(y, return_inverse=True)[1]
    parts = []
    for seed in range(SEEDS):
        rest, test = train_test_split(
            np.arange(len(x)), test_size=0.25, random_state=seed, stratify=classes
        )
        train, validation = train_test_split(
            rest, test_size=0.2, random_state=seed,
            stratify=None if classes is None else classes[rest],
        )  # fmt: skip
        parts.append((train, validation, test))
    return Task(x, y, parts)


def draw(net: gpumlp.MLP, start: Start) -> None:
    """Assign first parameters; the uniform numbers behind them are those of the net's seed."""
    rng, other = np.random.default_rng(net.seed), np.random.default_rng((net.seed, 1))
    for i, layer in enumerate(net.layers):
        n_out, n_in = layer.W.shape
        name = start.last if i == net.L - 1 else start.hidden
        layer.W[...] = gpumlp.INITIALIZERS[name].weights(rng, n_out, n_in)
        if start.biases:
            limits = {"fan_in": 1 / math.sqrt(n_in), "glorot": math.sqrt(6 / (n_in + n_out))}
            layer.b[...] = other.uniform(-1, 1, n_out) * limits[start.biases]


class Figures(gpumlp.Callback):
    """The figures of the validation and the test part after each epoch."""

    def __init__(self, task: Task, member: int) -> None:
        self.task, self.rows = task, task.parts[member][1:]
        self.epochs: list[list[tuple[float, float]]] = []

    def on_epoch_end(self, trainer: Any, row: Mapping[str, float]) -> None:
        """Add an epoch."""
        self.epochs.append([self._figures(trainer.net, rows) for rows in self.rows])

    def _figures(self, net: gpumlp.MLP, rows: Array) -> tuple[float, float]:
        y = self.task.y[rows]
        J, p = net.cost_and_prediction(self.task.x[rows], y)
        if self.task.numbers:
            return math.sqrt(J), math.sqrt(J)
        return J, float(np.mean(p.argmax(axis=1) != y))


def trained(task: Task, f: str, hidden: tuple[int, ...], start: Start) -> dict[str, list[float]]:
    """The test figures of the members after a short and a long training, and of the best epoch."""
    outputs = 1 if task.numbers else int(task.y.max()) + 1
    ensemble = gpumlp.Ensemble(
        SEEDS, [task.x.shape[1], *hidden, outputs], f, backend="cpu", initializer="zeros",
        loss="squared_error" if task.numbers else "softmax_cross_entropy",
    )  # fmt: skip
    for net in ensemble:
        draw(net, start)
    seen = [Figures(task, member) for member in range(SEEDS)]
    gpumlp.Trainer(ensemble, "adamw", 1e-3, batch_size=64).fit(
        task.x, task.y, epochs=LONG, metric=None, callbacks=lambda member: [seen[member]],
        folds=[(train, validation) for train, validation, _ in task.parts],
    )  # fmt: skip
    each = np.array([figures.epochs for figures in seen])  # members, epochs, parts, figures
    best = each[:, :, 0, 0].argmin(axis=1)
    at = {"short": SHORT - 1, "long": -1, "best": best}
    return {
        f"{length}, {figure}": each[np.arange(SEEDS), epoch, 1, i].tolist()
        for length, epoch in at.items()
        for i, figure in enumerate(FIGURES)
    }


def scores(raw: Raw, name: str, networks: Networks, start: str, column: str) -> Array:
    """The figure of each member, the mean over networks: the logarithm of a cost, or an error."""
    figures = np.array([raw[name][f][depth][start][column] for f, depth in networks])
    return (np.log(figures) if logarithmic(name, column) else figures).mean(axis=0)


def logarithmic(name: str, column: str) -> bool:
    """Whether figures are compared by their ratio, and not by their difference."""
    return name in NUMBERS or column.endswith("cost")


def compared(raw: Raw, name: str, networks: Networks, column: str) -> dict[str, list[float]]:
    """For each distribution its mean figure, and how far it is behind each rival."""
    found = {}
    for start in raw[name][networks[0][0]][networks[0][1]]:
        own = scores(raw, name, networks, start, column)
        mean = math.exp(own.mean()) if logarithmic(name, column) else float(own.mean())
        gaps = [own - scores(raw, name, networks, rival, column) for rival in RIVALS]
        found[start] = [round(value, 4) for value in (mean, *map(behind, gaps))]
    return found


def behind(gaps: Array) -> float:
    """The mean of the members' differences in standard errors."""
    error = float(gaps.std(ddof=1)) / math.sqrt(len(gaps))
    return float(gaps.mean()) / error if error else 0.0


def change(raw: Raw, name: str, networks: Networks, column: str, before: str) -> list[float]:
    """What DEFAULT is to `before`: the ratio or difference of the figures, and its `behind`."""
    gaps = np.subtract(*(scores(raw, name, networks, s, column) for s in (DEFAULT, before)))
    mean = float(gaps.mean())
    ratio = math.exp(mean) if logarithmic(name, column) else mean
    return [round(ratio, 4), round(behind(gaps), 4)]


def named(raw: Raw, column: str) -> list[str]:
    """The data sets that have the figure."""
    return [name for name in raw if not (name in NUMBERS and column.endswith("error"))]


def summary(raw: Raw) -> dict[str, Any]:
    """The tables: activations, column, data set, distribution; and the means by depth."""
    columns = [f"{length}, {figure}" for length in LENGTHS for figure in FIGURES]
    tables: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    for title, group in ACTIVATIONS.items():
        networks = [(f, depth) for f in group for depth in HIDDEN]
        tables[title] = {
            column: {n: compared(raw, n, networks, column) for n in named(raw, column)}
            for column in columns
        }
        changes[title] = {
            column: {n: change(raw, n, networks, column, BEFORE[title]) for n in named(raw, column)}
            for column in columns
        }
    depths: dict[str, Any] = {}
    for (title, group), depth, length in itertools.product(ACTIVATIONS.items(), HIDDEN, LENGTHS):
        networks = [(f, depth) for f in group]
        logs = {
            start: np.mean([scores(raw, n, networks, start, f"{length}, cost") for n in raw])
            for start in STARTS
        }
        ratios = {start: math.exp(log - logs["torch"]) for start, log in logs.items()}
        depths[f"{title}, {depth} hidden, {length}"] = {k: round(v, 4) for k, v in ratios.items()}
    now = {"default": DEFAULT, "before": BEFORE, "tables": changes}
    return {"seeds": SEEDS, "tables": tables, "change": now, "cost_over_torch": depths}


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    for title, columns in found["tables"].items():
        for column, rows in columns.items():
            counts = {start: [0, 0] for start in STARTS}
            lines = []
            for name, by in rows.items():
                cells = [f"{mean:.4f} {a:+.1f} {b:+.1f}" for mean, a, b in by.values()]
                lines.append([name, *cells])
                for start, (_, *gaps) in by.items():
                    counts[start] = [n + (z > 1) for n, z in zip(counts[start], gaps, strict=True)]
            last = [f"{a} and {b} of {len(rows)}" for a, b in counts.values()]
            print_table((f"{title}: {column}", *STARTS), [*lines, ["behind by more than 1", *last]])
    for title, columns in found["change"]["tables"].items():
        lines = []
        for name in columns["short, cost"]:
            cells = [by.get(name) for by in columns.values()]
            lines.append(
                [name, *(f"{cell[0]:.4f} {cell[1]:+.1f}" if cell else "" for cell in cells)]
            )
        print_table((f"{title}: {DEFAULT} against {BEFORE[title]}", *columns), lines)
    rows = [
        [key, *(f"{r:.3f}" for r in by.values())] for key, by in found["cost_over_torch"].items()
    ]
    print_table(("cost over torch's", *STARTS), rows)


def main() -> None:
    """Train all networks, print the tables, and write them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("packages", type=Path, metavar="DIR", help="folder of the packages")
    parser.add_argument("--only", default="", metavar="NAMES", help="data sets, with commas")
    parser.add_argument("--write", action="store_true", help="store the figures")
    asked = parser.parse_args()
    versions, raw = packages(asked.packages), {}
    for name in asked.only.split(",") if asked.only else TASKS:
        began, task = time.perf_counter(), prepared(name, asked.packages)
        raw[name] = {
            f: {
                depth: {key: trained(task, f, HIDDEN[depth], s) for key, s in STARTS.items()}
                for depth in HIDDEN
            }
            for f in itertools.chain(*ACTIVATIONS.values())
        }
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    found = summary(raw)
    show(found)
    write("initializers", {"packages": versions, **found})


if __name__ == "__main__":
    main()
