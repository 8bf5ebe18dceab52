"""What a target is taken for, and how its labels are spelt, whatever the file's format is."""

from decimal import Decimal

import numpy as np
import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from gpumlp.data import Preparation, load, load_inputs, pieces
from gpumlp.data.spelling import Known, meaning, plain, spellings
from gpumlp.data.target_column import MOST_LABELS
from tests.support.data_cases import X, table, write_csv

M = len(X)
ONE = np.arange(M) % 3 == 0  # the rows of the second class


def csv(folder, first, second, name="t"):
    return write_csv(folder / f"{name}.csv", table(y=np.where(ONE, second, first)))


def parquet(folder, y, name="t"):
    columns = {key: pa.array(values) for key, values in table().items()}
    pq.write_table(pa.table({**columns, "y": y}), folder / f"{name}.parquet")
    return folder / f"{name}.parquet"


def model(path):
    return Preparation.of(load(path, "y"), x=True, y=False)


SPELT = [  # the labels of a file, and of another that means the same
    ("false", "true", "False", "True"),
    ("FALSE", "TRUE", "0", "1"),
    ("007", "010", "7.0", "10"),
    ("-5", "+5", "-5.0", "5"),
    ("0.0", "1.0", "0", "1"),
    ("1", "2", "1.0", "2.00"),
    ("1e0", "2e0", "1", "2"),
    ("2020-01-01", "2021-05-05", "2020-01-01 00:00:00", "2021-05-05T00:00"),
    ("hiver", "été", "hiver", "e\u0301té"),
    ("9007199254740992", "9007199254740993", "9007199254740992.0", "9007199254740993"),
]


@pytest.mark.parametrize(("first", "second", "other", "another"), SPELT)
def test_labels_are_spelt_as_in_the_file_and_known_in_another_spelling(
    first, second, other, another, tmp_path
):
    known = model(csv(tmp_path, first, second))
    assert known.classes == (first, second)
    new = csv(tmp_path, other, another, "new")
    np.testing.assert_array_equal(load(new, like=known).y, ONE)
    [part] = pieces(new, known)
    assert part.classes == (first, second)
    np.testing.assert_array_equal(part.y, ONE)


def test_labels_of_which_some_do_not_occur(tmp_path):
    words = np.array(["false", "maybe", "true"])[np.arange(M) % 3]
    known = model(write_csv(tmp_path / "t.csv", table(y=words)))
    part = load(csv(tmp_path, "true", "false", "new"), like=known)
    np.testing.assert_array_equal(part.y, np.where(ONE, 0, 2))


def test_spellings_of_one_number_are_one_class_called_by_the_most_frequent(tmp_path):
    labels = np.where(ONE, "2", "1").astype(object)
    labels[:5] = ["2.0", "1.0", "1.0", "2", "01.0"]
    path = write_csv(tmp_path / "t.csv", table(y=labels))
    assert load(path, "y").classes == ("1", "2")
    truths = np.where(ONE, "yes", "no").astype(object)
    truths[:2] = ["Yes", "No"]
    path = write_csv(tmp_path / "t.csv", table(y=truths))
    with pytest.warns(UserWarning, match="differ in case alone: 'No', 'Yes', 'no', 'yes'; if"):
        assert len(load(path, "y").classes) == 4


def test_codes_that_differ_in_leading_zeros_are_two_classes(tmp_path):
    data = load(csv(tmp_path, "7", "07"), "y")
    assert data.classes == ("07", "7")
    with pytest.raises(ValueError, match=r"not trained on: 7\.0; it knows: 07, 7"):
        load(csv(tmp_path, "7", "7.0", "new"), like=model(tmp_path / "t.csv"))


def test_many_codes_with_leading_zeros_are_classes(tmp_path):
    """If they repeat, as they are no quantities: 07 differs from 7."""
    codes = [f"{i % 30:03}" for i in range(60)]
    data = load(write_csv(tmp_path / "t.csv", table(y=codes)), "y")
    assert data.classes == tuple(codes[:30])
    np.testing.assert_array_equal(data.y, np.arange(60) % 30)
    numbers = [f"{i:03}" for i in range(60)]
    data = load(write_csv(tmp_path / "t.csv", table(y=numbers)), "y")
    np.testing.assert_array_equal(data.y, np.arange(60.0))


TYPES = {
    "bool": pa.array(ONE), "int8": pa.array(ONE.astype(np.int8)), "float": pa.array(ONE * 1.0),
    "float32": pa.array(ONE.astype(np.float32)),
    "decimal": pa.array([Decimal(int(one)) for one in ONE], pa.decimal128(5, 2)),
    "dictionary": pa.array(ONE.astype(int)).dictionary_encode(),
}  # fmt: skip


@pytest.mark.parametrize("kind", TYPES)
def test_whole_numbers_are_classes_however_they_are_stored(kind, tmp_path):
    data = load(parquet(tmp_path, TYPES[kind]), "y")
    assert data.task == "classification"
    np.testing.assert_array_equal(data.y, ONE)
    part = load(csv(tmp_path, "0", "1.0"), like=model(tmp_path / "t.parquet"))
    np.testing.assert_array_equal(part.y, ONE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_arrays_decide_like_tables(dtype, tmp_path):
    y = ONE.astype(dtype)
    np.savez(tmp_path / "t.npz", x=X, y=y)
    np.save(tmp_path / "t.npy", np.column_stack([X, y]))
    for name in ("t.npz", "t.npy"):
        data = load(tmp_path / name)
        assert (data.task, data.classes) == ("classification", ("0", "1"))
    halves = write_csv(tmp_path / "h.csv", table(y=ONE / 2))
    assert load(halves, "y").task == "regression"


@pytest.mark.parametrize("dtype", ["U", "S"])
def test_texts_in_arrays_decide_like_those_of_tables(dtype, tmp_path):
    for y, task in ((X[:, 1], "regression"), (ONE * 1, "classification"), (ONE, "classification")):
        texts = np.char.add(" ", y.astype(str)).astype(dtype)
        np.savez(tmp_path / "t.npz", x=X, y=texts)
        data = load(tmp_path / "t.npz")
        assert data.task == task
        np.testing.assert_array_equal(data.y, y)


MONTHS = [date.item() for date in np.arange("2022-01", "2024-07", dtype="M8[M]")]
NO_CLASSES = {
    "dates or times": ([f"{date:%b-%y}" for date in MONTHS], "classification"),
    "dates": ([f"{date:%m.%Y}" for date in MONTHS], "regression"),  # as decimals
    "numbers beside": ([f"{i} {'kg' if i % 2 else 'lb'}" for i in range(30)], "classification"),
}


@pytest.mark.parametrize("what", NO_CLASSES)
@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_texts_that_are_no_classes(what, kind, tmp_path):
    (texts, task), path = NO_CLASSES[what], tmp_path / f"t.{kind}"
    np.savez(tmp_path / "t.npz", x=X, y=np.array(texts * 2))
    write_csv(tmp_path / "t.csv", table(y=texts * 2))
    with pytest.raises(ValueError, match=f"holds {what} .*or say --task {task}$"):
        load(path, "y")
    assert load(path, "y", task).task == task


def test_labels_in_arrays(tmp_path):
    """Bytes are UTF-8, an empty text is a missing label, and no array is its own target."""
    texts = np.where(ONE, "é", "e")
    path = tmp_path / "t.npz"
    np.savez(path, x=X, y=np.char.encode(texts, "utf-8"))
    assert load(path).classes == ("e", "é")
    np.savez(path, x=X, y=np.char.encode(texts, "latin1"))
    with pytest.raises(ValueError, match="y has bytes that are not UTF-8; store texts"):
        load(path)
    texts[3] = ""
    np.savez(path, x=X, y=texts)
    with pytest.raises(ValueError, match="target has 1 missing .*, --drop-missing-target"):
        load(path)
    data = load(path, drop_missing_target=True)
    assert (len(data), data.classes) == (M - 1, ("e", "é"))
    known = Preparation.of(data, x=True, y=False)
    [part] = pieces(path, known, drop_missing_target=True)
    np.testing.assert_array_equal(part.y, data.y)
    with pytest.raises(ValueError, match="x holds the features and is no target; it has: x, y"):
        load(path, "x")


@pytest.mark.parametrize("dtype", [bool, int, float])
def test_a_one_in_each_row_of_the_target_may_say_the_class(dtype, tmp_path):
    y = np.eye(2, dtype=dtype)[ONE.astype(int)]
    np.savez(tmp_path / "t.npz", x=X, y=y)
    with pytest.raises(
        ValueError, match=r"store labels, e\.g\. y\.argmax\(axis=1\), or say --task"
    ):
        load(tmp_path / "t.npz")
    np.testing.assert_array_equal(load(tmp_path / "t.npz", task="regression").y, y)


def test_truth_values_are_those_that_are_written_as_numbers(tmp_path):
    labels = np.where(ONE, "true", "false").astype(object)
    labels[: M // 2] = 1 * ONE[: M // 2]
    data = load(write_csv(tmp_path / "t.csv", table(y=labels)), "y")
    np.testing.assert_array_equal(data.y, ONE)
    assert len(data.classes) == 2


@pytest.mark.parametrize("first", [0, 1, 2])
def test_columns_of_arrays_that_count_the_rows(first, tmp_path):
    numbers = np.random.default_rng(0).permutation(M) + first
    np.savez(tmp_path / "t.npz", x=np.column_stack([X, numbers, numbers // 2]), y=ONE)
    if first == 2:  # such as ages
        load(tmp_path / "t.npz")
        return
    with pytest.warns(
        UserWarning, match=r"columns \[3\] count the rows; .*numpy.delete\(x, \[3\], "
    ):
        load(tmp_path / "t.npz")


def test_dates_of_parquet_are_labels_as_csv_writes_them(tmp_path):
    days = np.where(ONE, np.datetime64("2021-05-05", "ns"), np.datetime64("2020-01-01", "ns"))
    data = load(parquet(tmp_path, pa.array(days)), "y")
    assert data.classes == ("2020-01-01", "2021-05-05")


def test_truth_values_can_be_quantities(tmp_path):
    for path in (csv(tmp_path, "false", "true"), parquet(tmp_path, pa.array(ONE))):
        np.testing.assert_array_equal(load(path, "y", "regression").y, ONE)


def test_whole_numbers_that_lose_digits_are_no_quantities(tmp_path):
    many, two = 2**60 + np.arange(M), 2**60 + ONE
    for path in (csv(tmp_path, many, many), parquet(tmp_path, many, "u")):
        with pytest.raises(ValueError, match=r"target has whole numbers beyond 2\*\*53"):
            load(path, "y")
    assert load(csv(tmp_path, two, two), "y").classes == (str(2**60), str(2**60 + 1))


@pytest.mark.parametrize("kind", [pa.string(), pa.string_view(), "dictionary"])
def test_numbers_as_text_decide_like_numbers(kind, tmp_path):
    texts = pa.array([f"{i}.5" for i in range(M)])
    texts = texts.dictionary_encode() if kind == "dictionary" else texts.cast(kind)
    data = load(parquet(tmp_path, texts), "y")
    assert data.task == "regression"
    np.testing.assert_array_equal(data.y, np.arange(M) + 0.5)


def test_numbers_in_other_characters_are_numbers(tmp_path):
    """A typographic minus, and full-width digits."""
    texts = [f"\u2212{i}" if i % 2 else "\uff11" * (i // 2 + 1) for i in range(30)]
    path = write_csv(tmp_path / "t.csv", {"a": X[:30, 0], "y": texts})
    data = load(path, "y")
    assert data.task == "regression"
    np.testing.assert_array_equal(data.y[:3], [1, -1, 11])


def test_truth_values_beside_a_gap_are_spelt_as_without(tmp_path):
    path = parquet(tmp_path, pa.array([None, *map(bool, ONE[1:])]))
    data = load(path, "y", drop_missing_target=True)
    assert data.classes == ("False", "True")
    np.testing.assert_array_equal(data.y, ONE[1:])


def test_labels_that_look_like_numbers_with_a_unit(tmp_path):
    path = csv(tmp_path, "25%", "50%")
    with pytest.raises(ValueError, match=r"written as 1\.5%.* or say --task classification"):
        load(path, "y")
    assert load(path, "y", "classification").classes == ("25%", "50%")
    write_csv(path, table(y=["25%", "50%", "?"] * (M // 3)))
    with pytest.raises(ValueError, match=r"except for some texts \('\?'\).* classification"):
        load(path, "y")


@pytest.mark.parametrize("values", [[[1]] * M, np.arange(M).astype("m8[s]")])
def test_types_that_are_no_target(values, tmp_path):
    with pytest.raises(TypeError, match="neither numbers nor labels; convert it"):
        load(parquet(tmp_path, pa.array(values)), "y")


def test_an_infinite_target_of_csv_is_not_a_word(tmp_path):
    values = [*map(str, X[:-1, 0]), "inf"]
    with pytest.raises(ValueError, match="the target has 1 missing or infinite values"):
        load(write_csv(tmp_path / "t.csv", table(y=values)), "y")


class TestManyDifferentNumbers:
    """They are read as numbers, from the block on in which there are too many to be labels."""

    def read(self, tmp_path, monkeypatch, y):
        monkeypatch.setattr("gpumlp.data.target_column.MOST_LABELS", 20)
        monkeypatch.setattr("gpumlp.data.csv_files.BLOCK", 1 << 9)
        return load(write_csv(tmp_path / "t.csv", table(y=y)), "y")

    def test_equal_those_that_were_read_as_text(self, tmp_path, monkeypatch):
        y = [" 12.5", "+3", *map(repr, X[2:, 1].tolist())]
        data = self.read(tmp_path, monkeypatch, y)
        np.testing.assert_array_equal(data.y, [12.5, 3, *X[2:, 1]])

    def test_texts_among_them_raise(self, tmp_path, monkeypatch):
        y = ["unknown", *map(repr, X[1:, 1].tolist())]
        with pytest.raises(ValueError, match=r"numbers except for some texts \('unknown'\)"):
            self.read(tmp_path, monkeypatch, y)

    def test_are_more_than_any_list_of_classes_has(self):
        assert MOST_LABELS >= 1000


def test_a_category_is_the_same_with_and_without_a_point(tmp_path):
    codes = np.arange(M) % 4 + 1
    known = Preparation.of(
        load(write_csv(tmp_path / "t.csv", table(k=codes, y=ONE * 1)), "y", categorical=["k"]),
        x=True, y=False, min_frequency=1,
    )  # fmt: skip
    texts = [f"{code}.0" for code in codes]
    part = load(write_csv(tmp_path / "n.csv", table(k=["", *texts[1:]], y=ONE * 1)), like=known)
    np.testing.assert_array_equal(part.x[1:, 3], codes[1:] - 1)
    assert known.categories["k"] == ("1", "2", "3", "4")
    with_gap = load(tmp_path / "n.csv", "y", categorical=["k"])
    assert sorted(with_gap.categories["k"]) == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1]] * M, "hold neither numbers nor words but list<.*>: a: convert them"),
        (["?", *map(str, X[1:, 0])], r"except for some texts \('\?'\): a: correct .*index=False\)"),
        ([2**60] * M, r"beyond 2\*\*53, which would lose digits: a: subtract an offset"),
    ],
    ids=["list", "marker", "huge"],
)
def test_errors_for_new_data_name_no_option_of_training(values, message, tmp_path):
    path = parquet(tmp_path, pa.array(ONE))
    known = Preparation.of(load(path, "y"), x=True, y=False)
    pq.write_table(pa.table({**table(), "a": pa.array(values)}), tmp_path / "n.parquet")
    with pytest.raises(ValueError, match=f"{message}$"):
        load_inputs(tmp_path / "n.parquet", known)


@pytest.mark.parametrize("values", [np.where(ONE, "true", "False"), np.full(M, "2024-05-01")])
def test_a_marker_is_blamed_and_not_the_values_around_it(values, tmp_path):
    """It makes texts of what is a column of truth values or dates in the training file."""
    path = write_csv(tmp_path / "t.csv", table(k=values, y=ONE))
    known = model(path)
    write_csv(path, table(k=["?", *values[1:]], y=ONE))
    with pytest.raises(ValueError, match=r"except for some texts \('\?'\)"):
        load_inputs(path, known)


def test_lists_are_no_categories(tmp_path):
    columns = table(k=np.arange(M) % 3, y=ONE)
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    data = load(tmp_path / "t.parquet", "y", categorical=["k"])
    known = Preparation.of(data, x=True, y=False)
    pq.write_table(pa.table({**columns, "k": [[1]] * M}), tmp_path / "n.parquet")
    with pytest.raises(ValueError, match="hold neither numbers nor words but list"):
        load_inputs(tmp_path / "n.parquet", known)


def test_truth_values_with_spaces(tmp_path):
    """The file that the model learned from had none."""
    truths = [str(bool(one)).lower() for one in ONE]
    path = write_csv(tmp_path / "t.csv", {"a": X[:, 0], "b": truths, "y": truths})
    known = model(path)
    write_csv(path, {"a": X[:, 0], "b": [f" {truth} " for truth in truths]})
    np.testing.assert_array_equal(load_inputs(path, known)[:, 1], np.array(ONE, float))


def test_forms_of_a_letter_are_one_class(tmp_path):
    words = np.array(["caf\u00e9", "cafe\u0301", "\u200bbar\ufeff", "bar"])[np.arange(M) % 4]
    path = write_csv(tmp_path / "t.csv", {"a": X[:, 0], "y": words})
    found = load(path, "y")
    assert found.classes == ("bar", "caf\u00e9")
    np.testing.assert_array_equal(found.y, np.arange(M) % 4 < 2)


def test_meanings():
    assert meaning("\uff0d\uff12") == meaning("\u22122") == meaning("-2.0")
    assert meaning("1e3") == meaning("1000.0") != meaning("1001")
    assert meaning("2020-13-45") == "2020-13-45"
    assert [plain(text) for text in (" 7.00 ", "07.0", "1.5", "-3.")] == ["7", "07.0", "1.5", "-3"]
    assert spellings("1") == ["1", "1.0"]
    assert "TRUE" in spellings("true")
    assert spellings("01") == ["01"]
    assert Known(["O'Hare", "A-B"]).find("O\u2019Hare") == 0
    assert Known(["O'Hare", "O\u2019Hare"]).find("O\u2018Hare") is None
    known = Known(["1", "true", "x"])
    assert [known.find(text) for text in ("1", "true", "1.0", "X")] == [0, 1, None, None]
