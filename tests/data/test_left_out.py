"""Columns that name the rows are no features: row numbers, an index, identifiers."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np
import pytest

from gpumlp import data
from gpumlp.data import csv_files
from gpumlp.data.identifiers import IDENTIFIER
from tests.support.data_cases import COLOURS, X, table, write_csv

pytest.importorskip("pyarrow")
pandas = pytest.importorskip("pandas")

FRAME = pandas.DataFrame(table(y=COLOURS))
SHUFFLED = FRAME.sample(frac=1, random_state=0)
NAMES = ("a", "b", "c")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("index", [None, "row", "rownames"])
@pytest.mark.parametrize("frame", [FRAME, SHUFFLED, FRAME[::2]], ids=["", "shuffled", "filtered"])
def test_index_of_a_frame(frame: Any, index: str | None, kind: str, tmp_path: Any) -> None:
    path = tmp_path / f"t.{kind}"
    getattr(frame.rename_axis(index), f"to_{kind}")(path)
    found = data.load(path, "y")
    assert found.features == NAMES
    assert found.x.shape == (len(frame), 3)
    np.testing.assert_array_equal(found.x[:], frame[[*NAMES]].to_numpy())


def test_index_that_was_written_twice(tmp_path: Any) -> None:
    path = tmp_path / "t.csv"
    SHUFFLED.to_csv(path)
    pandas.read_csv(path).to_csv(path)  # the header is: ,Unnamed: 0,a,…
    found = data.load(path, "y")
    assert found.features == NAMES
    assert sorted(found.left_out) == ["Unnamed: 0", "Unnamed: 0.1"]


LEFT_OUT = {
    "row numbers": np.arange(1, 61),
    "a different word in each row": [f"Mr {i}" for i in range(60)],
}


@pytest.mark.parametrize("why", LEFT_OUT)
def test_reason(why: str, tmp_path: Any) -> None:
    path = write_csv(tmp_path / "t.csv", table(d=LEFT_OUT[why], y=COLOURS))
    found = data.load(path, "y")
    assert (found.features, found.left_out) == (NAMES, {"d": why})
    assert data.load(path, "y", drop=["d"]).left_out == {"d": ""}
    kept = data.load(path, "y", keep=["d"])
    assert kept.features == (*NAMES, "d")
    assert len(kept.categories.get("d", ())) in (0, 60)
    data.Preparation.of(kept, x=True, y=False)


@pytest.mark.parametrize("text", ["{}.5", '"{},5"', "{}%", "{}.12.2020"])
@pytest.mark.parametrize("option", ["keep", "embed"])
def test_what_is_kept_is_read_as_all_columns(text: str, option: str, tmp_path: Any) -> None:
    """Numbers and dates with a mark do not become categories."""
    texts = ["?", *(text.format(1 + i % 28) for i in range(59))]
    path = write_csv(tmp_path / "t.csv", table(d=texts, y=COLOURS))
    with pytest.raises(ValueError, match=r"except for some texts \('\?'\): d: .*--categorical d"):
        data.load(path, "y", **{option: ["d"]})


def test_names_of_identifiers() -> None:
    for name in (
        "id", "ID", "user_id", "passengerId", "Order ID", "uuid", "PID", "pidnum", "id_no", "index",
        "EmployeeNumber", "case", "Case No", "ticket_number", "rowNumber", "Unnamed: 0", "",
        "row_nr", "...1", "#", "S. No.", "level_0", "_OBS_", "OBJECTID", "FID", "ogc_fid", "pk",
        "Id.1", "df_index", "_index", "lfd. Nr.", "Zeile", "序号", "№", "rec_no", "_rowid_",
        "identifier", "caseid", "ItemNo", "Ref No", "id_1", "id.x", "ID_REF", "Obs.",
        "_row", "lfd", "Unnamed:0", "TransactionID", "session", "Kundennummer", "id_cliente",
        "ID Pedido", "identifiant", "identificador",
    ):  # fmt: skip
        assert IDENTIFIER.fullmatch(name), name
    for name in (
        "bid",
        "paid",
        "grid",
        "humid",
        "customers",
        "number",
        "cases",
        "orders_no",
        "n",
        "body_mass_index",
        "column_12",
        "counter",
        "rate_index",
        "ideal",
        "identity",
    ):
        assert not IDENTIFIER.fullmatch(name), name


@pytest.mark.parametrize(
    "numbers",
    [np.arange(60)[::-1], np.random.default_rng(0).permutation(60) + 1, np.arange(60.0)],
    ids=["backwards", "shuffled", "floats"],
)
def test_row_numbers_in_any_order(numbers: Any, tmp_path: Any) -> None:
    path = write_csv(tmp_path / "t.csv", table(lot=numbers, y=COLOURS))
    assert data.load(path, "y").left_out == {"lot": "row numbers"}
    numbers = np.where(numbers == 3, 4, np.where(numbers == 6, 5, numbers))  # the sum is the same
    write_csv(path, table(lot=numbers, y=COLOURS))
    assert data.load(path, "y").left_out == {}


@pytest.mark.parametrize("name", ["", "Unnamed: 0.1", "level_0", "__index_level_0__"])
def test_index_of_frames_that_were_joined(name: str, tmp_path: Any) -> None:
    path = write_csv(tmp_path / "t.csv", {name: np.arange(60) % 30, **table(y=COLOURS)})
    assert data.load(path, "y").left_out == {name or "Unnamed: 0": "pandas' index"}
    copies = [f"{i % 30}.{i // 30}" for i in range(60)]  # R calls those of a row so
    write_csv(path, {name: copies, **table(y=COLOURS)})
    assert data.load(path, "y").left_out == {name or "Unnamed: 0": "pandas' index"}


@pytest.mark.parametrize("name", ["index", "rownames", "row", "obs"])
def test_row_numbers_of_tables_that_were_joined(name: str, tmp_path: Any) -> None:
    """They begin anew with each table; numbers in another order are kept."""
    numbers = np.append(np.arange(40), np.arange(20))
    path = write_csv(tmp_path / "t.csv", {name: numbers, **table(y=COLOURS)})
    assert data.load(path, "y").left_out == {name: "row numbers"}
    write_csv(path, {name: numbers // 2, **table(y=COLOURS)})
    assert data.load(path, "y").left_out == {}
    write_csv(path, {"week": numbers, **table(y=COLOURS)})
    assert data.load(path, "y").left_out == {}


@pytest.mark.parametrize("name", ["n", "Number", "Column1", "counter"])
def test_the_first_column_counts_the_rows(name: str, tmp_path: Any) -> None:
    numbers = {name: np.arange(60) * 2 + 1000}
    path = write_csv(tmp_path / "t.csv", {**numbers, **table(y=COLOURS)})
    assert data.load(path, "y").left_out == {name: "a different number in each row"}
    write_csv(path, table(**numbers, y=COLOURS))
    assert data.load(path, "y").left_out == {}


@pytest.mark.parametrize("name", ["ID", "passengerId", "PID"])
def test_numbers_called_identifiers(name: str, tmp_path: Any) -> None:
    numbers = np.random.default_rng(0).permutation(1000)[:60]
    path = write_csv(tmp_path / "t.csv", table(**{name: numbers}, y=COLOURS))
    found = data.load(path, "y")
    assert found.left_out == {name: "a different number in each row"}
    assert data.load(path, "y", keep=[name]).features == (*NAMES, name)
    write_csv(path, table(**{name: numbers // 2}, y=COLOURS))  # some occur twice
    assert data.load(path, "y").features == (*NAMES, name)


@pytest.mark.parametrize(
    "values",
    [
        np.arange(1990, 2050),
        np.arange(60) % 30,
        np.r_[:58, 58, 58],
        np.arange(60) + 0.5,
        X[:, 0],
        np.arange(60) * 2,
    ],
    ids=["years", "repeated", "twice", "halves", "numbers", "even"],
)
def test_numbers_that_are_features(values: Any, tmp_path: Any) -> None:
    path = write_csv(tmp_path / "t.csv", table(d=values, y=COLOURS))
    assert data.load(path, "y").features == (*NAMES, "d")


def test_the_only_column_stays(tmp_path: Any) -> None:
    path = write_csv(tmp_path / "t.csv", {"n": np.arange(60), "y": np.arange(60) * 3.5})
    assert data.load(path, "y").features == ("n",)


def test_new_data_needs_none_of_them(tmp_path: Any) -> None:
    path = write_csv(tmp_path / "t.csv", table(id=np.arange(60), empty=[""] * 60, y=COLOURS))
    known = data.Preparation.of(data.load(path, "y"), x=True, y=False)
    assert known.features == NAMES
    np.testing.assert_array_equal(data.load_inputs(write_csv(path, table()), known), X)


def test_large_file_is_not_read_again(tmp_path: Any) -> None:
    path = write_csv(tmp_path / "t.csv", table(id=np.arange(60), y=COLOURS))
    found = data.load(path, "y", scratch=data.Scratch(tmp_path, stream=True))
    assert not isinstance(found.x, np.ndarray)
    np.testing.assert_array_equal(found.x[:], X)


@pytest.mark.parametrize("option", ["drop", "keep", "categorical"])
def test_unknown_name(option: str, tmp_path: Any) -> None:
    path = write_csv(tmp_path / "t.csv", table(price=X[:, 0], y=COLOURS))
    with pytest.raises(ValueError, match="no feature column 'prise'; did you mean 'price'"):
        data.load(path, "y", **{option: ["prise"]})
    with pytest.raises(ValueError, match="no feature column 'y'"):
        data.load(path, "y", **{option: ["y"]})
    with pytest.raises(ValueError, match=f"digits has no columns with names; .* --{option}"):
        data.load("digits", **{option: ["a"]})


def test_columns_without_values_where_there_is_a_target(tmp_path: Any) -> None:
    """The correction in the error names all of them, also where the list of names is cut."""
    y = np.where(np.arange(60) < 30, np.nan, X[:, 0])
    there = np.where(np.isnan(y), 1.5, np.nan)
    path = tmp_path / "t.csv"
    columns = {f"{j}, cm": there for j in range(12)}
    pandas.DataFrame({**columns, "a": X[:, 1], "y": y}).to_csv(path, index=False)
    found = data.load(path, "y", drop_missing_target=True)
    with pytest.raises(ValueError, match="12 of 13 .* have no values .*; leave them out") as caught:
        data.Preparation.of(found, x=True, y=True)
    [drop] = shlex.split(str(caught.value).partition("--drop ")[2])
    found = data.load(path, "y", drop=[drop], drop_missing_target=True)
    assert data.Preparation.of(found, x=True, y=True).features == ("a",)


@pytest.mark.parametrize("word", ["inf", "-Infinity", "1e999"])
def test_rows_with_an_infinite_target(word: str, tmp_path: Any) -> None:
    """They are left out as those without a target, in classes as in values."""
    for y in (np.arange(60) % 2, X[:, 1]):
        path = write_csv(tmp_path / "t.csv", table(y=[word, *y[1:]]))
        with pytest.raises(ValueError, match="1 missing or infinite values; .* --drop-missing-tar"):
            data.load(path, "y")
        found = data.load(path, "y", drop_missing_target=True)
        np.testing.assert_array_equal(found.y, y[1:])
        np.testing.assert_array_equal(found.x, X[1:])
        known = data.Preparation.of(found, x=True, y=False)
        [part] = data.pieces(path, known, drop_missing_target=True)
        np.testing.assert_array_equal(part.y, y[1:])


def test_rows_without_a_target(tmp_path: Any, monkeypatch: Any) -> None:
    y = [("", " ", "1", "2")[i % 4] for i in range(60)]
    path = write_csv(tmp_path / "t.csv", table(y=y))
    with pytest.raises(ValueError, match="missing values; leave out .* --drop-missing-target"):
        data.load(path, "y")
    found = data.load(path, "y", "classification", drop_missing_target=True)
    np.testing.assert_array_equal(found.x, X[[i for i in range(60) if i % 4 > 1]])
    known = data.Preparation.of(found, x=True, y=False)
    with pytest.raises(ValueError, match="missing values; leave out .* --drop-missing-target"):
        list(data.pieces(path, known))
    monkeypatch.setattr(csv_files, "BLOCK", 97)  # bytes
    monkeypatch.setattr(csv_files, "BLOCK_OF_COLUMN", 1)
    monkeypatch.setattr("gpumlp.io.chunks.CHUNK_BYTES", 100)
    monkeypatch.setattr("gpumlp.data.loading.CHUNK_BYTES", 100)
    parts = [*data.pieces(path, known, drop_missing_target=True)]
    assert len(parts) > 5
    np.testing.assert_array_equal(np.vstack([part.x for part in parts]), found.x)
    np.testing.assert_array_equal(np.concatenate([part.y for part in parts]), found.y)
    write_csv(path, table(y=[""] * 60))
    with pytest.raises(ValueError, match="no row has a target"):
        data.load(path, "y", drop_missing_target=True)
    with pytest.raises(ValueError, match="no row has a target"):
        list(data.pieces(path, known, drop_missing_target=True))
    nan = np.where(np.arange(60) < 20, np.nan, X[:, 0])
    polars = pytest.importorskip("polars")  # it writes NaN as a number, not as null
    polars.DataFrame(table(y=nan)).write_parquet(tmp_path / "t.parquet")
    assert len(data.load(tmp_path / "t.parquet", "y", drop_missing_target=True)) == 40
    np.savez(tmp_path / "t.npz", x=X, y=np.where(np.arange(60) < 20, np.nan, X[:, 0]))
    assert len(data.load(tmp_path / "t.npz", drop_missing_target=True)) == 40
