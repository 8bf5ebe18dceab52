"""Texts that mean the same: 1 and 1.0, true and TRUE, a date with and without midnight."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Hashable, Iterable
from datetime import datetime
from decimal import Decimal

from gpumlp.data.numbers import ALIKE

BLANKS = string.whitespace + "\x85\xa0\u2007\u200b\u200e\u200f\u202f\u2060\u3000\ufeff"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
# 1.0, as pandas writes 1 beside a gap; 1.000 may be a thousand
WHOLE = re.compile(r"([+-]?(?:0|[1-9]\d*))\.(?!000$)0*", re.ASCII)
CODE = re.compile(r"[+-]?0\d+", re.ASCII)  # leading zeros belong to a code
DATE = re.compile(r"\d{4}-\d\d-\d\d.*", re.ASCII)
TRUTH = {"false": Decimal(0), "true": Decimal(1)}


def plain(text: str) -> str:
    """The text without surrounding spaces, and a whole number without a point."""
    text = text.strip(BLANKS)
    whole = WHOLE.fullmatch(text)
    return whole[1] if whole else text


def meaning(text: str) -> Hashable:
    """Equal for texts of the same number, truth value or time; false and true are 0 and 1.

    Characters that look alike are equal, and invisible ones do not count.
    """
    if NUMBER.fullmatch(number := text.translate(ALIKE).strip()):
        return Decimal(number)
    if DATE.fullmatch(text):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    truth = TRUTH.get(number.lower())
    return unicodedata.normalize("NFC", number) if truth is None else truth


def spellings(text: str) -> list[str]:
    """The usual texts with the meaning of this one: "1" and "1.0", "true", "True" and "TRUE"."""
    if WHOLE.fullmatch(f"{text}.0"):
        return [text, f"{text}.0"]
    if (truth := TRUTH.get(text.lower())) is not None:
        return [text, text.lower(), text.capitalize(), text.upper(), f"{truth}", f"{truth}.0"]
    return [*dict.fromkeys([text, *(unicodedata.normalize(each, text) for each in ("NFC", "NFD"))])]


class Known:
    """The positions of texts in a list: of equal ones, else of the only one with their meaning."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._at = {text: i for i, text in enumerate(texts)}
        self._meant: dict[Hashable, int | None] = {}
        for text, i in self._at.items():
            key = meaning(text)
            self._meant[key] = None if key in self._meant else i

    def find(self, text: str) -> int | None:
        """The position of the text; None if it is unknown or several texts have its meaning."""
        at = self._at.get(text)
        return self._meant.get(meaning(text)) if at is None else at
