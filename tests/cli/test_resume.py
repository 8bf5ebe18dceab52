"""train in a folder with the files of an interrupted run, to resume it, or of an earlier one."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer")

from tests.support.cli_cases import FLOWERS, LONGER, columns, pressed, run, theta
from tests.support.tracking_files import scalars


def test_resume_after_ctrl_c_restores_all_state(flowers, tmp_path, monkeypatch):
    """Ctrl-C in the middle of an epoch, with a plateau, an average θ̄ and events for TensorBoard."""
    options = [
        *FLOWERS, *LONGER, "--plateau", 1, "--ema", 0.9, "--tensorboard", "--metric", "f1_macro",
        "--patience", 9, "--accumulate", 2,
    ]  # fmt: skip
    run("train", flowers, *options, "--out", tmp_path / "whole")
    out = ["--out", tmp_path / "cut"]
    with pressed(monkeypatch, 26):  # of 48, in the seventh epoch
        printed = run("train", flowers, *options, *out, code=130).stdout
    assert "interrupted after 6 epochs; --resume continues" in printed
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


def test_resume_refuses_another_plateau(flowers, tmp_path):
    options = [*FLOWERS, "--out", tmp_path / "o", "--plateau", 2]
    run("train", flowers, *options)
    error = run("train", flowers, *options, "--plateau", 3, "--resume", code=2).stderr
    assert "another ReduceOnPlateau: patience 2, here 3; pass what that run had" in error
    assert error.endswith("or leave out --resume\n")


def test_says_what_happens_to_the_events_of_an_earlier_run(flowers, tmp_path):
    options, folder = [*FLOWERS, "--out", tmp_path / "o"], tmp_path / "o" / "tensorboard"
    printed = f"replacing the files of an earlier run in {tmp_path / 'o'}"
    assert run("train", flowers, *options, "--tensorboard").stderr == ""
    assert run("train", flowers, *options).stderr == f"{printed}; tensorboard stays unchanged\n"
    for file in set((tmp_path / "o").iterdir()) - {folder}:
        file.unlink()
    assert run("train", flowers, *options, "--tensorboard").stderr == f"{printed}\n"
    found = scalars(folder)["cost/training"]  # the earlier run's are hidden
    np.testing.assert_allclose(list(found.values()), columns(tmp_path / "o")["cost"], rtol=1e-6)


def test_prints_every_file_with_the_events(flowers, tmp_path):
    options = [*FLOWERS, "--out", tmp_path / "o", "--tensorboard"]
    last = run("train", flowers, *options).stdout.splitlines()[-1]
    written = sorted(path.name for path in (tmp_path / "o").iterdir())
    assert sorted(last.removeprefix(f"wrote {tmp_path / 'o'}/").split(", ")) == written
    assert sorted(json.loads(run("train", flowers, *options, "--json").stdout)["files"]) == written


def test_resume_without_the_plateau_warns_in_one_line(flowers, tmp_path):
    options = [*FLOWERS, "--out", tmp_path / "o"]
    run("train", flowers, *options, "--plateau", 2)
    command = [Path(sys.executable).with_name("gpumlp"), "train", flowers, *options, "--resume"]
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stderr.startswith("gpumlp: warning: ")
    assert "is of a run with the callback ReduceOnPlateau, without which" in result.stderr
    assert result.stderr.count("\n") == 1
