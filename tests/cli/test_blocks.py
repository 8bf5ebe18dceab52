"""Commands with networks that have norms, gates, dropout and skips."""

import json

import numpy as np
import pytest

pytest.importorskip("typer")

import gpumlp
from tests.support.cli_cases import (
    LONGER,
    NAMES,
    X,
    flowers_in_python,
    pressed,
    refused,
    rows_of,
    run,
    theta,
)

BLOCKS = ["--norm", "layer", "--dropout", "0.2", "--residual", "1", "--gated", "silu"]
SIZES = ["--hidden", "16,16", "--batch-size", "32", "--backend", "numpy"]
OPTIONS = ["--target", "species", *SIZES]
IN_PYTHON = {"norm": "layer", "dropout": 0.2, "residual": True, "gated": "silu"}


def in_python(path, **settings):
    """The trainer of the options above, data, validation data and scale."""
    _, *rest = flowers_in_python(path)
    loss = gpumlp.LOSSES["softmax_cross_entropy"].set(smoothing=0.1)
    net = gpumlp.MLP([3, 16, 16, 3], loss=loss, backend="numpy", **IN_PYTHON)
    return gpumlp.Trainer(net, "adamw", batch_size=32, **settings), *rest


def test_train_predict_and_evaluate_match_the_python_api(flowers, tmp_path):
    out, model = tmp_path / "o", tmp_path / "o" / "model.safetensors"
    run("train", flowers, *OPTIONS, *BLOCKS, "--epochs", 5, "--out", out, "-q")
    trainer, data, held_out, (mean, std) = in_python(flowers, schedule="warmup_cosine")
    history = trainer.fit(*data, 5, validation=held_out, progress=False)
    saved = gpumlp.MLP.load(model, "numpy")
    assert saved.blocks == trainer.net.blocks
    for name, tensor in trainer.net.tensors().items():
        np.testing.assert_allclose(saved.tensors()[name], tensor, 1e-5, 1e-6, err_msg=name)
    columns = json.loads((out / "history.json").read_text())["columns"]
    np.testing.assert_allclose(columns["val_cost"], history["val_cost"], 1e-5)
    p = saved.predict(((X - mean) / std).astype(np.float32))
    run("predict", model, flowers, "--out", tmp_path / "p.csv")
    rows = rows_of((tmp_path / "p.csv").read_text())
    names = sorted(set(NAMES))
    found = [[float(row[f"probability_{name}"]) for name in names] for row in rows]
    np.testing.assert_allclose(found, p, 1e-4, 1e-6)
    accuracy = np.mean(np.array(names)[p.argmax(1)] == NAMES)
    found = json.loads(run("evaluate", model, flowers, "--json").stdout)
    assert found["result"]["accuracy"] == pytest.approx(accuracy, abs=1e-12)


def test_shows_the_blocks(flowers, tmp_path):
    said = "gate of silu, dropout 0.2, skips"
    printed = run("train", flowers, *OPTIONS, *BLOCKS, "--plan").stdout
    assert f"16-16-3, identity → identity with layer norm, {said}" in printed.replace("\n", " ")
    found = json.loads(run("train", flowers, *OPTIONS, *BLOCKS, "--plan", "--json").stdout)
    settings = found["network"]
    assert gpumlp.MLP([3, 16, 16, 3], backend="numpy", **IN_PYTHON).blocks == gpumlp.MLP(
        [3, 16, 16, 3], backend="numpy", **{name: settings[name] for name in IN_PYTHON}
    ).blocks  # fmt: skip
    plain = json.loads(run("train", flowers, *OPTIONS, "--plan", "--json").stdout)["network"]
    assert not {*IN_PYTHON} & {*plain}


def test_find_lr_tests_the_network_that_train_trains(flowers):
    trainer, data, *_ = in_python(flowers)
    curve = trainer.find_lr(data[0].astype(np.float32), data[1])
    found = json.loads(run("find-lr", flowers, *OPTIONS, *BLOCKS, "--json").stdout)
    np.testing.assert_array_equal(found["curve"]["loss"], curve.loss)


def test_a_config_file_repeats_a_run(flowers, tmp_path):
    run("train", flowers, *OPTIONS, *BLOCKS, "--epochs", 2, "--out", tmp_path / "a", "-q")
    written = (tmp_path / "a" / "run.toml").read_text()
    for line in ('norm = "layer"', "dropout = 0.2", "residual = 1", 'gated = "silu"'):
        assert line in written.splitlines()
    file = tmp_path / "a" / "run.toml"
    run("train", "--config", file, "--out", tmp_path / "b", "-q")
    np.testing.assert_array_equal(theta(tmp_path / "b"), theta(tmp_path / "a"))
    run("train", "--config", file, "--dropout", 0, "--out", tmp_path / "c", "-q")
    assert not np.array_equal(theta(tmp_path / "c"), theta(tmp_path / "a"))


@pytest.mark.parametrize("models", [1, 2])
def test_resumes_with_the_same_masks(models, flowers, tmp_path, monkeypatch):
    options = [*OPTIONS, *BLOCKS, *LONGER, "--models", models, "-q"]
    run("train", flowers, *options, "--out", tmp_path / "whole")
    out = ["--out", tmp_path / "cut"]
    with pressed(monkeypatch, 26):  # of 48, in the seventh epoch
        if models == 1:
            run("train", flowers, *options, *out, code=130)
    run("train", flowers, *options, *out, "--resume")
    kind = gpumlp.MLP if models == 1 else gpumlp.Ensemble
    whole, cut = (kind.load(tmp_path / n / "model.safetensors", "numpy") for n in ("whole", "cut"))
    one, other = (net.theta if models > 1 else net.theta.flat for net in (whole, cut))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--norm", "group"], "unknown norm 'group'; known: layer, rms, batch"),
        (["--norm", "batch", "--batch-size", "1"], "--norm batch needs minibatches of two"),
        (["--dropout", "1"], "--dropout must be a number from 0 to below 1, as 0.1; got 1.0"),
        (["--gated", "swish"], "unknown gated 'swish'"),
        (["--residual", "-1"], "Invalid value for '--residual'"),
        (["--hidden", "none", "--dropout", "0.1"], "--dropout 0.1 needs 1 hidden layer or more"),
        (["--residual", "2"], "--residual 2 needs 3 hidden layers or more, but --hidden 16,16"),
    ],
    ids=" ".join,
)
def test_invalid_options(options, said, flowers):
    if "Invalid" in said or "minibatches" in said:  # the latter after what train says of the data
        assert said in run("train", flowers, *OPTIONS, *options, code=2).stderr
    else:
        assert said in refused("train", flowers, *OPTIONS, *options)


def test_batch_norm_is_trained_predicted_with_and_tried(flowers, tmp_path):
    options = [*OPTIONS, "--norm", "batch", "--epochs", 40, "-q"]
    for models in (1, 2):
        out = tmp_path / f"{models}"
        run("train", flowers, *options, "--models", models, "--out", out)
        kind = gpumlp.MLP if models == 1 else gpumlp.Ensemble
        net = kind.load(out / "model.safetensors", "numpy")
        tensors = net.tensors() if models == 1 else net[1].tensors()
        assert abs(tensors["2.norm.running_mean"]).min() > 0
        found = run("evaluate", out / "model.safetensors", flowers, "--json").stdout
        assert json.loads(found)["result"]["accuracy"] > 0.8
    tried = ["--try", "norm=batch,none", "--folds", 2, "--epochs", 2, "--json"]
    printed = run("search", flowers, *OPTIONS, *tried, "--out", tmp_path / "s").stdout
    found = json.loads(printed)["search"]["candidates"]
    assert {each["options"]["norm"] for each in found} == {"batch", "none"}


def test_a_search_compares_blocks(flowers, tmp_path):
    """The best candidate's training is that of train with its options."""
    out, tried = tmp_path / "s", ["--try", "norm=none,layer", "--try", "residual=0,1"]
    same = [*OPTIONS, "--gated", "gelu", "--epochs", 2]
    printed = run("search", flowers, *same, *tried, "--folds", 2, "--out", out, "--json").stdout
    found = json.loads(printed)["search"]["candidates"]
    best = max(found, key=lambda each: each["mean"]["accuracy"])["options"]
    chosen = [word for name in ("norm", "residual") for word in (f"--{name}", best[name])]
    run("train", flowers, *same, *chosen, "--validation", 0, "--out", tmp_path / "t", "-q")
    assert np.array_equal(theta(out), theta(tmp_path / "t"))


def test_none_overrides_a_config_file(flowers, tmp_path):
    (tmp_path / "c.toml").write_text('norm = "rms"\ngated = "silu"\nresidual = 1\n')
    given = ["train", flowers, *OPTIONS, "--config", tmp_path / "c.toml", "--plan"]
    assert "rms norm, gate of silu, skips" in run(*given).stdout
    none = ["--norm", "none", "--gated", "none", "--residual", 0]
    assert "16-16-3, relu → identity, softmax" in run(*given, *none).stdout


def test_exports_the_model_with_its_preparation(flowers, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, made = tmp_path / "o" / "model.safetensors", tmp_path / "m.onnx"
    run("train", flowers, *OPTIONS, *BLOCKS, "--epochs", 2, "--out", tmp_path / "o", "-q")
    run("export", model, made)
    session = onnxruntime.InferenceSession(made)
    label, p = session.run(["label", "probabilities"], {"x": X})
    rows = rows_of(run("predict", model, flowers).stdout)
    assert [row["prediction"] for row in rows] == list(label)
    found = [[float(row[f"probability_{name}"]) for name in sorted(set(NAMES))] for row in rows]
    np.testing.assert_allclose(p, found, 1e-4, 1e-6)
