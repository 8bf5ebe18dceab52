"""train --tensorboard: the events are the history's numbers."""

import json

import numpy as np
import pytest

pytest.importorskip("typer")

from tests.support.cli_cases import FLOWERS, run
from tests.support.tracking_files import scalars

OPTIONS = [*FLOWERS, "--tensorboard"]


def test_the_events_are_the_history(flowers, tmp_path):
    run("train", flowers, *OPTIONS, "--out", tmp_path / "o")
    columns = json.loads((tmp_path / "o" / "history.json").read_text())["columns"]
    found = scalars(tmp_path / "o" / "tensorboard")
    for tag, column in (("cost/training", "cost"), ("cost/validation", "val_cost"), ("lr", "lr")):
        assert list(found[tag]) == [4, 8, 12, 16, 20]  # 120 examples, 32 a step
        np.testing.assert_allclose(list(found[tag].values()), columns[column], rtol=1e-6)


def test_no_events_without_the_option_or_the_library(flowers, tmp_path, monkeypatch):
    run("train", flowers, *OPTIONS[:-1], "--out", tmp_path / "a")
    assert not (tmp_path / "a" / "tensorboard").exists()
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    error = run("train", flowers, *OPTIONS, "--out", tmp_path / "b", code=2).stderr
    assert error == 'gpumlp: error: for TensorBoard: pip install "gpumlp[tracking]"\n'
    assert not (tmp_path / "b").exists()
