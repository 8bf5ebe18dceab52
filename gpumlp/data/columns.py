"""Columns of tables, piece by piece: numbers as they are, words as positions in a list."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.data.diagnosis import Look, look
from gpumlp.data.raw import LARGEST_INT
from gpumlp.io.types import HostArray

MOST_WORDS = 100_000  # different ones that a column's list takes
MOST_CATEGORIES = 1000  # different words that are taken for categories without being asked


class Column:
    """A column as it comes piece by piece, and what was met on the way.

    Args:
        name: of the column.
        declared: it holds categories, whatever they look like.
        known: the categories of a model, to which it must keep; None to gather them.
        numbers: it must hold numbers, as a model takes them.

    Attributes:
        words: its different words and their positions, in order of appearance.
        counts: how often each was met; for `known` ones, those beyond them last.
        kinds: what its pieces were: "numbers", "words", "dates", or the name of another type.
        total, missing, infinite: how many values there are, are missing, are infinite.
        huge: whether whole numbers were met that float64 does not hold.
    """

    def __init__(
        self,
        name: str,
        declared: bool = False,
        known: Sequence[str] | None = None,
        numbers: bool = False,
    ) -> None:
        self.name, self.declared, self._known = name, declared or known is not None, known
        self._numeric = numbers
        self.words = {word: i for i, word in enumerate(known or ())}
        self.counts: HostArray = np.zeros(len(self.words) + 1, np.int64)
        self.kinds: set[str] = set()
        self.total = self.missing = self.infinite = 0
        self.huge = False

    def values(self, column: Any) -> HostArray:
        """An Arrow column as float64 (m,), NaN where a value is missing."""
        import pyarrow as pa

        kind = column.type
        if pa.types.is_null(kind):
            out = np.full(len(column), np.nan)
        elif self.declared or pa.types.is_dictionary(kind) or is_text(kind):
            self.declared |= pa.types.is_dictionary(kind)
            out = self._positions(column)
        elif is_numeric(kind):
            out = self._cast(column)
        else:
            self.kinds.add("dates" if pa.types.is_temporal(kind) else str(kind))
            out = np.full(len(column), np.nan)
        self.total += len(out)
        self.missing += int(np.isnan(out).sum())
        return out

    @property
    def empty(self) -> bool:
        """Whether there is nothing to learn from."""
        of_model = self._numeric or self._known is not None
        return not of_model and self.missing == self.total > 0

    @property
    def mixed(self) -> bool:
        """Whether some pieces look like words and others do not, so that all must be read so."""
        return len(self.kinds) > 1 and not self.declared

    @property
    def oddity(self) -> Look | None:
        """What is wrong with a column that holds no numbers and no categories."""
        other = sorted(self.kinds - {"numbers", "words", "dates"})
        if other or "dates" in self.kinds:
            return Look("other" if other else "dates", other)
        counts = dict(zip(self.words, self.counts.tolist(), strict=False))
        if not counts or self._known is not None:
            return None
        if self._numeric:
            return look(counts)
        if self.declared:
            return Look("many", []) if len(counts) >= MOST_WORDS else None
        return _told(counts)

    def _cast(self, column: Any) -> HostArray:
        import pyarrow as pa
        import pyarrow.compute

        self.kinds.add("numbers")
        if pa.types.is_integer(column.type):
            low, high = pyarrow.compute.min_max(column).as_py().values()
            self.huge |= low is not None and not -LARGEST_INT <= low <= high <= LARGEST_INT
        out: HostArray = column.cast(pa.float64(), safe=False).to_numpy()
        self.infinite += int(np.isinf(out).sum())
        return out

    def _positions(self, column: Any) -> HostArray:
        """The words' positions; one beyond the known ones for all others."""
        self.kinds.add("words")
        encoded = texts(column).combine_chunks().dictionary_encode()
        index = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        words = encoded.dictionary.to_pylist()
        at = np.array([*map(self._position, words), np.nan])
        if len(self.words) >= len(self.counts):
            self.counts = np.append(
                self.counts, np.zeros(len(self.words) + 1 - len(self.counts), np.int64)
            )
        met = np.isfinite(at[:-1])
        often = np.bincount(index[index >= 0], minlength=len(words))
        np.add.at(self.counts, at[:-1][met].astype(int), often[met])
        out: HostArray = at[index]
        return out

    def _position(self, word: str) -> float:
        word = word.strip()
        if not word:
            return np.nan
        if word not in self.words and self._known is None and len(self.words) < MOST_WORDS:
            self.words[word] = len(self.words)
        return self.words.get(word, len(self.words) if self._known is not None else np.nan)


def texts(column: Any) -> Any:
    """The Arrow column as strings: whole numbers without a point, whatever their type."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if pa.types.is_floating(kind):
        with contextlib.suppress(pa.ArrowInvalid):  # with fractions
            column = column.cast(pa.int64())
    return column.cast(pa.string())


def is_numeric(kind: Any) -> bool:
    """Whether an Arrow type converts to a number as it is."""
    import pyarrow.types as t

    return any(test(kind) for test in (t.is_integer, t.is_floating, t.is_boolean, t.is_decimal))


def is_text(kind: Any) -> bool:
    """Whether an Arrow type is one of strings."""
    import pyarrow.types as t

    return any(test(kind) for test in (t.is_string, t.is_large_string, t.is_string_view))


def _told(counts: dict[str, int]) -> Look | None:
    """What words are that are no categories."""
    found = look(counts)
    if found.kind != "words":
        return found
    many = len(counts) > MOST_CATEGORIES or 2 * len(counts) > sum(counts.values())
    return Look("many", []) if many else None
