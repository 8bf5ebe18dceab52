"""The structure of a network, its parameters, and copies of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

import numpy as np

from gpumlp import checks
from gpumlp.backends import Backend, get_backend, host_backend
from gpumlp.backends.declaration import Call
from gpumlp.errors import renamed
from gpumlp.functions import (
    LOSSES,
    REGULARIZERS,
    Activation,
    Initializer,
    Loss,
    Regularizer,
    blocks,
    embeddings,
)
from gpumlp.functions.activations import identity
from gpumlp.functions.entry import lookup
from gpumlp.functions.initializers import INITIALIZERS, default_initializer
from gpumlp.functions.stages import ColumnStage, Stage
from gpumlp.io.types import Array, HostArray
from gpumlp.parameters import Layer, Layout, Parameters
from gpumlp.step.chunked import ForwardPass

Norms = str | Stage | None | Sequence[str | Stage | None]
Embed = Mapping[int, tuple[int, int]] | None
Gates = str | Activation | None | Sequence[str | Activation | None]


# what recorded programs depend on, but for the regulariser
FIXED = (
    "widths", "f", "blocks", "embed", "loss", "backend", "layers", "theta", "rounded", "activation",
    "output_activation", "precision", "norm", "dropout", "residual", "gated",
)  # fmt: skip
ASSIGNED: dict[str, Callable[[Any], Any]] = {  # what may change
    "regularizer": lambda value: lookup(
        REGULARIZERS, "regularizer", "none" if value is None else value
    ),
    "initializer": lambda value: (
        None if value is None else lookup(INITIALIZERS, "initializer", value)
    ),
    "seed": partial(checks.positive_int, name="seed", least=0),
}


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


class Structure:
    """What `MLP` is before it computes anything; `MLP` documents arguments and attributes."""

    def __init__(
        self, widths: Sequence[int],
        activation: str | Activation | Sequence[str | Activation] = "relu",
        output_activation: str | Activation = "identity",
        loss: str | Loss = "softmax_cross_entropy", regularizer: str | Regularizer | None = None,
        initializer: str | Initializer | None = None, precision: str = "float32",
        backend: str | Backend = "auto", seed: int = 0, *, norm: Norms = None,
        dropout: float | Sequence[float] = 0.0, residual: bool | int | Sequence[bool] = False,
        gated: Gates = None, embed: Embed = None,
    ) -> None:  # fmt: skip
        self.widths = checks.widths(widths)
        self.embed = embeddings.embeddings(self.widths[0], embed)
        self.blocks = blocks.blocks(self.widths, norm, dropout, residual, gated)
        self.f = blocks.activations(
            checks.layer_activations(len(self.widths) - 2, activation, output_activation),
            self.blocks,
        )
        self.loss = lookup(LOSSES, "loss", loss)
        self.regularizer: Regularizer = regularizer  # type: ignore[assignment]  # looked up
        self.initializer: Initializer | None = initializer  # type: ignore[assignment]
        self.seed = seed
        self.loss.check_output(self.f[-1])
        self.backend = get_backend(backend, precision)
        self._allocate()
        rng = np.random.default_rng(self.seed)
        for layer in self.layers:
            draw = self.initializer or default_initializer(layer.f)
            self.backend.asarray(draw.weights(rng, *layer.W.shape), out=layer.W)
        self._begin_blocks(rng)

    def _begin_blocks(self, rng: np.random.Generator) -> None:
        """The first values of what blocks have, and of embeddings.

        Norms only normalise; projections and tables are drawn.
        """
        for k, block in enumerate(self.blocks, 1):
            phi, P = self.theta.phi[k], self.theta.P[k]
            if phi is not None and block.norm is not None:
                rows = np.broadcast_to(np.array(block.norm.initial)[:, None], phi.shape)
                self.backend.asarray(rows, out=phi)
            if isinstance(block.norm, ColumnStage):
                first = np.array([value for _, value, _ in block.norm.running])
                s = self.theta.s[k]
                self.backend.asarray(np.broadcast_to(first[:, None], s.shape), out=s)
            if P is not None:
                draw = self.initializer or default_initializer(identity)
                self.backend.asarray(draw.weights(rng, *P.shape), out=P)
        for table in self.theta.E:
            self.backend.asarray(embeddings.initial(rng, *table.shape), out=table)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, unless recorded programs depend on what it was: AttributeError."""
        if name in FIXED and "_forward" in vars(self):
            raise AttributeError(
                f"{name} of a network cannot change, since its programs are recorded; make a new "
                "MLP, and pass θ on by new.assign(old.tensors())"
            )
        super().__setattr__(name, ASSIGNED[name](value) if name in ASSIGNED else value)

    @property
    def L(self) -> int:  # noqa: N802  (the book's letter)
        """The depth: the number of layers with parameters."""
        return len(self.widths) - 1

    @property
    def precision(self) -> str:
        """The arithmetic: "float64", "float32", "tf32", "bfloat16" or "float16"."""
        return self.backend.precision

    def __repr__(self) -> str:
        *hidden, output = [f.name for f in self.f[1:]]
        names = ", ".join(hidden[:1] if len(set(hidden)) == 1 else hidden) or "no hidden layer"
        parts = [*embeddings.described(self.embed), *blocks.described(self.blocks)]
        more = f" with {', '.join(parts)}" if parts else ""
        return (
            f"MLP({'-'.join(map(str, self.widths))}, {names} → {output}{more}, {self.loss.name}, "
            f"{self.theta.layout.count:,} parameters; {self.backend.describe()})"
        )

    def round(self) -> None:
        """Update `rounded` after an assignment to θ."""
        if self.rounded is not self.theta:
            self.backend.round(self.theta.flat, self.rounded.flat)

    def config(self) -> dict[str, Any]:
        """Return the settings in JSON types: ``MLP(**config)`` builds the same network."""
        return {
            "widths": list(self.widths),
            "activation": [f.spec() for f in self.f[1:-1]],
            "output_activation": self.f[-1].spec(),
            "loss": self.loss.spec(),
            "regularizer": self.regularizer.spec(),
            "initializer": self.initializer and self.initializer.spec(),
            "precision": self.backend.precision,
            "seed": self.seed,
            **blocks.config(self.blocks),
            **embeddings.config(self.embed),
        }

    def tensors(self) -> dict[str, HostArray]:
        """Return θ on the host by torch's names: "0.weight" (n_1, n_0), "0.bias" (n_1,), …

        With batch norm also its running statistics: "2.norm.running_mean" (n_1,), …
        """
        self.backend.synchronize()
        return {name: self.backend.to_host(view) for name, view in self.theta.named().items()}

    def assign(self, tensors: Mapping[str, Array]) -> None:
        """θ ← tensors, with the names and shapes of `tensors()`: all of them or, on an error, none.

        They may be arrays of other libraries, such as a torch module's `state_dict`, on any device.
        ValueError: a name is missing or unknown, or a shape differs.
        """
        self.theta.assign(self.backend, tensors)

    def on_other_backend(self, backend: Backend) -> Self:
        """Return a network with these settings on another backend, with θ = 0."""
        net = object.__new__(type(self))
        vars(net).update(vars(self), backend=backend)
        net._allocate()
        return net

    seen_by = renamed("seen_by", "on_other_backend")

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the same network with its own θ; its layers are views of that θ."""
        net = memo[id(self)] = self.on_other_backend(self.backend)
        self.backend.asarray(self.theta.whole, out=net.theta.whole)
        self.backend.synchronize()
        return net

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickle stores: the settings, the backend's name, and θ on the host."""
        backend = self.backend.name, self.backend.precision
        state = {**vars(self), "backend": backend, "theta": self.tensors()}
        del state["rounded"], state["layers"], state["_forward"], state["_penalty"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        name, precision = state["backend"]
        of_name = host_backend if name == "cpu" else partial(get_backend, name)
        earlier = {"blocks": (), "embed": None}  # in pickles of a version without them
        vars(self).update(earlier | state, backend=of_name(precision))
        self._allocate()
        self.assign(state["theta"])

    def keep_in(self, whole: Array, rounded: Array) -> None:
        """Move θ to this memory of the backend, (p,), and its copy in 16 bits to `rounded`.

        p counts the states behind θ, which `rounded` has not.
        """
        self._allocate(self.backend.asarray(self.theta.whole, out=whole), rounded)

    def _allocate(self, whole: Array = None, rounded: Array = None) -> None:
        """Allocate all, so that a fit does not fail for lack of memory later: θ = 0, or `whole`."""
        self.backend.synchronize()
        backend = self.backend
        layout = Layout(self.widths, backend.storage.itemsize, self.blocks, self.embed)
        whole = backend.full((layout.whole,), 0) if whole is None else whole
        vars(self).pop("_forward", None)  # so that these may change
        self.theta = self.rounded = theta = Parameters(layout, whole)
        if backend.storage != backend.dtype:
            copy = Parameters.zeros(backend, layout, backend.storage) if rounded is None else None
            self.rounded = copy or Parameters(layout, rounded)
        views = zip(theta.W[1:], theta.b[1:], self.f[1:], strict=True)
        self.layers = tuple(Layer(W, b, f) for W, b, f in views)
        self._forward = ForwardPass()
        self._penalty = Penalty(backend)
