"""Dates and times as days since 1970-01-01 in UTC."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from gpumlp.data.date_parts import DAY
from gpumlp.data.date_texts import are_days, numbered, regular
from gpumlp.data.numbers import NULLS
from gpumlp.data.usual_texts import Found, others, usual_dates
from gpumlp.io.types import HostArray

ORDERS = ("dmy", "mdy", "ymd")
DATES = {  # of texts as `date_texts.regular` makes them
    "ymd": ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y %b %d", "%y-%m-%d", "%y/%m/%d", "%y.%m.%d",
            "%Y. %m. %d.", "%Y年%m月%d日", "%Y_%m_%d"),
    "dmy": ("%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%d/%m/%y", "%d-%m-%Y", "%d-%m-%y", "%d %b %Y",
            "%d %b %y", "%d. %m. %Y", "%d_%m_%Y"),
    "mdy": ("%m/%d/%Y", "%m/%d/%y", "%m-%d-%Y", "%m-%d-%y", "%b %d %Y", "%b %d-%Y", "%m_%d_%Y"),
}  # fmt: skip
MOMENTS = ("%Y%m%dT%H%M%S", "%Y%m%dT%H%M%SZ")
WEEKS = ("%G-W%V", "%GW%V", "%G W%V", "%G-W%V-%u")  # their Mondays, but with a day
QUARTERS = ("%YQ%m", "%Y-Q%m", "%Y Q%m", "Q%m %Y", "Q%m-%Y", "Q%m/%Y", "Q%m %y")  # first months
QUARTER = re.compile("[Qq]([1-4])(?![0-9])")
MONTHS = ("%Y-%m", "%m/%Y", "%Y/%m", "%m-%Y", "%Y %m", "%YM%m", "%b %Y", "%b %y", "%Y %b",
          "%Y年%m月")  # fmt: skip
CLOCKS = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p", "%I:%M:%S.%f %p",
          "%H:%M:%S,%f", "%I %p")  # fmt: skip
TIMES = (
    "", *(before + clock for before in (" ", "T") for clock in CLOCKS), ":%H:%M:%S", " %H.%M.%S",
    "-%H.%M.%S", " %H-%M-%S",
)  # fmt: skip
ZONES = ("", "%z", " %z", " UTC", " GMT")  # others, such as CET, depend on the day
OFFSETS = ("Z", "+0100", "-0100", "+01:00", "-01:00", "+01:00:00", "-01:00:00")  # for %z
DATED = re.compile(r"\d.*\d")  # what a date has at least
ZONED = re.compile(r".*:.*(Z|UTC|GMT|[+-]\d\d(:?\d\d)?)\s*", re.ASCII)  # a time, with its zone
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d[\d:.,]*(Z|[+-]\d\d:?\d\d)?", re.ASCII)
SAMPLE = 100  # so many texts decide about the formats that are tried on all
LEAST = 11_900  # of the dates in a format of `WHOLE`: January of 1900
FEW = 10  # among so many texts is one in the format of the most
FUTURE = 2040  # a year so late, written with two digits, may be one of the century before


class DateFormat(NamedTuple):
    """How the dates of a column are written, in the signs of `datetime.strptime`.

    first: the first of the hundred years that two digits may stand for.
    """

    pattern: str
    first: int = 1969

    def __str__(self) -> str:
        """An example of a date in this format."""
        pattern = self.pattern.replace("%b", "Dec").replace("%p", "PM")
        return datetime(2024, 12, 31, 15, 30).strftime(pattern).replace("Q12", "Q4")

    @property
    def lasting(self) -> bool:
        """Whether further dates in this format would not make another format as likely."""
        return "%y" not in self.pattern  # 05-03-22

    @property
    def digits(self) -> int:
        """How many digits a date in a format of `WHOLE` has."""
        return 2 + len(self.pattern)

    def value(self, text: str) -> float | None:
        """Days since 1970, NaN for a word such as NA; None if the text is not in this format."""
        if text in NULLS:
            return math.nan
        # models of earlier versions have formats of texts as they are
        moment = self._moment(regular(text)) or self._moment(text)
        if moment is None:
            return None
        if not re.search("%[yYG]", self.pattern):  # a time alone
            moment = moment.replace(year=1970)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() / DAY

    def usual(self, texts: Sequence[str]) -> Found:
        """The values of the texts that are written as most are, and which these are."""
        return usual_dates(texts, *self)

    def _moment(self, text: str) -> datetime | None:
        if self in WHOLE:  # numbers have lost a zero of 03082023
            text = text.zfill(self.digits)
        if "Q%m" in self.pattern:
            text = QUARTER.sub(lambda found: f"Q{3 * int(found[1]) - 2:02}", text)
        found, pattern = numbered(text, self.pattern)
        week = " %u" * pattern.endswith("%V")
        with contextlib.suppress(ValueError):
            moment = datetime.strptime(f"{found} 1" if week else found, pattern + week)
            year = self.first + (moment.year - self.first) % 100
            return moment.replace(year=year) if "%y" in pattern else moment
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(text) if self == ISO and TIME.fullmatch(text) else None
        return None


ISO = DateFormat("%Y-%m-%d")
WHOLE = {  # dates as whole numbers, and the order of those that have one
    DateFormat("%Y%m%d"): None, DateFormat("%d%m%Y"): "dmy", DateFormat("%m%d%Y"): "mdy",
    DateFormat("%Y%m"): None, DateFormat("%m%Y"): None, DateFormat("%Y%m%d%H"): None,
    DateFormat("%Y%m%d%H%M"): None, DateFormat("%Y%m%d%H%M%S"): None,
}  # fmt: skip
FIELDS = {  # how many values their digits have, the least and the largest
    "%Y": (10_000, 1900, 2099), "%m": (100, 1, 12), "%d": (100, 1, 31), "%H": (100, 0, 23),
    "%M": (100, 0, 59), "%S": (100, 0, 59),
}  # fmt: skip


class Ambiguous(NamedTuple):
    """Dates that may be read in two orders; the text is one of them."""

    text: str


def date_format_of(texts: Iterable[str], order: str | None) -> DateFormat | Ambiguous | None:
    """The format of all the texts; None if they are no dates, or not all in one format.

    Args:
        texts: different texts.
        order: one of `ORDERS`, to decide between day/month and month/day.
    """
    there = [text for text in texts if text not in NULLS]
    sample = there[:SAMPLE]
    if not sample or not re.search(r"\d", sample[0]) or are_days(there):
        return None
    alike = _formats_by_shape().get(_shape(regular(sample[0])), [])
    fitting = [(own, f) for own, f in alike if _fits(f, sample) and _fits(f, there)]
    found = [form for _, form in fitting]
    if len(found) > 1 and (text := _differently(found, there)):
        if order in (own for own, _ in fitting):
            found = [form for own, form in fitting if own == order]
        else:
            spans = [(float(np.ptp(_days(form, there))), form) for form in found]
            (least, best), (next_, _), *_ = sorted(spans, key=lambda each: each[0])
            # 22-03-14 is 2022 in a column of few years, as the days of a month would be 31 years
            if "%y" not in best.pattern or 2 * least >= next_:
                return Ambiguous(text)
            found = [best]
    if found:
        return _in_century(found[0], there)
    # Python, Java and others leave out what is 0 of a time
    zones = {bool(times[1]) for text in sample if (times := TIME.fullmatch(regular(text)))}
    return ISO if len(zones) == 1 and _fits(ISO, sample) and _fits(ISO, there) else None


def usual_date_format(
    counts: Mapping[str, int], order: str | None
) -> DateFormat | Ambiguous | None:
    """The format of most texts, of which others may be such as 0000-00-00, or in few rows.

    Args:
        counts: the frequency of each text.
        order: as in `date_format_of`.
    """
    texts = [text for text in counts if DATED.search(text)]
    if 2 * sum(counts[text] for text in texts) <= sum(counts.values()) or are_days(texts):
        return None
    if found := date_format_of(texts, order):
        return found
    for text in texts[:FEW]:
        form = date_format_of([text], order)
        fits = isinstance(form, DateFormat) and [form.value(each) is not None for each in texts]
        if fits and 2 * sum(fits) > len(texts):
            return form
    return None


class WholeNumbers:
    """Numbers, of which most may be dates such as 20240131, in one of the formats `WHOLE`."""

    def __init__(self, texts: Collection[str] = ()) -> None:
        self._counts: dict[DateFormat, int] | None = None
        self._total, self._example, self._digits = 0, 0.0, max(map(len, texts), default=0)
        self.watch(np.array([float(text) if text.isdecimal() else -1.0 for text in texts]))

    def watch(self, values: HostArray) -> None:
        """Count the dates among the numbers (m,), in each format; NaN where one is missing."""
        if self._counts is None:
            first = values[values == values][:FEW]  # most columns have no dates, as these show
            if not len(first):
                return
            whole = np.count_nonzero((first >= LEAST) & (first == np.floor(first)))
            counts = {form: _dates(form, first) for form in WHOLE if 2 * whole > len(first)}
            self._counts = {form: 0 for form, n in counts.items() if 2 * n > len(first)}
            self._example = float(first[-1])
        if self._counts:
            self._total += int((values == values).sum())
            self._digits = max(self._digits, len(f"{np.fmax.reduce(values):.0f}"))
            self._counts = {form: n + _dates(form, values) for form, n in self._counts.items()}

    def format(self, order: str | None) -> DateFormat | Ambiguous | None:
        """The format of most of the numbers; None if they are no dates."""
        counts = {
            form: n
            for form, n in (self._counts or {}).items()
            if 2 * n > self._total
            and self._digits >= form.digits  # 12019 is no January in a column of such postcodes
        }
        found = [form for form, n in counts.items() if n == max(counts.values())]
        found = [form for form in found if WHOLE[form] == order] or found
        return Ambiguous(f"{self._example:08.0f}") if len(found) > 1 else next(iter(found), None)


def _dates(form: DateFormat, values: HostArray) -> int:
    """How many of the numbers (m,) are dates of a format of `WHOLE`."""
    with np.errstate(invalid="ignore"):  # of infinite ones
        rest = np.floor(values)
        fitting = rest == values
        for field in reversed(re.findall("%.", form.pattern)):
            size, low, high = FIELDS[field]
            part = rest % size
            fitting &= (part >= low) & (part <= high)
            rest = np.floor(rest / size)
    return int((fitting & (rest == 0)).sum())


def days(column: Any) -> HostArray:
    """An Arrow column of dates or times as days since 1970 (m,), NaN where one is missing."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_date(kind):
        return np.asarray(column.cast(pa.date32()).cast(pa.int32()).cast(pa.float64()).to_numpy())
    unit = pa.time64("us") if pa.types.is_time(kind) else pa.timestamp("us", kind.tz)
    micro = column.cast(unit, safe=False)
    return np.asarray(micro.cast(pa.int64()).cast(pa.float64(), safe=False)) / (1e6 * DAY)


@cache
def _formats_by_shape() -> dict[str, list[tuple[str | None, DateFormat]]]:
    """The formats that texts of a shape may have, each with its order if it has a day."""
    dates = [(order, date, str(DateFormat(date))) for order in ORDERS for date in DATES[order]]
    times = [(time, str(DateFormat(time))) for time in TIMES]
    zones = dict.fromkeys((zone, zone.replace("%z", each)) for zone in ZONES for each in OFFSETS)
    found: dict[str, list[tuple[str | None, DateFormat]]] = {}
    for (order, *date), time, zone in itertools.product(dates, times, zones):
        pattern, text = map("".join, zip(date, time, zone, strict=True))
        if ":" in text or not zone[0]:  # 1-2-2020-0330 is no date with a time zone
            found.setdefault(_shape(text), []).append((order, DateFormat(pattern)))
    for pattern in (*MONTHS, *QUARTERS, *WEEKS, *CLOCKS, *MOMENTS):
        form = DateFormat(pattern)
        found.setdefault(_shape(str(form)), []).append((None, form))
    return found


def _shape(text: str) -> str:
    """The text with 1 for each run of digits and a for each run of letters, without spaces."""
    return re.sub(r"\s+", "", re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "1", text)))


def _fits(form: DateFormat, texts: Sequence[str]) -> bool:
    return next(others(form, texts), None) is None


def _days(form: DateFormat, texts: Sequence[str]) -> HostArray:
    """The days since 1970 of texts in a format."""
    found, usual = form.usual(texts)
    rest = [form.value(texts[i]) for i in np.flatnonzero(~usual).tolist()]
    return np.append(found[usual], np.array(rest, float))


def _in_century(form: DateFormat, texts: Sequence[str]) -> DateFormat:
    """The format with years of two digits in the hundred years that suit the dates best.

    If some would be far in the future, such as birthdays of 1950, the widest gap between the years
    is between the last and the first.
    """
    if "%y" not in form.pattern:
        return form
    years = _days(form, texts).astype("M8[D]").astype("M8[Y]").astype(np.int64) + 1970
    if years.max() < FUTURE:
        return form
    two_digits = np.unique(years % 100)
    widest = int(np.diff(two_digits, prepend=two_digits[-1] - 100).argmax())
    return form._replace(first=1900 + int(two_digits[widest]))


def _differently(formats: list[DateFormat], texts: Iterable[str]) -> str:
    """The first text that means another date in another format; "" if there is none."""
    return next((t for t in texts if len({form.value(t) for form in formats}) > 1), "")
