"""The mathematics: one entry per function, with its NumPy and CUDA expressions side by side."""

from gpumlp.functions.activations import ACTIVATIONS, Activation
from gpumlp.functions.initializers import INITIALIZERS, Initializer
from gpumlp.functions.losses import LOSSES, Loss
from gpumlp.functions.optimizers import OPTIMIZERS
from gpumlp.functions.regularizers import L1, L2, REGULARIZERS, ElasticNet, Regularizer
from gpumlp.functions.schedules import SCHEDULES, Schedule
from gpumlp.functions.stages import NORMS, ColumnStage, Stage
from gpumlp.functions.update_rule import Optimizer

__all__ = [
    "ACTIVATIONS", "INITIALIZERS", "L1", "L2", "LOSSES", "NORMS", "OPTIMIZERS", "REGULARIZERS",
    "SCHEDULES", "Activation", "ColumnStage", "ElasticNet", "Initializer", "Loss", "Optimizer",
    "Regularizer", "Schedule", "Stage",
]  # fmt: skip
