"""One call of `Trainer.fit`: the loop over epochs, and where it stands."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpumlp.loader.batches import Batches
from gpumlp.training.callbacks import Interrupt, Watch, end
from gpumlp.training.events import Callback
from gpumlp.training.history import History
from gpumlp.training.metrics import Evaluation

if TYPE_CHECKING:
    from gpumlp.training.checkpoint import Checkpoint
    from gpumlp.training.trainer import Trainer

LEAST_SCALE = 2.0**-14  # 30 overflows after the start: no gradient of use is as large as that


class Fit:
    """A fit at work.

    Attributes:
        epoch, step: this fit's completed epochs, and the steps done of the epoch at work.
        J: (steps,) L of those steps, as a checkpoint has them; else zeros.
        spent: the seconds that the epoch had taken by then; else 0.
        total: the steps of the whole fit, which the schedule spans.
    """

    def __init__(
        self,
        trainer: Trainer,
        batches: Batches,
        epochs: int,
        evaluations: Mapping[str, Evaluation],
        columns: Sequence[str],
        watch: Watch | None,
    ) -> None:
        self.trainer, self.batches, self.epochs = trainer, batches, epochs
        self.evaluations, self.watch = evaluations, watch
        self.history = History(columns)
        self.callbacks: list[Callback] = []
        self.checkpoint: Checkpoint | None = None
        self.epoch = self.step = 0
        self.spent = 0.0
        self.J = np.zeros(batches.steps)
        self.total = epochs * batches.steps
        self._started = 0.0
        self._lrs: list[float] = []  # of the epoch's steps

    def run(self) -> None:
        """Train until the epochs are done or something stops it."""
        try:
            self._call("on_fit_begin")
            # numbers that overflow are answered once, by `diverged`, not by NumPy's warnings
            with Interrupt() as interrupt, np.errstate(over="ignore", invalid="ignore"):
                stopped = self._loop(interrupt)
                self._show_average(True)
                if self.watch is not None:
                    self.watch.restore(self.trainer.net)
            if stopped != "interrupted":
                self.check_finite(self.trainer.net.tensors())
            self.history.stopped = stopped
        finally:
            self._show_average(True)
            end(self.callbacks, self.trainer)

    def close(self) -> None:
        """Let go of what refers back here, so that all arrays are freed with the last user."""
        self.callbacks, self.checkpoint = [], None
        self.batches.forget()

    @property
    def done(self) -> int:
        """The steps of this fit that are done."""
        return self.epoch * self.batches.steps + self.step

    def seconds(self) -> float:
        """What the epoch at work has taken."""
        return self.spent + time.perf_counter() - self._started

    def diverged(self, what: str) -> FloatingPointError:
        """The error for numbers that are no longer finite."""
        epoch = self.epoch + (self.step > 0)
        file = self.checkpoint and self.checkpoint.path
        kept = f"; {file} is as it was before" if file and file.exists() else ""
        return FloatingPointError(
            f"training diverged: {what} in epoch {epoch} of {self.epochs}, with lr "
            f"{self.trainer.lr:g}; lower lr, pass clip_norm=1.0, or scale x and y. The network's "
            f"parameters are of no use now{kept}"
        )

    def check_finite(self, theta: Mapping[str, npt.NDArray[Any]], J: float = 0.0) -> None:
        """Raise unless J is finite, and θ, whose last update no cost has seen yet."""
        odd = [name for name, tensor in theta.items() if not np.isfinite(tensor).all()]
        if odd or not math.isfinite(J):
            raise self.diverged(f"{odd[0] if odd else 'the cost'} is not finite")

    def _call(self, hook: str, *arguments: Any) -> list[Any]:
        """Every callback's hook, with no work on the backend's arrays under way before or after."""
        backend = self.trainer.net.backend
        backend.synchronize()
        results = [getattr(callback, hook)(self.trainer, *arguments) for callback in self.callbacks]
        backend.synchronize()
        return results

    # ---- the loop -----------------------------------------------------------------------------

    def _loop(self, interrupt: Interrupt) -> str:
        """Epoch after epoch; returns how it ended."""
        while self.epoch < self.epochs:
            if self.trainer.stop or (self.watch is not None and self.watch.done):
                return "early"
            self._start_epoch()
            if not self._steps(interrupt):
                if self.checkpoint is not None:
                    self.checkpoint.save()
                return "interrupted"
            self._end_epoch()
        return "finished"

    def _start_epoch(self) -> None:
        """The epoch's order, every step's control and J as it stands: the uploads of an epoch."""
        trainer = self.trainer
        self._started = time.perf_counter()
        self._show_average(False)
        trainer.net.round()  # a callback may have assigned to θ
        first = trainer.steps - self.step + 1  # the optimizer counts its steps from 1
        self._lrs = [self._lr(i) for i in range(self.batches.steps)]
        controls = [trainer.control(lr, first + i) for i, lr in enumerate(self._lrs)]
        self.batches.start(trainer.epochs, np.array(controls), self.J, self.step)

    def _steps(self, interrupt: Interrupt) -> bool:
        """The epoch's steps that are left; False where Ctrl-C came before the last."""
        while self.step < self.batches.steps:
            if interrupt.asked:
                return False
            self.trainer.step(self.batches)
            self.trainer.last_lr = self._lrs[self.step]
            self.step += 1
            for hook in self.callbacks:
                hook.on_step_end(self.trainer)
            if self.checkpoint is not None and self.checkpoint.due():
                self.checkpoint.save()
        return True

    def _end_epoch(self) -> None:
        """The epoch's row, who wants to know of it, and its checkpoint."""
        trainer, watch = self.trainer, self.watch
        row = self._row()
        self.history.append(row)
        trainer.epochs += 1
        self.epoch, self.step, self.spent = self.epoch + 1, 0, 0.0
        self.J = np.zeros(self.batches.steps)
        if watch is not None:
            watch.note(trainer.net, self.epoch - 1, row[watch.rule.monitor])
            self.history.best_epoch = watch.best_epoch
        if any(self._call("on_epoch_end", row)):
            trainer.stop = True
        if self.checkpoint is not None:
            self.checkpoint.save()

    def _row(self) -> dict[str, float]:
        """The epoch's numbers, by column of the history."""
        net, batches = self.trainer.net, self.batches
        J = net.backend.to_host(batches.costs)
        # examples count alike, in a smaller last minibatch too
        cost = float(np.dot(batches.shares, J)) + net.penalty()
        if not math.isfinite(cost):
            raise self.diverged(f"the cost is {cost}")
        if net.backend.scales_loss and net.backend.to_host(self.trainer.scaling)[0] < LEAST_SCALE:
            raise self.diverged("gradients overflow float16 at any loss scale")
        self._show_average(True)
        row: dict[str, float] = {}
        for prefix, evaluation in self.evaluations.items():
            row |= {f"{prefix}{name}": value for name, value in evaluation.measure().items()}
        row |= {"cost": cost, "lr": self._lrs[-1], "seconds": self.seconds()}
        return {name: row[name] for name in self.history}

    def _show_average(self, shown: bool) -> None:
        """Let the network have the average of θ, where there is one, or θ to go on from."""
        trainer = self.trainer
        if trainer.average is not None:
            if trainer.steps == 0:
                trainer.average.start(trainer.net)
            trainer.average.show(trainer.net, shown)

    def _lr(self, i: int) -> float:
        """The learning rate of the epoch's step i."""
        trainer, t = self.trainer, self.epoch * self.batches.steps + i
        return trainer.lr_factor * trainer.schedule.lr(trainer.lr, t, self.total)
