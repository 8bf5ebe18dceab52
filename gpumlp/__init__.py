"""gpumlp: train large multilayer perceptrons on NVIDIA GPUs, or with the same code on NumPy."""

import importlib
from typing import TYPE_CHECKING, Any

from gpumlp._version import __version__ as __version__
from gpumlp.backends import get_backend
from gpumlp.ensemble import Ensemble
from gpumlp.errors import CheckpointError, DeviceError
from gpumlp.functions import (
    ACTIVATIONS,
    INITIALIZERS,
    L1,
    L2,
    LOSSES,
    NORMS,
    OPTIMIZERS,
    REGULARIZERS,
    SCHEDULES,
    Activation,
    ColumnStage,
    ElasticNet,
    Initializer,
    Loss,
    Optimizer,
    Regularizer,
    Schedule,
    Stage,
)  # fmt: skip
from gpumlp.network import MLP
from gpumlp.parameters import Gradients, Layer

if TYPE_CHECKING:
    from gpumlp import callbacks, distributed
    from gpumlp.training import (
        Callback,
        EarlyStopping,
        EnsembleTrainer,
        Group,
        Histories,
        History,
        Trainer,
        fit_lbfgs,
        k_folds,
    )

__all__ = [
    "ACTIVATIONS", "INITIALIZERS", "L1", "L2", "LOSSES", "MLP", "NORMS", "OPTIMIZERS",
    "REGULARIZERS", "SCHEDULES", "Activation", "Callback", "CheckpointError", "ColumnStage",
    "DeviceError", "EarlyStopping", "ElasticNet", "Ensemble", "EnsembleTrainer", "Gradients",
    "Group", "Histories", "History", "Initializer", "Layer", "Loss", "Optimizer", "Regularizer",
    "Schedule", "Stage", "Trainer", "callbacks", "distributed", "fit_lbfgs", "get_backend",
    "k_folds",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import training, and the packages of this list, when one of their names is first used."""
    if name in ("callbacks", "data", "distributed", "estimators", "interop", "plots", "search"):
        return importlib.import_module(f"gpumlp.{name}")
    if name in __all__:
        return getattr(importlib.import_module("gpumlp.training"), name)
    raise AttributeError(f"module 'gpumlp' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return all public names, also those that are not imported yet."""
    return sorted({*globals(), *__all__})
