"""Products on a device: epilogues, factors and measured algorithms, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda import open_device
from gpumlp.backends.cuda.protocol import Epilogue, mask_shape
from tests.support.cuda_networks import assert_same, fusible_network, random_labels
from tests.support.harness import epilogues

TOLERANCE = {"float32": 1e-5, "tf32": 3e-3, "float16": 3e-3, "bfloat16": 2e-2}  # of the largest
DTYPES = {"tf32": "float32"}


@pytest.fixture(autouse=True)
def _fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epilogues are used without a comparison with the fallbacks, which compute nothing here."""
    tuner = open_device().tuner
    monkeypatch.setattr(tuner, "comparing", False)
    monkeypatch.setattr(tuner, "_fuses", lambda gemm: True)


def dtype(precision: str) -> Any:
    if precision == "bfloat16":
        return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    return np.dtype(DTYPES.get(precision, precision))


def placed(a: Any, kind: Any) -> tuple[Any, Any]:
    """The array on the device, and its rounded values in float64."""
    device = open_device()
    on_device = device.empty(a.shape, kind)
    device.upload(a.astype(kind), on_device)
    return on_device, a.astype(kind).astype(np.float64)


def close(got: Any, want: Any, precision: str) -> None:
    host = open_device().download(got).astype(np.float64)
    np.testing.assert_allclose(host, want, rtol=0, atol=TOLERANCE[precision] * np.abs(want).max())


def multiply(a: Any, b: Any, out: Any, epilogue: Epilogue, **how: Any) -> None:
    """A product with an epilogue.  Where cublasLt has none, our kernels do it: no test of it."""
    device, fallbacks = open_device(), []
    known = device.tuner.choices
    before = {*known}
    if not device.gemm(a, b, out, epilogue=epilogue, fallback=lambda: fallbacks.append(1), **how):
        assert [known[gemm].candidates for gemm in {*known} - before] == [0], fallbacks
        pytest.skip(f"cublasLt has no algorithm for {epilogue.name}")


@pytest.mark.parametrize("m", [1, 129])
@pytest.mark.parametrize("n", [8, 200, 1024])
@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("pair", ["bias", "relu_bias", "gelu_bias", "relu", "gelu"])
def test_epilogues(pair: str, precision: str, n: int, m: int) -> None:
    """Forward and backward: one product writes the mask or z that the other reads."""
    device, rng, kind = open_device(), np.random.default_rng(n), dtype(precision)
    a, a64 = placed(rng.normal(size=(m, 64)), kind)
    b, b64 = placed(rng.normal(size=(n, 64)) / 8, kind)
    bias, bias64 = placed(rng.normal(size=n), kind)
    out = device.empty((m, n), kind)
    forward, aux, aux64 = pair, None, None
    if pair in ("relu", "gelu"):
        forward = f"{pair}_aux_bias"
        masked = pair == "relu"
        aux = device.empty(mask_shape(m, n) if masked else (m, n), np.uint8 if masked else kind)
        aux64 = np.zeros(mask_shape(m, n), np.uint8) if masked else np.zeros((m, n))
    want = epilogues.apply(forward, a64 @ b64.T, bias64, aux64)
    multiply(a, b, out, Epilogue(forward, bias, aux), transpose_b=True, compute=precision)
    close(out, want, precision)
    if aux is None:
        return
    # backward: from the values of the device itself, because a z near 0 may be on either side
    h64 = device.download(out).astype(np.float64)
    aux64 = np.packbits(h64 > 0, axis=1, bitorder="little") if pair == "relu" else None
    if aux64 is None:
        aux64 = device.download(aux).astype(np.float64)
    db, gz = device.empty((n,), kind), device.empty((m, n), kind)
    g, g64 = placed(rng.normal(size=(m, 32)), kind)
    W, W64 = placed(rng.normal(size=(32, n)) / 6, kind)
    db64 = np.empty(n)
    want = epilogues.apply(f"d{pair}_bgrad", g64 @ W64, db64, aux64)
    multiply(g, W, gz, Epilogue(f"d{pair}_bgrad", db, aux), compute=precision)
    close(gz, want, precision)
    close(db, db64, precision)


@pytest.mark.parametrize("precision", ["float64", *TOLERANCE])
def test_factors(precision: str) -> None:
    device, rng, kind = open_device(), np.random.default_rng(0), dtype(precision)
    a, a64 = placed(rng.normal(size=(96, 130)), kind)
    b, b64 = placed(rng.normal(size=(96, 72)), kind)
    factors = device.empty((2,), "float64" if precision == "float64" else "float32")
    for alpha, beta in [(1.0, 0.0), (1.0, 1.0), (-0.5, 0.75)]:
        out, before = placed(rng.normal(size=(130, 72)), kind)
        device.upload(np.array([alpha, beta]), factors)
        device.gemm(a, b, out, transpose_a=True, compute=precision, factors=factors)
        want = alpha * (a64.T @ b64) + beta * before
        error = np.abs(device.download(out).astype(np.float64) - want).max() / np.abs(want).max()
        assert error < TOLERANCE.get(precision, 1e-14)


@pytest.mark.parametrize("padding", [0, 24])
@pytest.mark.parametrize("letters", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("precision", ["float64", *TOLERANCE])
def test_batches(precision: str, letters: tuple[bool, bool], padding: int) -> None:
    device, rng, kind = open_device(), np.random.default_rng(0), dtype(precision)
    a, a64 = placed(rng.normal(size=(5, 64, 64)), kind)
    b, b64 = placed(rng.normal(size=(5, 64, 64)), kind)
    whole = device.empty((5, 64 * 64 + padding), kind)
    device.fill(whole, 3)
    out = whole[:, : 64 * 64].reshape(5, 64, 64)
    device.gemm(a, b, out, transpose_a=letters[0], transpose_b=letters[1], compute=precision)
    a64, b64 = (x.swapaxes(1, 2) if t else x for x, t in zip((a64, b64), letters, strict=True))
    want, got = a64 @ b64, device.download(whole).astype(np.float64)
    error = np.abs(got[:, : 64 * 64].reshape(want.shape) - want).max() / np.abs(want).max()
    assert error < TOLERANCE.get(precision, 1e-14)
    assert (got[:, 64 * 64 :] == 3).all()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_16_bit_inputs_with_float32_result(precision: str) -> None:
    """Sums of 16-bit products in float32, split or not."""
    device, rng, kind = open_device(), np.random.default_rng(0), dtype(precision)
    a, a64 = placed(rng.normal(size=(16384, 64)), kind)
    b, b64 = placed(rng.normal(size=(16384, 64)), kind)
    out = device.empty((64, 64), "float32")
    device.gemm(a, b, out, transpose_a=True, compute=precision)
    close(out, a64.T @ b64, "float32")


@pytest.mark.parametrize("compute", ["bfloat16", "tf32"])
def test_views_with_any_alignment(compute: str) -> None:
    device, rng, kind = open_device(), np.random.default_rng(0), dtype(compute)
    b, b64 = placed(rng.normal(size=(64, 136)), kind)
    out = device.empty((40, 136), kind)
    for elements in (0, 1, 3, 8):
        whole, whole64 = placed(rng.normal(size=elements + 40 * 64), kind)
        device.gemm(whole[elements:].reshape(40, 64), b, out, compute=compute)
        close(out, whole64[elements:].reshape(40, 64) @ b64, compute)


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Any:
    tuner = open_device().tuner
    monkeypatch.setattr(tuner, "measuring", True)
    return tuner


def test_measured_product(measuring: Any) -> None:
    device, rng = open_device(), np.random.default_rng(0)
    a, a64 = placed(rng.normal(size=(520, 264)), np.dtype("float32"))
    b, b64 = placed(rng.normal(size=(328, 264)), np.dtype("float32"))
    out = device.empty((520, 328), "float32")
    device.gemm(a, b, out, transpose_b=True, compute="float32")
    close(out, a64 @ b64.T, "float32")
    choice = list(measuring.choices.values())[-1]
    assert 0 < choice.microseconds <= (choice.first or np.inf)
    assert choice.candidates >= 1


@pytest.mark.parametrize("f", ["relu", "gelu"])
def test_measured_training(measuring: Any, f: str) -> None:
    """The results agree, whichever variants the measurement chooses."""
    net = fusible_network(f, (5, 40, 24, 8, 3))
    gpu = gpumlp.MLP(**net.config(), backend="cupy")
    gpu.assign(net.tensors())
    x, y = random_labels(net, 50)
    for each in (net, gpu):
        gpumlp.Trainer(each, "momentum", lr=0.05, batch_size=16).fit(x, y, 5, progress=False)
    assert_same(gpu.theta.flat, net.theta.flat, 2e-3)
