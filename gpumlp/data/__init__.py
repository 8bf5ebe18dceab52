"""Data sets: four embedded ones, and .csv, .parquet, .npz and .npy files."""

from gpumlp.data.codes import Embed
from gpumlp.data.dataset import Dataset, split
from gpumlp.data.embedded import EMBEDDED
from gpumlp.data.fitting import IMPUTE, check_impute
from gpumlp.data.loading import TASKS, load, load_inputs, pieces
from gpumlp.data.preparation import Preparation
from gpumlp.data.scratch import Scratch

__all__ = [
    "EMBEDDED", "IMPUTE", "TASKS", "Dataset", "Embed", "Preparation", "Scratch", "check_impute",
    "load", "load_inputs", "pieces", "split",
]  # fmt: skip
