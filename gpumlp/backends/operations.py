"""The operations: what Algorithms 6.3 and 6.4, and a training step around them, ask of a backend.

Both backends offer them with the same parameters and meaning; this page alone documents them.

Shapes: m examples as rows, n_in and n_out the widths of a layer, n = n_L the width of the output.
θ, slots, targets and weights have the backend's `dtype`; x, z, h, gh, gz, the gradient dθ with its
views dW and db, and θ as the products read it, W and b, have its `storage` type, which in 16-bit
backends is another.  Arrays are C-contiguous.  Every result is written to a buffer of the caller's
(the last parameters), so that a step allocates nothing.  The caller has checked shapes, dtypes and
values; an operation does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gpumlp.functions import Activation, Loss, Optimizer, Regularizer
from gpumlp.io.types import Array


class Feed(Protocol):
    """Rows of an array on the host, on their way into the backend.

    In the CUDA backend the rows travel while it works, and `take` waits for nothing; what is said of a
    step, that it may be recorded, does not hold for either call.
    """

    def fetch(self, index: npt.NDArray[np.int64]) -> None:
        """Start on the rows `index`, for the next `take`; others that were fetched are dropped."""

    def take(self, out: Array) -> None:
        """out ← the rows that were fetched, cast as NumPy casts.  It has as many."""


class Backend(Protocol):
    """One backend.  Operations stand in the order of the algorithms."""

    name: str
    """ "numpy" or "cupy"."""
    precision: str
    """ "float64", "float32" or, in the CUDA backend, "tf32", "bfloat16" or "float16"."""
    dtype: np.dtype[Any]
    """of θ: float64 or float32."""
    storage: np.dtype[Any]
    """of activations, gradients and what the products read: θ's, bfloat16 or float16."""
    scales_loss: bool
    """Whether the loss is scaled, dynamically, lest gradients vanish: in float16."""
    folds: bool
    """Whether `weight_gradient` with factors takes no memory for it."""
    rounds_slots: bool
    """Whether an optimizer's slots may be bfloat16, rounded stochastically."""

    def describe(self) -> str:
        """The backend in words, for `repr` and the command line."""

    def owns(self, a: object) -> bool:
        """Whether `a` is an array of this backend."""

    def accepts(self, a: object, dtype: np.dtype[Any]) -> bool:
        """Whether the operations take `a` as it lies for an array of the backend in `dtype`."""

    def asarray(
        self, a: npt.ArrayLike, dtype: npt.DTypeLike | None = None, out: Array | None = None
    ) -> Array:
        """A new C-contiguous array of the backend with a's values, in `dtype` (None: the backend's).

        Where `out` is given, of a's shape, the values are written there instead.
        """

    def adopt(self, a: Any) -> Array:
        """An array over the memory of another library's `a`, which lies where the backend computes.

        It is the backend's own unless it lies on another GPU.
        """

    def to_host(self, a: Array) -> npt.NDArray[Any]:
        """The values of `a` as a new NumPy array, after all work that writes `a` is done."""

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike | None = None) -> Array:
        """An array of undefined values, 256-byte aligned, in `dtype` (None: the backend's)."""

    def full(
        self, shape: tuple[int, ...], value: float, dtype: npt.DTypeLike | None = None
    ) -> Array:
        """The same, filled with `value`."""

    def free_memory(self) -> int | None:
        """The bytes that arrays may still take; None where the host's own are used as they lie."""

    # ---- Algorithm 6.3 ------------------------------------------------------------------------

    def pre_activation(
        self, f: Activation, m: int, n: int
    ) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        """What the backend keeps of z beside h (m, n) for the way back: shape and dtype of a buffer.

        Like h where f' reads z; else None, and h is to be z too, or a buffer of m rows of the
        backend's own kind, such as a bit an entry for relu's.
        """

    def affine_activation(
        self, h_below: Array, W: Array, b: Array, f: Activation, z: Array, h: Array
    ) -> None:
        """z ← h_below Wᵀ + b and h ← f(z): one turn of Algorithm 6.3.

        h_below (m, n_in), W (n_out, n_in), b (n_out,), z and h (m, n_out).  z may be h, and then
        only h is kept; or a buffer such as `pre_activation` says.
        """

    def activation(self, f: Activation, z: Array, h: Array) -> None:
        """h ← f(z) for an elementwise f: h of `affine_activation` once more.  z and h (m, n)."""

    def loss(self, loss: Loss, y_hat: Array, y: Array, weights: Array, J: Array) -> None:
        """J ← J + Σᵢ weightsᵢ L(ŷᵢ, yᵢ).

        y_hat (m, n); y (m, n), or int32 labels (m,); weights (m,); J (1,) float64.
        """

    # ---- Algorithm 6.4 ------------------------------------------------------------------------

    def output_gradient(
        self, loss: Loss, f: Activation, z: Array, h: Array, y: Array, weights: Array,
        scaling: Array, gh: Array, gz: Array, db: Array, J: Array,
    ) -> None:  # fmt: skip
        """gh ← S ∇_ŷ J, gz ← gh ⊙ f'(z) (or Jᵀ gh), db ← column sums of gz, for the output layer.

        z, h = ŷ, gh, gz (m, n); y, weights and J as in `loss`, which happens in the same pass;
        db (n,).  gz may be gh, and then only gz is kept.  scaling: see `clip`.
        """

    def weight_gradient(self, gz: Array, h_below: Array, dW: Array, factors: Array | None) -> None:
        """dW ← gzᵀ h_below, or where there are factors (α, β): dW ← α gzᵀ h_below + β dW.

        gz (m, n_out), h_below (m, n_in), dW (n_out, n_in), which may be in θ's type; factors (2,)
        in θ's type, and then dW is, too: it may be W itself, which has been read for the last time.
        """

    def activation_gradient(
        self, f: Activation, z: Array, h: Array, gh: Array, gz: Array, db: Array
    ) -> None:
        """gz ← gh ⊙ f'(z) (or Jᵀ gh), db ← column sums of gz: `hidden_gradient`'s second half.

        z, h, gh and gz (m, n), db (n,).  gz may be gh.
        """

    def hidden_gradient(
        self, gz_above: Array, W_above: Array, f: Activation, z: Array, h: Array,
        gh: Array, gz: Array, db: Array,
    ) -> None:  # fmt: skip
        """gh ← gz_above W_above, gz ← gh ⊙ f'(z) (or Jᵀ gh), db ← column sums of gz.

        gz_above (m, n_above), W_above (n_above, n_out), z, h, gh and gz (m, n_out), db (n_out,).
        gz may be gh, and then only gz is kept.
        """

    def input_gradient(self, gz: Array, W: Array, gx: Array) -> None:
        """gx ← gz W, that is ∂J/∂x.  gz (m, n_1), W (n_1, n_0), gx (m, n_0)."""

    def penalty(
        self, regularizer: Regularizer, theta: Array, split: int, J: Array, dtheta: Array | None
    ) -> None:
        """J ← J + λΩ(θ) and, where dtheta is given, dθ ← dθ + λ∇Ω(θ).

        theta, dtheta (p,): flat, weights first, biases from index `split` on; J (1,) float64.
        """

    # ---- the update ---------------------------------------------------------------------------

    def add(self, part: Array, total: Array, anew: bool) -> None:
        """total ← total + part, or part where `anew`.

        part, total (q,): flat, of the biases' region; total in θ's type.
        """

    def clip(
        self, regularizer: Regularizer, theta: Array, dtheta: Array, split: int,
        max_norm: float, scaling: Array, control: Array,
    ) -> None:  # fmt: skip
        """control[0] ← min(1, max_norm / ‖dθ/S + λ∇Ω(θ)‖₂): what `update` scales the gradient by.

        theta, dtheta, split as in `penalty`, but dtheta may be in θ's type; control as in `update`.
        A norm that is not finite gives NaN, which the next J shows.

        scaling (4,) float64: the loss scale S; 1/S of dθ; the steps since S last changed; the
        steps skipped.  It is 1, 1, 0, 0 and stays so, but where the backend `scales_loss`: there a
        norm that is not finite gives control[0] = 0 and halves S, and after 2,000 steps without
        one S is doubled.
        """

    def update(
        self, optimizer: Optimizer, regularizer: Regularizer, theta: Array, rounded: Array,
        dtheta: Array, slots: Array, split: int, scaling: Array, control: Array,
        part: tuple[int, int] | None = None, groups: Array | None = None,
    ) -> None:  # fmt: skip
        """One step of the optimizer with the gradient control[0] (dθ/S + λ∇Ω(θ)), in place.

        theta, dtheta (p,), split as in `clip`; rounded: as in `round`, kept up to date; slots
        (number of slots, p); scaling as in `clip`; control float64: the gradient's scale, of which
        0 skips the step, then `Optimizer.control`'s numbers.  dtheta is undefined afterwards.
        part: only the entries from the one number to the other, starts of W[k] or b[k].
        groups (regions, 3) float64: of each region of θ, in order, the end, and what the learning
        rate and the rule's weight_decay are multiplied by there; None: by 1.
        """

    def orthogonalize(self, V: Array, scale: float, X: Array, A: Array, P: Array) -> None:
        """V ← scale · O, where O is about the orthogonal matrix nearest to V; zeros stay zeros.

        Five turns of X ← (a + b A + c A²) X with A = X Xᵀ, or of X ← X (a + b A + c A²) with
        A = Xᵀ X where that is smaller, from X = V / ‖V‖: V's singular values become some 0.7 … 1.2.
        V (n_out, n_in); what it works in: X like V, A and P (r, r) for r = min(n_out, n_in), all in
        θ's type.  16-bit backends have it from tf32 products.
        """

    def average(self, theta: Array, mean: Array, decay: float, control: Array) -> None:
        """mean ← d mean + (1 − d) θ, where d = min(decay, (t − 1) / (t + 8)).  Each (p,).

        control as in `update`, its last number the step t = 1, 2, …; nothing in a step skipped.
        """

    def round(self, theta: Array, rounded: Array) -> None:
        """rounded ← θ in the storage type; nothing where `rounded` is θ itself.  Each (p,)."""

    # ---- minibatches --------------------------------------------------------------------------

    def gather(self, source: Array, index: Array, out: Array) -> None:
        """out ← source[index]: rows, or entries, of any dtype.  index (m,) int64."""

    def feed(self, source: npt.NDArray[Any], rows: int, dtype: npt.DTypeLike) -> Feed:
        """What brings up to `rows` rows of `source`, on the host, at a time into arrays of `dtype`.

        source (m, …) of any real dtype, order and size; the host may have it on a disk.
        """

    def feed_memory(self, source: npt.NDArray[Any], rows: int, dtype: np.dtype[Any]) -> int:
        """The bytes in the backend that `feed` takes."""

    def mean_weights(self, weights: Array, index: Array, out: Array) -> None:
        """out ← weights[index] / Σ weights[index], all zeros where the sum is 0.  Each (m,)."""

    # ---- a step as a whole --------------------------------------------------------------------

    def begin(
        self, position: Array, order: Array, controls: Array, size: int, index: Array,
        control: Array, factors: Array, J: Array,
    ) -> None:  # fmt: skip
        """For the step t = position[0]: index ← order[t size …], the rest ← row t, and J ← 0.

        position (1,), order and index (m,) int64; controls (steps, numbers + 2) float64, of which
        the first numbers go into control (numbers,) and the last two into factors (2,).
        """

    def end(self, position: Array, J: Array, costs: Array) -> None:
        """costs[t] ← J; t ← t + 1, and 0 after the last step.

        position as in `begin`; J (1,), costs (steps,) float64.
        """

    def defer(self, work: Callable[[], None]) -> None:
        """Work that no operation waits for until the step's end, on what is there and not read again."""

    def record(
        self, work: Callable[[], None], name: str, early_update: Callable[[], None] | None = None
    ) -> Callable[[], None] | None:
        """What hands in again, as one, the work on the backend's arrays that `work` hands in.

        None from a backend that gains nothing by it.  name: of the work, by which `gpumlp tune` keeps
        the fastest way to do it.  early_update: the same work, with weights updated `defer` it as soon
        as their gradient is there.

        `work` has been done once before, asks for operations from `affine_activation` to `end` alone,
        and always for the same ones with the same arrays.  In the CUDA backend it is not done now.
        """

    def synchronize(self) -> None:
        """Wait until all work handed in so far is done."""

    # ---- memory -------------------------------------------------------------------------------

    def own_memory(self, widest: int) -> int:
        """Bytes that the backend keeps for itself, where no layer is wider than `widest`."""
