"""Networks, data and a fit for the tests of streamed data."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

import gpumlp
from gpumlp.backends.cuda.backend import CudaBackend
from tests.support.harness.host_device import HostDevice

M, WIDTHS = 70, [13, 8, 3]  # minibatches of 16, and one of 6


def kind(dtype: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def problem(dtype: str, loss: str) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, (M, WIDTHS[0])) / (1 if "int" in dtype else 3)
    y = rng.integers(0, 3, (M, 3)) if loss == "squared_error" else rng.integers(0, 3, M)
    return x.astype(kind(dtype)), y.astype(kind(dtype))


def network(loss: str, precision: str, late: str = "") -> gpumlp.MLP:
    """A network in the NumPy backend, or in the CUDA backend on the harness if streams are late."""
    backend = CudaBackend(HostDevice(late=late), precision) if late else "numpy"
    return gpumlp.MLP(WIDTHS, "tanh", loss=loss, precision=precision, backend=backend)


def trained(net: gpumlp.MLP, x: Any, y: Any, data: str, **fit: Any) -> tuple[bytes, Any]:
    """θ and the history after three epochs of a fit that uses everything that reads examples."""
    trainer = gpumlp.Trainer(net, "adamw", lr=0.01, batch_size=16, clip_norm=1.0)
    settings = {"validation": (x[:20], y[:20]), "train_metric": True, **fit}
    weights = np.arange(M) % 4
    history = trainer.fit(x, y, 3, sample_weight=weights, data=data, progress=False, **settings)
    columns = {name: values for name, values in history.items() if name != "seconds"}
    return b"".join(t.tobytes() for t in net.tensors().values()), columns
