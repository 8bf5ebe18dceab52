"""MLPRegressor: one or more values an example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import column_or_1d

from gpumlp.backends import Backend
from gpumlp.estimators.base import BaseMLP
from gpumlp.estimators.settings import goes_on, stored
from gpumlp.functions import (
    LOSSES,
    Activation,
    Initializer,
    Loss,
    Optimizer,
    Regularizer,
    Schedule,
)  # fmt: skip
from gpumlp.functions.entry import lookup
from gpumlp.io.types import HostArray
from gpumlp.training import Callback


class MLPRegressor(RegressorMixin, BaseMLP):  # type: ignore[misc]
    """A multilayer perceptron that predicts one or more values.

    Parameters and attributes are `MLPClassifier`'s, but for the classes, and:

    Args:
        loss: a name or an entry of `gpumlp.LOSSES`, such as "huber", "poisson" or
            ``gpumlp.LOSSES["quantile"].set(q=0.9)``.  "squared_error" is ½(ŷ − y)² here, as
            scikit-learn's, and every loss the sum over the outputs.
        output_activation: of the last layer; "auto": none.  "softplus" keeps predictions positive.
        scoring: as there; None for R².

    Examples:
        >>> from sklearn.datasets import load_diabetes
        >>> X, y = load_diabetes(return_X_y=True)
        >>> e = MLPRegressor("huber", (32, 32), solver="lbfgs", max_iter=20, random_state=0)
        >>> e.fit(10 * X, y / 100).score(10 * X, y / 100) > 0.5
        True
    """

    _numeric = True

    def __init__(
        self,
        loss: str | Loss = "squared_error",
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str | Activation | Sequence[str | Activation] = "relu",
        *,
        solver: str | Optimizer = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str | Schedule = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        output_activation: str | Activation = "auto",
        regularizer: str | Regularizer | None = None,
        initializer: str | Initializer | None = "fan_in",
        clip_norm: float | None = None,
        scoring: str | Callable[..., float] | None = None,
        callbacks: Sequence[Callback] | None = None,
        backend: str | Backend = "auto",
        precision: str = "float32",
    ) -> None:
        stored(self, locals())

    @available_if(goes_on)  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, X_val: Any = None, y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:  # fmt: skip
        """One epoch on these examples; early stopping works as in `MLPClassifier.partial_fit`."""
        return self._partial_fit((X, y, sample_weight), (X_val, y_val, sample_weight_val))

    def _learn(self, y: HostArray, classes: Any) -> None:
        self._columns = 0 if y.ndim == 1 or y.shape[1] == 1 else y.shape[1]

    def _targets(self, y: Any) -> tuple[HostArray, HostArray]:
        if y.ndim == 2 and y.shape[1] == 1 and not self._columns:
            y = column_or_1d(y, warn=True)
        return y, y

    def _entry(self) -> Loss:
        loss: Loss = lookup(LOSSES, "loss", self.loss)
        if loss.target == "class":
            raise ValueError(f"{loss.name} is a loss of classes; use MLPClassifier, or another")
        return loss

    def _units(self, loss: Loss) -> int:
        return self._columns or 1

    def _decided(self, p: HostArray) -> HostArray:
        return p if self._columns else p[:, 0]

    def _measure(self, y: HostArray, p: HostArray, weights: HostArray | None) -> float:
        """R²."""
        return float(r2_score(y, self._decided(p), sample_weight=weights))
