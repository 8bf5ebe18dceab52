"""Networks on the CUDA backend, with kernels executed on the CPU, and comparisons of results."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

import gpumlp
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.storage import with_functions
from tests.support.harness.catalogue import PULL
from tests.support.harness.host_device import CALLER, HostArray, HostDevice

TOLERANCE = {"float64": 1e-12, "float32": 2e-5}  # relative to the largest entry
HALF = ["bfloat16", "float16"]
EPS = {"bfloat16": 2.0**-8, "float16": 2.0**-11}  # of one rounding, relative
NEAR = {  # of gradients, and of what 5 steps add to θ, which adamw's division makes worse
    "float32": (3e-6, 1e-4), "tf32": (3e-6, 1e-4),
    "float16": (1e-2, 5e-2), "bfloat16": (1.5e-1, 2.5e-1),
}  # fmt: skip
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
    CALLER.finish()
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


def assert_near(got: gpumlp.MLP, want: gpumlp.MLP) -> None:
    """All tensors, in float64."""
    for name, tensor in want.tensors().items():
        assert_same(got.tensors()[name], tensor, 1e-12)


def assert_gradients_near(gpu: gpumlp.MLP, net: gpumlp.MLP, x: Any, labels: Any) -> None:
    """The cost and all gradients, in float64."""
    (J, want), (J_gpu, got) = (each.cost_and_gradients(x, labels) for each in (net, gpu))
    assert_same(J_gpu, J, 1e-13)
    for name in ("z", "h"):
        for one, other in zip(getattr(got, name), getattr(want, name), strict=True):
            assert_same(one, other, 1e-12)
    for name, each in want.named.items():
        assert_same(got.named[name], each, 1e-12)
    assert_same(got.x, want.x, 1e-12)


def assert_members_train_alone(precision: str, widths: Any, x: Any, y: Any, **more: Any) -> None:
    """Each of three members equals its own training; a step has the launches of one network."""
    backend, of_all = CudaBackend(HostDevice(order=3), precision), {"lr": 0.01, "batch_size": 16}
    ensemble = gpumlp.Ensemble(3, widths, "gelu", backend=backend, seeds=range(3), **more)
    gpumlp.EnsembleTrainer(ensemble, "adamw", seed=5, **of_all).fit(x, y, 2)
    assert any("batch of 3" in call for call in backend._device.launches)  # type: ignore[attr-defined]
    near = 1e-11 if precision == "float64" else 2e-3
    for i, net in enumerate(ensemble):
        own = CudaBackend(HostDevice(), precision)
        alone = gpumlp.MLP(widths, "gelu", backend=own, seed=i, **more)
        gpumlp.Trainer(alone, "adamw", seed=5 + i, **of_all).fit(x, y, 2, progress=False)
        for name, tensor in alone.tensors().items():
            np.testing.assert_allclose(net.tensors()[name], tensor, near, near, err_msg=name)


def fusible_network(f: str, widths: Any = (5, 16, 24, 8, 3), **settings: Any) -> gpumlp.MLP:
    """A float32 network whose products can compute the activation, where widths allow it."""
    return gpumlp.MLP(widths, f, precision="float32", backend="numpy", **settings)


def random_labels(net: gpumlp.MLP, m: int = 21) -> tuple[Any, Any]:
    """x (m, n_0) and labels (m,) for `net`."""
    rng = np.random.default_rng(m)
    return rng.normal(size=(m, net.widths[0])), rng.integers(0, net.widths[-1], m)
