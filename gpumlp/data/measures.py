"""Why a column cannot be used, as numbers of several units, or several in each text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

from gpumlp.data.date_texts import unread_dates
from gpumlp.data.dates import DateFormat
from gpumlp.data.numbers import ALIKE, CURRENCY, FEW, FRACTIONS, PLAIN, NumberFormat

NUMBER = re.compile(r"\d+(?:[,' ]\d{3})*(?:[.,]\d+)?")
DECIMAL = re.compile(r"\d[.,]\d")
UNIT = re.compile(r"(?:[^0]*[^\w.])?0[^0]*")  # but E11.9 and v1.2 are codes
UNITS = (
    "d|days?|h|hrs?|hours?|m|mins?|minutes?|s|secs?|seconds?|y|yrs?|years?|mo|mons?|months?|w|wks?|"
    "weeks?|ft|feet|in|lbs?|oz|st|deg|mm|cm|km|kg|g"
)
# 1h 20m, 5'11", 12°30', 1:20:30, 3 days 04:00, 120/80, 5 ± 1, (1.5, 2.5), 5 (10%), 9x12 cm
SEVERAL = re.compile(
    rf"-?0\s*({UNITS})[.,]?\s*(and\s+|x\s+)?[+-]?0.*|P(0\D)*(T(0\D)+)?|-?0\s*['\"°].*0.*|"
    r"[+-]?0(:0){1,3}|-?0/0|-?0\s*(±|\+/?-)\s*0.*|\w*\s*[(\[{].*0[,;\s].*0.*[)\]}]|-?0[,;|]\s*-?0|"
    rf"({CURRENCY})?-?0%?\s*[(\[]-?0%?(\s*(-|to|,)\s*-?0%?)?[)\]]|0(\s*[x×]\s*0)+\s*({UNITS})|0\s?\w*\s*@\s*0.*|"
    rf"0\s+(out of|of|von|sur|de|di|из)\s+0.*|0[€$£]0|"
    rf"({CURRENCY})\s*0\s*(-|to|bis)\s*({CURRENCY})?\s*0.*|0\s*(-|to|bis)\s*0\s*({UNITS}|{CURRENCY}|%)",
    re.IGNORECASE,
)
MEASURED = re.compile(  # $0, <0, 0 kg, 0 months, 0*, "0", ="0"
    rf"-?(=?['\"‘’“”„«‹\[{{]|[<>≤≥±▲▼△▽↑↓]=?\s*|(c(irc)?a|c\.|approx|about|est|from|up\sto)\.?\s*)?({CURRENCY})?\s*0\s*({UNITS}|{CURRENCY}|[*†‡+?'\"’”“′″»›\]}}]|\[[a-z0]\]|percent|pct\.?|"
    r"[%‰]|°\s*[CFK]?|[kmcµ][glmsw]|\sl|[kmgt]i?(b(its?|ytes?)?|bps|hz|w)|km?/h|m/s|mph|hp|psi|[kmh]?pa|"
    r"m?bar|sq\.? ?(ft|m)|sqm|[cmk]?m[23²³]|mi(les?)?|ya?r?ds?|inch(es)?|(kilo)?grams?|"
    r"(kilo)?met(er|re)s?|ml|lit(er|re)s?|pounds?|ounces?|tons?|[kmbgt]|[bm]n|mio\.?|mrd\.?|tsd\.?|"
    r"thousand|[mb]illion|lakh|crore|[万億亿])?",
    re.IGNORECASE,
)
MOST = 8  # so many ways to write a text
SHARE = 0.9  # of the texts are written so
Format = NumberFormat | DateFormat


class Problem(NamedTuple):
    """Why a column cannot be used.

    Attributes:
        kind: "gaps" (most texts are numbers or dates), "words", "numbers" or "dates" (where the
            model takes another kind), "zones" (times with and without one), "ambiguous" (dates of
            two readings), "units" (numbers of several units), "several" (numbers in each text),
            "unread" (dates in another form), "many" (too many different words) or "other".
        examples: the texts that are not numbers, sorted; or the names of the types.
        format: with "gaps", how the others are written.
    """

    kind: str
    examples: list[str]
    format: Format = PLAIN


def are_codes(found: NumberFormat, texts: Iterable[str]) -> bool:
    """Whether texts are codes, such as 00501 or 012b: whole numbers with leading zeros.

    What follows 05 min, 05min and 05% is a unit.
    """
    unit, known = found.after, len(found.after) > 1 and MEASURED.fullmatch(f"0{found.after}")
    if found._replace(after="") != PLAIN or known or (unit and not any(map(str.isalpha, unit))):
        return False
    code = re.compile(rf"0+[1-9]\d*{re.escape(unit)}" if unit else r"0\d+")  # 00kg is zero
    return any(map(code.fullmatch, texts))


def unclear_numbers(texts: Collection[str]) -> str:
    """Why texts are no categories: numbers of several "units", "several" in each, "unread" dates.

    It is "" where they may be codes or names, also if these have digits.
    """
    if len(texts) <= FEW:
        return ""
    plain = {text: FRACTIONS.sub("0", text.translate(ALIKE).strip()) for text in texts}
    ways = Counter(NUMBER.sub("0", text) for text in plain.values())
    usual = [way for way, _ in ways.most_common(MOST)]
    units = [way for way in usual if UNIT.fullmatch(way)]
    if sum(ways[way] for way in units) >= SHARE * len(texts):
        decimal = sum(map(bool, map(DECIMAL.search, plain.values())))
        written = 2 * decimal > len(texts) and 2 * ways["0"] < len(texts)
        odd = {way.strip() for way in units} - {"0", "-0"}
        marks = {*",."} <= {*"".join(plain.values())}  # 1.5 beside 1,5
        measured = all(map(MEASURED.fullmatch, odd)) if odd else marks
        if written or measured:
            return "units"
    several = sum(ways[way] for way in usual if SEVERAL.fullmatch(way))
    one = sum(ways[way] for way in usual if MEASURED.fullmatch(way))  # 2h beside 2h 50m
    if several + min(one, several) >= SHARE * len(texts):
        return "several"
    return "unread" if unread_dates(texts) else ""
