"""MLP: a fully connected network and its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Self

import numpy as np

from gpumlp import backprop, checks, storage
from gpumlp.arrays import as_kind_of
from gpumlp.backends import Backend, get_backend, has_precision, host_backend
from gpumlp.errors import CheckpointError, renamed
from gpumlp.functions import LOSSES, REGULARIZERS, Activation, Initializer, Loss, Regularizer
from gpumlp.functions.entry import lookup
from gpumlp.functions.initializers import INITIALIZERS, default_initializer
from gpumlp.io.types import Array, HostArray
from gpumlp.parameters import Gradients, Layer, Layout, Parameters, Penalty
from gpumlp.step.chunked import Chunked, ForwardPass, target_of
from gpumlp.weights import ClassWeight, weighted_targets

CHUNK = 4096  # rows that predict and cost compute at a time, so that their memory is bounded


class MLP:
    """A multilayer perceptron: ŷ = f_L(b_L + W_L f_{L−1}(… f_1(b_1 + W_1 x))).

    Args:
        widths: n_0, …, n_L: inputs, hidden layers, outputs.
        activation: of the hidden layers: a name, an entry, or a list with one for each layer.
        output_activation: of the last layer.
        loss: L(ŷ, y); cross-entropies take logits, so the output activation is the identity.
        regularizer: λΩ(θ), or None.
        initializer: of the weights; None: LeCun's for rectifiers and SELU, else Glorot's.
        precision: "float64", "float32" or, on a GPU, "tf32", "bfloat16" or "float16"; "bfloat16"
            also on a CPU with AVX512_BF16.  In the last two, products read θ rounded to 16 bits,
            and activations and gradients have 16 bits; θ itself and the optimizer's state are
            float32.
        backend: "auto", "numpy", "cupy", or a backend, which already has its precision.
        seed: of the initial weights; all backends start from the same numbers.

    Attributes:
        layers: a list of L `Layer`.
        theta: all parameters in one flat buffer.
        rounded: θ as the products read it: `theta` itself or, in 16-bit precisions, a copy in
            16 bits, which every method updates first.

    Raises:
        ValueError, TypeError: an argument is invalid; the message says what to pass.
        DeviceError: backend is "cupy" and no GPU can be used.
    """

    def __init__(
        self, widths: Sequence[int],
        activation: str | Activation | Sequence[str | Activation] = "relu",
        output_activation: str | Activation = "identity",
        loss: str | Loss = "softmax_cross_entropy", regularizer: str | Regularizer | None = None,
        initializer: str | Initializer | None = None, precision: str = "float32",
        backend: str | Backend = "auto", seed: int = 0,
    ) -> None:  # fmt: skip
        self.widths = checks.widths(widths)
        self.f = checks.layer_activations(len(self.widths) - 2, activation, output_activation)
        self.loss = lookup(LOSSES, "loss", loss)
        penalty = "none" if regularizer is None else regularizer
        self.regularizer = lookup(REGULARIZERS, "regularizer", penalty)
        self.initializer = (
            None if initializer is None else lookup(INITIALIZERS, "initializer", initializer)
        )
        self.seed = checks.positive_int(seed, "seed", least=0)
        self.loss.check_output(self.f[-1])
        self.backend = get_backend(backend, precision)
        self._allocate()
        rng = np.random.default_rng(self.seed)
        for layer in self.layers:
            draw = self.initializer or default_initializer(layer.f)
            self.backend.asarray(draw.weights(rng, *layer.W.shape), out=layer.W)

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
        return (
            f"MLP({'-'.join(map(str, self.widths))}, {names} → {output}, {self.loss.name}, "
            f"{self.theta.layout.count:,} parameters; {self.backend.describe()})"
        )

    # ---- Algorithm 6.3 ------------------------------------------------------------------------

    def forward(self, x: Array) -> Array:
        """Return ŷ of x (m, n_0): (m, n_L), as the kind of array that x is: see `gpumlp.arrays`.

        For lists and data frames that is a NumPy array.  Gradients do not flow through it.
        """
        return as_kind_of(self._outputs(x), x)

    def predict(self, x: Array) -> Array:
        """Return link(ŷ) of x: probabilities for cross-entropies, rates for poisson, else ŷ itself.

        (m, n_L), as the kind of array that x is.
        """
        return as_kind_of(self._linked(self._outputs(x)), x)

    def cost(
        self, x: Array, y: Array, sample_weight: Array = None, class_weight: ClassWeight = None
    ) -> float:
        """J = L(ŷ, y) + λΩ(θ), where L is the (weighted) mean over the examples.

        Args:
            x: (m, n_0).
            y: (m, n_L), or integer labels (m,) for classification.
            sample_weight: (m,), not negative; None for equal weights.
            class_weight: a weight for each class, as a list or mapping, or "balanced".
        """
        x, y, share = self._checked(x, y, sample_weight, class_weight)
        return self._forward(self, CHUNK, x, y, share, keep=False)[0] + self.penalty()

    def cost_and_prediction(self, x: Array, y: Array) -> tuple[float, Array]:
        """Return what `cost` and `predict` return, from one forward pass."""
        checked, y, share = self._checked(x, y, None, None)
        L, y_hat = self._forward(self, CHUNK, checked, y, share)
        return L + self.penalty(), as_kind_of(self._linked(y_hat), x)

    def penalty(self) -> float:
        """λΩ(θ)."""
        return self._penalty(self.regularizer, self.theta)

    def _outputs(self, x: Array) -> Array:
        x = checks.examples(self.backend, x, self.widths[0])
        self.backend.synchronize()
        return self._forward(self, CHUNK, x)[1]

    def _linked(self, y_hat: Array) -> Array:
        link = self.loss.link
        p = link.f(y_hat, **link.params)
        self.backend.synchronize()  # before the memory of ŷ may be used again
        return p

    def _checked(self, x: Array, y: Array, own: Any, by_class: Any) -> tuple[Array, Array, Array]:
        """Return x and y, checked, and each example's share of J, or None if all are equal."""
        backend, loss, ends = self.backend, self.loss, (self.widths[0], self.widths[-1])
        backend.synchronize()
        x, y, weight = checks.supervised(backend, loss, ends, x, y, own, by_class)
        y = weighted_targets(backend, loss, y, ends[1], by_class)
        return x, y, None if weight is None else weight / weight.sum()

    # ---- Algorithm 6.4 ------------------------------------------------------------------------

    def cost_and_gradients(
        self, x: Array, y: Array, sample_weight: Array = None, class_weight: ClassWeight = None, *,
        intermediate: bool = True,
    ) -> tuple[float, Gradients]:  # fmt: skip
        """J and ∇J, with all examples as one minibatch; the arguments are those of `cost`.

        With `intermediate` also ∂J/∂x and each layer's gz and gh, for one more product and two more
        arrays (m, n_k) per layer.
        """
        x, y, share = self._checked(x, y, sample_weight, class_weight)
        backend, target = self.backend, target_of(self.backend, y)
        d = Parameters.zeros(backend, self.theta.layout, backend.storage)
        whole = Chunked(self, len(x), target, d, intermediate=intermediate)
        backend.synchronize()
        for _ in whole(x, y, share):  # one chunk
            backprop.penalty(self, whole.J, d)
        J, s = float(backend.to_host(whole.J)[0]), whole.s
        parts = (s.gz[1:], s.gh[1:]) if intermediate else ([], [])
        return J, Gradients(d.W[1:], d.b[1:], s.gx, *parts)

    def round(self) -> None:
        """Update `rounded` after an assignment to θ."""
        if self.rounded is not self.theta:
            self.backend.round(self.theta.flat, self.rounded.flat)

    # ---- settings, files, copies --------------------------------------------------------------

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
        }

    def save(self, path: storage.PathLike, extra: Mapping[str, Any] | None = None) -> None:
        """Write θ and the settings to a safetensors file.  A crash leaves the old file or the new.

        The metadata has the settings, the SHA-256 of `tensors()`, and `extra`, a mapping of JSON
        types, which `gpumlp.storage.load_extra` reads.
        """
        storage.save_network(path, self.config(), self.tensors(), extra)

    @classmethod
    def load(
        cls, path: storage.PathLike, backend: str | Backend = "auto",
        functions: Sequence[Activation | Loss | Regularizer] = (), **settings: Any,
    ) -> Self:  # fmt: skip
        """Return the network that `save` wrote.

        Args:
            path: the file.
            backend: the backend to load it into.
            functions: your own entries that the network was built with.
            settings: arguments of `MLP` that replace the saved ones.  For a file without gpumlp's
                settings, such as one from torch, they are the only settings but for the widths.

        Raises:
            CheckpointError: the file is damaged, foreign or does not fit.
        """
        checks.known_arguments(cls, settings)
        config, tensors = storage.load_network(path, functions)
        if not has_precision(backend, config.get("precision")):
            config["precision"] = "float32"  # θ's own type
        try:
            net = cls(**{**config, "backend": backend, **settings})
            net.assign(tensors)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: {error}") from error
        return net

    def tensors(self) -> dict[str, HostArray]:
        """Return θ on the host by torch's names: "0.weight" (n_1, n_0), "0.bias" (n_1,), …"""
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
        self.backend.asarray(self.theta.flat, out=net.theta.flat)
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
        vars(self).update(state, backend=of_name(precision))
        self._allocate()
        self.assign(state["theta"])

    def keep_in(self, flat: Array, rounded: Array) -> None:
        """Move θ to this memory of the backend, (p,), and its copy in 16 bits to `rounded`."""
        self._allocate(self.backend.asarray(self.theta.flat, out=flat), rounded)
        self.round()

    def _allocate(self, flat: Array = None, rounded: Array = None) -> None:
        """Allocate all, so that a fit does not fail for lack of memory later: θ = 0, or `flat`."""
        self.backend.synchronize()
        backend, layout = self.backend, Layout(self.widths, self.backend.storage.itemsize)
        flat = backend.full((layout.size,), 0) if flat is None else flat
        self.theta = self.rounded = theta = Parameters(layout, flat)
        if backend.storage != backend.dtype:
            copy = Parameters.zeros(backend, layout, backend.storage) if rounded is None else None
            self.rounded = copy or Parameters(layout, rounded)
        views = zip(theta.W[1:], theta.b[1:], self.f[1:], strict=True)
        self.layers = [Layer(W, b, f) for W, b, f in views]
        self._forward = ForwardPass()
        self._penalty = Penalty(backend)
