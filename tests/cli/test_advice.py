"""What an error of the command line advises, carried out: the data is then accepted."""

import re
import shlex

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("pyarrow")

from gpumlp.data import Preparation
from tests.support.cli_cases import refused, run
from tests.support.data_cases import COLOURS, X, table, write_csv

FAST = ["--hidden", "none", "--epochs", "1", "--backend", "numpy", "--quiet"]
CODES = np.arange(len(X)) % 3
WORDS = [f"name {i % 50}" for i in range(len(X))]
RARE = ["odd", *COLOURS[1:]]


@pytest.fixture
def train(tmp_path, monkeypatch, no_waiting_for_the_disk):
    """Run `gpumlp train` with a table of these columns; `refused` returns the error."""
    monkeypatch.setattr("gpumlp.cli.run_folder.plot_history", lambda *_, **__: None)

    def train(columns, *options, how=run):
        path = write_csv(tmp_path / "t.csv", columns)
        return how("train", path, "--target", "y", "--out", tmp_path / "r", *FAST, *options)

    return train


ERRORS = [  # columns, options, and the part of the error that is its advice
    (table(w=WORDS, y=COLOURS), [], r"--categorical w"),
    (table(**{"Name, full": WORDS}, y=COLOURS), [], r"--categorical '\"Name, full\"'"),
    (table(**{"it's": WORDS}, y=COLOURS), [], r"--categorical '.*'"),
    (table(**{"two, it's": WORDS, "[b]": WORDS}, y=COLOURS), [], r"--categorical '.*'"),
    (table(y=COLOURS), ["--task", "regression"], r"--task classification"),
    (table(y=X[:, 0]), ["--task", "classification"], r"--task regression"),
    (table(y=RARE), [], r"--validation 0"),
    (table(k=["", "", "", "", *CODES[4:]], y=COLOURS), ["--impute", "refuse"], r"--impute mean"),
]


@pytest.mark.parametrize(("columns", "options", "advice"), ERRORS, ids=lambda p: str(p)[-30:])
def test_an_option_that_an_error_names_is_accepted(columns, options, advice, train):
    columns = {f'"{name}"' if "," in name else name: v for name, v in columns.items()}
    found = re.search(advice, train(columns, *options, how=refused))
    train(columns, *options, *shlex.split(found.group()))


def test_the_option_that_a_decision_names_reverses_it(train, tmp_path):
    for y in (CODES, CODES.astype(float), np.arange(len(X)) // 2 * 1.0):
        note = train(table(y=y), "--validation", "0").stderr
        option = re.search(r"--task \w+", note).group()
        task = Preparation.load(tmp_path / "r" / "model.safetensors").task
        assert task not in option
        assert "--task" not in train(table(y=y), "--validation", "0", *option.split()).stderr
        assert Preparation.load(tmp_path / "r" / "model.safetensors").task in option


def test_a_loss_of_quantities_makes_whole_numbers_quantities(train, tmp_path):
    for loss in ("poisson", "huber"):
        assert "--task" not in train(table(y=CODES), "--loss", loss).stderr
        assert Preparation.load(tmp_path / "r" / "model.safetensors").task == "regression"


NAMES = ["weight, kg", 'say "hi"', "[red]x[/red]", "a  b", '5" pipe', "batch_size"]


@pytest.mark.parametrize("name", NAMES)
def test_the_names_that_an_error_lists_can_be_given(name, train, tmp_path):
    header = '"{}"'.format(name.replace('"', '""'))
    columns = table(**{header: CODES}, y=COLOURS)
    error = train(columns, "--categorical", "colour", how=refused)
    listed = error.rpartition("it has: a, b, c, ")[2].rstrip("\n")
    for given in ([listed], [name], ["a", name], [f"a,{listed}"]):
        options = [part for text in given for part in ("--categorical", text)]
        train(columns, *options)
        known = Preparation.load(tmp_path / "r" / "model.safetensors").categories
        assert name in known
    text = (tmp_path / "r" / "run.toml").read_text()
    assert "categorical = [" in text
    (tmp_path / "c.toml").write_text(text)
    run("train", "--config", tmp_path / "c.toml")
    assert Preparation.load(tmp_path / "r" / "model.safetensors").categories == known


def test_a_line_break_in_a_name_is_a_space_in_an_option(train, tmp_path):
    columns = table(**{'"weight\nclass"': CODES}, y=COLOURS)
    assert "a, b, c, weight class\n" in train(columns, "--categorical", "k", how=refused)
    train(columns, "--categorical", "weight class")
    known = Preparation.load(tmp_path / "r" / "model.safetensors")
    assert list(known.categories) == ["weight\nclass"]


def test_a_forgotten_pair_of_quotation_marks_is_explained(train):
    columns = table(**{'"weight, kg"': CODES}, y=COLOURS)
    error = train(columns, "--categorical", "weight, kg,a", how=refused)
    assert (
        """did you mean 'weight, kg'? A name with a comma is written in quotation marks""" in error
    )
