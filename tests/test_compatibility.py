"""Files that an earlier version wrote are read, and give the numbers that it gave.

Version 0.1.0 at commit 6b24d72 wrote all of tests/resources/compatibility/ but two_networks.*, on
Linux with NumPy 2.4.6 and OpenBLAS:

- models.npz: inputs x, and for each model its targets, predictions and cost;
- *.safetensors: the models, two of them trained by `gpumlp train` on houses.csv, whose predictions
  are in predictions.csv and districts.csv;
- checkpoint.safetensors: a fit that was cut in the middle of its tenth epoch; checkpoint.npz: its
  data, and the θ, the history and the outcome of the same fit without the cut;
- run.toml and history.json: of the run that wrote houses.safetensors; houses_cut.safetensors: the
  checkpoint of that run after Ctrl-C in the middle of its fifth epoch;
- two_networks.*: the first model of `gpumlp train --models 2`, and its predictions with --std.

Another BLAS adds the terms of a product in another order.  So numbers are compared to rtol 1e-6 in
float64 and to 1e-5 in float32.  On a machine like the one above all of them are equal bit for bit.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer")

import gpumlp
from gpumlp import callbacks, data
from tests.support.cli_cases import rows_of, run

FILES = Path(__file__).parent / "resources" / "compatibility"
RTOL = {"float64": 1e-6, "float32": 1e-5}
OWN = gpumlp.Activation(
    "squareplus",
    f=lambda z, b: 0.5 * (z + np.sqrt(z * z + b)),
    df=lambda z, h, b: 0.5 + 0.5 * z / np.sqrt(z * z + b),
    cuda_f="real(0.5) * (z + sqrt(z * z + b))",
    cuda_df="real(0.5) + real(0.5) * z / sqrt(z * z + b)",
    reads="z",
    params={"b": 4.0},
)


def load(name: str) -> gpumlp.MLP:
    return gpumlp.MLP.load(FILES / f"{name}.safetensors", backend="numpy", functions=[OWN])


@pytest.mark.parametrize(
    ("name", "summary"),
    [
        ("gelu_l2_float32", "MLP(5-9-7-3, gelu, squareplus → identity, softmax_cross_entropy"),
        ("softmax_output_float64", "MLP(5-8-3, tanh → softmax, negative_log_likelihood"),
        ("elastic_net_huber", "MLP(5-6-4-2, leaky_relu → identity, huber"),
        ("poisson_float32", "MLP(5-1, no hidden layer → identity, poisson"),
    ],
)
def test_model_predicts_as_before(name: str, summary: str) -> None:
    stored, net = np.load(FILES / "models.npz"), load(name)
    assert repr(net).startswith(summary)
    rtol = RTOL[net.precision]
    p = net.predict(stored["x"])
    assert p.dtype == stored[f"{name}.predictions"].dtype == net.precision
    np.testing.assert_allclose(p, stored[f"{name}.predictions"], rtol=rtol, atol=rtol)
    J = net.cost(stored["x"], stored[f"{name}.y"])  # the loss's and the regulariser's parameters
    np.testing.assert_allclose(J, stored[f"{name}.cost"], rtol=rtol)


def test_parameters_of_functions_are_kept() -> None:
    net = load("elastic_net_huber")
    config = net.config()
    assert config["regularizer"] == {"name": "elastic_net", "l1": 1e-3, "l2": 1e-2, "biases": 0.5}
    assert config["activation"] == [{"name": "leaky_relu", "slope": 0.2}] * 2
    assert config["loss"] == {"name": "huber", "delta": 0.5}
    assert config["initializer"] == {"name": "orthogonal", "gain": 1.0}
    assert load("gelu_l2_float32").f[2].params == {"b": 2.0}
    path = FILES / "gelu_l2_float32.safetensors"
    assert gpumlp.storage.load_extra(path) == {"note": "kept"}


@pytest.mark.parametrize(
    ("model", "predictions", "precision"),
    [
        ("houses", "predictions.csv", "float64"),
        ("districts", "districts.csv", "float32"),
        ("two_networks", "two_networks.csv", "float64"),
    ],
)
def test_model_of_the_command_line_predicts_as_before(
    model: str, predictions: str, precision: str, tmp_path: Path
) -> None:
    """The preparation of words and missing values is in the model's file."""
    run("predict", FILES / f"{model}.safetensors", FILES / "houses.csv",
        "--out", tmp_path / "now.csv", *["--std"] * (model == "two_networks"))  # fmt: skip
    now, before = (
        rows_of(path.read_text("utf-8")) for path in (tmp_path / "now.csv", FILES / predictions)
    )
    assert len(now) == len(before) == 150
    for row, expected in zip(now, before, strict=True):
        assert list(row) == list(expected)
        for name, text in expected.items():
            if name == "prediction" and model == "districts":
                assert row[name] == text
            else:
                np.testing.assert_allclose(float(row[name]), float(text), rtol=RTOL[precision])


def test_preparation_is_read() -> None:
    preparation = data.Preparation.load(FILES / "houses.safetensors")
    assert preparation.task == "regression"
    assert preparation.features == ("area", "built", "district", "heating")
    assert preparation.categories["heating"] == ("electric", "gas")
    assert preparation.others == ("heating",)
    assert preparation.holes == ("area", "built", "heating")
    assert data.Preparation.load(FILES / "districts.safetensors").classes == (
        "centre", "harbour", "hills",
    )  # fmt: skip


def test_checkpoint_goes_on_as_before(tmp_path: Path) -> None:
    """With the states of the callbacks, early stopping, the average and the optimizer."""
    shutil.copy(FILES / "checkpoint.safetensors", tmp_path / "run.safetensors")
    stored = np.load(FILES / "checkpoint.npz")
    x, y = stored["x"], stored["y"]
    net = gpumlp.MLP([6, 12, 8, 1], "gelu", loss="squared_error", regularizer=gpumlp.L2(1e-4),
                     precision="float64", backend="numpy", seed=0)  # fmt: skip
    groups = {"biases": gpumlp.Group(decay=0.0), "first": gpumlp.Group(lr=0.5)}
    trainer = gpumlp.Trainer(
        net, "adamw", lr=0.02, batch_size=16, schedule="warmup_cosine", clip_norm=1.0, seed=2,
        ema=0.9, groups=groups,
    )  # fmt: skip
    history = trainer.fit(
        x[:80], y[:80], epochs=40, validation=(x[80:], y[80:]), progress=False,
        early_stopping=gpumlp.EarlyStopping(patience=4),
        callbacks=[
            callbacks.ReduceOnPlateau(factor=0.5, patience=1),
            callbacks.ModelCheckpoint(tmp_path / "best.safetensors", monitor="val_cost"),
            callbacks.CSVLogger(tmp_path / "log.csv"),
        ],
        checkpoint=tmp_path / "run.safetensors", checkpoint_every=3, resume=True,
    )  # fmt: skip
    assert trainer.steps == 80  # of which 48 are in the file
    assert history.stopped == stored["stopped"] == "early"
    for name in set(history) - {"seconds"}:
        np.testing.assert_allclose(history[name], stored[f"history.{name}"], rtol=1e-6)
    for name, tensor in net.tensors().items():
        np.testing.assert_allclose(tensor, stored[f"theta.{name}"], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("resume", [False, True])
def test_run_toml_repeats_or_resumes_the_run(
    resume: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("run.toml", "houses.csv"):
        shutil.copy(FILES / name, tmp_path)
    folder = tmp_path / "houses"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    # the first weights of that version, which a resumed run does not need
    of_then = {"gelu": "he", "identity": "glorot"}
    monkeypatch.setattr(
        gpumlp.structure, "default_initializer", lambda f: gpumlp.INITIALIZERS[of_then[f.name]]
    )
    if resume:
        shutil.copy(FILES / "houses_cut.safetensors", folder / "checkpoint.safetensors")
    lines = run("train", "--config", "run.toml", *["--resume"] * resume).stderr.splitlines()
    trained = [line.split(":")[0] for line in lines if line.startswith("epoch ")]
    assert trained[0] == ("epoch 5" if resume else "epoch 1")
    now, before = (
        json.loads((path / "history.json").read_text("utf-8")) for path in (folder, FILES)
    )
    assert now.keys() == before.keys()
    assert now["stopped"] == before["stopped"]
    # that version's scores were those of the standardised target; a checkpoint keeps its epochs'
    [scale] = data.Preparation.load(folder / "model.safetensors").y_scale
    units = np.where(np.arange(len(now["columns"]["lr"])) < 4 * resume, 1.0, scale)
    for name in set(before["columns"]) - {"seconds"}:
        unit = units if name.endswith("neg_mean_absolute_error") else 1.0
        want = np.array(before["columns"][name]) * unit
        np.testing.assert_allclose(now["columns"][name], want, rtol=1e-6)
    written = gpumlp.MLP.load(folder / "model.safetensors", backend="numpy")
    for name, tensor in load("houses").tensors().items():
        np.testing.assert_allclose(written.tensors()[name], tensor, rtol=1e-6, atol=1e-9)
    again = (folder / "run.toml").read_text("utf-8").splitlines()
    assert set((FILES / "run.toml").read_text("utf-8").splitlines()[1:]) <= set(again)
