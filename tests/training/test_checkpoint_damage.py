"""Checkpoints that are damaged or of another run raise an error and change nothing."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest

import gpumlp
from gpumlp import CheckpointError, storage
from gpumlp.callbacks import LearningRateLogger, ReduceOnPlateau
from tests.support.kill_worker import STEPS, run
from tests.support.training_cases import Die, die_at


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
    trainer = gpumlp.Trainer(net)
    history = trainer.fit(np.ones((4, 5)), [0, 1, 2, 0], 1)
    before = net.theta.flat.tobytes()
    with pytest.raises(CheckpointError, match="damaged"):
        trainer.fit(np.ones((4, 5)), [0, 1, 2, 0], checkpoint=path, resume=True)
    assert net.theta.flat.tobytes() == before
    assert trainer.history is history
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


# ---- edited, with a right digest -------------------------------------------------------------


def edited(path, where, value):
    """Replace a field of the checkpoint's state; `where` is the way to it, a.b.0."""
    tensors, metadata = storage.read(path)
    state = json.loads(metadata["training"])
    at, *names = state, *where.split(".")
    for name in names[:-1]:
        at = at[int(name) if isinstance(at, list) else name]
    if value is MISSING:
        del at[int(names[-1]) if isinstance(at, list) else names[-1]]
    else:
        at[int(names[-1]) if isinstance(at, list) else names[-1]] = value
    storage.write(path, tensors, {**metadata, "training": json.dumps(state)})


MISSING = object()
WRONG = [MISSING, None, True, -1, 10**30, 0.5, math.nan, "x", [], [None], ["x"], {}, {"a": 1}]
ALLOWED = {  # fields that may have some of these values
    "position.seconds": [0.5], "position.lr_factor": [0.5], "position.last_lr": [0.5],
    "position.epoch_lr_factor": [MISSING, 0.5],
    "position.lr": [MISSING, 0.5], "position.epoch_lr": [MISSING, 0.5],
    "position.schedule": [MISSING], "position.epoch_schedule": [MISSING],
    "history.best_epoch": [None], "callbacks": [{}], "callbacks.ReduceOnPlateau": [MISSING],
    "callbacks.ReduceOnPlateau.best": [None, -1, 10**30, 0.5],
    "callbacks.ReduceOnPlateau.waited": [10**30], "callbacks.ReduceOnPlateau.cooling": [10**30],
    "callbacks.LearningRateLogger": [MISSING], "callbacks.LearningRateLogger.lr": [[]],
    "history.columns.val_cost.0": [-1, 0.5, math.nan], "history.columns.cost.0": [-1, 0.5],
    "position.J.0": [-1, 0.5],
}  # fmt: skip
FIELDS = [
    "settings", "position", "position.epoch", "position.step", "position.J", "position.seconds",
    "position.steps_ever", "position.epochs_ever", "position.scaling", "position.scaling.0",
    "position.lr_factor", "position.last_lr", "history", "history.columns", "history.stopped",
    "history.best_epoch", "history.columns.cost", "history.columns.lr", "watch", "watch.best",
    "watch.best_epoch", "watch.waited", *ALLOWED,
]  # fmt: skip


@pytest.fixture(scope="module")
def within_an_epoch(tmp_path_factory):
    """The bytes of a checkpoint of a run that died in its third epoch."""
    path = tmp_path_factory.mktemp("cut") / "checkpoint"
    with pytest.raises(Die):
        run(path, epochs=4, checkpoint_every=1, callbacks=[*hooks(), die_at(2 * STEPS + 3)])
    return path.read_bytes()


def hooks():
    return [ReduceOnPlateau(patience=9), LearningRateLogger()]


@pytest.mark.parametrize("field", dict.fromkeys(FIELDS))
def test_an_edited_field_is_refused_and_named(path, within_an_epoch, field):
    for value in WRONG:
        allowed = ALLOWED.get(field, [])
        if any(value is one or (value == one and type(value) is type(one)) for one in allowed):
            continue
        path.write_bytes(within_an_epoch)
        edited(path, field, value)
        before = path.read_bytes()
        with pytest.raises(CheckpointError) as caught:
            run(path, epochs=4, resume=True, callbacks=hooks())
        message = str(caught.value)
        assert str(path) in message, value
        names = [name for name in field.split(".") if not name.isdigit()]
        assert any(name in message for name in [*names, "run with other"]), value
        assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("position.epoch", -1, "position.epoch must be a whole number from 0 on, got -1"),
        ("position.epoch", 99, "must be 99 numbers, as position.epoch 99 says"),
        ("position.step", STEPS, f"position.step must be a whole number from 0 to {STEPS - 1}"),
        ("position.step", 1, "position.J must be 1 numbers, as position.step says"),
        ("position.steps_ever", 2 * STEPS + 1, f"from {2 * STEPS + 2} on, got {2 * STEPS + 1}"),
        ("position.epochs_ever", 1, "position.epochs_ever must be a whole number from 2 on"),
        ("position.scaling", [2.0, 2.0, 0.0, 0.0], "position.scaling must be a loss scale S, 1/S"),
        ("position.lr_factor", 1e300, "position.lr_factor must be a factor of learning rates"),
        ("history.stopped", "never", "history.stopped must be one of finished, early, interr"),
        ("history.columns", {"cost": [1.0, 1.0]}, "history.columns must be the columns cost,"),
        ("watch.best", 0.0, "the val_cost of its best_epoch, got 0.0"),
        ("watch.best", MISSING, "watch.best is missing; use another copy of the file, or resume="),
        ("callbacks.LearningRateLogger.lr.0", -1, "LearningRateLogger cannot be restored (lr must"),
        ("callbacks.ReduceOnPlateau.waited", MISSING, "cannot be restored ('waited' is missing)"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(
    path, within_an_epoch, field, value, message
):
    path.write_bytes(within_an_epoch)
    edited(path, field, value)
    with pytest.raises(CheckpointError) as caught:
        run(path, epochs=4, resume=True, callbacks=hooks())
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["training", "network"])
@pytest.mark.parametrize("text", ["", "[]", "null", "1", "{", "[" * 100_000, "9" * 5000])
def test_texts_that_are_no_mapping_are_refused(path, files, name, text):
    path.write_bytes(files["checkpoint"])
    tensors, metadata = storage.read(path)
    storage.write(path, tensors, {**metadata, name: text})
    with pytest.raises(CheckpointError, match=f"^{path}: "):
        run(path, resume=True, epochs=2)
    storage.write(path, tensors, {k: v for k, v in metadata.items() if k != name})
    with pytest.raises(CheckpointError, match=str(path)):
        run(path, resume=True, epochs=2)


@pytest.mark.parametrize("name", [["x"], {"a": 1}, None, 3])
def test_a_network_with_a_wrong_entry_is_refused(path, files, name):
    path.write_bytes(files["network"])
    tensors, metadata = storage.read(path)
    config = json.loads(metadata["network"])
    config["loss"]["name"] = name
    storage.write(path, tensors, {**metadata, "network": json.dumps(config)})
    with pytest.raises(CheckpointError, match=f"^{path}: "):
        gpumlp.MLP.load(path, backend="numpy")


@pytest.mark.parametrize("change", [lambda t: t * math.nan, lambda t: t.astype(int)])
def test_tensors_of_other_values_are_refused(path, files, change, no_waiting_for_the_disk):
    """Parameters, the best ones so far and the optimizer's state."""
    path.write_bytes(files["checkpoint"])
    tensors, metadata = storage.read(path)
    for name, tensor in tensors.items():
        storage.write(path, {**tensors, name: change(tensor)}, metadata)
        with pytest.raises(CheckpointError, match=f"tensor {name} must be finite numbers"):
            run(path, resume=True, epochs=2)


@pytest.mark.parametrize(("name", "slot"), [("rmsprop", "s"), ("adam", "v")])
def test_means_of_squares_are_not_negative(path, name, slot, no_waiting_for_the_disk):
    settings = {"trainer": {"optimizer": name}, "epochs": 1}
    run(path, **settings)
    tensors, metadata = storage.read(path)
    wrong = {each: -1 - tensor for each, tensor in tensors.items() if f"r.{slot}." in each}
    storage.write(path, tensors | wrong, metadata)
    with pytest.raises(CheckpointError, match="must be finite numbers of 0 or more, use"):
        run(path, resume=True, **settings)


def test_a_velocity_may_be_negative():
    squares = {name: rule.squares() for name, rule in gpumlp.OPTIMIZERS.items()}
    assert squares["momentum"] == squares["lion"] == squares["sgd"] == []
    assert squares["muon"] == []  # of a matrix it is a direction
    assert squares["adamw"] == ["v"]
