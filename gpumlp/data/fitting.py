"""What a preparation learns of the training part: what fills its holes, the target's moments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpumlp.data.raw import listed
from gpumlp.data.statistics import Numbers, Statistics, median, spread, statistics
from gpumlp.io.types import HostArray

if TYPE_CHECKING:
    from gpumlp.data.dataset import Dataset

IMPUTE = ("mean", "median", "refuse")


def check_impute(impute: str) -> None:
    """Raise for another word than those of `IMPUTE`."""
    if impute not in IMPUTE:
        raise ValueError(f"impute must be one of {', '.join(IMPUTE)}, got {impute!r}")


def check_missing(train: Dataset, found: Statistics, impute: str) -> None:
    """Raise where a column has no value to learn from, or holes are refused."""
    m, n = train.x.shape
    missing = dict(zip(train.features, found.missing.tolist(), strict=True))
    empty = [name for name, count in missing.items() if count == m]
    if empty:
        raise ValueError(
            f"{train.name}: {len(empty)} of {n} feature columns have no values in the training "
            f"part: {listed(empty)}; leave them out"
        )
    holes = [f"{name} ({count})" for name, count in missing.items() if count]
    if holes and impute == "refuse":
        raise ValueError(
            f"{train.name}: {len(holes)} of {n} feature columns have missing values: "
            f"{listed(holes)}; drop such rows, or have them filled, --impute mean"
        )


def fill_values(
    train: Dataset, found: Statistics, numeric: HostArray, impute: str
) -> Numbers | None:
    """What stands for a missing value, a number a column, 0 for categories; None to refuse them."""
    if impute == "refuse":
        return None
    fill = spread(found.mean[numeric], numeric, 0)
    if impute == "mean":
        return fill
    holes = set(np.flatnonzero(numeric & (found.missing > 0)).tolist())
    return tuple(median(train.x, j) if j in holes else v for j, v in enumerate(fill))


def target_moments(train: Dataset) -> tuple[Numbers, Numbers]:
    """Mean and standard deviation of each column of the target."""
    values = train.y.reshape(len(train.y), -1)
    name = "the target" if train.target is None else f"the target {train.target}"
    several = values.shape[1] > 1
    names = [f"{name}[{j}]" if several else name for j in range(values.shape[1])]
    return statistics(values).moments(names)
