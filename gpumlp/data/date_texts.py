"""Texts of dates made alike: months, weekdays, ordinals, clocks and time zones in one spelling."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from itertools import islice

from gpumlp.data.numbers import ALIKE, NULLS

Changes = list[tuple[re.Pattern[str], str]]

ENGLISH = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MONTHS = (  # English, German, French, Spanish, Italian, Portuguese, Dutch, Scandinavian
    "jan(uar[yi]?|vier|v|eiro)?|jän(ner)?|ene(ro)?|gen(naio)?",
    "feb(ruar[yi]?|rero|braio)?|fév(r|rier)?|fev(r|ereiro)?",
    "mar(ch|t?s|zo|ço)?|märz|mrz|maart|mrt",
    "apr(ile?)?|avr(il)?|abr(il)?",
    "may|mai|maj|mayo|mag(gio)?|maio|mei",
    "june?|juni|juin|junio|giu(gno)?|junho",
    "july?|juli|juil(let)?|julio|lug(lio)?|julho",
    "aug(ust(us|i)?)?|août|ago(sto)?",
    "sept?(ember|embre)?|septiembre|set(tembre|embro)?",
    "oct(ob(er|re))?|octubre|okt(ober)?|ott(obre)?|out(ubro)?",
    "nov(ember|embre|iembre|embro)?",
    "de[cs](ember)?|dez(ember|embro)?|déc(embre)?|dic(iembre|embre)?",
)
DAYS = (
    r"mon|tues?|wed(nes)?|thu(rs?)?|fri|sat(ur)?|sun|(mon|tues|wednes|thurs|fri|satur|sun)day|m[oi]|"
    r"d[io]|fr|s[ao]|(mon|diens|donners|frei|sams|sonn)tag|mittwoch|sonnabend|lunes|martes|domingo|"
    r"(lun|mar|mercre|jeu|vendre|same)di|dimanche|miércoles|jueves|viernes|s[áa]bado"
)
WORD = r"(?<![^\W\d_])(?:{})(?![^\W\d_])"  # between others than letters
NAMED = "|".join(f"(?P<m{i}>{names})" for i, names in enumerate(MONTHS))
MONTH = re.compile(rf"[\s.,/_-]*{WORD.format(NAMED)}\.?[\s,/_-]*", re.IGNORECASE)
DAY = re.compile(rf"[\s,(]*{WORD.format(DAYS)}[.)]*,?\s*", re.IGNORECASE)
DATED = re.compile(r"\d{4}(?!\d)|\d[./-]\d+[./-]")  # more than a time
NAME = re.compile("|".join(ENGLISH), re.IGNORECASE)
HALF_DAY = re.compile(  # a clock of 12 hours
    r"(?<!\d)(1[0-2]|0?[1-9])((?::\d\d)*(?:\.\d+)?)\s*([ap])m(?![^\W\d_])", re.IGNORECASE
)
CHANGES: Changes = [
    (re.compile(pattern, re.IGNORECASE), new)
    for pattern, new in (
        (r"^\[(.*)\]$", r"\1"),
        (r"(?<=\d)(?:st|nd|rd|th|er|[ºª])\b|\b(?:of|at|de|del|um|uhr)\b", " "),  # 1st of May
        (r"년", "年"), (r"월", "月"), (r"일", "日"), (r"(?<=[年月])\s+", ""),
        (r"(?<=\d)t(?=\d)", "T"), (r"(?<=\d)z$", "Z"),
        (r"^(\d\d?)\.(\d{4})$", r"\1/\2"), (r"^(\d{4})\.(\d\d)$", r"\1-\2"),
        (r"^(\d{8})[ _-](\d\d):?(\d\d):?(\d\d)$", r"\1T\2\3\4"),
        (r"(?<=[\s:T])(\d\d?)\.(\d\d)\.(\d\d)\.(\d{3,9})", r"\1:\2:\3.\4"),  # Oracle's clock
        (r"(?<=\d\s)(\d\d?)h(\d\d)$", r"\1:\2"),
        (r"(:\d\d[.,]\d{6})\d+", r"\1"),  # of nanoseconds
        (r"(:\d\d|^\d\d?|\s\d\d?)\s*([ap])\.?\s?m\b\.?", r"\1 \2m"),
        (r"(:\d\d)\s?([ap])\b", r"\1 \2m"),
        (r"(?:\bGMT)?([+-]\d{2}:?\d\d)\s*(?:\(.*\)|\[.*\]|UTC)$", r"\1"),  # +01:00[Europe/Paris]
        (r"\bGMT(?=[+-]\d)", ""),
        (r"(:\d\d(?:[.,]\d+)?\s?[+-]\d\d)$", r"\1:00"),
        (r"[´']\s*(?=\d\d\b)", " "),  # Jun '22
        (r"\b(\d)\s*q(?:tr)?[\s/-]*(?=\d{2}|\d{4}$)", r"Q\1 "),  # 2Q22
        (r"^(?:week|wk|kw|cw|w)\.?\s*(\d\d?)[\s,/-]+(\d{4})$", r"\2-W\1"),
        (r"^(\d{4})[\s,/-]*(?:week|wk|kw|cw)\.?\s*(\d\d?)$", r"\1-W\2"),
        (r",(?=\s)|\s+(?=\s|$)|^\s+", ""),
        (r"^(\D*\d\d?) (\d\d:\S+)(?: UTC)?( [+-]\d{4})? (\d{4})$", r"\1 \4 \2\3"),  # ctime
    )
]  # fmt: skip
USUAL = re.compile(r"[\d\s:./TZ+-]*", re.ASCII)  # as most dates are written, but for these
UNUSUAL = re.compile(
    r"^\d\d?\.\d{4}$|^\d{4}\.\d\d$|\.\d{7}|\.\d\d\.\d\d\.|^\d{8}[ -]|:\d\d(?:\.\d+)?\s?[+-]\d\d$"
)
ONES = str.maketrans("023456789", "1" * 9)
# what dates that cannot be read consist of
PARTS = re.compile(
    r"(?:(?<!\d)(?:\d{1,2}|(?:19|20)\d\d)(?!\d)|[.,]\d{3,9}(?!\d)|[\W_]|"
    rf"{WORD.format('|'.join((*MONTHS, DAYS)))}|[ap]m|week|utc|gmt|(?-i:[A-Z]{{2,4}}T)|"
    r"[a-z]+/[a-z_]+|[tzqhw])++",
    re.IGNORECASE,
)
YEAR_OR_CLOCK = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)|\d:\d\d")
NAMED_MONTH = re.compile(r"\d{1,2}\W{1,2}([^\W\d_]{3,12})\W{1,2}(?:19|20)\d\d(?!\d)")
MOST_NAMES = 24  # of months in one language, also abbreviated
SHARE = 0.9  # of the texts are dates
MONTH_AND_DAY = re.compile(
    rf"(?P<day>\d\d?)?\W*({WORD.format('|'.join(MONTHS))})\W*(?(day)|(\d\d?))", re.IGNORECASE
)
SEASON = re.compile(r"(?:19|20)(\d\d)[-/](\d\d)", re.ASCII)
DOTTED = (
    re.compile(r"(?:0?[1-9]|1[0-2])\.(?:19|20)\d\d", re.ASCII),
    re.compile(r"(?:19|20)\d\d\.(?:0[1-9]|1[0-2])", re.ASCII),
)
DOTTED_AS = ("%m/%Y", "%Y-%m")  # how they are read
FEWEST_DOTTED = 5  # different texts; fewer decimals may be such by chance
LONGEST = 64  # characters of a date
DAYS_OF_MONTH = 31
MOST_CHECKED = 1000  # texts that show whether a column holds dates
MOST_YEARS = 25  # between months such as Mar 05 of this century


def regular(text: str) -> str:
    """The text of a date with English names of months of three letters, and usual clocks."""
    if len(text) > LONGEST or (USUAL.fullmatch(text) and not UNUSUAL.search(text)):
        return text
    if not text.isascii():
        text = text.translate(ALIKE)
        text = "".join(str(int(c)) if c.isdecimal() else c for c in text)
    for pattern, new in _changes(text.translate(ONES)):
        text = pattern.sub(new, text)
    return text


def numbered(text: str, pattern: str) -> tuple[str, str]:
    """A text and a pattern of `strptime` with numbers for "Dec" and "PM".

    `strptime` expects the names of the process's locale, which a window system may have set.
    """
    if "%b" in pattern:
        pattern = pattern.replace("%b", "/%m/")
        found = NAME.search(text)
        number = f"/{ENGLISH.index(found[0].title()) + 1:02}/" if found else ""
        text = NAME.sub(number, text, count=1) if found else ""
    if "%I" in pattern and "%p" in pattern:
        pattern = re.sub(r"\s*%p", "", pattern.replace("%I", "%H"))
        found = HALF_DAY.search(text)
        hour = int(found[1]) % 12 + 12 * (found[3] in "pP") if found else 0
        text = HALF_DAY.sub(rf"{hour:02}\2", text, count=1) if found else ""
    return text, pattern


@lru_cache(4096)
def _changes(text: str) -> Changes:
    """What is to be changed in a text, and in all that differ from it in digits alone."""
    needed: Changes = []

    def change(pattern: re.Pattern[str], new: str) -> None:
        nonlocal text
        if pattern.search(text):
            needed.append((pattern, new))
            text = pattern.sub(new, text)

    found = DAY.search(text)
    if found and DATED.search(text[: found.start()] + " " + text[found.end() :]):
        change(re.compile(re.escape(found[0])), " ")
    for pattern, new in CHANGES:
        change(pattern, new)
    found = MONTH.search(text)
    if found:
        name = ENGLISH[int(str(found.lastgroup)[1:])]
        # names in other languages may be other words: set 10
        if re.search(r"\d{4}|\d\D+\d", text) or found[0].strip(" .,/_-").title() == name:
            change(re.compile(re.escape(found[0])), f" {name} ")
            change(re.compile(r"^\s+|\s+$"), "")
    return needed


def are_dotted(texts: Collection[str]) -> bool:
    """Whether texts are months such as 06.2022 or 2022.06, which could be decimals."""
    there = {text.strip() for text in texts} - NULLS
    return len(there) >= FEWEST_DOTTED and any(all(map(one.fullmatch, there)) for one in DOTTED)


def are_days(texts: Collection[str]) -> bool:
    """Whether texts are days without a year, such as Mar 05 or 5 March, or seasons, as 2001-02.

    In other columns 05 is a year, and 02 a month.
    """
    numbers, names = set[int](), set[str]()
    seasons = [found for text in texts if (found := SEASON.fullmatch(text))]
    if len(seasons) == len(texts) > 2:
        return all((int(found[1]) + 1) % 100 == int(found[2]) for found in seasons)
    for text in texts:
        if len(text) > LONGEST or not (found := MONTH_AND_DAY.fullmatch(text)):
            return False
        numbers.add(int(found["day"] or found[found.lastindex or 0]))
        names.add(found[2].lower())
    low, high = min(numbers, default=0), max(numbers, default=0)
    return 0 < low < high - MOST_YEARS and high <= DAYS_OF_MONTH and len(names) > 2


def unread_dates(texts: Collection[str]) -> bool:
    """Whether texts that are not read as dates are dates in another form, such as 10:30 CET."""
    if are_days(texts):
        return True
    first = [text for text in islice(texts, MOST_CHECKED) if len(text) <= LONGEST]
    some = [text for text in first if YEAR_OR_CLOCK.search(text)]
    least = SHARE * min(len(texts), MOST_CHECKED)
    names = [found[1] for text in first if (found := NAMED_MONTH.match(text))]
    if len(names) >= least and len({*names}) <= MOST_NAMES:  # 10 октября 2022
        return True
    return len(some) >= least and sum(map(bool, map(PARTS.fullmatch, map(regular, some)))) >= least
