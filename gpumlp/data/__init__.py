"""Data sets: four embedded ones, and .csv, .parquet, .npz and .npy files."""

from gpumlp.data.dataset import TASKS, Dataset, load, load_inputs, split
from gpumlp.data.embedded import EMBEDDED
from gpumlp.data.preparation import Preparation

__all__ = ["EMBEDDED", "TASKS", "Dataset", "Preparation", "load", "load_inputs", "split"]
