"""scikit-learn: `partial_fit` on one minibatch, with its checks and its encoding of labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpumlp.bench.peers import Problem, Step, Unsupported, float_type, lookup
from gpumlp.io.types import HostArray


class SklearnStep(Step):
    """One step of MLPClassifier or MLPRegressor, which compute in the dtype of x."""

    def __init__(self, problem: Problem) -> None:
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        super().__init__()
        case = problem.case
        _check(problem)
        self.theta_type = float_type(case.precision)
        classifies = case.loss == "softmax_cross_entropy"
        # its squared error has a factor 1/2, and it is a sum over the outputs
        lr = case.lr if classifies else 2 * case.lr / case.widths[-1]
        kind = MLPClassifier if classifies else MLPRegressor
        self._peer: Any = kind(
            hidden_layer_sizes=case.widths[1:-1], activation=case.activation, solver="sgd",
            momentum=0.0, nesterovs_momentum=False, alpha=0.0, batch_size=case.batch_size,
            learning_rate_init=lr, shuffle=False, random_state=0,
        )  # fmt: skip
        self._x = problem.x.astype(self.theta_type)
        self._y = problem.y[:, 0] if problem.y.ndim == 2 and problem.y.shape[1] == 1 else problem.y
        known = {"classes": np.arange(case.widths[-1])} if classifies else {}
        self._peer.partial_fit(self._x, self._y, **known)
        views = dict(self.tensors())
        for name, value in problem.theta():
            views[name][...] = value

    def run(self) -> None:
        self._peer.partial_fit(self._x, self._y)

    def tensors(self) -> Iterator[tuple[str, HostArray]]:
        for k, (W, b) in enumerate(zip(self._peer.coefs_, self._peer.intercepts_, strict=True)):
            yield f"{2 * k}.weight", W.T
            yield f"{2 * k}.bias", b


def _check(problem: Problem) -> None:
    """Raise `Unsupported` if scikit-learn cannot do the case."""
    case = problem.case
    if problem.on_gpu:
        raise Unsupported("scikit-learn does not run on a GPU")
    available = {
        "precision": ("float64", "float32"), "activation": ("relu", "tanh"), "optimizer": ("sgd",),
    }  # fmt: skip
    for field, names in available.items():
        lookup("scikit-learn", field, getattr(case, field), dict.fromkeys(names))
    if case.loss == "softmax_cross_entropy" and case.widths[-1] < 3:
        raise Unsupported("scikit-learn does not have a softmax for two classes")
