"""scikit-learn's scorers, for predictions that are already computed."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.functions import Loss
from gpumlp.io.types import HostArray


@dataclass(frozen=True)
class Scorer:
    """score(y, p): one of scikit-learn's scorers, for a network's loss; higher is better.

    With a loss for classes it scores labels or the classes' probabilities, as the scorer asks.
    Binary targets with several outputs are scored as multilabel, all others as values.  Targets
    that are probabilities count as the more probable class.

    Attributes:
        name: its name in errors.
        loss: the loss of the network.
        scorer: ``scorer(estimator, x, y, sample_weight=…)``.
    """

    name: str
    loss: Loss
    scorer: Any

    def __call__(self, y: HostArray, p: HostArray, weights: HostArray | None) -> float:
        """The score of p = predict(x), (m, n); NaN, with a warning, if it is undefined.

        y: as in `Trainer.fit`; weights: (m,), which scorers without weights ignore.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # undefined scores are 0 or NaN
            try:
                return self._score(y, p, weights)
            except ValueError as error:
                reason = _sentence(error)
        warnings.warn(f"metric {self.name!r} is NaN: {reason}", RuntimeWarning, stacklevel=2)
        return math.nan

    def validate(self, y: HostArray, n: int, weights: HostArray | None, whose: str) -> None:
        """Raise ValueError if these targets have no score, whatever is predicted for them."""
        reason = self._problem(y, n, weights)
        if not reason:
            return
        similar = [
            _by_name(name, self.loss) for name in names() if name.startswith(f"{self.name}_")
        ]
        fit = [one.name for one in similar if not one._problem(y, n, weights)]
        raise ValueError(
            f"metric {self.name!r} does not go with {self.loss.name} and the {whose} data: "
            f"{reason}; pass {' or '.join(map(repr, fit)) or 'another metric'}"
        )

    def _problem(self, y: HostArray, n: int, weights: HostArray | None) -> str:
        """The reason why these targets have no score; "" if they have one."""
        p = np.roll(np.eye(n)[y] if y.ndim == 1 else y, 1, axis=0)  # each row's neighbour as p
        if self.loss.target not in ("class", "binary"):
            p = p + 0.5  # whole numbers would count as labels
        with warnings.catch_warnings(record=True) as messages:
            warnings.simplefilter("always")
            try:
                score = self._score(y, p, weights)
            except AttributeError:  # the regressor below has no predict_proba
                return "it needs the probabilities of classes"
            except ValueError as error:
                return _sentence(error)
        return _sentence(messages[-1].message) if messages and math.isnan(score) else ""

    def _score(self, y: HostArray, p: HostArray, weights: HostArray | None) -> float:
        classifier, regressor = _estimators()
        n, weighted = p.shape[1], {}
        if weights is not None and _has_weights(self.scorer):
            weighted["sample_weight"] = weights
        if self.loss.target == "class":
            y = y if y.ndim == 1 else y.argmax(axis=1)
            p = p / p.sum(axis=1, keepdims=True)  # the sum of 16-bit outputs is not exactly 1
            model = classifier(np.arange(n), p.argmax(axis=1), p)
        elif self.loss.target == "binary" and n == 1:
            y, labels = (y[:, 0] >= 0.5).astype(int), (p[:, 0] >= 0.5).astype(int)
            model = classifier(np.arange(2), labels, np.hstack([1 - p, p]))
        elif self.loss.target == "binary":
            y = (y >= 0.5).astype(int)
            model = classifier([np.arange(2)] * n, (p >= 0.5).astype(int), p)
        else:
            y, p = (y[:, 0], p[:, 0]) if n == 1 else (y, p)
            model = regressor(p)
        return float(self.scorer(model, None, y, **weighted))


def scorer(asked: Any, loss: Loss) -> Scorer:
    """The scorer of that name, or the result of scikit-learn's `make_scorer`.

    Raises:
        ValueError: there is no scorer of that name; the message suggests a similar one.
        ImportError: scikit-learn is missing.
    """
    if not isinstance(asked, str):
        return Scorer(str(asked), loss, asked)
    try:
        known = names()
    except ImportError as error:
        raise ImportError(f'for metric={asked!r}: pip install "gpumlp[sklearn]"') from error
    if asked not in known:
        close = difflib.get_close_matches(asked, ["auto", *known], n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(
            f'unknown metric {asked!r}; {hint}pass "auto" or one of '
            "sklearn.metrics.get_scorer_names()"
        )
    return _by_name(asked, loss)


def names() -> list[str]:
    """The names of all scorers of scikit-learn."""
    from sklearn.metrics import get_scorer_names

    return list(get_scorer_names())


def _by_name(name: str, loss: Loss) -> Scorer:
    from sklearn.metrics import get_scorer

    return Scorer(name, loss, get_scorer(name))


def is_scorer(asked: Any) -> bool:
    """Whether it is a result of scikit-learn's `make_scorer`."""
    return hasattr(asked, "_score_func")


def _has_weights(scorer: Any) -> bool:
    return "sample_weight" in inspect.signature(scorer._score_func).parameters


def _sentence(error: Any) -> str:
    """The first sentence of a message of scikit-learn."""
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".")


@functools.cache
def _estimators() -> tuple[Any, Any]:
    """Classes of estimators for the scorers, which predict the values they were created with."""
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        def __init__(self, classes: Any, labels: Any, p: Any) -> None:
            self.classes_, self._labels, self._p = classes, labels, p

        def predict(self, x: Any) -> Any:
            return self._labels

        def predict_proba(self, x: Any) -> Any:
            return self._p

    class Regressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
        def __init__(self, p: Any) -> None:
            self._p = p

        def predict(self, x: Any) -> Any:
            return self._p

    return Classifier, Regressor
