"""Streamed data on a GPU gives the bits of data in GPU memory, whichever stream is slower."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda import open_device
from gpumlp.loader import examples as placement


def trained(x: Any, y: Any, data: str, hidden: int, precision: str) -> bytes:
    widths = [x.shape[1], hidden, y.shape[1]]
    net = gpumlp.MLP(
        widths, "tanh", loss="squared_error", precision=precision, backend="cupy", seed=1
    )
    trainer = gpumlp.Trainer(net, "adamw", lr=1e-3, batch_size=1000)
    trainer.fit(x, y, 2, data=data, validation=(x[:999], y[:999]), metric=None, progress=False)
    return b"".join(t.tobytes() for t in net.tensors().values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float16", "float32", "float64", "int64"])
@pytest.mark.parametrize("hidden", [8, 4096])  # copies are slower, work is slower
def test_streaming_gives_same_bits(hidden: int, dtype: str, precision: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 9, (20_500, 1001)).astype(dtype)  # a last minibatch of 500
    y = x[:, :7]
    expected = trained(x, y, "device", hidden, precision)
    assert trained(x, y, "stream", hidden, precision) == expected


def test_free_memory() -> None:
    device = open_device()
    before = device.free_memory()
    array = device.empty((1 << 28,), np.uint8)
    assert (1 << 27) < before - device.free_memory() < (1 << 29)
    del array


def test_auto_streams_large_data(tmp_path: Any) -> None:
    """A sparse file with more bytes than the GPU has."""
    device, n = open_device(), 4096
    m = device.free_memory() // (4 * n) + 1
    x = np.memmap(tmp_path / "x", np.uint8, "w+", shape=(m, n))
    net = gpumlp.MLP([n, 8, 1], loss="squared_error", backend="cupy")
    kinds = [(x, np.dtype(np.float32))]
    assert placement.streams(net, kinds, "auto", 256)
    assert not placement.streams(net, [(x[:1000], np.dtype(np.float32))], "auto", 256)
