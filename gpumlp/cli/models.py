"""A model file that evaluate and predict read, and data for its network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import typer

from gpumlp import data as datasets
from gpumlp.data import Dataset, Preparation
from gpumlp.data.dataset import listed
from gpumlp.io.types import HostArray
from gpumlp.network import MLP


def load(path: Path, backend: str) -> tuple[MLP, Preparation]:
    """The network and the preparation in a file that `gpumlp train` wrote."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    net = MLP.load(path, backend)
    return net, Preparation.load(path)


def parts(
    data: str, preparation: Preparation, target: str | None = None, *, labelled: bool = True
) -> Iterator[tuple[Dataset, HostArray]]:
    """The parts of a data set, see `data.pieces`, each with the network's inputs.

    At the end, print on stderr which columns have values of a kind that the training data did not
    have: the model can only guess what they mean.
    """
    unseen = np.zeros(len(preparation.features), np.int64)
    for part in datasets.pieces(data, preparation, target, labelled=labelled):
        unseen += preparation.unseen_counts(part.x[:])
        yield part, preparation.inputs(part.x[:])
    counts = zip(preparation.features, unseen.tolist(), strict=True)
    columns = [f"{name} ({count})" for name, count in counts if count]
    if columns:
        what = "columns with missing values or categories that the training data did not have"
        typer.echo(f"{what}: {listed(columns)}", err=True)
