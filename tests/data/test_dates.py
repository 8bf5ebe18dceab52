"""Dates and times in tables: how they are read, and the inputs that they become."""

from __future__ import annotations

import datetime as dt
import json
import re
import warnings
from typing import Any

import numpy as np
import pytest

from gpumlp import data
from gpumlp.data.date_parts import part, part_inputs
from gpumlp.data.dates import Ambiguous, DateFormat, date_format_of
from tests.support.data_cases import COLOURS, X, table, write_csv

pytest.importorskip("pyarrow")
pandas = pytest.importorskip("pandas")

RNG = np.random.default_rng(3)
MOMENTS = pandas.Series(pandas.Timestamp(2023, 1, 1) + pandas.to_timedelta(
    RNG.integers(0, 2 * 365 * 86_400, 60), unit="s"))  # fmt: skip
DAYS = MOMENTS.to_numpy().astype("datetime64[us]").astype(np.int64) / 86_400e6
DATES = np.floor(DAYS)
ONLY_DATES = MOMENTS.dt.floor("D")


def written(pattern: str) -> list[str]:
    return [f'"{moment}"' for moment in MOMENTS.dt.strftime(pattern)]


@pytest.mark.parametrize("pattern", [
    "%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d-%b-%Y",
    "%b %d, %Y", "%d %B %Y", "%a, %d %b %Y", "%y-%m-%d", "%A, %B %d, %Y", "%Y年%m月%d日",
    "%d-%B-%Y", "%b. %d, %Y", "%Y%m%d", "%d%b%Y", "%d%b%y", "%d.%b.%Y", "%d %b, %Y", "%b-%d-%Y",
    "%Y_%m_%d", "%d_%m_%Y", "%m_%d_%Y", "%G-W%V-%u",
])  # fmt: skip
def test_dates_in_a_csv_file(pattern: str, tmp_path: Any) -> None:
    """And a model reads the same format, with a day that is missing."""
    texts = written(pattern)
    path = write_csv(tmp_path / "t.csv", table(d=texts, y=COLOURS))
    found = data.load(path, "y")
    np.testing.assert_array_equal(found.x[:, 3], DATES)
    assert found.dates == ("d",)
    known = data.Preparation.of(found, x=True, y=False)
    assert known.dates == {"d": ("month", "weekday")}
    write_csv(path, table(d=["", *texts[1:]]))
    [new] = data.pieces(path, known, labelled=False)
    np.testing.assert_array_equal(new.x[1:, 3], DATES[1:])
    assert np.isnan(new.x[0, 3])


@pytest.mark.parametrize("pattern", [
    "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S.%f",
    "%d.%m.%Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y, %I:%M:%S %p",
    "%d/%b/%Y:%H:%M:%S +0000", "%Y-%m-%d %H:%M:%S UTC", "%a, %d %b %Y %H:%M:%S GMT",
    "%Y-%m-%d %H.%M.%S", "%Y%m%dT%H%M%S", "%Y%m%dT%H%M%SZ", "%a %b %d %H:%M:%S %Y",
    "%m/%d/%Y %I:%M:%S%p",
])  # fmt: skip
def test_times_in_a_csv_file(pattern: str, tmp_path: Any) -> None:
    path = write_csv(tmp_path / "t.csv", table(d=written(pattern), y=COLOURS))
    found = data.load(path, "y")
    np.testing.assert_allclose(found.x[:, 3], DAYS, rtol=0, atol=1e-9)
    parts = data.Preparation.of(found, x=True, y=False).dates
    assert parts == {"d": ("month", "weekday", "hour")}


@pytest.mark.parametrize("offset", [0, 2, -8])
def test_time_zones_are_subtracted(offset: int, tmp_path: Any) -> None:
    zone = dt.timezone(dt.timedelta(hours=offset))
    texts = [moment.tz_localize(zone).isoformat() for moment in MOMENTS]
    path = write_csv(tmp_path / "t.csv", table(d=texts, y=COLOURS))
    np.testing.assert_allclose(data.load(path, "y").x[:, 3], DAYS - offset / 24, atol=1e-9)


@pytest.mark.parametrize("values", [
    MOMENTS, MOMENTS.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"), MOMENTS.astype("M8[s]"),
])  # fmt: skip
def test_parquet(values: Any, tmp_path: Any) -> None:
    frame = pandas.DataFrame(table(d=values, day=MOMENTS.dt.date, time=MOMENTS.dt.time, y=COLOURS))
    frame.to_parquet(tmp_path / "t.parquet")
    x = data.load(tmp_path / "t.parquet", "y").x[:]
    np.testing.assert_allclose(x[:, 3:], np.stack([DAYS, DATES, DAYS - DATES], 1), atol=1e-9)


def test_a_model_reads_dates_from_other_kinds_of_files(tmp_path: Any) -> None:
    """Learnt from Parquet's own type; new data as texts, and the other way round."""
    frame = pandas.DataFrame(table(d=ONLY_DATES, y=COLOURS))
    frame.to_parquet(tmp_path / "t.parquet")
    csv = write_csv(tmp_path / "t.csv", table(d=written("%d.%m.%Y"), y=COLOURS))
    for learn in ("t.parquet", csv):
        known = data.Preparation.of(data.load(tmp_path / learn, "y"), x=True, y=False)
        for new in ("t.parquet", csv):
            np.testing.assert_array_equal(data.load_inputs(tmp_path / new, known)[:, 3], DATES)
    frame.assign(d=np.nan).to_parquet(tmp_path / "gone.parquet")
    assert np.isnan(data.load_inputs(tmp_path / "gone.parquet", known)[:, 3]).all()
    write_csv(csv, table(d=X[:, 0]))
    with pytest.raises(ValueError, match="hold numbers where the model takes dates: d: write them"):
        data.load_inputs(csv, known)
    write_csv(csv, table(d=DAYS))
    with pytest.raises(ValueError, match="hold numbers where the model takes dates: d: write them"):
        data.load_inputs(csv, known)
    for text in ("soon", "03/04/2020"):  # which of both is the month?
        write_csv(csv, table(d=[text] * 60))
        with pytest.raises(ValueError, match=rf"takes dates \(written as .*\('{text}'\): d"):
            data.load_inputs(csv, known)


def test_dates_as_whole_numbers(tmp_path: Any) -> None:
    """However they are stored, also where pandas writes a point beside a gap."""
    numbers = MOMENTS.dt.strftime("%Y%m%d").astype(int)
    frame = pandas.DataFrame(table(d=numbers, y=COLOURS))
    gap = frame.assign(d=frame.d.where(frame.index != 3))
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    gap.to_csv(tmp_path / "gap.csv", index=False)
    gap.to_parquet(tmp_path / "gap.parquet")
    frame.assign(d=ONLY_DATES).to_parquet(tmp_path / "dates.parquet")
    frame.assign(d=ONLY_DATES.astype(str)).to_parquet(tmp_path / "texts.parquet")
    frame.assign(d=numbers.astype(str)).to_parquet(tmp_path / "figures.parquet")
    learnt = ("t.csv", "t.parquet", "gap.csv", "gap.parquet", "figures.parquet")
    for learn in (*learnt, "dates.parquet", "texts.parquet"):
        found = data.load(tmp_path / learn, "y")
        assert found.dates == ("d",)
        known = data.Preparation.of(found, x=True, y=False)
        for new in (
            "t.csv",
            "t.parquet",
            "gap.csv",
            "gap.parquet",
            "dates.parquet",
            "texts.parquet",
            "figures.parquet",
        ):
            days = data.load_inputs(tmp_path / new, known)[:, 3]
            np.testing.assert_array_equal(days[4:], DATES[4:])
            assert np.isnan(days[3]) == new.startswith("gap")


@pytest.mark.parametrize(
    "pattern", ["%d%m%Y", "%m%d%Y", "%Y%m", "%m%Y", "%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S"]
)
@pytest.mark.parametrize("kind", ["text", "number", "gap"])
def test_dates_as_whole_numbers_in_other_forms(pattern: str, kind: str, tmp_path: Any) -> None:
    """Numbers have lost the first zero of 03082023."""
    texts = MOMENTS.dt.strftime(pattern)
    frame = pandas.DataFrame(table(d=texts if kind == "text" else texts.astype(int), y=COLOURS))
    frame["d"] = frame.d.where((frame.index != 3) | (kind != "gap"))
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    want = pandas.to_datetime(texts, format=pattern).to_numpy().astype("M8[s]").astype(int) / 86_400
    for learn in ("t.csv", "t.parquet"):
        found = data.load(tmp_path / learn, "y")
        assert found.dates == ("d",)
        known = data.Preparation.of(found, x=True, y=False)
        for new in ("t.csv", "t.parquet"):
            days = data.load_inputs(tmp_path / new, known)[:, 3]
            np.testing.assert_array_equal(days[4:], want[4:])


def test_dates_as_whole_numbers_in_few_rows(tmp_path: Any) -> None:
    for numbers, dates in ((20240228 + np.arange(2), ("d",)), (202401 + np.arange(2), ())):
        columns = {"a": [1.5, 2], "d": numbers, "y": ["up", "down"]}
        assert data.load(write_csv(tmp_path / "t.csv", columns), "y").dates == dates


@pytest.mark.parametrize("pattern", ["%m.%Y", "%Y.%m"])
def test_months_that_look_like_decimals(pattern: str, tmp_path: Any) -> None:
    texts = written(pattern)
    path = write_csv(tmp_path / "t.csv", table(d=texts, y=COLOURS))
    found = data.load(path, "y")
    want = MOMENTS.to_numpy().astype("M8[M]").astype("M8[D]").astype(float)
    np.testing.assert_array_equal(found.x[:, 3], want)
    known = data.Preparation.of(found, x=True, y=False)
    np.testing.assert_array_equal(data.load_inputs(path, known)[:, 3], want)
    with pytest.raises(ValueError, match="'d' holds dates or times"):
        data.load(path, "d")
    write_csv(path, table(d=["1.5", *texts[1:]], y=COLOURS))
    np.testing.assert_array_equal(
        data.load(path, "y").x[1:, 3], MOMENTS[1:].dt.strftime(pattern).astype(float)
    )


@pytest.mark.parametrize("first", [12_001, 1_900, 19_000, 200_013, 1_000_000, 20_240_132])
def test_whole_numbers_that_are_no_dates(first: int, tmp_path: Any) -> None:
    """Postcodes, years, prices."""
    numbers = RNG.permutation(first + np.arange(60))
    path = write_csv(tmp_path / "t.csv", table(d=numbers, y=COLOURS))
    assert data.load(path, "y").dates == ()


def test_ambiguous_dates_as_whole_numbers(tmp_path: Any) -> None:
    texts = [f"{1 + i % 12:02}{1 + i // 12:02}2020" for i in range(60)]
    path = write_csv(tmp_path / "t.csv", table(d=["13012020", *texts[1:]], y=COLOURS))
    assert data.load(path, "y").x[0, 3] == 18_274  # only the first row decides
    write_csv(path, table(d=texts, y=COLOURS))
    with pytest.raises(ValueError, match=r"dates such as '10012020', .* say --date-order dmy or"):
        data.load(path, "y")
    for order, pattern in (("dmy", "%d%m%Y"), ("mdy", "%m%d%Y")):
        want = pandas.to_datetime(texts, format=pattern).to_numpy().astype("M8[D]").astype(float)
        np.testing.assert_array_equal(data.load(path, "y", date_order=order).x[:, 3], want)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("gap", [0, 1])
def test_a_mark_among_dates_as_whole_numbers(kind: str, gap: int, tmp_path: Any) -> None:
    """The line of pandas in the error corrects it."""
    frame = pandas.DataFrame(table(d=MOMENTS.dt.strftime("%d%m%Y").astype(int), y=COLOURS))
    frame.loc[20:25, "d"] = 0
    frame["d"] = frame.d.where(frame.index >= 2 * gap)
    path, new = tmp_path / f"t.{kind}", tmp_path / f"new.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    with pytest.raises(ValueError, match=r"hold dates .* except for some texts \('0'\)") as error:
        data.load(path, "y")
    line = re.search(r"pandas\..*index=False\)", str(error.value))
    assert line
    eval(line[0].replace(f'"new.{kind}"', "new"), {"pandas": pandas, "new": new})
    days = data.load(new, "y").x[:, 3]
    assert np.isnan(days).sum() == 6 + 2 * gap
    np.testing.assert_array_equal(days[26:], DATES[26:])


@pytest.mark.parametrize("pattern", ["%G-W%V", "%GW%V", "%G W%V"])
def test_weeks_are_their_mondays(pattern: str, tmp_path: Any) -> None:
    path = write_csv(tmp_path / "t.csv", table(d=written(pattern), y=COLOURS))
    np.testing.assert_array_equal(data.load(path, "y").x[:, 3], DATES - (DATES + 3) % 7)


@pytest.mark.parametrize(
    "form", ["{0}Q{1}", "{0}-Q{1}", "{0} Q{1}", "Q{1} {0}", "Q{1}-{0}", "Q{1}/{0}"]
)
def test_quarters_are_their_first_months(form: str, tmp_path: Any) -> None:
    quarters = MOMENTS.dt.to_period("Q")
    texts = [form.format(q.year, q.quarter) for q in quarters]
    path = write_csv(tmp_path / "t.csv", table(d=texts, y=COLOURS))
    np.testing.assert_array_equal(
        data.load(path, "y").x[:, 3], quarters.dt.start_time.to_numpy().astype("M8[D]").astype(int)
    )
    write_csv(path, table(d=["?", *texts[1:]], y=COLOURS))
    with pytest.raises(ValueError, match=re.escape(f"written as {form.format(2024, 4)}) except")):
        data.load(path, "y")


@pytest.mark.parametrize("pattern", ["%y-%m-%d", "%d-%m-%y", "%y.%m.%d", "%d.%m.%y"])
def test_years_of_two_digits_are_those_that_vary_less(pattern: str) -> None:
    texts = MOMENTS.dt.strftime(pattern).tolist()
    assert date_format_of(texts, None) == DateFormat(pattern)
    assert isinstance(date_format_of(["10-11-12"], None), Ambiguous)


@pytest.mark.parametrize("pattern", ["%b-%y", "%m/%d/%y", "%d.%m.%y %H:%M", "%d-%b-%y"])
@pytest.mark.parametrize(("first", "last"), [(1946, 2012), (1941, 1968), (1985, 2055)])
def test_birthdays_with_two_digits_of_the_year(
    pattern: str, first: int, last: int, tmp_path: Any
) -> None:
    """They are in the order of time: none of 1950 is in 2050, also in what a model reads."""
    months = np.linspace(12 * (first - 1970), 12 * (last - 1970), 60).astype(int).astype("M8[M]")
    days = months.astype("M8[D]") + (12 if "%d" in pattern else 0)
    texts = pandas.Series(days.astype("M8[s]")).dt.strftime(pattern)
    path = write_csv(tmp_path / "t.csv", table(d=texts, y=COLOURS))
    found = data.load(path, "y")
    np.testing.assert_array_equal(found.x[:, 3], days.astype(float))
    known = data.Preparation.of(found, x=True, y=False)
    known = data.Preparation.from_json("t", {"data": json.loads(json.dumps(known.to_json()))})
    write_csv(path, {name: values[:1] for name, values in table(d=texts).items()})
    np.testing.assert_array_equal(data.load_inputs(path, known)[:, 3], found.x[:1, 3])


def test_ambiguous_dates(tmp_path: Any) -> None:
    texts = [f"{1 + i % 12:02}/{1 + i // 12:02}/2020" for i in range(60)]
    path = write_csv(tmp_path / "t.csv", table(d=texts, y=COLOURS))
    with pytest.raises(ValueError, match=r"'02/01/2020', whose .* say --date-order dmy or"):
        data.load(path, "y")
    for order, pattern in (("dmy", "%d/%m/%Y"), ("mdy", "%m/%d/%Y")):
        want = pandas.to_datetime(texts, format=pattern).to_numpy().astype("M8[D]").astype(float)
        np.testing.assert_array_equal(data.load(path, "y", date_order=order).x[:, 3], want)
    with pytest.raises(ValueError, match="unknown date_order 'american'; known: dmy, mdy, ymd"):
        data.load(path, "y", date_order="american")


@pytest.mark.parametrize("pattern", [
    "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d %b %Y", "%b %d, %Y", "%Y年%m月%d日", "%d%m%Y", "%m%d%Y",
])  # fmt: skip
@pytest.mark.parametrize("order", ["dmy", "mdy"])
def test_clear_dates_beside_ambiguous_ones(pattern: str, order: str, tmp_path: Any) -> None:
    """The order that these need decides about no others."""
    texts = [f"{1 + i % 12:02}/{1 + i // 12:02}/2020" for i in range(60)]
    columns = table(unclear=texts, d=written(pattern), y=COLOURS)
    found = data.load(write_csv(tmp_path / "t.csv", columns), "y", date_order=order)
    assert found.dates == ("unclear", "d")
    np.testing.assert_array_equal(found.x[:, 4], DATES)


@pytest.mark.parametrize("marker", ["soon", "00.00.0000", "31.02.2020"])
def test_marker_among_dates_raises(marker: str, tmp_path: Any) -> None:
    texts = [marker, *written("%d.%m.%Y")[1:]]
    path = write_csv(tmp_path / "t.csv", table(d=texts, y=COLOURS))
    with pytest.raises(ValueError, match=rf"hold dates .*except for some texts \('{marker}'\): d"):
        data.load(path, "y")


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["10:30", "23:15"], DateFormat("%H:%M")),
        (["1 PM", "11 AM"], DateFormat("%I %p")),
        (["1pm", "12pm"], DateFormat("%I %p")),
        (["1.2.10", "2.0.13"], None),
        (["a", "2020-01-01"], None),
        (["03/04/2020", "05/06/2020"], Ambiguous("03/04/2020")),
        (["03.04.2020", "05.06.20"], None),
        (["03.04.2020", "05.06.2020"], DateFormat("%d.%m.%Y")),
        (["05/05/2020", "06/06/2020"], DateFormat("%d/%m/%Y")),
        (["2020-13-01"], None),
        (["2020-01-01 10:00:00", "2020-01-02 10:00:00.5", "2020-01-03"], DateFormat("%Y-%m-%d")),
        (["2020-01-01T10:00:00Z", "2020-01-02T10:00:00.123Z"], DateFormat("%Y-%m-%d")),
        (["2020-01-01T10:00:00", "2020-01-02T10:00:00.123Z"], None),
        (["2020-05", "2021-12"], DateFormat("%Y-%m")),
        (["05/2020", "12/2021"], DateFormat("%m/%Y")),
        (["2001-02", "2002-03", "2003-04"], None),  # seasons
        (["2001-02", "2002-03", "2003-05"], DateFormat("%Y-%m")),
    ],
    ids=str,
)
def test_formats(texts: list[str], found: Any) -> None:
    assert date_format_of(texts, None) == found


def test_python_leaves_out_what_is_0_of_a_time(tmp_path: Any) -> None:
    moments = [m.to_pydatetime() for m in MOMENTS]
    texts = [str(m.replace(microsecond=i % 2 * 500_000)) for i, m in enumerate(moments)]
    path = write_csv(tmp_path / "t.csv", table(d=[" ", *texts[1:]], y=COLOURS))
    want = DAYS + np.arange(60) % 2 * 0.5 / 86_400
    np.testing.assert_allclose(data.load(path, "y").x[1:, 3], want[1:], rtol=0, atol=1e-9)


def test_a_month_is_its_first_day() -> None:
    assert DateFormat("%b %Y").value("Mar 1970") == 59


@pytest.mark.parametrize(
    ("pattern", "text", "days"),
    [
        ("%d %b %Y", "1 Dec 1970", 334), ("%Y %b", "1970 DEC", 334), ("%d%b%Y", "1feb1970", 31),
        ("%d %b %Y", "1 12 1970", None), ("%d %b %Y %I:%M %p", "2 Jan 1970 12:00 pm", 1.5),
        ("%I %p", "11 PM", 23 / 24), ("%I:%M %p", "12:30 am", 1 / 48),
        ("%I:%M %p", "13:00 pm", None), ("%I:%M %p", "11:00", None),
    ],
)  # fmt: skip
def test_names_are_english_in_every_locale(pattern, text, days, monkeypatch) -> None:
    """A program may set the process's locale, in which `strptime` expects them."""

    class Numbers(dt.datetime):
        @classmethod
        def strptime(cls, text, pattern):
            assert not re.search("%[abpABcxX]", pattern)
            return dt.datetime.strptime(text, pattern)

    monkeypatch.setattr("gpumlp.data.dates.datetime", Numbers)
    assert DateFormat(pattern).value(text) == days
    assert str(DateFormat("%d %b %Y %I %p")) == "31 Dec 2024 03 PM"


def test_parts_are_those_of_the_calendar() -> None:
    start = dt.datetime(1899, 12, 1, tzinfo=dt.UTC)
    moments = [start + dt.timedelta(days=13 * i, hours=5 * i, minutes=7 * i) for i in range(9000)]
    day = np.array([m.timestamp() / 86_400 for m in moments])
    for name, want in (
        ("month", [m.month for m in moments]),
        ("weekday", [m.weekday() for m in moments]),
        ("hour", [m.hour for m in moments]),
    ):
        np.testing.assert_array_equal(part(name, day), want)


@pytest.mark.parametrize("days", [[0] * 60, [0, 7] * 30, [0, 31] * 30])
def test_another_day_than_the_only_one_of_training(days: list[int], tmp_path: Any) -> None:
    """The day number then has the weights of the time alone."""
    times = np.datetime64("2024-05-01T00:17", "s") + 23 * 60 * np.arange(60)
    written = times + np.array(days).astype("m8[D]")
    path = write_csv(tmp_path / "t.csv", table(d=written, y=COLOURS))
    found = data.load(path, "y")
    known = data.Preparation.of(found, x=True, y=False)
    assert not known.unseen_counts(found.x[:]).any()
    later = found.x[:] + np.array([0, 0, 0, 7])
    assert known.unseen_counts(later).tolist() == [0, 0, 0, 0 if any(days) else 60]


def test_inputs_of_dates() -> None:
    day = np.append(np.arange(17_000.0, 17_000 + 7 * 365), np.nan)
    number, sin, cos = part_inputs("weekday", day)
    assert abs(number[:-1].mean()) < 1e-12
    assert abs(number[:-1].std() - 1) < 1e-12
    np.testing.assert_allclose(sin**2 + cos**2, np.append(np.ones(len(day) - 1), 0))
    assert [number[-1], sin[-1], cos[-1]] == [0, 0, 0]
    x = np.stack([day, np.ones_like(day)], axis=1)
    source = data.Dataset("t", "regression", x, day[:-1], ("sold", "one"), dates=("sold",))
    known = data.Preparation.of(source, x=True, y=False)
    assert known.columns == (
        "sold", "sold month", "sold month sin", "sold month cos", "sold weekday",
        "sold weekday sin", "sold weekday cos", "sold missing", "one",
    )  # fmt: skip
    inputs = known.inputs(x)
    assert inputs.shape == (len(x), 9)
    np.testing.assert_array_equal(inputs[:, 4], number)
    again = data.Preparation.from_json("t", {"data": known.to_json()})
    np.testing.assert_array_equal(again.inputs(x), inputs)


def test_only_formats_of_the_texts_shape_are_tried(monkeypatch: Any) -> None:
    """All formats are hundreds, and to try one takes long."""
    tried, value = list[str](), DateFormat.value
    monkeypatch.setattr(
        DateFormat, "value", lambda self, text: tried.append(self.pattern) or value(self, text)
    )
    assert date_format_of(["name 1 a", "1,5"], None) is None
    assert not tried
    assert date_format_of(["31 December 2020 10:30:00.5 +01:00"], None) is not None
    assert len(tried) < 20


@pytest.mark.parametrize("text", [
    "June 29th, 2022", "29th of June 2022", "29. Juni 2022", "29 juin 2022", "29 de junio de 2022",
    "29 giugno 2022", "29 Jun. 2022", "29-jun-22", "Mittwoch, 29. Juni 2022", "2022-06-29 (Wed)",
    "2022–06–29", "２０２２/６/２９", "2022년 6월 29일", "2022年 6月 29日",
])  # fmt: skip
def test_dates_in_other_spellings(text: str) -> None:
    form = date_format_of([text], None)
    assert isinstance(form, DateFormat)
    assert form.value(text) == (dt.date(2022, 6, 29) - dt.date(1970, 1, 1)).days


@pytest.mark.parametrize(("text", "hour"), [
    ("2022-06-29 23:10:46+00", 23), ("2022-06-29T23:10:46+01:00[Europe/Paris]", 22),
    ("2022-06-29 23:10:46 +0000 UTC", 23), ("Wed Jun 29 23:10:46 +0000 2022", 23),
    ("Wed Jun 29 23:10:46 UTC 2022", 23), ("Wed Jun 29 2022 23:10:46 GMT+0100 (CET)", 22),
    ("29-JUN-22 11.10.46.000000 PM", 23), ("29/06/2022 11:10:46 p.m.", 23),
    ("20220629-231046", 23), ("20220629 23:10:46", 23), ("2022-06-29t23:10:46z", 23),
    ("2022-06-29 23:10:46.000000000", 23), ("June 29, 2022 at 11:10:46 PM", 23),
    ("[29/Jun/2022:23:10:46 +0000]", 23),
])  # fmt: skip
def test_times_in_other_spellings(text: str, hour: int) -> None:
    form = date_format_of([text], None)
    assert isinstance(form, DateFormat)
    moment = dt.datetime(2022, 6, 29, hour, 10, 46) - dt.datetime(1970, 1, 1)
    assert form.value(text) == pytest.approx(moment.total_seconds() / 86_400, abs=1e-9)


@pytest.mark.parametrize(("text", "day"), [
    ("Juni 2022", "2022-06-01"), ("Jun '22", "2022-06-01"), ("06-2022", "2022-06-01"),
    ("2022M06", "2022-06-01"), ("2Q22", "2022-04-01"), ("Q2'22", "2022-04-01"),
    ("2022q2", "2022-04-01"), ("KW 26/2022", "2022-06-27"), ("Week 26, 2022", "2022-06-27"),
])  # fmt: skip
def test_months_quarters_and_weeks_in_other_spellings(text: str, day: str) -> None:
    form = date_format_of([text], None)
    assert isinstance(form, DateFormat)
    assert form.value(text) == (dt.date.fromisoformat(day) - dt.date(1970, 1, 1)).days


@pytest.mark.parametrize("text", ["Gen 10", "Set 12", "Mon 10:00", "Monday", "June", "W26", "10A"])
def test_words_that_are_no_dates(text: str) -> None:
    assert date_format_of([text], None) is None


@pytest.mark.parametrize(
    "pattern",
    ["%d/%m/%Y %H:%M CET", "%H:%M:%S+01:00", "%d.%m.%Y - 31.12.%Y", "%b %d", "%d-%b", "%d. %B"],
)
def test_dates_that_cannot_be_read_are_refused(pattern: str, tmp_path: Any) -> None:
    """They were left out as words that name the rows, or were categories; Mar 05 was 2005."""
    moments = pandas.Series(pandas.date_range("2023-01-01 10:11:12", periods=60, freq="49h"))
    texts = [f'"{text}"' for text in moments.dt.strftime(pattern)]
    path = write_csv(tmp_path / "t.csv", table(d=texts, y=COLOURS))
    with pytest.raises(
        ValueError, match=r"dates or times in a form that cannot be read .*: d: wri"
    ):
        data.load(path, "y")
    assert "d" in data.load(path, "y", categorical="d").categories


def test_dates_with_names_of_months_that_are_not_known(tmp_path: Any) -> None:
    """In Russian they are refused; in Swedish they are read."""
    names = [f"{['октября', 'мая', 'июня'][i % 3]} 20{10 + i % 9}" for i in range(60)]
    path = write_csv(
        tmp_path / "t.csv", table(d=[f"{1 + i % 28} {n}" for i, n in enumerate(names)], y=COLOURS)
    )
    with pytest.raises(ValueError, match=r"in a form that cannot be read .*: d: wri"):
        data.load(path, "y")
    for text in ("29 augusti 1970", "29 maj 1970", "29 marts 1970", "29. desember 1970"):
        assert isinstance(date_format_of([text], None), DateFormat)


@pytest.mark.parametrize("pattern", ["%Y%m%d", "%d%m%Y", "%Y%m%d%H%M"])
@pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
def test_dates_as_whole_numbers_are_no_quantities(pattern: str, kind: str, tmp_path: Any) -> None:
    numbers = MOMENTS.dt.strftime(pattern).astype(int)
    path = tmp_path / f"t.{kind}"
    if kind == "npz":
        np.savez(path, x=X, y=numbers)
    else:
        getattr(pandas.DataFrame(table(y=numbers)), f"to_{kind}")(path, index=False)
    target = None if kind == "npz" else "y"
    with pytest.raises(ValueError, match=rf"dates such as {numbers[0]}, .* --task regression"):
        data.load(path, target)
    assert data.load(path, target, "regression").y[0] == numbers[0]


@pytest.mark.parametrize(
    "pattern",
    ["%Y-%m-%d", "%d. %B %Y", "%d/%m/%Y %H:%M CET", "%b-%y", "%d%b%y", "%a, %d %b %Y %H:%M +0000"],
)
def test_dates_are_no_classes(pattern: str, tmp_path: Any) -> None:
    path = write_csv(tmp_path / "t.csv", table(y=written(pattern)))
    with pytest.raises(ValueError, match=r"'y' holds dates or times \(.*--task classification"):
        data.load(path, "y")


ZONED = {"": "", "+02:00": "with", "Z": "with", " UTC": "with"}


@pytest.mark.parametrize("pattern", ["%Y-%m-%d %H:%M:%S", "%d.%m.%Y %H:%M", "%Y-%m-%dT%H:%M:%S.%f"])
@pytest.mark.parametrize("learned", ZONED)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_other_time_zones_than_in_training(
    pattern: str, learned: str, kind: str, tmp_path: Any
) -> None:
    """Times of a place without its zone would be hours away from those of training."""
    path = write_csv(tmp_path / "t.csv", table(d=written(pattern + learned), y=COLOURS))
    known = data.Preparation.of(data.load(path, "y"), x=True, y=True)
    assert known.zones == {"d": bool(learned)}
    new = tmp_path / f"new.{kind}"
    for zone in ZONED:
        texts = table(d=MOMENTS.dt.strftime(pattern + zone))
        getattr(pandas.DataFrame(texts), f"to_{kind}")(new, index=False)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            data.load_inputs(new, known)
        said = "with a time zone, .* converted" if zone else "without a time zone, .* as UTC"
        assert len(caught) == (bool(zone) != bool(learned))
        assert all(re.search(f"has times {said}.*: d$", str(each.message)) for each in caught)
    pandas.DataFrame(table(d=ONLY_DATES.dt.date)).to_csv(tmp_path / "dates.csv", index=False)
    data.load_inputs(tmp_path / "dates.csv", known)


def test_times_with_and_without_a_time_zone(tmp_path: Any) -> None:
    """In one file, and in two, which the types of their columns do not tell from one another."""
    zoned, naive = (written(f"%Y-%m-%d %H:%M:%S{zone}") for zone in ("+02:00", ""))
    said = "hold times with and without a time zone: d: write all of them with one, as 2024"
    mixed = write_csv(tmp_path / "t.csv", table(d=zoned[:30] + naive[30:], y=COLOURS))
    paths = [write_csv(tmp_path / f"{d[0]}.csv", table(d=d, y=COLOURS)) for d in (zoned, naive)]
    for files in (mixed, paths):
        with pytest.raises(ValueError, match=said):
            data.load(files, "y")
    known = data.Preparation.of(data.load(paths[0], "y"), x=True, y=True)
    with (
        pytest.warns(UserWarning, match="without a time zone"),
        pytest.raises(ValueError, match="zone: d: write"),
    ):
        data.load_inputs(paths, known)
    assert data.load(paths[0], "y").dates == data.load(paths[1], "y").dates == ("d",)


def test_long_texts_are_no_dates() -> None:
    """Patterns that look for dates would need time in proportion to the square of a length."""
    assert date_format_of([f"2019 {' ' * 30_000}1 Mon {'a/_' * 30_000}"], None) is None
