"""Trainer: minibatch training of a network with an optimizer."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from gpumlp import checks
from gpumlp.ensemble import Ensemble
from gpumlp.io.types import Array
from gpumlp.training import fit, lr_range
from gpumlp.training.callbacks import EarlyStopping
from gpumlp.training.ensemble import EnsembleTrainer
from gpumlp.training.events import Callback
from gpumlp.training.history import History
from gpumlp.training.lr_range import LRCurve
from gpumlp.training.memory import Memory, attempt, plan
from gpumlp.training.metrics import Metrics
from gpumlp.training.stepping import Stepping
from gpumlp.weights import ClassWeight

if TYPE_CHECKING:
    from gpumlp.step.explain import Explanation


class Trainer(Stepping):
    """Trains a network: an optimizer with its state, and how minibatches are drawn.

    Args:
        net: the network; its θ is trained in place.  Of a `gpumlp.Ensemble`, ``Trainer(…)`` is an
            `EnsembleTrainer`.
        optimizer: a name or an entry of `gpumlp.OPTIMIZERS`.  "muon" moves every layer's W except
            the last by a matrix near an orthogonal one, and all other parameters as AdamW does.
        lr: the base learning rate; None: the optimizer's usual one.
        batch_size: the number of examples per step; all examples if there are fewer.
        schedule: a name or an entry of `gpumlp.SCHEDULES`: the learning rate over each `fit`.
        clip_norm: the largest ‖∇J‖₂, λ∇Ω included, of a step; a longer gradient is scaled down.
        seed: the seed of the shuffles; an epoch's order depends only on it and on `epochs`.
        slot_precision: the precision of the optimizer's state: None for that of θ, or on a GPU
            "bfloat16", rounded stochastically so that small changes add up.
        fold: whether the product that computes the weights' gradient also adds it to the weights,
            or to the velocity of momentum, so that it is never stored: the same step but for
            rounding.  None: wherever it is possible, that is for "sgd" and "momentum" without
            clip_norm, L1, float16 and 16-bit slots; sgd also needs accumulate=1 and one learning
            rate for all weights, momentum a network without L2.  True insists, False never does it.
        memory: "low" stores only z of a hidden layer whose f' is computed from z, and recomputes
            h = f(z) in the backward pass: one more pass over z, and the same step.  It is the same
            to the bit, unless a product of cublasLt computes f.  "normal" stores both.
        accumulate: the number of micro-batches of a minibatch.  Their gradients are added up in
            θ's type: the same step but for rounding.  Only the activations of one micro-batch, of
            batch_size / accumulate examples, rounded up, are in memory at a time.
        groups: the factors of the learning rate and of the optimizer's weight_decay in "weights",
            "biases", tables of "embeddings", which are neither, the "first" and the "last" layer: a
            mapping from names to `gpumlp.Group`, e.g.
            ``{"biases": Group(decay=0.0), "first": Group(lr=0.1)}``.  The factors of overlapping
            groups are multiplied.  A network with blocks has ``{"biases": Group(decay=0)}``, which
            covers its norms, unless you pass "biases".  Groups do not change the regulariser; set
            its strength on biases there.  clip_norm uses the gradient before this multiplication.
        ema: None for no average, or a number between 0 and 1, e.g. 0.999: after each step t,
            θ̄ ← d θ̄ + (1 − d) θ, where d = min(ema, (t − 1) / (t + 8)).  Validation, early stopping
            and `on_epoch_end` see the average θ̄, and the network holds it when a fit ends.  The
            steps, and a further fit, go on from the θ of the last step, even if the network was
            assigned other values in between.
        shuffle: whether each epoch has its own order; False: the order of the data.
        remainder: whether the update reads and writes θ as its 16-bit weights and a 16-bit
            remainder, in place of the weights and θ itself, on a GPU in bfloat16.  Both have all
            bits of θ, so an AdamW step moves 18 bytes a parameter in place of 20 (with 16-bit
            slots), and 2 more stay allocated.  The weights are rounded to nearest as always, but
            ties are rounded away from zero, not to even: steps differ from those without it after a
            tie, one rounding in 65,536.  Checkpoints hold θ, and are read with and without it.
            θ of the network is current when a fit ends, after an epoch, in checkpoints and in
            callbacks that have `on_step_end`; no other thread may use the network during a fit.
        world: the processes that train together, `gpumlp.distributed.world()`; None for this one
            alone.  All ranks pass the same arguments and data.  batch_size is that of all; each
            rank has a part of the optimizer's state.  Rank 0 calls the callbacks, computes the
            metrics and writes the checkpoint.  See :doc:`/guide/distributed`.
        shards: the parts of a minibatch whose gradients are added in a fixed tree: θ is the same to
            the bit for every number of processes that goes into `shards` a power of 2 times.  None:
            one for each process.  A process computes its shards one after the other.

    Attributes:
        average: θ̄ with `ema`, else None.
        slots: the optimizer's state, (number of slots, p), in the layout of the flat θ; with shards
            the part of this process, in a layout of its own.
        scaling: (4,) float64: the loss scale S, which protects float16's gradients from underflow;
            1/S; the number of steps since S changed; the number of steps that were skipped because
            a gradient overflowed.  1, 1, 0, 0 in other precisions.
        steps, epochs: the numbers done so far, over all fits.  A further `fit` goes on from them,
            and from the optimizer's state.
        history: the history of the last or current fit.
        stop: a callback sets it to True to end the fit after the epoch.
        lr_factor: the factor of the schedule's learning rate, 1 at the beginning of a fit.  A
            callback may set it after an epoch; it is valid from the next epoch to the fit's end.
        last_lr: the learning rate of the last step, 0 before the first.
        lr, batch_size, schedule, seed, shuffle: as given; you may assign others between two fits.
            A callback may assign lr and schedule, from the next epoch on.  The other arguments
            cannot change.

    Raises:
        ValueError, TypeError: an argument is not as described.
    """

    __signature__ = inspect.signature(Stepping)  # else it would be that of `__new__`

    def __new__(cls, net: Any = None, *arguments: Any, **settings: Any) -> Self:
        """Return a trainer of a network; of an ensemble an `EnsembleTrainer`."""
        if cls is Trainer:
            checks.known_arguments(cls, settings)
        if isinstance(net, Ensemble):
            return EnsembleTrainer(net, *arguments, **settings)  # type: ignore[return-value]
        return super().__new__(cls)

    def _allocate(self) -> None:
        attempt(super()._allocate, self, lambda trainer: trainer.memory(self.batch_size))

    def fit(
        self, x: Array, y: Array, epochs: int = 10, *, validation: Sequence[Array] | None = None,
        sample_weight: Array | None = None, class_weight: ClassWeight = None,
        early_stopping: int | EarlyStopping | None = None, callbacks: Sequence[Callback] = (),
        metric: Metrics = "auto", train_metric: bool = False, progress: bool | None = None,
        checkpoint: str | os.PathLike[str] | None = None, checkpoint_every: int | None = None,
        resume: bool = False, data: str = "auto",
    ) -> History:  # fmt: skip
        """Train for some epochs, with data of any size.

        Ctrl-C ends the fit between two steps, with `History.stopped` "interrupted" and a network
        that can be used; a second Ctrl-C raises KeyboardInterrupt immediately.  SIGTERM and SIGHUP
        keep the handlers that your program gave them.  If that is `signal.default_int_handler`,
        they end a fit like Ctrl-C: ``signal.signal(signal.SIGTERM, signal.default_int_handler)``.

        Args:
            x: (m, n_0), finite.
            y: (m, n_L), or integer labels (m,) for classification.
            epochs: passes over the data.
            validation: (x_val, y_val) or (x_val, y_val, sample_weight_val), evaluated after each
                epoch; class_weight does not apply to it.
            sample_weight: (m,), 0 or more: L of a minibatch is the weighted mean of its examples.
            class_weight: a weight for each class, as list or mapping, or "balanced".  With label
                smoothing they weight the smoothed targets, as in torch, and labels become rows.
            early_stopping: the patience in epochs, or an `EarlyStopping`.
            callbacks: hooks, called in this order; see `gpumlp.callbacks`.
            metric: the metric of the validation data: "auto" (accuracy for classes, else R²),
                None, the name of a scorer of scikit-learn, such as "roc_auc", or a function
                ``metric(y, predict(x))`` of host arrays: the column "metric".  A list of these, or
                a dict with them by name, has one column for each: "roc_auc", …, and "metric" for
                "auto".  Early stopping and callbacks take higher values as better, by default.
            train_metric: whether to evaluate the training data, too, after each epoch.
            progress: True: a bar on stderr, or one line per epoch if stderr is not a terminal.
                None: a bar if tqdm is installed and stderr is a terminal.  False: nothing.
            checkpoint: a file that is replaced, completely or not at all, after every epoch and
                when Ctrl-C ends the fit.  `MLP.load` reads from it the network of the last step,
                with `ema` the average.
            checkpoint_every: also write the checkpoint after each so many steps.
            resume: go on from `checkpoint` if it exists.  With the same arguments on the same
                machine the run ends bit for bit as if it had never stopped.  The file holds the
                state of callbacks, see `Callback.state`; a run that a callback ended goes on,
                unless its `on_fit_begin` sets `stop` again.
            data: "device" casts x and y to the network's precision and holds them in the backend's
                memory.  "stream" leaves them where they are, a `np.memmap` on its disk, and brings
                each minibatch in its own dtype, such as uint8, during the step before.  "auto"
                streams data that does not fit in free GPU memory, and on the CPU files that would
                have to be cast.  θ is bit for bit the same.  Rows of a mapped file larger than
                256 MiB are read, not mapped, so that the file does not fill the memory.

        Raises:
            ValueError, TypeError: an argument is not as described; nothing was trained.
            CheckpointError: the checkpoint is damaged or of another run; nothing was trained.
            DeviceError: out of GPU memory: the plan and what would fit; nothing was trained.
            FloatingPointError: the training diverged.  θ is of no use then, but a checkpoint, which
                always holds a finite θ, is as it was before.
        """
        arguments: dict[str, Any] = {
            "validation": validation, "sample_weight": sample_weight, "class_weight": class_weight,
            "early_stopping": early_stopping, "metric": metric, "train_metric": train_metric,
            "data": data,
        }  # fmt: skip
        saved = (checkpoint, checkpoint_every, resume)
        return attempt(
            lambda: fit.fit(self, x, y, epochs, callbacks, progress, saved, **arguments),
            self, lambda trainer: trainer.memory(x, y, **arguments),
        )  # fmt: skip

    def find_lr(
        self, x: Array, y: Array, *, start: float = 1e-7, end: float = 10.0, steps: int = 200,
        sample_weight: Array | None = None, class_weight: ClassWeight = None, data: str = "auto",
    ) -> LRCurve:  # fmt: skip
        """The cost over the learning rate: a range test on a copy of the network and the trainer.

        The trainer does not change, and its schedule is not used.  During the test θ, the
        optimizer's state, the gradient and a step's arrays are allocated a second time.

        It does `steps` steps, over as many epochs as they need, with learning rates from `start` to
        `end`, or until the cost explodes.  The other arguments are as in `fit`.

        Source: Smith (2017), "Cyclical learning rates for training neural networks", section 3.3.

        Raises:
            ValueError, TypeError: an argument is not as described.
            FloatingPointError: the cost is not finite after the first step.
            DeviceError: out of GPU memory.
        """
        return lr_range.find_lr(
            self, x, y, start, end, steps, data=data, sample_weight=sample_weight,
            class_weight=class_weight,
        )  # fmt: skip

    def explain(
        self, x: Array | int, y: Array = None, *, device: str | None = None,
        precision: str | None = None, way: str | None = None, data: str = "auto",
    ) -> Explanation:  # fmt: skip
        """The operations of a step, in order, with bytes, FLOPs, memory and streams.

        It prints as a table: see :doc:`/step`.  Nothing is allocated, and nothing runs.

        Args:
            x: the examples, or their number.
            y: the targets; without them labels are assumed if the loss takes them.
            device: "a100", "h100" or "h200": the step of a GPU, with the least time that its memory
                bandwidth and its peak allow.  The GPU need not be there.
            precision: the precision on this device; None for that of the network.
            way: one of the ways to do the step: "sequential", and on a GPU also "branched",
                "branched, early update", "early update, reserved" and "branched, update in
                products".  None for the first.
            data: as in `fit`.

        Raises:
            ValueError: an argument is not as described.
        """
        from gpumlp.training.explaining import explained  # only here, for a fast `import gpumlp`

        return explained(self, x, y, data, device, precision, way)

    def memory(
        self, x: Array | int, y: Array = None, *, validation: Sequence[Array] | int | None = None,
        sample_weight: Array = None, class_weight: ClassWeight = None,
        early_stopping: int | EarlyStopping | None = None, metric: Metrics = "auto",
        train_metric: bool = False, data: str = "auto",
    ) -> Memory:  # fmt: skip
        """The bytes of the backend that `fit` needs with these arguments; nothing is allocated.

        x and validation may also be numbers of examples.  Values are not read: any sample_weight
        stands for all.  Without y, labels are assumed if the loss takes them, else rows of n_L
        values.
        """
        weighted = sample_weight is not None or class_weight is not None
        labels = self.net.loss.target == "class" and (y is None or np.ndim(y) == 1)
        if class_weight is not None and self.net.loss.smooths and labels:
            m = int(x) if isinstance(x, (int, np.integer)) else len(x)  # `weights.weighted_targets`
            y = np.broadcast_to(np.zeros((), self.net.backend.dtype), (m, self.net.widths[-1]))
        return plan(self, x, y, validation, weighted, early_stopping, metric, train_metric, data)
