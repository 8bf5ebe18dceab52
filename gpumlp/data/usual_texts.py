"""Numbers and dates of many texts at once, where they are written as most are.

Arrow's functions need less than a microsecond for a text, and those that read any spelling ten.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from gpumlp.io.types import HostArray

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
CURRENCY = re.compile("[$€£¥₹]?")
UNIT = re.compile("[$€£¥%°]?|[a-z]{1,9}")
FIELDS = {  # of dates: the pattern, the least and the largest number
    "Y": ("[0-9]{4}", 1, 9999), "y": ("[0-9]{2}", 0, 99), "m": ("[0-9]{1,2}", 1, 12),
    "b": ("[A-Za-z]{3}", 1, 12), "d": ("[0-9]{1,2}", 1, 31), "H": ("[0-9]{1,2}", 0, 23),
    "I": ("[0-9]{1,2}", 1, 12), "M": ("[0-9]{2}", 0, 59), "S": ("[0-9]{2}", 0, 59),
    "p": ("[AaPp][Mm]", 0, 1),
}  # fmt: skip
LONGEST = 64  # bytes
FEW = 100  # of so few texts each is read by itself
Found = tuple[HostArray, HostArray]
"""The values of n texts, float64 (n,), and which are valid, bool (n,)."""


def usual_numbers(
    texts: Sequence[str], decimal: str, thousands: str, before: str, after: str
) -> Found:
    """The numbers of texts in this format, see `numbers.NumberFormat`; others are not valid."""
    if decimal == "/" or not CURRENCY.fullmatch(before) or not UNIT.fullmatch(after):
        return _none(texts)
    fraction = f"(?:[{decimal}][0-9]+)?"
    digits = f"[0-9]+{fraction}"
    if thousands:
        digits = f"[1-9][0-9]{{0,2}}(?:[{thousands}][0-9]{{3}})+{fraction}|{digits}"

    def values(parts: dict[str, Any]) -> Found:
        import pyarrow.compute as compute

        plain = parts["digits"]
        for mark, new in ((thousands, ""), (decimal, ".")):
            plain = compute.replace_substring(plain, mark, new) if mark else plain
        negative = compute.equal(parts["sign"], "-").to_numpy(zero_copy_only=False)
        number = plain.cast("float64").to_numpy()
        return np.where(negative, -number, number), np.ones(len(number), bool)

    before, after = re.escape(before), re.escape(after)
    return _found(texts, f"(?P<sign>-?){before}(?P<digits>{digits}) ?{after}", values)


def usual_dates(texts: Sequence[str], format: str, first: int) -> Found:
    """Days since 1970 of dates in this format, see `dates.DateFormat`; others are not valid."""
    fields = re.findall("%(.)", format)
    if not {*fields} <= FIELDS.keys() or re.search("%.%|Q|-%Y ", format):
        return _none(texts)
    pattern = re.escape(format).replace(r"\ ", ",? ")
    for field in fields:
        pattern = pattern.replace(f"%{field}", f"(?P<{field}>{FIELDS[field][0]})")
    return _found(texts, pattern, partial(_days, first))


class Format(Protocol):
    """How numbers or dates are written."""

    def usual(self, texts: Sequence[str]) -> Found:
        """The values of the texts that are written as most are, and which these are."""

    def value(self, text: str) -> float | None:
        """That of a text in any spelling; None if it is not in this format."""


def others(form: Format, texts: Sequence[str]) -> Iterator[str]:
    """The texts that are not in a format."""
    _, usual = form.usual(texts) if len(texts) > FEW else _none(texts)
    rest = (texts[i] for i in np.flatnonzero(~usual).tolist())
    return (text for text in rest if form.value(text) is None)


def _none(texts: Sequence[str]) -> Found:
    return np.full(len(texts), np.nan), np.zeros(len(texts), bool)


def _found(texts: Sequence[str], pattern: str, values: Callable[[dict[str, Any]], Found]) -> Found:
    """What `values` makes of the named groups of the texts that match the pattern."""
    import pyarrow as pa
    import pyarrow.compute as compute

    column = pa.array(texts, pa.string())
    groups = compute.extract_regex(column, f"^(?:{pattern})$")
    short = compute.less_equal(compute.binary_length(column), LONGEST)
    usual = compute.and_(groups.is_valid(), short).to_numpy(zero_copy_only=False)
    kind, parts = groups.type, groups.filter(pa.array(usual))
    out, valid = _none(texts)
    if len(parts):
        names = (kind.field(i).name for i in range(kind.num_fields))
        number, is_valid = values(dict(zip(names, parts.flatten(), strict=True)))
        out[usual], valid[usual] = np.where(is_valid, number, np.nan), is_valid
    return out, valid


def _days(first_year: int, parts: dict[str, Any]) -> Found:
    """Days since 1970 from the fields of dates, and whether there is such a date."""
    of = {name: _number(name, texts) for name, texts in parts.items()}
    valid = np.array([True])
    for name, each in of.items():
        valid = valid & (FIELDS[name][1] <= each) & (each <= FIELDS[name][2])
    year: Any = of.get("Y", 1970)  # that of a time alone
    if "y" in of:
        year = first_year + (of["y"] - first_year) % 100
    month = np.asarray(12 * (year - 1970) + of.get("m", of.get("b", 1)) - 1)
    first, end = ((month + i).astype("M8[M]").astype("M8[D]").astype(np.int64) for i in (0, 1))
    day = first + of.get("d", 1) - 1
    hour = of.get("H", of.get("I", 0) % 12 + 12 * of.get("p", 0))
    seconds = 3600 * hour + 60 * of.get("M", 0) + of.get("S", 0)
    return (86_400 * day + seconds) / 86_400.0, valid & (day < end)


def _number(field: str, texts: Any) -> HostArray:
    """A field of dates as whole numbers; 0 for what is no month's name."""
    import pyarrow as pa
    import pyarrow.compute as compute

    if field == "b":
        place = compute.index_in(compute.utf8_lower(texts), pa.array(MONTHS))
        return np.asarray(compute.add(place, 1).fill_null(0)).astype(np.int64)
    if field == "p":
        return np.asarray(compute.equal(compute.utf8_lower(texts), "pm")).astype(np.int64)
    return np.asarray(texts.cast("int64"))
