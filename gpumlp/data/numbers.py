"""Numbers that are written for people: 1.234,5 or 10.5 % or $1,000.

A column is read so only if all of its texts agree on the marks and on the unit.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import NamedTuple

from gpumlp.data.usual_texts import Found, others, usual_numbers

NAMED = (
    "AED|ARS|AUD|BGN|BRL|CAD|CHF|CLP|CNY|COP|CZK|DKK|EUR|GBP|HKD|HUF|IDR|ILS|INR|ISK|JPY|KES|KRW|"
    "MXN|MYR|NGN|NOK|NZD|PEN|PHP|PKR|PLN|QAR|RON|RSD|RUB|SAR|SEK|SGD|THB|TRY|TWD|UAH|USD|VND|ZAR|"
    r"US\$|R\$|Rs\.?|Rp\.?|SFr\.?|kr\.?|zł|Kč|(?:Fr\.?|RM|R|TL|₨)(?=\s)"
)
CURRENCY = rf"(?:[A-Z]{{0,3}}[$€£¥₹₩₽₺₫฿₪₦₱₴₸₼₾₿₡₲₵₭₮]|[~≈]|{NAMED})"
SHAPE = re.compile(
    rf"(?P<bracket>\()?(?P<sign>[+-]?)\s*(?P<before>{CURRENCY})?\s*(?P<inner>\()?(?P<second>[+-]?)"
    r"\s*(?P<digits>(?:\d+\s*[\s-]\s*)?\d+/\d+"  # 2 1/2
    r"|[.,]?\d(?:[\d.,' _]*\d)?[.,]?(?:[eE][+-]?\d+|[dD][+-]\d\d)?)(?(inner)\))"
    # a unit has digits only in names such as m2, m^2, s-1, l/100km
    r"\s*(?P<after>(?:[^\d\s.,()+-]|\([^\W\d_][^\d()]*\))"
    r"(?:[^\d()]|(?<=[^\W_]|[/^*])\d|(?<=[^\W\d_]-)\d|\([^\d()]*\)){0,19}?)?"
    r"(?P<last>\s*-)?(?(bracket)\))"
)
POWER = re.compile(r"\s*[x×*·⋅∙]\s*10(?:(?:\^|\*\*)\(?([+\u2212-]?\d+)\)?|([⁺⁻]?[⁰¹²³⁴-⁹]+))")
# what is missing in a .csv file where it is not within quotes; \N is MySQL's
NULLS = frozenset(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
     "<NA>", "N/A", "NA", "NULL", "NaN", "\\N", "n/a", "nan", "null"]
)  # fmt: skip
# how the characters of a number are written otherwise
ALIKE: dict[int, str | None] = {
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full-width forms
    **dict.fromkeys([0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " "),
    # dashes, and the minus, also as a superscript or small
    **dict.fromkeys([*range(0x2010, 0x2015), 0x2212, 0x207B, 0xFE63], "-"),
    **dict.fromkeys([0xAD, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F)]),  # invisible
    0xFFE0: "¢", 0xFFE1: "£", 0xFFE5: "¥", 0xFFE6: "₩", 0x66B: ".", 0x66C: ",", 0x2044: "/",
    0xB7: ".",
    **dict.fromkeys([0x2018, 0x2019, 0x2032, 0xB4, 0x60], "'"),
}  # fmt: skip
RAISED = str.maketrans("⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "+-0123456789")
FRACTIONS = re.compile("[¼-¾⅐-⅞]")
PARTS = frozenset([2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 20, 24, 25, 32, 50, 64, 100, 1000])
SPACES = "\u00a0\u2007\u2009\u202f"  # those that stand between groups of digits
MARKS = ((".", ""), (".", ","), (",", ""), (",", "."), (".", " "), (",", " "), (".", "'"),
         (",", "'"), (".", "_"), ("/", ""))  # fmt: skip
BEHIND = re.compile(r"\d.*(?<![.,:/-])-\s*$")
GRADE = re.compile(r"\d\s*-")
NO_CENTS = re.compile(r"(\d)[.,:/][-–—]+(?!\d)")  # 50.- and 500/- are prices, and not negative
SPECIAL = {"nan": math.nan, "inf": math.inf, "infinity": math.inf}
LONGEST = 400  # characters of a number: float64 has 309 digits before the point
SAMPLE = 1000  # how many texts decide about the format; the others are checked
MARKS_OF_MISSING = 4  # the most texts that most rows of a column of numbers may have
FEWEST_GROUPS = 3  # fewer numbers such as 7.560 may have three decimals by chance
FEW = 20  # so few different texts with units may be names of categories
CLOCK = ("am", "pm")
Parts = tuple[float, str, str, str]  # sign, digits, and what stands before and after them


class NumberFormat(NamedTuple):
    """How the numbers of a column are written.

    Attributes:
        decimal: the decimal mark; "/" for fractions such as 2 1/2.
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
        return None if parts is None else self._value(parts)

    def usual(self, texts: Sequence[str]) -> Found:
        """The numbers of the texts that are written as most are, and which these are."""
        return usual_numbers(texts, *self)

    @property
    def lasting(self) -> bool:
        """Whether further numbers in this format would not make another format as likely."""
        return self != PLAIN and self.thousands != "."  # 00501 is a code; 7.560 beside 60

    @property
    def pattern(self) -> str:
        """A regular expression for the numbers in this format, of the syntax that RE2 has."""
        space, sign = f"[ {SPACES}]*", "[+\u2212\u2013-]?"
        unit = singular(self.after)
        before, after = re.escape(self.before), re.escape(unit).replace(r"\.", "[.·]")
        after += "s?" * (len(unit) > 1)
        number = _pattern(self.decimal, self.thousands).pattern
        number = number.replace("\\ ", f"[ {SPACES}]").replace("'", "['’]")
        plain_zero = rf"{sign}0+(?:[.,]0*)?"
        number = rf"{sign}{space}{before}{space}{sign}{number}{space}{after}{space}-?"
        return rf"(?:\(?{number}\)?|{plain_zero})"

    def groups(self, texts: Collection[str], middle: float = 0.0, spread: float = 0.0) -> bool:
        """Whether the decimal marks of these texts may group digits: 7.560 for 7560.

        middle, spread: mean and standard deviation of the numbers that a model has learned from.
        """
        marked = [text for text in texts if self.decimal in text]
        three = re.compile(rf"\D*[1-9]\d{{0,2}}{re.escape(self.decimal)}\d{{3}}\D*")
        if len(marked) < FEWEST_GROUPS or not all(map(three.fullmatch, marked)):
            return False
        if self.thousands in {".", ","}:  # which numbers of two marks have in the other order
            return not any(self.thousands in text for text in texts)
        if self != PLAIN or len(marked) < len(texts):
            return self == PLAIN and _points_group(texts)
        values = [self.value(text) or 0.0 for text in texts]  # all too near each other, and too low
        fitting = all(abs(1000 * value - middle) < 4 * spread for value in values)
        return fitting and 50 * (max(values) - min(values)) < spread

    def translation(self, texts: Iterable[str]) -> tuple[str, str, str]:
        """The arguments of `str.maketrans` that make numbers in this format those of Python."""
        changed, plain, gone = "", "", ""
        for char in sorted(set().union(*texts)):
            alike = ALIKE.get(ord(char), char)
            if alike is None or alike in {" ", ")", self.thousands}:
                gone += char
                continue
            new = {self.decimal: ".", "(": "-"}.get(alike, alike)
            new = str(int(new)) if new.isdecimal() else new
            if new != char:
                changed, plain = changed + char, plain + new
        return changed, plain, gone

    def _value(self, parts: Parts) -> float | None:
        """The number of a text with these parts; None if it is not in this format."""
        sign, digits, before, after = parts
        number = self._number(digits)
        other = before != self.before or singular(after) != singular(self.after)
        if number is None or (other and (number != 0 or before or after)):
            return None
        return sign * number

    def _number(self, digits: str) -> float | None:
        if digits.lower() in SPECIAL:
            return SPECIAL[digits.lower()]
        if not _pattern(self.decimal, self.thousands).fullmatch(digits):
            return None
        digits = digits.lower().replace("d", "e")
        if "/" in digits:
            found = re.fullmatch(r"(?:(\d+)\D+)?(\d+)/(\d+)", digits)
            whole, part, parts = map(int, found.groups("0") if found else "001")
            proper = part < parts or (part == parts and not whole)  # 10/10 is the best score
            return whole + part / parts if proper and parts in PARTS else None
        plain = digits.replace(self.thousands, "") if self.thousands else digits
        return float(plain.replace(self.decimal, "."))


PLAIN = NumberFormat()


def format_of(counts: Mapping[str, int]) -> tuple[NumberFormat, list[str]] | None:
    """The format of most of the texts, and the other texts, sorted; None if they are words."""
    there = {text: n for text, n in counts.items() if text not in NULLS}
    best = _best(dict(islice(there.items(), SAMPLE)))
    left = [] if best is None else [*others(best, [*there])]
    if left:  # the first texts may fit several formats
        odd = {text: there[text] for text in left[:SAMPLE]}
        best = _best(dict(islice(there.items(), SAMPLE)) | odd)
        left = [] if best is None else [*others(best, [*there])]
    if best is None:
        return None
    # in most rows may be one of a few marks of missing values
    marks = len(left) <= MARKS_OF_MISSING and len(there) - len(left) > FEW
    if 2 * _rows(there, left) >= _rows(there, there) and not marks:
        return None
    behind = [text for text in there if BEHIND.search(text)]  # 12.50- as SAP writes −12.50
    if len(there) <= FEW and any(map(GRADE.fullmatch, behind)):
        return None
    left += behind if len(behind) == 1 and behind[0] not in left else []  # a slip of the pen
    named = any(c.isalnum() for text in left for c in text)  # and not "?" or "--"
    if named and (best.before or best.after) and len(there) <= FEW:
        return None
    return best, sorted(left)


def _best(counts: Mapping[str, int]) -> NumberFormat | None:
    """The format of the most rows; None if no text is a number."""
    units, alike = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    numbers = {text: parts for text in counts if (parts := _parts(text)) is not None}
    for text, (_, _, before, after) in numbers.items():
        units[before, after] += counts[text]
        alike[before, singular(after)] += counts[text]
    if not units:
        return None
    unit = max(units, key=lambda each: (alike[each[0], singular(each[1])], units[each]))
    seen = set().union(*(parts[1] for parts in numbers.values()))
    formats = [  # in those left out, no other text is a number
        NumberFormat(decimal, mark, *unit)
        for decimal, mark in MARKS
        if mark in seen or (not mark and decimal in seen | {"."})
    ]
    matching = [
        [text for text, parts in numbers.items() if each._value(parts) is not None]
        for each in formats
    ]
    rows = [_rows(counts, texts) for texts in matching]
    best = formats[rows.index(max(rows))]
    points = NumberFormat(",", ".", *unit)
    if (best.decimal, best.thousands) == (".", "") and "." in seen:
        as_groups = rows[formats.index(points)] == max(rows) and _points_group(matching[0])
        return points if as_groups else best
    return best


def _points_group(texts: Iterable[str]) -> bool:
    """Whether 7.560 is 7560 in these texts, which are whole numbers and numbers of this form.

    As a decimal it would be written 7.56 by those who write 60, and they 60.000 by the others.
    """
    digits = [parts[1] for text in texts if (parts := _parts(text)) is not None]
    points = [each for each in digits if "." in each]
    some = len(digits) / 10 <= len(points) < len(digits)  # and not one slip of the pen
    return some and any(each.endswith("0") for each in points)


def are_ranges(texts: Collection[str], others: Collection[str]) -> bool:
    """Whether texts are categories such as 1, 2-10, over 10: the `others` outnumber the numbers."""
    return 2 * len(others) > len(texts) and all(re.search(r"\d", text) for text in others)


def singular(unit: str) -> str:
    """The unit without the s of a plural: year for years."""
    return unit[:-1] if len(unit) > 2 and unit.endswith("s") else unit


def _rows(counts: Mapping[str, int], texts: Iterable[str]) -> int:
    return sum(counts[text] for text in texts)


def _parts(text: str) -> Parts | None:
    """Sign, digits, and what stands before and after them; None if it is no number."""
    text = text.strip()
    if len(text) > LONGEST:
        return None
    text = POWER.sub(lambda found: "e" + (found[1] or found[2]).translate(RAISED), text)
    text = FRACTIONS.sub(lambda found: " " + unicodedata.normalize("NFKC", found[0]), text)
    text = NO_CENTS.sub(r"\1", text.translate(ALIKE)).strip()
    if text.lstrip("+-").lower() in SPECIAL:
        return (-1.0 if text[0] == "-" else 1.0), text.lstrip("+-"), "", ""
    match = SHAPE.fullmatch(text)
    if match is None:
        return None
    signs, after = match["sign"] + match["second"], (match["after"] or "").strip()
    signs += (match["last"] or "").strip()
    if (
        len(signs) > 1
        or ((match["bracket"] or match["inner"]) and match["last"])
        or after[:1].isnumeric()
        or after.lower() in CLOCK
        or (match["digits"].endswith(".") and after)  # 2. Married
        or ("/" in match["digits"] and after[:1] == "/")
    ):  # ² is no unit, 1/5/24 no fraction, and 10 pm a time
        return None
    negative = signs == "-" or match["bracket"] is not None or match["inner"] is not None
    return (-1.0 if negative else 1.0), match["digits"], match["before"] or "", after


@cache
def _pattern(decimal: str, thousands: str) -> re.Pattern[str]:
    """The digits of a number."""
    if decimal == "/":
        return re.compile(r"(?:\d+(?:\.\d*)?|(?:\d+ *[ -] *)?\d+/\d+)")
    d, t = re.escape(decimal), re.escape(thousands)
    # 12,34,567 is how India writes it
    groups = rf"(?:{t}\d{{3}})+|(?:{t}\d\d)+{t}\d{{3}}"
    grouped = rf"[1-9]\d{{0,2}}(?:{groups})(?:{d}\d*)?|" if thousands else ""
    # a number with an exponent has no groups: 1,234e5 has a decimal comma
    power = r"(?:[eE][+-]?\d+|[dD][+-]\d\d)?"
    return re.compile(rf"(?:{grouped}(?:\d+(?:{d}\d*)?|{d}\d+){power})")
