"""The loop of `Trainer.fit` over epochs and steps, and its state."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import numpy as np

from gpumlp.errors import DivergenceError
from gpumlp.io.signals import Interrupt, interruptible
from gpumlp.io.types import HostArray
from gpumlp.loader.batches import Batches, Minibatches
from gpumlp.training import callbacks as hooks
from gpumlp.training import together
from gpumlp.training.arguments import check_recorded
from gpumlp.training.callbacks import Watch
from gpumlp.training.checkpoint import Checkpoint
from gpumlp.training.events import Callback
from gpumlp.training.history import History
from gpumlp.training.metrics import Evaluation, columns, row_of
from gpumlp.training.pace import Pace, follows_steps, watched
from gpumlp.training.rates import Rates
from gpumlp.training.stepping import Stepping

OTHER = "pass another metric, or monitor another column"
CAUGHT = ("generator raised StopIteration",)
LEAST_SCALE = 2.0**-14  # after 30 overflows; no useful gradient is as large as that


class Fit:
    """The state of a fit, and its loop.

    Attributes:
        epoch, step: the completed epochs of this fit, and the completed steps of the current epoch.
        J: (steps,) L of those steps, from a checkpoint; else zeros.
        spent: the seconds that the epoch had taken when the checkpoint was written; else 0.
        rates: those of the steps of this epoch; a hook may have set others for the next ones.
        total: the steps of the whole fit, which the schedule spans.
        checkpoint, save: the file of the fit, if it has one, and the function that writes it.
    """

    def __init__(
        self, trainer: Stepping, batches: Minibatches, epochs: int, watch: Watch | None,
        evaluations: Mapping[str, Evaluation],
    ) -> None:  # fmt: skip
        self.trainer, self.batches, self.epochs = trainer, batches, epochs
        self.evaluations, self.watch = evaluations, watch
        self.history = History(columns(evaluations))
        self.callbacks: list[Callback] = []
        self.checkpoint: Checkpoint | None = None
        self.save: Callable[[Fit, Checkpoint], None]
        self.epoch = self.step = 0
        self.spent = self._started = 0.0
        self.rates = Rates.of(trainer)
        self.J = np.zeros(batches.order.steps)
        self.total = epochs * batches.order.steps
        self._lrs: list[float] = []  # the learning rates of the epoch's steps

    def train(self, batches: Batches) -> None:
        """Do the steps until the epochs are done or something stops the fit; batches: its own."""
        with self.hooks():
            # `diverged` reports numbers that overflow, once, in place of NumPy's warnings
            with (
                interruptible() as interrupt, np.errstate(over="ignore", invalid="ignore"),
                closing(self.calls(interrupt, self.trainer.net.backend.compiles)) as calls,
            ):  # fmt: skip
                try:
                    for steps in calls:
                        self.trainer.step(batches, steps)
                except RuntimeError as error:
                    if error.args == CAUGHT and error.__cause__ is not None:
                        raise error.__cause__ from None  # StopIteration, of a callback
                    raise
            self.finish()

    def hooks(self) -> ExitStack:
        """Around all work: the hooks at the begin and at the end.

        It is no generator, which would raise another error in place of a hook's StopIteration.
        """
        with ExitStack() as stack:
            stack.push(self._end)
            self._hook("on_fit_begin")
            return stack.pop_all()

    def _end(self, failed: type[BaseException] | None, *_: object) -> None:
        """Call the hooks at the end, also if the fit failed."""
        self.trainer.show_average(True)
        end = partial(hooks.end, self.callbacks, self.trainer)
        if failed:  # the other ranks may do something else
            end()
        else:
            together.doing(self.trainer, "on_fit_end")
            together.called_on_first(self.trainer, self.callbacks, end)

    def calls(self, interrupt: Interrupt, several: bool) -> Generator[int, int | None, None]:
        """Yield how many steps are to be done next; go on when they are done, until the end.

        Who does fewer steps sends their number.

        several: whether many steps at a time take less time than single ones.
        """
        world = self.trainer.shards.world
        self._agreement = together.Agreement(world)
        self._steppers = [each for each in self.callbacks if follows_steps(each)]
        single = together.on_first(world, lambda: watched(self._steppers))
        self._pace = Pace(several, single, self.checkpoint)
        self.trainer.begin()
        self._stopped = yield from self._loop(interrupt)
        together.complete(self.trainer)
        self.trainer.show_average(True)
        if self.watch is not None:
            self.watch.restore(self.trainer.net)

    def finish(self) -> None:
        """Check what was trained."""
        if self._stopped != "interrupted":
            self.check_finite(self.trainer.net.tensors())
        self.history.stopped = self._stopped

    def close(self) -> None:
        """Drop the references back to this object, so that its arrays are freed with it."""
        self.callbacks = []
        self.batches.forget()

    @property
    def done(self) -> int:
        """The completed steps of this fit."""
        return self.epoch * self.batches.order.steps + self.step

    def seconds(self) -> float:
        """The duration of the current epoch so far."""
        return self.spent + time.perf_counter() - self._started

    def diverged(self, what: str, immediate: bool = False) -> DivergenceError:
        """The error for numbers that are no longer finite; immediate: before the first update."""
        what = f"{what} in epoch {self.epoch + (self.step > 0)} of {self.epochs}"
        if immediate:
            what += ", before the first update"
            advice = "build a new network, if this one has diverged before, or scale x and y"
        else:
            clip = "" if self.trainer.clip_norm is not None else "pass clip_norm=1.0, "
            advice = f"lower lr, {clip}or scale x and y"
        file = self.checkpoint and self.checkpoint.path
        unchanged = f"; {file} is as it was before" if file and file.exists() else ""
        return DivergenceError(
            f"training diverged: {what}, with lr {self.trainer.lr:g}; {advice}. The network's "
            f"parameters are of no use now{unchanged}",
            what,
        )

    def check_finite(self, theta: Mapping[str, HostArray], J: float = 0.0) -> None:
        """Raise unless J and θ are finite.  No cost has been computed yet after θ's last update."""
        names = [name for name, tensor in theta.items() if not np.isfinite(tensor).all()]
        if names or not math.isfinite(J):
            raise self.diverged(f"{names[0] if names else 'the cost'} is not finite")

    def _loop(self, interrupt: Interrupt) -> Generator[int, int | None, str]:
        """Train epoch by epoch; return how the loop ended."""
        while self.epoch < self.epochs:
            if self.trainer.stop:
                return "early"
            if self.watch is not None and self.watch.done:
                self.watch.check_ranked("early_stopping", OTHER)
                return "early"
            self._start_epoch()
            try:
                complete = yield from self._steps(interrupt)
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
        first = self.epoch * self.batches.order.steps
        steps = range(first, first + self.batches.order.steps)
        if self.step == 0:
            self.rates = Rates.of(trainer)
        self._lrs = self.rates.of_steps(steps, self.total)
        table = trainer.controls(self._lrs, first=trainer.steps - self.step + 1)
        self.batches.start(trainer.epochs, table, self.J, self.step)

    def _steps(self, interrupt: Interrupt) -> Generator[int, int | None, bool]:
        """Do the remaining steps of the epoch; False if a signal came before the last."""
        while self.step < self.batches.order.steps:
            if not self._agreement.go_on(interrupt.requested, self.done):
                return False
            most = self._agreement.until(self.batches.alike, self.done)
            steps = self._pace.next(most, self.done)
            steps = (yield steps) or steps
            self._pace.note(steps)
            self.step += steps
            self.trainer.last_lr = self._lrs[self.step - 1]
            within = self.step < self.batches.order.steps  # the end of the epoch saves, too
            due = within and self.checkpoint is not None and self.checkpoint.due(self.done)
            if due or self._pace.watched:
                self.trainer.restore_theta()
                together.complete(self.trainer)
            self._step_hooks()
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
        self.J = np.zeros(self.batches.order.steps)
        if watch is not None:
            watch.note(trainer.net, self.epoch - 1, row[watch.rule.monitor])
            self.history.best_epoch = watch.best_epoch
        self._hook("on_epoch_end", row)
        self._save()

    def _hook(self, name: str, *arguments: Any) -> None:
        """Call a hook of the callbacks, on rank 0, and share what they decide."""
        together.doing(self.trainer, name)
        call = partial(self._call, self.callbacks, name, *arguments)
        together.called_on_first(self.trainer, self.callbacks, call)

    def _step_hooks(self) -> None:
        """Call on_step_end of the callbacks: a display of the progress needs no other rank."""
        call = partial(self._call, self._steppers, "on_step_end")
        if self._pace.watched:
            together.called_on_first(self.trainer, self.callbacks, call)
            self.trainer.net.round()  # they may have assigned to θ
        elif self._steppers:
            call()

    def _call(self, callbacks: Sequence[Callback], name: str, *arguments: Any) -> None:
        """Call a hook of these callbacks, of which each can stop the fit."""
        stops = hooks.stops(callbacks, name, self.trainer, *arguments)
        self.trainer.stop = self.trainer.stop or stops

    def _row(self) -> dict[str, float]:
        """The epoch's numbers, by column of the history."""
        net, batches = self.trainer.net, self.batches
        check_recorded(net, self.trainer.omega)  # a callback may have assigned another
        together.complete(self.trainer)
        J = batches.costs()
        # every example counts the same, also in a smaller last minibatch
        cost = float(np.dot(batches.order.shares, J)) + net.penalty()
        if not math.isfinite(cost):
            immediate = self.done == len(J) and not math.isfinite(J[0])  # in the fit's first step
            raise self.diverged(f"the cost is {cost}", immediate)
        if net.backend.scales_loss and net.backend.to_host(self.trainer.scaling)[0] < LEAST_SCALE:
            raise self.diverged("gradients overflow float16 at any loss scale")
        self.trainer.show_average(True)
        together.doing(self.trainer, "costs and metrics")
        row = row_of(self.evaluations, self.diverged)
        row |= {"cost": cost, "lr": self._lrs[-1], "seconds": self.seconds()}
        return {name: row[name] for name in self.history}

    def _save(self) -> None:
        """Write the checkpoint, if there is one."""
        if self.checkpoint is not None:
            together.doing(self.trainer, "checkpoint")
            self.save(self, self.checkpoint)
