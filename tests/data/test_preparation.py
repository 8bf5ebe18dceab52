"""Splits and preparations agree with NumPy."""

import json
import re

import numpy as np
import pytest

from tests.support.data_cases import COLOURS, X, table, write_csv
from tests.support.timing import slowdown

pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")

import gpumlp
from gpumlp.data import Dataset, Preparation, Scratch, load, load_inputs, split


@pytest.fixture
def csv(tmp_path):
    return write_csv(tmp_path / "t.csv", {"y": COLOURS, **table()})


class TestSplit:
    def test_parts_are_disjoint_complete_and_stratified(self, csv):
        data = load(csv, "y")
        train, val = split(data, 0.2, seed=3)
        rows = np.vstack([train.x, val.x])
        np.testing.assert_array_equal(rows[np.lexsort(rows.T)], X[np.lexsort(X.T)])
        np.testing.assert_array_equal(np.bincount(train.y), [16, 16, 16])
        np.testing.assert_array_equal(np.bincount(val.y), [4, 4, 4])
        row = {tuple(x): y for x, y in zip(data.x, data.y, strict=True)}
        assert [row[tuple(x)] for x in val.x] == val.y.tolist()

    def test_seed_determines_the_split(self, csv):
        data = load(csv, "y")
        first, again, other = (split(data, 12, seed)[1].x for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    @pytest.mark.parametrize(("validation", "count"), [(0.25, 110), (1, 1), (441, 441)])
    def test_shares_and_numbers(self, validation, count):
        train, val = split(load("diabetes"), validation)
        assert (len(train), len(val)) == (442 - count, count)

    def test_no_validation_part(self, csv):
        train, val = split(load(csv, "y"), 0)
        np.testing.assert_array_equal(train.x, X)
        assert val is None

    @pytest.mark.parametrize("validation", [-0.1, 60, 1.5, float("nan"), float("inf"), 0.001])
    def test_impossible_sizes_raise(self, csv, validation):
        with pytest.raises(ValueError, match="validation"):
            split(load(csv, "y"), validation)

    def test_class_of_one_example_is_in_the_training_part(self, tmp_path):
        labels = COLOURS.copy()
        labels[7] = "red!"
        data = load(write_csv(tmp_path / "t.csv", table(y=labels)), "y")
        with pytest.warns(UserWarning, match="no example of 1 of the 4 classes: red!"):
            train, val = split(data)
        np.testing.assert_array_equal(np.unique(train.y), range(4))
        np.testing.assert_array_equal(np.bincount(val.y), [4, 4, 4])
        np.testing.assert_array_equal(np.unique([*train.x, *val.x], axis=0), np.unique(X, axis=0))

    def test_part_smaller_than_the_classes(self, tmp_path):
        data = load(write_csv(tmp_path / "t.csv", table(y=[f"c{i % 25}" for i in range(60)])), "y")
        for count in (3, 20):
            with pytest.warns(UserWarning, match="no example of"):
                train, val = split(data, count)
            assert (len(val), len(np.unique(train.y))) == (count, 25)
        with pytest.raises(ValueError, match="25 classes do not leave 50 of 60 examples .* 34"):
            split(data, 50)


class TestPreparation:
    def test_standardises_by_moments_of_the_training_part(self, tmp_path):
        x = np.column_stack([1e9 + X[:, 0], 5 * X[:, 1] - 3, np.full(60, 0.1)])
        np.savez(tmp_path / "t.npz", x=x, y=100 + 7 * X[:, 2])
        train, val = split(load(tmp_path / "t.npz"), 0.2)
        prepared = Preparation.of(train, x=True, y=True)
        seen = prepared.inputs(train.x)
        np.testing.assert_allclose(seen.mean(0), 0, atol=1e-6)
        np.testing.assert_allclose(seen.std(0), [1, 1, 0], atol=1e-6)
        mean, std = train.x.mean(0), train.x.std(0)
        np.testing.assert_allclose(
            prepared.inputs(val.x)[:, :2], ((val.x - mean) / std)[:, :2], rtol=1e-6
        )
        np.testing.assert_allclose(
            prepared.targets(val.y)[:, 0], (val.y - train.y.mean()) / train.y.std(), rtol=1e-10
        )
        np.testing.assert_allclose(
            prepared.outputs(prepared.targets(val.y))[:, 0], val.y, rtol=1e-12
        )

    def test_column_of_equal_values_is_constant(self, tmp_path):
        near = np.where(X[:, 0] > 0, 1e15, 1e15 + 2)
        x = np.column_stack([near, np.full(60, 0.1), np.full(60, 1e300)])
        np.savez(tmp_path / "t.npz", x=x, y=X[:, 2])
        seen = Preparation.of(load(tmp_path / "t.npz"), x=True, y=True).inputs(x)
        low, high = seen[near == 1e15, 0], seen[near != 1e15, 0]
        gap = 2 / (near - 1e15).std()
        np.testing.assert_allclose(high[:, None] - low, gap, rtol=0.3)  # the mean is rounded
        assert np.abs(seen[:, 0]).max() < 2
        np.testing.assert_array_equal(seen[:, 1:], 0)

    @pytest.mark.parametrize("factor", [1e302, 1e200, 1e-200])
    def test_moments_beyond_float64_raise(self, tmp_path, factor):
        np.savez(tmp_path / "t.npz", x=X * [1, factor, 1], y=X[:, 2])
        message = "too large or too small to be standardised: x1; rescale them, or take log"
        with pytest.raises(ValueError, match=message):
            Preparation.of(load(tmp_path / "t.npz"), x=True, y=True)
        data = load(write_csv(tmp_path / "t.csv", table(price=X[:, 2] * factor)), "price")
        with pytest.raises(ValueError, match=r"standardised: the target price; rescale"):
            Preparation.of(data, x=True, y=True)
        np.savez(tmp_path / "u.npz", x=X, y=X * [1, 1, factor])
        with pytest.raises(ValueError, match=r"standardised: the target\[2\]; rescale"):
            Preparation.of(load(tmp_path / "u.npz"), x=True, y=True)

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
    """Data for a trained model."""

    @pytest.fixture
    def like(self, csv):
        return Preparation.of(load(csv, "y"), x=True, y=False)

    def test_table_columns_are_found_by_name(self, tmp_path, like):
        some = {"c": X[:5, 2], "spare": COLOURS[:5], "b": X[:5, 1], "a": X[:5, 0]}
        path = write_csv(tmp_path / "u.csv", {**some, "y": ["red", "green", "red", "red", "green"]})
        data = load(path, like=like)
        np.testing.assert_array_equal(data.x, X[:5])
        np.testing.assert_array_equal(data.y, [2, 1, 2, 2, 1])  # the model's labels
        np.testing.assert_array_equal(load_inputs(write_csv(tmp_path / "v.csv", some), like), X[:5])

    def test_array_columns_are_found_by_position(self, tmp_path, like):
        np.savez(tmp_path / "u.npz", x=X[:4])
        np.testing.assert_array_equal(load_inputs(tmp_path / "u.npz", like), X[:4])

    def test_npy_with_and_without_target(self, tmp_path):
        np.save(tmp_path / "t.npy", X)
        like = Preparation.of(load(tmp_path / "t.npy"), x=True, y=True)
        np.save(tmp_path / "u.npy", X[:, :2])
        for name in ("t.npy", "u.npy"):
            np.testing.assert_array_equal(load_inputs(tmp_path / name, like), X[:, :2])

    def test_other_classes_and_columns_raise(self, tmp_path, like):
        unknown = write_csv(tmp_path / "u.csv", table(y=np.where(COLOURS == "red", "pink", "blue")))
        with pytest.raises(ValueError, match=re.escape("not trained on: pink; it knows: blue, ")):
            load(unknown, like=like)
        lacking = write_csv(tmp_path / "v.csv", {"a": X[:, 0], "y": COLOURS})
        with pytest.raises(
            ValueError, match="lacks 2 of the 3 columns that the model takes: b, c; it has: a"
        ):
            load(lacking, like=like)
        np.savez(tmp_path / "w.npz", x=X[:, :2])
        with pytest.raises(ValueError, match="2 feature columns but the model takes 3"):
            load_inputs(tmp_path / "w.npz", like)
        with pytest.raises(ValueError, match="diabetes has other features than the model takes"):
            load("diabetes", like=Preparation("regression", ("a",)))


def test_preparation_in_a_model_file(csv, tmp_path):
    train, _ = split(load(csv, "y"), 0.2)
    prepared = Preparation.of(train, x=True, y=False, impute="median")
    net = gpumlp.MLP([len(prepared.columns), 3], backend="numpy")
    net.save(tmp_path / "with.safetensors", {"data": prepared.to_json()})
    assert Preparation.load(tmp_path / "with.safetensors") == prepared
    net.save(tmp_path / "without.safetensors")
    with pytest.raises(
        gpumlp.CheckpointError, match=r"without\.safetensors does not say what data"
    ):
        Preparation.load(tmp_path / "without.safetensors")
    with pytest.raises(FileNotFoundError):
        Preparation.load(tmp_path / "none.safetensors")
    damaged = bytearray((tmp_path / "with.safetensors").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "with.safetensors").write_bytes(damaged)
    with pytest.raises(gpumlp.CheckpointError, match=r"with\.safetensors"):
        Preparation.load(tmp_path / "with.safetensors")


def test_wide_table_is_prepared_in_proportion(monkeypatch):
    """In pieces of a few rows, nothing may be done column by column."""
    monkeypatch.setattr("gpumlp.io.chunks.CHUNK_BYTES", 1 << 17)

    def prepared(n):
        names, rng = tuple(f"g{j}" for j in range(n)), np.random.default_rng(0)
        x = rng.integers(0, 3, (40, n)).astype(float)
        x[rng.random(x.shape) < 0.1] = np.nan
        words = dict.fromkeys(names[::2], ("a", "b", "c"))
        train = Dataset("t", "classification", x, np.arange(40) % 2, names, ("n", "y"), "y",
                        categories=words, dates=names[1::4])  # fmt: skip

        def run():
            known = Preparation.of(train, x=True, y=False)
            known.prepared(x, np.float32, Scratch(), words)
            for row in x:  # as predict does with a very wide table
                known.unseen_counts(row[None])

        return run

    assert slowdown(prepared, 200, 3200, most=2) < 2
