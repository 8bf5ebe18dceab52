"""The operations of a step, and the CUDA backend against the NumPy backend."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import gpumlp
from gpumlp.backends import get_backend
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.io.threads import blas_threads
from gpumlp.loader.examples import Examples
from tests.support.harness.host_device import HostDevice
from tests.support.kill_worker import STEPS, run
from tests.support.training_cases import LABELS, WEIGHTS, Hook, X, Y, regression


def test_a_step_allocates_no_array():
    net = gpumlp.MLP([16, 8192, 512, 10], "gelu", precision="float32", backend="numpy")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1100, 16)).astype(np.float32)
    y = rng.integers(0, 10, 1100)
    peaks = []

    def step(trainer):
        if trainer.steps > 1:  # the first step starts threads and fills caches
            peaks.append(tracemalloc.get_traced_memory()[1] - peaks.pop())
        tracemalloc.reset_peak()
        peaks.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        trainer = gpumlp.Trainer(net, "adamw", batch_size=512, clip_norm=1.0)
        trainer.fit(x, y, 1, sample_weight=np.ones(1100), callbacks=[Hook(step)])
    finally:
        tracemalloc.stop()
    # h[1] and W[2] take 16 MiB each; an expression's few temporaries are blocks of 512 KiB a thread
    assert len(peaks) == 3
    assert max(peaks[:-1]) < blas_threads() * 4 << 20


class CountingBackend:
    """The NumPy backend, with a count of the calls to each operation."""

    def __init__(self, precision):
        self._backend = get_backend("numpy", precision)
        self.calls = {}

    def __getattr__(self, name):
        operation = getattr(self._backend, name)
        if not callable(operation):
            return operation

        def counted(*arguments, **named):
            self.calls[name] = self.calls.get(name, 0) + 1
            return operation(*arguments, **named)

        return counted


@pytest.mark.parametrize("weighted", [False, True])
def test_step_calls_only_the_operations_of_the_algorithms(weighted):
    backend = CountingBackend("float32")
    net = gpumlp.MLP([4, 6, 5, 3], backend=backend)
    before, steps = {}, []

    def step(trainer):
        calls = {name: n - before.get(name, 0) for name, n in backend.calls.items()}
        calls.pop("record", None)
        if trainer.steps % 4 != 1:  # not from one epoch's end to the next one's first step
            steps.append({name: n for name, n in calls.items() if n})
        before.update(backend.calls)

    gpumlp.Trainer(net, batch_size=16, clip_norm=1.0).fit(
        X, LABELS, 2, sample_weight=WEIGHTS if weighted else None, callbacks=[Hook(step)]
    )
    expected = {
        "begin": 1, "gather": 2, "affine_activation": 3, "output_gradient": 1, "weight_gradient": 3,
        "hidden_gradient": 2, "clip": 1, "update": 1, "end": 1,
        **({"mean_weights": 1} if weighted else {}),
    }  # fmt: skip
    assert steps == [expected] * 6


def test_usable_data_is_not_copied():
    net = regression()
    data = Examples.checked(net, X, Y)
    assert data.x is X
    assert data.y is Y
    assert Examples.checked(net, X[:, ::-1], Y).x.flags.c_contiguous


# ---- the CUDA backend on the harness -------------------------------------------------------------


def on_the_harness(precision="float64"):
    device = HostDevice()
    return device, CudaBackend(device, precision)


def test_the_cuda_backend_trains_as_the_numpy_backend_does():
    kept = {"sample_weight": np.arange(60) % 4, "train_metric": True, "epochs": 3}
    expected = run(net={"precision": "float64", "backend": "numpy"}, **kept)
    trainer = run(net={"backend": on_the_harness()[1]}, **kept)
    for name, tensor in trainer.net.tensors().items():
        wanted = expected.net.tensors()[name]
        np.testing.assert_allclose(tensor, wanted, rtol=1e-12, atol=1e-13, err_msg=name)
    for column in ("cost", "val_cost", "metric", "val_metric"):
        np.testing.assert_allclose(
            trainer.history[column], expected.history[column], rtol=1e-12, err_msg=column
        )


def test_cuda_step_only_launches_work():
    device, backend = on_the_harness()
    steps = []

    def step(trainer):
        if trainer.steps % STEPS not in (0, 1):
            steps.append(list(device.calls))
        device.calls.clear()

    run(net={"backend": backend}, epochs=2, callbacks=[Hook(step)])
    assert len(steps) == 2 * (STEPS - 2)
    assert steps.pop(0)[0] == "record"
    for calls in steps:
        assert calls == steps[0]
        assert calls[0].startswith("replay")
        assert all(call.startswith(("kernel", "gemm")) for call in calls[1:])
