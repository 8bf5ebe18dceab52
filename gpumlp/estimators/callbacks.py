"""Call scikit-learn's own callbacks (1.9 and newer) during a fit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from gpumlp.network import MLP
from gpumlp.training.events import Callback

__all__ = ["CallbackSupportMixin", "TaskCallback", "task_callbacks", "with_callbacks"]

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn < 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Older versions of scikit-learn have no callbacks to support."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method unchanged."""
        return method


class TaskCallback(Callback):
    """Report a fit as scikit-learn's tree of tasks: a task "fit" with a task "epoch" per epoch.

    Args:
        e: the estimator, whose `set_callbacks` was called.
        net: the network in training.  A callback that asks for a fitted estimator gets one with a
            copy of it.
        X, y, sample_weight: as the user passed them.
    """

    def __init__(self, e: Any, net: MLP, X: Any, y: Any, sample_weight: Any) -> None:
        self._e, self._net = e, net
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self._data = {"estimator": e, "X": X, "y": y, "metadata": metadata}
        self._fit = e._init_callback_context(max_subtasks=e.max_iter)
        self._epoch: Any = None

    def on_fit_begin(self, trainer: Any) -> None:
        """Begin the fit and its first epoch."""
        self._fit.call_on_fit_task_begin(**self._data)
        self._begin_epoch()

    def on_epoch_end(self, trainer: Any, row: Mapping[str, float]) -> bool:
        """End the epoch and begin the next; return True if a callback stops the fit."""
        stop = self._end(self._epoch)
        self._epoch = None
        if not stop and not trainer.stop and self._e.n_iter_ < self._e.max_iter:
            self._begin_epoch()
        return stop

    def on_fit_end(self, trainer: Any) -> None:
        """End the fit, and before it an epoch that was interrupted."""
        if self._epoch is not None:
            self._end(self._epoch)
        self._end(self._fit)

    def _begin_epoch(self) -> None:
        self._epoch = self._fit.subcontext(task_name="epoch")
        self._epoch.call_on_fit_task_begin(**self._data)

    def _end(self, task: Any) -> bool:
        fitted = {"reconstruction_attributes": lambda: {"net_": copy.deepcopy(self._net)}}
        return bool(task.call_on_fit_task_end(**self._data, **fitted))


def task_callbacks(e: Any, net: MLP, X: Any, y: Any, sample_weight: Any) -> list[Callback]:
    """Return a `TaskCallback` if the estimator has callbacks of scikit-learn to call, else none."""
    called = getattr(e, "_skl_callbacks", None) or hasattr(e, "_parent_callback_ctx")
    supported = hasattr(e, "_init_callback_context")
    return [TaskCallback(e, net, X, y, sample_weight)] if called and supported else []
