"""Numbers that are written for people: 1.234,5 or 10.5 % or $1,000.

A column is read so only if all of its texts agree on the marks and on the unit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import NamedTuple

NAMED = "USD|EUR|GBP|CHF|JPY|CNY|INR|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|BRL|MXN|ZAR|US\\$|R\\$|kr"
CURRENCY = rf"(?:[$€£¥₹₩₽₺₫฿₪]|{NAMED})"
SHAPE = re.compile(
    rf"(?P<bracket>\()?(?P<sign>[+-]?)\s*(?P<before>{CURRENCY})?\s*(?P<second>[+-]?)"
    r"(?P<digits>[.,]?\d(?:.*\d)?[.,]?(?:[eE][+-]?\d+)?)"
    r"\s*(?P<after>[^\d\s.,()+-][^\d()]{0,11})?(?(bracket)\))"
)
# what pyarrow takes for missing where it is not within quotes
NULLS = frozenset(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
     "N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"]
)  # fmt: skip
SPACES = "\u00a0\u202f\u2009"
MARKS = ((".", ""), (".", ","), (",", ""), (",", "."), (".", " "), (",", " "), (".", "'"),
         (",", "'"), (".", "_"))  # fmt: skip
PLAIN_SIGNS = "--."
SPECIAL = {"nan": math.nan, "inf": math.inf, "infinity": math.inf}
SAMPLE = 1000  # how many texts decide about the format; the others are checked
FEW = 20  # so few different texts with units may be names of categories


class NumberFormat(NamedTuple):
    """How the numbers of a column are written.

    Attributes:
        decimal: the decimal mark.
        thousands: the mark between groups of three digits; "" for none.
        before, after: the currency or the unit.
    """

    decimal: str = "."
    thousands: str = ""
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        """An example of a number in this format."""
        number = f"1{self.thousands}234{self.decimal}5" if self.thousands else f"1{self.decimal}5"
        after = f" {self.after}" if self.after[:1].isalpha() else self.after
        return f"{self.before}{number}{after}"

    def value(self, text: str) -> float | None:
        """The number of a text, NaN for a word such as NA; None if it is not in this format."""
        if text in NULLS:
            return math.nan
        parts = _parts(text)
        if parts is None:
            return None
        sign, digits, before, after = parts
        number = self._number(digits)
        if number is None or ((before, after) != (self.before, self.after) and number != 0):
            return None
        return sign * number

    @property
    def pattern(self) -> str:
        """A regular expression for the numbers in this format, of the syntax that RE2 has."""
        space, sign = f"[ {SPACES}]*", "[+\u2212-]?"
        before, after = re.escape(self.before), re.escape(self.after)
        number = _pattern(self.decimal, self.thousands).pattern
        number = number.replace("\\ ", f"[ {SPACES}]").replace("'", "['’]")
        plain_zero = rf"{sign}0+(?:[.,]0*)?"
        return rf"(?:\(?{sign}{space}{before}{space}{sign}{number}{space}{after}\)?|{plain_zero})"

    @property
    def signs(self) -> str:
        """The characters that stand for those of `PLAIN_SIGNS`."""
        return "\u2212(" + self.decimal

    @property
    def gaps(self) -> str:
        """The characters that are left out when a number is written without a format."""
        also = "’" if self.thousands == "'" else ""
        return ") " + SPACES + self.thousands.strip() + also

    def _number(self, digits: str) -> float | None:
        if digits.lower() in SPECIAL:
            return SPECIAL[digits.lower()]
        if not _pattern(self.decimal, self.thousands).fullmatch(digits):
            return None
        plain = digits.replace(self.thousands, "") if self.thousands else digits
        return float(plain.replace(self.decimal, "."))


PLAIN = NumberFormat()


def format_of(counts: Mapping[str, int]) -> tuple[NumberFormat, list[str]] | None:
    """The format that most of the texts have, and the other texts, sorted; None if they are words.

    Args:
        counts: the frequency of each text.
    """
    there = {text: n for text, n in counts.items() if text not in NULLS}
    best = _best(dict(islice(there.items(), SAMPLE)))
    left = [] if best is None else [text for text in there if best.value(text) is None]
    if left:  # the first texts may fit several formats
        odd = {text: there[text] for text in left[:SAMPLE]}
        best = _best(dict(islice(there.items(), SAMPLE)) | odd)
        left = [] if best is None else [text for text in there if best.value(text) is None]
    if best is None or 2 * _rows(there, left) >= _rows(there, there):
        return None
    if left and (best.before or best.after) and len(there) <= FEW:
        return None
    return best, sorted(left)


def _best(counts: Mapping[str, int]) -> NumberFormat | None:
    """The format of the most rows; None if no text is a number."""
    units: dict[tuple[str, str], int] = {}
    for text, count in counts.items():
        if (parts := _parts(text)) is not None:
            units[parts[2:]] = units.get(parts[2:], 0) + count
    if not units:
        return None
    unit = max(units, key=lambda each: units[each])
    formats = [NumberFormat(*marks, *unit) for marks in MARKS]
    matching = [[text for text in counts if f.value(text) is not None] for f in formats]
    rows = [_rows(counts, texts) for texts in matching]
    return formats[rows.index(max(rows))]


def _rows(counts: Mapping[str, int], texts: Iterable[str]) -> int:
    return sum(counts[text] for text in texts)


def _parts(text: str) -> tuple[float, str, str, str] | None:
    """Sign, digits, and what stands before and after them; None if it is no number."""
    text = text.strip().replace("\u2212", "-")  # the typographic minus
    for space in SPACES:
        text = text.replace(space, " ")
    text = text.replace("’", "'")
    if text.lstrip("+-").lower() in SPECIAL:
        return (-1.0 if text[0] == "-" else 1.0), text.lstrip("+-"), "", ""
    match = SHAPE.fullmatch(text)
    if match is None or (match["sign"] and match["second"]):
        return None
    negative = "-" in (match["sign"], match["second"]) or match["bracket"] is not None
    after = (match["after"] or "").strip()
    return (-1.0 if negative else 1.0), match["digits"], match["before"] or "", after


def _pattern(decimal: str, thousands: str) -> re.Pattern[str]:
    """The digits of a number; re caches the compiled patterns."""
    d, t = re.escape(decimal), re.escape(thousands)
    grouped = rf"[1-9]\d{{0,2}}(?:{t}\d{{3}})+(?:{d}\d*)?|" if thousands else ""
    return re.compile(rf"(?:{grouped}\d+(?:{d}\d*)?|{d}\d+)(?:[eE][+-]?\d+)?")
