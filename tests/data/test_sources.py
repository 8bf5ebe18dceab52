"""Several files, folders and patterns as one table."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gpumlp import data
from gpumlp.data.sources import find

RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "a": RNG.normal(size=60).round(3),
        "n": RNG.integers(0, 9, 60),
        "word": RNG.choice(["red", "blue"], 60),
        "y": RNG.normal(size=60),
    }
)
TABLE.loc[::7, "a"] = np.nan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the table in three .csv files, and with what writers add."""
    folder = tmp_path / "sales"
    folder.mkdir()
    save(folder / "part-1.csv", TABLE[:25])
    TABLE[25:28].to_csv(folder / "part-2.tsv.gz", index=False, sep="\t")
    save(folder / "part-10.csv", TABLE[28:])
    for name in ("_SUCCESS", "_old.csv", ".part-1.csv", "README.txt"):
        (folder / name).write_text("no table")
    return folder


def save(path: Path, table: pd.DataFrame) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("name", ["diabetes.csv", "digits.parquet", "mnist5k/1.csv"])
def test_a_file_called_like_a_data_set_of_the_library(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / name, TABLE)
    source = path if path.parent == tmp_path else path.parent
    assert data.load(source, "y").features == ("a", "n", "word")
    known = data.Preparation.of(data.load(source, "y"), x=True, y=True)
    assert len(data.load_inputs(source, known)) == 60
    assert sum(map(len, data.pieces(source, known))) == 60


def refusal(*sources: object) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        data.load([*map(str, sources)], "y")
    return str(error.value)


def same(one: data.Dataset, other: data.Dataset) -> None:
    assert one.features == other.features
    assert one.categories == other.categories
    assert one.x.dtype == other.x.dtype
    np.testing.assert_array_equal(one.x[:], other.x[:])
    np.testing.assert_array_equal(one.y, other.y)


@pytest.mark.parametrize("stream", [False, True])
def test_folder_pattern_and_files_equal_one_file(folder: Path, stream: bool) -> None:
    whole = data.load(save(folder.parent / "all.csv", TABLE), "y")
    names = [folder / name for name in ("part-1.csv", "part-2.tsv.gz", "part-10.csv")]
    for source in (folder, f"{folder}/*", names):
        loaded = data.load(source, "y", scratch=data.Scratch(stream=stream))
        assert loaded.name == "sales"
        same(loaded, whole)


def test_files_of_one_number_have_the_order_of_their_names(folder: Path, monkeypatch) -> None:
    """And not that of the file system."""
    names = [save(folder / f"day{i}.csv", TABLE[:25]) for i in ("01", "1")]
    for found in (names, names[::-1]):
        monkeypatch.setattr("glob.glob", lambda *_, found=found, **__: list(map(str, found)))
        assert [*find([f"{folder}/day*"]).paths] == names


def test_predictions_of_several_files_keep_the_order_of_the_names(folder: Path) -> None:
    known = data.Preparation.of(data.load(folder, "y"), x=True, y=True)
    first, last = folder / "part-1.csv", folder / "part-10.csv"
    x = data.load_inputs([last, first], known)
    np.testing.assert_array_equal(x[:, 0], [*TABLE.a[28:], *TABLE.a[:25]])
    y = [part.y for part in data.pieces([last, first], known)]
    np.testing.assert_array_equal(np.concatenate(y), [*TABLE.y[28:], *TABLE.y[:25]])


def test_pieces_do_not_depend_on_where_the_files_end(folder: Path, monkeypatch) -> None:
    whole = save(folder.parent / "all.csv", TABLE)
    known = data.Preparation.of(data.load(whole, "y"), x=True, y=True)
    for size, count in ((1 << 20, 1), (3 * 8 * 7, 9)):
        monkeypatch.setattr("gpumlp.data.loading.CHUNK_BYTES", size)
        monkeypatch.setattr("gpumlp.io.chunks.CHUNK_BYTES", size)
        parts, others = (list(data.pieces(source, known)) for source in (folder, whole))
        assert len(parts) == len(others) == count
        for part, other in zip(parts, others, strict=True):
            same(part, other)


def test_parquet_files_with_other_orders_and_types_of_columns_agree(tmp_path: Path) -> None:
    whole = data.load(save(tmp_path / "all.parquet", TABLE.astype({"n": float})), "y")
    save(tmp_path / "parts/a.parquet", TABLE[:20])
    save(tmp_path / "parts/b.parquet", TABLE[20:20])
    save(tmp_path / "parts/c.parquet", TABLE[20:][["y", "word", "n", "a"]].astype({"n": "float32"}))
    same(data.load(tmp_path / "parts", "y"), whole)


def test_csv_column_of_numbers_in_one_file_and_words_in_another_is_words(tmp_path: Path) -> None:
    codes = TABLE.assign(n=["7"] * 30 + ["x7"] * 30)
    whole = data.load(save(tmp_path / "all.csv", codes), "y")
    parts = [save(tmp_path / "a.csv", codes[:30]), save(tmp_path / "b.csv", codes[30:])]
    same(data.load(parts, "y"), whole)
    assert whole.categories["n"] == ("7", "x7")


def test_keys_of_folders_are_columns(tmp_path: Path) -> None:
    keyed = TABLE.assign(year=[2020] * 30 + [2021] * 30, site=["a b", "c"] * 30)
    for (year, site), rows in keyed.groupby(["year", "site"]):
        place = tmp_path / "t" / f"year={year}" / f"site={str(site).replace(' ', '%20')}"
        save(place / "p.parquet", rows.drop(columns=["year", "site"]))
    expected = keyed.sort_values(["year", "site"], kind="stable").reset_index(drop=True)
    whole = data.load(save(tmp_path / "all.parquet", expected), "y")
    same(data.load(tmp_path / "t", "y"), whole)
    same(data.load(f"{tmp_path}/t/**/*.parquet", "y"), whole)
    known = data.Preparation.of(whole, x=True, y=True)
    np.testing.assert_array_equal(data.load_inputs(tmp_path / "t", known), whole.x[:])
    part = tmp_path / "t" / "year=2020" / "site=c"  # as if the whole folder was given
    for some in (part, part / "p.parquet", f"{part}/*.parquet"):
        np.testing.assert_array_equal(data.load_inputs(some, known), whole.x[15:30])
    assert "year" not in data.load(part, "y").features


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_labels_from_keys_of_folders_are_spelt_like_these(kind: str, tmp_path: Path) -> None:
    for i, key in enumerate(("01", "07", "10")):
        part = TABLE[20 * i : 20 * (i + 1)].drop(columns="y")
        save(tmp_path / f"code={key}" / f"part.{kind}", part)
    found = data.load(tmp_path, "code")
    assert found.classes == ("01", "07", "10")
    np.testing.assert_array_equal(found.y, np.repeat([0, 1, 2], 20))
    assert data.load(tmp_path, "n").x[-1, -1] == 10  # a feature is a number


def test_missing_key_of_folders_is_a_missing_value(tmp_path: Path) -> None:
    save(tmp_path / "site=7/p.csv", TABLE[:30])
    save(tmp_path / "site=__HIVE_DEFAULT_PARTITION__/p.csv", TABLE[30:])
    np.testing.assert_array_equal(data.load(tmp_path, "y").x[:, 3], [7] * 30 + [np.nan] * 30)


def test_file_with_other_columns_raises(tmp_path: Path) -> None:
    one = save(tmp_path / "a.csv", TABLE)
    other = save(tmp_path / "b.csv", TABLE.rename(columns={"a": "b"}))
    assert "b.csv has other columns than" in refusal(one, other)
    assert "it lacks a and has b besides" in refusal(one, other)


def test_parquet_column_of_text_and_numbers_raises_unless_dropped(tmp_path: Path) -> None:
    save(tmp_path / "a.parquet", TABLE)
    save(tmp_path / "b.parquet", TABLE.astype({"n": str}))
    assert "'n' has different types in the files: int64, " in refusal(tmp_path)
    assert "or leave it out, --drop n" in refusal(tmp_path)
    assert data.load(tmp_path, "y", drop=["n"]).features == ("a", "word")
    known = data.Preparation.of(data.load(tmp_path / "a.parquet", "y"), x=True, y=False)
    with pytest.raises(ValueError, match="write it with one type$"):  # a model needs the column
        next(data.pieces(tmp_path, known))


def test_files_that_are_not_one_table_raise(folder: Path, tmp_path: Path) -> None:
    one = folder / "part-1.csv"
    parquet = save(tmp_path / "a.parquet", TABLE)
    (tmp_path / "none").mkdir()
    (tmp_path / "link.csv").symlink_to(one)
    assert "given twice" in refusal(one, f"{folder}/../sales/part-1.csv")
    assert "given twice" in refusal(one, tmp_path / "link.csv")
    assert "different kinds" in refusal(one, parquet)
    assert "no .csv, .csv.gz, .tsv, .tsv.gz or .parquet file" in refusal(tmp_path / "none")
    assert "matches" in refusal(f"{folder}/*.parquet")
    assert "there is no file" in refusal(one, folder / "part-3.csv")
    assert "leave it out" in refusal(one, folder / "README.txt")
    assert "give it alone" in refusal(one, "digits")
    assert "no data is given" in refusal()
    assert "README.txt has not the ending" in refusal(folder / "README.txt")
    assert "- is a pipe or device" in refusal("-")
    assert "/dev/null is a pipe or device" in refusal("/dev/null")
    os.truncate(folder / "part-10.csv", 0)
    assert "part-10.csv" in refusal(folder)


def test_subfolders_that_are_no_keys_raise(folder: Path) -> None:
    save(folder / "test/rows.csv", TABLE)
    said = refusal(folder)
    assert "not called key=value, such as" in said
    assert f"{folder / 'test/rows.csv'}; name the folder to read, such as {folder / 'test'}" in said


def test_hidden_subfolders_are_not_searched(folder: Path) -> None:
    """Such as .git or .venv, which have many files."""
    before = find([str(folder)]).paths
    save(folder / ".cache/more/rows.csv", TABLE)
    save(folder / "_tmp/rows.csv", TABLE)
    assert find([str(folder)]).paths == before


def test_shell_pattern_may_include_the_notes_of_a_writer(folder: Path) -> None:
    names = [str(folder / name) for name in ("_SUCCESS", "part-1.csv", "part-10.csv")]
    assert [path.name for path in find(names).paths] == ["part-1.csv", "part-10.csv"]


def test_file_whose_name_is_a_pattern_is_that_file(tmp_path: Path) -> None:
    path = save(tmp_path / "t[1].csv", TABLE)
    save(tmp_path / "t1.csv", TABLE)
    assert find([str(path)]).paths == (path,)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_line_of_pandas_corrects_several_files(tmp_path: Path, ending: str) -> None:
    texts = TABLE.n.astype(str).mask(TABLE.index % 30 == 0, "?")
    save(tmp_path / f"a{ending}", TABLE.assign(n=texts)[:30])
    save(tmp_path / f"b{ending}", TABLE.assign(n=texts)[30:])
    message = refusal(tmp_path)
    line = message[message.index("pandas.") :].partition(", or treat")[0]
    new = tmp_path / f"new{ending}"
    eval(line.replace(f'"new{ending}"', repr(str(new))), {"pandas": pd})
    assert np.isnan(data.load(new, "y").x[:, 1]).sum() == 2


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("filtered", [0, 1])
def test_an_index_in_some_files(kind: str, filtered: int, tmp_path: Path) -> None:
    """pandas writes that of a frame that was filtered, and no other, to .parquet."""
    frame = TABLE.dropna().reset_index(drop=True)
    for i, rows in enumerate((slice(0, 20), slice(20, len(frame)))):
        part = frame[rows].reset_index(drop=True)
        part = part.sample(frac=1, random_state=0) if i == filtered else part
        how = {} if kind == "parquet" else {"index": i == filtered}
        getattr(part, f"to_{kind}")(tmp_path / f"{i}.{kind}", **how)
    found = data.load(tmp_path, "y")
    assert found.features == ("a", "n", "word")
    assert len(found) == len(frame)


def test_a_target_of_different_types_is_not_to_be_dropped(tmp_path: Path) -> None:
    frame = TABLE.assign(y=np.arange(60) % 2)
    frame.to_parquet(tmp_path / "0.parquet")
    frame.astype({"y": bool}).to_parquet(tmp_path / "1.parquet")
    with pytest.raises(ValueError, match="'y' has different types .*; write it with one type$"):
        data.load(tmp_path, "y")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_warning_of_copies(kind: str, tmp_path: Path) -> None:
    """And none of files without rows, or in folders that tell them apart."""
    for name, rows in (("a", TABLE), ("b", TABLE[::-1]), ("none", TABLE[:0]), ("no", TABLE[:0])):
        save(tmp_path / f"{name}.{kind}", rows)
    assert len(data.load(tmp_path, "y")) == 120
    save(tmp_path / f"b (1).{kind}", TABLE[::-1])
    with pytest.warns(UserWarning, match=r"b( \(1\))?\.\w+ has the same contents as .*; if it is"):
        found = data.load(tmp_path, "y")
    known = data.Preparation.of(found, x=True, y=True)
    assert len(data.load_inputs(tmp_path, known)) == 180
    for name in ("g=1", "g=2"):
        save(tmp_path / "d" / name / f"a.{kind}", TABLE)
    assert len(data.load(tmp_path / "d", "y")) == 120
