"""The target of a data set: whether it holds classes or values, its labels, and their spelling."""

from __future__ import annotations

import math
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from gpumlp.data.dataset import LARGEST_INT, Raw, listed
from gpumlp.data.date_texts import are_dotted
from gpumlp.data.dates import WholeNumbers, date_format_of
from gpumlp.data.measures import are_codes, unclear_numbers
from gpumlp.data.numbers import NULLS, PLAIN, format_of
from gpumlp.data.spelling import CODE, TRUTH, Known, meaning
from gpumlp.io.distinct import distinct
from gpumlp.io.types import HostArray

DIGITS = re.compile(r"[+-]?\d+")
CHECKED = 1000  # the most words of a target that are checked for being numbers
MAX_CLASSES = 20  # whole numbers with more distinct values are quantities
Classes = tuple[str, ...] | None


def read_target(
    name: str, raw: Raw, task: str | None, classes: Classes, learn: bool = True
) -> tuple[str, HostArray, Classes]:
    """The task, labels (m,) int64 or values float64 (m,) or (m, k), and the names of the classes.

    task: None to decide by the target, however its numbers are stored: words, truth values and up
        to `MAX_CLASSES` distinct whole numbers are classes, everything else is a value.
    classes: those of a model. Labels are read as these, also if they are written differently.
    learn: whether no model has decided about the task.

    Raises:
        ValueError, TypeError: the target is missing in some rows, or does not suit the task.
    """
    y, words = raw.y, raw.words
    if y is None:
        return str(task), np.empty(0, raw.x.dtype), classes
    if y.dtype.kind not in "OUSbiuf":
        raise TypeError(f"{name}: the target has dtype {y.dtype}; labels are words or numbers")
    numbers, count = y if words is None else numbers_of(words), 0
    if words is not None and "" in words:
        count = int((y == words.index("")).sum())
    elif numbers is not None and numbers.dtype.kind == "f":
        values = numbers if words is None else numbers[y]
        count = int((~np.isfinite(values)).sum())
    if count:
        raise ValueError(
            f"{name}: the target has {count} missing or infinite values; leave out those rows, "
            "--drop-missing-target"
        )
    if task is None and y.ndim == 2 and _one_hot(y):
        raise ValueError(
            f"{name}: the target has one 1 in each row, which may say the class; store labels, "
            "e.g. y.argmax(axis=1), or say --task regression"
        )
    if task is None and words is not None and (numbers is None or are_dotted(words)):
        _check_words(name, words, len(y))
    chosen = task or _task(y, words, numbers)
    if chosen == "regression":
        values = _values(name, y, words, numbers, learn)
        if task is None:
            _check_quantities(name, values)
        return chosen, values, classes
    return chosen, *_labels(name, y, words, numbers, classes)


def _one_hot(y: HostArray) -> bool:
    """Whether each row of y (m, k) has one 1, and 0 elsewhere."""
    numbers = y.dtype.kind in "biuf"
    return numbers and bool((y.sum(axis=1) == 1).all() and np.isin(y, (0, 1)).all())


def numbers_of(words: Sequence[str]) -> HostArray | None:
    """The words as float64 if all are numbers, of which some may be infinite."""
    values = [math.nan if word in NULLS else PLAIN.value(word) for word in words]
    numbers: HostArray = np.array([math.nan if v is None else v for v in values])
    return None if np.isnan(numbers).any() or not np.isfinite(numbers).any() else numbers


def _task(y: HostArray, words: Sequence[str] | None, numbers: HostArray | None) -> str:
    """Classification for words, truth values and few distinct whole numbers, else regression.

    Numbers with leading zeros are codes, and so words, if they repeat.
    """
    codes = words is not None and any(map(CODE.fullmatch, words)) and 2 * len(words) <= len(y)
    if numbers is None or numbers.dtype.kind in "OUSb" or codes:
        return "classification"
    different = distinct(numbers) if words is None else {*map(meaning, words)}
    few = y.ndim == 1 and len(different) <= MAX_CLASSES
    return "classification" if few and _whole(numbers) else "regression"


def unclear(words: Collection[str]) -> str:
    """Why texts are no classes, as `unclear_numbers` says it; of any dates it is "unread"."""
    dated = are_dotted(words) or (
        len(words) > MAX_CLASSES and date_format_of(words, None) is not None
    )
    return unclear_numbers(words) or "unread" * dated


def _check_words(name: str, words: Sequence[str], rows: int) -> None:
    """Raise if the texts of an array are names, or numbers of which tables have been cleared."""
    found = format_of(dict.fromkeys(words, 1))
    codes = found is not None and found[0].after and are_codes(found[0], words)
    if found is not None and found[0].decimal != "/" and not codes and not are_dotted(words):
        others = found[1] or sorted(NULLS.intersection(words))
        what = f"except for some texts ({listed(map(repr, others))})"
        raise ValueError(
            f"{name}: the target holds numbers {what if others else f'written as {found[0]}'}; "
            "store it as numbers, or say --task classification"
        )
    if kind := unclear(words[:CHECKED]):
        what = "dates or times" if kind == "unread" else "numbers beside units or other texts"
        other = "regression" if are_dotted(words) else "classification"
        raise ValueError(
            f"{name}: the target holds {what} ({listed(map(repr, words))}); store one number for "
            f"each row, or say --task {other}"
        )
    if len(words) > MAX_CLASSES and 2 * len(words) > rows:
        raise ValueError(
            f"{name}: the target holds {len(words):,} different words in {rows:,} rows, too many "
            "for classes; predict another column, or say --task classification"
        )


def _check_quantities(name: str, values: HostArray) -> None:
    """Raise if the values (m,) are dates such as 20240131."""
    dates = WholeNumbers()
    dates.watch(values.ravel())
    if dates.format(None):
        raise ValueError(
            f"{name}: the target holds dates such as {values.flat[0]:.0f}, whose differences are "
            "no numbers of days; write the days since a date, or say --task regression"
        )


def _whole(numbers: HostArray) -> bool:
    return numbers.dtype.kind in "iub" or bool((numbers == np.floor(numbers)).all())


def _labels(
    name: str, y: HostArray, words: Sequence[str] | None, numbers: HostArray | None,
    classes: Classes,
) -> tuple[HostArray, tuple[str, ...]]:  # fmt: skip
    """Labels (m,), and the names of the classes: `classes`, else the distinct values in order."""
    if y.ndim != 1:
        raise ValueError(
            f"{name}: the target has shape {y.shape}; a classification takes labels of shape "
            f"({len(y)},), e.g. y.argmax(axis=1)"
            + ("" if classes else ", else say --task regression")
        )
    if numbers is not None and numbers.dtype.kind == "f" and not _whole(numbers):
        raise ValueError(
            f"{name}: the target has values that are not whole numbers; they cannot be labels"
            + (f"; the model knows: {listed(classes)}" if classes else ", say --task regression")
        )
    if words is not None:
        texts, index = list(words), y
        new = _spelled(texts, np.bincount(y, minlength=len(texts)), numbers is not None)
        if not classes:
            _check_case(name, new)
    else:
        distinct, index = np.unique(y, return_inverse=True)
        new = texts = [str(v if y.dtype.kind in "OUb" else int(v)) for v in distinct]
    names = tuple(classes or new)
    known = Known(names)
    found = [known.find(text) for text in texts]
    unknown = [text for text, at in zip(texts, found, strict=True) if at is None]
    if unknown:
        raise ValueError(
            f"{name} has classes that the model was not trained on: {listed(unknown)}; "
            f"it knows: {listed(names)}"
        )
    return np.array(found, np.int64)[index], names


def _check_case(name: str, classes: Sequence[str]) -> None:
    """Warn of classes that differ in case alone."""
    counts = Counter(label.casefold() for label in classes)
    double = [label for label in classes if counts[label.casefold()] > 1]
    if double:
        warnings.warn(
            f"{name}: classes differ in case alone: {listed(map(repr, double))}; if they are one, "
            "write them alike",
            stacklevel=2,
        )


def _spelled(words: list[str], counts: HostArray, numbers: bool) -> list[str]:
    """The classes that the words are, sorted; numbers by their value.

    Numbers that are equal are one class, and so are truth values and the forms of a letter. It is
    called by the most frequent spelling. Numbers with leading zeros are codes: 07 and 7 are two.
    """
    same = (
        not any(map(CODE.fullmatch, words))
        if numbers
        else {*map(meaning, words)} <= {*TRUTH.values()}
    )
    spelled: dict[object, str] = {}
    for word in (words[i] for i in np.argsort(-counts, kind="stable")):
        spelled.setdefault(meaning(word) if same else unicodedata.normalize("NFC", word), word)
    return sorted(
        spelled.values(), key=lambda word: (PLAIN.value(word) or 0.0 if numbers else 0.0, word)
    )


def _values(
    name: str, y: HostArray, words: Sequence[str] | None, numbers: HostArray | None, learn: bool
) -> HostArray:
    if words and all(word.lower() in TRUTH for word in words):
        numbers = np.array([float(TRUTH[word.lower()]) for word in words])
    if numbers is None or numbers.dtype.kind not in "fiub":
        some = listed(sorted(words)[:3] if words else np.unique(y)[:3])
        raise TypeError(
            f"{name}: the target holds words ({some}, …), not numbers; "
            "regression needs numbers" + (", say --task classification" if learn else "")
        )
    whole = numbers.dtype.kind in "iu" if words is None else all(map(DIGITS.fullmatch, words))
    if whole and max(abs(float(numbers.max())), abs(float(numbers.min()))) > LARGEST_INT:
        raise ValueError(
            f"{name}: the target has whole numbers beyond 2**53, which would lose digits; subtract "
            "an offset, or choose another column"
        )
    return (numbers if words is None else numbers[y]).astype(np.float64)
