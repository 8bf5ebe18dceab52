"""One call of `Trainer.fit`: its preparation, its loop over epochs, and its state."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpumlp import checks, storage
from gpumlp.errors import DivergenceError
from gpumlp.io.signals import Interrupt
from gpumlp.io.types import Array, HostArray
from gpumlp.loader.batches import Batches
from gpumlp.loader.examples import Examples
from gpumlp.training import callbacks as hooks
from gpumlp.training import checkpoint as files
from gpumlp.training.callbacks import Watch
from gpumlp.training.checkpoint import Checkpoint
from gpumlp.training.events import Callback
from gpumlp.training.history import History
from gpumlp.training.metrics import Evaluation, columns, evaluations
from gpumlp.training.pace import Pace
from gpumlp.training.stepping import Stepping

OTHER = "pass another metric, or monitor another column"
LEAST_SCALE = 2.0**-14  # after 30 overflows; no useful gradient is as large as that


def fit(
    trainer: Stepping, x: Array, y: Array, epochs: int, callbacks: Sequence[Callback],
    progress: bool | None, checkpoint: tuple[Any, int | None, bool], *, validation: Any,
    sample_weight: Any, class_weight: Any, early_stopping: Any, metric: Any, train_metric: bool,
    data: str,
) -> History:  # fmt: skip
    """Check the arguments of `Trainer.fit`, which documents them, and train.

    checkpoint: the arguments `checkpoint`, `checkpoint_every` and `resume`.
    """
    net = trainer.net
    epochs = checks.positive_int(epochs, "epochs")
    files.check_is_no_data(checkpoint[0], x, y, sample_weight, validation)
    placement: dict[str, Any] = {"data": data, "rows": trainer.at_a_time}
    examples = Examples.checked(net, x, y, sample_weight, class_weight, **placement)
    validated = Examples.of_validation(net, validation, **placement)
    measured = evaluations(net, examples, validated, metric, train_metric)
    for evaluation in measured.values():
        evaluation.validate()
    watch = hooks.watching(early_stopping, net, columns(measured))
    run = Fit(trainer, trainer.batches(examples), epochs, watch, measured)
    try:
        display = hooks.progress_display(progress, run.total, lambda: run.done)
        run.callbacks = [*hooks.checked(callbacks), *display]
        run.open(*checkpoint, examples, validated)
        trainer.history, trainer.stop, trainer.lr_factor = run.history, False, 1.0
        if checkpoint[-1] and run.checkpoint is not None:
            run.resume(run.checkpoint)
        run.train()
    finally:
        net.backend.synchronize()  # the caller may free the data now
        run.close()
    return trainer.history


class Fit:
    """The state of a fit, and its loop.

    Attributes:
        epoch, step: the completed epochs of this fit, and the completed steps of the current epoch.
        J: (steps,) L of those steps, from a checkpoint; else zeros.
        spent: the seconds that the epoch had taken when the checkpoint was written; else 0.
        total: the steps of the whole fit, which the schedule spans.
    """

    def __init__(
        self, trainer: Stepping, batches: Batches, epochs: int, watch: Watch | None,
        evaluations: Mapping[str, Evaluation],
    ) -> None:  # fmt: skip
        self.trainer, self.batches, self.epochs = trainer, batches, epochs
        self.evaluations, self.watch = evaluations, watch
        self.history = History(columns(evaluations))
        self.callbacks: list[Callback] = []
        self.checkpoint: Checkpoint | None = None
        self.epoch = self.step = 0
        self.spent = self._started = 0.0
        self.J = np.zeros(batches.steps)
        self.total = epochs * batches.steps
        self._lrs: list[float] = []  # the learning rates of the epoch's steps

    def train(self) -> None:
        """Train until the epochs are done or something stops the fit."""
        try:
            hooks.call(self.callbacks, "on_fit_begin", self.trainer)
            self._pace = Pace(self.trainer.net.backend, self.callbacks, self.checkpoint)
            # `diverged` reports numbers that overflow, once, in place of NumPy's warnings
            with Interrupt() as interrupt, np.errstate(over="ignore", invalid="ignore"):
                stopped = self._loop(interrupt)
                self.trainer.show_average(True)
                if self.watch is not None:
                    self.watch.restore(self.trainer.net)
            if stopped != "interrupted":
                self.check_finite(self.trainer.net.tensors())
            self.history.stopped = stopped
        finally:
            self.trainer.show_average(True)
            hooks.end(self.callbacks, self.trainer)

    def close(self) -> None:
        """Drop the references back to this object, so that its arrays are freed with it."""
        self.callbacks = []
        self.batches.forget()

    @property
    def done(self) -> int:
        """The completed steps of this fit."""
        return self.epoch * self.batches.steps + self.step

    def seconds(self) -> float:
        """The duration of the current epoch so far."""
        return self.spent + time.perf_counter() - self._started

    def diverged(self, what: str) -> DivergenceError:
        """The error for numbers that are no longer finite."""
        what = f"{what} in epoch {self.epoch + (self.step > 0)} of {self.epochs}"
        file = self.checkpoint and self.checkpoint.path
        unchanged = f"; {file} is as it was before" if file and file.exists() else ""
        return DivergenceError(
            f"training diverged: {what}, with lr {self.trainer.lr:g}; lower lr, pass "
            "clip_norm=1.0, or scale x and y. The network's parameters are of no use now"
            f"{unchanged}",
            what,
        )

    def check_finite(self, theta: Mapping[str, HostArray], J: float = 0.0) -> None:
        """Raise unless J and θ are finite.  No cost has been computed yet after θ's last update."""
        names = [name for name, tensor in theta.items() if not np.isfinite(tensor).all()]
        if names or not math.isfinite(J):
            raise self.diverged(f"{names[0] if names else 'the cost'} is not finite")

    def _loop(self, interrupt: Interrupt) -> str:
        """Train epoch by epoch; return how the loop ended."""
        while self.epoch < self.epochs:
            if self.trainer.stop:
                return "early"
            if self.watch is not None and self.watch.done:
                self.watch.check_ranked("early_stopping", OTHER)
                return "early"
            self._start_epoch()
            try:
                complete = self._steps(interrupt)
            finally:
                self.trainer.restore_theta()
            if not complete:
                self._save()
                return "interrupted"
            self._end_epoch()
        return "finished"

    def _start_epoch(self) -> None:
        """Upload the tables of an epoch: its order, the control of every step, and J so far."""
        trainer = self.trainer
        self._started = time.perf_counter()
        trainer.show_average(False)
        trainer.net.round()  # a callback may have assigned to θ
        steps = range(self.epoch * self.batches.steps, (self.epoch + 1) * self.batches.steps)
        self._lrs = trainer.learning_rates(steps, self.total)
        table = trainer.controls(self._lrs, first=trainer.steps - self.step + 1)
        self.batches.start(trainer.epochs, table, self.J, self.step)

    def _steps(self, interrupt: Interrupt) -> bool:
        """Do the remaining steps of the epoch; False if a signal came before the last."""
        while self.step < self.batches.steps:
            if interrupt.requested:
                return False
            with self._pace.steps(self.batches.alike, self.done) as steps:
                self.trainer.step(self.batches, steps)
            self.step += steps
            self.trainer.last_lr = self._lrs[self.step - 1]
            within = self.step < self.batches.steps  # the end of the epoch saves, too
            due = within and self.checkpoint is not None and self.checkpoint.due(self.done)
            if due or self._pace.watched:
                self.trainer.restore_theta()
            for callback in self.callbacks:
                callback.on_step_end(self.trainer)
            if due:
                self._save()
        return True

    def _end_epoch(self) -> None:
        """Record the epoch, inform callbacks and early stopping, and write the checkpoint."""
        trainer, watch = self.trainer, self.watch
        row = self._row()
        self.history.append(row)
        trainer.epochs += 1
        self.epoch, self.step, self.spent = self.epoch + 1, 0, 0.0
        self.J = np.zeros(self.batches.steps)
        if watch is not None:
            watch.note(trainer.net, self.epoch - 1, row[watch.rule.monitor])
            self.history.best_epoch = watch.best_epoch
        if any(hooks.call(self.callbacks, "on_epoch_end", trainer, row)):
            trainer.stop = True
        self._save()

    def _row(self) -> dict[str, float]:
        """The epoch's numbers, by column of the history."""
        net, batches = self.trainer.net, self.batches
        J = net.backend.to_host(batches.costs)
        # every example counts the same, also in a smaller last minibatch
        cost = float(np.dot(batches.shares, J)) + net.penalty()
        if not math.isfinite(cost):
            raise self.diverged(f"the cost is {cost}")
        if net.backend.scales_loss and net.backend.to_host(self.trainer.scaling)[0] < LEAST_SCALE:
            raise self.diverged("gradients overflow float16 at any loss scale")
        self.trainer.show_average(True)
        row: dict[str, float] = {}
        for prefix, evaluation in self.evaluations.items():
            measured = evaluation.measure(self.diverged)
            row |= {f"{prefix}{name}": value for name, value in measured.items()}
        row |= {"cost": cost, "lr": self._lrs[-1], "seconds": self.seconds()}
        return {name: row[name] for name in self.history}

    def open(
        self, path: Any, every: int | None, resume: bool, data: Examples, validated: Examples | None
    ) -> None:
        """Check the arguments of a checkpoint, and prepare it if there is a path."""
        every = files.checked(path, every, resume)
        if path is None:
            return
        trainer, watch = self.trainer, self.watch
        backend = trainer.net.backend
        settings = {  # what must be equal for a run to go on as if it had not stopped
            **trainer.settings,
            "early_stopping": watch and dataclasses.asdict(watch.rule),
            "columns": list(self.history),
            "data": files.fingerprint(backend, data),
            "validation": files.fingerprint(backend, validated),
        }
        if trainer.schedule.name != "constant":  # the others depend on the number of epochs
            settings["epochs"] = self.epochs
        self.checkpoint = Checkpoint(path, every, trainer.net.config(), settings)

    def _save(self) -> None:
        """Write the checkpoint, if there is one.

        Raises:
            FloatingPointError: θ or J is not finite; the old file is left.
        """
        if self.checkpoint is None:
            return
        trainer, watch, backend = self.trainer, self.watch, self.trainer.net.backend
        J = backend.to_host(self.batches.costs)[: self.step].tolist() if self.step else []
        best = watch.theta if watch and watch.best is not None else None
        # in θ's type: float32 holds all values of 16-bit slots, and every reader knows it
        tensors = {
            name: np.asarray(backend.to_host(view), backend.dtype)
            for name, view in files.views(trainer, best).items()
        }
        self.check_finite(storage.theta_of(tensors), sum(J))
        position = {
            "epoch": self.epoch, "step": self.step, "J": J,
            "seconds": self.seconds() if self.step else 0.0,
            "steps_ever": trainer.steps, "epochs_ever": trainer.epochs,
            "scaling": backend.to_host(trainer.scaling).tolist(),
            "lr_factor": trainer.lr_factor, "last_lr": trainer.last_lr,
        }  # fmt: skip
        self.checkpoint.save(
            tensors, position=position, history=self.history.to_dict(),
            watch=watch and watch.state(), callbacks=files.callback_states(self.callbacks),
        )  # fmt: skip

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from the state in the file, if there is a file.

        Raises:
            CheckpointError: the file is damaged, or of another run; nothing was changed.
        """
        monitor = None if self.watch is None else self.watch.rule.monitor
        if (loaded := checkpoint.load(self.history, self.batches.steps, monitor)) is None:
            return
        tensors, state = loaded
        trainer, position, backend = self.trainer, state["position"], self.trainer.net.backend
        numbers = state["watch"] or {"best": None}
        best = self.watch.theta if self.watch and numbers["best"] is not None else None
        views = files.views(trainer, best)
        checkpoint.check(tensors, views)
        files.restore_callbacks(self.callbacks, state["callbacks"], checkpoint.path)
        for name, view in views.items():
            backend.asarray(tensors[name], out=view)
        self.epoch, self.step, self.spent = (position[k] for k in ("epoch", "step", "seconds"))
        self.J[: self.step] = position["J"]
        backend.asarray(np.array(position["scaling"]), dtype=np.float64, out=trainer.scaling)
        trainer.steps, trainer.epochs = position["steps_ever"], position["epochs_ever"]
        trainer.lr_factor, trainer.last_lr = position["lr_factor"], position["last_lr"]
        self.history = trainer.history = History.from_dict(state["history"])
        if self.watch is not None:
            self.watch.set_state(numbers)
