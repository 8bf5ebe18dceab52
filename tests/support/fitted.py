"""Short trainings of networks, and comparisons of all their tensors."""

from __future__ import annotations

import copy
import tracemalloc
from typing import Any

import numpy as np

import gpumlp
from gpumlp import MLP, Trainer


def fitted(
    net: MLP, x: Any, labels: Any, epochs: int = 3, optimizer: Any = "adamw", **settings: Any
) -> MLP:
    """The network after some epochs of minibatches of 32."""
    settings = {"lr": 0.01, "batch_size": 32, "seed": 3} | settings
    Trainer(net, optimizer, **settings).fit(x, labels, epochs, progress=False)
    return net


def assert_near(a: MLP, b: MLP, near: float = 1e-12) -> None:
    """All tensors have the same names, and values within `near`."""
    assert set(a.tensors()) == set(b.tensors())
    for name, want in b.tensors().items():
        np.testing.assert_allclose(a.tensors()[name], want, near, near, err_msg=name)


def assert_planned(net: MLP, x: Any, labels: Any, least: int) -> None:
    """A fit allocates what `memory` says, which is `least` bytes or more.

    But for 256 bytes per array, which align it, and the memory of Python itself.
    """
    # threads, modules, and what is kept of a training, whatever tests ran before
    Trainer(copy.deepcopy(net), batch_size=600).fit(x, labels, 1, progress=False)
    tracemalloc.start()
    try:
        trainer = Trainer(net, batch_size=600)
        planned = trainer.memory(x, labels)
        start, seen = tracemalloc.get_traced_memory()[0], []
        hook = gpumlp.Callback()
        hook.on_epoch_end = lambda *_: seen.append(tracemalloc.get_traced_memory()[0])  # type: ignore
        trainer.fit(x, labels, 2, callbacks=[hook], progress=False)
    finally:
        tracemalloc.stop()
    assert 0 <= seen[-1] - start - planned.missing < 150_000
    assert planned.missing > least
