"""A model's cost and metrics on data of any size, added up chunk by chunk."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.data import Dataset, Preparation
from gpumlp.io.types import HostArray
from gpumlp.network import MLP
from gpumlp.training.metrics import r2_of_sums


class Measures:
    """The cost, and the accuracy, or R² and the errors in the target's unit.

    Args:
        net: the network.
        preparation: the preparation of the network's data.

    Attributes:
        name: the name of the data.
        examples: the number of examples so far.
    """

    def __init__(self, net: MLP, preparation: Preparation) -> None:
        self._net, self._preparation = net, preparation
        self.name, self.examples = "", 0
        self._cost = self._right = 0.0
        # the mean of y, and sums over the examples, for each output
        self._mean: Any = np.zeros(1)
        self._total = self._residual = self._absolute = self._mean

    def add(self, part: Dataset) -> HostArray:
        """Add these examples.  Returns their predictions, as `Preparation.outputs` gives them."""
        x, y = self._preparation.inputs(part.x[:]), self._preparation.targets(part.y)
        self.name, k = part.name, len(part)
        J, p = self._net.cost_and_prediction(x, y)
        self._cost += k * (J - self._net.penalty())
        p = self._preparation.outputs(p)
        if part.classes:
            self._right += float((p.argmax(axis=1) == part.y).sum())
        else:
            self._values(part.y.reshape(k, -1), p)
        self.examples += k
        return p

    def __repr__(self) -> str:
        known = self._preparation
        what = f"{len(known.classes)} classes" if known.classes else "real target"
        return (
            f"{self.name}: {self.examples:,} examples, {len(known.features)} features, "
            f"{known.task}, {what}"
        )

    def cost(self) -> float:
        """J = L + λΩ(θ)."""
        return self._cost / self.examples + self._net.penalty()

    def metrics(self) -> dict[str, float]:
        """The value of each metric."""
        if self._preparation.classes:
            return {"accuracy": self._right / self.examples}
        return {
            "R²": r2_of_sums(self._residual, self._total),
            "RMSE": float(np.sqrt(self._residual.mean() / self.examples)),
            "MAE": float(self._absolute.mean() / self.examples),
        }

    def _values(self, y: HostArray, p: HostArray) -> None:
        """Add the sums of a chunk to those so far (Chan, Golub and LeVeque, 1983)."""
        m, k = self.examples, len(y)
        mean = y.mean(axis=0)
        gap = mean - self._mean
        self._total = self._total + np.square(y - mean).sum(axis=0) + gap**2 * (m * k / (m + k))
        self._mean = self._mean + gap * (k / (m + k))
        self._residual = self._residual + np.square(y - p).sum(axis=0)
        self._absolute = self._absolute + np.abs(y - p).sum(axis=0)
