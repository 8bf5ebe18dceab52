"""The operations that Algorithms 6.3 and 6.4 and a training step ask of a backend.

All backends have them with the same parameters.  This page alone documents and declares them.

Shapes: a minibatch has m examples, one in each row.  n_in and n_out are the widths of a layer, and
n = n_L is the width of the output.  θ has p entries.  Unless a backend `compiles`, an operation of
a step also takes K networks: all its arrays but x, y and weights of all have a leading dimension K.
Dtypes: θ, optimizer slots, targets and weights of examples have the backend's `dtype`; x, z, h,
gh, gz, dθ with its views dW and db, and the W and b that products read its `storage` type.  With
`keeps_remainder`, θ may also be split (see `round`): `theta` is then the remainder, `rounded` the
rest; `update` reads and writes both, `clip` and `average` read both.
All arrays, of each network, are C-contiguous, and results go to buffers of the caller, which are
the last parameters: a step allocates nothing.  No operation checks its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gpumlp.backends import declaration
from gpumlp.backends.columns import Columns
from gpumlp.backends.declaration import Call, Facts, operation
from gpumlp.backends.feed import Feed
from gpumlp.backends.sharing import Sharing
from gpumlp.backends.stages import Stages
from gpumlp.functions import Activation, Loss, Optimizer, Regularizer
from gpumlp.io.types import Array


class Backend(Facts, Columns, Sharing, Stages, Protocol):
    """One backend, with defaults for the host.  Operations are in the order of the algorithms."""

    def asarray(
        self, a: npt.ArrayLike, dtype: npt.DTypeLike | None = None, out: Array | None = None
    ) -> Array:
        """A new C-contiguous array of the backend with the values of `a`.

        Its type is `dtype`; None means the backend's `dtype`.  If `out` is given, which has the
        shape of `a`, the values are written to `out` instead.
        """

    def adopt(self, a: Any) -> Array:
        """An array over the memory of `a`, which the backend owns unless it is on another GPU."""

    def to_host(self, a: Array) -> npt.NDArray[Any]:
        """The values of `a` as a new NumPy array, after all work that writes `a` has finished."""

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike | None = None) -> Array:
        """An array of undefined values, 256-byte aligned.  None: the backend's `dtype`."""

    def full(
        self, shape: tuple[int, ...], value: float, dtype: npt.DTypeLike | None = None
    ) -> Array:
        """An array as `empty` returns, filled with `value`."""

    # ---- Algorithm 6.3 ------------------------------------------------------------------------

    def pre_activation(
        self, f: Activation, m: int, n: int
    ) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        """Shape and dtype of the buffer that keeps z beside h (m, n) for the backward pass.

        If f' reads z, the buffer is like h.  Otherwise the result is None, and then h also serves
        as z, or it is a buffer of m rows of the backend's own kind, such as one bit for each entry
        for relu.
        """

    @operation(writes="z h", products=lambda a: [(*a.h.shape, a.W.shape[1])], by_rows=True)
    def affine_activation(
        self, h_below: Array, W: Array, b: Array, f: Activation, z: Array, h: Array
    ) -> None:
        """z ← h_below Wᵀ + b and h ← f(z): one iteration of Algorithm 6.3.

        h_below (m, n_in), W (n_out, n_in), b (n_out,), z and h (m, n_out).  z may be h, and then
        only h is kept.  z may also be a buffer as `pre_activation` describes it.
        """

    @operation(writes="h", by_rows=True)
    def activation(self, f: Activation, z: Array, h: Array) -> None:
        """h ← f(z) for an elementwise f: the h of `affine_activation` again.  z and h (m, n)."""

    @operation(updates="J", by_rows=True)
    def loss(self, loss: Loss, y_hat: Array, y: Array, weights: Array, J: Array) -> None:
        """J ← J + Σᵢ weightsᵢ L(ŷᵢ, yᵢ); an example of weight 0 does not count, even if L is NaN.

        y_hat (m, n); y (m, n), or int32 labels (m,); weights (m,); J (1,) float64.
        """

    # ---- Algorithm 6.4 ------------------------------------------------------------------------

    @operation(writes="gh gz db", updates="J", by_rows=True)
    def output_gradient(
        self, loss: Loss, f: Activation, z: Array, h: Array, y: Array, weights: Array,
        scaling: Array, gh: Array, gz: Array, db: Array, J: Array,
    ) -> None:  # fmt: skip
        """gh ← S ∇_ŷ J, gz ← gh ⊙ f'(z) (or Jᵀ gh), db ← column sums of gz, for the output layer.

        z, h = ŷ, gh, gz (m, n); db (n,).  y, weights and J as in `loss`: the same pass also adds
        the loss to J.  gz may be gh, and then only gz is kept.  scaling holds S: see `clip`.
        """

    @operation(writes="dW", products=lambda a: [(*a.dW.shape, len(a.gz))])
    def weight_gradient(self, gz: Array, h_below: Array, dW: Array, factors: Array | None) -> None:
        """dW ← gzᵀ h_below, or dW ← α gzᵀ h_below + β dW if factors = (α, β) are given.

        gz (m, n_out), h_below (m, n_in), dW (n_out, n_in) in the storage type or in θ's type.
        factors (2,) in θ's type, and then dW has θ's type too.  With factors, dW may be W itself
        (the update is *folded* into the product): no later operation of the step reads that W.
        """

    @operation(writes="gz db", by_rows=True)
    def activation_gradient(
        self, f: Activation, z: Array, h: Array, gh: Array, gz: Array, db: Array
    ) -> None:
        """gz ← gh ⊙ f'(z) (or Jᵀ gh), db ← column sums of gz: the second half of `hidden_gradient`.

        z, h, gh and gz (m, n), db (n,).  gz may be gh.
        """

    @operation(writes="gh gz db", products=lambda a: [(*a.gz.shape, len(a.W_above))], by_rows=True)
    def hidden_gradient(
        self, gz_above: Array, W_above: Array, f: Activation, z: Array, h: Array,
        gh: Array, gz: Array, db: Array,
    ) -> None:  # fmt: skip
        """gh ← gz_above W_above, gz ← gh ⊙ f'(z) (or Jᵀ gh), db ← column sums of gz.

        gz_above (m, n_above), W_above (n_above, n_out), z, h, gh and gz (m, n_out), db (n_out,).
        gz may be gh, and then only gz is kept.
        """

    @operation(writes="gx", products=lambda a: [(*a.gx.shape, len(a.W))], by_rows=True)
    def input_gradient(self, gz: Array, W: Array, gx: Array) -> None:
        """gx ← gz W, its last columns, as many as gx has.  gz (m, n_1), W (n_1, n_0), gx (m, n)."""

    @operation(updates="J dtheta")
    def penalty(
        self, regularizer: Regularizer, theta: Array, split: int, J: Array, dtheta: Array | None
    ) -> None:
        """J ← J + λΩ(θ) and, if dtheta is given, dθ ← dθ + λ∇Ω(θ).  J (1,) float64.

        theta, dtheta (p,): flat, all weights before all biases, which start at index `split`.
        """

    # ---- the update ---------------------------------------------------------------------------

    @operation(updates="total")
    def add(self, part: Array, total: Array, overwrite: bool) -> None:
        """total ← total + part, or total ← part if `overwrite` is true.

        part and total (q,), for the biases of one micro-batch; total has θ's type.
        """

    @operation(updates="scaling control")
    def clip(
        self, regularizer: Regularizer, theta: Array, dtheta: Array, split: int,
        max_norm: float, scaling: Array, control: Array, rounded: Array | None = None,
    ) -> None:  # fmt: skip
        """control[0] ← min(1, max_norm / ‖dθ/S + λ∇Ω(θ)‖₂), by which `update` scales the gradient.

        theta, dtheta and split as in `penalty`, but dtheta may have θ's type; control as in
        `update`; rounded only where θ is split.  If the norm is not finite, control[0] becomes NaN,
        and the next J shows it.

        scaling (4,) float64: the loss scale S, the factor 1/S of dθ, the number of steps since S
        last changed, the number of skipped steps.  The values stay 1, 1, 0, 0 unless the backend
        has `scales_loss`.  Then a norm that is not finite sets control[0] = 0 and halves S, and S
        is doubled after 2,000 steps without such a norm.
        """

    @operation(updates="theta rounded dtheta slots", moves=declaration.update_bytes)
    def update(
        self, optimizer: Optimizer, regularizer: Regularizer, theta: Array, rounded: Array,
        dtheta: Array, slots: Array, split: int, scaling: Array, control: Array,
        part: tuple[int, int] | None = None, groups: Array | None = None, origin: int = 0,
    ) -> None:  # fmt: skip
        """Make one optimizer step in place with the gradient control[0] (dθ/S + λ∇Ω(θ)).

        theta, dtheta (p,), split and scaling as in `clip`; slots (number of slots, p); `rounded` as
        `round` does it.  dtheta is undefined afterwards.
        control, float64: the factor of the gradient, where 0 skips the step, and then the numbers
        of `Optimizer.control`.
        part: (first, end), to update only these entries of θ; both are starts of a W[k] or b[k].
        groups (regions, 3) float64: for each region of θ, in order, its end, the factor of the
        learning rate and the factor of the rule's weight_decay.  None: all factors are 1.
        origin: the place of theta[0] in the whole θ; slots of 16 bits are rounded by it.
        """

    @operation(
        updates="theta rounded slots", moves=declaration.product_update_bytes,
        products=lambda a: [(a.gz.shape[1], a.h_below.shape[1], len(a.gz))],
    )  # fmt: skip
    def weight_update(
        self, optimizer: Optimizer, regularizer: Regularizer, gz: Array, h_below: Array,
        theta: Array, rounded: Array, slots: Array, control: Array, part: tuple[int, int],
        factors: tuple[float, float],
    ) -> None:  # fmt: skip
        """`weight_gradient` and `update` of one W in one product, which does not store dW.

        gz (m, n_out), h_below (m, n_in); the others as in `update`, with control[0] = 1.
        part: (first, end) of W in θ.  factors: those of W's group, of the learning rate and of the
        weight_decay.  Where products have 16 bits, dW is not rounded to 16 bits before it is used.
        """

    @operation(writes="X A P", updates="V", products=declaration.square_products)
    def orthogonalize(self, V: Array, scale: float, X: Array, A: Array, P: Array) -> None:
        """V ← scale · O, where O is close to the orthogonal matrix nearest to V; zeros stay zeros.

        Starts from X = V / ‖V‖ and makes five iterations X ← (a + b A + c A²) X with A = X Xᵀ, or
        X ← X (a + b A + c A²) with A = Xᵀ X if that A is smaller.  The singular values of O are
        between about 0.7 and 1.2.  V (K, q) has K such V: each row is one, (n_out, n_in), and then
        padding, which is left.  Buffers: X (K, n_out, n_in), A and P (K, r, r), r = min(n_out,
        n_in).  All have θ's type.  On a GPU, 16-bit precisions store X, A and P in 16 bits.
        """

    @operation(updates="mean")
    def average(
        self, theta: Array, mean: Array, decay: float, control: Array, rounded: Array | None = None
    ) -> None:
        """mean ← d mean + (1 − d) θ, where d = min(decay, (t − 1) / (t + 8)).

        theta, mean (p,).  control as in `update`; its last number is the step t = 1, 2, ….  A
        skipped step changes nothing.  rounded: only where θ is split.
        """

    @operation(writes="rounded remainder")
    def round(self, theta: Array, rounded: Array, remainder: Array | None = None) -> None:
        """rounded ← θ in the storage type.  Does nothing if `rounded` is θ itself.  Both (p,).

        remainder (p,) int16: θ is split.  Then, as integers of their bits, θ = 2¹⁶ rounded +
        remainder: rounded (bfloat16) is the nearest to θ, and of two the one further from 0.
        """

    @operation(writes="theta")
    def restore(self, theta: Array, rounded: Array, remainder: Array) -> None:
        """θ ← what `round` split, bit for bit, but for the bits of a NaN.  All (p,)."""

    # ---- minibatches --------------------------------------------------------------------------

    @operation(writes="out", moves=lambda a: 2 * a.out.nbytes + a.index.nbytes)
    def gather(self, source: Array, index: Array, out: Array) -> None:
        """out ← source[index]: rows, or entries of a vector, of any dtype.  index (m,) int64."""

    def feed(self, source: npt.NDArray[Any], rows: int, dtype: npt.DTypeLike) -> Feed:
        """A `Feed` that copies up to `rows` rows of `source` at a time to arrays of `dtype`.

        source (m, …), in host memory or in a mapped file: any real dtype, memory order and size.
        """

    @operation(writes="out", moves=lambda a: 2 * a.out.nbytes + a.index.nbytes)
    def mean_weights(self, weights: Array, index: Array, out: Array) -> None:
        """out ← weights[index] / Σ weights[index], or zeros if the sum is 0.  index, out (m,)."""

    # ---- a step as a whole --------------------------------------------------------------------

    @operation(
        writes="index control factors J",
        moves=lambda a: 2 * (a.index.nbytes + a.control.nbytes) + a.factors.nbytes,
    )
    def begin(
        self, position: Array, order: Array, controls: Array, size: int, index: Array,
        control: Array, factors: Array, J: Array,
    ) -> None:  # fmt: skip
        """Prepare step t = position[0]: index ← order[t size …], read row t of controls, J ← 0.

        position (1,), order (examples,) and index (m,) int64; J (shards,).  controls (steps,
        numbers + 2) float64: a row's first go to control (numbers,), the last two to factors (2,).
        """

    @operation(writes="costs", updates="position", moves=lambda a: 4 * a.J.nbytes)
    def end(self, position: Array, J: Array, costs: Array) -> None:
        """costs[t] ← J; then t ← t + 1, or t ← 0 after the last step.

        position as in `begin`; J (shards,), costs (steps, shards), or (steps,) for one, float64.
        """

    def compile(self, variants: Mapping[str, Sequence[Call]], name: str) -> Callable[[int], None]:
        """A function that runs the calls of a program as many times as its argument says.

        variants: programs with the same result, bound to their arrays; the first is the default.
            A backend may measure them; the fastest one's `name` is kept in the tuning cache.
        """
        calls = [call.work for call in next(iter(variants.values()))]

        def run(steps: int) -> None:
            for _ in range(steps):
                for call in calls:
                    call()

        return run

    def synchronize(self) -> None:
        """Wait until all enqueued work has finished."""
        return
