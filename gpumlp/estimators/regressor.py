"""MLPRegressor: one or more values per example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import column_or_1d

from gpumlp import checks
from gpumlp.arrays import as_kind_of
from gpumlp.estimators import several
from gpumlp.estimators.base import BaseMLP
from gpumlp.estimators.settings import has_partial_fit
from gpumlp.functions import LOSSES, Activation, Loss
from gpumlp.functions.entry import lookup
from gpumlp.io.types import HostArray


@dataclass(eq=False, repr=False)
class MLPRegressor(RegressorMixin, BaseMLP):  # type: ignore[misc]
    """A multilayer perceptron that predicts one or more values.

    Parameters and attributes are those of `MLPClassifier`, without those about classes, and:

    Args:
        loss: a name or an entry of `gpumlp.LOSSES`, such as "huber", "poisson" or
            ``gpumlp.LOSSES["quantile"].set(q=0.9)``.  "squared_error" is ½(ŷ − y)² here, as in
            scikit-learn, and "poisson" is half the deviance.  Steps follow the sum over the
            outputs; loss_ shows their mean or, of "poisson", the sum.
        output_activation: activation of the last layer; "auto" is the identity.  With "softplus",
            predictions are positive.
        scoring: as in `MLPClassifier`, but None is R².

    Examples:
        >>> from sklearn.datasets import load_diabetes
        >>> X, y = load_diabetes(return_X_y=True)
        >>> e = MLPRegressor("huber", (32, 32), solver="lbfgs", max_iter=20, random_state=0)
        >>> e.fit(10 * X, y / 100).score(10 * X, y / 100) > 0.5
        True
    """

    loss: str | Loss = "squared_error"
    hidden_layer_sizes: int | Sequence[int] = (100,)
    activation: str | Activation | Sequence[str | Activation] = "relu"

    _usual_score = staticmethod(r2_score)
    score = BaseMLP.score

    @available_if(has_partial_fit)  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, X_val: Any = None, y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:  # fmt: skip
        """Train for one epoch on these examples, as `MLPClassifier.partial_fit` does."""
        return self._fit((X, y, sample_weight), (X_val, y_val, sample_weight_val), incremental=True)

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Return ŷ of X (m, n_0), as the same kind of array as X if that kind can hold it.

        With return_std also the standard deviation of the models' predictions, of n_models above 1:
        large where they disagree, but not of the noise in y.

        ValueError: X, or an output of a network for X, is not finite; or there is a single model.
        """
        if not checks.boolean(return_std, "return_std"):
            return super().predict(X)
        each = self._each_predicted(X)
        if not hasattr(self, "models_"):
            raise ValueError("return_std needs several models; pass n_models=8, and fit them")
        spread = np.std(each, axis=0, dtype=np.float64)
        return tuple(as_kind_of(self._decide(p), X) for p in (several.mean(each), spread))

    def _inspect_targets(self, y: HostArray, classes: Any) -> None:
        self._columns = 0 if y.ndim == 1 or y.shape[1] == 1 else y.shape[1]

    def _encode_targets(self, y: Any) -> tuple[HostArray, HostArray]:
        y = y.toarray() if sp.issparse(y) else y
        if y.ndim == 2 and y.shape[1] == 1 and not self._columns:
            y = column_or_1d(y, warn=True)
        return y, y

    def _loss_entry(self) -> Loss:
        loss: Loss = lookup(LOSSES, "loss", self.loss)
        if loss.target == "class":
            raise ValueError(
                f"loss {loss.name!r} does not support regression; use MLPClassifier, or pass "
                'another loss, such as loss="squared_error"'
            )
        return loss

    def _output_width(self, loss: Loss) -> int:
        return self._columns or 1

    def _decide(self, p: HostArray) -> HostArray:
        return p if self._columns else p[:, 0]
