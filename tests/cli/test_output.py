"""Tables, and API errors in the words of the command line."""

import pytest

pytest.importorskip("typer")

from gpumlp.cli.command import name_options
from gpumlp.cli.export import ExportOptions
from gpumlp.cli.find_lr import FindLROptions
from gpumlp.cli.output import print_table
from gpumlp.cli.train import TrainOptions


def test_a_table_is_plain_and_complete_whatever_its_width(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    wide = "[red]" + "x" * 500
    print_table(["name", "a\nnumber"], [[wide, "1"], ["", "22"]])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[2].split() == [wide, "1"]
    assert lines[3].endswith(" 22")


@pytest.mark.parametrize(
    ("options", "message", "expected"),
    [
        (TrainOptions, "pass clip_norm=1.0, or lower lr", "pass --clip-norm 1.0, or lower --lr"),
        (TrainOptions, 'use memory="low" or ema=None', "use --memory low or leave out --ema"),
        (TrainOptions, "θ's type; use slot_precision=None", "θ's type; leave out --slot-precision"),
        (TrainOptions, "or resume=False to start anew", "or leave out --resume to start anew"),
        (TrainOptions, "factor must be less", "--plateau-factor must be less"),
        (TrainOptions, "a smaller batch_size, or data=\"stream\"", "a smaller --batch-size"),
        (TrainOptions, "the loss and its target", "the loss and its target"),
        (TrainOptions, "--group a:lr=2 must be new", "--group a:lr=2 must be new"),
        (TrainOptions, "no 'batch_size'; data must be", "no 'batch_size'; data must be"),
        (FindLROptions, "with lr 2, lower start", "with lr 2, lower --start"),
        (ExportOptions, "opset must be 13, preparation=None", "--opset must be 13, --no-raw"),
    ],
)  # fmt: skip
def test_api_arguments_become_options(options, message, expected):
    assert name_options(message, options) == expected
