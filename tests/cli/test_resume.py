"""train in a folder that has files: of an interrupted run, to go on from, or of an earlier one."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer")

from gpumlp.training import Trainer
from tests.cli.test_training import FLOWERS, LONGER, columns, theta
from tests.support.cli_cases import run
from tests.support.tracking_files import scalars


def test_resume_after_ctrl_c_goes_on_with_all_of_it(flowers, tmp_path, monkeypatch):
    """In the middle of an epoch: the plateau's state, θ̄ and the events of TensorBoard."""
    options = [
        *FLOWERS, *LONGER, "--plateau", 1, "--ema", 0.9, "--tensorboard", "--metric", "f1_macro",
        "--patience", 9, "--accumulate", 2,
    ]  # fmt: skip
    run("train", flowers, *options, "--out", tmp_path / "whole")
    step, out = Trainer.step, ["--out", tmp_path / "cut"]

    def pressed(trainer, batches):
        step(trainer, batches)
        if trainer.steps == 26:  # of 48, in the seventh epoch
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", pressed)
        told = run("train", flowers, *options, *out, code=130).stdout
    assert "interrupted after 6 epochs; --resume goes on" in told
    result = run("train", flowers, *options, *out, "--resume")
    assert result.stderr == ""
    np.testing.assert_array_equal(theta(tmp_path / "cut"), theta(tmp_path / "whole"))
    cut, whole = columns(tmp_path / "cut"), columns(tmp_path / "whole")
    for name in set(whole) - {"seconds"}:
        assert cut[name] == whole[name]
    assert min(whole["lr"]) < 1e-4 < max(whole["lr"])
    cut, whole = (scalars(tmp_path / name / "tensorboard") for name in ("cut", "whole"))
    for tag in set(whole) - {"seconds"}:
        assert cut[tag] == whole[tag], tag


def test_resume_with_another_rule_is_refused(flowers, tmp_path):
    options = [*FLOWERS, "--out", tmp_path / "o", "--plateau", 2]
    run("train", flowers, *options)
    error = run("train", flowers, *options, "--plateau", 3, "--resume", code=2).stderr
    assert "another ReduceOnPlateau: patience 2, here 3; pass what that run had" in error
    assert error.endswith("or leave out --resume\n")


def test_what_becomes_of_an_earlier_runs_events_is_told(flowers, tmp_path):
    options, folder = [*FLOWERS, "--out", tmp_path / "o"], tmp_path / "o" / "tensorboard"
    told = f"replacing the files of an earlier run in {tmp_path / 'o'}"
    assert run("train", flowers, *options, "--tensorboard").stderr == ""
    assert run("train", flowers, *options).stderr == f"{told}; tensorboard stays as it is\n"
    for file in set((tmp_path / "o").iterdir()) - {folder}:
        file.unlink()
    assert run("train", flowers, *options, "--tensorboard").stderr == f"{told}\n"
    found = scalars(folder)["cost/training"]  # the earlier run's are hidden
    np.testing.assert_allclose(list(found.values()), columns(tmp_path / "o")["cost"], rtol=1e-6)


def test_every_file_is_named_the_events_too(flowers, tmp_path):
    options = [*FLOWERS, "--out", tmp_path / "o", "--tensorboard"]
    last = run("train", flowers, *options).stdout.splitlines()[-1]
    written = sorted(path.name for path in (tmp_path / "o").iterdir())
    assert sorted(last.removeprefix(f"wrote {tmp_path / 'o'}/").split(", ")) == written
    assert sorted(json.loads(run("train", flowers, *options, "--json").stdout)["files"]) == written


def test_a_rule_that_is_left_out_on_resuming_is_told_in_a_line(flowers, tmp_path):
    options = [*FLOWERS, "--out", tmp_path / "o"]
    run("train", flowers, *options, "--plateau", 2)
    command = [Path(sys.executable).with_name("gpumlp"), "train", flowers, *options, "--resume"]
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stderr.startswith("gpumlp: warning: ")
    assert "is of a run with the callback ReduceOnPlateau, without which" in result.stderr
    assert result.stderr.count("\n") == 1
