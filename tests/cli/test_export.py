"""gpumlp export: other programs compute from its files what gpumlp predicts."""

import json

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("typer")

import gpumlp
from tests.support.cli_cases import SMALL, X, rows_of, run
from tests.support.data_cases import write_csv


def outputs(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"x": x}), strict=True))


def predictions(model, flowers):
    """(labels, probabilities) of `gpumlp predict`."""
    rows = rows_of(run("predict", model, flowers).stdout)
    return [row.pop("prediction") for row in rows], [list(map(float, r.values())) for r in rows]


def test_onnx_takes_raw_numbers_and_returns_labels(flowers, model, tmp_path):
    printed = run("export", model, tmp_path / "m.onnx").stdout
    assert printed == (
        "inputs   x (batch, 3)\n"
        "outputs  probabilities (batch, 3), label (batch)\n"
        f"wrote {tmp_path / 'm.onnx'}\n"
    )
    found = outputs(tmp_path / "m.onnx", X)
    labels, p = predictions(model, flowers)
    assert found["label"].tolist() == labels
    np.testing.assert_allclose(found["probabilities"], p, rtol=1e-5, atol=1e-7)


def test_onnx_of_the_network_alone(model, tmp_path):
    net = gpumlp.MLP.load(model, "numpy")
    x = X.astype("float32") % 3
    run("export", model, tmp_path / "p.onnx", "--no-raw")
    run("export", model, tmp_path / "l.onnx", "--no-raw", "--logits", "--opset", 21)
    p, logits = (outputs(tmp_path / f"{name}.onnx", x) for name in "pl")
    np.testing.assert_allclose(p["predictions"], net.predict(x), rtol=1e-5)
    np.testing.assert_allclose(logits["y_hat"], net.forward(x), rtol=1e-4, atol=1e-5)


def test_weights_alone(model, tmp_path):
    net = gpumlp.MLP.load(model, "numpy")
    run("export", model, tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as stored:
        assert set(stored) == set(net.tensors())
        for name, tensor in net.tensors().items():
            np.testing.assert_array_equal(stored[name], tensor)
    checkpoint = model.parent / "checkpoint.safetensors"  # without the optimizer's state
    run("export", checkpoint, tmp_path / "m.safetensors")
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    theirs = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    theirs.load_state_dict(load_file(tmp_path / "m.safetensors"), strict=True)
    x = X.astype("float32") % 3
    np.testing.assert_allclose(
        theirs(torch.tensor(x)).detach().numpy(), net.forward(x), rtol=1e-4, atol=1e-5
    )


def test_json(model, tmp_path):
    printed = json.loads(run("export", model, tmp_path / "m.onnx", "--json", "--opset", 20).stdout)
    assert printed == {
        "file": str(tmp_path / "m.onnx"), "opset": 20, "ir_version": 9, "raw": True,
        "inputs": {"x": ["batch", 3]},
        "outputs": {"probabilities": ["batch", 3], "label": ["batch"]},
    }  # fmt: skip
    printed = json.loads(run("export", model, tmp_path / "m.npz", "--json").stdout)
    assert printed["tensors"]["0.weight"] == [16, 3]


def test_a_model_without_preparation(tmp_path):
    net = gpumlp.MLP([3, 4, 2], "gelu", backend="numpy")
    net.save(tmp_path / "m.safetensors")
    run("export", tmp_path / "m.safetensors", tmp_path / "m.onnx")
    x = X.astype("float32") % 3
    found = outputs(tmp_path / "m.onnx", x)["predictions"]
    np.testing.assert_allclose(found, net.predict(x), rtol=1e-5)
    error = run("export", tmp_path / "m.safetensors", tmp_path / "n.onnx", "--raw", code=2).stderr
    assert "--raw needs a model of `gpumlp train`, which knows its data; use --no-raw" in error
    assert not (tmp_path / "n.onnx").exists()


def test_onnx_values_are_in_the_targets_unit(tmp_path):
    y = 1000 + 50 * (X - X.mean(0)) @ (1 / X.std(0))
    np.savez(tmp_path / "t.npz", x=X, y=y)
    run("train", tmp_path / "t.npz", "--out", tmp_path, *SMALL)
    model = tmp_path / "model.safetensors"
    run("predict", model, tmp_path / "t.npz", "--out", tmp_path / "p.npy")
    run("export", model, tmp_path / "m.onnx")
    found = outputs(tmp_path / "m.onnx", X)["values"]
    np.testing.assert_allclose(found, np.load(tmp_path / "p.npy"), rtol=1e-6)


def test_errors_leave_no_file(model, tmp_path):
    torchs = tmp_path / "torchs.safetensors"
    run("export", model, torchs)
    out = tmp_path / "m.onnx"
    for arguments, message in [
        ([model, tmp_path / "m.pt"], "OUT must end in .onnx, .safetensors, .npz"),
        ([model, tmp_path / "no" / "m.onnx"], "the folder"),
        ([tmp_path / "no.safetensors", out], "there is no file"),
        ([torchs, out], "does not say its activations; load it in Python, gpumlp.MLP.load"),
        ([model, out, "--opset", 9], "opset must be at least 13, got 9"),
        ([model, out, "--opset", 999], "opset must be at most"),
        ([model, out, "--opset", "new"], "Invalid value for '--opset'"),
        ([model, tmp_path / "m.npz", "--logits"], "are for .onnx files, not for"),
        ([model], "Missing argument 'OUT'"),
    ]:
        result = run("export", *arguments, code=2)
        assert result.stderr.startswith("gpumlp: error: ")
        assert message in result.stderr
        assert (result.stderr.count("\n"), result.stdout) == (1, "")
    assert not out.exists()


def test_without_onnx(model, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    error = run("export", model, tmp_path / "m.onnx", code=2).stderr
    assert error == 'gpumlp: error: to export: pip install "gpumlp[onnx]"\n'


@pytest.mark.parametrize("zone", ["", "Z"])
@pytest.mark.parametrize("words", [False, True])
def test_times_are_days_in_the_graph(zone, words, tmp_path, rng):
    """As `gpumlp predict` computes it from the texts, in UTC."""
    times = np.datetime64("2020-01-01T00:30:00") + np.arange(90) * np.timedelta64(37, "h")
    columns = {"seen": [f"{each}{zone}" for each in times], "a": rng.normal(size=90).round(3)}
    columns |= {"town": rng.choice(["bonn", "ulm"], 90)} if words else {}
    path = write_csv(tmp_path / "t.csv", {**columns, "y": (columns["a"] * 3).round(3)})
    model = tmp_path / "o" / "model.safetensors"
    run("train", path, "--target", "y", "--out", model.parent, *SMALL)
    run("export", model, tmp_path / "m.onnx")
    days = (times - np.datetime64("1970-01-01")) / np.timedelta64(1, "D")
    inputs = {"x": np.stack([days, columns["a"]], axis=1)}
    if words:
        inputs = {"seen": days[:, None], "a": columns["a"][:, None]}
        inputs["town"] = columns["town"].astype(object)[:, None]
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    [values] = session.run(["values"], inputs)
    want = [float(row["prediction"]) for row in rows_of(run("predict", model, path).stdout)]
    np.testing.assert_allclose(values[:, 0], want, rtol=1e-5, atol=1e-6)
