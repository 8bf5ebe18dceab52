"""Numbers and dates that are read many at a time, against those that are read one by one."""

from __future__ import annotations

import math
import random
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from gpumlp import data
from gpumlp.data import csv_files
from gpumlp.data.dates import CLOCKS, DATES, MONTHS, TIMES, ZONES, DateFormat
from gpumlp.data.numbers import MARKS, NumberFormat

pytest.importorskip("pyarrow")


def number_texts(form: NumberFormat, rng: random.Random) -> list[str]:
    """Numbers that are in this format, nearly so, or not."""
    texts = []
    for _ in range(200):
        value = rng.choice([rng.randint(0, 10 ** rng.randint(1, 12)), 10**6 * rng.random()])
        digits = f"{value:,}" if rng.random() < 0.5 else f"{value:.{rng.randint(0, 5)}f}"
        digits = digits.replace(",", "\0").replace(".", form.decimal)
        digits = digits.replace("\0", form.thousands if rng.random() < 0.9 else ",")
        sign, space = rng.choice(["", "", "-", "+"]), rng.choice(["", " "])
        text = sign + rng.choice([form.before, ""]) + digits + space + form.after
        texts.append(changed(text, "0123456789.,'_ -+$€%kge()", rng))
    return texts


def date_texts(form: DateFormat, rng: random.Random) -> list[str]:
    """Dates that are in this format, nearly so, or not."""
    texts = []
    for _ in range(100):
        fields = [rng.randint(*each) for each in ((1900, 2100), (1, 12), (1, 31), (0, 23), (0, 59))]
        text = datetime(*[*fields[:2], min(fields[2], 28), *fields[3:]]).strftime(
            form.pattern.replace("%z", "+0100")
        )
        text = text.replace("28", str(fields[2])) if fields[2] > 28 else text
        text = text.replace(" ", ", ", 1) if rng.random() < 0.2 else text
        texts.append(changed(text, "0123456789/.-: ,TZaP", rng))
    return texts


def changed(text: str, characters: str, rng: random.Random) -> str:
    if rng.random() < 0.7:
        return text
    i = rng.randint(0, len(text))
    return text[:i] + rng.choice(characters) + text[i + rng.randint(0, 1) :]


def assert_equal_to_single(form: Any, texts: list[str]) -> int:
    """Each value found is that of `value`; return how many were found."""
    values, usual = form.usual(texts)
    assert len(values) == len(usual) == len(texts)
    assert np.isnan(values[~usual]).all()
    for i in np.flatnonzero(usual):
        alone = form.value(texts[i])
        assert alone == values[i], (form, texts[i])
        assert math.copysign(1, alone) == math.copysign(1, values[i]), (form, texts[i])
    return int(usual.sum())


UNITS = [("", ""), ("$", ""), ("", "kg"), ("", "%"), ("€", ""), ("", "€"), ("US$", ""), ("", "m2")]


@pytest.mark.parametrize("marks", MARKS)
def test_numbers_are_those_of_single_texts(marks: tuple[str, str]) -> None:
    rng, found = random.Random(0), 0
    for unit in UNITS:
        form = NumberFormat(*marks, *unit)
        found += assert_equal_to_single(form, number_texts(form, rng))
    assert found > 300 or marks[0] == "/"


def test_dates_are_those_of_single_texts() -> None:
    rng, found = random.Random(0), 0
    dates = [rng.choice(each) for each in DATES.values() for _ in range(12)]
    patterns = [date + rng.choice(TIMES) + rng.choice(ZONES) for date in dates]
    for pattern in (*patterns, *MONTHS, *CLOCKS, *DATES["dmy"], *DATES["mdy"]):
        form = DateFormat(pattern)
        found += assert_equal_to_single(form, date_texts(form, rng))
    assert found > 1000


@pytest.mark.parametrize("text", ["31.02.2024 10:00", "29.02.2023 10:00", "01.13.2024 10:00"])
def test_a_day_that_is_none_is_not_found(text: str) -> None:
    values, usual = DateFormat("%d.%m.%Y %H:%M").usual(["29.02.2024 10:00", text])
    assert usual.tolist() == [True, False]
    assert values[0] == 19782 + 10 / 24


LATER = [
    ["1,5"], ["7"], ["1.234,5"], ["+3"], ["12,5-"], ["12,5-", "13,5-"], ["x"], ["1e5"], ["NA"],
    ['"NA"'], ["5 kg"], ["0,0"], ["00501"], ["1.5"], ["9007199254740993"], ["03.04.2020"], ["true"],
]  # fmt: skip


@pytest.mark.parametrize("later", LATER, ids=str)
@pytest.mark.parametrize("first", ["{:.2f}", "{:.1f} kg", "{:03.0f},5", "{:,.0f}", "03.04.{:.0f}"])
def test_formats_that_the_first_piece_shows(
    first: str, later: list[str], tmp_path: Any, monkeypatch: Any
) -> None:
    """What is found is what is found if all texts are collected first."""
    monkeypatch.setattr(csv_files, "BLOCK", 2000)
    monkeypatch.setattr(csv_files, "BLOCK_OF_COLUMN", 1)
    parts = [
        first.format(1971 + i / 8).replace(".", ",", first != "03.04.{:.0f}") for i in range(400)
    ]
    for i, text in enumerate(later):
        parts[300 + 10 * i] = text
    rows = "".join(f"{i / 7};{part};{i % 3}\n" for i, part in enumerate(parts))
    (tmp_path / "t.csv").write_text("a;part;y\n" + rows)

    def outcome() -> Any:
        try:
            found = data.load(tmp_path / "t.csv", "y", keep=["part"])
        except ValueError as error:
            return str(error)
        return found.features, found.x.tobytes(), found.categories, found.formats, found.left_out

    early = outcome()
    monkeypatch.setattr(NumberFormat, "lasting", False)
    monkeypatch.setattr(DateFormat, "lasting", False)
    assert early == outcome()
