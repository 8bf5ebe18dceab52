"""Networks on the CUDA backend, with kernels executed on the CPU, and comparisons of results."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

import gpumlp
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.storage import with_functions
from tests.support.harness.catalogue import PULL
from tests.support.harness.host_device import HostArray, HostDevice

TOLERANCE = {"float64": 1e-12, "float32": 2e-5}  # relative to the largest entry
HALF = ["bfloat16", "float16"]
EPS = {"bfloat16": 2.0**-8, "float16": 2.0**-11}  # of one rounding, relative
KIND = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype("float16")}


def on_cuda_backend(net: gpumlp.MLP, order: int = 0, **changes: Any) -> gpumlp.MLP:
    """The same network on the CPU harness, which runs blocks and threads in the given order."""
    backend = CudaBackend(HostDevice(order), changes.pop("precision", net.precision))
    stages = [block.norm for block in net.blocks if block.norm]
    settings = with_functions(net.config(), stages) | {"precision": backend.precision} | changes
    gpu = gpumlp.MLP(**settings, backend=backend)
    gpu.assign(net.tensors())
    return gpu


def device(net: gpumlp.MLP) -> HostDevice:
    found: HostDevice = net.backend._device
    return found


def on_host(a: Any) -> Any:
    """An array of the harness, of CuPy or of NumPy as a NumPy array."""
    return a.values if isinstance(a, HostArray) else a.get() if hasattr(a, "get") else a


def assert_same(got: Any, want: Any, tolerance: float) -> None:
    """Compare two arrays; `tolerance` is relative to the largest entry of `want`."""
    got = on_host(got)
    largest = np.abs(want).max(initial=0)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * largest)


def relative(got: Any, want: Any) -> float:
    """‖got − want‖ / ‖want‖."""
    got, want = (np.asarray(on_host(a), np.float64) for a in (got, want))
    return float(np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-30))


def moved(net: gpumlp.MLP, start: Any) -> Any:
    """What training has added to the tensors `start`, all in one vector."""
    return np.concatenate([(t - start[name]).ravel() for name, t in net.tensors().items()])


def classifier(f: str = "gelu", **settings: Any) -> gpumlp.MLP:
    settings = {"precision": "float64", "backend": "numpy", "regularizer": PULL} | settings
    return gpumlp.MLP([5, 9, 8, 3], f, **settings)


def problem(m: int = 70) -> tuple[Any, Any, Any]:
    """x (m, 5), labels and sample weights for `classifier`."""
    rng = np.random.default_rng(11)
    x = rng.normal(size=(m, 5))
    return x, (x[:, 0] > 0).astype(int) + (x[:, 1] > x[:, 2]), rng.integers(0, 4, m)


def trained(net: gpumlp.MLP, optimizer: str = "adamw", steps: int = 20, **settings: Any) -> Any:
    """The trainer after that many steps, in minibatches of 16 and a smaller last one."""
    x, y, weights = problem()
    trainer = gpumlp.Trainer(net, optimizer, batch_size=16, **settings)
    trainer.fit(x, y, steps // 5, sample_weight=weights, progress=False)
    assert trainer.steps == steps
    return trainer


def fusible_network(f: str, widths: Any = (5, 16, 24, 8, 3), **settings: Any) -> gpumlp.MLP:
    """A float32 network whose products can compute the activation, where widths allow it."""
    return gpumlp.MLP(widths, f, precision="float32", backend="numpy", **settings)


def random_labels(net: gpumlp.MLP, m: int = 21) -> tuple[Any, Any]:
    """x (m, n_0) and labels (m,) for `net`."""
    rng = np.random.default_rng(m)
    return rng.normal(size=(m, net.widths[0])), rng.integers(0, net.widths[-1], m)
