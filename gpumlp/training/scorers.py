"""scikit-learn's scorers, applied to predictions that are already computed."""

from __future__ import annotations

import functools
import inspect
import math
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.errors import did_you_mean, needs
from gpumlp.functions import Loss
from gpumlp.io.types import HostArray

# `catch_warnings` restores the filters of the whole process: the threads of an ensemble take turns
_filters = threading.RLock()


@dataclass(frozen=True)
class Scorer:
    """score(y, p): one of scikit-learn's scorers, for a network's loss; larger is better.

    With a loss for classes, the scorer gets labels or probabilities of classes, as it asks.  With a
    loss for binary targets and several outputs, it gets multilabel data.  With other losses it gets
    values.  Targets that are probabilities count as the most likely class.

    Attributes:
        scorer: ``scorer(estimator, x, y, sample_weight=…)``.
        outputs: what gives standardised values, of targets and predictions, their unit back.
    """

    name: str
    loss: Loss
    scorer: Any
    outputs: Callable[[HostArray], HostArray] | None = None

    def __call__(self, y: HostArray, p: HostArray, weights: HostArray | None) -> float:
        """Return the score of what `MLP.predict` returned; NaN, with a warning, if undefined.

        A scorer without weights ignores those of the examples.
        """
        with _filters, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # undefined scores show as 0 or NaN
            try:
                return self._score(y, p, weights)
            except ValueError as error:
                reason = _first_sentence(error)
        warnings.warn(f"metric {self.name!r} is NaN: {reason}", RuntimeWarning, stacklevel=2)
        return math.nan

    def validate(self, y: HostArray, n: int, weights: HostArray | None, whose: str) -> None:
        """Raise ValueError where the score of these targets is undefined for any prediction.

        n is the number of outputs; `whose` names the data in the error, as in "validation".
        """
        reason = self._why_undefined(y, n, weights)
        if not reason:
            return
        similar = [scorer(name, self.loss) for name in names() if name.startswith(f"{self.name}_")]
        suitable = [one.name for one in similar if not one._why_undefined(y, n, weights)]
        raise ValueError(
            f"metric {self.name!r} does not go with {self.loss.name} and the {whose} data: "
            f"{reason}; pass {' or '.join(map(repr, suitable)) or 'another metric'}"
        )

    def _why_undefined(self, y: HostArray, n: int, weights: HostArray | None) -> str:
        """Return why the score of these targets is undefined; "" where it is defined."""
        p = np.roll(np.eye(n)[y] if y.ndim == 1 else y, 1, axis=0)  # the neighbours' targets
        if self.loss.target not in ("class", "binary"):
            p = p + 0.5  # scikit-learn would take whole numbers for labels
        with _filters, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                score = self._score(y, p, weights)
            except AttributeError:  # the scorer calls predict_proba, which a regressor lacks
                return "it needs the probabilities of classes"
            except ValueError as error:
                return _first_sentence(error)
        return _first_sentence(warned[-1].message) if warned and math.isnan(score) else ""

    def _score(self, y: HostArray, p: HostArray, weights: HostArray | None) -> float:
        classifier, regressor = _predicted_models()
        n, named = p.shape[1], {}
        y, p = y.copy(), p.copy()  # the scorer may write to them
        takes = inspect.signature(self.scorer._score_func).parameters
        if weights is not None and "sample_weight" in takes:
            named["sample_weight"] = weights
        if self.loss.target == "class":
            y = y if y.ndim == 1 else y.argmax(axis=1)
            p = p / p.sum(axis=1, keepdims=True)  # 16-bit probabilities add up to roughly 1
            model = classifier(p.argmax(axis=1), p, np.arange(n))
        elif self.loss.target == "binary" and n == 1:
            y, labels = (y[:, 0] >= 0.5).astype(int), (p[:, 0] >= 0.5).astype(int)
            model = classifier(labels, np.hstack([1 - p, p]), np.arange(2))
        elif self.loss.target == "binary":
            y = (y >= 0.5).astype(int)
            model = classifier((p >= 0.5).astype(int), p, [np.arange(2)] * n)
        else:
            if self.outputs is not None:
                y, p = self.outputs(y), self.outputs(p)
            y, p = (y[:, 0], p[:, 0]) if n == 1 else (y, p)
            model = regressor(p)
        return float(self.scorer(model, None, y, **named))


def scorer(name: str, loss: Loss) -> Scorer:
    """Return the `Scorer` of a name.

    Raises:
        ValueError: there is no scorer of this name; the message suggests a similar one.
        ImportError: scikit-learn is not installed.
    """
    with needs(f"for metric={name!r}", "sklearn"):
        from sklearn.metrics import get_scorer

        known = names()
    if name not in known:
        hint = did_you_mean(name, ["auto", *known])
        raise ValueError(
            f'unknown metric {name!r}; {hint}pass "auto" or one of '
            "sklearn.metrics.get_scorer_names()"
        )
    return Scorer(name, loss, get_scorer(name))


def names() -> list[str]:
    """Return the names of all scorers of scikit-learn."""
    from sklearn.metrics import get_scorer_names

    return list(get_scorer_names())


def _first_sentence(error: Any) -> str:
    """Return the first sentence of a message of scikit-learn."""
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".")


@functools.cache
def _predicted_models() -> tuple[Any, Any]:
    """Return the classes of a classifier and a regressor that return given predictions."""
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    class Predicted(BaseEstimator):  # type: ignore[misc]
        def __init__(self, predicted: Any, p: Any = None, classes: Any = None) -> None:
            self.predicted, self.p, self.classes_ = predicted, p, classes

        def predict(self, x: Any) -> Any:
            return self.predicted

    class Classifier(ClassifierMixin, Predicted):  # type: ignore[misc]
        def predict_proba(self, x: Any) -> Any:
            return self.p

    class Regressor(RegressorMixin, Predicted):  # type: ignore[misc]
        pass

    return Classifier, Regressor
