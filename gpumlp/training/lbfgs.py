"""L-BFGS: J over all examples at once, to its minimum, for small problems; by SciPy."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from gpumlp import backprop, checks
from gpumlp.io.types import Array, HostVector
from gpumlp.loader.examples import Examples, held_out
from gpumlp.network import CHUNK, MLP, ClassWeight
from gpumlp.parameters import Parameters
from gpumlp.training.callbacks import Interrupt, checked, end
from gpumlp.training.events import Callback
from gpumlp.training.history import History
from gpumlp.training.metrics import Evaluation, Metrics, columns, evaluations
from gpumlp.workspace import Workspace

SLOW = 1e7 * np.finfo(np.float64).eps  # SciPy's own ftol, and so scikit-learn's


def fit_lbfgs(
    net: MLP,
    x: Array,
    y: Array,
    *,
    max_iter: int = 200,
    tol: float = 1e-4,
    max_fun: int = 15_000,
    validation: Sequence[Array] | None = None,
    sample_weight: Array | None = None,
    class_weight: ClassWeight = None,
    callbacks: Sequence[Callback] = (),
    metric: Metrics = "auto",
) -> History:
    """θ ← a minimum of J = L(ŷ, y) + λΩ(θ) over all examples at once, from θ as it stands.

    For data and networks so small that minibatches gain nothing.  Each turn looks at all of x, some
    thousand rows at a time; SciPy's L-BFGS-B, in float64 whatever the backend computes in, draws on
    the last ten turns for the next direction.  An iteration is an epoch to callbacks and history.

    Ctrl-C ends it before the next look at the data, with `History.stopped` "interrupted".  However
    it ends, by an error too, the network is left with the best θ of an iteration.

    Args:
        net: of precision "float64" or "float32".
        x: (m, n_0), finite.
        y: (m, n_L), or integer labels (m,) for classification.
        max_iter: the most iterations.
        tol: it has converged where no entry of ∇J is larger, or where an iteration lowers J by no
            more than 2.2e-9 of it, or tol² of it if that is less.
        max_fun: no iteration begins after so many looks at the data.
        validation: (x_val, y_val) or (x_val, y_val, sample_weight_val), looked at after each
            iteration.
        sample_weight: (m,), 0 and up: L is the weighted mean.
        class_weight: a weight for each class, as list or mapping, or "balanced".
        callbacks: their hooks get, for a trainer, an object with `net`, `history`, `steps`,
            `epochs`, `stop` and `settings`; `on_step_end` and `on_epoch_end` come with each
            iteration.  There is no learning rate to lower or to log.
        metric: of the validation data, as in `Trainer.fit`.

    Returns:
        History: cost, the J that the iteration ended with, val_cost and val_metric, and seconds;
            `stopped` is "converged", "finished" where max_iter, max_fun or the arithmetic's digits
            were at their end, "early" where a callback ended it, or "interrupted".

    Raises:
        ValueError, TypeError: an argument is not as said; nothing was changed.
        FloatingPointError: J or ∇J is not finite at the start.
        ImportError: SciPy is not installed.

    Source:
        Byrd, Lu, Nocedal and Zhu (1995), "A limited memory algorithm for bound constrained
        optimization".
    """
    if not isinstance(net, MLP):
        raise TypeError(f"net must be a gpumlp.MLP, got {type(net).__name__}")
    if net.precision not in ("float64", "float32"):
        raise ValueError(
            f"fit_lbfgs compares costs to more digits than {net.precision} products have; build "
            'the network with precision="float32", or use gpumlp.Trainer'
        )
    limits = {
        "maxiter": checks.positive_int(max_iter, "max_iter"),
        "gtol": checks.positive_number(tol, "tol", least=0),
        "ftol": min(SLOW, tol**2),
        "maxfun": checks.positive_int(max_fun, "max_fun"),
    }
    hooks, minimize = checked(callbacks), _minimize()
    net.backend.synchronize()
    data = Examples.checked(net, x, y, sample_weight, class_weight, rows=CHUNK)
    held = held_out(net, validation, rows=CHUNK)
    found = evaluations(net, data, held, metric, False)
    for evaluation in found.values():
        evaluation.validate("validation")
    run = Lbfgs(net, Objective(net, data), found, hooks)
    run.settings = {"optimizer": "lbfgs", "max_iter": max_iter, "tol": tol, "max_fun": max_fun}
    run.minimize(minimize, limits)
    return run.history


class Objective:
    """J and ∇J over all examples, in memory that does not grow with them."""

    def __init__(self, net: MLP, data: Examples) -> None:
        backend, m = net.backend, len(data.x)
        self._net, self._data = net, data
        self._s = Workspace(net, min(m, CHUNK))
        self._d = Parameters.zeros(backend, net.theta.layout, backend.storage)
        weights = data.weights
        self._share = None if weights is None else backend.asarray(weights / weights.sum())

    def __call__(self) -> tuple[float, HostVector]:
        """J, and ∇J in θ's layout, its padding zero."""
        net, s, d, data = self._net, self._s, self._d, self._data
        backend, m = net.backend, len(data.x)
        total: HostVector = np.zeros(d.layout.size)
        for rows in s.load(data.x, data.y, self._share):
            backprop.forward(net, s)
            backprop.backward(net, s, d)
            if rows.stop == m:
                backprop.penalty(net, s, d)
            total += backend.to_host(d.flat)
        return float(backend.to_host(s.J)[0]), total


class Ended(Exception):  # noqa: N818  (an end, not an error)
    """Out of SciPy, for the reason that `History.stopped` gives."""


class Lbfgs:
    """A minimisation at work, and what callbacks get in a trainer's place.

    Attributes:
        net, history: what is trained, and its rows so far.
        steps, epochs: the iterations done.
        stop: set by a callback, ends the fit after the iteration.
        settings: of the minimisation, by name.
    """

    def __init__(
        self,
        net: MLP,
        objective: Objective,
        measured: dict[str, Evaluation],
        callbacks: Sequence[Callback],
    ) -> None:
        self.net = net
        self.history = History(name for name in columns(measured) if name != "lr")
        self.steps = self.epochs = 0
        self.stop = False
        self.settings: dict[str, Any] = {}
        self._objective, self._measured, self._callbacks = objective, measured, callbacks
        self._interrupt, self._since = Interrupt(), 0.0
        self._J = self._looked = self._least = math.inf

    def minimize(self, minimize: Any, limits: dict[str, Any]) -> None:
        """From θ as it stands to the end, by `scipy.optimize.minimize`."""
        backend = self.net.backend
        try:
            self._call("on_fit_begin")  # which may assign to θ
            # the θ of the history's last row, what was looked at last, and the best of the rows'
            self._theta = backend.to_host(self.net.theta.flat).astype(np.float64)
            self._tried = self._best = self._theta
            self._since = time.perf_counter()
            # numbers that overflow are answered by `_look`, not by NumPy's warnings
            with self._interrupt, np.errstate(over="ignore", invalid="ignore"):
                found = minimize(
                    self._look, self._theta, jac=True, method="L-BFGS-B", options=limits,
                    callback=lambda theta: self._iterated(theta),
                )  # fmt: skip
            self.history.stopped = "converged" if found.status == 0 else "finished"
        except Ended as ended:
            self.history.stopped = str(ended)
        finally:
            if self._since:
                self._assign(self._best)
            end(self._callbacks, cast(Any, self))

    def _look(self, theta: HostVector) -> tuple[float, HostVector]:
        """J and ∇J at a θ of SciPy's; where they are not finite, a slope up from the last one."""
        if self._interrupt.asked:
            raise Ended("interrupted")
        self._assign(theta)
        J, gradient = self._objective()
        self._tried, self._looked = theta.copy(), J
        if math.isfinite(J) and bool(np.isfinite(gradient).all()):
            if math.isinf(self._J):  # the first look
                self._J = self._least = J
            return J, gradient
        if math.isinf(self._J):
            raise FloatingPointError(
                f"J or its gradient is not finite where L-BFGS is to start (J is {J}); scale x and "
                "y, or start from a network that is not trained yet"
            )
        # a line search computes with what it is given: infinity would make its next step NaN
        away, high = theta - self._theta, 1 + abs(self._J)
        return self._J + high, 2 * high / float(away @ away) * away

    def _iterated(self, theta: HostVector) -> None:
        """An iteration is done, at the θ that its line search looked at last."""
        if not np.array_equal(theta, self._tried):
            self._look(theta)
        self._theta, self._J = self._tried, self._looked
        if self._least >= self._J:
            self._best, self._least = self._theta, self._J
        self.steps += 1
        self._call("on_step_end")
        row = {"cost": self._J}
        for prefix, evaluation in self._measured.items():
            row |= {f"{prefix}{name}": value for name, value in evaluation.measure().items()}
        now = time.perf_counter()
        row["seconds"], self._since = now - self._since, now
        self.history.append(row)
        self.epochs += 1
        if any(self._call("on_epoch_end", row)) or self.stop:
            raise Ended("early")

    def _assign(self, theta: HostVector) -> None:
        backend = self.net.backend
        backend.asarray(theta, out=self.net.theta.flat)
        backend.synchronize()

    def _call(self, hook: str, *arguments: Any) -> list[Any]:
        """Every callback's hook, with no work on the backend's arrays under way before or after."""
        backend, trainer = self.net.backend, cast(Any, self)
        backend.synchronize()
        results = [getattr(each, hook)(trainer, *arguments) for each in self._callbacks]
        backend.synchronize()
        return results


def _minimize() -> Any:
    """scipy.optimize.minimize: the one place where SciPy is imported."""
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise ImportError('fit_lbfgs needs SciPy: pip install "gpumlp[sklearn]"') from error
    return minimize
