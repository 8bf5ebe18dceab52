"""The training data in the room, and its minibatches in a seeded order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp import checks
from gpumlp.backends import Array, Backend
from gpumlp.network import MLP, ClassWeight
from gpumlp.workspace import Workspace


@dataclass(frozen=True)
class Examples:
    """Checked examples, in the room.

    Attributes:
        x: (m, n_0) in the room's storage type.
        y: (m, n_L) in the room's dtype, or labels (m,) int32.
        weights: (m,) float64 on the host, or None for all alike.
    """

    x: Array
    y: Array
    weights: npt.NDArray[Any] | None

    @classmethod
    def checked(
        cls,
        net: MLP,
        x: Array,
        y: Array,
        sample_weight: Array | None = None,
        class_weight: ClassWeight = None,
        suffix: str = "",
    ) -> Examples:
        """What a public door takes, checked; `suffix` follows the names x and y in the errors.

        An array of the room that already has the right dtype and layout is not copied.
        """
        room, ends = net.backend, (net.widths[0], net.widths[-1])
        x, y, weights = checks.supervised(
            room, net.loss, ends, x, y, sample_weight, class_weight, suffix
        )
        checks.finite(x, f"x{suffix}")
        _representable(room, x, f"x{suffix}")
        kind = np.dtype(np.int32) if y.ndim == 1 else room.dtype
        return cls(_placed(room, x, room.storage), _placed(room, y, kind), weights)


def _placed(room: Backend, a: Array, dtype: np.dtype[Any]) -> Array:
    """`a` in the room, in `dtype`."""
    as_is = room.owns(a) and a.dtype == dtype and a.flags.c_contiguous
    return a if as_is else room.asarray(a, dtype=dtype)


def _representable(room: Backend, x: Array, name: str) -> None:
    """Raise unless the finite x stays finite in the room's storage type."""
    # bfloat16, of which NumPy knows no limits, reaches as far as float32
    kind = room.storage if room.storage.kind == "f" else np.dtype(np.float32)
    largest, limit = max(float(x.max()), -float(x.min())), float(np.finfo(kind).max)
    if largest > limit:
        raise ValueError(
            f"{name} has values up to {largest:g}, beyond the network's {room.storage}; rescale it"
        )


class Batches:
    """Minibatches without replacement; an epoch's last may be smaller, and none is dropped.

    Attributes:
        s: the workspace that `load` fills.
        steps: minibatches an epoch.
        J: (steps,) float64: where each minibatch's L goes.
        shares: (steps,) on the host: what each minibatch counts in the mean over the epoch.
    """

    def __init__(self, net: MLP, data: Examples, size: int, seed: int) -> None:
        room, m = net.backend, len(data.x)
        self._room, self._data, self._seed = room, data, seed
        self._size = min(size, m)
        self.steps = -(-m // self._size)
        self.s = Workspace(net, self._size)
        self.J = room.full((self.steps,), 0, "float64")
        self.shares = np.zeros(self.steps)
        self._index = room.empty((m,), np.int64)
        self._y = room.empty((self._size, *data.y.shape[1:]), data.y.dtype)
        self._weights = None
        if data.weights is not None:
            # only their ratios count, and so scaled they fit any dtype
            self._weights = room.asarray(data.weights / data.weights.max())
            self._of_batch = room.empty((self._size,))
        # both sizes that occur, so that what they need is allocated before the first step
        self._resize(m - (self.steps - 1) * self._size)
        self._resize(self._size)

    def shuffle(self, epoch: int) -> None:
        """Order the examples for an epoch: a function of seed and epoch alone."""
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._data.x))
        self._room.asarray(order, dtype=np.int64, out=self._index)
        weights = self._data.weights
        counted = np.ones(len(order)) if weights is None else weights[order]
        starts = np.arange(0, len(order), self._size)
        self.shares = np.add.reduceat(counted, starts) / counted.sum()

    def load(self, i: int) -> None:
        """The minibatch i of the epoch, from 0: h[0] = x, y, the examples' weights, and J."""
        room, s = self._room, self.s
        s.J = self.J[i : i + 1]
        index = self._index[i * self._size : (i + 1) * self._size]
        if len(index) != len(s.h[0]):
            self._resize(len(index))
        room.gather(self._data.x, index, s.h[0])
        room.gather(self._data.y, index, s.y)
        if self._weights is not None:
            room.mean_weights(self._weights, index, s.weights)

    def _resize(self, m: int) -> None:
        self.s.resize(m)
        self.s.y = self._y[:m]
        if self._weights is not None:
            self.s.weights = self._of_batch[:m]
