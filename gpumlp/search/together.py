"""The fits of a search as members of one training: on threads, each on one, with one Ctrl-C."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

import joblib
from joblib.parallel import ParallelBackendBase

from gpumlp.estimators import settings
from gpumlp.estimators.base import BaseMLP
from gpumlp.estimators.fitting import ends_by_error
from gpumlp.io.signals import Interrupt, shared
from gpumlp.io.threads import at_most, one_thread
from gpumlp.training import members


class Threads(ParallelBackendBase):  # type: ignore[misc]
    """A backend of joblib whose threads compute as those of `members.call` do.

    joblib's own "threading" does not run tasks in the context of the caller, which has the
    `Interrupt` of all fits; and its products would use all cores from each thread.

    Args:
        interrupt: a signal ends all fits by KeyboardInterrupt.
    """

    supports_retrieve_callback = uses_threads = supports_sharedmem = True

    def __init__(self, count: int, interrupt: Interrupt) -> None:
        super().__init__()
        self._count, self._interrupt = count, interrupt
        self._filters: Any = None

    def effective_n_jobs(self, n_jobs: int) -> int:
        """The number of threads, whatever is asked for."""
        return self._count

    def configure(self, n_jobs: int = 1, parallel: Any = None, **ignored: Any) -> int:
        """Start the threads."""
        self.parallel = parallel
        self._context = copy_context()
        self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="search")
        return self._count

    def start_call(self) -> None:
        """Keep the filters of warnings: scikit-learn sets those of the process in each task."""
        self._filters = warnings.catch_warnings()
        self._filters.__enter__()

    def stop_call(self) -> None:
        """Put the filters back."""
        if self._filters is not None:
            self._filters.__exit__(None, None, None)
            self._filters = None

    def submit(
        self, func: Callable[[], Any], callback: Callable[[Future[Any]], None] | None = None
    ) -> Future[Any]:
        """Begin a task."""
        future = self._pool.submit(self._context.copy().run, self._task, func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit  # its name before joblib 1.5

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """What the task returned; raise what it raised."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End the running fits after a step, and begin no others: one has raised an error."""
        self._interrupt.requested = self._interrupt.requested or signal.SIGINT
        self.terminate()
        if ensure_ready:
            self.configure(parallel=self.parallel)

    def terminate(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _task(self, func: Callable[[], Any]) -> Any:
        if self._interrupt.requested:
            raise KeyboardInterrupt
        with one_thread():
            return func()


@contextmanager
def together(estimator: Any) -> Iterator[None]:
    """scikit-learn's fits of this estimator are trained together in this context.

    A signal ends all of them by KeyboardInterrupt, where a single fit would end with a warning and
    an estimator that can be used: a search goes on only with fits that are complete.

    Raises:
        TypeError: there is no estimator of gpumlp in it.
    """
    found = multilayer_perceptrons(estimator)
    with settings.one_backend(*found), shared() as interrupt:
        count = at_most(min(members.count(settings.backend(e)) for e in found))
        token = ends_by_error.set(True)
        try:
            # with one thread, GPUs and signals are used in the thread that called `fit`
            backend = Threads(count, interrupt) if count > 1 else "sequential"
            with joblib.parallel_config(backend, n_jobs=count):
                yield
        finally:
            ends_by_error.reset(token)
        if interrupt.requested:
            raise KeyboardInterrupt


def names_of_models(estimator: Any) -> list[str]:
    """The names of the parameters `n_models` in an estimator; TypeError as for `together`."""
    multilayer_perceptrons(estimator)
    parts = {"": estimator, **{f"{k}__": v for k, v in estimator.get_params(deep=True).items()}}
    return [f"{k}n_models" for k, part in parts.items() if isinstance(part, BaseMLP)]


def multilayer_perceptrons(estimator: Any) -> list[BaseMLP]:
    """The estimators of gpumlp in an estimator, such as the last step of a pipeline."""
    parts = [estimator]
    if hasattr(estimator, "get_params") and not isinstance(estimator, type):
        parts += estimator.get_params(deep=True).values()
    found = [part for part in parts if isinstance(part, BaseMLP)]
    if not found:
        got = f"{type(estimator).__name__}, for which sklearn.model_selection has GridSearchCV and "
        got += "RandomizedSearchCV"
        if isinstance(estimator, type):
            got = f"the class {estimator.__name__}; pass an object, {estimator.__name__}()"
        raise TypeError(
            "estimator must be an MLPClassifier or MLPRegressor of gpumlp.estimators, or contain "
            f"one, such as a pipeline that ends with it; got {got}"
        )
    return found
