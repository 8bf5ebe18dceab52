"""L-BFGS, for small problems: SciPy minimises J over all examples."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp import backprop, checks
from gpumlp.errors import DivergenceError, needs
from gpumlp.io.signals import interruptible
from gpumlp.io.types import Array, HostVector
from gpumlp.loader.examples import Examples
from gpumlp.network import CHUNK, MLP
from gpumlp.parameters import Parameters
from gpumlp.step.chunked import Chunked
from gpumlp.training import arguments
from gpumlp.training.callbacks import checked, end, stops
from gpumlp.training.events import Callback
from gpumlp.training.fit import alone, rules
from gpumlp.training.history import History
from gpumlp.training.metrics import Evaluation, Metrics, columns, row_of
from gpumlp.weights import ClassWeight

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
    """θ ← a minimum of J = L(ŷ, y) + λΩ(θ) over all examples, starting from the current θ.

    It is for data and networks so small that minibatches gain nothing.  Each evaluation of J reads
    all of x, some thousand rows at a time.  SciPy's L-BFGS-B computes in float64, whatever the
    backend computes in, and derives the next direction from the last ten iterations.  For callbacks
    and the history an iteration is an epoch.

    Ctrl-C ends it before the next evaluation, with `History.stopped` "interrupted".  However it
    ends, also by an error, the network holds the best θ of an iteration.

    Args:
        net: of precision "float64" or "float32".
        x: (m, n_0), finite.
        y: (m, n_L), or integer labels (m,) for classification.
        max_iter: the largest number of iterations.
        tol: it has converged if no entry of ∇J is larger, or if an iteration lowers J by at most
            2.2e-9 of its value, or tol² of its value if that is less.
        max_fun: no iteration begins after this number of evaluations.
        validation: (x_val, y_val) or (x_val, y_val, sample_weight_val), evaluated after each
            iteration.
        sample_weight: (m,), 0 or more: L is the weighted mean.
        class_weight: a weight for each class, as list or mapping, or "balanced".
        callbacks: their hooks get, as trainer, an object with `net`, `history`, `steps`, `epochs`,
            `stop` and `settings`; its `lr` is 0, since there is no learning rate.
            `on_step_end` and `on_epoch_end` are called after each iteration.
        metric: the metric of the validation data, as in `Trainer.fit`.

    Returns:
        History: cost, the J at the end of the iteration, val_cost and val_metric, and seconds;
            `stopped` is "converged"; "finished" if max_iter, max_fun or the precision of the
            arithmetic was exhausted; "early" if a callback ended it; or "interrupted".

    Raises:
        ValueError, TypeError: an argument is not as described; nothing was changed.
        FloatingPointError: J or ∇J is not finite at the start, or a prediction is not.
        ImportError: SciPy is not installed.

    Source:
        Byrd, Lu, Nocedal and Zhu (1995), "A limited memory algorithm for bound constrained
        optimization".
    """
    if arguments.network(net).precision not in ("float64", "float32"):
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
    hooks = checked(callbacks)
    with needs("fit_lbfgs needs SciPy", "sklearn"):
        from scipy.optimize import minimize
    net.backend.synchronize()
    data = Examples.checked(net, x, y, sample_weight, class_weight, rows=CHUNK)
    validated = Examples.of_validation(net, validation, rows=CHUNK)
    evaluations, _ = rules(net, data, validated, None, metric, False)
    settings = {"optimizer": "lbfgs", "max_iter": max_iter, "tol": tol, "max_fun": max_fun}
    run = Lbfgs(net, data, evaluations, hooks, settings)
    with alone(net):
        run.minimize(minimize, limits)
    return run.history


class Ended(Exception):  # noqa: N818  (an end, not an error)
    """Leaves SciPy's loop; its text is for `History.stopped`."""


class Lbfgs:
    """A minimisation: callbacks see it as a `Training`, whose steps and epochs are iterations."""

    lr, lr_factor, last_lr = 0.0, 1.0, 0.0

    def __init__(
        self, net: MLP, data: Examples, evaluations: dict[str, Evaluation],
        callbacks: Sequence[Callback], settings: dict[str, Any],
    ) -> None:  # fmt: skip
        self.net, self._data = net, data
        self._d = Parameters.zeros(net.backend, net.theta.layout, net.backend.storage)
        self._pass = Chunked(net, min(len(data.x), CHUNK), data.target, self._d)
        self._shares = data.shares(net.backend)
        self.history = History(name for name in columns(evaluations) if name != "lr")
        self.steps = self.epochs = 0
        self.stop = False
        self.settings, self._evaluations, self._callbacks = settings, evaluations, callbacks
        self._since = 0.0
        # J of the last iteration, of the last evaluation, and of the best iteration
        self._J = self._evaluated = self._least = math.inf

    def minimize(self, minimize: Any, limits: dict[str, Any]) -> None:
        """Minimise from the current θ, by `scipy.optimize.minimize`."""
        backend = self.net.backend
        try:
            if stops(self._callbacks, "on_fit_begin", self) or self.stop:  # which may assign to θ
                raise Ended("early")
            # θ of the last iteration, of the last evaluation, and of the best iteration
            self._theta = backend.to_host(self.net.theta.flat).astype(np.float64)
            self._tried = self._best = self._theta
            self._since = time.perf_counter()
            # `_evaluate` handles numbers that overflow, in place of NumPy's warnings
            with interruptible() as self._interrupt, np.errstate(over="ignore", invalid="ignore"):
                found = minimize(
                    self._evaluate, self._theta, jac=True, method="L-BFGS-B", options=limits,
                    callback=self._iterated,
                )  # fmt: skip
            self.history.stopped = "converged" if found.status == 0 else "finished"
        except Ended as ended:
            self.history.stopped = str(ended)
        finally:
            if self._since:
                self._assign(self._best)
            end(self._callbacks, self)

    def _objective(self) -> tuple[float, HostVector]:
        """J, and ∇J in θ's layout, its padding zero, in memory that does not grow with the data."""
        net, d, data = self.net, self._d, self._data
        total: HostVector = np.zeros(d.layout.size)
        for rows in self._pass(data.x, data.y, self._shares):
            if rows.stop == len(data.x):
                backprop.penalty(net, self._pass.J, d)
            total += net.backend.to_host(d.flat)
        return float(net.backend.to_host(self._pass.J)[0]), total

    def _evaluate(self, theta: HostVector) -> tuple[float, HostVector]:
        """J and ∇J at a θ of SciPy; if they are not finite, a slope that rises from the last θ."""
        if self._interrupt.requested:
            raise Ended("interrupted")
        self._assign(theta)
        J, gradient = self._objective()
        self._tried, self._evaluated = theta.copy(), J
        if math.isfinite(J) and bool(np.isfinite(gradient).all()):
            if math.isinf(self._J):  # the first evaluation
                self._J = self._least = J
            return J, gradient
        if math.isinf(self._J):
            what = f"J or its gradient is not finite where L-BFGS is to start (J is {J})"
            raise self._diverged(what)
        # the line search computes with the result, and infinity would make its next step NaN
        away, high = theta - self._theta, 1 + abs(self._J)
        return self._J + high, 2 * high / float(away @ away) * away

    def _iterated(self, theta: HostVector) -> None:
        """Record an iteration, at the θ that its line search evaluated last."""
        if not np.array_equal(theta, self._tried):
            self._evaluate(theta)
        self._theta, self._J = self._tried, self._evaluated
        if self._least >= self._J:
            self._best, self._least = self._theta, self._J
        self.steps += 1
        self.stop = stops(self._callbacks, "on_step_end", self) or self.stop
        row = {"cost": self._J} | row_of(self._evaluations, self._diverged)
        now = time.perf_counter()
        row["seconds"], self._since = now - self._since, now
        self.history.append(row)
        self.epochs += 1
        if stops(self._callbacks, "on_epoch_end", self, row) or self.stop:
            raise Ended("early")

    def _diverged(self, what: str) -> DivergenceError:
        advice = "scale x and y, or start from a network that is not trained yet"
        return DivergenceError(f"{what}; {advice}", what)

    def _assign(self, theta: HostVector) -> None:
        backend = self.net.backend
        backend.asarray(theta, out=self.net.theta.flat)
        backend.synchronize()
