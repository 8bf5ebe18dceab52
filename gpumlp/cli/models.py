"""The models that commands train and read: a network, or an ensemble of several.

Both have what the commands need of a model: widths, f, loss, precision, backend, forward, predict,
cost_and_prediction, penalty and save.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gpumlp import storage
from gpumlp.data import Preparation
from gpumlp.ensemble import Ensemble
from gpumlp.network import MLP

Model = MLP | Ensemble


def load_network(path: Path, backend: str) -> Model:
    """The network or the ensemble in a file."""
    return (Ensemble if storage.has_ensemble(path) else MLP).load(path, backend)


def load_model(path: Path, backend: str) -> tuple[Model, Preparation]:
    """The model and the preparation in a file that `gpumlp train` wrote."""
    return load_network(path, backend), Preparation.load(path)


def members(model: Model) -> list[MLP]:
    """The networks whose mean a model predicts."""
    return model.whole if isinstance(model, Ensemble) else [model]


def member_seeds(seed: int, K: int) -> list[int]:
    """The seeds of the members of train --models: --seed itself, and K − 1 drawn from it.

    The first ones are the same for any K.  With seed, seed + 1, … two trainings with neighbouring
    seeds would have most members in common.
    """
    return [seed, *np.random.SeedSequence(seed).generate_state(K - 1).tolist()]
