"""MLP: a fully connected network and its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from gpumlp import backprop, checks, storage
from gpumlp.arrays import as_kind_of
from gpumlp.backends import Backend, has_precision
from gpumlp.errors import CheckpointError
from gpumlp.functions.entry import Entry
from gpumlp.io.types import Array
from gpumlp.parameters import Gradients, Parameters
from gpumlp.step.chunked import Chunked, sampled, target_of
from gpumlp.structure import Structure
from gpumlp.weights import ClassWeight, weighted_targets

CHUNK = 4096  # rows that predict and cost compute at a time, so that their memory is bounded


class MLP(Structure):
    """A multilayer perceptron: ŷ = f_L(b_L + W_L f_{L−1}(… f_1(b_1 + W_1 x))).

    Args:
        widths: n_0, …, n_L: inputs, hidden layers, outputs.
        activation: of the hidden layers: a name, an entry, or a list with one for each layer.
        output_activation: of the last layer.
        loss: L(ŷ, y); cross-entropies take logits, so the output activation is the identity.
        regularizer: λΩ(θ), or None.
        initializer: of the weights; None: "isometric" for layers of rectifiers and tanh, LeCun's
            for SELU, else Glorot's, as for the identity of the last layer.
        precision: "float64", "float32" or, on a GPU, "tf32", "bfloat16" or "float16"; "bfloat16"
            also on a CPU with AVX512_BF16.  In the last two, products read θ rounded to 16 bits,
            and activations and gradients have 16 bits; θ itself and the optimizer's state are
            float32.
        backend: "auto", "cupy", "cpu", "numpy", or a backend, which already has its precision.
        seed: of the initial weights; all backends start from the same numbers.
        norm: "layer", "rms" or "batch": the inputs of all layers but the first are normalised; or a
            list with a name, a `Stage` or None for each of these layers.  "batch" reads the mean
            and variance of each column over the minibatch in a training step, and running averages
            of them in everything else.
        dropout: the probability with which a training sets each output of a hidden layer to 0, or a
            list with one for each hidden layer.  Predictions, costs and evaluations drop nothing.
        residual: True: each hidden layer but the first adds its input to its output, by a linear
            layer if their widths differ.  A number r: every r layers, the input of the first of
            them is added.  A list: whether each hidden layer adds its input.
        gated: an activation f, as "silu": a hidden layer computes a and b, each as wide as its
            output, which is a ⊙ f(b).  Or a list, with None for layers with their `activation`.
        embed: {j: (c, d), …}: column j of x has category codes 0 … c − 1, which need not be
            integers of a dtype but whole numbers, and c ≤ 2²⁴.  The row of a code in a table E,
            (c, d), which is learned, takes its place.  n_0 counts the columns of x as given.
            Layer 1 reads the other columns, in order, and then the rows, in the order of j: its W
            is (n_1, n_0 − number of such columns + Σ d).

    Attributes:
        blocks: what each layer has of these, as `Block`; empty if all are plain.
        embed: the embeddings, as `Embeddings`; None for none.
        layers: a tuple of L `Layer`.
        theta: all parameters in one flat buffer.
        rounded: θ as the products read it: `theta` itself or, in 16-bit precisions, a copy in
            16 bits, which every method updates first.

    Raises:
        ValueError, TypeError: an argument is invalid; the message says what to pass.
        DeviceError: backend is "cupy" and no GPU can be used.
    """

    # ---- Algorithm 6.3 ------------------------------------------------------------------------

    def forward(self, x: Array) -> Array:
        """Return ŷ of x (m, n_0): (m, n_L), as the kind of array that x is: see `gpumlp.arrays`.

        For lists and data frames that is a NumPy array.  Gradients do not flow through it.
        """
        return as_kind_of(self._outputs(x), x)

    def predict(self, x: Array, samples: int | None = None) -> Array:
        """Return link(ŷ) of x: probabilities for cross-entropies, rates for poisson, else ŷ itself.

        (m, n_L), as the kind of array that x is.

        samples: how often to predict with dropout, as a training drops: (samples, m, n_L) on the
            host.  Their spread says where the network is uncertain (Gal & Ghahramani, 2016).  The
            masks depend on the network's seed and the number of the sample.

        ValueError: x is not as described, or samples are asked of a network without dropout.
        """
        if samples is None:
            return as_kind_of(self._linked(self._outputs(x)), x)
        samples = checks.positive_int(samples, "samples", most=1_000_000)
        if not any(block.dropout for block in self.blocks):
            raise ValueError(
                "samples differ only with dropout, which this network has not; build it with "
                "dropout=0.1, for example, or leave out samples"
            )
        rows = checks.examples(self.backend, x, self.widths[0], embed=self.embed)
        each = sampled(self, CHUNK, rows, self.seed, samples)
        return np.stack([self._linked(self.backend.to_host(y_hat)) for y_hat in each])

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
        x = checks.examples(self.backend, x, self.widths[0], embed=self.embed)
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
        x, y, weight = checks.supervised(backend, loss, ends, x, y, own, by_class, embed=self.embed)
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
        checks.boolean(intermediate, "intermediate")
        x, y, share = self._checked(x, y, sample_weight, class_weight)
        backend, target = self.backend, target_of(self.backend, y)
        d = Parameters.zeros(backend, self.theta.layout, backend.storage)
        whole = Chunked(self, len(x), target, d, intermediate=intermediate)
        backend.synchronize()
        for _ in whole(x, y, share):  # one chunk
            backprop.penalty(self, whole.J, d)
        J, s = float(backend.to_host(whole.J)[0]), whole.s
        parts = (s.gz[1:], s.gh[1:]) if intermediate else ([], [])
        return J, Gradients(d.W[1:], d.b[1:], self._of_columns(s.gx), *parts, d.named())

    def _of_columns(self, gh: Array) -> Array:
        """∂J/∂x of ∂J/∂h[0], with 0 in columns of codes."""
        if self.embed is None or gh is None:
            return gh
        plain = self.embed.plain
        gx = np.zeros((len(gh), self.widths[0]), self.backend.dtype)
        gx[:, plain] = self.backend.to_host(gh)[:, : len(plain)]
        return self.backend.asarray(gx, dtype=gh.dtype)

    # ---- files ---------------------------------------------------------------------------------

    def save(self, path: storage.PathLike, extra: Mapping[str, Any] | None = None) -> None:
        """Write θ and the settings to a safetensors file.  A crash leaves the old file or the new.

        The metadata has the settings, the SHA-256 of `tensors()`, and `extra`, a mapping of JSON
        types, which `gpumlp.storage.load_extra` reads.
        """
        storage.save_network(path, self.config(), self.tensors(), extra)

    @classmethod
    def load(
        cls, path: storage.PathLike, backend: str | Backend = "auto",
        functions: Sequence[Entry] = (), **settings: Any,
    ) -> Self:  # fmt: skip
        """Return the network that `save` wrote.

        Args:
            path: the file.
            backend: the backend to load it into.
            functions: your own entries that the network was built with.
            settings: arguments of `MLP` that replace the saved ones.  For a file without gpumlp's
                settings, such as one from torch, they are the only settings but for the widths,
                embeddings, kinds of norms and float64: pass activations, gates and skips.

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


# ---- arguments of others -------------------------------------------------------------------------


def check_kind(net: Any, name: str, *kinds: type) -> None:
    """TypeError unless an argument is one of these kinds of networks."""
    if not isinstance(net, kinds):
        known = " or ".join(f"gpumlp.{kind.__name__}" for kind in kinds)
        own = next((each for each in ("ensemble_", "net_") if hasattr(net, each)), None)
        hint = f"; pass its {own}" if own else ""
        raise TypeError(f"{name} must be a {known}, got {type(net).__name__}{hint}")


def check_members(nets: Sequence[Any]) -> None:
    """Raise unless these are networks of one shape, each once; `Ensemble.of` says what it means."""
    if not (hasattr(nets, "__len__") and hasattr(nets, "__iter__")):
        raise TypeError(f"nets must be a list of gpumlp.MLP, got {type(nets).__name__}")
    for i, net in enumerate(nets):
        check_kind(net, f"nets[{i}]", MLP)
    if not nets:
        raise ValueError("nets is empty; pass at least one network")
    if len({*map(id, nets)}) < len(nets):
        raise ValueError("nets has a network twice; pass copy.deepcopy(net) the second time")
    # without the number of threads, which depends on what runs at the same time
    own = "widths", "f", "blocks", "embed", "loss", "precision"
    kinds = [(n.backend.name, *(getattr(n, name) for name in own)) for n in nets]
    for i, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise ValueError(
                f"nets[{i}] is {nets[i]!r}, and nets[0] {nets[0]!r}; pass nets of one shape"
            )
