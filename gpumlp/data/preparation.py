"""Preparation: raw data → what a network sees, and its output → labels or values in their unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from gpumlp import storage
from gpumlp.checks import positive_int
from gpumlp.data.categories import OTHER, kept, lookup
from gpumlp.data.fitting import check_impute, check_missing, fill_values, target_moments
from gpumlp.data.raw import Categories, listed
from gpumlp.data.scratch import Matrix, Scratch
from gpumlp.data.statistics import Numbers, only, spread, statistics
from gpumlp.errors import CheckpointError
from gpumlp.io.chunks import chunks
from gpumlp.io.types import HostArray

if TYPE_CHECKING:
    from gpumlp.data.dataset import Dataset


@dataclass(frozen=True)
class Preparation:
    """What a model must know of its data; kept in the model's file, as JSON.

    A column of categories becomes one input a category, 1 where it is the example's and else 0:
    the first layer's weights times it are an embedding of width n_1.  Unknown categories go to the
    column's other input where it has one, else all its inputs are 0.

    Attributes:
        task: "classification" or "regression".
        features: names of the columns of x, in order.
        target: the column to predict, as it was asked for; None for the source's own.
        classes: names of the labels 0, 1, …; None for regression.
        shift, scale: x is seen as (x − shift) / scale, a number a column; None for x as it is.
        y_shift, y_scale: the same for the target, a number an output.
        fill: what stands for a missing value, a number a column; None where none may be missing.
        holes: the columns that lacked values in training; each has an input more, 1 where the
            value is missing and else 0.
        categories: the categories of columns that hold such, sorted, by the columns' names.
        others: the columns whose rare categories share one input.
    """

    task: str
    features: tuple[str, ...]
    target: str | None = None
    classes: tuple[str, ...] | None = None
    shift: Numbers | None = None
    scale: Numbers | None = None
    y_shift: Numbers | None = None
    y_scale: Numbers | None = None
    fill: Numbers | None = None
    holes: tuple[str, ...] = ()
    categories: Categories = field(default_factory=dict)
    others: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        train: Dataset,
        *,
        x: bool,
        y: bool,
        impute: str = "mean",
        max_categories: int = 100,
        min_frequency: int = 5,
    ) -> Self:
        """Learnt from the training part alone.

        Args:
            train: the training part.
            x: whether to standardise features: mean 0, standard deviation 1.  A constant column
                becomes 0; categories stay 0 and 1.
            y: whether to standardise targets.
            impute: what fills holes: the "mean" or "median" of the column's other values; or
                "refuse" them.
            max_categories: of a column, the other inputs aside: its most frequent ones.
            min_frequency: how often a category must be met to have an input of its own.

        Raises:
            ValueError: an argument is not as said, a column has no values, or too many are missing
                to be refused, or a column's moments lie beyond float64.
        """
        check_impute(impute)
        positive_int(max_categories, "max_categories")
        positive_int(min_frequency, "min_frequency")
        found = statistics(train.x, train.features, train.categories)
        check_missing(train, found, impute)
        categories, others = kept(train.categories, found.often, max_categories, min_frequency)
        numeric = np.array([name not in train.categories for name in train.features])
        shift = scale = y_shift = y_scale = None
        if x:
            plain = [n for n in train.features if n not in train.categories]
            moments = only(found, numeric).moments(plain)
            shift, scale = (spread(v, numeric, d) for v, d in zip(moments, (0, 1), strict=True))
        fill = fill_values(train, found, numeric, impute)
        if y:
            y_shift, y_scale = target_moments(train)
        holes = tuple(n for n, c in zip(train.features, found.missing, strict=True) if c)
        return cls(
            train.task, train.features, train.target, train.classes, shift, scale, y_shift, y_scale,
            fill, holes, categories, others,
        )  # fmt: skip

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of the network's inputs: "age", "age missing", "colour=red", "colour other"."""
        names: list[str] = []
        for name in self.features:
            known = self.categories.get(name)
            names += [name] if known is None else [f"{name}={word}" for word in known]
            names += [f"{name} {OTHER}"] if name in self.others else []
            names += [f"{name} missing"] if name in self.holes else []
        return tuple(names)

    def inputs(self, x: HostArray, categories: Categories | None = None) -> HostArray:
        """What the network sees of raw features x (m, n), NaN where missing: (m, len(columns)).

        categories: what the positions in x stand for, `Dataset.categories`; None for the model's.

        Raises:
            ValueError: a value is missing, and the model was trained without such.
        """
        gone = np.isnan(x)
        if gone.any():
            x = self._filled(x, gone)
        if self.shift is not None:
            x = (x - np.array(self.shift)) / np.array(self.scale)
        if not self.holes and not self.categories:
            return x
        out = np.zeros((len(x), len(self.columns)))
        at = 0
        for j, name in enumerate(self.features):
            known = self.categories.get(name)
            if known is None:
                out[:, at] = x[:, j]
                at += 1
            else:
                words = (categories or self.categories)[name]
                where = lookup(words, known, name in self.others)
                position = np.where(gone[:, j], len(words), x[:, j]).astype(np.int64)
                chosen = np.where(gone[:, j], -1, where[position])
                hot = np.flatnonzero(chosen >= 0)
                out[hot, at + chosen[hot]] = 1
                at += len(known) + (name in self.others)
            if name in self.holes:
                out[:, at] = gone[:, j]
                at += 1
        return out

    def prepared(
        self, x: Matrix, dtype: npt.DTypeLike, scratch: Scratch, categories: Categories
    ) -> HostArray:
        """`inputs` of x (m, n) of any size in the network's dtype, mapped where `scratch` says so.

        Raises:
            ValueError: values beyond the dtype, or missing and not to be filled.
            OSError: the disk is full.
        """
        store = scratch.store(len(x), len(self.columns), dtype)
        for rows in chunks(x):
            seen = self.inputs(x[rows], categories)
            with np.errstate(over="ignore"):
                part = seen.astype(dtype)
            if not np.isfinite(part).all():
                largest = np.abs(seen).max()
                raise ValueError(
                    f"x has values up to {largest:g}, beyond the network's {np.dtype(dtype)}; "
                    "rescale it"
                )
            store.append(part)
        return store.array()

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
    def load(cls, path: storage.PathLike) -> Self:
        """What `gpumlp train` kept in a model's file.

        Raises:
            CheckpointError: the file is damaged, or says nothing of its data.
            OSError: it cannot be read.
        """
        return cls.from_json(path, storage.load_extra(path))

    @classmethod
    def from_json(cls, path: Any, extra: Mapping[str, Any]) -> Self:
        """What `to_json` gave, out of the file `path`; older files say nothing of holes and words.

        Raises:
            CheckpointError: the file says nothing of its data.
        """
        try:
            data = extra["data"]
            later: dict[str, Any] = {"fill": None, "holes": (), "categories": {}, "others": ()}
            known = {field.name: {**later, **data}[field.name] for field in fields(cls)}
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} does not say what data it was trained on: models of `gpumlp train` do; "
                "use gpumlp.MLP.load for others"
            ) from error
        settings: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in known.items()}
        settings["categories"] = {k: tuple(v) for k, v in settings["categories"].items()}
        return cls(**settings)

    def _filled(self, x: HostArray, gone: HostArray) -> HostArray:
        if self.fill is not None:
            filled: HostArray = np.where(gone, np.array(self.fill), x)
            return filled
        names = [f"{n} ({c})" for n, c in zip(self.features, gone.sum(axis=0), strict=True) if c]
        raise ValueError(
            f"{len(names)} of {len(self.features)} columns have missing values: {listed(names)}; "
            "the model was trained without filling such: drop those rows, or train it again"
        )
