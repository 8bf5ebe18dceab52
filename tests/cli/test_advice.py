"""What an error of the command line advises, carried out: the data is then accepted."""

import contextlib
import re

import numpy as np
import pandas
import pytest

pytest.importorskip("typer")
pytest.importorskip("pyarrow")

import gpumlp
from gpumlp.data import Preparation
from tests.support.advice import advice, carried_out
from tests.support.advice_cases import AGAIN, CODES, GAPS, OTHERS, PLAN, TABLES
from tests.support.cli_cases import refused, run
from tests.support.data_cases import COLOURS, X, table, write_csv

FAST = ["--hidden", "none", "--epochs", "1", "--backend", "numpy", "--quiet"]


@pytest.fixture
def train(tmp_path):
    """Run `gpumlp train` with a table of these columns; `refused` returns the error."""

    def train(columns, *options, how=run):
        path = write_csv(tmp_path / "t.csv", columns)
        return how("train", path, "--target", "y", "--out", tmp_path / "r", *FAST, *options)

    return train


@pytest.fixture
def accepted(tmp_path, monkeypatch):
    """Run a command that fails, and again with each correction that its error names."""
    monkeypatch.chdir(tmp_path)

    def accepted(said, path, *arguments, **values):
        error = run(*arguments, code=2).stderr.splitlines()[-1]
        assert said in error
        found = advice(error, arguments[0])
        for steps in found:
            if "cupy" not in {step.value for step in steps}:
                run(*carried_out(steps, arguments, path, AGAIN | values))
        return found

    return accepted


@pytest.mark.parametrize("said", TABLES)
def test_what_an_error_of_train_advises_is_accepted(said, tmp_path, accepted):
    columns, options = TABLES[said]
    path = write_csv(tmp_path / "t.csv", columns)
    target = [] if "--target" in options else ["--target", "y"]
    options = [] if "--target" in options else options
    printed = re.sub(r"\{.*|.*=(None|False)", "", said)
    assert accepted(printed, path, "train", path, *target, *PLAN, *options, DIR=tmp_path)


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


@pytest.mark.parametrize("said", OTHERS)
def test_what_an_error_of_another_command_advises_is_accepted(
    said, flowers, model, tmp_path, accepted
):
    np.savez(tmp_path / "gaps.npz", x=X, y=[np.nan, *X[1:, 0]])
    np.savez(tmp_path / "marks.npz", x=X, y=["?", *map(str, CODES[1:])])
    np.savez(tmp_path / "units.npz", x=X, y=[f"{i // 9}h {i + 10}m" for i in range(len(X))])
    blank = tmp_path / "blank.csv"
    blank.write_text(flowers.read_text().replace("setosa", "", 3))
    gpumlp.MLP([3, 3]).save(tmp_path / "bare.safetensors")
    files = {"flowers": flowers, "model": model, "folder": model.parent}
    files |= {name: tmp_path / f"{name}.npz" for name in ("gaps", "marks", "units")}
    files |= {"bare": tmp_path / "bare.safetensors", "blank": blank}
    assert accepted(said, flowers, *OTHERS[said].format(**files).split())


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


ODD = [
    "Nr.", "-x", "--drop", "体重", "a\nb", "$HOME `x` \\n", "it's", 'x"y, z', "seed=0", "lr must",
    "smaller batch_size", " lead", "n" * 300, "100%)",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_advice_for_odd_names_is_accepted(kind, tmp_path, accepted):
    """A line of pandas and an option, for a file in a folder with an odd name, too."""
    folder = tmp_path / 'lr=0.1, it\'s "my batch_size"'
    folder.mkdir()
    path = folder / f"seed=1.{kind}"
    for name in ODD:
        frame = pandas.DataFrame(table(**{name: [*map(str, GAPS)]}, y=COLOURS))
        getattr(frame, f"to_{kind}")(path, index=False)
        with contextlib.chdir(folder):
            assert len(accepted("", path, "train", path, "--target", "y", *PLAN)) == 2


def test_advice_for_a_model_s_data_is_accepted(model, flowers, accepted):
    """Only what evaluate and predict can do: their columns cannot be chosen any more."""
    lines = flowers.read_text().split("\n")
    for text in ("?", "inf", "code, 1"):
        odd = [line.replace(line.split(",")[0], f'"{text}"') for line in lines[1:4]]
        flowers.write_text("\n".join([lines[0], *odd, *lines[4:]]))
        for command in ("evaluate", "predict"):
            assert accepted("correct ", flowers, command, model, flowers)


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
