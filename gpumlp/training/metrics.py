"""The cost and metrics of validation or training data, without a training step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp.distributed.world import ALONE, World
from gpumlp.errors import is_one_of
from gpumlp.functions import Loss
from gpumlp.io.types import HostArray
from gpumlp.loader.examples import Examples
from gpumlp.network import CHUNK, MLP
from gpumlp.step.chunked import Chunked
from gpumlp.training import together
from gpumlp.training.monitor import COSTS, UNRANKED
from gpumlp.training.scorers import Scorer, scorer

Metric = Callable[[HostArray, HostArray], float]
"""``metric(y, predict(x))`` on host arrays."""
Metrics = str | Metric | Sequence[str | Metric] | Mapping[str, str | Metric] | None
"""One or several: "auto", names of scikit-learn's scorers, or callables; see `Trainer.fit`."""
Measure = Callable[[HostArray, HostArray, HostArray | None], float]
"""measure(y, p, weights)."""


def accuracy(y: HostArray, p: HostArray, weights: HostArray | None = None) -> float:
    """Return the share of examples whose class is predicted right.

    y are labels (m,) or probabilities (m, n); of those, and of p (m, n), the largest counts.
    """
    labels = y if y.ndim == 1 else y.argmax(axis=1)
    return float(np.average(labels == p.argmax(axis=1), weights=weights))


def binary_accuracy(y: HostArray, p: HostArray, weights: HostArray | None = None) -> float:
    """Return the share of entries of p (m, n) on the same side of 1/2 as those of y (m, n)."""
    right = (y >= 0.5) == (p >= 0.5)
    return float(np.average(right.mean(axis=1), weights=weights))


def r2(y: HostArray, p: HostArray, weights: HostArray | None = None) -> float:
    """R² = 1 − Σ(y − p)² / Σ(y − ȳ)², the mean over the columns of y and p (m, n)."""
    y, p = y.astype(np.float64), p.astype(np.float64)
    mean = np.average(y, axis=0, weights=weights)
    residual = np.average(np.square(y - p), axis=0, weights=weights)
    total = np.average(np.square(y - mean), axis=0, weights=weights)
    return r2_of_sums(residual, total)


def r2_of_sums(residual: HostArray, total: HostArray) -> float:
    """R² from the sums or means of (y − p)² and of (y − ȳ)² of each column, (n,).

    In a column where all y are equal, it is 1 if all predictions are exact, else 0.
    """
    constant = np.where(residual == 0, 1.0, 0.0)
    share = residual / np.where(total > 0, total, 1)
    return float(np.where(total > 0, 1 - share, constant).mean())


def usual_metric(loss: Loss) -> Callable[..., float]:
    """Return the metric that "auto" stands for."""
    return {"class": accuracy, "binary": binary_accuracy}.get(loss.target, r2)


def measures(loss: Loss, metric: Metrics) -> dict[str, Measure]:
    """Return the function of each metric, by its column of the history.

    Raises:
        ValueError: a metric is unknown, has no valid name, or is there twice.
        ImportError: a metric needs scikit-learn, which is not installed.
    """
    if metric is None:
        return {}
    named: dict[Any, Any] = {"metric": metric}
    if isinstance(metric, Mapping):
        named = dict(metric)
    elif isinstance(metric, (list, tuple)):
        named = {}
        for one in metric:
            name = _column(one)
            if name in named:
                raise ValueError(f"metric has {name!r} twice; pass a dict with a name for each")
            named[name] = one
    for name in named:
        if not isinstance(name, str) or not name or name.startswith("val_"):
            raise ValueError(
                f"metric has the name {name!r}; pass a string that does not begin with val_"
            )
        if name in (*COSTS, *UNRANKED):
            raise ValueError(f"metric has the name {name!r}, which another column has; rename it")
    return {name: _measure(loss, one) for name, one in named.items()}


def _column(metric: Any) -> str:
    """Return the column of one of several metrics."""
    if isinstance(metric, str):
        return "metric" if metric == "auto" else metric
    name = getattr(getattr(metric, "_score_func", metric), "__name__", "<lambda>")
    if callable(metric) and name == "<lambda>":
        raise ValueError("metric has a function without a name; pass a dict, name → function")
    return str(name)


def _measure(loss: Loss, metric: Any) -> Measure:
    if is_one_of(metric, ("auto",)):
        return usual_metric(loss)
    if isinstance(metric, str):
        return scorer(metric, loss)
    if isinstance(metric, Scorer):
        return metric
    if hasattr(metric, "_score_func"):  # scikit-learn's `make_scorer` made it
        return Scorer(str(metric), loss, metric)
    if not callable(metric):
        raise ValueError(
            'metric must be "auto", None, the name of a scorer of scikit-learn, metric(y, p), or a '
            f"list or dict of these, got {metric!r}"
        )
    return partial(_own, metric)


def _own(metric: Callable[..., Any], y: Any, p: Any, weights: Any) -> float:
    """The value of the caller's own function, which may write to its arguments."""
    value = metric(y.copy(), p.copy())
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"metric must return a number, got {value!r} of {metric!r}") from error


class Evaluation:
    """J and metrics of examples in the backend or on the host; buffers are allocated once.

    Args:
        whose: names the data in errors.
        world: the processes, each of which computes some chunks.
        metric: as in `Trainer.fit`.  "auto" and scikit-learn's scorers weight the examples as the
            cost does; the caller's own functions do not.
    """

    def __init__(
        self, net: MLP, data: Examples, metric: Metrics, whose: str, world: World = ALONE
    ) -> None:
        backend, m = net.backend, len(data.x)
        self._whose, self._world = whose, world
        self._net, self._data = net, data
        self._pass = Chunked(net, min(m, CHUNK), data.target)
        self._shares = data.shares(backend)
        self._measures = measures(net.loss, metric)
        self.columns = ["cost", *self._measures]  # the names in the result of `measure`
        if self._measures:
            self._y_hat = np.empty((m, net.widths[-1]), backend.dtype)
            given = data.y if data.labelled is None else data.labelled
            y = given if isinstance(given, np.ndarray) else backend.to_host(given)
            self._y = y.astype(np.int32 if y.ndim == 1 else backend.dtype, copy=False)

    def validate(self) -> None:
        """Raise ValueError if a scorer has no score for these targets, whatever is predicted."""
        for measure in self._measures.values():
            if isinstance(measure, Scorer):
                measure.validate(self._y, self._net.widths[-1], self._data.weights, self._whose)

    def _cost(self) -> float:
        """L of the examples, and their ŷ where a metric reads it."""
        backend, data = self._net.backend, self._data
        if self._world.size > 1:
            return self._shared_cost()
        for rows in self._pass(data.x, data.y, self._shares):
            if self._measures:
                self._y_hat[rows] = backend.to_host(self._pass.s.h[-1])
        return float(backend.to_host(self._pass.J)[0])

    def _shared_cost(self) -> float:
        """`_cost` of several processes, from the chunks of a single one, so that bits are its."""
        backend, data, world, m = self._net.backend, self._data, self._world, len(self._data.x)
        starts = range(0, m, self._pass.rows)
        cuts = [len(starts) * r // world.size for r in range(world.size + 1)]
        costs = np.zeros(len(starts))
        for i in range(*cuts[world.rank : world.rank + 2]):
            rows = slice(starts[i], min(starts[i] + self._pass.rows, m))
            shares = None if self._shares is None else self._shares[rows]
            for _ in self._pass(data.x[rows], data.y[rows], shares, m):
                if self._measures:
                    self._y_hat[rows] = backend.to_host(self._pass.s.h[-1])
            costs[i] = backend.to_host(self._pass.J)[0]
        world.gather(costs, tuple(b - a for a, b in pairwise(cuts)))
        if self._measures:
            ends = [min(cut * self._pass.rows, m) * self._y_hat.shape[1] for cut in cuts]
            world.gather(self._y_hat.reshape(-1), tuple(b - a for a, b in pairwise(ends)))
        return float(np.add.accumulate(costs)[-1])

    def measure(self, error: Callable[[str], Exception]) -> dict[str, float]:
        """J = L + λΩ(θ) as "cost", and the metrics by their names.

        Raises error(what) if J is NaN or a prediction is not finite, before a metric reads it.
        """
        net, data = self._net, self._data
        measured = {"cost": self._cost() + net.penalty()}
        if math.isnan(measured["cost"]):
            raise error(f"the cost of the {self._whose} data is NaN")
        if self._measures:
            link = net.loss.link
            # in float32 σ(z) is 1 from z = 17 on; accuracy of classes reads the largest p alone
            others = any(of is not accuracy for of in self._measures.values())
            exact = others and net.loss.target in ("binary", "class")
            p = link.f(self._y_hat.astype(float) if exact else self._y_hat, **link.params)
            if not (np.isfinite(self._y_hat).all() and np.isfinite(p).all()):
                raise error(f"a prediction for the {self._whose} data is not finite")
            # on rank 0, since a function of the caller's may use random numbers
            measured |= together.on_first(self._world, lambda: {
                name: of(self._y, p, data.weights) for name, of in self._measures.items()
            })  # fmt: skip
        return measured


def evaluations(
    net: MLP, data: Examples, validated: Examples | None, metric: Metrics, train_metric: bool,
    world: World = ALONE,
) -> dict[str, Evaluation]:  # fmt: skip
    """The evaluations after each epoch, by the prefix of their columns."""
    checks.boolean(train_metric, "train_metric")
    found = measures(net.loss, metric)  # which checks `metric` even if nothing is evaluated
    if train_metric and not found:
        raise ValueError('train_metric needs a metric; pass metric="auto"')
    parts = {"": data if train_metric else None, "val_": validated}
    return {
        prefix: Evaluation(net, part, metric, "validation" if prefix else "training", world)
        for prefix, part in parts.items()
        if part is not None
    }


def row_of(
    evaluations: Mapping[str, Evaluation], error: Callable[[str], Exception]
) -> dict[str, float]:  # fmt: skip
    """What all of them measure, by its column of the history; error: see `Evaluation.measure`."""
    return {
        f"{prefix}{name}": value
        for prefix, each in evaluations.items()
        for name, value in each.measure(error).items()
    }


def columns(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """The columns of the history."""
    names = [f"{prefix}{name}" for prefix, e in evaluations.items() for name in e.columns]
    return list(dict.fromkeys(["cost", *names, "lr", "seconds"]))  # "cost" may occur twice
