"""scikit-learn: `partial_fit` on one minibatch, its checks and label encoding included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpumlp.bench.peers import Plain, Problem, Unsupported, float_type
from gpumlp.io.types import HostArray


class SklearnStep(Plain):
    """One minibatch through MLPClassifier or MLPRegressor, which compute in x's dtype."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.theta_type = float_type(problem.case.precision)
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        case = problem.case
        _check(problem)
        classifies = case.loss == "softmax_cross_entropy"
        # its squared error has a factor 1/2 that ours has not
        lr = case.lr if classifies else 2 * case.lr / case.widths[-1]
        kind = MLPClassifier if classifies else MLPRegressor
        self._peer: Any = kind(
            hidden_layer_sizes=case.widths[1:-1], activation=case.activation, solver="sgd",
            momentum=0.0, nesterovs_momentum=False, alpha=0.0, batch_size=case.batch_size,
            learning_rate_init=lr, shuffle=False, random_state=0,
        )  # fmt: skip
        self._x = problem.x.astype(self.theta_type)
        self._y = problem.y[:, 0] if problem.y.ndim == 2 and problem.y.shape[1] == 1 else problem.y
        if classifies:
            classes = np.arange(case.widths[-1])
            self._peer.partial_fit(self._x, self._y, classes=classes)
        else:
            self._peer.partial_fit(self._x, self._y)
        for name, value in problem.theta():
            self._tensor(name)[...] = value.T

    def _tensor(self, name: str) -> HostArray:
        """scikit-learn's array, weights transposed, of torch's name "4.weight"."""
        position, kind = name.split(".")
        arrays = self._peer.coefs_ if kind == "weight" else self._peer.intercepts_
        tensor: HostArray = arrays[int(position) // 2]
        return tensor

    def run(self) -> None:
        """One step."""
        self._peer.partial_fit(self._x, self._y)

    def tensors(self) -> Iterator[tuple[str, HostArray]]:
        """θ by torch's names and in its shapes."""
        for i in range(len(self._peer.coefs_)):
            for kind in ("weight", "bias"):
                name = f"{2 * i}.{kind}"
                yield name, np.ascontiguousarray(self._tensor(name).T)


def step(problem: Problem) -> SklearnStep:
    """scikit-learn."""
    return SklearnStep(problem)


def _check(problem: Problem) -> None:
    """Raise for what scikit-learn has not."""
    case = problem.case
    if problem.on_gpu:
        raise Unsupported("it has no GPU")
    if case.precision not in ("float64", "float32"):
        raise Unsupported(f"it has no {case.precision}")
    if case.activation not in ("relu", "tanh"):
        raise Unsupported(f"it has no {case.activation}")
    if case.optimizer != "sgd":
        raise Unsupported(f"it has no {case.optimizer}")
    if case.loss == "softmax_cross_entropy" and case.widths[-1] < 3:
        raise Unsupported("it has no softmax over two classes")
