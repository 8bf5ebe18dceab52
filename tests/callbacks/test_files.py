"""CSVLogger, LearningRateLogger and ModelCheckpoint."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

import gpumlp
from gpumlp import storage
from gpumlp.callbacks import CSVLogger, LearningRateLogger, ModelCheckpoint, ReduceOnPlateau
from tests.support.kill_worker import EPOCHS, STEPS, run
from tests.support.training_cases import Die, Hook, X, Y, die_at, regression, theta

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


# ---- CSVLogger ---------------------------------------------------------------------------------


def table(path):
    with path.open(newline="") as file:
        names, *rows = csv.reader(file)
    columns = [[float(row[i]) for row in rows] for i in range(len(names))]
    return dict(zip(names, columns, strict=True))


def with_epochs(history):
    return {"epoch": [i + 1 for i in range(history.epochs)], **history}


def test_csv_file_is_the_history(tmp_path):
    file, lines = tmp_path / "log.csv", []
    file.write_text("of an earlier run\n")
    hooks = [CSVLogger(file), Hook(epoch=lambda t, row: lines.append(len(table(file)["cost"])))]
    trainer = run(epochs=3, callbacks=hooks)
    assert table(file) == with_epochs(trainer.history)
    assert lines == [1, 2, 3]  # on disk after each epoch


@pytest.mark.parametrize("half", ["", "4,0.12,0.0", "4,0.1,0.2,0.3,0.4,0.5\n5,7"])
def test_csv_file_of_a_resumed_run_is_that_of_an_uninterrupted_one(tmp_path, path, half):
    file = tmp_path / "log.csv"
    with pytest.raises(Die):  # after the callback's line and before the epoch's checkpoint
        run(path, callbacks=[CSVLogger(file), die_at(epoch=4)])
    assert len(table(file)["epoch"]) == 4
    file.write_text(file.read_text() + half)
    resumed = run(path, resume=True, callbacks=[CSVLogger(file)])
    assert table(file) == with_epochs(resumed.history)
    assert len(table(file)["epoch"]) == EPOCHS


def test_csv_file_is_closed_after_an_error(tmp_path):
    log = CSVLogger(tmp_path / "log.csv")
    with pytest.raises(Die):
        run(callbacks=[log, die_at(2 * STEPS + 1)])
    assert log._file is None
    assert len(table(log.path)["epoch"]) == 2


def test_csv_file_in_a_missing_folder_raises_before_training(tmp_path):
    net = regression()
    before = theta(net)
    with pytest.raises(FileNotFoundError, match="no/such does not exist"):
        gpumlp.Trainer(net).fit(X, Y, 1, callbacks=[CSVLogger(tmp_path / "no/such/log.csv")])
    assert theta(net) == before


# ---- LearningRateLogger ------------------------------------------------------------------------


def test_learning_rate_of_each_step_is_logged(path):
    rates = LearningRateLogger()
    trainer = run(callbacks=[rates])
    total = EPOCHS * STEPS
    expected = [trainer.schedule.lr(0.05, t, total) for t in range(total)]
    assert rates.lr.tolist() == expected
    with pytest.raises(Die):
        run(path, checkpoint_every=4, callbacks=[rates, die_at(30)])
    again = LearningRateLogger()
    run(path, resume=True, callbacks=[again])
    assert again.lr.tolist() == expected


# ---- ModelCheckpoint ---------------------------------------------------------------------------


def test_best_model_is_saved(tmp_path):
    file, after = tmp_path / "best.safetensors", []
    checkpoint = ModelCheckpoint(file, "val_cost", extra={"unit": "m"})
    net = regression()
    history = gpumlp.Trainer(net, "adam", 0.05, batch_size=16).fit(
        X[:30], Y[:30], 20, validation=(X[30:], -Y[30:]),
        callbacks=[checkpoint, Hook(epoch=lambda trainer, row: after.append(theta(net)))],
    )  # fmt: skip
    best = int(np.argmin(history["val_cost"]))
    assert best < 19
    assert theta(gpumlp.MLP.load(file, backend="numpy")) == after[best] != after[-1]
    assert (checkpoint.best, checkpoint.saved) == (history["val_cost"][best], str(file))
    assert storage.load_extra(file) == {"unit": "m"}


def test_models_are_saved_every_few_epochs(tmp_path):
    pattern = tmp_path / "{epoch:03d}-{val_cost:.6f}.safetensors"
    trainer = run(epochs=7, callbacks=[ModelCheckpoint(pattern, every=3)])
    cost = trainer.history["val_cost"]
    expected = [f"{epoch:03d}-{cost[epoch - 1]:.6f}.safetensors" for epoch in (3, 6)]
    assert sorted(file.name for file in tmp_path.iterdir()) == expected


def test_best_value_survives_a_resume(tmp_path, path):
    def files(folder, *arguments, **named):
        folder.mkdir(exist_ok=True)
        checkpoint = ModelCheckpoint(folder / "{epoch}", "val_metric")
        trainer = run(*arguments, callbacks=[checkpoint, *named.pop("more", [])], **named)
        return trainer, {f.name: storage.read(f)[0]["0.weight"].tobytes() for f in folder.iterdir()}

    _, whole = files(tmp_path / "whole")
    with pytest.raises(Die):
        files(tmp_path / "parts", path, more=[die_at(epoch=5)])
    assert files(tmp_path / "parts", path, resume=True)[1] == whole
    assert 1 < len(whole) < EPOCHS


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [("{epok}", ValueError, r"cannot be filled in \('epok'\); use the fields epoch, cost, "),
     ("{epoch:q}", ValueError, "cannot be filled in"), ("{", ValueError, "{{ for a {"),
     ("{}", ValueError, "cannot be filled in .* use the fields epoch, cost"),
     ("no/{epoch}", FileNotFoundError, "does not exist")],
)  # fmt: skip
def test_invalid_path_raises_before_training(tmp_path, name, error, message):
    net = regression()
    before = theta(net)
    with pytest.raises(error, match=message):
        gpumlp.Trainer(net).fit(X, Y, 1, callbacks=[ModelCheckpoint(tmp_path / name)])
    assert theta(net) == before


@pytest.mark.parametrize("hook", [ModelCheckpoint("m", "val_f1"), ReduceOnPlateau("val_f1")])
def test_missing_column_raises(hook):
    with pytest.raises(ValueError, match=f"{type(hook).__name__} watches 'val_f1'.*validation="):
        gpumlp.Trainer(regression()).fit(X, Y, 1, callbacks=[hook])


def test_nonfinite_parameters_replace_no_model(tmp_path):
    file = tmp_path / "last.safetensors"
    file.write_text(json.dumps("the last good one"))
    net = gpumlp.MLP([4, 2], loss="squared_error", backend="numpy")
    with pytest.raises(FloatingPointError):
        gpumlp.Trainer(net, "sgd", 1e38, batch_size=50).fit(
            10 * X, 10 * Y, 1, callbacks=[ModelCheckpoint(file)]
        )
    assert json.loads(file.read_text()) == "the last good one"
