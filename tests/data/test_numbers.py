"""Numbers that are written for people, in tables and as texts."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import time
from typing import Any

import numpy as np
import pytest

from gpumlp import data
from gpumlp.data.columns import Column, Problem
from gpumlp.data.measures import unclear_numbers
from gpumlp.data.numbers import PLAIN, NumberFormat, format_of
from tests.support.data_cases import COLOURS, X, table, write_csv

pyarrow = pytest.importorskip("pyarrow")


@pytest.mark.parametrize(
    ("texts", "form", "values"),
    [
        (["1,5", "-0,25", "10"], NumberFormat(","), [1.5, -0.25, 10]),
        (["1.234,5", "12"], NumberFormat(",", "."), [1234.5, 12]),
        (["1,234", "12,345,678", "7"], NumberFormat(".", ","), [1234, 12345678, 7]),
        (["0,125", "0,250"], NumberFormat(","), [0.125, 0.25]),
        (["1 234", "2\u00a0345,5", "3\u202f456"], NumberFormat(",", " "), [1234, 2345.5, 3456]),
        (["1’234.5", "1'000"], NumberFormat(".", "'"), [1234.5, 1000]),
        (["10.5%", "-3 %", "0"], NumberFormat(".", "", "", "%"), [10.5, -3, 0]),
        (["$1,234.50", "-$3", "$-4", "($5)"], NumberFormat(".", ",", "$"), [1234.5, -3, -4, -5]),
        (
            ["7.50-", "8.00", *(f"{i}.5" for i in range(20)), "1 -"],
            PLAIN,
            [-7.5, 8, *(i + 0.5 for i in range(20)), -1],
        ),
        (["EUR 7,50", "EUR 8"], NumberFormat(",", "", "EUR"), [7.5, 8]),
        (["12 kg", "5.5kg"], NumberFormat(".", "", "", "kg"), [12, 5.5]),
        (["21.5°C", "-3°C"], NumberFormat(".", "", "", "°C"), [21.5, -3]),
        (["3 km/h", "4.5 km/h"], NumberFormat(".", "", "", "km/h"), [3, 4.5]),
        (["12,34,567", "1,000"], NumberFormat(".", ","), [1234567, 1000]),
        (["7.560", "60"], NumberFormat(",", "."), [7560, 60]),
        (["1,234e+02", "7,125E-01"], NumberFormat(","), [123.4, 0.7125]),
        (["7.56", "60"], PLAIN, [7.56, 60]),
        (["7.560", *map(str, range(20))], PLAIN, [7.56, *range(20)]),
        (["7.560", "60.000"], PLAIN, [7.56, 60]),
        (["1 year", "12 years", "3 years"], NumberFormat(".", "", "", "years"), [1, 12, 3]),
        (["7.5 kWh/m2", "8 kWh/m2"], NumberFormat(".", "", "", "kWh/m2"), [7.5, 8]),
        (["\uff11\uff0e\uff15", "\u200e2", "\u20133"], PLAIN, [1.5, 2, -3]),
        (["\uff11\uff12\uff05", "5%"], NumberFormat(".", "", "", "%"), [12, 5]),
        (["1\u2007000", "2\u3000500"], NumberFormat(".", " "), [1000, 2500]),
        (["7\u066b5", "8"], PLAIN, [7.5, 8]),
        (["\u22125", "3", "1e3", ".5", "5."], PLAIN, [-5, 3, 1000, 0.5, 5]),
        (["1‘234", "1´000", "2`000"], NumberFormat(".", "'"), [1234, 1000, 2000]),
        (["7·5", "8"], PLAIN, [7.5, 8]),
        (["\u20145", "\u207b6", "\ufe637"], PLAIN, [-5, -6, -7]),
        (["$(5)", "($6.5)", "$7"], NumberFormat(".", "", "$"), [-5, -6.5, 7]),
        (["(5)%", "6%"], NumberFormat(".", "", "", "%"), [-5, 6]),
        (["\uffe55", "\uffe51,000"], NumberFormat(".", ",", "¥"), [5, 1000]),
        (["CA$5", "-CA$7.5"], NumberFormat(".", "", "CA$"), [5, -7.5]),
        (["Rs. 5", "Rs. 7.5"], NumberFormat(".", "", "Rs."), [5, 7.5]),
        (["₦5", "₦7.5"], NumberFormat(".", "", "₦"), [5, 7.5]),
        (["5 m^2", "7.5m^2"], NumberFormat(".", "", "", "m^2"), [5, 7.5]),
        (["5 l/100 km", "7.5 l/100 km"], NumberFormat(".", "", "", "l/100 km"), [5, 7.5]),
        (["5 W/(m·K)", "7.5 W/(m·K)"], NumberFormat(".", "", "", "W/(m.K)"), [5, 7.5]),
        (["5 m s-1", "7.5 m s-1"], NumberFormat(".", "", "", "m s-1"), [5, 7.5]),
        (["5 (kg)", "7.5 (kg)"], NumberFormat(".", "", "", "(kg)"), [5, 7.5]),
        (["27½", "3 1/4", "5", "3/8", "1.5"], NumberFormat("/"), [27.5, 3.25, 5, 0.375, 1.5]),
        (["7/10", "10/10", "0/10"], NumberFormat("/"), [0.7, 1, 0]),
        (["1.5×10²", "2x10^-1", "3*10**1", "4·10⁻¹"], PLAIN, [150, 0.2, 30, 0.4]),
        (["1.5D+02", "2.5d-01"], PLAIN, [150, 0.25]),
        (["1", "NA", "", "n/a", "-inf"], PLAIN, [1, math.nan, math.nan, math.nan, -math.inf]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and isinstance(value[0], str) else "",
)
def test_column_of_one_format(texts: list[str], form: NumberFormat, values: list[float]) -> None:
    assert format_of(dict.fromkeys(texts, 1)) == (form, [])
    np.testing.assert_array_equal([form.value(text) for text in texts], values)


@pytest.mark.parametrize(
    "texts",
    [
        ["red", "blue"], ["Q1", "Q2"], ["1st", "2nd", "3rd"], ["2024-05-01"], ["12:30"],
        ["18-25", "26-35"], ["192.168.1.1"], ["5 kg", "500 g", "7 lb"], ["1", "a", "b"],
        ["3 beds", "4 beds", "studio"], ["1/5/24", "1/6/24"], ["5²", "6²"], ["0x1", "0x2", "0x3"],
        ["10 PM", "11 PM"],
    ],
    ids=str,
)  # fmt: skip
def test_words(texts: list[str]) -> None:
    assert format_of(dict.fromkeys(texts, 1)) is None


@pytest.mark.parametrize("share", [0.6, 0.9])
@pytest.mark.parametrize("mark", ["<0.5", "n.d.", "-"])
def test_a_mark_in_most_rows_is_no_category(mark: str, share: float) -> None:
    texts = {f"{i / 2:.1f}": 1 for i in range(40)}
    assert format_of(texts | {mark: int(40 * share / (1 - share))}) == (PLAIN, [mark])


CODES = {  # A stands for a letter of two
    "": ["E1.1", "v1.2", "1A", "11-1011", "205/55R16", "10.0.0.1", "B-A 12", "SW1 2A", "0-4",
         "rs12", "5 A St", "2. A", "1.2.3", "C2H6O", "30x32", "7-5", "2012-2"],
    "units": ["<6.5", "ca. 6.5", "pH 6.5", "6.5 A", "5 k"],
    "several": ["1h 20m", "5 min 20 s", "2m15s", "26:10:05", "3 days, 04:10:00", "5'11\"", "12°30'",
                "PT1H5M", "120/80", "5.1 ± 0.2", "5.12(3)", "(1.5, 2.5)", "[1 2 3]", "48.1,11.5",
                "5 ft 10 in", "3 von 60", "4.5 out of 5 stars", "19.5[1]",
                "12€30", "$5 - $10", "€5 to 10", "5–10 cm", "5 (10%)", "10% (5)", "5.1 [4.2-6.3]",
                "9x12 cm", "9Nm@ 12rpm", "9.5@ 12(kgm@ rpm)"],
}  # fmt: skip


@pytest.mark.parametrize(("why", "text"), [(why, t) for why in CODES for t in CODES[why]])
def test_numbers_that_cannot_be_read(why: str, text: str, tmp_path: Any) -> None:
    """And codes with digits, which are categories."""
    texts = []
    for i in range(30):
        places = itertools.count(1)
        numbers = re.sub(r"\d+", lambda _: str(i * next(places) % 31 + 30), text)  # noqa: B023
        texts.append(numbers.replace("A", "AB"[i % 2]).replace("k", "km"[i % 2]))
    path = write_csv(tmp_path / "t.csv", table(d=csv_quoted(texts * 2), y=COLOURS))
    if why:
        said = "beside units" if why == "units" else "several numbers in each text"
        with pytest.raises(ValueError, match=f"{said} .*--categorical d"):
            data.load(path, "y")
        write_csv(path, table(y=csv_quoted(texts * 2)))
        with pytest.raises(ValueError, match=f"the target 'y' holds .*{said}"):
            data.load(path, "y")
    else:
        assert "d" in data.load(path, "y").categories


@pytest.mark.parametrize(
    "ways",
    ["$0 €0", "0 USD|0 EUR", "0kg 0lb", "0 KB|0 MB", "0 months|0 years", "0% 0", "0°C 0°F",
     "<0 >0", "<0 0", "~0 0", "0* 0", "0'|0\"", "'0'", '="0"', "[0]", "0 Tsd.|0 Mio.", "0 Kg|0 kg",
     "0,5 0.5", "▲0 ▼0", "c. 0|circa 0", "0[a] 0[b]"],
)  # fmt: skip
def test_whole_numbers_of_several_units(ways: str) -> None:
    forms = ways.split("|" if "|" in ways else " ")
    texts = [forms[i % len(forms)].replace("0", str(i), 1) for i in range(1, 60)]
    assert unclear_numbers(texts) == "units"


def test_times_of_which_some_have_one_unit() -> None:
    assert unclear_numbers([f"{i}h {i}m" if i % 3 else f"{i}h" for i in range(60)]) == "several"


def test_neighbouring_numbers_are_categories() -> None:
    assert unclear_numbers([f"{i}-{i + 1}" for i in range(10, 40)]) == ""  # and no seasons


@pytest.mark.parametrize(
    "ways", ["0M 0F", "Q0 Q0", "N0 S0", "Flat 0|Flat 0", "0x 0", "0A 0B", "0S 0M 0L"]
)
def test_numbers_with_letters_may_be_codes(ways: str) -> None:
    forms = ways.split("|" if "|" in ways else " ")
    assert unclear_numbers([forms[i % len(forms)].replace("0", str(i)) for i in range(1, 60)]) == ""


def test_codes_that_are_longer_where_they_are_finer() -> None:
    codes = [f"0{i}" for i in range(9)] + [f"0{i}.{j}" for i in range(9) for j in range(9)]
    assert unclear_numbers(codes) == ""


def csv_quoted(texts: list[str]) -> list[str]:
    return ['"{}"'.format(text.replace('"', '""')) for text in texts]


def test_a_mark_is_no_category() -> None:
    assert format_of({"25%": 9, "50%": 9, "?": 2}) == (NumberFormat(".", "", "", "%"), ["?"])


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_points_between_groups(delimiter: str, tmp_path: Any) -> None:
    """7.560 beside 60 is 7560, also in new data that has no 60."""
    values = [7560, *range(40, 70), *range(1234, 1263)]
    texts = [f"{v:,}".replace(",", ".") for v in values]
    path = write_csv(tmp_path / "t.csv", table(d=texts, y=COLOURS), delimiter)
    found = data.load(path, "y")
    np.testing.assert_array_equal(found.x[:, 3], values)
    known = data.Preparation.of(found, x=True, y=False)
    write_csv(path, table(d=["1.234"] * 60), delimiter)
    np.testing.assert_array_equal(data.load_inputs(path, known)[:, 3], np.full(60, 1234))
    parts = (texts[:1] + texts[31:], COLOURS[:30]), (texts[1:31], COLOURS[30:])
    for i, (some, labels) in enumerate(parts):  # the other file decides
        write_csv(tmp_path / f"part-{i}.csv", {"d": some, "y": labels}, delimiter)
    joined = data.load([tmp_path / "part-0.csv", tmp_path / "part-1.csv"], "y")
    np.testing.assert_array_equal(joined.x[:, 0], values[:1] + values[31:] + values[1:31])
    decimals = write_csv(path, table(d=[f"{v / 8:.3f}" for v in values], y=COLOURS), delimiter)
    np.testing.assert_array_equal(data.load(decimals, "y").x[:, 3], np.array(values) / 8)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_decimals_that_all_have_three_digits(kind: str, tmp_path: Any) -> None:
    """Also where they are texts, and one of them is whole."""
    pandas = pytest.importorskip("pandas")
    values = np.arange(60) / 8 + 5
    frame = pandas.DataFrame(table(d=[f"{v:.3f}" for v in values], y=COLOURS))
    frame["d"] = frame.d.where(frame.index != 3, "")
    path = tmp_path / f"t.{kind}"
    frame.to_csv(path, index=False, quoting=1) if kind == "csv" else frame.to_parquet(path)
    x = data.load(path, "y").x[:, 3]
    np.testing.assert_array_equal(x, np.where(np.arange(60) == 3, np.nan, values))


def test_texts_keep_their_digits(tmp_path: Any) -> None:
    """Where all columns of a .parquet file are texts, they are no float32."""
    pandas = pytest.importorskip("pandas")
    texts = {"d": [f"{12_345_678 + i}.25" for i in range(60)], "y": COLOURS}
    pandas.DataFrame(texts).to_parquet(tmp_path / "t.parquet")
    found = data.load(tmp_path / "t.parquet", "y")
    np.testing.assert_array_equal(found.x[:, 0], 12_345_678.25 + np.arange(60))
    known = data.Preparation.of(found, x=True, y=False)
    np.testing.assert_array_equal(data.load_inputs(tmp_path / "t.parquet", known), found.x)


GERMAN = str.maketrans(",.", ".,")
COUNTS = [f"{1201 * (i - 9):,}" for i in range(60)]  # -10,809 to 60,050, and 0
PRICES = [f"{30.05 * i:,.2f}" for i in range(60)]
LARGE = [str(1234 * i) for i in range(1, 61)]  # without points in training, and all with them later


@pytest.mark.parametrize(
    ("learned", "new", "said"),
    [
        (COUNTS, [t.translate(GERMAN) for t in COUNTS], "7.560 is read as 7.56"),
        ([t.translate(GERMAN) for t in COUNTS], COUNTS, "7,560 is read as 7,56"),
        ([t.replace(",", "") for t in COUNTS], [t.translate(GERMAN) for t in COUNTS], "7.560"),
        (["$" + t for t in COUNTS], ["$" + t.translate(GERMAN) for t in COUNTS], "7.560"),
        (COUNTS, COUNTS, None),
        (COUNTS, [t.replace(",", "") for t in COUNTS], None),
        (PRICES, [t.replace(",", "") for t in PRICES], None),
        ([f"{i / 997:.3f}" for i in range(999, 1059)], ["1.002", "1.030", "1.040", "1.050"], None),
        (LARGE, [f"{int(t):,}".translate(GERMAN) for t in LARGE], "7.560 is read as 7.56"),
        (LARGE, [f"{int(t) / 7:.3f}" for t in LARGE], None),
        ([f"{int(t) / 1000:.3f}" for t in LARGE], [f"{int(t) / 999:.3f}" for t in LARGE], None),
    ],
)
def test_marks_in_the_other_order_than_in_training(
    learned: list[str], new: list[str], said: str | None, tmp_path: Any
) -> None:
    """7.560 of a German table would be a thousandth of what an American one has as 7,560."""
    quoted = [f'"{text}"' for text in learned]
    path = write_csv(tmp_path / "t.csv", table(d=quoted, y=COLOURS))
    known = data.Preparation.of(data.load(path, "y"), x=True, y=False)
    columns = table(d=[f'"{text}"' for text in new])
    write_csv(path, {name: values[: len(new)] for name, values in columns.items()})
    context = contextlib.nullcontext() if said is None else pytest.warns(UserWarning, match=said)
    with context:
        data.load_inputs(path, known)


def test_numbers_with_a_mark_are_not_tried_as_dates(monkeypatch: Any) -> None:
    """Python reads a date in 10 µs, and a million different numbers were tried."""
    monkeypatch.setattr("gpumlp.data.dates.DateFormat.value", lambda *_: pytest.fail("tried"))
    column = Column("d")
    column.values(pyarrow.chunked_array([[*(f"{v:.4f}" for v in X.ravel()), "?"]]))
    assert column.problem == Problem("gaps", ["?"])


def test_later_texts_decide_between_two_readings() -> None:
    """1,234 may have a decimal comma or not."""
    texts = [f"{1 + i // 1000},{i % 1000:03}" for i in range(2000)]
    assert format_of(dict.fromkeys(texts, 1)) == (NumberFormat(".", ","), [])
    assert format_of(dict.fromkeys([*texts, "1,5"], 1)) == (NumberFormat(","), [])
    assert format_of(dict.fromkeys(texts, 1) | {"?": 3}) == (NumberFormat(".", ","), ["?"])


def corrected(name: str) -> Any:
    """The context of reading plain numbers: as Excel has it, 10 % may be 0.1."""
    if name == "percent":
        return pytest.warns(UserWarning, match="numbers without the % .*, 10.5 is read as 10.5 %: ")
    return contextlib.nullcontext()


WRITTEN: dict[str, Any] = {
    "decimal commas": lambda v: f'"{v}"'.replace(".", ","),
    "percent": lambda v: f"{v}%",
    "unit": lambda v: f"{v} kg",
    "currency": lambda v: f'"{1e6 * v:_}"'.replace("_", ",").replace('"', '"€', 1),
    "typographic minus": lambda v: str(v).replace("-", "\u2212"),
    "in quotes": lambda v: f'"{v}"',
}


@pytest.mark.parametrize("name", WRITTEN)
def test_table_and_model(name: str, tmp_path: Any) -> None:
    """The model reads new data in the same format, also where a value is missing."""
    values = X[:, 0] if name != "currency" else 1e6 * X[:, 0]
    texts = [WRITTEN[name](v) for v in X[:, 0].tolist()]
    path = write_csv(tmp_path / "t.csv", table(d=texts, y=COLOURS))
    found = data.load(path, "y")
    np.testing.assert_allclose(found.x[:, 3], values)
    assert found.categories == {}
    known = data.Preparation.of(found, x=True, y=False)
    assert known.formats.keys() <= {"d"}
    texts[5] = ""
    write_csv(path, table(d=texts, y=COLOURS))
    [part] = data.pieces(path, known)
    np.testing.assert_allclose(np.delete(part.x[:, 3], 5), np.delete(values, 5))
    assert np.isnan(part.x[5, 3])
    if name != "decimal commas":  # a corrected file
        write_csv(path, table(d=values, y=COLOURS))
        with corrected(name):
            np.testing.assert_allclose(next(data.pieces(path, known)).x[:, 3], values)
    texts[5] = "soon"
    write_csv(path, table(d=texts, y=COLOURS))
    with pytest.raises(ValueError, match=r"except for some texts \('soon'\): d"):
        list(data.pieces(path, known))


def test_a_file_without_the_unit_of_another_raises(tmp_path: Any) -> None:
    """13 % in one file may be 0.13 in the other."""
    texts = [f"{v}%" for v in X[:, 0]]
    for d, y, plain in ((texts, COLOURS, COLOURS), (X[:, 1], texts, X[:, 0])):
        one = write_csv(tmp_path / "1.csv", table(d=d, y=y))
        two = write_csv(tmp_path / "2.csv", table(d=X[:, 2], y=plain))
        with pytest.raises(ValueError, match=r"numbers (\(written as 1\.5%\) except|beside units)"):
            data.load([one, two], "y")


@pytest.mark.parametrize("name", WRITTEN)
def test_target_and_model(name: str, tmp_path: Any) -> None:
    """A target is read in its format, too; predictions are plain numbers."""
    values = X[:, 0] if name != "currency" else 1e6 * X[:, 0]
    texts = [WRITTEN[name](v) for v in X[:, 0].tolist()]
    path = write_csv(tmp_path / "t.csv", table(y=texts))
    found = data.load(path, "y")
    assert found.task == "regression"
    np.testing.assert_allclose(found.y, values)
    known = data.Preparation.of(found, x=True, y=True)
    texts[5] = ""
    write_csv(path, table(y=texts))
    with pytest.raises(ValueError, match="'y' has 1 missing values; .* --drop-missing-target"):
        list(data.pieces(path, known))
    [part] = data.pieces(path, known, drop_missing_target=True)
    np.testing.assert_allclose(part.y, np.delete(values, 5))
    if name != "decimal commas":  # a corrected file
        write_csv(path, table(y=values))
        with corrected(name):
            np.testing.assert_allclose(next(data.pieces(path, known)).y, values)
    texts[5] = "soon"
    write_csv(path, table(y=texts))
    with pytest.raises(ValueError, match=r"except for some texts \('soon'\)"):
        list(data.pieces(path, known))


def test_codes_with_leading_zeros_are_categories(tmp_path: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    codes = [f"{i % 7:05}" for i in range(60)]
    pq.write_table(pa.table(table(code=codes, y=COLOURS)), tmp_path / "t.parquet")
    assert data.load(tmp_path / "t.parquet", "y").categories["code"] == tuple(sorted({*codes}))


@pytest.mark.parametrize("unit", ["x", "b", "AB", "A1", "/B"])
def test_digits_with_leading_zeros_before_letters_are_codes(unit: str, tmp_path: Any) -> None:
    codes = [f"{1 + i % 12:03}{unit}" for i in range(60)]
    path = write_csv(tmp_path / "t.csv", table(code=codes, y=COLOURS))
    assert data.load(path, "y").categories["code"] == tuple(sorted({*codes}))
    found = data.load(write_csv(path, table(x=range(60), y=codes)), "y")
    assert found.classes == tuple(sorted({*codes}))


@pytest.mark.parametrize(
    "form", ["0.{}kg", "{} kg", "{:02} min", "{:02}min", "{:02}%", "{:02} x", "{}x"]
)
def test_units_behind_padded_numbers_are_units(form: str, tmp_path: Any) -> None:
    texts = [form.format(7 * i % 50) for i in range(60)]
    found = data.load(write_csv(tmp_path / "t.csv", table(w=texts, y=COLOURS)), "y")
    assert "w" in found.formats
    assert "w" not in found.categories
    want = [float(re.match(r"[\d.]+", text)[0]) for text in texts]  # type: ignore[index]
    np.testing.assert_array_equal(np.asarray(found.x)[:, found.features.index("w")], want)


def test_blank_is_missing(tmp_path: Any) -> None:
    d = [" ", *X[1:, 0].tolist()]
    x = data.load(write_csv(tmp_path / "t.csv", table(d=d, y=COLOURS)), "y").x
    assert np.isnan(x[0, 3])
    np.testing.assert_array_equal(x[1:, 3], X[1:, 0])


@pytest.mark.parametrize(
    "form", ["{}.-", "{}.–", "{},-", "{},--", "{}:-", "{}/-", "CHF {}.-", "{}.- €"]
)
def test_a_dash_in_place_of_cents_is_no_minus(form: str, tmp_path: Any) -> None:
    prices = 7 * np.arange(60) % 31
    texts = [f'"{form.format(price)}"' for price in prices]
    path = write_csv(tmp_path / "t.csv", {"b": texts, "a": X[:, 1], "y": texts})
    found = data.load(path, "y")
    np.testing.assert_array_equal(found.x[:, 0], prices)
    np.testing.assert_array_equal(found.y, prices)


def test_minus_behind_a_number(tmp_path: Any) -> None:
    """Read in a column of many numbers; few texts may be grades, and a single one is a slip."""
    texts = [f"{abs(v)}-" if v < 0 else v for v in X[:, 0]]
    path = write_csv(tmp_path / "t.csv", {"b": texts, "a": X[:, 1], "y": texts})
    found = data.load(path, "y")
    np.testing.assert_array_equal(found.x[:, 0], X[:, 0])
    np.testing.assert_array_equal(found.y, X[:, 0])
    assert found.task == "regression"
    path = write_csv(path, {"a": X[:, 0], "b": ["1.5", "2.5-", "3.5-"] * 20, "y": COLOURS})
    assert data.load(path, "y").x[1, 1] == -2.5
    path = write_csv(path, {"a": X[:, 0], "b": ["1", "2-", "2"] * 20, "y": COLOURS})
    assert data.load(path, "y").categories == {"b": ("1", "2-", "2")}
    path = write_csv(path, {"a": X[:, 1], "b": ["12.5-", *abs(X[1:, 0])], "y": COLOURS})
    with pytest.raises(ValueError, match=r"hold numbers except for some texts \('12.5-'\): b"):
        data.load(path, "y")


@pytest.mark.parametrize("text", ["a{}b", "1{}b", "-{}b"], ids=["words", "number", "minus"])
def test_long_texts_take_little_time(text: str) -> None:
    """Spaces between words are no part of a number, however many they are."""
    texts = [text.format(" " * 50_000) + str(i) for i in range(60)]
    begin = time.process_time()
    assert format_of(dict.fromkeys(texts, 1)) is None
    assert unclear_numbers(texts) == ""
    assert time.process_time() - begin < 5  # and not minutes
