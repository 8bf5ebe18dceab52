"""Inputs for categories and missing values equal those of pandas and scikit-learn."""

import json

import numpy as np
import pytest

from tests.support.data_cases import COLOURS, RNG, X, table, write_csv

pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder

from gpumlp.data import Preparation, load, load_inputs, split
from gpumlp.errors import CheckpointError

M = 300
TOWNS = RNG.permutation(np.repeat([f"t{i:02}" for i in range(24)], np.arange(24, 0, -1)))  # 300


def holey(rng=RNG, share=0.2):
    x = rng.normal(size=(M, 3)) * [1, 50, 0.1] + [0, 7, 3]
    x[rng.random(x.shape) < [share, 0, share]] = np.nan
    return x


def seen(data, **settings):
    """The inputs of the network, and the preparation."""
    known = Preparation.of(data, x=False, y=False, **settings)
    return known.inputs(data.x[:], data.categories), known


class TestCategories:
    def test_one_hot_inputs_equal_pandas(self, tmp_path):
        path = write_csv(tmp_path / "t.csv", table(colour=COLOURS, y=X[:, 0]))
        x, known = seen(load(path, "y"))
        expected = pandas.get_dummies(pandas.read_csv(path).drop(columns="y"), dtype=float)
        np.testing.assert_array_equal(x, expected)
        assert known.columns[3:] == ("colour=blue", "colour=green", "colour=red")
        assert [c.replace("=", "_") for c in known.columns] == list(expected)

    @pytest.mark.parametrize(("most", "least"), [(100, 1), (100, 8), (5, 1), (12, 10)])
    def test_rare_categories_share_an_input_as_in_scikit_learn(self, tmp_path, most, least):
        path = write_csv(tmp_path / "t.csv", {"town": TOWNS, "y": RNG.normal(size=M)})
        x, known = seen(load(path, "y"), max_categories=most, min_frequency=least)
        encoder = OneHotEncoder(
            min_frequency=least, max_categories=most + 1, sparse_output=False
        )  # it counts the shared one
        np.testing.assert_array_equal(x, encoder.fit_transform(TOWNS[:, None]))
        rare = encoder.infrequent_categories_[0]
        assert known.others == (() if rare is None else ("town",))

    def test_unknown_categories_set_the_shared_input_or_none(self, tmp_path):
        columns = {"town": TOWNS, "colour": np.resize(COLOURS, M), "y": RNG.normal(size=M)}
        _, known = seen(load(write_csv(tmp_path / "t.csv", columns), "y"), min_frequency=12)
        assert known.others == ("town",)
        new = {"colour": ["red", "pink", "", " red"], "town": ["t00", "Ulm", "", "t23"]}
        raw = load_inputs(write_csv(tmp_path / "n.csv", new), known)
        rows = [
            {n for n, v in zip(known.columns, row, strict=True) if v} for row in known.inputs(raw)
        ]
        assert rows == [
            {"town=t00", "colour=red"}, {"town other"}, set(), {"town other", "colour=red"},
        ]  # fmt: skip
        np.testing.assert_array_equal(known.unseen_counts(raw), [1, 2])  # 2 missing, and pink

    def test_all_categories_rare(self, tmp_path):
        path = write_csv(tmp_path / "t.csv", table(colour=COLOURS, y=X[:, 0]))
        x, known = seen(load(path, "y"), min_frequency=21)
        assert known.columns == ("a", "b", "c")  # an input that is always 1 would say nothing
        assert known.categories == {"colour": ()}
        data = load(path, like=known)
        np.testing.assert_array_equal(known.inputs(data.x, data.categories), x)
        assert not known.unseen_counts(data.x[:]).any()
        with pytest.raises(ValueError, match="no category has 21 examples.*--min-frequency 20"):
            seen(load(path, "y", drop=["a", "b", "c"]), min_frequency=21)

    def test_categories_come_from_the_training_part(self, tmp_path):
        colours = COLOURS.copy()
        path = write_csv(tmp_path / "t.csv", table(colour=colours, y=X[:, 0]))
        _, val = split(load(path, "y"), 1)
        row = int(np.flatnonzero((val.x[0, :3] == X).all(axis=1))[0])
        colours[row] = "pink"
        write_csv(path, table(colour=colours, y=X[:, 0]))
        train, val = split(load(path, "y"), 1)
        x, known = seen(train, min_frequency=1)
        assert known.categories == {"colour": ("blue", "green", "red")}
        assert known.others == ()
        np.testing.assert_array_equal(x[:, 3:].sum(axis=1), 1)
        np.testing.assert_array_equal(known.inputs(val.x[:], val.categories)[0, 3:], 0)

    def test_categories_of_any_type(self, tmp_path):
        codes = np.arange(60) % 4
        path = tmp_path / "t.parquet"
        columns = table(
            word=pa.array(COLOURS.tolist(), pa.large_string()), number=codes,
            declared=pa.array([f"{c}.50" for c in codes]).dictionary_encode(),
            real=pa.array(codes.astype(float)), flag=codes > 1, y=X[:, 0],
        )  # fmt: skip
        pq.write_table(pa.table(columns), path)
        x, known = seen(load(path, "y", categorical=["number", "real"]))
        assert known.columns[3:] == (
            "word=blue", "word=green", "word=red", "number=0", "number=1", "number=2", "number=3",
            "declared=0.50", "declared=1.50", "declared=2.50", "declared=3.50", "real=0", "real=1",
            "real=2", "real=3", "flag",
        )  # fmt: skip
        for first in (6, 10, 14):
            np.testing.assert_array_equal(x[:, first : first + 4].argmax(axis=1), codes)
        np.testing.assert_array_equal(x[:, -1], codes > 1)

    @pytest.mark.parametrize("written", ["{}.5%", "${},000.00", "2024-01-{:02}", "{}.25"])
    def test_a_type_of_categories_with_many_numbers_or_dates(self, tmp_path, written):
        """They are what the same texts are without the type."""
        texts = pa.array([written.format(1 + i % 28) for i in range(60)])
        found = []
        for column in (texts, texts.dictionary_encode()):
            pq.write_table(pa.table(table(d=column, y=COLOURS)), tmp_path / "t.parquet")
            found.append(load(tmp_path / "t.parquet", "y"))
            assert found[-1].categories == {}
        np.testing.assert_array_equal(found[0].x, found[1].x)
        unclear = pa.array([f"{1 + i % 12}/{1 + i % 9}/2020" for i in range(60)])
        unclear = table(d=unclear.dictionary_encode(), y=COLOURS)
        pq.write_table(pa.table(unclear), tmp_path / "t.parquet")
        with pytest.raises(ValueError, match="--date-order dmy or --date-order mdy"):
            load(tmp_path / "t.parquet", "y")
        codes = pa.array([str(i % 28) for i in range(60)]).dictionary_encode()
        pq.write_table(pa.table(table(d=codes, y=COLOURS)), tmp_path / "t.parquet")
        assert len(load(tmp_path / "t.parquet", "y").categories["d"]) == 28

    @pytest.mark.parametrize("written", ["{}.5", "{},5", "{}.5%", "2024-01-{:02}"])
    def test_a_mark_in_a_type_of_categories_is_no_category(self, tmp_path, written):
        """Without the mark, the others would be numbers or dates."""
        texts = ["?", *(written.format(1 + i % 28) for i in range(59))]
        columns = table(d=pa.array(texts).dictionary_encode(), y=COLOURS)
        pq.write_table(pa.table(columns), tmp_path / "t.parquet")
        with pytest.raises(ValueError, match=r"except for some texts \('\?'\): d: correct"):
            load(tmp_path / "t.parquet", "y")

    def test_whole_numbers_of_a_type_of_categories_in_pandas(self, tmp_path):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(table(d=np.arange(60) % 3, y=COLOURS))
        path = tmp_path / "t.parquet"
        frame.astype({"d": "category"}).to_parquet(path)
        x, known = seen(load(path, "y"))
        assert known.columns[3:] == ("d=0", "d=1", "d=2")
        frame.to_parquet(path)
        np.testing.assert_array_equal(known.inputs(load_inputs(path, known)), x)
        frame.astype({"d": "category"})[40:].to_parquet(tmp_path / "2.parquet")
        frame[:40].to_parquet(path)  # the other file decides
        found, known = seen(load([path, tmp_path / "2.parquet"], "y"))
        np.testing.assert_array_equal(found, x)

    @pytest.mark.parametrize("first", [0, 30])
    def test_truth_values_beside_other_numbers_are_words(self, tmp_path, first):
        """Also where one part of the file has truth values alone; 0 and 1 are such."""
        truths = np.where(np.arange(60) % 2, "true", "false").astype(object)
        truths[first : first + 30] = 2 + np.arange(30) % 3
        paths = [tmp_path / "1.csv", tmp_path / "2.csv"]
        for path, rows in zip(paths, (slice(0, 30), slice(30, 60)), strict=True):
            write_csv(path, {k: v[rows] for k, v in table(d=truths, y=COLOURS).items()})
        assert {*load(paths, "y").categories["d"]} == {"true", "false", "2", "3", "4"}
        truths[first : first + 30] = np.arange(30) % 2
        write_csv(paths[0], {k: v[:30] for k, v in table(d=truths, y=COLOURS).items()})
        write_csv(paths[1], {k: v[30:] for k, v in table(d=truths, y=COLOURS).items()})
        np.testing.assert_array_equal(load(paths, "y").x[:, 3], np.arange(60) % 2)

    def test_csv_codes_keep_their_zeros(self, tmp_path):
        codes = [f"{i % 3:02}" for i in range(60)]
        path = write_csv(tmp_path / "t.csv", {"code": codes, "b": X[:, 1], "y": X[:, 0]})
        x, known = seen(load(path, "y", categorical=["code"]))
        assert known.columns[:3] == ("code=00", "code=01", "code=02")
        np.testing.assert_array_equal(known.inputs(load_inputs(path, known)), x)

    def test_many_words_need_categorical(self, tmp_path):
        names = [f"Mr {i // 2}" if i < 20 else f"Ms {i}" for i in range(60)]
        path = write_csv(tmp_path / "t.csv", table(name=names, y=X[:, 0]))
        with pytest.raises(ValueError, match=r"name \(50 different\)"):
            load(path, "y")
        x, known = seen(load(path, "y", categorical=["name"]), min_frequency=2)
        assert known.columns[3:] == (*(f"name=Mr {i}" for i in range(10)), "name other")
        np.testing.assert_array_equal(x[:, 3:].argmax(axis=1), np.minimum(np.arange(60) // 2, 10))

    def test_words_where_the_model_takes_numbers_raise(self, tmp_path):
        known = Preparation.of(load(write_csv(tmp_path / "t.csv", table()), "c"), x=True, y=True)
        path = write_csv(tmp_path / "n.csv", {"a": COLOURS, "b": X[:, 1]})
        with pytest.raises(ValueError, match=r"numbers \('blue', 'green', 'red'\): a: corr"):
            load_inputs(path, known)

    @pytest.mark.parametrize("setting", ["max_categories", "min_frequency"])
    def test_invalid_settings_raise(self, tmp_path, setting):
        data = load(write_csv(tmp_path / "t.csv", table()), "c")
        with pytest.raises(ValueError, match=f"{setting} must be at least 1, got 0"):
            Preparation.of(data, x=True, y=True, **{setting: 0})

    def test_unknown_names_raise(self, tmp_path):
        path = write_csv(tmp_path / "t.csv", table(colour=COLOURS))
        with pytest.raises(ValueError, match=r"no feature column 'color'; did you mean 'colour'\?"):
            load(path, "a", categorical=["color"])
        with pytest.raises(ValueError, match="digits has no columns with names; leave out --cat"):
            load("digits", categorical=["a"])


class TestMissingValues:
    @pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
    @pytest.mark.parametrize("impute", ["mean", "median"])
    def test_filled_and_indicated_as_in_scikit_learn(self, tmp_path, kind, impute):
        x, path = holey(), tmp_path / f"t.{kind}"
        frame = pandas.DataFrame(x, columns=["a", "b", "c"]).assign(y=RNG.normal(size=M))
        if kind == "npz":
            np.savez(path, x=x, y=frame["y"])
        else:
            getattr(frame, f"to_{kind}")(path, index=False)
        train, val = split(load(path, None if kind == "npz" else "y"), 0.2)
        known = Preparation.of(train, x=False, y=True, impute=impute)
        imputer = SimpleImputer(strategy=impute, add_indicator=True).fit(train.x)
        order = [0, 3, 1, 2, 4]  # the indicator follows its column
        for part in (train, val):
            expected = imputer.transform(part.x)[:, order]
            np.testing.assert_allclose(known.inputs(part.x), expected, rtol=1e-12)
        names = known.features
        assert known.columns == (
            names[0], f"{names[0]} missing", names[1], names[2], f"{names[2]} missing",
        )  # fmt: skip

    def test_filled_with_0_when_standardised(self, tmp_path):
        np.savez(tmp_path / "t.npz", x=holey(), y=RNG.normal(size=M))
        data = load(tmp_path / "t.npz")
        known = Preparation.of(data, x=True, y=True)
        x = known.inputs(data.x)
        expected = (data.x - np.nanmean(data.x, axis=0)) / np.nanstd(data.x, axis=0)
        np.testing.assert_allclose(
            x[:, [0, 2, 3]], np.where(np.isnan(data.x), 0, expected), atol=1e-12
        )

    def test_missing_category_has_an_input(self, tmp_path):
        colours = COLOURS.astype(object)
        colours[::5] = ""
        path = write_csv(tmp_path / "t.csv", table(colour=colours, y=X[:, 0]))
        x, known = seen(load(path, "y"))
        assert known.columns[3:] == ("colour=blue", "colour=green", "colour=red", "colour missing")
        np.testing.assert_array_equal(x[::5, 3:], [[0, 0, 0, 1]] * 12)
        np.testing.assert_array_equal(x[:, 3:].sum(axis=1), 1)

    def test_filled_where_training_had_no_missing_value(self, tmp_path):
        np.savez(tmp_path / "t.npz", x=X, y=X[:, 0])
        known = Preparation.of(load(tmp_path / "t.npz"), x=True, y=True)
        x = X.copy()
        x[3, 1] = np.nan
        np.testing.assert_allclose(known.inputs(x)[3, 1], 0, atol=1e-15)
        np.testing.assert_array_equal(known.unseen_counts(x), [0, 1, 0])


def test_numbers_far_from_those_of_training(tmp_path):
    """Such as marks of missing values, and other units; but not positions of words."""
    words = np.char.add("w", (np.arange(60) % 30).astype(str))
    path = write_csv(tmp_path / "t.csv", table(d=np.full(60, 7), town=words, y=X[:, 0]))
    found = load(path, "y")
    known = Preparation.of(found, x=True, y=True, min_frequency=1)
    x = found.x.copy()
    assert not known.unseen_counts(x).any()
    x[:2, 0], x[4:, 1], x[3, 3] = -99999, 20, 7.5
    np.testing.assert_array_equal(known.unseen_counts(x), [2, 0, 0, 1, 0])
    known = Preparation.of(found, x=False, y=True, min_frequency=1)
    np.testing.assert_array_equal(known.unseen_counts(x), [0, 0, 0, 1, 0])

    def test_refuse_raises(self, tmp_path):
        np.savez(tmp_path / "t.npz", x=holey(), y=RNG.normal(size=M))
        data = load(tmp_path / "t.npz")
        first, last = np.isnan(data.x[:, [0, 2]]).sum(axis=0)
        message = (
            rf"2 of 3 feature columns have missing values: x0 \({first}\), x2 \({last}\); drop"
        )
        with pytest.raises(ValueError, match=message):
            Preparation.of(data, x=True, y=True, impute="refuse")
        with pytest.raises(ValueError, match="impute must be one of mean, median, refuse, got 0"):
            Preparation.of(data, x=True, y=True, impute=0)

    def test_column_empty_in_the_training_part_raises(self, tmp_path):
        path = tmp_path / "t.npz"
        np.savez(path, x=X, y=X[:, 0])
        _, val = split(load(path), 1)
        x = np.where((val.x[0] == X).all(axis=1)[:, None], X, X * [1, np.nan, 1])
        np.savez(path, x=x, y=X[:, 0])
        train, _ = split(load(path), 1)
        with pytest.raises(ValueError, match="1 of 3 feature columns have no values in the train"):
            Preparation.of(train, x=True, y=True)


class TestFiles:
    def test_survives_json_to_the_last_bit(self, tmp_path):
        colours = np.where(np.arange(60) % 7 == 0, "", COLOURS)
        path = write_csv(tmp_path / "t.csv", table(colour=colours, y=X[:, 0]))
        known = Preparation.of(load(path, "y"), x=True, y=True, max_categories=2)
        assert known.others
        assert known.holes
        text = json.dumps({"data": known.to_json()})
        assert Preparation.from_json("f", json.loads(text)) == known

    def test_older_files(self, tmp_path):
        """Files of models from before missing values and categories."""
        old = {
            "task": "regression", "features": ["a", "b"], "target": "y", "classes": None,
            "shift": [1.0, 2.0], "scale": [2.0, 4.0], "y_shift": [0.0], "y_scale": [1.0],
        }  # fmt: skip
        known = Preparation.from_json("f", {"data": old})
        np.testing.assert_array_equal(known.inputs(np.array([[3.0, 2.0]])), [[1.0, 0.0]])
        with pytest.raises(
            ValueError, match=r"1 of 2 columns have missing values: b \(1\); the mod"
        ):
            known.inputs(np.array([[3.0, np.nan]]))
        with pytest.raises(CheckpointError, match="does not say what data"):
            Preparation.from_json("f", {"data": {"task": "regression"}})
