"""Columns of a table, read in pieces: numbers stay numbers, words become positions in a list."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.data.arrow import encoded, exceeds, is_numeric, is_text
from gpumlp.data.dataset import LARGEST_INT
from gpumlp.data.date_texts import are_dotted
from gpumlp.data.dates import (
    ISO,
    WHOLE,
    ZONED,
    Ambiguous,
    DateFormat,
    WholeNumbers,
    date_format_of,
    days,
    usual_date_format,
)
from gpumlp.data.measures import Format, Problem, are_codes, unclear_numbers
from gpumlp.data.numbers import FEW, PLAIN, NumberFormat, are_ranges, format_of
from gpumlp.data.spelling import NUMBER, TRUTH, Known, plain
from gpumlp.io.types import HostArray

MOST_WORDS = 100_000  # the longest list of different words in a column
MOST_CATEGORIES = 1000  # more different words are categories only if the user says so
FEWEST_ROWS = 20  # in fewer rows the numbers 1, 2, 3, … may say something
PERCENT = "%", "percent", "pct", "pct."
DIGITS = re.compile(r"(?!.*\d[eEdD])(?:\D*\d){16}")  # and not 1e20


class Column:
    """The feature column `name`, read in pieces, and statistics of the pieces so far.

    Args:
        declared: the column holds categories, whatever its values look like.
        known: the categories of a model, which no word can be added to; None to collect them.
        format: how numbers or dates are written in texts; None to collect the texts.
        date: whether a model takes dates here; None if there is no model.
        order, kept: one of `dates.ORDERS`, and whether the user wants the column in any case.

    Attributes:
        words: the different words and their positions, in order of appearance.
        counts: the frequency of each word; with `known`, that of all unknown words comes last.
        strange: with a format, the frequency of each text that is not a number.
        kinds: what the pieces held: "numbers", "words", "dates", or the name of another type.
        total, missing, infinite: how many values there are, are missing, are infinite.
        unusual: whether a text was not written as most are, with a format.
        large: whether numbers must be read as texts, since they have lost digits.
        whole: whether all values are whole numbers, and none is missing.
        bare: whether there were numbers without the percent sign of the format.
        zones: whether times had a time zone.
    """

    def __init__(
        self, name: str, declared: bool = False, known: Sequence[str] | None = None,
        format: Format | None = None, date: bool | None = None, order: str | None = None,
        kept: bool = False,
    ) -> None:  # fmt: skip
        self.name, self._date, self._order, self._kept = name, date, order, kept
        self.declared, self._known = declared or known is not None, known
        self.format, self._form = format, format or PLAIN
        self.words = {word: i for i, word in enumerate(known or ())}
        self._find = None if known is None else Known(self.words).find
        self.counts: HostArray = np.zeros(len(self.words) + 1, np.int64)
        self.strange, self.kinds = Counter[str](), set[str]()
        self.total = self.missing = self.infinite = 0
        self.large = self.unusual = self._huge = self._fractions = self.whole = False
        self._coded = self.bare = self._truths = self._more = False
        self.zones = set[bool]()
        self._calendar, self._percent = WholeNumbers(), getattr(format, "after", "") in PERCENT
        self._low, self._high, self._sum = np.inf, -np.inf, 0.0

    def values(self, column: Any) -> HostArray:
        """An Arrow column as float64 (m,), NaN where a value is missing."""
        import pyarrow as pa

        kind = column.type
        text = pa.types.is_dictionary(kind) or is_text(kind)
        words = not pa.types.is_nested(kind) and (self.declared or (text and self.format is None))
        dates = self._date and is_numeric(kind) and self._are_dates(column)
        if words or text or dates or (is_numeric(kind) and self.format in WHOLE):
            coded = words and pa.types.is_dictionary(kind)
            self._coded |= coded
            self.declared |= coded and not is_text(kind.value_type)
            try:
                out = (self._positions if words else self._formatted)(column)
            except pa.ArrowInvalid:
                out = np.full(len(column), np.nan)
                self.kinds.add(f"{kind} that is not UTF-8")
        elif is_numeric(kind):
            out = self._numbers(column)
        elif pa.types.is_temporal(kind) and not pa.types.is_duration(kind):
            self.kinds.add("dates")
            times = pa.types.is_timestamp(kind) and column.null_count < len(column)
            self.zones |= {kind.tz is not None} if times else set()
            out = days(column)
        else:
            out = np.full(len(column), np.nan)
            self.kinds |= set() if pa.types.is_null(kind) else {str(kind)}
        self.total += len(out)
        self.missing += int(np.isnan(out).sum())
        return out

    def _are_dates(self, column: Any) -> bool:
        """Whether most numbers of an Arrow column are dates such as 20240131."""
        found = WholeNumbers()
        found.watch(np.asarray(column.cast("float64", safe=False)))
        return isinstance(found.format(self._order), DateFormat)

    @property
    def huge(self) -> bool:
        """Whether there were whole numbers that float64 cannot represent, and no fractions."""
        return self._huge and not self._fractions

    @property
    def counting(self) -> bool:
        """Whether the range and the sum are those of 0, 1, 2, … or 1, 2, 3, …, in any order."""
        span = self._high - self._low + 1
        middle = (self._high + self._low) / 2
        return self.whole and self._low in (0, 1) and span == self.total == self._sum / middle

    @property
    def empty(self) -> bool:
        """Whether all values are missing."""
        return self.missing == self.total > 0 and self.kinds <= {"numbers", "words"}

    @property
    def written(self) -> Format | None:
        """The format of the collected texts if all are numbers or all are dates; else None."""
        if self._categorical or self.format:
            return None
        if isinstance(whole := self._whole_dates, DateFormat):
            return whole
        found = format_of(self._frequencies())
        if found is not None and not found[1] and not are_codes(found[0], self.words):
            return None if self._typed(found) else found[0]
        date = date_format_of(self.words, self._order)
        return date if isinstance(date, DateFormat) else None

    @property
    def problem(self) -> Problem | None:
        """Why the column holds neither numbers nor categories; None if it does."""
        other = sorted(self.kinds - {"numbers", "words", "dates"})
        if other:
            return Problem("other", other)
        if self._date not in (None, "dates" in self.kinds) and self.missing < self.total:
            return Problem("numbers" if self._date else "dates", [])
        if self.strange:
            few = 2 * sum(self.strange.values()) < self.total
            return Problem(
                "gaps" if few or self._date is None else "words", sorted(self.strange), self._form
            )
        if len(self.zones) > 1:
            return Problem("zones", [])
        if isinstance(whole := self._whole_dates, Ambiguous):
            return Problem("ambiguous", [whole.text])
        if self._known is not None or not self.words:
            return None
        counts = self._frequencies()
        beyond = Problem("many", []) if len(counts) >= MOST_WORDS else None
        if self._categorical:
            return beyond
        found = format_of(counts)
        words = not found or are_codes(found[0], counts) or are_ranges(counts, found[1])
        if found and not words and not self._typed(found):
            return Problem("gaps", found[1], found[0])
        date = usual_date_format(counts, self._order)
        if isinstance(date, Ambiguous) and found is None:
            return Problem("ambiguous", [date.text])
        if isinstance(date, DateFormat):
            return Problem("gaps", sorted(t for t in counts if date.value(t) is None), date)
        if self._typed(found) and self.written is None:
            return beyond
        if unclear := unclear_numbers(counts):
            mixed = len({bool(ZONED.fullmatch(text)) for text in counts}) > 1
            return Problem("zones" if unclear == "unread" and mixed else unclear, sorted(counts))
        many = len(counts) > MOST_CATEGORIES or 2 * len(counts) > self.total
        return Problem("many", []) if many and not self._kept else beyond

    @property
    def _categorical(self) -> bool:  # by the user, or a type of categories with few texts
        return self.declared or (self._coded and len(self.words) <= FEW)

    def _typed(self, found: tuple[NumberFormat, list[str]] | None) -> bool:
        """Whether a type of categories has texts that are whole numbers or none, as codes are."""
        numbers = [] if found is None else self.words.keys() - {*found[1]}
        return self._coded and all(word.lstrip("+-").isdecimal() for word in numbers)

    @property
    def _whole_dates(self) -> DateFormat | Ambiguous | None:
        """The format of dates as numbers in most rows, where no format is given."""
        if self._categorical or self.format:
            return None
        whole = self._calendar if "numbers" in self.kinds else WholeNumbers(self.words)
        found = whole.format(self._order)
        if self.total - self.missing < FEWEST_ROWS and getattr(found, "digits", 8) < 8:
            return None  # 202401 may be a number
        dotted = found is None and are_dotted(self.words)
        return date_format_of(self.words, None) if dotted else found

    def _frequencies(self) -> dict[str, int]:
        return dict(zip(self.words, self.counts.tolist(), strict=False))

    def _numbers(self, column: Any) -> HostArray:
        import pyarrow as pa

        self.kinds.add("numbers")
        self.bare |= self._percent and column.null_count < len(column)
        kind, t = column.type, pa.types
        self._huge |= exceeds(column, LARGEST_INT)
        out: HostArray = column.cast(pa.float64(), safe=False).to_numpy()
        self._truths |= t.is_boolean(kind)
        self._more = self._more or bool(((out != 0) & (out != 1) & (out == out)).any())
        self.large |= self._truths and self._more  # true beside 5 is a word
        self._watch(out, t.is_integer(kind) or (t.is_decimal(kind) and kind.scale == 0))
        return out

    def _watch(self, out: HostArray, whole: bool) -> None:
        """Notice infinite and large numbers, and whole ones."""
        if not len(out):
            return
        if self.whole or self.total == 0:
            self.whole = bool((out == np.floor(out)).all())
        if self.whole:
            self._low, self._high = min(self._low, out.min()), max(self._high, out.max())
            self._sum += float(out.sum())
        self._calendar.watch(out)
        if not whole:
            self._fractions = self._fractions or bool((np.floor(out) < out).any())
            peak = max(np.fmax.reduce(out), -np.fmin.reduce(out))
            self.large |= bool(peak > LARGEST_INT)
            self.infinite += int(np.isinf(out).sum()) if peak == np.inf else 0

    def _formatted(self, column: Any) -> HostArray:
        """The numbers or the days of texts."""
        words, index = encoded(column)
        form = self.format or PLAIN
        if self._date and (form == PLAIN or all(form.value(plain(word)) is None for word in words)):
            # the file that the model learned from had no texts, or others
            date = usual_date_format(dict.fromkeys(words, 1), self._order)
            date = date or WholeNumbers(words).format(self._order)
            form = date if isinstance(date, DateFormat) else ISO if form == PLAIN else form
        elif isinstance(form, NumberFormat) and form.decimal == "." and self._date is not None:
            # new data that was corrected since has plain numbers, as .parquet files may have
            form = PLAIN if words and all(map(NUMBER.fullmatch, words)) else form
            self.bare |= self._percent and form == PLAIN
        few = form != PLAIN or 2 * sum(w.strip().lower() in TRUTH for w in words) <= len(words)
        truths: dict[str, Any] = {} if few else TRUTH  # a text between them makes words of these
        self._form, dates = form, isinstance(form, DateFormat)
        self.kinds.add("dates" if dates else "numbers")
        if dates:
            self.zones |= {bool(ZONED.fullmatch(word)) for word in words if ":" in word}
        found, usual = form.usual(words)
        self.unusual |= not usual.all()
        self._huge |= any(DIGITS.match(words[i]) for i in np.flatnonzero(abs(found) > LARGEST_INT))
        values = np.append(found, np.nan)
        frequency = np.bincount(index[index >= 0], minlength=len(words)).tolist()
        for i in np.flatnonzero(~usual):
            word = plain(words[i]) if dates else words[i].strip()
            value = float(truths[word.lower()]) if word.lower() in truths else form.value(word)
            if value is None:
                self.strange[word] += frequency[i]
            else:
                values[i] = value
                self._huge |= abs(value) > LARGEST_INT and bool(DIGITS.match(word))
        out: HostArray = values[index]
        self._watch(out, False)
        return out

    def _positions(self, column: Any) -> HostArray:
        """The positions of the words; all words that are not `known` share the next position."""
        self.kinds.add("words")
        words, index = encoded(column)
        at = np.array([*map(self._position, words), np.nan])
        more = len(self.words) + 1 - len(self.counts)
        self.counts = np.append(self.counts, np.zeros(max(more, 0), np.int64))
        present = np.isfinite(at[:-1])
        frequency = np.bincount(index[index >= 0], minlength=len(words))
        np.add.at(self.counts, at[:-1][present].astype(int), frequency[present])
        return at[index]

    _spelled = staticmethod(plain)

    def _position(self, word: str) -> float:
        if not (word := self._spelled(word)):
            return np.nan
        if self._find is not None:
            return len(self.words) if (at := self._find(word)) is None else at
        if word not in self.words and len(self.words) < MOST_WORDS:
            self.words[word] = len(self.words)
        return self.words.get(word, np.nan)
