"""What the parameters of an estimator must be, and what stays of it where they are not."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
from sklearn.metrics import check_scoring
from sklearn.utils import check_random_state

from gpumlp import checks
from gpumlp.errors import DivergenceError
from gpumlp.estimators import codes
from gpumlp.estimators.settings import LEARNING_RATES
from gpumlp.functions.entry import lookup

Fit = TypeVar("Fit", bound=Callable[..., Any])
NO_ARRAYS = ("solver", "output_activation", "loss", "precision", "tol", "n_iter_no_change")


def unchanged_by_errors(fit: Fit) -> Fit:
    """The method `_fit` of an estimator, which an error leaves as it was before.

    If the training diverges, the parameters are lost; and a fit that goes on from an earlier one
    notes the epochs that it has done.
    """

    @wraps(fit)
    def method(
        e: Any, data: Any, validation: Any, classes: Any = None, incremental: bool = False
    ) -> Any:
        before = dict(vars(e))
        epochs = len(before.get("loss_curve_", ()))
        try:
            return fit(e, data, validation, classes, incremental)
        except DivergenceError:
            raise
        except BaseException:
            trained = "net_" in before and len(e.loss_curve_) > epochs
            if not (trained and (incremental or e.warm_start)):
                # scikit-learn ends its callbacks by this attribute
                context = {k: v for k, v in vars(e).items() if k == "_callback_fit_ctx"}
                vars(e).clear()
                vars(e).update(before | context)
            raise

    return cast(Fit, method)


def check(e: Any, goes_on: bool) -> None:
    """Raise if a parameter of the estimator e is invalid; the ranges are scikit-learn's.

    goes_on: whether the fit goes on from an earlier one, if there was one.
    """
    for name in NO_ARRAYS:
        if isinstance(getattr(e, name), np.ndarray):
            raise TypeError(f"{name} cannot be an array; pass one name, entry or number")
    for name in ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping"):
        checks.boolean(getattr(e, name), name)
    if not isinstance(e.verbose, (bool, np.bool_)):
        checks.positive_int(e.verbose, "verbose", least=0)
    checks.positive_int(e.n_models, "n_models", most=checks.MOST_MODELS)
    for name in ("max_iter", "max_fun"):
        checks.positive_int(getattr(e, name), name)
    for name in ("alpha", "power_t", "momentum", "validation_fraction", "beta_1", "beta_2"):
        checks.positive_number(getattr(e, name), name, least=0)
    for name in ("learning_rate_init", "epsilon"):
        checks.positive_number(getattr(e, name), name)
    if e.tol != math.inf:
        checks.positive_number(e.tol, "tol", least=0)
    if e.momentum > 1:
        raise ValueError(f"momentum must be at most 1, got {e.momentum}")
    for name in ("validation_fraction", "beta_1", "beta_2"):
        if getattr(e, name) >= 1:
            raise ValueError(f"{name} must be less than 1, got {getattr(e, name)}")
    lookup(LEARNING_RATES, "learning_rate", e.learning_rate)  # also for lbfgs, which reads none
    codes.check(e.embed)
    if e.clip_norm is not None:
        checks.positive_number(e.clip_norm, "clip_norm")
    if isinstance(e.random_state, (bool, np.bool_)):
        raise TypeError(f"random_state must be a whole number or None, got {e.random_state}")
    try:
        check_random_state(e.random_state)
    except ValueError as error:
        raise ValueError(
            "random_state must be a whole number from 0 to 2**32 - 1, a RandomState or None, got "
            f"{e.random_state!r}"
        ) from error
    if e.scoring is not None:
        if not (isinstance(e.scoring, str) or callable(e.scoring)):
            raise TypeError(
                "scoring must be the name of a scorer, scorer(estimator, X, y) or None, got "
                f"{e.scoring!r}"
            )
        check_scoring(e, e.scoring)
    if not (isinstance(e.batch_size, str) and e.batch_size == "auto"):
        checks.positive_int(e.batch_size, "batch_size")
    if e.n_iter_no_change != math.inf:
        checks.positive_int(e.n_iter_no_change, "n_iter_no_change")
    if goes_on:
        _check_number(e)


def _check_number(e: Any) -> None:
    """Raise ValueError if a fit that goes on was begun with another number of models."""
    begun = e._asked if hasattr(e, "models_") else 1 if hasattr(e, "net_") else e.n_models
    if begun != e.n_models:
        raise ValueError(
            f"n_models was {begun} in the first fit; set it back, or call fit with "
            "warm_start=False for new models"
        )
