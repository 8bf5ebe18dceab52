"""The files that the callbacks TensorBoard and MLflow write, read again."""

from __future__ import annotations

import math
import signal
import sys

import numpy as np
import pytest

import gpumlp
from gpumlp.callbacks import MLflow, TensorBoard
from tests.support.kill_worker import STEPS, run
from tests.support.tracking_files import events, mlflow_run, scalars
from tests.support.training_cases import Die, Hook, die_at

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


# ---- TensorBoard -------------------------------------------------------------------------------


TAGS = {
    "cost": "cost/training", "val_cost": "cost/validation", "metric": "metric/training",
    "val_metric": "metric/validation", "lr": "lr", "seconds": "seconds",
}  # fmt: skip


def assert_scalars_are_history(folder, trainer):
    found, history = scalars(folder), trainer.history
    assert set(found) >= {TAGS[name] for name in history}
    steps = [STEPS * (i + 1) for i in range(history.epochs)]
    for name in history:
        points = found[TAGS[name]]
        assert list(points) == steps
        if name != "seconds":
            np.testing.assert_allclose(list(points.values()), history[name], rtol=1e-6)
    return found


def test_scalars_are_the_history(tmp_path):
    trainer = run(epochs=4, train_metric=True, callbacks=[TensorBoard(tmp_path, lr_every=2)])
    found = assert_scalars_are_history(tmp_path, trainer)
    expected = {t: trainer.schedule.lr(0.05, t - 1, 4 * STEPS) for t in range(2, 4 * STEPS + 1, 2)}
    assert found["lr/step"] == pytest.approx(expected, rel=1e-6)


def test_hparams_page_has_settings_and_last_numbers(tmp_path):
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    trainer = run(epochs=2, callbacks=[TensorBoard(tmp_path)])
    settings = {}
    for event in events(tmp_path / "hparams"):
        for value in event.summary.value:
            content = HParamsPluginData.FromString(value.metadata.plugin_data.content)
            for name, each in content.session_start_info.hparams.items():
                settings[name] = each.string_value or each.number_value
    expected = {
        "widths": "5-8-3", "activation": "gelu", "optimizer": "adamw", "optimizer.beta1": 0.9,
        "lr": 0.05, "batch_size": 7, "schedule": "one_cycle", "seed": 3,
        "loss": "softmax_cross_entropy", "clip_norm": 1.0, "backend": "numpy", "parameters": 75,
    }  # fmt: skip
    expected["regularizer"] = trainer.net.regularizer.name
    assert settings | expected == settings
    final = scalars(tmp_path / "hparams")
    assert final["final/val_cost"][2 * STEPS] == pytest.approx(trainer.history["val_cost"][-1])


def test_histograms_of_the_parameters(tmp_path):
    trainer = run(epochs=4, callbacks=[TensorBoard(tmp_path, histograms=2)])
    found = {
        (value.tag, event.step): value.histo
        for event in events(tmp_path)
        for value in event.summary.value
        if value.WhichOneof("value") == "histo"
    }
    names = trainer.net.tensors()
    assert set(found) == {(name, step) for name in names for step in (2 * STEPS, 4 * STEPS)}
    for name, tensor in names.items():
        last = found[name, 4 * STEPS]
        assert (last.num, last.min, last.max) == (tensor.size, tensor.min(), tensor.max())
        assert last.sum == pytest.approx(tensor.sum(dtype=np.float64))


def test_resumed_run_continues_its_events(tmp_path, path):
    with pytest.raises(Die):
        run(path, epochs=5, callbacks=[TensorBoard(tmp_path, lr_every=1), die_at(epoch=3)])
    assert len(scalars(tmp_path)["lr"]) == 3  # one epoch more than in the checkpoint
    hooks = [TensorBoard(tmp_path, lr_every=1)]
    found = assert_scalars_are_history(tmp_path, run(path, epochs=5, resume=True, callbacks=hooks))
    assert list(found["lr/step"]) == list(range(1, 5 * STEPS + 1))
    again = run(epochs=2, callbacks=[TensorBoard(tmp_path)])  # a new run in the same folder
    assert_scalars_are_history(tmp_path, again)


def test_runs_within_one_second_are_read_in_order(tmp_path, path, monkeypatch):
    """The clock may pass a second between two of its readings: the first name's rest is larger."""
    rests = iter([999_999_999, 1])
    monkeypatch.setattr("time.time", lambda: 1_700_000_001.0)
    monkeypatch.setattr("time.time_ns", lambda: 1_700_000_000 * 10**9 + next(rests))
    with pytest.raises(Die):
        run(path, epochs=5, callbacks=[TensorBoard(tmp_path), die_at(epoch=3)])
    trainer = run(path, epochs=5, resume=True, callbacks=[TensorBoard(tmp_path)])
    assert_scalars_are_history(tmp_path, trainer)


@pytest.mark.parametrize("arguments", [{"lr_every": 0}, {"lr_every": -1}, {"histograms": 0}])
def test_invalid_argument_raises(tmp_path, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        TensorBoard(tmp_path, **arguments)


# ---- MLflow ------------------------------------------------------------------------------------


def test_a_text_is_no_truth_value():
    with pytest.raises(TypeError, match="model must be True or False, got 'False'"):
        MLflow(model="False")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return tmp_path / "mlruns"


def test_run_has_settings_metrics_and_model(store, tmp_path):
    hook = MLflow("mine", "first", uri=store, model=True)
    trainer = run(epochs=3, callbacks=[hook], metric={"F1 (macro)": "f1_macro"})
    client, made, metrics = mlflow_run(hook)
    assert client.get_experiment(made.info.experiment_id).name == "mine"
    assert (made.info.run_name, made.info.status) == ("first", "FINISHED")
    assert {"lr": "0.05", "widths": "5-8-3", "optimizer.beta1": "0.9"}.items() <= (
        made.data.params.items()
    )
    assert set(metrics) == {"cost", "val_cost", "val_F1 _macro_", "lr", "seconds"}
    for name, column in trainer.history.items():
        points = metrics["val_F1 _macro_" if "F1" in name else name]
        assert points == {i + 1: value for i, value in enumerate(column)}
    file = client.download_artifacts(hook.run_id, "model.safetensors", str(tmp_path))
    loaded = gpumlp.MLP.load(file, backend="numpy")
    assert loaded.theta.flat.tobytes() == trainer.net.theta.flat.tobytes()


def test_resumed_fit_continues_its_run(store, path):
    first, hook = MLflow(uri=store), MLflow(uri=store)
    with pytest.raises(Die):
        run(path, epochs=4, callbacks=[first, die_at(2 * STEPS + 3)])
    assert mlflow_run(first)[1].info.status == "FAILED"
    trainer = run(path, epochs=4, resume=True, callbacks=[hook])
    _, made, metrics = mlflow_run(hook)
    assert (hook.run_id, made.info.status) == (first.run_id, "FINISHED")
    assert metrics["cost"] == {i + 1: value for i, value in enumerate(trainer.history["cost"])}
    again = MLflow(uri=store)
    run(epochs=1, callbacks=[again])
    assert again.run_id != first.run_id


def test_ctrl_c_ends_the_run_as_killed(store):
    hook = MLflow(uri=store, model=True)
    press = Hook(lambda trainer: trainer.steps == 3 and signal.raise_signal(signal.SIGINT))
    run(epochs=2, callbacks=[hook, press])
    client, made, _ = mlflow_run(hook)
    assert made.info.status == "KILLED"
    assert [file.path for file in client.list_artifacts(hook.run_id)] == ["model.safetensors"]


def test_nan_is_logged(store):
    hook = MLflow(uri=store)
    run(epochs=1, callbacks=[hook], metric=lambda y, p: math.nan)
    assert math.isnan(mlflow_run(hook)[2]["val_metric"][1])


def test_unusable_store_raises(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    with pytest.raises(ValueError, match="MLflow cannot use .*maintenance mode.*ALLOW_FILE_STORE"):
        run(epochs=1, callbacks=[MLflow(uri=tmp_path)])


@pytest.mark.parametrize(
    ("hook", "module"), [(TensorBoard("t"), "tensorboardX"), (MLflow(), "mlflow")]
)
def test_missing_library_raises_with_the_extra(hook, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'pip install "gpumlp\[tracking\]"'):
        run(epochs=1, callbacks=[hook])
