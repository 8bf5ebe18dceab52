"""Streamed data is never read, cast or copied as a whole."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.feed import take_rows
from gpumlp.io.threads import Threads
from tests.support.streaming_cases import network, problem, trained


def odd_layouts() -> dict[str, Any]:
    a = np.random.default_rng(0).integers(0, 200, (30_000, 40)).astype(np.float32)
    odd = np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(np.float32).reshape(a.shape)
    assert not odd.flags.aligned
    return {
        "plain": a, "columns": np.asfortranarray(a), "swapped": a.astype(">f4"), "odd": odd,
        "part": np.repeat(np.repeat(a, 2, axis=0), 2, axis=1)[::2, ::2], "backward": a[::-1, ::-1],
        "one column": a[:, 3], "bytes": a.astype(np.uint8),
    }  # fmt: skip


@pytest.mark.parametrize("name", odd_layouts())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_only_the_rows_of_a_minibatch_are_read(name: str, dtype: str) -> None:
    source = odd_layouts()[name]
    index = np.random.default_rng(1).integers(0, len(source), 50)
    out = np.empty((50, *source.shape[1:]), dtype)
    take_rows(Threads(2), source, index, out)
    np.testing.assert_array_equal(out, source[index])
    tracemalloc.start()
    try:
        take_rows(Threads(2), source, index, out)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 30_000 < source.nbytes


@pytest.mark.parametrize("data", ["auto", "stream"])
def test_a_file_is_never_in_memory_as_a_whole(data: str, tmp_path: Any) -> None:
    """An autoencoder's 64 MB, which would take 256 MB cast: checked, hashed and measured."""
    m, n = 64_000, 1000
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (m, n))
    x[:] = np.arange(n) % 7
    net = gpumlp.MLP([n, 2, n], "tanh", loss="squared_error", backend="numpy")
    trainer = gpumlp.Trainer(net, "sgd", lr=1e-3, batch_size=4000)
    tracemalloc.start()
    try:
        trainer.fit(
            x, x, 1, validation=(x, x), metric=None, data=data, checkpoint=tmp_path / "c",
            progress=False,
        )  # fmt: skip
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # two workspaces of 4,000 and 4,096 rows, x, y, ŷ and a gradient each: 16 MB an array
    assert peak < 170e6, f"{peak:,}"


# ---- checks, piece by piece ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_value_that_is_not_finite_raises_in_every_chunk(
    dtype: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpumlp.io.chunks.CHUNK_BYTES", 100)
    net, (x, y) = network("squared_error", "float32"), problem(dtype, "squared_error")
    x[41, 5] = x[60, 1] = value
    with pytest.raises(ValueError, match=rf"^x\[41, 5\] is {value} \(2 such values\); remove"):
        trained(net, x, y, "stream")
    x, y = problem(dtype, "squared_error")
    y[69, 2] = value
    with pytest.raises(ValueError, match=rf"^y\[69, 2\] is {value} \(1 such values\); remove"):
        trained(net, x, y, "stream")


def test_value_beyond_the_storage_type_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gpumlp.io.chunks.CHUNK_BYTES", 100)
    net, (x, y) = network("squared_error", "float16", "copies"), problem("float64", "squared_error")
    x[50, 3] = -70000
    with pytest.raises(ValueError, match="x has values up to 70000, beyond the network's float16"):
        trained(net, x, y, "stream")
