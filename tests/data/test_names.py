"""Names of columns in options: lists with commas, quotation marks, spaces and line breaks."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumlp.data.names import as_argument, chosen_names, find_name, quoted, split_names
from tests.support.timing import slowdown

NAMES = st.text(st.sampled_from("ab ,\"\n[]\\'"), min_size=1)


@given(st.lists(NAMES, min_size=1))
def test_what_is_written_for_a_shell_is_read_back(names):
    [argument] = shlex.split(as_argument(names))
    assert split_names(argument) == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b", ["a", "b"]),
        (" a , b,", ["a", "b"]),
        ("", []),
        ('"weight, kg",age', ["weight, kg", "age"]),
        ('age, "say ""hi""" ,b', ["age", 'say "hi"', "b"]),
        ('5" pipe', ['5" pipe']),
        ('" a "', [" a "]),
        ('"weight, kg"=8,age=4', ["weight, kg=8", "age=4"]),
        ("[red]x[/red],a b", ["[red]x[/red]", "a b"]),
    ],
)
def test_lists(text, names):
    assert split_names(text) == names


@pytest.mark.parametrize("text", ['"a', '"a" b', 'x,"a"b'])
def test_unclear_quotation_marks_raise(text):
    with pytest.raises(ValueError, match="cannot be read as names"):
        split_names(text)


def test_a_name_is_found_with_other_spaces_if_it_is_the_only_one():
    names = ["weight\nclass", " y", "a b", "a  b"]
    assert find_name("weight class", names) == "weight\nclass"
    assert find_name("y", names) == " y"
    assert find_name("a b", names) == "a b"
    assert find_name("a\tb", names) is None


def test_a_text_that_is_a_name_is_not_taken_apart():
    names = ["weight, kg", "weight", "age"]
    assert chosen_names(["weight, kg", "age"], names) == ["weight, kg", "age"]
    assert chosen_names(['"weight, kg",age'], names) == ["weight, kg", "age"]
    assert chosen_names("weight,age", names) == ["weight", "age"]
    assert chosen_names(["weight,  size"], names) == ["weight", "size"]


def test_names_are_quoted_only_where_it_is_needed():
    assert list(map(quoted, ["a b", "a, b", '"', " a"])) == ["a b", '"a, b"', '""""', '" a"']


def test_many_names_take_time_in_proportion():
    def prepared(n):
        names = [f"g{i}" for i in range(n)]
        return lambda: chosen_names([",".join(names[::2])], names)

    assert slowdown(prepared, 1000, 16_000, most=4) < 4
