"""A model file that evaluate and predict read, and the data that it was not trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import typer

from gpumlp.data import Dataset, Preparation
from gpumlp.data.raw import listed
from gpumlp.network import MLP


def load(path: Path, backend: str) -> tuple[MLP, Preparation]:
    """The network and the preparation in a file that `gpumlp train` wrote."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    net = MLP.load(path, backend)
    return net, Preparation.load(path)


class UnseenValues:
    """Counts, for each column, the values of a kind that the training data did not have."""

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self._counts = np.zeros(len(preparation.features), np.int64)

    def add(self, part: Dataset) -> None:
        """Count the values of these examples."""
        self._counts += self._preparation.unseen_counts(part.x[:])

    def print(self) -> None:
        """Print them on stderr if there are any: the model can only guess what they mean."""
        counts = zip(self._preparation.features, self._counts.tolist(), strict=True)
        columns = [f"{name} ({count})" for name, count in counts if count]
        if columns:
            what = "columns with missing values or categories that the training data did not have"
            typer.echo(f"{what}: {listed(columns)}", err=True)
