"""Files .csv as programs write them: quotation marks, line ends, words that mean "missing"."""

from __future__ import annotations

import csv
import gzip
import io
import re
import time
from typing import Any

import numpy as np
import pytest

from gpumlp import data
from gpumlp.data import csv_files, quoting
from tests.support.data_cases import COLOURS, X, table, write_csv
from tests.support.timing import slowdown

pytest.importorskip("pyarrow")

PARTS = ["pipe", 'a "half" pipe', '5" pipe', "two\nlines", "a, b", "", 'ends with"', "CR\rhere",
         "comma,", '"', '",', 'two\n", "quotes']  # fmt: skip


@pytest.fixture(params=[csv_files.BLOCK, 97], ids=["one block", "many blocks"])
def _blocks(request: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(csv_files, "BLOCK", request.param)
    monkeypatch.setattr(csv_files, "BLOCK_OF_COLUMN", 1)
    monkeypatch.setattr(csv_files, "PART", 70)
    monkeypatch.setattr(csv_files, "PART_OF_COLUMN", 1)


def rows_of(text: str, tmp_path: Any) -> tuple[int, set[str]]:
    """The number of rows, and the different words of the column "part"."""
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    found = data.load(path, "y", categorical=["part"])
    return len(found), {*found.categories["part"]}


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_NONNUMERIC, csv.QUOTE_ALL])
def test_quotation_marks_and_line_ends(quoting: Any, end: str, tmp_path: Any) -> None:
    """Against Python's writer."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=quoting, lineterminator=end)
    writer.writerow(["part", "y"])
    parts = [PARTS[i % len(PARTS)] for i in range(40)]
    writer.writerows([part, i] for i, part in enumerate(parts))
    assert rows_of(out.getvalue(), tmp_path) == (40, {*parts} - {""})


@pytest.mark.parametrize(("first", "last"), [(10, 50), (10, 11)])
@pytest.mark.parametrize("close", ['yes"', '"yes"'])
def test_rows_between_two_stray_quotation_marks(
    first: int, last: int, close: str, tmp_path: Any
) -> None:
    """They would be one field of many lines."""
    parts = ["pipe"] * 60
    parts[first], parts[last] = '"5 inch', close
    lines = [f"{i / 7},{part},{i}\n" for i, part in enumerate(parts)]
    with pytest.raises(ValueError, match=f"closed {last - first} rows later: '5 inch,{first}'"):
        rows_of("a,part,y\n" + "".join(lines), tmp_path)


@pytest.mark.parametrize(
    "kind", ["name {}", "2020-01-{:02}", "ID-{:04}", "some words, of which {}"]
)
@pytest.mark.parametrize("close", ["{}", '"{}', '"{}"', '{}"'])
def test_rows_with_different_texts_between_two_stray_marks(
    kind: str, close: str, tmp_path: Any
) -> None:
    """No other row has the texts of those that are lost, but similar ones."""
    texts = [kind.format(1 + i).replace(",", " &") for i in range(28)]
    texts[10], texts[15] = f'"{texts[10]}', close.format(texts[15])
    texts[20] = '"' * (close == "{}") + texts[20]
    lines = [f"{text};{'' if i % 3 else i / 7};{i}\n" for i, text in enumerate(texts)]
    with pytest.raises(ValueError, match=r"closed \d+ rows later: .*; correct that line"):
        rows_of("part;a;y\n" + "".join(lines), tmp_path)


@pytest.mark.parametrize("header", ['a,"part,y', 'a,y,"part', 'y,"part,a'])
def test_rows_between_a_mark_in_the_header_and_one_in_a_row(header: str, tmp_path: Any) -> None:
    names = header.replace('"', "").split(",")
    rows = [{"a": f"{i / 7}", "part": "pipe", "y": f"{i}"} for i in range(60)]
    rows[5]["part"] = '"pipe'
    lines = [",".join(row[name] for name in names) + "\n" for row in rows]
    with pytest.raises(ValueError, match=r"closed 6 rows later: 'part(,[ay])?'; correct that"):
        rows_of(f"{header}\n" + "".join(lines), tmp_path)


def test_a_field_of_very_many_rows_is_refused_at_once(tmp_path: Any) -> None:
    """What shows that they are rows is looked for in the first and the last."""
    rows = [f"{i},pipe {i % 7},{i % 3}\n" for i in range(200_000)]
    rows[10] = rows[100_000] = '1,"pipe,2\n'
    start = time.process_time()
    with pytest.raises(ValueError, match="closed 99990 rows later"):
        rows_of("a,part,y\n" + "".join(rows), tmp_path)
    assert time.process_time() - start < 10


@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_blank_lines_of_a_single_column_are_no_rows_to_lose(line: str, tmp_path: Any) -> None:
    """Polars writes a missing value so."""
    write_csv(tmp_path / "t.csv", {"a": X[:, 0], "y": X[:, 1]})
    known = data.Preparation.of(data.load(tmp_path / "t.csv", "y"), x=True, y=False)
    new = tmp_path / "new.csv"
    for rows, count in (
        ("1.5\n\n2", 0),
        ("\n1", 0),
        ("1\n\n", 0),
        ("1.5\nNA\n2\n", 3),
        ("1\n2", 2),
    ):
        new.write_bytes(f"a\n{rows}".replace("\n", line).encode())
        if count:
            assert len(data.load_inputs(new, known)) == count
            continue
        with pytest.raises(ValueError, match="single column and blank lines, .*; write NA in"):
            data.load_inputs(new, known)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("part", ['"two\nlines, really"', '"5, High St\nTown, Land\n7"', '"a\n"'])
def test_lines_with_delimiters_in_a_field_are_no_rows(part: str, tmp_path: Any) -> None:
    lines = [f"{i / 7},{part},{i}\n" for i in range(60)]
    assert rows_of("a,part,y\n" + "".join(lines), tmp_path) == (60, {part.strip('"').strip()})


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("word", ["x", "0.5 or so", "NA", "2024-01-31", "7", "9007199254740993"])
@pytest.mark.parametrize("places", [[1], [39], [*range(1, 40, 3)], [*range(1, 40)]])
def test_a_fraction_at_first_decides_nothing(
    word: str, places: list[int], tmp_path: Any, monkeypatch: Any
) -> None:
    """Such a column is first read as numbers; what is found is the same."""
    parts = [word if i in places else f"{i % 7}.5" for i in range(40)]
    text = "a,part,y\n" + "".join(f"{i / 7},{part},{i}\n" for i, part in enumerate(parts))

    def outcome() -> Any:
        (tmp_path / "t.csv").write_text(text)
        try:
            found = data.load(tmp_path / "t.csv", "y")
        except ValueError as error:
            return str(error)
        return found.features, found.x.tobytes(), found.categories, found.formats

    with_hint = outcome()
    monkeypatch.setattr(csv_files, "DECIMAL", re.compile(b"nothing"))
    assert with_hint == outcome()


@pytest.mark.parametrize("mark", ["\ufeff", "\u200b", "\xa0"])
def test_invisible_characters_around_names(mark: str, tmp_path: Any) -> None:
    """Such as those of files that were saved twice with a byte order mark."""
    path = write_csv(tmp_path / "t.csv", table(y=COLOURS))
    path.write_text("\ufeff" + mark + path.read_text().replace("c,y", f"c{mark},{mark}y"), "utf-8")
    assert data.load(path, "y").features == ("a", "b", "c")


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("part", ['5" pipe', 'pipe 5"', '5" or 6" pipe'])
def test_stray_quotation_mark_is_a_character(part: str, tmp_path: Any) -> None:
    lines = [f"{'pipe' if i % 9 else part},{i}\n" for i in range(60)]
    assert rows_of("part,y\n" + "".join(lines), tmp_path) == (60, {"pipe", part})


@pytest.mark.parametrize(
    ("header", "row"),
    [("\r", "\n"), ("\n", "\r"), ("\r\n", "\n"), ("\n\n", "\n\n"), ("\r", "\r\n")],
)
def test_line_ends_that_differ(header: str, row: str, tmp_path: Any) -> None:
    lines = [f"{'pipe' if i % 9 else 'tee'},{i}{row}" for i in range(60)]
    assert rows_of(f"part,y{header}" + "".join(lines), tmp_path)[0] == 60


@pytest.mark.parametrize("row", [0, 4, 60])
@pytest.mark.usefixtures("_blocks")
def test_mark_that_is_never_closed_raises(row: int, tmp_path: Any) -> None:
    rows = ["part,y", *(f"pipe,{i}" for i in range(60))]
    rows[row] = f'"{rows[row]}'
    with pytest.raises(ValueError, match=f"never closed: '{rows[row]}'; correct that line"):
        rows_of("\n".join(rows), tmp_path)


def test_rows_end_far_from_the_marks_that_decide() -> None:
    """An empty field in quotes may as well be a mark within a field, so others decide."""
    empty = b'"",1\n' * 40_000
    for before, end in ((b"", len(empty)), (b'x"\n', len(empty) + 3), (b'a,1\n"b', 4)):
        assert quoting.rows_end(before + empty + b'"', ",") == end


def test_time_does_not_grow_with_stray_marks(tmp_path: Any, monkeypatch: Any) -> None:
    """It grew with the square of the rows in a block."""
    monkeypatch.setattr(csv_files, "BLOCK", 1 << 20)
    seconds = []
    for part in ("tube", '5" p'):
        lines = [f"{part if i == 10 else 'pipe'},{i}\n" for i in range(100_000)]
        (tmp_path / "t.csv").write_text("part,y\n" + "".join(lines))
        start = time.process_time()
        assert len(data.load(tmp_path / "t.csv", "y")) == 100_000
        seconds.append(time.process_time() - start)
    assert seconds[1] < 5 * seconds[0] + 0.5


def test_word_na_in_quotes_is_a_word(tmp_path: Any) -> None:
    """As R writes it: North America is "NA", a missing value NA."""
    path = tmp_path / "t.csv"
    where = ['"NA"', '"EU"', "NA"]
    rows = "".join(f'{X[i, 0]},{where[i % 3]},"{COLOURS[i]}"\n' for i in range(60))
    path.write_text('"a","region","y"\n' + rows)
    found = data.load(path, "y")
    assert found.categories == {"region": ("NA", "EU")}
    assert np.isnan(found.x[:, 1]).sum() == 20
    path.write_text('"y","a"\n' + "".join(f"{where[i % 2]},{i % 7}\n" for i in range(60)))
    assert data.load(path, "y").classes == ("EU", "NA")


def test_marks_of_missing_values(tmp_path: Any) -> None:
    r"""MySQL writes \N and pandas <NA>, also among words, where they are no category."""
    path = tmp_path / "t.csv"
    for mark in (r"\N", "<NA>"):
        path.write_text("a,c,y\n" + "".join(f"{i},{w},1.{i}\n" for i, w in enumerate("xy" * 20)))
        path.write_text(path.read_text() + f"{mark},{mark},7\n")
        found = data.load(path, "y")
        assert found.categories == {"c": ("x", "y")}
        assert np.isnan(found.x[-1]).all()


def test_numbers_that_may_be_codes(tmp_path: Any) -> None:
    """They stay numbers, as documented, but leading zeros say that they are codes."""
    rows = {
        "zip": [f"{501 + 37 * i:05}" for i in range(60)],
        "month": [f"{1 + i % 12:02}" for i in range(60)],
        "length": [f"{i / 7:06.2f}" for i in range(60)],
        "day": [f"{1 + i % 28:02}012024" for i in range(60)],
        "n": [*range(100, 160)],
    }
    path = write_csv(tmp_path / "t.csv", table(**rows, y=COLOURS))
    said = r"begin with 0 \(00501\) may be codes: zip; to treat them as .* --categorical zip$"
    with pytest.warns(UserWarning, match=said) as caught:
        found = data.load(path, "y")
    assert len(caught) == 1
    assert (found.categories, found.dates) == ({}, ("day",))
    np.testing.assert_array_equal(found.x[:, 3], 501 + 37 * np.arange(60))
    assert data.load(path, "y", categorical=["zip"]).categories["zip"] == tuple(rows["zip"])
    known = data.Preparation.of(found, x=True, y=True)
    np.testing.assert_array_equal(data.load_inputs(path, known), found.x)


def test_columns_without_a_name(tmp_path: Any) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,y,,\n" + "".join(f"{X[i, 0]},{COLOURS[i]},,{X[i, 1]}\n" for i in range(60)))
    found = data.load(path, "y")
    assert found.features == ("a", "Unnamed: 3")
    assert found.left_out == {"Unnamed: 2": "no values"}


@pytest.mark.parametrize(("first", "mark"), [("sep=;", ";"), ('"sep=,"', ","), ("SEP=\t", "\t")])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_for_excel_names_the_delimiter(first: str, mark: str, end: str, tmp_path: Any) -> None:
    lines = [first, f"a{mark}b, c{mark}y", *(f"{X[i, 0]}{mark}{X[i, 1]}{mark}{COLOURS[i]}"
             for i in range(60))]  # fmt: skip
    (tmp_path / "t.csv").write_bytes(end.join(lines).replace("b, c", '"b, c"').encode())
    found = data.load(tmp_path / "t.csv", "y")
    assert found.features == ("a", "b, c")
    np.testing.assert_array_equal(found.x, X[:, :2])


@pytest.mark.parametrize(
    ("names", "mark"), [(["weight, kg", "a, b, c", "y"], ";"), (["a;b;c;d", "e", "y"], ",")]
)
def test_names_with_other_delimiters(names: list[str], mark: str, tmp_path: Any) -> None:
    """In no quotation marks."""
    rows = [[*map(str, X[i, :2]), COLOURS[i]] for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(mark.join(row) for row in [names, *rows]))
    found = data.load(tmp_path / "t.csv", "y")
    assert found.features == (*names[:2],)
    np.testing.assert_array_equal(found.x, X[:, :2])


def test_values_with_line_ends_do_not_decide_about_the_delimiter(tmp_path: Any) -> None:
    rows = [f'{i},5|"{COLOURS[i]}\nor, so"|{COLOURS[i]}' for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["weight, kg|a|y", *rows]))
    found = data.load(tmp_path / "t.csv", "y")
    np.testing.assert_array_equal(found.x[:, 0], np.arange(60) + 0.5)
    assert found.categories["a"] == ("red\nor, so", "blue\nor, so", "green\nor, so")


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("names", ["a,colour,y", "red,green,blue"])
def test_the_first_line_again_among_the_rows(names: str, mark: str, tmp_path: Any) -> None:
    """Files with headers that were joined, as Excel writes them, or of words without a header."""
    rows = [f"{COLOURS[i]},{COLOURS[i - 1]},{COLOURS[i - 2]}" for i in range(60)]
    lines = [mark + names, *rows, mark + names, rows[0]]
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ValueError, match=f"'{names}'; it must name the columns, once"):
        data.load(tmp_path / "t.csv", names.split(",")[-1])


def test_header_of_r_without_a_name_for_the_rows(tmp_path: Any) -> None:
    path = tmp_path / "t.csv"
    rows = [f'"{i + 1}",{X[i, 0]},{X[i, 1]},"{COLOURS[i]}"\n' for i in range(60)]
    path.write_text('"a","b","y"\n' + "".join(rows))
    found = data.load(path, "y")
    np.testing.assert_array_equal(found.x, X[:, :2])
    assert list(found.left_out) == ["Unnamed: 0"]
    path.write_text('"a","b","y"\n' + "".join([*rows[:2], rows[2].partition(",")[2], *rows[3:]]))
    with pytest.raises(ValueError, match=r"t\.csv: a row has 4 values, but the first line names 3"):
        data.load(path, "y")


@pytest.mark.parametrize(
    "name",
    ["Smith, {}", '"Smith {}"', r"Smith\,{}", "'Smith,{}'"],
    ids=["space", "one", "back", "apostrophe"],
)
def test_a_delimiter_within_values_is_no_name_of_rows(name: str, tmp_path: Any) -> None:
    """The names of the columns do not move to those beside them."""
    path = tmp_path / "t.csv"
    rows = [f"{X[i, 0]}, {name.format('AB'[i % 2])}, {COLOURS[i]}\n" for i in range(60)]
    path.write_text("a, name, y\n" + "".join(rows))
    if name.startswith('"'):
        assert data.load(path, "y").features == ("a", "name")
        return
    with pytest.raises(ValueError, match=r"a row has 4 values, but the first line names 3"):
        data.load(path, "y")
    path.write_text(
        "a, name, y\n" + "".join(f"{i}{row[row.index(',') :]}" for i, row in enumerate(rows))
    )
    with pytest.raises(ValueError, match=r"a row has 4 values, but the first line names 3"):
        data.load(path, "y")


def test_a_first_column_called_an_identifier_has_no_names_of_rows_before_it(tmp_path: Any) -> None:
    """But in files of R, whose names of rows are in quotation marks."""
    path = tmp_path / "t.csv"
    rows = [f"{i},Smith,{'AB'[i % 2]},{COLOURS[i]}\n" for i in range(60)]
    path.write_text("id,name,y\n" + "".join(rows))
    with pytest.raises(ValueError, match=r"a row has 4 values, but the first line names 3"):
        data.load(path, "y")
    path.write_text(
        '"id","a","y"\n' + "".join(f'"{i}",{i // 2},{X[i, 0]},"{COLOURS[i]}"\n' for i in range(60))
    )
    np.testing.assert_array_equal(data.load(path, "y", keep=["id"]).x[:, 1], X[:, 0])


def test_packed_file(tmp_path: Any) -> None:
    path = write_csv(tmp_path / "t.csv", table(y=COLOURS))
    packed = tmp_path / "t.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    found = data.load(packed, "y")
    np.testing.assert_array_equal(found.x, X)
    assert found.name == "t"
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"t\.csv\.gz cannot be read"):
        data.load(packed, "y")
    packed.write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"t\.csv\.gz cannot be read"):
        data.load(packed, "y")


def test_wide_table_takes_time_in_proportion(tmp_path: Any) -> None:
    def prepared(n: int) -> Any:
        path = tmp_path / f"{n}.csv"
        rows = np.random.default_rng(0).normal(size=(4, n)).round(2).tolist()
        lines = [",".join(map(str, [*row, i % 2])) for i, row in enumerate(rows)]
        path.write_text("\n".join([",".join(f"g{i}" for i in range(n)) + ",y", *lines]) + "\n")

        def read() -> None:
            known = data.Preparation.of(data.load(path, "y"), x=True, y=False)
            [part] = data.pieces(path, known)
            known.inputs(part.x)

        return read

    assert slowdown(prepared, 250, 4000, most=2) < 2


def test_columns_without_a_name_take_time_in_proportion() -> None:
    assert slowdown(lambda n: lambda: csv_files._named([""] * n), 1000, 16_000, most=4) < 4


def test_target_with_a_comma_in_its_name(tmp_path: Any) -> None:
    path = write_csv(tmp_path / "t.csv", table(**{'"dose, mg"': COLOURS}))
    for target in ("dose, mg", '"dose, mg"'):
        assert data.load(path, target).classes == ("blue", "green", "red")
