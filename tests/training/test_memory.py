"""The memory plan of a fit against the backends' allocations, and out-of-memory errors."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.training.memory import NAMES
from tests.support.harness.host_device import HostDevice
from tests.support.memory_cases import (
    LABELS,
    RNG,
    WEIGHTS,
    M,
    X,
    check,
    network,
    on_harness,
    parts,
)
from tests.support.refusal import refusal

PRECISIONS = ["float64", "float32", "tf32", "bfloat16", "float16"]


@pytest.fixture(autouse=True)
def _by_reference_counts() -> Any:
    """Memory must be freed with its last user, not when Python collects garbage."""
    gc.disable()
    yield
    gc.enable()


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "low": {"memory": "low"},
    "one minibatch": {"batch_size": 512},
    "of one example": {"batch_size": 1},
    "even minibatches": {"batch_size": 45, "f": "relu"},
    "linear": {"hidden": (), "optimizer": "sgd"},
    "one layer": {"hidden": (8,), "optimizer": "momentum", "f": "relu"},
    "deep": {"hidden": (8, 16, 8, 40, 8, 8), "f": ["relu", "silu", "gelu", "tanh", "mish", "gelu"],
             "memory": "low"},
    "wide": {"hidden": (9001, 4)},
    "muon": {"optimizer": "muon"},
    "muon of one layer": {"optimizer": "muon", "hidden": ()},
    "averaged": {"ema": 0.99, "validation": (X[:33], LABELS[:33]), "early_stopping": 2},
    "clipped lion": {"optimizer": "lion", "clip_norm": 1.0},
    "weighted": {"sample_weight": WEIGHTS},
    "weighted classes": {"class_weight": "balanced"},
    "weighted, smoothed classes": {"class_weight": [1, 2, 3], "train_metric": True,
        "loss": gpumlp.LOSSES["softmax_cross_entropy"].set(smoothing=0.1)},
    "validated": {"validation": (X[:33], LABELS[:33], WEIGHTS[:33]), "early_stopping": 2},
    "no metric": {"validation": (X[:33], LABELS[:33]), "metric": None},
    "all": {"sample_weight": WEIGHTS, "validation": (X[:33], LABELS[:33]), "train_metric": True,
            "early_stopping": gpumlp.EarlyStopping(3, restore_best=False), "memory": "low"},
    "rows of probabilities": {"y": np.eye(3)[LABELS]},
    "folded": {"optimizer": "sgd"},
    "streamed": {"data": "stream"},
    "streamed bytes": {"data": "stream", "x": (X * 40).astype(np.int8), "batch_size": 45,
                       "validation": (X[:33], LABELS[:33])},
    "streamed rows": {"data": "stream", "y": np.eye(3)[LABELS], "sample_weight": WEIGHTS},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        (name, precision)
        for name in CASES
        for precision in PRECISIONS
        if name != "wide" and (precision in ("float32", "bfloat16") or name in ("plain", "all"))
    ],
)
def test_plan_equals_the_allocated_bytes(name: str, precision: str) -> None:
    """Byte for byte; a fit frees all that it allocated."""
    net_settings, settings, asked = parts(CASES[name])
    device, net = on_harness(precision, **net_settings)
    trainer = gpumlp.Trainer(net, **settings)
    planned = check(device, trainer, asked)
    assert device.live == planned.held
    total = sum(getattr(planned, part) for part in NAMES)
    assert (planned.total, planned.missing) == (total, total - planned.held)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_wide_layer_needs_no_more_scratch(precision: str) -> None:
    net_settings, settings, asked = parts(CASES["wide"])
    device, net = on_harness(precision, **net_settings)
    trainer = gpumlp.Trainer(net, **settings)
    planned = trainer.memory(**asked)
    trainer.fit(**asked, epochs=1, progress=False)
    assert (device.live, device.peak) == (planned.held, planned.total)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", "float16"])
def test_slots_of_16_bits(precision: str) -> None:
    planned = []
    for kind in (None, "bfloat16"):
        device, net = on_harness(precision)
        trainer = gpumlp.Trainer(net, slot_precision=kind)
        planned.append(check(device, trainer, {"x": X, "y": LABELS}))
    assert planned[0].slots == 2 * planned[1].slots == 8 * net.theta.layout.size


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("name", ["plain", "low", "all", "weighted", "even minibatches"])
def test_plan_of_the_numpy_backend(name: str, precision: str) -> None:
    """But for 256 bytes per array, which align it, and the memory of Python itself."""
    net_settings, settings, asked = parts(CASES[name])
    net_settings["hidden"] = (300, 500, 400)
    asked = {k: np.tile(v, (10, 1)) if k == "x" else v for k, v in asked.items()}
    asked |= {k: np.tile(v, 10) for k, v in asked.items() if k in ("y", "sample_weight")}
    net = network(precision=precision, **net_settings)
    settings["batch_size"] = 600
    # threads, modules, and what is kept of a training, whatever tests ran before
    other = network(precision=precision, **net_settings)
    gpumlp.Trainer(other, **settings).fit(**asked, epochs=1, progress=False)
    tracemalloc.start()
    try:
        trainer = gpumlp.Trainer(net, **settings)
        planned = trainer.memory(**asked)
        start = tracemalloc.get_traced_memory()[0]
        seen = []
        hook = gpumlp.Callback()
        hook.on_epoch_end = lambda *_: seen.append(tracemalloc.get_traced_memory()[0])  # type: ignore
        trainer.fit(**asked, epochs=2, callbacks=[hook], progress=False)
        end = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # an example's weight is on the host, too
    weights = 8 * len(asked["x"]) if "sample_weight" in asked else 0
    assert 0 <= seen[-1] - start - planned.missing - weights < 130_000
    assert end - start < 60_000
    assert planned.missing > 2_000_000


def test_numbers_of_examples_stand_for_arrays() -> None:
    _, net = on_harness()
    trainer = gpumlp.Trainer(net, batch_size=32)
    arrays = trainer.memory(X, LABELS, validation=(X[:20], LABELS[:20]), sample_weight=WEIGHTS)
    assert trainer.memory(M, validation=20, sample_weight=True) == arrays
    assert trainer.memory(np.int64(M), validation=0) == trainer.memory(X)
    # another minibatch's size is another plan
    trainer.batch_size = 64
    assert 1.9 < trainer.memory(M).step / arrays.step < 2.1
    refusal(ValueError, lambda: trainer.memory(0), "x must be at least 1, got 0")
    for m in (1 << 62, 10**30, 10**400):
        for call in (trainer.memory, trainer.explain):
            refusal(ValueError, lambda m=m, call=call: call(m), "x must be at most ")
        refusal(ValueError, lambda m=m: trainer.memory(9, validation=m), "x_val must be at most")


def test_usable_data_needs_no_memory() -> None:
    net = network(precision="float64", loss="squared_error")
    trainer, y = gpumlp.Trainer(net), np.zeros((M, 3))
    assert trainer.memory(X, y).data == 0
    assert trainer.memory(X.astype("float32"), y).data == X.nbytes
    assert trainer.memory(X[:, ::-1], y.astype(int)).data == X.nbytes + y.nbytes
    assert trainer.memory(M).data == X.nbytes + y.nbytes


def test_plan_equals_numbers_computed_by_hand() -> None:
    """784-256-256-10, gelu, adamw in bfloat16; arrays are padded to 256 bytes."""
    backend = CudaBackend(HostDevice(multiprocessors=132), "bfloat16")
    net = gpumlp.MLP([784, 256, 256, 10], "gelu", backend=backend)
    planned = gpumlp.Trainer(net, batch_size=128).memory(1000)
    p = 784 * 256 + 256 * 256 + 256 * 10 + 256 + 256 + 128
    assert (planned.theta, planned.rounded, planned.slots) == (4 * p, 2 * p, 8 * p)
    assert 2 * p < planned.gradient <= 2 * p + 64  # with the loss scale
    assert planned.data == 1000 * (784 * 2 + 4)
    # while gz_2 is computed: x, h_1, z_1, h_2, z_2, gz_2 and gz_3
    assert planned.step == 128 * 2 * (784 + 5 * 256 + 10)
    blocks, of_norms = 8 * 132, 2 * 132 * 2 * 4096  # the sums of 2 blocks, for γ and β
    assert planned.scratch == 4 * of_norms + 4 * (4 * blocks) + 8
    message = str(planned).splitlines()
    assert repr(planned) == str(planned)
    assert message[0].split("  ")[0] == "1,000 examples, batch_size 128"
    assert message[0].endswith(" MiB")
    assert len({len(line) for line in message}) == 1
    assert f"θ in 16 bits {2 * p / 2**20:29,.2f}".split() in [line.split() for line in message]
    assert message[-2].split() == ["total", f"{planned.total / 2**20:,.2f}"]


# ---- out of memory -------------------------------------------------------------------------------


def refused(call: Any, device: HostDevice) -> str:
    """The text of the error; when it is caught, all memory of the attempt is free again."""
    before = device.live
    with pytest.raises(gpumlp.DeviceError) as caught:
        call()
    assert device.live == before
    assert isinstance(caught.value.__cause__, gpumlp.DeviceError)
    return str(caught.value)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("memory", ["normal", "low"])
def test_out_of_memory_error_suggests_what_fits(precision: str, memory: str) -> None:
    """The size in the error fits, and a slightly larger one does not."""
    device, net = on_harness(precision, (400, 400, 400))
    x, y = RNG.normal(size=(900, 12)), RNG.integers(0, 3, 900)
    asked: dict[str, Any] = {"sample_weight": np.ones(900), "validation": (x[:50], y[:50])}
    asked["data"] = "device"
    trainer = gpumlp.Trainer(net, batch_size=768, memory=memory)
    before = net.theta.flat.values.tobytes()
    planned = trainer.memory(x, y, **asked)
    device.limit = planned.held + (planned.missing * 2) // 3

    def fit() -> None:
        trainer.fit(x, y, 1, **asked, progress=False)

    message = refused(fit, device)
    assert net.theta.flat.values.tobytes() == before
    assert str(planned) in message
    assert message.startswith(
        f"out of GPU memory: {planned.missing / 2**20:,.2f} MiB were to be allocated and "
        f"{planned.missing * 2 // 3 / 2**20:,.2f} were free\n"
    )
    first, *ways = message.splitlines()[-1].removeprefix("use ").split(", or ")
    assert first.startswith("accumulate=")
    assert len(ways) == (2 if memory == "normal" else 1)
    assert ways[-1].endswith(' and memory="low"') == (memory == "normal")
    trainer.batch_size = size = int(ways[0].removeprefix("batch_size="))
    trainer.batch_size = int(1.04 * size) + 1
    refused(fit, device)
    trainer.batch_size = size
    fit()
    assert trainer.steps == -(-900 // size)


def test_out_of_memory_error_if_no_size_fits() -> None:
    device, net = on_harness("float32", (400, 400))
    trainer = gpumlp.Trainer(net)
    device.limit = device.live + 5_000
    message = refused(lambda: trainer.fit(X, LABELS, 1, progress=False), device)
    assert message.splitlines()[-1] == (
        'no batch_size fits; use precision="bfloat16", slot_precision="bfloat16", an optimizer '
        "with less state, a smaller network"
    )
    device, net = on_harness("bfloat16", (400, 400))
    trainer = gpumlp.Trainer(net, "muon", ema=0.9)  # whose slots cannot be of 16 bits
    device.limit = device.live + 5_000
    message = refused(lambda: trainer.fit(X, LABELS, 1, progress=False), device)
    assert message.splitlines()[-1] == (
        "no batch_size fits; use ema=None, an optimizer with less state, a smaller network"
    )
    device, net = on_harness("bfloat16", (4,))
    trainer = gpumlp.Trainer(net, "sgd")
    device.limit = device.live + 50_000
    x, y = np.zeros((5000, 12)), np.zeros(5000, int)
    message = refused(lambda: trainer.fit(x, y, 1, progress=False), device)
    assert message.splitlines()[-1] == 'no batch_size fits; use data="stream", a smaller network'


def test_trainer_out_of_memory_raises() -> None:
    device, net = on_harness("float32", (400, 400))
    for floats in (1, 2):
        device.limit = device.live + floats * 4 * net.theta.layout.size
        message = refused(lambda: gpumlp.Trainer(net, batch_size=32), device)
    assert "\n32 examples, batch_size 32 " in message
    assert 'use precision="bfloat16", slot_precision="bfloat16"' in message
    gpumlp.Trainer(net, "sgd", batch_size=32)


def test_memory_allocated_by_another_program() -> None:
    """The plan fits the memory that was free at first."""
    device, net = on_harness()
    trainer = gpumlp.Trainer(net)
    device.empties_left = 5
    message = refused(lambda: trainer.fit(X, LABELS, 1, progress=False), device)
    assert "another program" in message
    device.empties_left = None
    trainer.fit(X, LABELS, 1, progress=False)


def test_invalid_memory_argument_raises() -> None:
    refusal(
        ValueError, lambda: gpumlp.Trainer(network(), memory="tiny"),
        'memory must be "normal" or "low", got \'tiny\'',
    )  # fmt: skip


def test_lists_are_counted_as_arrays_are() -> None:
    trainer = gpumlp.Trainer(network(), batch_size=16)
    x, y = X[:20].tolist(), LABELS[:20].tolist()
    assert trainer.memory(x, y, validation=(x, y)) == trainer.memory(X[:20], y, validation=20)
    assert str(trainer.explain(x, y)) == str(trainer.explain(20))
