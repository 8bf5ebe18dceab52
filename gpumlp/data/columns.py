"""Columns of a table, read in pieces: numbers stay numbers, words become positions in a list."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpumlp.data.dataset import LARGEST_INT
from gpumlp.data.spelling import Known, plain
from gpumlp.io.types import HostArray

MOST_WORDS = 100_000  # the longest list of different words in a column
MOST_LABELS = 10_000  # more different numbers are not kept as words
MOST_CATEGORIES = 1000  # more different words are categories only if the user says so
NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|[+-]?inf"
PATTERNS = {  # the first one that fits all texts of a column that are not numbers
    "thousands": r"[+-]?[1-9]\d{0,2}([,.'_\s])\d{3}(\1\d{3})*((?!\1)\.\d+)?",
    "decimal": r"[+-]?(\d{1,3}(\.\d{3})+|\d*),\d+(e[+-]?\d+)?",
    "dates": r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}([T ].*)?|\d{1,2}:\d\d(:\d\d.*)?",
}


class Problem(NamedTuple):
    """Why a column cannot be used.

    Attributes:
        kind: a key of `PATTERNS`, "gaps" (most texts are numbers), "text" (all are), "words",
            "many" (too many different words), "other" (another type) or "empty" (no values).
        examples: the texts that are not numbers, sorted; or the names of the types.
    """

    kind: str
    examples: list[str]


def problem_of(counts: Mapping[str, int]) -> Problem:
    """The problem of texts where numbers are expected; counts: the frequency of each text."""
    others = sorted(text for text in counts if not re.fullmatch(NUMBER, text, re.IGNORECASE))
    if not others:
        return Problem("text" if counts else "words", others)
    for kind, pattern in PATTERNS.items():
        if all(re.fullmatch(pattern, text) for text in others):
            return Problem(kind, others)
    rows = sum(counts[text] for text in others)
    return Problem("gaps" if 2 * rows < sum(counts.values()) else "words", others)


class Column:
    """The feature column `name`, read in pieces, and statistics of the pieces so far.

    Args:
        declared: the column holds categories, whatever its values look like.
        known: the categories of a model, which no word can be added to; None to collect them.
        for_model: a trained model reads the column; without `known` it must hold numbers.

    Attributes:
        words: the different words and their positions, in order of appearance.
        counts: the frequency of each word; with `known`, that of all unknown words comes last.
        kinds: what the pieces held: "numbers", "words", "dates", or the name of another type.
        total, missing, infinite: how many values there are, are missing, are infinite.
        huge: whether there were whole numbers that float64 cannot represent.
    """

    def __init__(
        self, name: str, declared: bool = False, known: Sequence[str] | None = None,
        for_model: bool = False,
    ) -> None:  # fmt: skip
        self.name, self.declared, self._known = name, declared or known is not None, known
        self._for_model = for_model
        self.words = {word: i for i, word in enumerate(known or ())}
        self._find = Known(self.words).find
        self.counts: HostArray = np.zeros(len(self.words) + 1, np.int64)
        self.kinds: set[str] = set()
        self.total = self.missing = self.infinite = 0
        self.huge = False

    def values(self, column: Any) -> HostArray:
        """An Arrow column as float64 (m,), NaN where a value is missing."""
        import pyarrow as pa

        kind, out = column.type, np.full(len(column), np.nan)
        if self.declared or pa.types.is_dictionary(kind) or is_text(kind):
            self.declared |= pa.types.is_dictionary(kind)
            out = self._positions(column)
        elif is_numeric(kind):
            out = self._numbers(column)
        elif not pa.types.is_null(kind):
            self.kinds.add("dates" if pa.types.is_temporal(kind) else str(kind))
        self.total += len(out)
        self.missing += int(np.isnan(out).sum())
        return out

    @property
    def mixed(self) -> bool:
        """Whether some pieces held words and others did not, so that all must be read as words."""
        return len(self.kinds) > 1 and not self.declared

    @property
    def problem(self) -> Problem | None:
        """Why the column holds neither numbers nor categories; None if it does."""
        other = sorted(self.kinds - {"numbers", "words", "dates"})
        if other or "dates" in self.kinds:
            return Problem("other" if other else "dates", other)
        counts = dict(zip(self.words, self.counts.tolist(), strict=False))
        if not counts or self._known is not None:
            empty = not self._for_model and self.missing == self.total > 0
            return Problem("empty", []) if empty else None
        if self.declared and not self._for_model:
            return Problem("many", []) if len(counts) >= MOST_WORDS else None
        found = problem_of(counts)
        if self._for_model or found.kind != "words":
            return found
        many = len(counts) > MOST_CATEGORIES or 2 * len(counts) > sum(counts.values())
        return Problem("many", []) if many else None

    def _numbers(self, column: Any) -> HostArray:
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
        """The positions of the words; all words that are not `known` share the next position."""
        self.kinds.add("words")
        encoded = as_text(column).combine_chunks().dictionary_encode()
        index = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        words = encoded.dictionary.to_pylist()
        at = np.array([*map(self._position, words), np.nan])
        more = len(self.words) + 1 - len(self.counts)
        self.counts = np.append(self.counts, np.zeros(max(more, 0), np.int64))
        present = np.isfinite(at[:-1])
        frequency = np.bincount(index[index >= 0], minlength=len(words))
        np.add.at(self.counts, at[:-1][present].astype(int), frequency[present])
        out: HostArray = at[index]
        return out

    def _spelled(self, word: str) -> str:
        return plain(word)

    def _position(self, word: str) -> float:
        word = self._spelled(word)
        if not word:
            return np.nan
        if self._known is not None:
            at = self._find(word)
            return len(self.words) if at is None else at
        if word not in self.words and len(self.words) < MOST_WORDS:
            self.words[word] = len(self.words)
        return self.words.get(word, np.nan)


class TargetColumn(Column):
    """The column to predict. Its words are spelt as in the file.

    untyped: it is text as the file has no types. It becomes float64 if it has very many different
        values and these are numbers.
    """

    has_words = False  # whether the last piece held words, so that its numbers are positions

    def __init__(self, name: str, untyped: bool = False) -> None:
        super().__init__(name)
        self.untyped = untyped

    def values(self, column: Any) -> HostArray:
        """An Arrow column as numbers (m,) of their own type, or as the positions of its words."""
        import pyarrow as pa

        self.missing += column.null_count
        if pa.types.is_null(column.type):
            return np.zeros(len(column))
        self.has_words = not is_numeric(column.type)
        if not self.has_words:
            self.kinds.add("numbers")
            y: HostArray = np.asarray(column.to_numpy())
            return y.astype(np.float64) if y.dtype == object else y  # decimals
        if self.untyped and (numbers := self._many_numbers(column)) is not None:
            self.has_words = False
            return numbers
        try:
            y = self._positions(as_text(column))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise TypeError(
                f"the target {self.name!r} holds {column.type}, which cannot be labels"
            ) from None
        blank = np.isnan(y)
        self.missing += int(blank.sum()) - column.null_count
        return np.where(blank, 0, y).astype(np.int64)

    def joined(self, pieces: list[tuple[bool, HostArray]]) -> HostArray:
        """The values of all pieces, each with its `has_words`."""
        if len({has_words for has_words, _ in pieces}) < 2:
            return np.concatenate([y for _, y in pieces])
        self.has_words = False
        texts = [word for word in self.words if not re.fullmatch(NUMBER, word, re.IGNORECASE)]
        if texts:
            raise ValueError(
                f"the target {self.name!r} holds numbers except for some texts "
                f"({', '.join(map(repr, texts[:8]))}); correct these texts, or drop those rows"
            )
        numbers = np.array([float(word) for word in self.words])
        return np.concatenate([numbers[y] if has_words else y for has_words, y in pieces])

    def _spelled(self, word: str) -> str:
        return word.strip()

    def _many_numbers(self, column: Any) -> HostArray | None:
        """A column of text as float64, if all texts are numbers and very many are different."""
        import pyarrow as pa
        import pyarrow.compute as compute

        known = len(self.words)
        if max(known, compute.count_distinct(column).as_py()) <= MOST_LABELS:
            return None
        try:
            numbers = compute.utf8_trim_whitespace(column).cast(pa.float64())
        except pa.ArrowInvalid:
            return None
        out: HostArray = numbers.to_numpy()
        return out


def as_text(column: Any) -> Any:
    """The Arrow column as strings. Whole numbers of any type are written without a point."""
    import pyarrow as pa
    import pyarrow.compute

    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if pa.types.is_floating(kind):
        with contextlib.suppress(pa.ArrowInvalid):  # it has fractions
            column = column.cast(pa.int64())
    text = column.cast(pa.string())
    if pa.types.is_timestamp(kind):
        text = pa.compute.replace_substring_regex(text, r"(?: 00:00:00)?(?:\.0+)?$", "")
    return text


def is_numeric(kind: Any) -> bool:
    """Whether values of an Arrow type can be cast to numbers."""
    import pyarrow.types as t

    return any(test(kind) for test in (t.is_integer, t.is_floating, t.is_boolean, t.is_decimal))


def is_text(kind: Any) -> bool:
    """Whether an Arrow type is a type of strings."""
    import pyarrow.types as t

    return any(test(kind) for test in (t.is_string, t.is_large_string, t.is_string_view))
