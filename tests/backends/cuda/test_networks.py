"""Whole networks on the CUDA backend, with its real kernels executed on the CPU, against NumPy.

New memory of the device is full of NaN, so that a buffer that is read before it is written shows.
The launches of one training step are compared with committed lists.  To update the lists, run

    python -m tests.backends.cuda.test_networks
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda.backend import CudaBackend
from tests.support import networks
from tests.support.cuda_networks import classifier, device, on_cuda_backend, problem, trained
from tests.support.harness.host_device import HostDevice
from tests.support.network_tests import (  # noqa: F401  (collected here)
    check,
    test_every_activation_with_every_loss,
    test_every_depth_and_regularizer,
    test_every_optimizer,
    test_hidden_softmax_layer,
    test_nan_gradient_shows_in_next_cost,
    test_twenty_steps_of_adamw,
    test_widths_and_minibatches,
)

RESOURCES = Path(__file__).parents[2] / "resources"


@pytest.mark.parametrize("ask", ["forward", "predict"])
def test_no_rows_raise_before_any_launch(ask: str) -> None:
    """A grid without blocks is an error of the driver, so the public function must raise first."""
    gpu = on_cuda_backend(networks.network("tanh", "huber", 2))
    device(gpu).calls.clear()
    with pytest.raises(ValueError, match="x"):
        getattr(gpu, ask)(np.empty((0, 3)))
    assert not device(gpu).launches


def test_tf32_uses_tf32_products() -> None:
    net = networks.network("relu", "huber", 3, precision="float32")
    gpu = on_cuda_backend(net, precision="tf32")
    check(net, gpu, "huber")
    products = [call for call in device(gpu).calls if call.startswith("gemm")]
    assert products
    assert all(call.endswith(" tf32") for call in products)


# ---- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_every_order_gives_same_bits(precision: str) -> None:
    net, bits = classifier(precision=precision), set()
    for order in (0, 1, 2, 3):
        gpu = on_cuda_backend(net, order)
        trained(gpu, steps=10, clip_norm=0.5)
        bits.add(gpu.theta.flat.values.tobytes())
    assert len(bits) == 1


# ---- memory --------------------------------------------------------------------------------------


def test_out_of_memory_keeps_theta() -> None:
    """Whichever allocation fails, the next attempt gives the result of a run without failures."""
    x, y, weights = problem()
    net = classifier()

    def attempt(net: gpumlp.MLP) -> None:
        trainer = gpumlp.Trainer(net, batch_size=16, clip_norm=1.0)
        trainer.fit(x, y, 1, sample_weight=weights, validation=(x, y), progress=False)

    gpu, expected = on_cuda_backend(net), on_cuda_backend(net)
    before = gpu.theta.flat.values.tobytes()
    attempt(expected)
    after = expected.theta.flat.values.tobytes()
    failed = 0
    while True:
        device(gpu).empties_left = failed
        try:
            attempt(gpu)
        except gpumlp.DeviceError:
            failed += 1
            assert gpu.theta.flat.values.tobytes() == before
            continue
        break
    assert failed >= 5
    assert gpu.theta.flat.values.tobytes() == after


def test_gradients_after_out_of_memory() -> None:
    x, y, weights = problem()
    gpu = on_cuda_backend(classifier())
    want, gradients = gpu.cost_and_gradients(x, y, weights)
    failed = 0
    while True:
        device(gpu).empties_left = failed
        try:
            J, again = gpu.cost_and_gradients(x, y, weights)
        except gpumlp.DeviceError:
            failed += 1
            continue
        break
    assert failed >= 5
    assert want == J
    assert again.W[0].values.tobytes() == gradients.W[0].values.tobytes()


# ---- the launches of one step --------------------------------------------------------------------


class RecordCalls(gpumlp.Callback):
    """Keeps the device calls of the last step.  The first step compiles, the second records."""

    def __init__(self, calls: list[str]) -> None:
        self.calls, self.last = calls, [""]

    def on_step_end(self, trainer: gpumlp.Trainer) -> None:
        self.last = list(self.calls)
        self.calls.clear()


def launches(
    f: str,
    optimizer: str,
    widths: str = "784-256-256-10",
    m: int = 128,
    embed: Any = None,
    norm: Any = None,
) -> list[str]:
    """The launches of one step on minibatches of m examples, on a GPU like an H100."""
    device = HostDevice(multiprocessors=132, variant="sequential")  # in the order of the program
    backend = CudaBackend(device, "float32")
    n = [int(each) for each in widths.split("-")]
    net = gpumlp.MLP(n, f, regularizer=gpumlp.L2(1e-4), backend=backend, embed=embed, norm=norm)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3 * m, n[0])), rng.integers(0, n[-1], 3 * m)  # the third is a replay
    x[:, list(embed or ())] = 1
    recorder = RecordCalls(device.calls)
    gpumlp.Trainer(net, optimizer, batch_size=m).fit(x, y, 1, callbacks=[recorder], progress=False)
    replay, *calls = recorder.last
    assert replay == f"replay of {len(calls)}"
    return calls


STEPS: dict[str, tuple[Any, ...]] = {
    "relu_adamw": ("relu", "adamw"), "gelu_adamw": ("gelu", "adamw"), "gelu_sgd": ("gelu", "sgd"),
    "512x4": ("relu", "adamw", "512-512-512-512-512", 256),
    "embeddings": ("gelu", "adamw", "24-256-256-10", 2048, {3: (1000, 16), 20: (50, 8)}),
    "batch_norm": ("relu", "adamw", "784-256-256-10", 128, None, "batch"),
}  # fmt: skip
# Embeddings add their launch, a product, and of their gradient: a sort, a merging, two sums.
# 512x4 has 11 products; the others are what begins the step, the loss with its gradient and what
# ends the step, and the update.  Each launch of such a network takes as long as the gap before it.
COUNTS = {
    "relu_adamw": 12,
    "gelu_adamw": 12,
    "gelu_sgd": 12,
    "512x4": 14,
    "embeddings": 18,
    "batch_norm": 18,
}


@pytest.mark.parametrize("step", STEPS)
def test_launches_of_a_step(step: str) -> None:
    """A step makes the committed launches, and it does not wait, copy or allocate."""
    found = launches(*STEPS[step])
    assert found == (RESOURCES / f"launches_{step}.txt").read_text().splitlines()
    assert all(call.startswith(("kernel", "gemm")) for call in found)
    assert len(found) <= COUNTS[step]


if __name__ == "__main__":
    for name, step in STEPS.items():
        (RESOURCES / f"launches_{name}.txt").write_text("\n".join(launches(*step)) + "\n")
