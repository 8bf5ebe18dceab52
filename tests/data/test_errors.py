"""Errors for data that cannot be used say in one line what is wrong and what to do."""

import warnings

import numpy as np
import pytest

from tests.support.data_cases import COLOURS, X, table, write_csv

pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")

import pyarrow as pa
import pyarrow.parquet as pq

from gpumlp.data import Preparation, load, load_inputs, pieces


@pytest.fixture
def csv(tmp_path):
    return write_csv(tmp_path / "t.csv", {"y": COLOURS, **table()})


def hole(column, value):
    column = column.astype(object).copy()
    column[:2] = value
    return column


REPEATED = np.array([f"Mr {i % 50}" for i in range(60)])
BAD_TABLES = {
    "no target": (table(y=COLOURS), None, "which column to predict, --target COLUMN; it has: a, b"),
    "unknown target": (
        table(price=COLOURS), "prise", r"no column 'prise'; did you mean 'price'\? it has: a, b, c",
    ),
    "many words": (
        table(name=REPEATED, kind=COLOURS, y=X[:, 0]), "y",
        r"1 of 5 feature columns hold too many different words for categories: name \(50 different"
        r"\): leave them out, --drop name, use the most frequent words as categories, "
        "--categorical name, or learn a vector for each of them, --embed name=16",
    ),
    "infinite": (
        {**table(y=COLOURS), "a": hole(X[:, 0], "inf"), "b": hole(X[:, 0], "-inf")}, "y",
        r"2 of 3 feature columns have infinite values: a \(2\), b \(2\): correct them, or leave",
    ),
    "both": (
        {**table(w=REPEATED, y=COLOURS), "a": hole(X[:, 0], "inf")}, "y",
        r"words.*infinite",
    ),
    "all empty": (
        {"a": [""] * 60, "b": ["NaN"] * 60, "y": COLOURS}, "y",
        "no column but the target has values",
    ),
    "dates": (table(d=np.repeat("1/5/24", 60), y=COLOURS), "y", "1/5/24.*d: say --date-order"),
    "target missing": (table(y=hole(COLOURS, "")), "y", "target 'y' has 2 missing values"),
    "target NaN": (table(y=hole(X[:, 0], "nan")), "y", "missing"),
    "constant target": (table(y=np.ones(60)), "y", "the same for all 60 rows"),
    "constant data": ({"a": np.ones(60), "y": X[:, 0]}, "y", "all features are constant"),
    "no features": ({"y": X[:, 0]}, "y", "no feature columns"),
    "no header": (dict(zip(["1.5", "2", "3e4"], X.T, strict=True)), "2", "has no header"),
}  # fmt: skip


class TestErrors:
    @pytest.mark.parametrize("case", BAD_TABLES)
    def test_tables(self, tmp_path, case):
        columns, target, message = BAD_TABLES[case]
        path = write_csv(tmp_path / "t.csv", columns)
        with pytest.raises(ValueError, match=message) as caught:
            load(path, target)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a,b,a,y\n1,2,3,4\n2,3,4,5\n", "several columns of one name: a"),
            ("a,y\n", "no rows"),
            ("a,y", "no rows"),
            ("", "cannot be read.*Empty CSV"),
            (
                "a,b,y\n1,2,3\n4,5\n",
                "a row has 2 values, but the first line names 3 columns: '4,5'",
            ),
        ],
    )
    def test_csv_text(self, tmp_path, text, message):
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            load(tmp_path / "t.csv", "y")

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"z": X, "y": X}, "no array x or X; it has: z, y"),
            ({"x": X, "t": X}, "no array 'y'.* it has: x, t"),
            ({"x": X, "y": X[:5, 0]}, r"y has shape \(5,\) and x \(60, 3\)"),
            ({"x": X, "y": np.float64(3)}, r"y has shape \(\) and x"),
            ({"x": np.float64(3), "y": X[:, 0]}, r"x has shape \(\), rows were expected"),
            ({"x": X.reshape(60, 3, 1), "y": X[:, 0]}, r"save x.reshape\(len\(x\), -1\)"),
            ({"x": X[:, 0], "y": X[:, 0]}, r"shape \(60,\), rows were expected"),
            ({"x": X * np.array([1, np.nan, 1]), "y": COLOURS}, r"1 of 3 columns have no.*: 1; l"),
            ({"x": X * np.array([1, np.inf, 1]), "y": COLOURS}, r"1 of 3 columns.*: 1 \(60\)"),
            ({"x": X, "y": X[:, 0] * np.nan}, "target has 60 missing or infinite"),
            ({"x": X[:0], "y": X[:0, 0]}, "no rows"),
            ({"x": X, "y": ["?", *map(str, range(59))]}, r"texts \('\?'\); .* --task classif"),
            ({"x": X, "y": [f"{i}%" for i in range(60)]}, "numbers written as 1.5%"),
            ({"x": X, "y": ["nan", *map(str, range(59))]}, r"except for some texts \('nan'\)"),
            ({"x": X, "y": [f"Mr {i}" for i in range(60)]}, "60 different words in 60 rows"),
        ],
    )
    def test_npz(self, tmp_path, arrays, message):
        np.savez(tmp_path / "t.npz", **arrays)
        with pytest.raises(ValueError, match=message):
            load(tmp_path / "t.npz")

    def test_complex_numbers(self, tmp_path):
        np.savez(tmp_path / "t.npz", x=X.astype(complex), y=COLOURS)
        with pytest.raises(TypeError, match="x has dtype complex128; save real numbers"):
            load(tmp_path / "t.npz")
        for kind in ("complex", "M8[D]"):
            np.savez(tmp_path / "t.npz", x=X, y=np.arange(60).astype(kind))
            with pytest.raises(TypeError, match="the target has dtype .*; labels are words or num"):
                load(tmp_path / "t.npz")

    def test_npy(self, tmp_path):
        np.save(tmp_path / "t.npy", X)
        for target in ("3", "-4", "price"):
            with pytest.raises(ValueError, match=rf"-3 to 2, got '{target}'"):
                load(tmp_path / "t.npy", target)
        np.save(tmp_path / "t.npy", X[:, 0])
        with pytest.raises(ValueError, match="rows were expected"):
            load(tmp_path / "t.npy")

    def test_columns_without_a_name(self, tmp_path):
        columns = [*map(pa.array, X.T), pa.array(COLOURS.tolist())]
        pq.write_table(pa.Table.from_arrays(columns, ["", "b", "", "y"]), tmp_path / "t.parquet")
        with pytest.raises(ValueError, match="several columns without a name; name them"):
            load(tmp_path / "t.parquet", "y")

    def test_arrays_for_a_model_that_takes_words_or_dates(self, tmp_path):
        """Numbers would be the positions of categories."""
        days = [f"2020-01-{1 + i % 28:02}" for i in range(60)]
        for column, options in (
            (COLOURS, {}),
            (np.arange(60) % 3, {"categorical": ["d"]}),
            (days, {}),
        ):
            path = write_csv(tmp_path / "t.csv", table(d=column, y=X[:, 0]))
            known = Preparation.of(load(path, "y", **options), x=True, y=False)
            x = np.column_stack([X, np.arange(60) % 3])
            np.save(tmp_path / "t.npy", x)
            np.savez(tmp_path / "t.npz", x=x, y=X[:, 0])
            for kind in ("npy", "npz"):
                with pytest.raises(
                    ValueError, match=f"t.{kind} has numbers alone, but .* in d; give"
                ):
                    load_inputs(tmp_path / f"t.{kind}", known)
                with pytest.raises(ValueError, match="numbers alone"):
                    next(pieces(tmp_path / f"t.{kind}", known, labelled=False))

    def test_unknown_names(self, tmp_path):
        with pytest.raises(ValueError, match=r"unknown data 'mnst5k'; did you mean 'mnist5k'\?"):
            load("mnst5k")
        with pytest.raises(ValueError, match=r"\.csv, .*\.parquet, \.npz, \.npy"):
            load(tmp_path / "t.xlsx")
        with pytest.raises(FileNotFoundError, match=r"there is no file .*t\.csv"):
            load(tmp_path / "t.csv")
        with pytest.raises(ValueError, match="unknown task 'ranking'"):
            load("digits", task="ranking")

    def test_task_that_the_target_does_not_support(self, csv, tmp_path):
        with pytest.raises(TypeError, match=r"the target holds words \(blue, green, red"):
            load(csv, "y", task="regression")
        with pytest.raises(ValueError, match="not whole numbers; they cannot be labels"):
            load(write_csv(tmp_path / "u.csv", table()), "a", task="classification")

    def test_parquet_of_a_type_that_pyarrow_lacks(self, tmp_path):
        polars = pytest.importorskip("polars")
        path = tmp_path / "t.parquet"
        polars.DataFrame({"a": [1, 2]}, {"a": polars.Int128}).write_parquet(path)
        with pytest.raises(ValueError, match="pyarrow cannot read .*; convert it, for example"):
            load(path, "a")

    @pytest.mark.parametrize("suffix", [".npz", ".npy", ".parquet"])
    def test_truncated_files(self, tmp_path, suffix):
        whole = tmp_path / f"whole{suffix}"
        if suffix == ".npz":
            np.savez(whole, x=X, y=COLOURS)
        elif suffix == ".npy":
            np.save(whole, X)
        else:
            pq.write_table(pa.table(table()), whole)
        data = whole.read_bytes()
        load(whole, "a" if suffix == ".parquet" else None)
        for cut in np.linspace(0, len(data) - 1, 25).astype(int):
            (tmp_path / f"t{suffix}").write_bytes(data[:cut])
            with pytest.raises(
                ValueError, match="cannot be read: it is not a .*not complete"
            ) as caught:
                load(tmp_path / f"t{suffix}", "a" if suffix == ".parquet" else None)
            assert "\n" not in str(caught.value)

    def test_pickles_are_never_loaded(self, tmp_path):
        with warnings.catch_warnings(action="ignore"):
            np.savez(tmp_path / "t.npz", x=X, y=np.array([{}] * 60, object), allow_pickle=True)
        with pytest.raises(ValueError, match="Python objects, which are never loaded"):
            load(tmp_path / "t.npz")


def test_bytes_that_are_not_utf8(tmp_path):
    texts = pa.array([b"\xff", b"a", b"b"] * 20)
    for i, column in enumerate([texts.dictionary_encode(), texts]):
        pq.write_table(pa.table({"c": column, "a": X[:, 0], "y": COLOURS}), tmp_path / "t.parquet")
        with pytest.raises(
            ValueError, match=r"but .*binary.* that is not UTF-8: c: leave them out"
        ):
            load(tmp_path / "t.parquet", "y", categorical="c" * i)
    for column in (texts, pa.Array.from_buffers(pa.string(), 60, texts.buffers())):
        pq.write_table(pa.table({"c": column, "a": X[:, 0], "y": COLOURS}), tmp_path / "t.parquet")
        with pytest.raises(ValueError, match="not UTF-8: c: leave them out"):
            load(tmp_path / "t.parquet", "y")
        with pytest.raises(TypeError, match="'c' holds .*, neither numbers nor labels; convert it"):
            load(tmp_path / "t.parquet", "c")
    two = pa.Array.from_buffers(pa.string(), 2, texts[:2].buffers())
    coded = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 30, pa.int8()), two)
    pq.write_table(pa.table({"c": coded, "a": X[:, 0], "y": COLOURS}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="t.parquet has a column of text that is not UTF-8; write"):
        load(tmp_path / "t.parquet", "y")


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(5)])
def test_bytes_are_texts(kind, tmp_path):
    """Some writers store texts so."""
    words, numbers = [b"small", b"large"] * 30, [f"{i % 30 + 10},25".encode() for i in range(60)]
    columns = {"c": pa.array(words, kind), "n": pa.array(numbers, kind), "y": X[:, 0]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    data = load(tmp_path / "t.parquet", "y")
    assert data.categories == {"c": ("small", "large")}
    np.testing.assert_array_equal(data.x[:, 1], np.arange(60) % 30 + 10.25)


SUMS = {"a": 7.0 + np.arange(60) % 9, "b": X[:, 1] ** 2, "c": X[:, 2], "y": 2.0 ** -np.arange(60)}
TOTAL = {name: values.sum() for name, values in SUMS.items()}


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize(
    "total", [TOTAL, {"a": 651.0, "b": "", "c": "", "y": 0}, {**TOTAL, "a": 3}]
)
def test_row_of_totals(total, place, tmp_path):
    """The sums of the other rows, some of them or rounded ones."""
    at = 0 if place == "first" else 60
    rows = {k: np.insert(v.astype(object), at, total[k]) for k, v in SUMS.items()}
    path = write_csv(tmp_path / "t.csv", rows)
    with pytest.raises(ValueError, match=f"the {place} row holds the sums of the other rows in "):
        load(path, "y")
    load(path, "y", like=Preparation.of(load(write_csv(path, SUMS), "y"), x=True, y=True))


@pytest.mark.parametrize("values", [
    2.0 ** np.arange(60), np.append(np.zeros(58), [1, 1]), np.arange(60) ** 2, np.arange(60) == 59,
])  # fmt: skip
def test_large_numbers_in_the_last_row_are_no_totals(values, tmp_path):
    load(write_csv(tmp_path / "t.csv", table(d=values, y=X[:, 0])), "y")
