"""Preparation: raw data → what a network sees, and its output → labels or values in their unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from gpumlp.data.raw import listed
from gpumlp.errors import CheckpointError

if TYPE_CHECKING:
    from gpumlp.data.dataset import Dataset

HostArray = npt.NDArray[Any]
Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Preparation:
    """What a model must know of its data; kept in the model's file, as JSON.

    Attributes:
        task: "classification" or "regression".
        features: names of the columns of x, in order.
        target: the column to predict, as it was asked for; None for the source's own.
        classes: names of the labels 0, 1, …; None for regression.
        shift, scale: x is seen as (x − shift) / scale, a number a column; None for x as it is.
        y_shift, y_scale: the same for the target, a number an output.
    """

    task: str
    features: tuple[str, ...]
    target: str | None = None
    classes: tuple[str, ...] | None = None
    shift: Numbers | None = None
    scale: Numbers | None = None
    y_shift: Numbers | None = None
    y_scale: Numbers | None = None

    @classmethod
    def of(cls, train: Dataset, *, x: bool, y: bool) -> Self:
        """Learnt from the training part alone.

        x, y: whether to standardise features, targets: mean 0, standard deviation 1.  A constant
            column becomes 0.

        Raises:
            ValueError: a column's moments lie beyond float64.
        """
        shift, scale, y_shift, y_scale = None, None, None, None
        if x:
            shift, scale = _moments(train.x, train.features)
        if y:
            values = train.y.reshape(len(train.y), -1)
            name = "the target" if train.target is None else f"the target {train.target}"
            several = values.shape[1] > 1
            names = [f"{name}[{j}]" if several else name for j in range(values.shape[1])]
            y_shift, y_scale = _moments(values, names)
        return cls(
            train.task, train.features, train.target, train.classes, shift, scale, y_shift, y_scale
        )

    def inputs(self, x: HostArray) -> HostArray:
        """What the network sees of raw features (m, n)."""
        if self.shift is None:
            return x
        result: HostArray = (x - np.array(self.shift)) / np.array(self.scale)
        return result

    def targets(self, y: HostArray) -> HostArray:
        """What the network is trained towards: labels as they are, values as (m, k) float64."""
        if self.task == "classification":
            return y
        y = y.reshape(len(y), -1).astype(np.float64)
        return y if self.y_shift is None else (y - np.array(self.y_shift)) / np.array(self.y_scale)

    def outputs(self, p: HostArray) -> HostArray:
        """From ``net.predict``: probabilities (m, classes), or values (m, k) in its unit."""
        p = p.astype(np.float64)
        if self.classes is not None:
            return np.hstack([1 - p, p]) if p.shape[1] == 1 else p
        return p if self.y_shift is None else p * np.array(self.y_scale) + np.array(self.y_shift)

    def to_json(self) -> dict[str, Any]:
        """A mapping that JSON can hold."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_json(cls, path: Any, extra: Mapping[str, Any]) -> Self:
        """What `to_json` gave, out of the file `path`.

        Raises:
            CheckpointError: the file says nothing of its data.
        """
        try:
            known = {field.name: extra["data"][field.name] for field in fields(cls)}
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} does not say what data it was trained on: models of `gpumlp train` do; "
                "use gpumlp.MLP.load for others"
            ) from error
        settings: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in known.items()}
        return cls(**settings)


def _moments(x: HostArray, names: Sequence[str]) -> tuple[Numbers, Numbers]:
    """Mean and standard deviation of each column; the value and 1 of a constant one."""
    low, constant = x.min(axis=0), x.min(axis=0) == x.max(axis=0)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        mean = np.where(constant, low, x.mean(axis=0, dtype=np.float64))
        std = np.where(constant, 1.0, x.std(axis=0, dtype=np.float64))
    # a deviation whose square is beyond float64 comes out as inf, below it as 0
    bad = ~(np.isfinite(mean) & np.isfinite(std) & (std > 0))
    if bad.any():
        raise ValueError(
            "values too large or too small to be standardised: "
            f"{listed(name for name, odd in zip(names, bad.tolist(), strict=True) if odd)}; "
            "rescale them, or take logarithms"
        )
    return tuple(mean.tolist()), tuple(std.tolist())
