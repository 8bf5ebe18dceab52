"""Preparation: source data → inputs of a network, and its outputs → labels or values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gpumlp import storage
from gpumlp.checks import positive_int
from gpumlp.data import fitting, stored
from gpumlp.data.codes import MORE, Embed, set_to_zero
from gpumlp.data.dataset import Categories, Dataset
from gpumlp.data.date_parts import on_one_day, part_inputs
from gpumlp.data.dates import DateFormat
from gpumlp.data.layout import Layout, Lookup
from gpumlp.data.numbers import NumberFormat
from gpumlp.data.scratch import Matrix, Scratch
from gpumlp.io.chunks import chunks
from gpumlp.io.types import HostArray


@dataclass(frozen=True)
class Preparation:
    """How a model's data is prepared. A model's file stores it as JSON.

    A column of categories becomes one input for each category: 1 in the examples of that category,
    0 elsewhere. The first layer's weights for these inputs are an embedding of width n_1. Unknown
    categories set the column's input for other categories, if it has one, else none. An embedded
    column becomes one input, the code of the category, which `MLP` looks up in a table of its own.

    Attributes:
        task: "classification" or "regression".
        features: the names of x's columns, in order.
        target: the column to predict, as requested; None for the source's own target.
        classes: the names of the labels 0, 1, …; None for regression.
        shift, scale: the inputs are (x − shift) / scale, column by column; None for x itself.
        y_shift, y_scale: the same for the target, with a number for each output.
        fill: a number for each column that replaces missing values; None if none may be missing.
        holes: the columns with missing values in training. Each has another input, 1 if missing.
        categories: for each column of categories, by name, its categories, sorted.
        others: the columns whose rare categories share one input.
        formats: how tables write the numbers or the dates of some columns, by name.
        dates: for each column of dates, by name, the parts that varied in training: "month",
            "weekday", "hour".  Each has three more inputs, see `date_parts.part_inputs`.
        constant: the columns of numbers that had one value in training, and this value.  Training
            says nothing about others, so all of its values are replaced by it.
        embedded: the columns of categories that become codes, and the length of their vectors.
        zones: for each column of times, by name, whether the training data gave their time zone.
    """

    task: str
    features: tuple[str, ...]
    target: str | None = None
    classes: tuple[str, ...] | None = None
    shift: fitting.Numbers | None = None
    scale: fitting.Numbers | None = None
    y_shift: fitting.Numbers | None = None
    y_scale: fitting.Numbers | None = None
    fill: fitting.Numbers | None = None
    holes: tuple[str, ...] = ()
    categories: Categories = field(default_factory=dict)
    others: tuple[str, ...] = ()
    formats: Mapping[str, NumberFormat | DateFormat] = field(default_factory=dict)
    dates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    constant: Mapping[str, float] = field(default_factory=dict)
    embedded: Mapping[str, int] = field(default_factory=dict)
    zones: Mapping[str, bool] = field(default_factory=dict)

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
        embed: int | Mapping[str, int] | Embed | None = None,
    ) -> Self:
        """Learn a preparation from the training part only.

        Args:
            train: the training part.
            x: whether to standardise features to mean 0 and standard deviation 1. A constant column
                becomes 0; categories stay 0 and 1.
            y: whether to standardise targets.
            impute: what replaces missing values: the "mean" or "median" of the column's other
                values; or "refuse" to raise an error.
            max_categories: the largest number of categories of a column with an input of their own.
            min_frequency: the smallest frequency of a category with an input or a code of its own.
            embed: the number of entries of the vectors of embedded columns: of all columns of
                categories that have more categories than that, or of each by name.

        Raises:
            ValueError: an argument is invalid, a column has no values, values are missing and
                refused, or float64 cannot represent the moments of a column.
        """
        fitting.check_impute(impute)
        positive_int(max_categories, "max_categories")
        positive_int(min_frequency, "min_frequency")
        found = fitting.statistics(train.x, train.features, train.categories)
        fitting.check_missing(train, found, impute)
        categories, others, embedded = fitting.select_categories(
            train, found, max_categories, min_frequency, Embed.of(embed)
        )
        numeric = np.array([name not in categories for name in train.features])
        shift = scale = y_shift = y_scale = None
        if x:
            mean, std = found.moments(train.features)
            shift = tuple(np.where(numeric, mean, 0).tolist())
            scale = tuple(np.where(numeric, std, 1).tolist())
        fill = fitting.fill_values(train, found, numeric, impute)
        if y:
            y_shift, y_scale = fitting.target_moments(train)
        holes = tuple(n for n, c in zip(train.features, found.missing, strict=True) if c)
        return cls(
            train.task, train.features, train.target, train.classes, shift, scale, y_shift, y_scale,
            fill, holes, categories, others, dict(train.formats), fitting.date_parts(train),
            found.constant(train.features, numeric), embedded, dict(train.zones),
        )  # fmt: skip

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the network's inputs: "age", "age missing", "colour=red", "sold month"."""
        return self.layout.names

    @property
    def embed(self) -> dict[int, tuple[int, int]]:
        """The argument `embed` of the network; c counts all others and missing values, too."""
        widths, words = self.embedded, self.categories
        return {at: (len(words[name]) + MORE, widths[name]) for at, name in self._codes}

    def begin(self, net: Any) -> None:
        """Set the vectors of a new network, for codes that the training never has, to 0.

        Raises ValueError if the network was built without `embed`.
        """
        others, holes = {*self.others}, {*self.holes}
        never = {}
        for at, name in self._codes:
            n = len(self.categories[name])
            never[at] = [n] * (name not in others) + [n + 1] * (name not in holes)
        set_to_zero(net, never)

    def inputs(self, x: HostArray, categories: Categories | None = None) -> HostArray:
        """The inputs (m, len(columns)) of the network for features x (m, n), NaN where missing.

        categories: what the positions in x stand for, `Dataset.categories`; None for the model's.

        Raises:
            ValueError: a value is missing, and the model was trained without filling.
        """
        found = self._lookups if categories is None else self.layout.lookups(categories)
        return self._inputs(x, found)

    def unseen_counts(self, x: HostArray) -> HostArray:
        """The number of values in each column of x (m, n) that training never saw: (n,) int64.

        These are unknown categories, missing values if training had none in the column, other
        values or days of a column that had one, and numbers very far from those of training.
        """
        counts: HostArray = np.isnan(x).sum(axis=0)
        counts[self.layout.holes] = 0
        middle, reach = self._seen
        counts += (np.abs(x - middle) > reach).sum(axis=0)
        j, n, others = self.layout.words
        counts[j] += ((x[:, j] >= n) & (others == 0) & (n > 0)).sum(axis=0)
        return counts

    def prepared(
        self, x: Matrix, dtype: npt.DTypeLike, scratch: Scratch, categories: Categories
    ) -> HostArray:
        """`inputs` for x (m, n) of any size, in the network's dtype; in a mapped file if large.

        Raises ValueError if values exceed the dtype, and otherwise as `inputs` and `Scratch.file`.
        """
        store = scratch.store(len(x), len(self.columns), dtype)
        lookups = self.layout.lookups(categories)
        for rows in chunks(x):
            inputs = self._inputs(x[rows], lookups)
            with np.errstate(over="ignore"):
                part = inputs.astype(dtype)
            if not np.isfinite(part).all():
                raise ValueError(
                    f"x has values up to {np.abs(inputs).max():g}, beyond the network's "
                    f"{np.dtype(dtype)}; rescale it"
                )
            store.append(part)
        return store.array()

    def targets(self, y: HostArray) -> HostArray:
        """The targets of training: labels unchanged, values standardised as (m, k) float64."""
        if self.task == "classification":
            return y
        y = y.reshape(len(y), -1).astype(np.float64)
        return y if self.y_shift is None else (y - np.array(self.y_shift)) / np.array(self.y_scale)

    def outputs(self, p: HostArray) -> HostArray:
        """Probabilities (m, classes) or values (m, k) in their unit, for p from `MLP.predict`."""
        p = p.astype(np.float64)
        if self.classes is not None:
            return np.hstack([1 - p, p]) if p.shape[1] == 1 else p
        return p if self.y_shift is None else p * np.array(self.y_scale) + np.array(self.y_shift)

    def to_json(self) -> dict[str, Any]:
        """The settings as a mapping that JSON can store."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def load(cls, path: storage.PathLike) -> Self:
        """The preparation that `gpumlp train` stored in a model's file.

        Raises:
            CheckpointError: the file is damaged, or does not describe its data.
            OSError: the file cannot be read.
        """
        return cls.from_json(path, storage.load_extra(path))

    @classmethod
    def from_json(cls, path: Any, extra: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`, for the contents `extra` of a file; raises as `load`."""
        return cls(**stored.from_json(path, extra, [field.name for field in fields(cls)]))

    def _inputs(self, x: HostArray, lookups: Mapping[str, Lookup]) -> HostArray:
        gone, given = np.isnan(x), x
        if gone.any():
            x = self._filled(x, gone)
        if self.constant:
            x = x.copy()
            j, values = self._constants
            x[:, j] = values
        if self.shift is not None:
            x = (x - np.array(self.shift)) / np.array(self.scale)
        if not self.holes and not self.categories and not self.dates:
            return x
        inputs = np.zeros((len(x), len(self.columns)))
        for kind, (j, at) in self.layout.places.items():
            if kind == "number":
                inputs[:, at] = x[:, j]
            elif kind == "missing":
                inputs[:, at] = gone[:, j]
            elif kind == "category":
                chosen = lookups[kind](given[:, j])
                rows, columns = np.nonzero(chosen >= 0)
                inputs[rows, chosen[rows, columns]] = 1
            elif kind == "code":
                inputs[:, at] = lookups[kind](given[:, j])
            else:
                for i, values in enumerate(part_inputs(kind, given[:, j])):
                    inputs[:, at + i] = values
        return inputs

    @cached_property
    def _constants(self) -> tuple[HostArray, HostArray]:
        """The places of the constant columns among the features, and their values."""
        place = {name: j for j, name in enumerate(self.features)}
        columns = np.array([place[name] for name in self.constant], int)
        return columns, np.array([*self.constant.values()], float)

    @cached_property
    def _seen(self) -> tuple[HostArray, HostArray]:
        """The middle of the numbers of each column, and how far from it training has numbers."""
        n, (j, values) = len(self.features), self._constants
        middle = np.zeros(n) if self.shift is None else np.array(self.shift)
        reach = np.full(n, np.inf) if self.scale is None else fitting.FAR * np.array(self.scale)
        middle[j], reach[j], reach[self.layout.words[0]] = values, 0, np.inf
        still = on_one_day(self.features, self.dates, reach / fitting.FAR)
        middle[still], reach[still] = np.floor(middle[still]) + 0.5, 0.5
        return middle, reach

    @cached_property
    def layout(self) -> Layout:
        """Which inputs belong to which column."""
        return Layout(
            self.features, self.categories, self.others, self.dates, self.holes, self.embedded
        )

    @cached_property
    def _lookups(self) -> dict[str, Lookup]:
        return self.layout.lookups(self.categories)

    @property
    def _codes(self) -> list[tuple[int, str]]:
        """The inputs that are codes, and the names of their columns."""
        return [(at, self.features[j]) for j, at in self.layout.places["code"].T.tolist()]

    def _filled(self, x: HostArray, gone: HostArray) -> HostArray:
        if self.fill is not None:
            return np.asarray(np.where(gone, np.array(self.fill), x))
        raise fitting.not_filled(self.features, gone.sum(axis=0).tolist())
