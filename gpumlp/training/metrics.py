"""The cost and metrics of validation or training data, without a training step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gpumlp import backprop
from gpumlp.functions import Loss
from gpumlp.io.chunks import chunks
from gpumlp.io.types import HostArray
from gpumlp.loader.examples import Examples
from gpumlp.network import CHUNK, MLP
from gpumlp.training.monitor import COSTS, UNRANKED
from gpumlp.training.scorers import Scorer, is_scorer, scorer
from gpumlp.workspace import Workspace

Metric = Callable[[HostArray, HostArray], float]
"""``metric(y, predict(x))`` on host arrays."""
Metrics = str | Metric | Sequence[str | Metric] | Mapping[str, str | Metric] | None
"""One or several: "auto", names of scikit-learn's scorers, or callables; see `Trainer.fit`."""
Measure = Callable[[HostArray, HostArray, HostArray | None], float]
"""measure(y, p, weights)."""


def accuracy(y: HostArray, p: HostArray, weights: HostArray | None = None) -> float:
    """Return the share of examples whose class is predicted right.

    Args:
        y: (m,) labels, or (m, n) probabilities, of which the largest counts.
        p: (m, n) predicted probabilities, of which the largest counts.
        weights: (m,) weights of the examples, or None.
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
    """R² = 1 − residual / total, the mean over the columns.

    In a column where all y are equal, it is 1 if all predictions are exact, else 0.

    Args:
        residual: (n,) the sum or mean of (y − p)² of each column.
        total: (n,) the sum or mean of (y − ȳ)² of each column.
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
    named: list[tuple[Any, Any]]
    if isinstance(metric, Mapping):
        named = list(metric.items())
    elif isinstance(metric, (list, tuple)):
        named = [(_column(one), one) for one in metric]
    else:
        named = [("metric", metric)]
    twice = [name for name, n in Counter(name for name, _ in named).items() if n > 1]
    if twice:
        raise ValueError(f"metric has {twice[0]!r} twice; pass a dict with a name for each")
    for name, _ in named:
        if not isinstance(name, str) or not name or name.startswith("val_"):
            raise ValueError(
                f"metric has the name {name!r}; pass a string that does not begin with val_"
            )
        if name in (*COSTS, *UNRANKED):
            raise ValueError(f"metric has the name {name!r}, which another column has; rename it")
    return {name: _measure(loss, one) for name, one in named}


def _column(metric: Any) -> str:
    """Return the column of one of several metrics."""
    if isinstance(metric, str):
        return "metric" if metric == "auto" else metric
    name = getattr(getattr(metric, "_score_func", metric), "__name__", "<lambda>")
    if callable(metric) and name == "<lambda>":
        raise ValueError("metric has a function without a name; pass a dict, name → function")
    return str(name)


def _measure(loss: Loss, metric: Any) -> Measure:
    if metric == "auto":
        return usual_metric(loss)
    if isinstance(metric, str) or is_scorer(metric):
        return scorer(metric, loss)
    if not callable(metric):
        raise ValueError(
            'metric must be "auto", None, the name of a scorer of scikit-learn, metric(y, p), or a '
            f"list or dict of these, got {metric!r}"
        )
    return lambda y, p, weights: float(metric(y, p))


class Evaluation:
    """J and metrics of examples in the backend or on the host; buffers are allocated once.

    Args:
        metric: as in `Trainer.fit`.  "auto" and scikit-learn's scorers weight the examples as the
            cost does; the caller's own functions do not.
    """

    def __init__(self, net: MLP, data: Examples, metric: Metrics) -> None:
        backend, m = net.backend, len(data.x)
        self._net, self._data = net, data
        self._s = Workspace(net, min(m, CHUNK), gradients=False)
        self._s.resize(m % self._s.rows or self._s.rows)  # the last chunk's weights, too, are there
        share = np.full(m, 1 / m) if data.weights is None else data.weights / data.weights.sum()
        self._share = backend.asarray(share)
        taken = backend.accepts(data.y, data.target)  # else a chunk's, one after the other
        self._chunk = (
            None if taken else backend.empty((self._s.rows, *data.y.shape[1:]), data.target)
        )
        self._measures = measures(net.loss, metric)
        if self._measures:
            self._y_hat = np.empty((m, net.widths[-1]), backend.dtype)
            y = data.y if isinstance(data.y, np.ndarray) else backend.to_host(data.y)
            self._y = y.astype(data.target, copy=False)

    @property
    def columns(self) -> list[str]:
        """The names in the result of `measure`."""
        return ["cost", *self._measures]

    def validate(self, whose: str) -> None:
        """Raise ValueError if a scorer has no score for these targets, whatever is predicted."""
        for measure in self._measures.values():
            if isinstance(measure, Scorer):
                measure.validate(self._y, self._net.widths[-1], self._data.weights, whose)

    def measure(self) -> dict[str, float]:
        """J = L + λΩ(θ) as "cost", and the metrics by their names."""
        net, s, data = self._net, self._s, self._data
        backend = net.backend
        backend.asarray(np.zeros(1), dtype="float64", out=s.J)
        for rows in chunks(data.x, data.y, rows=s.rows):
            s.resize(rows.stop - rows.start)
            backend.asarray(data.x[rows], out=s.h[0])
            s.y = data.y[rows]
            if self._chunk is not None:
                s.y = backend.asarray(s.y, out=self._chunk[: len(s.y)])
            s.weights = self._share[rows]
            y_hat = backprop.forward(net, s)
            backprop.loss(net, s)
            if self._measures:
                self._y_hat[rows] = backend.to_host(y_hat)
        measured = {"cost": float(backend.to_host(s.J)[0]) + net.penalty()}
        if self._measures:
            link = net.loss.link
            p = link.f(self._y_hat, **link.params)
            for name, of in self._measures.items():
                measured[name] = of(self._y, p, data.weights)
        return measured


def evaluations(
    net: MLP, data: Examples, validated: Examples | None, metric: Metrics, train_metric: bool
) -> dict[str, Evaluation]:
    """The evaluations after each epoch, by the prefix of their columns."""
    found = measures(net.loss, metric)  # which checks `metric` even if nothing is evaluated
    if train_metric and not found:
        raise ValueError('train_metric needs a metric; pass metric="auto"')
    parts = {"": data if train_metric else None, "val_": validated}
    return {
        prefix: Evaluation(net, part, metric) for prefix, part in parts.items() if part is not None
    }


def columns(measured: Mapping[str, Evaluation]) -> list[str]:
    """The columns of the history."""
    names = [f"{prefix}{name}" for prefix, e in measured.items() for name in e.columns]
    return list(dict.fromkeys(["cost", *names, "lr", "seconds"]))  # "cost" may occur twice
