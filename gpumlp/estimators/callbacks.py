"""scikit-learn's own callbacks (1.9 and newer), called from ours; without it, nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from gpumlp.network import MLP
from gpumlp.training.events import Callback

__all__ = ["CallbackSupportMixin", "Tasks", "tasks", "with_callbacks"]

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn < 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing to set."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """The method itself."""
        return method


class Tasks(Callback):
    """A fit as scikit-learn's tree of tasks: "fit" above, one "epoch" after the other below.

    Args:
        e: the estimator, whose `set_callbacks` may have been called.
        net: what is trained; callbacks that ask for a fitted estimator get one with a copy of it.
        X, y, sample_weight: as the user gave them.
    """

    def __init__(self, e: Any, net: MLP, X: Any, y: Any, sample_weight: Any) -> None:
        self._e, self._net = e, net
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self._data = {"estimator": e, "X": X, "y": y, "metadata": metadata}
        self._task = e._init_callback_context(max_subtasks=e.max_iter)
        self._epoch: Any = None

    def on_fit_begin(self, trainer: Any) -> None:
        """Both tasks begin."""
        self._task.call_on_fit_task_begin(**self._data)
        self._begin()

    def on_epoch_end(self, trainer: Any, row: Mapping[str, float]) -> bool:
        """An epoch ends, and the next begins; True where a callback wants no more."""
        stop = self._end(self._epoch)
        self._epoch = None
        if not stop and not trainer.stop and self._e.n_iter_ < self._e.max_iter:
            self._begin()
        return stop

    def on_fit_end(self, trainer: Any) -> None:
        """The fit ends, and with it an epoch that was cut short."""
        if self._epoch is not None:
            self._end(self._epoch)
        self._end(self._task)

    def _begin(self) -> None:
        self._epoch = self._task.subcontext(task_name="epoch")
        self._epoch.call_on_fit_task_begin(**self._data)

    def _end(self, task: Any) -> bool:
        fitted = {"reconstruction_attributes": lambda: {"net_": copy.deepcopy(self._net)}}
        return bool(task.call_on_fit_task_end(**self._data, **fitted))


def tasks(e: Any, net: MLP, X: Any, y: Any, sample_weight: Any) -> list[Callback]:
    """The bridge, where this scikit-learn has callbacks and there are any to call."""
    called = getattr(e, "_skl_callbacks", None) or hasattr(e, "_parent_callback_ctx")
    supported = hasattr(e, "_init_callback_context")
    return [Tasks(e, net, X, y, sample_weight)] if called and supported else []
