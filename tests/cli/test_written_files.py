"""Which files a command writes: never an input, all of a run or none, also after a signal."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from gpumlp import storage
from gpumlp.cli import run_folder
from gpumlp.cli.app import app
from gpumlp.cli.output import check_outputs
from gpumlp.training import Trainer
from tests.support.cli_cases import FLOWERS, SMALL, refused, run

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- inputs --------------------------------------------------------------------------------------


@pytest.fixture
def ways(flowers, tmp_path):
    """Paths of the table of flowers: itself, by another way, a link and a hard link."""
    (tmp_path / "way").symlink_to(".")
    (tmp_path / "link.csv").symlink_to(flowers.name)
    os.link(flowers, tmp_path / "hard.csv")
    return [flowers, tmp_path / "way" / flowers.name, tmp_path / "link.csv", tmp_path / "hard.csv"]


def test_predictions_do_not_replace_the_data(ways, model):
    before = contents(model.parent.parent)
    for out in ways:
        for data in ways:
            error = refused("predict", model, data, "--out", out)
            assert f"--out {out} is the data that is read; choose another name" in error
    assert contents(model.parent.parent) == before


def test_predictions_are_no_file_of_the_data(flowers, model, tmp_path):
    """The folder could not be read again."""
    (tmp_path / "d").mkdir()
    shutil.copy(flowers, tmp_path / "d" / "a.csv")
    for data in (tmp_path / "d", tmp_path / "d" / "*.csv"):
        for out in (tmp_path / "d" / "p.csv", tmp_path / "d" / ".." / "d" / "p.csv"):
            error = refused("predict", model, data, "--out", out)
            assert f"--out {out} would be one of the files of {data} that are read; cho" in error
    run("predict", model, tmp_path / "d", "--out", tmp_path / "p.csv")
    run("predict", model, tmp_path / "d", "--out", tmp_path / "d" / "p.npy")
    run("predict", model, tmp_path / "d" / "a.csv", "--out", tmp_path / "d" / "p.csv")


def test_no_output_replaces_a_model(flowers, model, tmp_path):
    for suffix in (".csv", ".png", ".npz", ".safetensors"):
        (tmp_path / f"link{suffix}").symlink_to(model)
    before = contents(tmp_path)
    for arguments in (
        ["predict", model, flowers, "--out", tmp_path / "link.csv"],
        ["evaluate", model, flowers, "--plot", tmp_path / "link.png"],
        ["export", model, tmp_path / "link.npz"],
        ["export", model, model],
        ["export", tmp_path / "link.safetensors", model],
    ):
        assert "is the model that is read; choose another name" in refused(*arguments)
    assert contents(tmp_path) == before


def test_no_figure_replaces_the_data_or_the_options(flowers, model, tmp_path):
    (tmp_path / "data.png").symlink_to(flowers)
    (tmp_path / "own.toml").write_text('target = "species"\n')
    (tmp_path / "own.png").symlink_to("own.toml")
    before = contents(tmp_path)
    find_lr = ["find-lr", flowers, "--target", "species", "--config", tmp_path / "own.toml"]
    for arguments, what in (
        (["evaluate", model, flowers, "--plot", tmp_path / "data.png"], "the data"),
        ([*find_lr, "--plot", tmp_path / "data.png"], "the data"),
        ([*find_lr, "--plot", tmp_path / "own.png"], "the file of --config"),
    ):
        assert f"is {what} that is read; choose another name" in refused(*arguments)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", run_folder.FILES)
def test_no_file_of_a_run_replaces_the_data(flowers, tmp_path, name):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / name).symlink_to(flowers)
    before = contents(tmp_path)
    error = refused("train", flowers, *FLOWERS, "--out", tmp_path / "o")
    assert f"--out: {tmp_path / 'o' / name} is the data that is read; choose another" in error
    assert contents(tmp_path) == before


def test_run_toml_replaces_no_file_that_the_user_wrote(flowers, tmp_path):
    (tmp_path / "o").mkdir()
    own = tmp_path / "o" / "run.toml"
    own.write_text(f"# my notes\ndata = '{flowers}'\ntarget = 'species'\nepochs = 1\n")
    options = ["train", "--config", own, "-q", "--out"]
    assert "run.toml is the file of --config that is read" in refused(*options, tmp_path / "o")
    run(*options, tmp_path / "p")
    written = tmp_path / "p" / "run.toml"
    run("train", "--config", written, "-q")  # which a run wrote, so nothing is lost
    assert own.read_text().startswith("# my notes")


def test_bench_replaces_no_result_and_its_files_differ(tmp_path):
    (tmp_path / "a.result.json").write_text("{}")
    options = ["bench", "--out", tmp_path, "--save"]
    assert "a result that is read" in refused(*options, tmp_path / "a.result.json")
    error = refused(*options, tmp_path / "new.png", "--plot", tmp_path / "new.png")
    assert f"is the same file as --save {tmp_path / 'new.png'}; choose another" in error


def test_outputs_are_compared_with_folders_patterns_and_lists(tmp_path, monkeypatch):
    part = tmp_path / "part.parquet"
    part.touch()
    for source in (tmp_path, str(tmp_path / "*.parquet"), [tmp_path / "none.csv", part]):
        with pytest.raises(ValueError, match="it is the data that is read"):
            check_outputs({"it": part}, {"the data": source})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").touch()
    check_outputs({"it": Path("digits")}, {"the data": "digits", "the model": None})
    check_outputs({"it": tmp_path / "new.csv", "none": None}, {"the data": tmp_path})


def test_predictions_are_not_appended_to_the_data(flowers, model):
    before, stdout = flowers.read_bytes(), os.dup(1)
    with flowers.open("ab") as file:
        os.dup2(file.fileno(), 1)
        try:
            error = refused("predict", model, flowers)
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
    assert "stdout /dev/stdout is the data that is read; choose another name" in error
    assert flowers.read_bytes() == before


# ---- all files of a run, or none -----------------------------------------------------------------


def test_a_folder_by_a_link_that_leads_nowhere_yet_is_made(flowers, tmp_path):
    (tmp_path / "o").symlink_to("disk/o")
    run("train", flowers, *FLOWERS, "--out", tmp_path / "o")
    assert (tmp_path / "o").readlink() == Path("disk/o")
    assert names(tmp_path / "disk" / "o") == sorted(run_folder.FILES)


@pytest.mark.parametrize("name", run_folder.FILES)
def test_a_file_that_cannot_be_written_is_found_before_the_training(flowers, tmp_path, name):
    (tmp_path / "o" / name).mkdir(parents=True)
    error = refused("train", flowers, *FLOWERS, "--out", tmp_path / "o")
    assert f"cannot write {tmp_path / 'o' / name}: it is a folder" in error
    assert names(tmp_path / "o") == [name]


@pytest.mark.parametrize("name", ["history.png", "run.toml"])
def test_a_late_error_leaves_the_files_of_the_run_before(flowers, tmp_path, monkeypatch, name):
    out = tmp_path / "o"
    run("train", flowers, *FLOWERS, "--out", out)
    before, fit = contents(out), Trainer.fit

    def fit_then_folder(*arguments, **settings):
        history = fit(*arguments, **settings)
        (out / name).unlink()
        (out / name).mkdir()
        return history

    options = ["train", flowers, *FLOWERS, "--out", out, "--seed", 3]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "fit", fit_then_folder)
        result = run(*options, code=2)
    checkpoint = out / "checkpoint.safetensors"
    assert result.stderr.endswith(
        f"gpumlp: error: cannot write {out / name}: it is a folder; pass the path of a file; no "
        f"file of the run has changed but {checkpoint}, which holds the training: remove the "
        "cause, and add --resume\n"
    )
    (out / name).rmdir()
    after = contents(out)
    for path in set(before) - {out / name, checkpoint}:
        assert after[path] == before[path]
    # as it says
    monkeypatch.setattr(Trainer, "step", None)
    run(*options, "--resume")
    assert names(out) == sorted(run_folder.FILES)
    assert "seed = 3" in (out / "run.toml").read_text()
    tensors = storage.read(checkpoint)[0]
    np.testing.assert_array_equal(storage.read(out / "model.safetensors")[0]["0.weight"],
                                  tensors["0.weight"])  # fmt: skip


# ---- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "options"), [(SIGNALS[0], []), (SIGNALS[1], []), (SIGNALS[2], ["--json"])], ids=str
)
def test_a_signal_ends_a_training_with_all_its_files(
    flowers, tmp_path, monkeypatch, number, options
):
    step, out = Trainer.step, tmp_path / "o"

    def signalled(trainer, batches, steps):
        step(trainer, batches, 1)
        if trainer.steps == 6:  # in the second epoch
            signal.raise_signal(number)

    monkeypatch.setattr(Trainer, "step", signalled)
    result = run("train", flowers, *FLOWERS, "--out", out, *options, code=128 + number)
    by = "" if number == signal.SIGINT else f" by {number.name}"
    expected = '"stopped": "interrupted"' if options else f"interrupted after 1 epoch{by}; --resume"
    assert expected in result.stdout
    assert result.stderr == ""
    assert names(out) == sorted(run_folder.FILES)
    position = json.loads(storage.read(out / "checkpoint.safetensors")[1]["training"])["position"]
    assert position["steps_ever"] == 6


@pytest.mark.parametrize("number", SIGNALS[:2])
def test_a_signal_waits_while_the_files_are_written(flowers, tmp_path, monkeypatch, number):
    plot = run_folder.plot_history

    def signalled(*arguments, **settings):
        signal.raise_signal(number)
        plot(*arguments, **settings)

    monkeypatch.setattr(run_folder, "plot_history", signalled)
    result = run("train", flowers, *FLOWERS, "--out", tmp_path / "o", code=128 + number)
    assert "finished after 5 epochs" in result.stdout
    assert names(tmp_path / "o") == sorted(run_folder.FILES)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("command", ["train", "predict", "evaluate", "find-lr", "search"])
def test_a_signal_ends_every_command_with_one_line(
    flowers, model, tmp_path, monkeypatch, number, command
):
    def signalled(*_, **__):
        for _ in range(1 if number == signal.SIGINT else 2):
            signal.raise_signal(number)

    for each in (signal.SIGTERM, signal.SIGHUP):  # as at the start of a process
        signal.signal(each, signal.SIG_DFL)
    for name in ("load", "pieces"):
        monkeypatch.setattr(f"gpumlp.data.{name}", signalled)
    of_models = {
        "predict": [model, flowers, "--out", tmp_path / "p.csv"], "evaluate": [model, flowers],
    }  # fmt: skip
    arguments = of_models.get(command, [flowers, "--target", "species"])
    before = contents(tmp_path)
    result = CliRunner().invoke(app, [command, *map(str, arguments)])
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    assert (result.exit_code, result.stdout) == (128 + number, "")
    assert result.stderr == f"gpumlp: stopped by {name}\n"
    assert contents(tmp_path) == before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_closing_the_terminal_writes_the_files_of_a_training(flowers, tmp_path):
    out, (ours, theirs) = tmp_path / "o", pty.openpty()
    options = ["--target", "species", *SMALL[:-1], "--epochs", "100000", "--out", str(out)]
    start = "import os, sys, fcntl, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    code = f"{start}sys.argv = sys.argv[1:]; from gpumlp.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "gpumlp", "train", str(flowers), *options],
        stdin=theirs, stdout=theirs, stderr=theirs,
    ) as process:  # fmt: skip
        os.close(theirs)
        while not (out / "checkpoint.safetensors").exists():
            assert process.poll() is None, os.read(ours, 1 << 16)
            time.sleep(0.01)
        os.close(ours)
        assert process.wait(60) == 128 + signal.SIGHUP
    assert names(out) == sorted(run_folder.FILES)
