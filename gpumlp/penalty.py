"""λΩ(θ) of a network."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from gpumlp.backends import Backend
from gpumlp.backends.declaration import Call
from gpumlp.functions import Regularizer
from gpumlp.parameters import Parameters

ZERO = np.zeros(1)


class Penalty:
    """λΩ(θ) of a network.  It keeps the operation of the last call, which is that of the next one.

    On the host the operation is a program: to make it takes five times as long as to run it for a
    small network, and a fit asks for λΩ(θ) after each epoch.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend, self._lock = backend, threading.Lock()
        self._omega = backend.full((1,), 0, "float64")
        self._of: tuple[Any, Any] = (None, None)
        self._run: Callable[[int], None] = lambda steps: None

    def __call__(self, regularizer: Regularizer, theta: Parameters) -> float:
        """λΩ(θ), which is 0 without a regulariser."""
        if not regularizer.active:
            return 0.0
        backend, flat = self._backend, theta.flat
        backend.synchronize()
        with self._lock:
            if self._of[0] is not regularizer or self._of[1] is not flat:
                self._of, self._run = (regularizer, flat), self._made(regularizer, theta)
            backend.asarray(ZERO, dtype="float64", out=self._omega)
            self._run(1)
            return float(backend.to_host(self._omega)[0])

    def _made(self, regularizer: Regularizer, theta: Parameters) -> Callable[[int], None]:
        backend = self._backend
        work = partial(backend.penalty, regularizer, theta.flat, theta.split, self._omega, None)
        if not backend.on_host:
            return lambda steps: work()
        return backend.compile({"penalty": [Call(work)]}, "penalty")
