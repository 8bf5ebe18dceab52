"""The loops without an update, over any number of examples, in memory that does not grow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from gpumlp.backends import Backend
from gpumlp.io.chunks import chunks
from gpumlp.io.types import Array
from gpumlp.parameters import Layout, Parameters
from gpumlp.step.loops import Noise, loops
from gpumlp.step.plan import Plan, plan
from gpumlp.step.program import Buffer
from gpumlp.step.recording import Minibatch, Model, ThetaBuffers, held, theta_buffers
from gpumlp.step.settings import Known, Network, shape_of

UNSCALED = np.array([1.0, 1.0, 0.0, 0.0])  # see `Backend.clip`
KEPT = 8  # compiled programs


class Chunked:
    """Algorithm 6.3, and with targets L and perhaps Algorithm 6.4, chunk by chunk.

    Args:
        target: the dtype of targets, int32 for labels; None for none.
        into: where the gradients go; None for none.
        drops: whether outputs are dropped as in a training.
        intermediate: whether gz and gh of each layer are kept, and ∂J/∂h[0] is computed.

    Attributes:
        s: the arrays of the last chunk: ŷ = h[L], with `intermediate` also gz, gh and gx.
        J: (1,) float64: L of the chunks so far.
    """

    def __init__(
        self, net: Network, rows: int, target: np.dtype[Any] | None = None,
        into: Parameters | None = None, *, intermediate: bool = False, drops: bool = False,
    ) -> None:  # fmt: skip
        backend, self.rows = net.backend, rows
        kind = None if into is None else into.flat.dtype
        own = rows, target, kind, intermediate, drops

        def make() -> Chunks:
            return Chunks(Model(net), net.theta.layout, *own)

        shape = shape_of(net)
        self._chunks: Chunks = make() if shape is None else _shared.found((shape, *own), make)
        self._backend, buffers, model = backend, self._chunks, self._chunks.model
        self.J, self._weights = backend.full((1,), 0, "float64"), backend.empty((rows,))
        self._arrays: dict[Buffer, Array] = {
            model.theta.flat.root: net.theta.whole, model.rounded.flat.root: net.rounded.whole,
            model.J: self.J, buffers.shares: self._weights,
            model.scaling: backend.asarray(UNSCALED, dtype=np.float64),
        }  # fmt: skip
        for b in (buffers.noise.seed, buffers.noise.control) if buffers.noise else ():
            self._arrays[b] = backend.full((1,), 0, b.dtype)
        if into is not None and buffers.gradient is not None:
            self._arrays[buffers.gradient.flat] = into.flat
        self._theta = net.theta.flat, net.rounded.flat
        self._arena = backend.empty((buffers.of(rows)[0].size,), np.uint8)
        self._compiled: dict[int, tuple[Callable[[int], None], Minibatch]] = {}

    def __call__(
        self, x: Array, y: Array = None, share: Array = None, of: int | None = None
    ) -> Iterator[slice]:
        """Yield the rows of each chunk when it is computed; J ← 0 before the first.

        The pages of mapped files are unmapped after each chunk: see `chunks`.

        Args:
            x: (m, n_0), on the backend or on the host.
            y: (m, n_L), or labels (m,); not None if and only if there is a target.
            share: (m,), the share of each example's loss in J; None for 1/of each.
            of: the number of all examples, if these are some of them; None for m.
        """
        backend = self._backend
        theta, rounded = self._theta
        backend.asarray(np.zeros(1), out=self.J)
        if share is None and y is not None:
            backend.asarray(np.full(self.rows, 1 / (of or len(x))), out=self._weights)
        backend.round(theta, rounded)
        for rows in chunks(x, y, rows=self.rows):
            run, s = self._of(rows.stop - rows.start)
            backend.asarray(x[rows], out=s.x)
            if y is not None:
                backend.asarray(y[rows], dtype=s.y.dtype, out=s.y)
                if share is not None:
                    backend.asarray(share[rows], out=s.weights)
            run(1)
            self.s = s
            yield rows

    def masks(self, seed: int, step: int) -> None:
        """Choose the masks of the next chunk, with `drops`: see `Backend.dropout`."""
        noise = self._chunks.noise
        assert noise is not None
        for buffer, value in {noise.seed: seed, noise.control: step}.items():
            self._backend.asarray(
                np.array([value]), dtype=buffer.dtype, out=self._arrays[buffer]
            )  # fmt: skip

    def _of(self, m: int) -> tuple[Callable[[int], None], Minibatch]:
        """The program for a chunk of m examples, compiled, and its arrays."""
        if m not in self._compiled:
            if len(self._compiled) == KEPT:
                self._compiled.clear()
            planned, s = self._chunks.of(m)
            if planned.size > len(self._arena):  # for fewer rows, but of other rounded sizes
                self._arena = self._backend.empty((planned.size,), np.uint8)
                self._compiled.clear()
            arrays = planned.arrays(self._arena, self._arrays)
            run = self._chunks.compiled(self._backend, m, self._arena, self._arrays)
            self._compiled[m] = run, s.having(arrays)
        return self._compiled[m]


class Chunks:
    """The buffers and programs of a `Chunked`, which has the arguments; they have no arrays.

    Attributes:
        model, noise, gradient, shares: the buffers of the network, of the masks, of the gradient
            and of the examples' shares.
    """

    def __init__(
        self, model: Model, layout: Layout, rows: int, target: np.dtype[Any] | None,
        kind: np.dtype[Any] | None = None, intermediate: bool = False, drops: bool = False,
    ) -> None:  # fmt: skip
        self.model, self._target, self._intermediate = model, target, intermediate
        self.shares = held("weights", (rows,), model.theta.flat.dtype)
        self.gradient: ThetaBuffers | None = None
        if kind is not None:
            self.gradient = theta_buffers(held("∇J", (layout.size,), kind), layout)
        self.noise: Noise | None = None
        if drops:
            self.noise = Noise(held("seed", (1,), np.int64), held("step", (1,), np.float64))
        self._planned, self._movable = Known(KEPT), Known(KEPT)

    def of(self, m: int) -> tuple[Plan, Minibatch]:
        """The program for m examples, planned, and its buffers."""
        found: tuple[Plan, Minibatch] = self._planned.found(m, lambda: self._plan(m))
        return found

    def _plan(self, m: int) -> tuple[Plan, Minibatch]:
        model, target, gradient, y = self.model, self._target, self.gradient, None
        if target is not None:
            y = Buffer("y", (m,) if target.kind == "i" else (m, model.widths[-1]), target)
        s = model.minibatch(
            m, y, self.shares.rows(m), gradients=gradient is not None,
            intermediate=self._intermediate,
        )  # fmt: skip
        program, kept = loops(model, s, gradient, self.noise), [s.h[model.L]]
        if self._intermediate:
            s.gx = Buffer("gx", s.h[0].shape, s.h[0].dtype)
            program.input_gradient(s.gz[1], model.rounded.W[1], s.gx)
            kept += [*s.gz[1:], *s.gh[1:], s.gx]
        return plan(program, kept), s

    def compiled(
        self, backend: Backend, m: int, arena: Array, held: Mapping[Buffer, Array]
    ) -> Callable[[int], None]:
        """Compile it with these arrays; `held` has the same buffers in each call."""
        roots, planned = [arena, *held.values()], self.of(m)[0]
        if (known := self._movable.get(planned)) is not None:
            found: Callable[[int], None] = known(roots)
            return found
        calls = planned.calls(backend, planned.arrays(arena, held))
        # a GPU does it call by call: to record a program pays only where it is often replayed
        compiled = backend.compile if backend.on_host else partial(Backend.compile, backend)
        run = compiled({"": calls}, "")
        self._movable.found(planned, lambda: backend.movable(run, roots))
        return run


_shared = Known(32)


class ForwardPass:
    """Algorithm 6.3 over any number of examples, with arrays that are kept for the next call.

    Several threads may call it.  One of them uses the arrays that are kept, the others new ones.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[np.dtype[Any] | None, Chunked] = {}  # by the dtype of their targets

    def __call__(
        self, net: Network, rows: int, x: Array, y: Array = None, share: Array = None, *,
        keep: bool = True,
    ) -> tuple[float, Array]:  # fmt: skip
        """Return L(ŷ, y), or 0 without y, and ŷ (m, n_L), or None unless `keep`.

        rows: the most rows at a time.  ŷ is on the host if x is, else on the backend.
        """
        backend, L, rows = net.backend, 0.0, min(len(x), rows)
        target = None if y is None else target_of(backend, y)
        y_hat: Array = backend.empty((len(x), net.widths[-1])) if keep else None
        with self._lock:
            chunked = self._idle.pop(target, None)
        if chunked is None or chunked.rows < rows:
            chunked = Chunked(net, rows, target)
        try:
            for part in chunked(x, y, share):
                if keep:
                    backend.asarray(chunked.s.h[-1], out=y_hat[part])
            if y is not None:
                L = float(backend.to_host(chunked.J)[0])
        finally:
            self._idle[target] = chunked
        backend.synchronize()
        return L, y_hat if y_hat is None or backend.owns(x) else backend.to_host(y_hat)


def sampled(net: Network, rows: int, x: Array, seed: int, samples: int) -> Iterator[Array]:
    """Yield ŷ of x (m, n_0) with the masks of a training, so many times; in the backend."""
    chunked, backend = Chunked(net, min(len(x), rows), drops=True), net.backend
    step = 0
    for _ in range(samples):
        y_hat = backend.empty((len(x), net.widths[-1]))
        chunked.masks(seed, step)
        for part in chunked(x):
            backend.asarray(chunked.s.h[-1], out=y_hat[part])
            step += 1
            chunked.masks(seed, step)
        yield y_hat


def target_of(backend: Backend, y: Array) -> np.dtype[Any]:
    """The dtype of targets for the loss: int32 for labels (m,), else the backend's."""
    return np.dtype(np.int32) if y.ndim == 1 else backend.dtype


def chunked_bytes(net: Network, rows: int, target: np.dtype[Any] | None) -> int:
    """The bytes that a `Chunked` without gradients allocates."""
    chunks = Chunks(Model(net), net.theta.layout, rows, target)
    planned, model = chunks.of(rows)[0], chunks.model
    own = chunks.shares.nbytes + model.J.nbytes + model.scaling.nbytes
    return own + planned.size + net.backend.scratch_memory(planned.program)
