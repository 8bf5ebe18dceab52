"""Errors for columns that are not numbers: the line of pandas they suggest corrects the file."""

import io
import re

import numpy as np
import pytest

from tests.support.data_cases import COLOURS, X, table, write_csv

pytest.importorskip("pyarrow")
pytest.importorskip("pandas")

import pandas
import pyarrow as pa
import pyarrow.parquet as pq

from gpumlp.data import load

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
    def test_decimal_commas(self, tmp_path, delimiter):
        columns = table(d=quoted(commas(X[:, 0])), e=quoted(commas(X[:, 1])), y=COLOURS)
        path = write_csv(tmp_path / "t.csv", columns, delimiter)
        assert "2 of 5 feature columns have decimal commas: d, e: write 1.5" in error_of(path)
        np.testing.assert_array_equal(corrected(path).x[:, 3:], X[:, :2])

    def test_decimal_commas_with_points_between_thousands(self, tmp_path):
        texts = [f"{v:,.2f}".translate(str.maketrans(",.", ".,")) for v in BIG]
        path = write_csv(tmp_path / "t.csv", table(d=texts, y=COLOURS), "|")
        assert "have decimal commas: d" in error_of(path)
        np.testing.assert_allclose(corrected(path).x[:, 3], BIG)

    @pytest.mark.parametrize("mark", [",", "'", " ", "."])
    def test_thousands_separators(self, tmp_path, mark):
        whole = (1000 * BIG).round()
        texts = [f"{v:,.0f}".replace(",", mark) for v in whole]
        path = write_csv(tmp_path / "t.csv", table(d=texts, y=COLOURS), ";")
        assert f"thousands separators, such as {min(texts)}: d: write only the digits" in error_of(
            path
        )
        np.testing.assert_array_equal(corrected(path).x[:, 3], whole)

    @pytest.mark.parametrize(
        "text", ["2024-05-01", "2024-05-01 10:00:00", "01.05.2024", "5/1/24", "10:30", "10:30:05"]
    )
    def test_dates_and_times(self, tmp_path, text):
        path = write_csv(tmp_path / "t.csv", table(d=[text] * 60, y=COLOURS))
        assert "1 of 4 feature columns hold dates or times: d: turn them" in error_of(path)
        assert "no values" not in error_of(path)

    def test_numbers_with_texts_for_missing_values(self, tmp_path):
        d = X[:, 0].astype(object)
        d[:2] = ["?", "unknown"]
        path = write_csv(tmp_path / "t.csv", table(d=d, y=COLOURS))
        assert "hold numbers except for some texts ('?', 'unknown'): d: correct" in error_of(path)
        x = corrected(path).x
        np.testing.assert_array_equal(x[2:], np.column_stack([X, X[:, 0]])[2:])
        assert np.isnan(x[:2, 3]).all()

    def test_numbers_stored_as_text(self, tmp_path):
        path = tmp_path / "t.parquet"
        pq.write_table(pa.table(table(d=[str(v) for v in X[:, 0]], y=COLOURS)), path)
        assert "hold numbers stored as text: d: convert" in error_of(path)
        np.testing.assert_array_equal(corrected(path).x[:, 3], X[:, 0])

    def test_identifiers_and_empty_columns(self, tmp_path):
        names = [f"Mr {i}" for i in range(60)]
        path = write_csv(tmp_path / "t.csv", table(d=names, e=[""] * 60, y=COLOURS), ";")
        error = error_of(path)
        assert "hold too many different words for categories: d (60 different): leave" in error
        assert "have no values: e: leave them out" in error
        write_csv(path, table(d=names, y=COLOURS), ";")
        assert corrected(path).features == ("a", "b", "c")

    def test_infinite_values(self, tmp_path):
        d = X[:, 0].astype(object)
        d[:2] = ["inf", "-inf"]
        x = corrected(write_csv(tmp_path / "t.csv", table(d=d, y=COLOURS))).x
        np.testing.assert_array_equal(x[:, 3], np.append([np.nan, np.nan], X[2:, 0]))

    @pytest.mark.parametrize(
        ("texts", "message"),
        [
            (quoted(commas(X[:, 0])), "write 1.5 for 1,5"),
            ([f"{v:,.0f}".replace(",", "'") for v in 1000 * BIG], "write only the digits"),
        ],
    )
    def test_target_of_numbers_with_separators_raises(self, tmp_path, texts, message):
        error = error_of(write_csv(tmp_path / "t.csv", table(y=texts)))
        assert f"the target 'y' has numbers with separators, such as {min(texts)}; ".replace(
            '"', ""
        ) in (error)
        assert message in error


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
        assert ": n: drop columns of identifiers, or subtract an offset" in error_of(path)

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
        assert "lose digits: 1: drop" in error_of(tmp_path / "t.npz", None)


class TestText:
    @pytest.mark.parametrize(("name", "label"), [("größe", "rot"), ("a", "grün")])
    @pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
    def test_other_encodings_raise(self, tmp_path, encoding, name, label):
        text = f"{name},y\n1,{label}\n2,blau\n"
        path = tmp_path / "t.csv"
        path.write_bytes(text.encode(encoding))
        assert error_of(path).startswith(f"{path} is not in UTF-8; save it as UTF-8")
        path.write_bytes(text.encode())
        assert load(path, "y").classes == ("blau", label)

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
