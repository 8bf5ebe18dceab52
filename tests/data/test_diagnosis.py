"""Errors for columns that are not numbers: the line of pandas they suggest corrects the file."""

import io
import re
from decimal import Decimal

import numpy as np
import pytest

from tests.support.data_cases import COLOURS, X, table, write_csv

pytest.importorskip("pyarrow")
pytest.importorskip("pandas")

import pandas

from gpumlp.data import Preparation, load

FULL_WIDTH = {i: i + 0xFEE0 for i in (*range(ord("0"), ord("9") + 1), ord("."))}
BIG = 10_000 * (X[:, 0] + 5).round(2)  # 5 to 6 digits before the point


def error_of(path, target="y"):
    with pytest.raises(ValueError, match=str(path)) as caught:
        load(path, target)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def corrected(path, target="y"):
    """The data after running the line of pandas that the error suggests."""
    call = re.search(r"pandas\..*to_\w+\(.*?index=False\)", error_of(path, target)).group()
    new = path.with_stem("new")
    eval(call.replace(f'"new{path.suffix}"', repr(str(new))), {"pandas": pandas})
    return load(new, target)


def quoted(values):
    return [f'"{value}"' for value in values]


def commas(values):
    return [str(value).replace(".", ",") for value in values]


class TestSuggestedCorrections:
    @pytest.mark.parametrize("delimiter", [",", ";"])
    def test_decimal_commas_and_a_marker(self, tmp_path, delimiter):
        texts = quoted(["k.A.", "n.b.", *commas(X[2:, 0])])
        path = write_csv(tmp_path / "t.csv", table(d=texts, y=COLOURS), delimiter)
        if delimiter == ";":
            path.write_text(f"sep=;\n{path.read_text()}")
        assert (
            "1 of 4 feature columns hold numbers (decimal commas, written as 1,5) except for some "
            "texts ('k.A.', 'n.b.'): d: correct"
        ) in error_of(path)
        np.testing.assert_array_equal(corrected(path).x[2:, 3], X[2:, 0])

    @pytest.mark.parametrize("kind", ["csv", "parquet"])
    def test_mark_behind_very_many_numbers_of_a_target(self, tmp_path, kind):
        """The first thousand different texts do not show it."""
        y = [*(f"{i}.5" for i in range(1500)), "?", "7.25"]
        path = tmp_path / f"t.{kind}"
        frame = pandas.DataFrame({"a": [i % 97 for i in range(1502)], "y": y})
        getattr(frame, f"to_{kind}")(path, index=False)
        said = error_of(path)
        assert "the target 'y' holds numbers except for some texts ('?'); leave these" in said
        call = re.search(r"pandas\..*to_\w+\(.*?index=False\)", said).group()
        eval(call.replace('"new.', f'"{tmp_path}/new.'), {"pandas": pandas})
        found = load(tmp_path / f"new.{kind}", "y", drop_missing_target=True)
        np.testing.assert_array_equal(found.y, [float(v) for v in y if v != "?"])

    def test_minus_behind_the_numbers_of_a_target(self, tmp_path):
        texts = ["?", "unknown", *(f"{abs(v)}-" if v < 0 else f"{v}" for v in X[2:, 0])]
        path = write_csv(tmp_path / "t.csv", {"a": X[:, 1], "y": texts})
        line = re.search(r"pandas\..*?index=False\)", error_of(path)).group()
        new = tmp_path / "new.csv"
        eval(line.replace('"new.csv"', repr(str(new))), {"pandas": pandas})
        np.testing.assert_array_equal(load(new, "y", drop_missing_target=True).y, X[2:, 0])

    def test_a_dash_in_place_of_the_cents_of_a_target(self, tmp_path):
        path = write_csv(tmp_path / "t.csv", {"a": X[:, 1], "y": ["-4.-", '"5,--"', '"6,50"'] * 20})
        line = re.search(r"pandas\..*?index=False\)", error_of(path)).group()
        new = tmp_path / "new.csv"
        eval(line.replace('"new.csv"', repr(str(new))), {"pandas": pandas})
        np.testing.assert_array_equal(load(new, "y").y, [-4, 5, 6.5] * 20)

    def test_labels_among_texts_stay_as_they_are(self, tmp_path):
        path = write_csv(tmp_path / "t.csv", {"a": X[:, 1], "y": ["(0/1)", *["0", "1"] * 29, "1"]})
        line = re.search(r"pandas\..*?index=False\)", error_of(path)).group()
        new = tmp_path / "new.csv"
        eval(line.replace('"new.csv"', repr(str(new))), {"pandas": pandas})
        assert load(new, "y", drop_missing_target=True).classes == ("0", "1")

    @pytest.mark.parametrize("kind", ["csv", "parquet"])
    def test_units_and_many_markers(self, tmp_path, kind):
        """More texts than a line of pandas can list."""
        texts = [f"code {i}" for i in range(12)] + [f"€{v:,.2f}" for v in BIG[12:]]
        path = tmp_path / f"t.{kind}"
        frame = pandas.DataFrame(table(d=texts, y=COLOURS))
        getattr(frame, f"to_{kind}")(path, index=False)
        assert "written as €1,234.5) except for some texts ('code 0', 'code 1'" in error_of(path)
        x = corrected(path).x
        np.testing.assert_allclose(x[12:, 3], BIG[12:])
        assert np.isnan(x[:12, 3]).all()

    def test_numbers_with_texts_for_missing_values(self, tmp_path):
        d = X[:, 0].astype(object)
        d[:2] = ["?", "unknown"]
        path = write_csv(tmp_path / "t.csv", table(d=d, y=COLOURS))
        assert "hold numbers except for some texts ('?', 'unknown'): d: correct" in error_of(path)
        x = corrected(path).x
        np.testing.assert_array_equal(x[2:], np.column_stack([X, X[:, 0]])[2:])
        assert np.isnan(x[:2, 3]).all()

    def test_names_that_repeat(self, tmp_path):
        names = [f"Mr {i % 50}" for i in range(60)]
        path = write_csv(tmp_path / "t.csv", table(d=names, y=COLOURS), ";")
        assert (
            "hold too many different words for categories: d (50 different): leave them out, "
            "--drop d, use the most frequent words as categories, --categorical d, or learn a "
            "vector for each of them, --embed d=16"
        ) in error_of(path)
        assert load(path, "y", drop=["d"]).features == ("a", "b", "c")
        for option in ("categorical", "embed"):
            assert len(load(path, "y", **{option: ["d"]}).categories["d"]) == 50

    def test_classes_of_sizes_are_categories(self, tmp_path):
        sizes = ["1", "2-10", "11-100", "over 100"]
        d = [sizes[max(0, i % 20 - 16)] for i in range(60)]  # most are numbers
        path = write_csv(tmp_path / "t.csv", table(d=d, y=COLOURS))
        assert sorted(load(path, "y").categories["d"]) == sorted(sizes)

    def test_rare_remarks_are_categories(self, tmp_path):
        """Few different words beside the number of rows, though each occurs once."""
        path = write_csv(tmp_path / "t.csv", table(d=["a", "b", "c", *[""] * 57], y=COLOURS))
        found = load(path, "y")
        assert found.categories == {"d": ("a", "b", "c")}
        known = Preparation.of(found, x=True, y=False)
        assert known.columns[3:] == ("d missing",)

    def test_infinite_values(self, tmp_path):
        d = X[:, 0].astype(object)
        d[:2] = ["inf", "-inf"]
        x = corrected(write_csv(tmp_path / "t.csv", table(d=d, y=COLOURS))).x
        np.testing.assert_array_equal(x[:, 3], np.append([np.nan, np.nan], X[2:, 0]))

    @pytest.mark.parametrize(
        ("texts", "values"),
        [
            (quoted(commas(X[:, 0])), X[:, 0]),
            ([f"{v}%" for v in X[:, 0]], X[:, 0]),
            (quoted(f"{v:,.1f}".replace(",", "‘") for v in BIG + 0.5), BIG.round(1) + 0.5),
            ([f"{v:.2f} W/(m·K)".replace("-", "\u2014") for v in X[:, 0]], X[:, 0].round(2)),
            ([f"{v:.1f}€".translate(FULL_WIDTH) for v in BIG + 0.5], BIG.round(1) + 0.5),
        ],
        ids=["decimal commas", "percent", "apostrophes", "unit", "full width"],
    )
    def test_target_of_few_numbers_in_a_format(self, tmp_path, texts, values):
        """They may be names of classes."""
        path = write_csv(tmp_path / "t.csv", table(y=[*texts[:15]] * 4))
        assert "the target 'y' has numbers written as " in error_of(path)
        np.testing.assert_allclose(corrected(path).y, [*values[:15]] * 4)
        assert len(load(path, "y", "classification").classes) == 15

    @pytest.mark.parametrize("marker", ["?", "<0.5", "unknown"])
    def test_target_of_numbers_with_a_marker(self, tmp_path, marker):
        texts = [marker, *X[1:, 0].tolist()]
        path = write_csv(tmp_path / "t.csv", table(y=texts))
        assert f"holds numbers except for some texts ({marker!r}); leave" in error_of(path)
        call = re.search(r"pandas\..*?index=False\)", error_of(path)).group()
        eval(call.replace('"new.csv"', repr(str(tmp_path / "new.csv"))), {"pandas": pandas})
        data = load(tmp_path / "new.csv", "y", drop_missing_target=True)
        np.testing.assert_array_equal(data.y, X[1:, 0])
        np.testing.assert_array_equal(data.x, X[1:])

    @pytest.mark.parametrize("text", ["{:.0f} 1/2", "{:.1f}×10²", "{:.1f}D+02", "{:,.1f}"])
    @pytest.mark.parametrize("count", [1, 9])
    def test_marks_among_numbers_in_a_format(self, tmp_path, text, count):
        """More marks than the line lists must not empty a number."""
        texts = [text.format(v).replace(",", "´") for v in BIG]
        path = write_csv(tmp_path / "t.csv", table(d=texts, y=COLOURS))
        want = load(path, "y").x[:, 3]
        assert len(np.unique(want)) > 50
        texts[:count] = [f"mark {i}" for i in range(count)]
        found = corrected(write_csv(path, table(d=texts, y=COLOURS)))
        np.testing.assert_array_equal(found.x[count:, 3], want[count:])
        assert np.isnan(found.x[:count, 3]).all()

    def test_regression_of_texts_in_parquet(self, tmp_path):
        path = tmp_path / "t.parquet"
        pandas.DataFrame(table(y=X[:, 0].astype(str))).to_parquet(path)
        np.testing.assert_array_equal(load(path, "y", "regression").y, X[:, 0])

    @pytest.mark.parametrize("many", [False, True])
    def test_a_line_of_pandas_keeps_all_other_texts(self, tmp_path, many):
        """Codes, words such as None, and numbers that another column writes in another way."""
        odd = ["?", "n.b.", *(f"code {i}" for i in range(10 * many))]
        d = quoted([*odd, *(f"{v:,.2f}".translate({44: ".", 46: ","}) for v in BIG[len(odd) :])])
        signs = ["\u22125", "(5)", *["5,0"] * 58]
        others = {"e": ["007", "None", "NA"] * 20, "f": X[:, 1], "g": quoted(signs)}
        path = write_csv(tmp_path / "t.csv", table(d=d, **others, y=COLOURS))
        data = corrected(path)
        np.testing.assert_allclose(data.x[len(odd) :, 3], BIG[len(odd) :])
        assert data.categories == {"e": ("007", "None")}
        np.testing.assert_array_equal(data.x[:, 5], X[:, 1])
        np.testing.assert_array_equal(data.x[:, 6], [-5, -5, *[5] * 58])

    def test_classes_that_are_numbers_and_words(self, tmp_path):
        path = write_csv(tmp_path / "t.csv", table(y=[*"12345" * 11, *["other"] * 5]))
        assert "or say --task classification" in error_of(path)
        assert load(path, "y", "classification").classes == (*"12345", "other")


class TestWholeNumbers:
    """float64 represents whole numbers up to 2**53."""

    @pytest.mark.parametrize("sign", [1, -1])
    def test_tables_beyond_2_to_the_53_raise(self, tmp_path, sign):
        numbers = sign * (2**53 + np.arange(60) - 59)
        path = write_csv(tmp_path / "t.csv", table(n=numbers, y=COLOURS))
        np.testing.assert_array_equal(load(path, "y").x[:, 3].astype(int), numbers)
        numbers[0] = sign * (2**53 + 1)
        write_csv(path, table(n=numbers, y=COLOURS))
        assert "1 of 4 feature columns have whole numbers beyond 2**53, which would lose dig" in (
            error_of(path)
        )
        assert ": n: leave out identifiers, --drop n, or subtract an offset" in error_of(path)
        lives = [numbers[0], 0.5, *numbers[2:]]  # a quantity, of which large values lose digits
        assert load(write_csv(path, table(n=lives, y=COLOURS)), "y").x[0, 3] == float(numbers[0])

    @pytest.mark.parametrize("scale", [0, 2])
    def test_decimals_beyond_2_to_the_53(self, tmp_path, scale):
        pa, path = pytest.importorskip("pyarrow"), tmp_path / "t.parquet"
        kind, values = pa.decimal128(30, scale), [10**20 + i % 30 for i in range(60)]
        columns = {"n": pa.array(map(Decimal, values), kind), **table(y=COLOURS)}
        pa.parquet.write_table(pa.table(columns), path)
        assert "1 of 4 feature columns have whole numbers beyond 2**53" in error_of(path)
        with pytest.raises(ValueError, match="target has whole numbers beyond 2\\*\\*53"):
            load(path, "n", drop="y")
        labels = load(path, "n", "classification")  # all digits of them
        assert labels.classes == tuple(map(str, sorted({*values})))

    @pytest.mark.parametrize("dtype", [np.int64, np.uint64])
    def test_arrays_beyond_2_to_the_53_raise(self, tmp_path, dtype):
        x = np.arange(40, dtype=dtype).reshape(20, 2)
        x[3, 1] = 2**53
        np.savez(tmp_path / "t.npz", x=x, y=np.arange(20))
        np.testing.assert_array_equal(load(tmp_path / "t.npz").x.astype(dtype), x)
        x[3, 1] = 2**53 + 1
        np.savez(tmp_path / "t.npz", x=x, y=np.arange(20))
        assert "1 of 2 feature columns have whole numbers beyond 2**53" in (
            error_of(tmp_path / "t.npz", None)
        )
        assert "lose digits: 1: leave" in error_of(tmp_path / "t.npz", None)

    @pytest.mark.parametrize("first", [2**63, 2**64, 10**25])
    def test_numbers_beyond_64_bits_raise(self, tmp_path, first):
        """pyarrow reads them as floating-point numbers."""
        path = write_csv(tmp_path / "t.csv", table(n=[first + i for i in range(60)], y=COLOURS))
        assert "1 of 4 feature columns have whole numbers beyond 2**53" in error_of(path)
        for text in ("{}.0", '"{:,}"', "{} kg"):
            write_csv(path, table(n=[text.format(first + i) for i in range(60)], y=COLOURS))
            assert "1 of 4 feature columns have whole numbers beyond 2**53" in error_of(path)
        write_csv(path, table(n=[f"{v}e30" for v in X[:, 0]], y=COLOURS))
        np.testing.assert_array_equal(load(path, "y").x[:, 3], [float(f"{v}e30") for v in X[:, 0]])


class TestText:
    @pytest.mark.parametrize(("name", "label"), [("größe", "rot"), ("a", "grün")])
    @pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be"])
    def test_other_encodings_raise(self, tmp_path, encoding, name, label):
        label += " €" if encoding != "latin-1" else ""
        text = f"{name},y\n1,{label}\n2,blau\n"
        path = tmp_path / "t.csv"
        path.write_bytes(text.encode(encoding))
        assert error_of(path).startswith(f"{path} is not in UTF-8; save it as UTF-8")
        said = re.search(r"iconv -f (\S+) -t utf-8", error_of(path))[1]
        path.write_text(path.read_bytes().decode(said), "utf-8")
        assert load(path, "y").classes == ("blau", label)

    @pytest.mark.parametrize(
        ("start", "kind"),
        [
            (b"\x1f\x8b", "compressed; call it .csv.gz"),
            (b"PK\3\4", "Excel"),
            (b"PAR1", "Parquet"),
            (b"\xd0\xcf\x11\xe0", "Excel"),
            (b"BZh", "compressed; unpack it"),
            (b"\xfd7zXZ", "compressed; unpack it"),
            (b"\x28\xb5\x2f\xfd", "compressed; unpack it"),
        ],
    )
    def test_other_kinds_of_files_raise(self, tmp_path, start, kind):
        (tmp_path / "t.csv").write_bytes(start + b"\xff\0\xff" * 40)
        assert f"is not a text file but {'a' * (kind[0] != 'c')}" in error_of(tmp_path / "t.csv")
        assert kind in error_of(tmp_path / "t.csv")

    @pytest.mark.parametrize("target", ["y", None])
    def test_space_as_delimiter_raises(self, tmp_path, target):
        path = tmp_path / "t.csv"
        with path.open("w") as file:
            pandas.DataFrame(table(y=X[:, 0])).to_csv(file, sep=" ", index=False)
        assert "has a single column, 'a b c y'; its columns must be separated by commas, semi" in (
            error_of(path, target)
        )
        frame = pandas.read_csv(io.StringIO(path.read_text()), sep=" ")
        frame.to_csv(path, index=False)
        np.testing.assert_array_equal(load(path, "y").x, X)


def test_error_for_very_many_columns_is_short(tmp_path):
    names = [f"probe {i}" for i in range(201)]
    for texts in (["?", "1.5", "2.5", "3", "4", "5"], list("abcdef")):
        columns = {name: [*texts, texts[0]] for name in names} | {"y": list("aabbabb")}
        error = error_of(write_csv(tmp_path / "t.csv", columns))
        assert "201 of 201" in error
        assert len(error) < 600
