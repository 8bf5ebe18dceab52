"""GridSearch and RandomSearch: scikit-learn's searches, with all fits trained together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV

from gpumlp import checks
from gpumlp.search.together import names_of_models, together

SHOWN = 3  # candidates that a warning names


class FitsTogether:
    """A mixin before a search of scikit-learn, with all that is ours.

    scikit-learn fits the estimator with the best candidate's parameters, as the results name them.
    With `n_models` they have this number, too, until the fit ends.

    A search of scikit-learn hands its fits to joblib, and joblib to the backend that is configured
    around the call.  Both are public and stable, so scores, results, refit and errors are those of
    scikit-learn in each of its versions.  (The loop over candidates itself is not: it is within
    `BaseSearchCV.fit`, and calls `_fit_and_score`, whose arguments change from version to version.)
    """

    estimator: Any
    n_models: int | None

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Fit all candidates on all splits and, with refit, the best one on all rows.

        Args:
            X: (m, n_0), as the estimator takes it.
            y: (m,) or (m, k), as the estimator takes it.
            params: sample_weight, which the fits get, with the rows of the split; groups, which the
                splitter gets; and whatever scikit-learn's metadata routing passes on.

        Raises:
            ValueError, TypeError: an argument or a parameter is not valid.  ValueError: all fits
                failed.
            KeyboardInterrupt: Ctrl-C came; all fits have ended.
        """
        self._of_best = self._models_of_best()
        try:
            with together(self.estimator):
                found: Self = super().fit(X, y, **params)  # type: ignore[misc]
        finally:
            more = self.__dict__.pop("_of_best")
        results = self.cv_results_["params"]  # type: ignore[attr-defined]
        for each in (*results, getattr(self, "best_params_", {})):
            for name in more:
                each.pop(name, None)
        return found

    def _models_of_best(self) -> dict[str, int]:
        """The parameters with the number of models of the best estimator, where it is given."""
        if self.n_models is None:
            return {}
        K = checks.positive_int(self.n_models, "n_models", most=checks.MOST_MODELS)
        tried: Any = getattr(self, "param_grid", None) or self.param_distributions  # type: ignore[attr-defined]
        grids = [tried] if isinstance(tried, Mapping) else tried
        found = names_of_models(self.estimator)
        twice = sorted({*found} & {name for grid in grids for name in grid})
        if twice:
            raise ValueError(
                f"n_models={K} is the number of models of the best estimator, but the candidates "
                f"have {twice[0]}; leave out one of the two"
            )
        return dict.fromkeys(found, K)

    def _format_results(
        self, candidate_params: Sequence[Any], n_splits: int, out: Any, *more: Any
    ) -> Any:
        """Name the candidates that failed.  scikit-learn's own warning has their errors alone."""
        results = super()._format_results(candidate_params, n_splits, out, *more)  # type: ignore[misc]
        results["params"] = [{**each, **self._of_best} for each in candidate_params]
        reasons: dict[int, list[str]] = {}
        for i, each in enumerate(out):
            if each.get("fit_error"):
                reason = each["fit_error"].strip().rpartition("\n")[2]
                reasons.setdefault(i // n_splits, []).append(reason)
        if reasons:
            named = [
                f"{candidate_params[i]} in {len(each)} of {n_splits} splits ({each[0]})"
                for i, each in list(reasons.items())[:SHOWN]
            ]
            rest = len(reasons) - len(named)
            warnings.warn(
                f"{len(reasons)} of {len(candidate_params)} candidates failed: {'; '.join(named)}"
                + f"; and {rest} more" * (rest > 0), FitFailedWarning, stacklevel=5,
            )  # fmt: skip
        return results


class GridSearch(FitsTogether, GridSearchCV):  # type: ignore[misc]
    """scikit-learn's GridSearchCV, which trains all candidates and folds together.

    On the compiled CPU backend as many fits run at a time as BLAS has threads, each on one thread
    and with X in memory once; scorers and callbacks are then called in several threads.  Elsewhere
    they run one after the other.  Scores are those of GridSearchCV.  Times are those of a fit
    beside the others.

    Args:
        estimator: an `MLPClassifier` or `MLPRegressor`; or what contains one, such as a Pipeline or
            a TransformedTargetRegressor.
        param_grid: a mapping from names of parameters to lists of values, or a list of mappings.
        scoring: as in GridSearchCV: None, a name, a callable, or several of them.
        refit: whether to fit the best candidate on all rows; of several metrics, the name of the
            one that decides; or a function of `cv_results_` that returns the index.
        cv: None for 5 folds, a number of folds, a splitter, or a list of pairs of row numbers.
        verbose: above 0 for messages.
        error_score: the score of a fit that fails, as one that diverges does; "raise" raises.
        return_train_score: whether to score the training rows, too.
        n_models: the number of models of `best_estimator_`: 8 to compare single networks and to
            fit an ensemble of 8 with the best parameters.  None for that of the estimator.

    Attributes:
        cv_results_, best_estimator_, best_score_, best_params_, best_index_, scorer_, n_splits_,
            refit_time_, multimetric_, classes_, n_features_in_, feature_names_in_: as in
            GridSearchCV.

    Raises:
        TypeError: in `fit`: the estimator contains none of gpumlp.

    Examples:
        >>> from sklearn.datasets import load_iris
        >>> from gpumlp.estimators import MLPClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> e = MLPClassifier((16,), solver="lbfgs", random_state=0)
        >>> search = GridSearch(e, {"alpha": [1e-3, 1e-1], "activation": ["tanh", "gelu"]})
        >>> bool(search.fit(X, y).best_score_ > 0.95)
        True
    """

    def __init__(
        self, estimator: Any, param_grid: Mapping[str, Any] | Sequence[Mapping[str, Any]], *,
        scoring: Any = None, refit: bool | str | Callable[..., int] = True, cv: Any = None,
        verbose: int = 0, error_score: float | str = np.nan, return_train_score: bool = False,
        n_models: int | None = None,
    ) -> None:  # fmt: skip
        self.n_models = n_models
        super().__init__(
            estimator, param_grid, scoring=scoring, refit=refit, cv=cv, verbose=verbose,
            error_score=error_score, return_train_score=return_train_score,
        )  # fmt: skip


class RandomSearch(FitsTogether, RandomizedSearchCV):  # type: ignore[misc]
    """scikit-learn's RandomizedSearchCV, which trains all candidates and folds together.

    All is as in `GridSearch` but for the candidates, which are drawn.

    Args:
        estimator: as in `GridSearch`.
        param_distributions: a mapping from names of parameters to lists of values or to
            distributions, with ``rvs`` as those of scipy.stats; or a list of mappings.
        n_iter: the number of candidates.
        scoring: as in `GridSearch`.
        refit: as in `GridSearch`.
        cv: as in `GridSearch`.
        verbose: as in `GridSearch`.
        random_state: the seed of the candidates.
        error_score: as in `GridSearch`.
        return_train_score: as in `GridSearch`.
        n_models: as in `GridSearch`.
    """

    def __init__(
        self, estimator: Any,
        param_distributions: Mapping[str, Any] | Sequence[Mapping[str, Any]], n_iter: int = 10, *,
        scoring: Any = None, refit: bool | str | Callable[..., int] = True, cv: Any = None,
        verbose: int = 0, random_state: Any = None, error_score: float | str = np.nan,
        return_train_score: bool = False, n_models: int | None = None,
    ) -> None:  # fmt: skip
        self.n_models = n_models
        super().__init__(
            estimator, param_distributions, n_iter=n_iter, scoring=scoring, refit=refit, cv=cv,
            verbose=verbose, random_state=random_state, error_score=error_score,
            return_train_score=return_train_score,
        )  # fmt: skip
