"""Usage errors of every command: one line that says what is wrong, and never a traceback."""

import itertools

import numpy as np
import pytest

pytest.importorskip("typer")

import typer
from typer.testing import CliRunner

import gpumlp
from gpumlp.cli.app import app
from tests.support.cli_cases import assert_one_line, refused, run

COMMANDS = typer.main.get_command(app).commands
OPTIONS = [
    name
    for parameter in COMMANDS["train"].params
    for name in (*parameter.opts, *parameter.secondary_opts)
    if name.startswith("--")
]
WRONG = {  # of the commands that have no table of wrong uses of their own
    "evaluate": [
        (["{model}"], "Missing argument 'DATA'"),
        (["{model}", "{flowers}", "--target", "colour"], "'colour'"),
        (["{model}", "{flowers}", "--plot", "{folder}/p.pdf"], "--plot must end in .png, got"),
        (["{model}", "{flowers}", "--plot", "{folder}/no/p.png"], "folder"),
        (["{model}", "{flowers}", "--backend", "tpu"], "unknown backend 'tpu'"),
        (["{folder}", "{flowers}"], "it is a folder, pass the path of a file"),
    ],
    "predict": [
        (["{model}", "{folder}/none.csv"], "there is no file"),
        (["{model}", "digitz"], "did you mean 'digits'?"),
        (["{model}", "{flowers}", "--out", "{folder}/p.txt"], "must end in .csv"),
        (["{flowers}", "{flowers}"], "is damaged or no safetensors file"),
    ],
    "find-lr": [
        (["{folder}/none.csv"], "there is no file"),
        (["{flowers}", "--target", "specis"], "did you mean 'species'?"),
        (["{flowers}", "--target", "species", "--plot", "{folder}"], "--plot must end in .png"),
        (["{flowers}", "--models", "8"], "No such option: --models; it belongs to train"),
    ],
    "tune": [
        ([], "give a MODEL file, or the widths of a network: --widths 784,1024,1024,10"),
        (["{model}", "more"], "more"),
        (["--batch-size", "0"], "--batch-size"),
        (["{model}", "--widths", "3,4"], "give a MODEL file, or the widths of a network"),
    ],
    "bench": [
        (["--case", "smal"], "'smal'"),
        (["--peers", "torhc"], "'torhc'"),
        (["--widths", "1x"], "1x"),
        (["--rounds", "1"], "--rounds"),
        (["--save", "{folder}/no/f.json"], "folder"),
    ],
    "describe": [
        (["{folder}/no.csv", "--target", "y"], "there is no file"),
        (["digits", "--drop", "a"], "digits has no columns with names; leave out --drop"),
        (["digits", "--date-order", "american"], "american"),
    ],
    "info": [
        (["everything"], "everything"),
        (["--jsno"], "No such option: --jsno"),
        (["--json", "file.json"], "file.json"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("command", WRONG)
def test_usage_errors_name_the_argument(command, flowers, model, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    for arguments, message in WRONG[command]:
        words = [a.format(model=model, flowers=flowers, folder=tmp_path) for a in arguments]
        assert message in refused(command, *words)
    assert sorted(tmp_path.rglob("*")) == before


def test_every_command_has_usage_errors():
    assert set(COMMANDS) == {*WRONG, "train", "export", "search"}  # which have tables of their own


ODD = (
    "", " ", "-1", "0", "nan", "inf", "1e999", "1e30", "99999999999999999999999", "x", ",", "8,,8",
    "none", "[]", "ä\x00", "../..", "a=b", "256,256", "true", "-", "--", "float64", "'",
)  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_odd_values_of_train_show_no_traceback(option, flowers, tmp_path):
    """--plan reads, checks and builds everything, but does not train."""
    base = [flowers, "--target", "species", "--plan", "-q", "--backend", "numpy", "--out", tmp_path]
    for value in ODD:
        result = CliRunner().invoke(app, ["train", *map(str, base), option, value])
        if result.exit_code:
            assert_one_line(result)


def test_odd_arguments_show_no_traceback(flowers, model, tmp_path):
    """Commands with one, two or three arguments that are meant for other commands."""
    words = [
        str(flowers),
        str(model),
        "digits",
        str(tmp_path),
        "--json",
        "--out",
        "-1",
        "--plan",
        "",
    ]
    rng = np.random.default_rng(5)
    many = [list(some) for n in (1, 2, 3) for some in itertools.permutations(words, n)]
    for command in (
        "train",
        "evaluate",
        "predict",
        "export",
        "find-lr",
        "describe",
        "tune",
        "info",
    ):
        for choice in rng.choice(len(many), 12, replace=False):
            arguments = [command, *many[choice]]
            if command == "train":
                arguments.append("--plan")
            result = CliRunner().invoke(app, arguments)
            assert isinstance(result.exception, (SystemExit, type(None))), arguments
            assert result.exit_code in (0, 2), arguments
            if result.exit_code:
                assert_one_line(result)


def test_out_of_memory(flowers, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise np._core._exceptions._ArrayMemoryError((1 << 50,), np.dtype(np.uint8))

    monkeypatch.setattr(gpumlp.MLP, "__init__", refuse)
    options = ["--target", "species", "--out", tmp_path / "o"]
    error = run("train", flowers, *options, code=2).stderr
    assert error.startswith(
        "gpumlp: error: out of memory (Unable to allocate 1.00 PiB for an array"
    )
    assert error.endswith("; use a smaller network or less data\n")
    assert error.count("\n") == 1


def test_ctrl_c_while_reading_exits_silently_with_130(flowers, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("gpumlp.data.load", interrupted)
    result = CliRunner().invoke(app, ["train", str(flowers)])
    assert (result.exit_code, result.stdout) == (130, "")
    assert "Traceback" not in result.stderr


def test_help_explains_the_exit_statuses():
    printed = " ".join(run("--help").stdout.split())
    assert (
        "0: success; 1: a part of `bench` failed, or the reader of stdout has gone; 2: usage"
        in printed
    )
    assert "130: stopped by Ctrl-C" in printed
