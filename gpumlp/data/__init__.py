"""Data sets: four embedded ones, and .csv, .parquet, .npz and .npy files."""

from gpumlp.data.dataset import TASKS, Dataset, load, load_inputs, pieces
from gpumlp.data.embedded import EMBEDDED
from gpumlp.data.fitting import IMPUTE, check_impute
from gpumlp.data.preparation import Preparation
from gpumlp.data.scratch import Scratch
from gpumlp.data.splitting import split

__all__ = [
    "EMBEDDED", "IMPUTE", "TASKS", "Dataset", "Preparation", "Scratch", "check_impute", "load",
    "load_inputs", "pieces", "split",
]  # fmt: skip
