"""Trainer: minibatch training of a network with an optimizer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp.errors import OutOfMemoryError
from gpumlp.functions import OPTIMIZERS, SCHEDULES, Optimizer, Schedule
from gpumlp.functions.entry import lookup
from gpumlp.io.types import Array
from gpumlp.loader.examples import Examples, held_out
from gpumlp.network import MLP, ClassWeight
from gpumlp.training import lr_range, planning, stepping
from gpumlp.training.accumulating import checked as checked_parts
from gpumlp.training.averaging import Average, checked_ema
from gpumlp.training.callbacks import EarlyStopping, checked, progress_bar, watching
from gpumlp.training.checkpoint import asked_for, settings_of
from gpumlp.training.copying import Copied
from gpumlp.training.events import Callback
from gpumlp.training.fit import Fit
from gpumlp.training.groups import Group, rates
from gpumlp.training.groups import checked as checked_groups
from gpumlp.training.history import History
from gpumlp.training.metrics import Metrics, columns, evaluations
from gpumlp.training.updating import Folded, slot_type, updating

SCALE = 2.0**16  # the loss scale that float16 starts from, as torch's GradScaler does


class Trainer(Copied):
    """Trains a network: an optimizer with its state, and how minibatches are drawn.

    Args:
        net: the network; its θ is trained in place.
        optimizer: a name or an entry of `gpumlp.OPTIMIZERS`.  "muon" moves every layer's W but the
            last one's by a matrix near an orthogonal one, and the rest as AdamW does.
        lr: the base learning rate; None takes the optimizer's usual one.
        batch_size: examples a step; all of them where there are fewer.
        schedule: a name or an entry of `gpumlp.SCHEDULES`: the learning rate over each `fit`.
        clip_norm: the largest ‖∇J‖₂, λ∇Ω included, that a step uses; longer ones are scaled down.
        seed: of the shuffles; the order of an epoch depends on it and on `epochs` alone.
        slot_precision: of the optimizer's state: None for θ's own, or on a GPU "bfloat16", rounded
            up or down by chance so that small changes add up.
        fold: whether the weights' gradient is added to them, or to momentum's velocity, within the
            product that computes it, and so never stored: the same step but for rounding.  None
            does so wherever it is possible: for "sgd" and "momentum" without clip_norm, L1, float16
            and 16-bit slots; for sgd without accumulate, and with one learning rate for all
            weights; for momentum without L2.  True insists, False never does.
        memory: "low" keeps, of a hidden layer whose f' is computed from z, z alone, and computes
            h = f(z) again on the way back: one pass over z more, and the same step, to the bit
            where no product of cublasLt's computes f.  "normal" keeps both.
        accumulate: the micro-batches that a minibatch is worked in, one after the other, their
            gradients added up in θ's type: the same step but for rounding, and the activations of
            batch_size / accumulate examples, rounded up, are all that is in memory at a time.
        groups: what the learning rate and the optimizer's weight_decay are multiplied by in
            "weights", "biases", the "first" and the "last" layer: names to `gpumlp.Group`, e.g.
            ``{"biases": Group(decay=0.0), "first": Group(lr=0.1)}``; where two meet, their product.
            λΩ is the regulariser's own, and strengthened or not on biases by it; clip_norm looks
            at the gradient before its multiplication.
        ema: between 0 and 1, 0.999 say: after each step t, θ̄ ← d θ̄ + (1 − d) θ, where d =
            min(ema, (t − 1) / (t + 8)).  The average θ̄ is what is validated, what early stopping
            looks at and keeps, what `on_epoch_end` sees, and what the network has when a fit ends;
            the steps, and a further fit, go on from the θ of the last step, whatever the network
            was assigned in between.  None: no average.
        shuffle: whether each epoch has an order of its own; else that of the data.

    Attributes:
        low_memory: whether `memory` was "low".
        average: θ̄ with `ema`, else None.
        rates: what the learning rate of the weights is multiplied by in the groups they are in.
        slots: the optimizer's state, (number of slots, p), in the layout of the flat θ.
        scaling: (4,) float64: the loss scale S that keeps float16's gradients from vanishing; 1/S;
            the steps since S last changed; the steps that were skipped because a gradient
            overflowed.  1, 1, 0, 0 in other precisions.
        steps, epochs: done so far, over all fits.  A further `fit` goes on from them, with the
            optimizer's state as it stands.
        history: of the last fit, or the one at work.
        stop: set by a callback, ends the fit after the epoch.
        lr_factor: set by a callback after an epoch, multiplies the schedule's learning rate from
            the next one to the fit's end; 1 at its beginning.
        last_lr: the learning rate of the last step, 0 before the first.

    Raises:
        ValueError, TypeError: an argument is not as said.
    """

    def __init__(
        self,
        net: MLP,
        optimizer: str | Optimizer = "adamw",
        lr: float | None = None,
        batch_size: int = 256,
        schedule: str | Schedule = "constant",
        clip_norm: float | None = None,
        seed: int = 0,
        slot_precision: str | None = None,
        fold: bool | None = None,
        memory: str = "normal",
        accumulate: int = 1,
        groups: Mapping[str, Group] | None = None,
        ema: float | None = None,
        shuffle: bool = True,
    ) -> None:
        if not isinstance(net, MLP):
            raise TypeError(f"net must be a gpumlp.MLP, got {type(net).__name__}")
        self.net = net
        self.optimizer = lookup(OPTIMIZERS, "optimizer", optimizer)
        self.lr = checks.positive_number(self.optimizer.lr if lr is None else lr, "lr")
        self.batch_size = checks.positive_int(batch_size, "batch_size")
        self.schedule = lookup(SCHEDULES, "schedule", schedule)
        self.clip_norm = (
            None if clip_norm is None else checks.positive_number(clip_norm, "clip_norm")
        )
        self.seed = checks.positive_int(seed, "seed", least=0)
        if not isinstance(shuffle, (bool, np.bool_)):
            raise TypeError(f"shuffle must be True or False, got {shuffle!r}")
        self.shuffle = bool(shuffle)
        self._fold = fold
        self.slot_type = slot_type(net.backend, slot_precision)
        if memory not in ("normal", "low"):
            raise ValueError(f'memory must be "normal" or "low", got {memory!r}')
        self.low_memory = memory == "low"
        self.accumulate = checked_parts(accumulate, self.batch_size)
        self.groups = checked_groups(groups, self.optimizer)
        self.rates = rates(net.theta.layout, self.groups)
        self.ema = checked_ema(ema)
        net.backend.synchronize()
        free = net.backend.free_memory()
        try:
            self.allocate()
        except OutOfMemoryError as error:
            told = planning.outgrown(error, self, free, self.batch_size, None)
            vars(self).clear()  # the traceback holds self for as long as the error lives
            raise told from error
        self.steps = self.epochs = 0
        self.history = History(())
        self.stop = False
        self.lr_factor, self.last_lr = 1.0, 0.0

    def allocate(self) -> None:
        """The optimizer's state, the gradient and the loss scale, as before the first step."""
        backend, layout = self.net.backend, self.net.theta.layout
        self.slots = backend.full((len(self.optimizer.slots), layout.size), 0, self.slot_type)
        self.factors = backend.full((2,), 0)
        S = SCALE if backend.scales_loss else 1.0
        self.scaling = backend.asarray(np.array([S, 1 / S, 0, 0]), dtype=np.float64)
        self._updating = updating(self, self._fold)
        self.average = None if self.ema is None else Average(self.net, self.ema)

    batches, control, step = stepping.batches, stepping.control, stepping.step
    find_lr, memory = lr_range.find_lr, planning.memory

    def fit(
        self,
        x: Array,
        y: Array,
        epochs: int = 10,
        *,
        validation: Sequence[Array] | None = None,
        sample_weight: Array | None = None,
        class_weight: ClassWeight = None,
        early_stopping: int | EarlyStopping | None = None,
        callbacks: Sequence[Callback] = (),
        metric: Metrics = "auto",
        train_metric: bool = False,
        progress: bool | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | None = None,
        resume: bool = False,
        data: str = "auto",
    ) -> History:
        """Train for some epochs, with data of any size.

        Ctrl-C ends the fit between two steps, with `History.stopped` "interrupted" and a network
        that can be used; a second one raises KeyboardInterrupt at once.

        Args:
            x: (m, n_0), finite.
            y: (m, n_L), or integer labels (m,) for classification.
            epochs: passes over the data.
            validation: (x_val, y_val) or (x_val, y_val, sample_weight_val), looked at after each
                epoch; class_weight does not apply to it.
            sample_weight: (m,), 0 and up: a minibatch's L is the weighted mean over its examples.
            class_weight: a weight for each class, as list or mapping, or "balanced".
            early_stopping: the patience in epochs, or an `EarlyStopping`.
            callbacks: hooks, called in this order; `gpumlp.callbacks` has ready ones.
            metric: of the validation data: "auto" (accuracy for classes, R² for the rest), None,
                the name of a scorer of scikit-learn's, such as "roc_auc", or
                ``metric(y, predict(x))``, which gets host arrays: the column "metric".  A list of
                these, or a dict with them by name, has a column for each: "roc_auc", …, and
                "metric" for "auto".  Higher is better to whatever watches one, unless told.
            train_metric: also of the training data, after each epoch.
            progress: a bar on stderr; None shows it where tqdm is installed and stderr is a
                terminal.
            checkpoint: a file that is replaced, whole or not at all, after every epoch and where
                Ctrl-C ended the fit.  `MLP.load` reads the network of its last step from it,
                with `ema` the average.
            checkpoint_every: also after each so many steps.
            resume: go on from `checkpoint` where it exists.  With the same arguments on the same
                machine the run ends bit for bit as if it had never stopped.  What callbacks keep
                is in the file where they say so, see `Callback.state`; a run that one of them ended
                goes on, unless its `on_fit_begin` sets `stop` again.
            data: "device" casts x and y to the network's precision and keeps them in the backend;
                "stream" leaves them where they are, a `np.memmap` on its disk, and brings each
                minibatch in its own dtype, such as uint8, while the one before is worked on.
                "auto" streams what does not fit a GPU's free memory, and on the CPU files that
                would have to be cast.  θ is bit for bit the same.  Of a mapped file larger than
                256 MiB rows are read, not mapped, so that it does not fill the memory.

        Raises:
            ValueError, TypeError: an argument is not as said; nothing was trained.
            CheckpointError: the checkpoint is damaged or of another run; nothing was trained.
            DeviceError: out of GPU memory: the plan and what would fit; nothing was trained.
            FloatingPointError: the training diverged; θ is then of no use, but a checkpoint,
                which is always of a finite θ, is as it was.
        """
        asked: dict[str, Any] = {
            "validation": validation, "sample_weight": sample_weight, "class_weight": class_weight,
            "early_stopping": early_stopping, "metric": metric, "train_metric": train_metric,
            "data": data,
        }  # fmt: skip
        saved = (checkpoint, checkpoint_every, resume)
        self.net.backend.synchronize()
        free = self.net.backend.free_memory()
        try:
            return self._fit(x, y, epochs, callbacks, progress, saved, **asked)
        except OutOfMemoryError as error:
            raise planning.outgrown(error, self, free, x, y, **asked) from error

    def _fit(
        self, x: Array, y: Array, epochs: int, callbacks: Sequence[Callback], progress: bool | None,
        saved: tuple[Any, int | None, bool], validation: Any, sample_weight: Any, class_weight: Any,
        early_stopping: Any, metric: Any, train_metric: bool, data: str,
    ) -> History:  # fmt: skip
        net = self.net
        epochs = checks.positive_int(epochs, "epochs")
        placement: dict[str, Any] = {"data": data, "rows": self.at_a_time}
        examples = Examples.checked(net, x, y, sample_weight, class_weight, **placement)
        held = held_out(net, validation, **placement)
        found = evaluations(net, examples, held, metric, train_metric)
        for prefix, evaluation in found.items():
            evaluation.validate("validation" if prefix else "training")
        watch = watching(early_stopping, net, columns(found))
        fit = Fit(self, self.batches(examples), epochs, found, columns(found), watch)
        try:
            fit.callbacks = [*checked(callbacks), *progress_bar(progress, fit)]
            fit.checkpoint = asked_for(*saved, fit, examples, held)
            self.history, self.stop, self.lr_factor = fit.history, False, 1.0
            if fit.checkpoint is not None and saved[-1]:
                fit.checkpoint.resume()
            fit.run()
        finally:
            net.backend.synchronize()  # the caller may free the data now
            fit.close()
        return self.history

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the trainer, as JSON can hold them."""
        return settings_of(self)

    @property
    def folds(self) -> bool:
        """Whether the weights' gradient is added to them within its product: see `fold`."""
        return isinstance(self._updating, Folded)

    @property
    def at_a_time(self) -> int:
        """The examples of a micro-batch; of a minibatch's last one there may be fewer."""
        return -(-self.batch_size // self.accumulate)
