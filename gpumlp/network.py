"""MLP: a fully connected network, its parameters, and what one asks of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp import backprop, checks
from gpumlp.arrays import as_kind_of
from gpumlp.backends import Backend, get_backend
from gpumlp.functions import (
    ACTIVATIONS,
    INITIALIZERS,
    LOSSES,
    REGULARIZERS,
    Activation,
    Initializer,
    Loss,
    Regularizer,
)  # fmt: skip
from gpumlp.functions.entry import lookup
from gpumlp.functions.initializers import usual_for
from gpumlp.io.chunks import chunks
from gpumlp.io.types import Array
from gpumlp.parameters import Gradients, Layer, Layout, Parameters
from gpumlp.portable import Portable
from gpumlp.workspace import Workspace

CHUNK = 4096  # rows that predict and cost take at a time, so that memory stays bounded
ClassWeight = Mapping[int, float] | Array | str | None


class MLP(Portable):
    """A multilayer perceptron: ŷ = f_L(b_L + W_L f_{L−1}(… f_1(b_1 + W_1 x))).

    Args:
        widths: n_0, …, n_L: inputs, hidden layers, outputs.
        activation: of the hidden layers: a name, an entry, or one of these for each.
        output_activation: of the last layer.
        loss: L(ŷ, y); cross-entropies take logits, that is an identity output.
        regularizer: λΩ(θ); None for none.
        initializer: of the weights; None picks He's for rectifiers, LeCun's for SELU, else
            Glorot's.
        precision: "float64", "float32" or, on a GPU, "tf32", "bfloat16" or "float16".  In the last
            two the products read θ rounded to 16 bits, and activations and gradients have 16; θ
            itself and the optimizer's state are float32.
        backend: "auto", "numpy", "cupy", or a backend, which has its precision already.
        seed: of the initial weights; both backends start from the same numbers.

    Attributes:
        layers: L of `Layer`.
        theta: all parameters in one flat buffer.
        rounded: θ as the products read it: `theta` itself, or in 16-bit precisions a copy in
            16 bits that whatever is asked of the network brings up to date.

    Raises:
        ValueError, TypeError: an argument is not as said; the message names the remedy.
        DeviceError: backend "cupy" and no GPU can be used.
    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: str | Activation | Sequence[str | Activation] = "relu",
        output_activation: str | Activation = "identity",
        loss: str | Loss = "softmax_cross_entropy",
        regularizer: str | Regularizer | None = None,
        initializer: str | Initializer | None = None,
        precision: str = "float32",
        backend: str | Backend = "auto",
        seed: int = 0,
    ) -> None:
        self.widths = checks.widths(widths)
        self.f = activations(len(self.widths) - 2, activation, output_activation)
        self.loss = lookup(LOSSES, "loss", loss)
        self.regularizer = lookup(
            REGULARIZERS, "regularizer", "none" if regularizer is None else regularizer
        )
        self.initializer = (
            None if initializer is None else lookup(INITIALIZERS, "initializer", initializer)
        )
        self.seed = checks.positive_int(seed, "seed", least=0)
        _check_output(self.loss, self.f[-1])
        self.backend = get_backend(backend, precision)
        self.backend.synchronize()
        layout = Layout(self.widths, self.backend.storage.itemsize)
        self._adopt(Parameters.zeros(self.backend, layout))
        rng = np.random.default_rng(self.seed)
        for layer in self.layers:
            draw = self.initializer or usual_for(layer.f)
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
        widths = "-".join(map(str, self.widths))
        names = [f.name for f in self.f[1:]]
        hidden = names[0] if len(set(names[:-1])) == 1 else ", ".join(names[:-1])
        return (
            f"MLP({widths}, {hidden or 'no hidden layer'} → {names[-1]}, {self.loss.name}, "
            f"{self.theta.layout.count:,} parameters; {self.backend.describe()})"
        )

    # ---- Algorithm 6.3 ------------------------------------------------------------------------

    def forward(self, x: Array) -> Array:
        """ŷ of x (m, n_0): (m, n_L), as the kind of array that x is: see `gpumlp.arrays`.

        That is a NumPy array for lists and data frames.  Gradients do not flow through it.
        """
        return as_kind_of(self._outputs(x), x)

    def _outputs(self, x: Array) -> Array:
        """ŷ as a host array for an x on the host, else as an array of the backend."""
        x = checks.examples(self.backend, x, self.widths[0])
        self.backend.synchronize()
        y_hat = self.backend.empty((len(x), self.widths[-1]))
        for rows, s in self._chunks(x):
            self.backend.asarray(backprop.forward(self, s), out=y_hat[rows])
        self.backend.synchronize()
        return y_hat if self.backend.owns(x) else self.backend.to_host(y_hat)

    def predict(self, x: Array) -> Array:
        """link(ŷ) of x: probabilities for cross-entropies, rates for poisson, else ŷ itself.

        (m, n_L), as the kind of array that x is.
        """
        link = self.loss.link
        p = link.f(self._outputs(x), **link.params)
        self.backend.synchronize()  # before the memory of ŷ may be used again
        return as_kind_of(p, x)

    def cost(
        self,
        x: Array,
        y: Array,
        sample_weight: Array | None = None,
        class_weight: ClassWeight = None,
    ) -> float:
        """J = L(ŷ, y) + λΩ(θ), where L is the mean over the examples, weighted where weights are.

        Args:
            x: (m, n_0).
            y: (m, n_L); integer labels (m,) for classification.
            sample_weight: (m,), 0 and up.
            class_weight: a weight for each class, as list or mapping, or "balanced".
        """
        x, y, weights = self._check(x, y, sample_weight, class_weight)
        J = 0.0
        for rows, s in self._chunks(x):
            s.set_targets(y, weights, rows)
            backprop.forward(self, s)
            backprop.loss(self, s)
            J += float(self.backend.to_host(s.J)[0])
        return J + self.penalty()

    def penalty(self) -> float:
        """λΩ(θ)."""
        backend, theta = self.backend, self.theta
        backend.synchronize()
        J = (
            self._J.pop() if self._J else backend.full((1,), 0, "float64")
        )  # none while a thread has it
        backend.asarray(np.zeros(1), out=J)
        backend.penalty(self.regularizer, theta.flat, theta.layout.split, J, None)
        omega = float(backend.to_host(J)[0])
        self._J.append(J)
        return omega

    # ---- Algorithm 6.4 ------------------------------------------------------------------------

    def cost_and_gradients(
        self,
        x: Array,
        y: Array,
        sample_weight: Array | None = None,
        class_weight: ClassWeight = None,
        *,
        intermediate: bool = True,
    ) -> tuple[float, Gradients]:
        """J and ∇J over all examples at once; arguments as in `cost`.

        With `intermediate` also ∂J/∂x and each layer's gz and gh, for one more product and two more
        arrays (m, n_k) a layer.
        """
        x, y, weights = self._check(x, y, sample_weight, class_weight)
        backend, m = self.backend, len(x)
        s = Workspace(self, m, intermediate=intermediate)
        backend.asarray(x, out=s.h[0])
        s.set_targets(y, weights, slice(0, m))
        d = Parameters.zeros(backend, self.theta.layout, backend.storage)
        backend.synchronize()
        self.round()
        backprop.forward(self, s)
        backprop.backward(self, s, d)
        backprop.penalty(self, s, d)
        gx = None
        if intermediate:
            gx = backend.empty((m, self.widths[0]), backend.storage)
            backend.input_gradient(s.gz[1], self.rounded.W[1], gx)
        kept = (s.gz[1:], s.gh[1:]) if intermediate else ([], [])
        return float(backend.to_host(s.J)[0]), Gradients(d.W[1:], d.b[1:], gx, *kept)

    def round(self) -> None:
        """Bring `rounded` up to date with a θ that was assigned to."""
        self.backend.round(self.theta.flat, self.rounded.flat)

    # ---- inside -------------------------------------------------------------------------------

    def _adopt(self, theta: Parameters) -> None:
        super()._adopt(theta)
        self.layers = [
            Layer(W, b, f) for W, b, f in zip(theta.W[1:], theta.b[1:], self.f[1:], strict=True)
        ]
        backend = self.backend
        self.rounded = theta
        if backend.storage != backend.dtype:
            self.rounded = Parameters.zeros(backend, theta.layout, backend.storage)
        self._J = [backend.full((1,), 0, "float64")]
        self._idle: Workspace | None = None

    def _check(
        self, x: Array, y: Array, sample_weight: Array | None, class_weight: ClassWeight
    ) -> tuple[Array, Array, npt.NDArray[Any] | None]:
        ends = self.widths[0], self.widths[-1]
        self.backend.synchronize()
        return checks.supervised(self.backend, self.loss, ends, x, y, sample_weight, class_weight)

    def _chunks(self, x: Array) -> Iterator[tuple[slice, Workspace]]:
        """The rows of x in chunks, each with a workspace that the chunk has been loaded into."""
        s, self._idle = self._idle, None  # None too while another thread has it
        if s is None or s.rows < min(len(x), CHUNK):
            s = Workspace(self, min(len(x), CHUNK), gradients=False)
        self.round()
        try:
            for rows in chunks(x, rows=s.rows):
                s.resize(rows.stop - rows.start)
                self.backend.asarray(x[rows], out=s.h[0])
                yield rows, s
        finally:
            self._idle = s


def _check_output(loss: Loss, f: Activation) -> None:
    """Raise where the loss takes probabilities and the output layer cannot give them."""
    if loss.probabilities and f.name in ("identity", "relu", "leaky_relu", "tanh"):
        raise ValueError(
            f"{loss.name} takes probabilities but the output layer's activation is {f.name}; pass "
            'output_activation="softmax", or loss="softmax_cross_entropy", which takes logits'
        )


def activations(count: int, hidden: Any, output: Any) -> list[Activation]:
    """f[1] … f[L] of `count` hidden layers and the output; f[0], which is none, is identity."""
    each = hidden if isinstance(hidden, (list, tuple)) else [hidden]
    entries = [lookup(ACTIVATIONS, "activation", f) for f in each]
    if each is not hidden:
        entries *= count
    elif len(each) != count:
        raise ValueError(
            f"activation has {len(each)} entries but there are {count} hidden layers; "
            "give one name for all, or one for each"
        )
    return [ACTIVATIONS["identity"], *entries, lookup(ACTIVATIONS, "output_activation", output)]
