"""Training: the loop over epochs, its history, callbacks, metrics, checkpoints and L-BFGS."""

from gpumlp.step.groups import Group
from gpumlp.training.callbacks import EarlyStopping
from gpumlp.training.ensemble import EnsembleTrainer
from gpumlp.training.events import Callback
from gpumlp.training.folds import k_folds
from gpumlp.training.history import Histories, History
from gpumlp.training.lbfgs import fit_lbfgs
from gpumlp.training.lr_range import LRCurve
from gpumlp.training.trainer import Trainer

__all__ = [
    "Callback", "EarlyStopping", "EnsembleTrainer", "Group", "Histories", "History", "LRCurve",
    "Trainer", "fit_lbfgs", "k_folds",
]  # fmt: skip
