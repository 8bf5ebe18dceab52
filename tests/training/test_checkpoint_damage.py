"""Checkpoints that are damaged or of another run raise an error and change nothing."""

from __future__ import annotations

import random

import numpy as np
import pytest

import gpumlp
from gpumlp import CheckpointError, storage
from tests.support.kill_worker import run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The bytes of a checkpoint and of a saved network."""
    folder = tmp_path_factory.mktemp("files")
    trainer = run(folder / "checkpoint", epochs=2)
    trainer.net.save(folder / "network")
    return {kind: (folder / kind).read_bytes() for kind in ("checkpoint", "network")}


def refuse(path, data):
    path.write_bytes(data)
    with pytest.raises(CheckpointError):
        gpumlp.MLP.load(path, backend="numpy")
    with pytest.raises(CheckpointError):
        storage.read(path)


@pytest.mark.parametrize("kind", ["checkpoint", "network"])
def test_flipped_bit_raises(path, files, kind):
    data, rng = files[kind], random.Random(1)
    header = 8 + int.from_bytes(data[:8], "little")
    for i in range(500):
        bit = rng.randrange(8 * (header if i % 2 else len(data)))
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        refuse(path, damaged)


@pytest.mark.parametrize("kind", ["checkpoint", "network"])
def test_truncated_file_raises(path, files, kind):
    data, rng = files[kind], random.Random(2)
    for _ in range(500):
        refuse(path, data[: rng.randrange(len(data))])
    refuse(path, data + b"\0")


def test_a_damaged_checkpoint_changes_nothing(path, files):
    damaged = bytearray(files["checkpoint"])
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    net = gpumlp.MLP([5, 8, 3], backend="numpy")
    before = net.theta.flat.tobytes()
    trainer = gpumlp.Trainer(net)
    with pytest.raises(CheckpointError, match="damaged"):
        trainer.fit(np.ones((4, 5)), [0, 1, 2, 0], checkpoint=path, resume=True)
    assert net.theta.flat.tobytes() == before
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"net": {"widths": [5, 9, 3]}}, "network's widths"),
        ({"net": {"activation": "relu"}}, "network's activation"),
        ({"net": {"regularizer": gpumlp.L2(1e-2)}}, "network's regularizer"),
        ({"net": {"precision": "float64"}}, "network's precision"),
        ({"trainer": {"optimizer": "adam"}}, "optimizer"),
        ({"trainer": {"optimizer": gpumlp.OPTIMIZERS["adamw"].set(beta1=0.8)}}, "optimizer"),
        ({"trainer": {"lr": 0.04}}, "lr"),
        ({"trainer": {"batch_size": 8}}, "batch_size"),
        ({"trainer": {"schedule": "step"}}, "schedule"),
        ({"trainer": {"clip_norm": None}}, "clip_norm"),
        ({"trainer": {"seed": 4}}, "seed"),
        ({"trainer": {"shuffle": False}}, "shuffle"),
        ({"data_seed": 1}, "data"),
        ({"label_seed": 1}, "data"),
        ({"sample_weight": np.arange(60)}, "data"),
        ({"early_stopping": 3}, "early_stopping"),
        ({"epochs": 13}, "epochs"),
        ({"metric": None}, "columns"),
        ({"validation": (np.ones((2, 5)), [0, 1])}, "validation"),
        ({"validation": None, "early_stopping": None}, "early_stopping"),
    ],
)
def test_checkpoint_of_another_run_raises(path, files, other, named):
    path.write_bytes(files["checkpoint"])
    kept = {"epochs": 2, **other}
    with pytest.raises(CheckpointError, match=f"of a run with other {named}: "):
        run(path, resume=True, **kept)
    assert path.read_bytes() == files["checkpoint"]


def test_other_seed_of_initial_weights_resumes(path, files):
    path.write_bytes(files["checkpoint"])
    same = run(path, resume=True, epochs=2, net={"seed": 9})
    assert same.net.theta.flat.tobytes() == run(epochs=2).net.theta.flat.tobytes()


def test_saved_network_as_checkpoint_raises(path, files):
    path.write_bytes(files["network"])
    with pytest.raises(CheckpointError, match="no checkpoint of a training run"):
        run(path, resume=True)
    assert path.read_bytes() == files["network"]
