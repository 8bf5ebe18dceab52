"""Small networks, data and callbacks for the tests of training."""

from __future__ import annotations

import numpy as np

import gpumlp

RNG = np.random.default_rng(7)
X = RNG.standard_normal((50, 4))
Y = np.stack([np.sin(X[:, 0]) + X[:, 1], X[:, 2] * X[:, 3]], axis=1)
LABELS = (X[:, 0] + X[:, 1] > 0).astype(np.int64) + (X[:, 2] > 1)
WEIGHTS = RNG.integers(0, 4, 50).astype(float)
FOLDABLE = [  # optimizer, its parameters, regularizer: the update can be folded
    ("sgd", {}, None), ("sgd", {}, gpumlp.L2(0.1, biases=0.5)), ("sgd", {}, gpumlp.L2(0.1)),
    ("sgd", {}, gpumlp.ElasticNet(0, 0.1, biases=False)), ("momentum", {}, None),
    ("momentum", {"mu": 0.5}, gpumlp.L2(0.0)),
]  # fmt: skip


def regression(**settings):
    settings = {"activation": "tanh", "loss": "squared_error", "precision": "float64", **settings}
    return gpumlp.MLP([4, 6, 2], backend="numpy", **settings)


def classifier(**settings):
    settings = {"activation": "tanh", "precision": "float64", "backend": "numpy", **settings}
    return gpumlp.MLP([4, 6, 3], **settings)


def theta(net):
    return b"".join(tensor.tobytes() for tensor in net.tensors().values())


class Hook(gpumlp.Callback):
    """Calls one function after each step and another after each epoch."""

    def __init__(self, step=lambda trainer: None, epoch=lambda trainer, row: None):
        self.step, self.epoch = step, epoch

    def on_step_end(self, trainer):
        self.step(trainer)

    def on_epoch_end(self, trainer, row):
        return self.epoch(trainer, row)


class Die(Exception):
    pass


def die_at(step=None, epoch=None):
    def raise_where(now, wanted):
        if now == wanted:
            raise Die

    return Hook(
        lambda trainer: raise_where(trainer.steps, step),
        lambda trainer, row: raise_where(trainer.epochs, epoch),
    )
