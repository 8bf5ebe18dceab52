"""Texts that hold numbers which cannot be read: of several units, or several in each text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection

from gpumlp.data.numbers import ALIKE, CURRENCY, FEW, FRACTIONS

NUMBER = re.compile(r"\d+(?:[,' ]\d{3})*(?:[.,]\d+)?")
DECIMAL = re.compile(r"\d[.,]\d")
UNIT = re.compile(r"(?:[^0]*[^\w.])?0([^0]*)")  # but E11.9 and v1.2 are codes
SCALES = frozenset(
    [
        "k",
        "m",
        "b",
        "g",
        "t",
        "bn",
        "mn",
        "mio",
        "mrd",
        "tsd",
        "万",
        "億",
        "亿",
        "thousand",
        "million",
        "billion",
    ]
)
UNITS = (
    "d|days?|h|hrs?|hours?|m|mins?|minutes?|s|secs?|seconds?|y|yrs?|years?|mo|mons?|months?|w|wks?|"
    "weeks?|ft|feet|in|lbs?|oz|st|deg|mm|cm|km|kg|g"
)
SEVERAL = re.compile(  # 1h 20m, 5'11", 12°30', 1:20:30, 3 days 04:00, 120/80, 5 ± 1, (1.5, 2.5)
    rf"-?0\s*({UNITS})[.,]?\s*(and\s+|x\s+)?[+-]?0.*|P(0\D)*(T(0\D)+)?|-?0\s*['\"°].*0.*|"
    r"[+-]?0(:0){1,3}|-?0/0|-?0\s*(±|\+/?-)\s*0.*|\w*\s*[(\[{].*0[,;\s].*0.*[)\]}]|-?0[,;|]\s*-?0|0\(0\)",
    re.IGNORECASE,
)
MEASURED = re.compile(  # $0, <0, 0 kg, 0 months, 0*
    rf"-?([<>≤≥±]=?\s*|ca\.?\s*|{CURRENCY})?\s*0\s*({UNITS}|{CURRENCY}|[*†‡+?'\"’”′″]|percent|pct\.?|"
    r"[%‰]|°\s*[CFK]?|[kmcµ][glmsw]|\sl|[kmgt]i?(b(its?|ytes?)?|bps|hz|w)|km?/h|m/s|mph|hp|psi|[kmh]?pa|"
    r"m?bar|sq\.? ?(ft|m)|sqm|[cmk]?m[23²³]|mi(les?)?|ya?r?ds?|inch(es)?|(kilo)?grams?|"
    r"(kilo)?met(er|re)s?|ml|lit(er|re)s?|pounds?|ounces?|tons?|lakh|crore)?",
    re.IGNORECASE,
)
MOST = 8  # so many ways to write a text
SHARE = 0.9  # of the texts are written so


def unclear_numbers(texts: Collection[str]) -> str:
    """Why texts are no categories: "units", if they have numbers of several units; or "several".

    It is "" where they may be codes or names, also if these have digits.
    """
    if len(texts) <= FEW:
        return ""
    plain = {text: FRACTIONS.sub("0", text.translate(ALIKE).strip()) for text in texts}
    ways = Counter(NUMBER.sub("0", text) for text in plain.values())
    usual = [way for way, _ in ways.most_common(MOST)]
    units = [found for way in usual if (found := UNIT.fullmatch(way))]
    if sum(ways[found[0]] for found in units) >= SHARE * len(texts):
        ends = {found[1].strip(" .").lower() for found in units}
        scaled = bool(ends - {""}) and ends - {""} <= SCALES
        decimal = sum(map(bool, map(DECIMAL.search, plain.values())))
        written = 2 * decimal > len(texts) and 2 * ways["0"] < len(texts)
        odd = {each[0].strip() for each in units} - {"0", "-0"}
        measured = (
            all(map(MEASURED.fullmatch, odd)) if odd else {*",."} <= {*"".join(plain.values())}
        )
        return "units" if scaled or written or measured else ""
    several = sum(ways[way] for way in usual if SEVERAL.fullmatch(way))
    return "several" if several >= SHARE * len(texts) else ""
