"""The cost and a metric of data that is only looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp import backprop
from gpumlp.functions import Loss
from gpumlp.network import CHUNK, MLP
from gpumlp.training.batches import Examples
from gpumlp.workspace import Workspace

HostArray = npt.NDArray[Any]
Metric = Callable[[HostArray, HostArray], float]
"""``metric(y, predict(x))`` on host arrays."""


def accuracy(y: HostArray, p: HostArray, weights: HostArray | None = None) -> float:
    """The share of right answers.

    y: labels (m,) or rows of probabilities (m, n), of which the largest counts, against p (m, n).
    weights: (m,).
    """
    labels = y if y.ndim == 1 else y.argmax(axis=1)
    return float(np.average(labels == p.argmax(axis=1), weights=weights))


def binary_accuracy(y: HostArray, p: HostArray, weights: HostArray | None = None) -> float:
    """The share of entries of p (m, n) on y's side of 1/2, where y (m, n) is from 0 to 1."""
    right = (y >= 0.5) == (p >= 0.5)
    return float(np.average(right.mean(axis=1), weights=weights))


def r2(y: HostArray, p: HostArray, weights: HostArray | None = None) -> float:
    """R² = 1 − Σ(y − p)² / Σ(y − ȳ)², the mean over the columns of y and p (m, n).

    A column of equal values has 1 where p is exact, else 0.
    """
    y, p = y.astype(np.float64), p.astype(np.float64)
    mean = np.average(y, axis=0, weights=weights)
    residual = np.average(np.square(y - p), axis=0, weights=weights)
    total = np.average(np.square(y - mean), axis=0, weights=weights)
    flat = np.where(residual == 0, 1.0, 0.0)
    return float(np.where(total > 0, 1 - residual / np.where(total > 0, total, 1), flat).mean())


def usual_metric(loss: Loss) -> Callable[..., float]:
    """The metric "auto" of a loss."""
    return {"class": accuracy, "binary": binary_accuracy}.get(loss.target, r2)


class Evaluation:
    """J and a metric of examples, in the room or on the host; buffers are allocated once.

    Args:
        metric: "auto", None, or ``metric(y, predict(x))``, which gets host arrays.  The automatic
            ones are weighted as the cost is, a callable of the caller's own is not.
    """

    def __init__(self, net: MLP, data: Examples, metric: str | Metric | None) -> None:
        room, m = net.backend, len(data.x)
        self._net, self._data = net, data
        self._s = Workspace(net, min(m, CHUNK), gradients=False)
        self._s.resize(m % self._s.rows or self._s.rows)  # the last chunk's weights, too, are there
        share = np.full(m, 1 / m) if data.weights is None else data.weights / data.weights.sum()
        self._share = room.asarray(share)
        self._metric: Callable[[HostArray], float] | None = None
        if metric is not None:
            self._y_hat = np.empty((m, net.widths[-1]), room.dtype)
            y = data.y if isinstance(data.y, np.ndarray) else room.to_host(data.y)
            y = y.astype(data.target, copy=False)
            if callable(metric):
                self._metric = lambda p: float(metric(y, p))
            else:
                usual = usual_metric(net.loss)
                self._metric = lambda p: usual(y, p, data.weights)

    @property
    def columns(self) -> list[str]:
        """What `measure` gives."""
        return ["cost", "metric"] if self._metric else ["cost"]

    def measure(self) -> dict[str, float]:
        """J = L + λΩ(θ) as "cost", and "metric" where there is one."""
        net, s, data = self._net, self._s, self._data
        room, m = net.backend, len(data.x)
        room.asarray(np.zeros(1), dtype="float64", out=s.J)
        for start in range(0, m, s.rows):
            rows = slice(start, min(start + s.rows, m))
            s.resize(rows.stop - start)
            room.asarray(data.x[rows], out=s.h[0])
            y = data.y[rows]
            s.y = y if room.takes(y, data.target) else room.asarray(y, dtype=data.target)
            s.weights = self._share[rows]
            y_hat = backprop.forward(net, s)
            backprop.loss(net, s)
            if self._metric:
                self._y_hat[rows] = room.to_host(y_hat)
        measured = {"cost": float(room.to_host(s.J)[0]) + net.penalty()}
        if self._metric:
            link = net.loss.link
            measured["metric"] = self._metric(link.f(self._y_hat, **link.params))
        return measured


def evaluations(
    net: MLP, data: Examples, held: Examples | None, metric: str | Metric | None, train_metric: bool
) -> dict[str, Evaluation]:
    """What is measured after each epoch, by the prefix of its columns."""
    if not (metric is None or metric == "auto" or callable(metric)):
        raise ValueError(f'metric must be "auto", None or metric(y, p), got {metric!r}')
    if train_metric and metric is None:
        raise ValueError('train_metric needs a metric; pass metric="auto"')
    parts = {"": data if train_metric else None, "val_": held}
    return {
        prefix: Evaluation(net, part, metric) for prefix, part in parts.items() if part is not None
    }


def columns(found: Mapping[str, Evaluation]) -> list[str]:
    """The columns of the history."""
    measured = [f"{prefix}{name}" for prefix, e in found.items() for name in e.columns]
    return list(dict.fromkeys(["cost", *measured, "lr", "seconds"]))  # "cost" can be there twice
