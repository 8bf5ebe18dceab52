"""gpumlp: train large multilayer perceptrons on NVIDIA GPUs, with the same loop on NumPy."""

from typing import TYPE_CHECKING, Any

from gpumlp.backends import get_backend
from gpumlp.errors import CheckpointError, DeviceError
from gpumlp.functions import (
    ACTIVATIONS,
    INITIALIZERS,
    L1,
    L2,
    LOSSES,
    OPTIMIZERS,
    REGULARIZERS,
    SCHEDULES,
    Activation,
    ElasticNet,
    Initializer,
    Loss,
    Optimizer,
    Regularizer,
    Schedule,
)  # fmt: skip
from gpumlp.network import MLP
from gpumlp.parameters import Gradients, Layer

if TYPE_CHECKING:
    from gpumlp.training import Callback, EarlyStopping, History, Trainer, fit_lbfgs

__version__ = "0.1.0"
__all__ = [
    "ACTIVATIONS", "INITIALIZERS", "L1", "L2", "LOSSES", "MLP", "OPTIMIZERS", "REGULARIZERS",
    "SCHEDULES", "Activation", "Callback", "CheckpointError", "DeviceError", "EarlyStopping",
    "ElasticNet", "Gradients", "History", "Initializer", "Layer", "Loss", "Optimizer",
    "Regularizer", "Schedule", "Trainer", "fit_lbfgs", "get_backend",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """The training room, imported when it is first asked for."""
    if name in ("Callback", "EarlyStopping", "History", "Trainer", "fit_lbfgs"):
        import gpumlp.training

        return getattr(gpumlp.training, name)
    raise AttributeError(f"module 'gpumlp' has no attribute {name!r}")
