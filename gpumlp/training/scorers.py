"""scikit-learn's scorers, of predictions that are there already."""

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

    A loss of classes scores labels or the classes' probabilities, as the scorer asks; one of binary
    targets with several outputs scores them as multilabel; the others score values.  Targets that
    are probabilities count as the likelier class.

    Attributes:
        name: what errors call it.
        loss: of the network.
        scorer: ``scorer(estimator, x, y, sample_weight=…)``.
    """

    name: str
    loss: Loss
    scorer: Any

    def __call__(self, y: HostArray, p: HostArray, weights: HostArray | None) -> float:
        """The score of p = predict(x), (m, n); NaN, with a warning, where it has none.

        y: as `fit` takes it; weights: (m,), which scorers that know no weights leave out.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # undefined ones show as 0 or NaN
            try:
                return self._score(y, p, weights)
            except ValueError as error:
                reason = _sentence(error)
        warnings.warn(f"metric {self.name!r} is NaN: {reason}", RuntimeWarning, stacklevel=2)
        return math.nan

    def validate(self, y: HostArray, n: int, weights: HostArray | None, whose: str) -> None:
        """Raise ValueError where these targets have no score, whatever is predicted for them."""
        reason = self._trouble(y, n, weights)
        if not reason:
            return
        kin = [_of_name(name, self.loss) for name in names() if name.startswith(f"{self.name}_")]
        fit = [one.name for one in kin if not one._trouble(y, n, weights)]
        raise ValueError(
            f"metric {self.name!r} does not go with {self.loss.name} and the {whose} data: "
            f"{reason}; pass {' or '.join(map(repr, fit)) or 'another metric'}"
        )

    def _trouble(self, y: HostArray, n: int, weights: HostArray | None) -> str:
        """Why these targets have no score; "" where they have."""
        p = np.roll(np.eye(n)[y] if y.ndim == 1 else y, 1, axis=0)  # the neighbours' targets
        if self.loss.target not in ("class", "binary"):
            p = p + 0.5  # or whole numbers would pass for labels
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                score = self._score(y, p, weights)
            except AttributeError:  # what the scorer asks of an estimator
                return "it needs the probabilities of classes"
            except ValueError as error:
                return _sentence(error)
        return _sentence(told[-1].message) if told and math.isnan(score) else ""

    def _score(self, y: HostArray, p: HostArray, weights: HostArray | None) -> float:
        classifier, regressor = _stand_ins()
        n, given = p.shape[1], {}
        if weights is not None and _takes_weights(self.scorer):
            given["sample_weight"] = weights
        if self.loss.target == "class":
            y = y if y.ndim == 1 else y.argmax(axis=1)
            p = p / p.sum(axis=1, keepdims=True)  # of 16-bit outputs they add up to 1 roughly
            model = classifier(np.arange(n), p.argmax(axis=1), p)
        elif self.loss.target == "binary" and n == 1:
            y, right = (y[:, 0] >= 0.5).astype(int), (p[:, 0] >= 0.5).astype(int)
            model = classifier(np.arange(2), right, np.hstack([1 - p, p]))
        elif self.loss.target == "binary":
            y = (y >= 0.5).astype(int)
            model = classifier([np.arange(2)] * n, (p >= 0.5).astype(int), p)
        else:
            y, p = (y[:, 0], p[:, 0]) if n == 1 else (y, p)
            model = regressor(p)
        return float(self.scorer(model, None, y, **given))


def scorer(asked: Any, loss: Loss) -> Scorer:
    """The scorer of that name, or one that scikit-learn's `make_scorer` made.

    Raises:
        ValueError: there is none of that name; the message has the nearest.
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
    return _of_name(asked, loss)


def names() -> list[str]:
    """All of scikit-learn's scorers."""
    from sklearn.metrics import get_scorer_names

    return list(get_scorer_names())


def _of_name(name: str, loss: Loss) -> Scorer:
    from sklearn.metrics import get_scorer

    return Scorer(name, loss, get_scorer(name))


def is_scorer(asked: Any) -> bool:
    """Whether it is what scikit-learn's `make_scorer` gives."""
    return hasattr(asked, "_score_func")


def _takes_weights(scorer: Any) -> bool:
    return "sample_weight" in inspect.signature(scorer._score_func).parameters


def _sentence(error: Any) -> str:
    """The first sentence of what scikit-learn said."""
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".")


@functools.cache
def _stand_ins() -> tuple[Any, Any]:
    """Estimators, as scorers ask for them, that answer with what they were made of."""
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
