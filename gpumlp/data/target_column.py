"""The target of a table, read in pieces: numbers of their own type, or words as in the file."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from gpumlp.data.arrow import as_text, exceeds, is_numeric
from gpumlp.data.columns import Column
from gpumlp.data.dataset import LARGEST_INT
from gpumlp.data.labels import MAX_CLASSES
from gpumlp.data.measures import Format
from gpumlp.data.numbers import PLAIN, NumberFormat
from gpumlp.data.spelling import BLANKS, NUMBER
from gpumlp.io.types import HostArray

MOST_LABELS = 10_000  # more different numbers are not kept as words


class TargetColumn(Column):
    """The column to predict. Its words are spelt as in the file.

    It becomes float64 if it has very many different words and these are numbers.

    format: how its numbers are written, if they are texts and not plain.
    learn: whether no model has learned from it.
    """

    has_words = False  # whether the last piece held words, so that its numbers are positions

    def __init__(self, name: str, format: Format | None = None, learn: bool = True) -> None:
        super().__init__(name, format=format, date=None if learn else False)
        self._gone: list[HostArray] = []

    @property
    def written(self) -> Format | None:
        """The format of the collected texts if all are numbers that need one; else None."""
        form = super().written if len(self.words) > MAX_CLASSES else None
        plain = form == PLAIN and all(map(NUMBER.fullmatch, self.words))
        return form if isinstance(form, NumberFormat) and not plain else None

    @property
    def gone(self) -> HostArray:
        """Whether the value of each row (m,) is missing."""
        return np.concatenate(self._gone) if self._gone else np.zeros(0, bool)

    @property
    def repeats(self) -> bool:
        """Whether each word is there more than once, as those of classes are."""
        return bool((self.counts[: len(self.words)] > 1).all())

    @property
    def last_gone(self) -> HostArray:
        """Whether the value of each row (m,) of the last piece is missing."""
        return self._gone[-1]

    def values(self, column: Any) -> HostArray:
        """An Arrow column as numbers (m,) of their own type, or as the positions of its words."""
        import pyarrow as pa

        self.missing += column.null_count
        self._gone.append(column.is_null().to_numpy())
        if pa.types.is_null(column.type):
            return np.zeros(len(column))
        if pa.types.is_decimal(column.type):
            with contextlib.suppress(pa.ArrowInvalid):  # it has fractions
                whole = column.cast(pa.decimal256(76, 0))
                column = whole.cast(pa.string() if exceeds(whole, LARGEST_INT) else pa.int64())
        self.has_words = False
        if is_numeric(column.type):
            self.kinds.add("numbers")
            self.bare |= self._percent
            if pa.types.is_boolean(column.type):
                column = column.fill_null(False)  # else null makes numbers of truth values
            y: HostArray = np.asarray(column.to_numpy())
            return y.astype(np.float64) if y.dtype == object else y  # decimals
        try:
            if pa.types.is_duration(column.type):
                raise pa.ArrowNotImplementedError
            return self._texts(column)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise TypeError(
                f"the target {self.name!r} holds {column.type}, neither numbers nor labels; "
                "convert it"
            ) from None

    def joined(self, pieces: list[tuple[bool, HostArray]]) -> HostArray:
        """The values of all pieces, each with its `has_words`."""
        if len({has_words for has_words, _ in pieces}) < 2:
            return np.concatenate([y for _, y in pieces])
        self.has_words = False
        texts = [word for word in self.words if PLAIN.value(word) is None]
        if texts:
            raise ValueError(
                f"the target {self.name!r} holds numbers except for some texts "
                f"({', '.join(map(repr, texts[:8]))}); correct these texts, or drop those rows"
            )
        numbers = np.array([PLAIN.value(word) for word in self.words], float)
        return np.concatenate([numbers[y] if has_words else y for has_words, y in pieces])

    @staticmethod
    def _spelled(text: str) -> str:
        return text.strip(BLANKS)

    def _texts(self, column: Any) -> HostArray:
        """Numbers (m,) of texts, or the positions of words."""
        self.has_words = words = self.format is None
        if words and (numbers := self._many_numbers(column)) is not None:
            self.has_words = False
            return numbers
        y = (self._positions if words else self._formatted)(column)
        self._gone[-1] = gone = np.isnan(y)
        self.missing += int(gone.sum()) - column.null_count
        return np.where(gone, 0, y).astype(np.int64) if words else y

    def _many_numbers(self, column: Any) -> HostArray | None:
        """A column of text as float64, if all texts are numbers and very many are different."""
        import pyarrow as pa
        import pyarrow.compute as compute

        known, column = len(self.words), as_text(column)
        if max(known, compute.count_distinct(column).as_py()) <= MOST_LABELS:
            return None
        try:
            numbers = compute.utf8_trim_whitespace(column).cast(pa.float64())
        except pa.ArrowInvalid:
            return None
        out: HostArray = numbers.to_numpy()
        return out
