"""The hooks of a callback, and what a hook sees of the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from gpumlp.network import MLP
from gpumlp.training.history import History


class Training(Protocol):
    """What a callback sees of a training: a `Trainer`, which documents each attribute, or the run
    of `fit_lbfgs`, whose lr is 0, since it has no learning rate.
    """

    net: MLP
    history: History
    steps: int
    epochs: int
    lr: float
    stop: bool
    lr_factor: float
    last_lr: float

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the training, as JSON can hold them."""


class Callback:
    """Hooks into a fit.  Override those that you need.

    `trainer` has the fit's `net`, `history`, `steps` and `epochs`.  A hook ends the fit after the
    epoch by returning True or setting ``trainer.stop = True``, and immediately by raising an error.

    All work on the backend's arrays is done when a hook is called.  `on_step_end` is the exception:
    a hook that reads arrays on a GPU calls ``trainer.net.backend.synchronize()`` first, and then
    each step waits for the GPU.

    A hook may change the learning rate of the following epochs by setting ``trainer.lr_factor``.
    """

    def on_fit_begin(self, trainer: Training) -> bool | None:
        """Called before the first step, after arguments are checked and a checkpoint is loaded."""

    def on_step_end(self, trainer: Training) -> bool | None:
        """Called after each update."""

    def on_epoch_end(self, trainer: Training, row: Mapping[str, float]) -> bool | None:
        """Called after each epoch, before its checkpoint is written.

        `row` is the epoch's row of the history.
        """

    def on_fit_end(self, trainer: Training) -> None:
        """Called when the fit ends, however it ends, even if `on_fit_begin` was never called."""

    def state(self) -> Mapping[str, Any]:
        """Return what a checkpoint saves for the callback, as JSON can hold it."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned; called before `on_fit_begin` when a fit is resumed."""
