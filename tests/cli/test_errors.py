"""Errors of the commands: one line on stderr, and no file half-written.  And gpumlp info."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

import gpumlp
from gpumlp import cli
from gpumlp.cli.app import app
from gpumlp.errors import OutOfMemoryError
from tests.support.cli_cases import FLOWERS, SMALL, X, refused, run

BAD = [
    (["--optimizer", "adamm"], "unknown optimizer 'adamm'; did you mean 'adam'?"),
    (["--activation", "rellu"], "did you mean 'relu'?"),
    (["--schedule", "cosine"], "unknown schedule"),
    (
        ["--loss", "huber"],
        "Loss 'huber' does not support classification (data set 'flowers'); use --loss softmax",
    ),
    (
        ["--loss", "binary_cross_entropy"],
        "supports 2 classes, but data set 'flowers' has 3; use --loss softmax_cross",
    ),
    (["--loss", "negative_log_likelihood", "--label-smoothing", "0.1"], "is for softmax_cross"),
    (["--label-smoothing", "1"], "--label-smoothing must lie in [0, 1)"),
    (["--hidden", "10;10"], "--hidden must be widths such as 256,256 or none, got '10;10'"),
    (["--hidden", "10,0"], "a width of --hidden must be at least 1, got 0"),
    (
        ["--optimizer", "sgd", "--weight-decay", "0.1"],
        "sgd has no weight decay; leave it out, or use --optimizer adamw",
    ),
    (["--l2", "-1"], "--l2 must lie in [0, inf)"),
    (["--lr", "-1"], "--lr must be finite and more than 0"),
    (["--lr", "1e30", "--optimizer", "sgd"], "lower --lr, pass --clip-norm 1"),
    (["--batch-size", "0"], "Invalid value for '--batch-size'"),
    (["--epochs", "0"], "Invalid value for '--epochs'"),
    (["--patience", "0"], "Invalid value for '--patience'"),
    (["--patience", "3", "--validation", "0"], "--patience watches the validation cost"),
    (["--clip-norm", "0"], "--clip-norm must be finite and more than 0"),
    (["--checkpoint-every", "0"], "Invalid value for '--checkpoint-every'"),
    (["--seed", "-1"], "Invalid value for '--seed'"),
    (["--models", str(10**30)], "Invalid value for '--models'"),
    (["--device", "h100"], "--device is for --plan; add --plan"),
    (["--plan", "--device", "h10"], "unknown device 'h10'; did you mean 'h100'?"),
    (["--plan", "--plan-plot", "p.pdf"], "--plan-plot must end in .png, got p.pdf"),
    (["--memory", "tiny"], '--memory must be "normal" or "low"'),
    (["--slot-precision", "bfloat16"], "--slot-precision bfloat16 does not go with numpy"),
    (["--remainder"], "--remainder does not go with numpy"),
    (["--precision", "float8"], "unknown precision 'float8'"),
    (["--backend", "tpu"], "unknown backend 'tpu'"),
    (["--validation", "150"], "--validation must be a share in [0, 1) or a number"),
    (["--task", "regression"], "the target holds words"),
    (["--target", "specis"], "did you mean 'species'?"),
    (["--epochs", "x"], "Invalid value for '--epochs'"),
    (["--epoch", "3"], "No such option: --epoch"),
    (["--batch-size"], "--batch-size"),
    (["and", "more"], "and is no .csv, .csv.gz, .tsv, .tsv.gz or .parquet file"),
]


class TestErrors:
    @pytest.mark.parametrize(("arguments", "message"), BAD, ids=lambda p: " ".join(p)[:30])
    def test_invalid_options_print_one_line_and_write_nothing(
        self, flowers, tmp_path, arguments, message
    ):
        out = tmp_path / "new" / "folder"
        options = [*FLOWERS, "--out", out, *arguments]
        assert message in refused("train", flowers, *options)
        assert not out.parent.exists()

    def test_missing_damaged_and_wrong_files(self, flowers, model, tmp_path):
        damaged = tmp_path / "damaged.safetensors"
        data = bytearray(model.read_bytes())
        data[-5] ^= 1
        damaged.write_bytes(data)
        gpumlp.MLP([3, 3]).save(tmp_path / "bare.safetensors")
        for arguments, message in [
            (["evaluate", tmp_path / "no.safetensors", flowers], "there is no file"),
            (["evaluate", damaged, flowers], "is damaged: its values do not match its SHA-256"),
            (["evaluate", tmp_path / "bare.safetensors", flowers], "does not say what data"),
            (["evaluate", flowers, flowers], "is damaged or no safetensors file"),
            (["evaluate", model, "digits"], "digits has other features than the model takes"),
            (
                ["predict", model, flowers, "--out", tmp_path / "p.txt"],
                "must end in .csv, .parquet or .npy",
            ),
            (["predict", model, flowers, "--out", tmp_path / "n" / "p.csv"], "folder"),
            (
                ["train", flowers, "--target", "species", "--out", flowers, *SMALL],
                "flowers.csv is a file; choose another",
            ),
        ]:
            assert message in refused(*arguments)

    def test_usage_errors(self):
        for arguments, message in [
            (["evaluate"], "gpumlp: error: Missing argument 'MODEL'.\n"),
            (["trian"], "gpumlp: error: No such command 'trian'"),
            (["--loud"], "gpumlp: error: No such option: --loud"),
        ]:
            assert refused(*arguments).startswith(message)

    def test_options_are_checked_before_the_data_is_read(self, flowers, tmp_path):
        none = tmp_path / "none.csv"
        for arguments, message in [
            (["--out", flowers], "is a file; choose another"),
            (["--out", flowers / "deeper" / "still"], f"{flowers} is a file; choose another"),
            (["--epochs", 0], "'--epochs'"),
            (["--batch-size", 0], "'--batch-size'"),
            (["--patience", 2, "--validation", 0], "--patience watches"),
            (["--optimizer", "adamm"], "unknown optimizer"),
            (["--hidden", "10;10"], "--hidden must be widths"),
            (["--activation", "rellu"], "did you mean 'relu'?"),
            (["--loss", "hubber"], "did you mean 'huber'?"),
            (["--lr", "-1"], "--lr must be finite and more than 0"),
            (["--schedule", "cosine"], "unknown schedule"),
            (["--precision", "float8"], "unknown precision 'float8'"),
            (["--impute", "zero"], "--impute must be one of"),
            ([], f"there is no file {none}"),
        ]:
            result = run("train", none, *arguments, code=2)
            assert message in result.stderr
            assert result.stdout == ""

    def test_resume_refuses_the_checkpoint_of_another_run(self, flowers, model):
        options = ["--target", "species", "--out", model.parent, *SMALL, "--resume"]
        error = run("train", flowers, *options, "--batch-size", 16, code=2).stderr
        assert "is of a run with other --batch-size: 32, here 16" in error
        assert error.endswith("or leave out --resume to start anew\n")

    def test_no_gpu(self, flowers, tmp_path, monkeypatch):
        def refuse(*_):
            raise gpumlp.DeviceError("no CUDA driver; install one")

        monkeypatch.setattr("gpumlp.structure.get_backend", refuse)
        options = ["--target", "species", "--backend", "cupy", "--out", tmp_path / "o"]
        error = run("train", flowers, *options, code=2).stderr
        assert error == "gpumlp: error: no CUDA driver; install one\n"

    def test_debug_shows_the_traceback(self):
        result = CliRunner().invoke(app, ["--debug", "train", "mnst5k"])
        assert isinstance(result.exception, ValueError)

    def test_a_missing_library_is_reported_before_the_work(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "tqdm", None)
        assert run("train", code=2).stderr == (
            'gpumlp: error: this command needs tqdm: pip install "gpumlp[cli]"\n'
        )

    def test_main_without_typer(self, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "typer", None)
        for name in [n for n in sys.modules if n.startswith("gpumlp.cli.")]:
            monkeypatch.delitem(sys.modules, name)
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert caught.value.code == 2
        assert capsys.readouterr().err == (
            'gpumlp: error: the command line needs typer: pip install "gpumlp[cli]"\n'
        )


class TestInfo:
    def test_prints_versions_and_why_there_is_no_gpu(self, monkeypatch):
        real = gpumlp.get_backend

        def without_gpu(name, *precision):
            if name == "cupy":
                raise gpumlp.DeviceError("no CUDA driver")
            return real(name, *precision)

        monkeypatch.setattr(gpumlp, "get_backend", without_gpu)
        printed = dict(line.split(maxsplit=1) for line in run("info").stdout.splitlines())
        assert printed["gpumlp"] == gpumlp.__version__
        assert printed["NumPy"].startswith(f"{np.__version__} with ")
        assert printed["GPU"] == "not used: no CUDA driver"
        assert printed["default"] in ('the CPU, backend "cpu"', 'the CPU, backend "numpy"')
        assert printed["CPU"].startswith(real("numpy").describe())

    def test_version(self):
        assert run("--version").stdout == f"gpumlp {gpumlp.__version__}\n"

    @pytest.mark.parametrize("arguments", [[], ["--help"]])
    def test_help(self, arguments):
        printed = run(*arguments).stdout
        assert printed.startswith("Usage: ")
        for command in ("train", "evaluate", "predict", "info"):
            assert f"\n  {command} " in printed

    def test_help_does_not_cut_off_names(self):
        words = run("train", "--help").stdout.replace(",", " ").replace(".", " ").split()
        for table in (gpumlp.ACTIVATIONS, gpumlp.LOSSES, gpumlp.OPTIMIZERS, gpumlp.SCHEDULES):
            assert set(table) <= set(words)


class TestConsole:
    """A console with few characters, without the arrow of a network and Σ."""

    def gpumlp(self, *arguments, encoding="cp1252"):
        command = [Path(sys.executable).with_name("gpumlp"), *map(str, arguments)]
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        result = subprocess.run(command, env=environment, capture_output=True, timeout=100)
        return result.returncode, result.stdout.decode(encoding), result.stderr.decode(encoding)

    def test_help(self):
        code, printed, error = self.gpumlp("train", "--help")
        assert (code, error) == (0, "")
        assert "adds X/2·??² to the cost" in " ".join(printed.split())

    def test_train(self, flowers, tmp_path):
        options = ["--target", "species", "--out", tmp_path / "o", *SMALL[:-1]]
        code, printed, error = self.gpumlp("train", flowers, *options)
        assert code == 0, error
        assert "MLP(3-16-3, relu ? identity" in printed
        assert "finished after 5 epochs" in printed

    def test_class_names_that_the_console_lacks_are_refused(self, tmp_path):
        y = np.where(X[:, 0] > 5, "α", "β")
        np.savez(tmp_path / "t.npz", x=X, y=y)
        run("train", tmp_path / "t.npz", "--out", tmp_path, *SMALL)
        arguments = ["predict", tmp_path / "model.safetensors", tmp_path / "t.npz"]
        code, printed, error = self.gpumlp(*arguments)
        assert (code, printed) == (2, "")
        assert error == "gpumlp: error: the class '?' cannot be written in cp1252; use --out FILE\n"
        code, printed, error = self.gpumlp(*arguments, encoding="utf-8")
        assert printed.startswith("prediction,probability_α,probability_β\n")


def test_out_of_memory_shows_the_plan_and_the_options(flowers, tmp_path, monkeypatch):
    def fit(*args, **settings):
        raise OutOfMemoryError(
            'out of GPU memory\nθ      1.00\nuse batch_size=16, or batch_size=32 and memory="low", '
            'or precision="bfloat16", slot_precision="bfloat16"'
        )

    monkeypatch.setattr(gpumlp.Trainer, "fit", fit)
    arguments = [*FLOWERS, "--out", tmp_path / "o"]
    assert run("train", flowers, *arguments, code=2).stderr.splitlines() == [
        "gpumlp: error: out of GPU memory",
        "θ      1.00",
        "use --batch-size 16, or --batch-size 32 and --memory low, "
        "or --precision bfloat16, --slot-precision bfloat16",
    ]


@pytest.mark.parametrize("command", ["train", "search", "bench"])
def test_a_folder_that_cannot_be_made_is_found_first(flowers, command, tmp_path, monkeypatch):
    """A search failed only when all its candidates were trained."""
    (tmp_path / "link").symlink_to("new")
    given = [] if command == "bench" else [flowers, *FLOWERS]
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    for out in (tmp_path / "new", tmp_path / "a" / "b", tmp_path / "link"):
        error = refused(command, *given, "--out", out)
        said = f"--out {out}: the folder {tmp_path} is read-only; choose another --out"
        assert error == f"gpumlp: error: {said}\n"
    assert not (tmp_path / "new").exists()
