"""Several models in one estimator: they are fitted together, each as it would be alone."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from gpumlp.ensemble import Ensemble
from gpumlp.errors import DivergenceError
from gpumlp.estimators import inputs, settings
from gpumlp.estimators.fitting import UserData
from gpumlp.io.threads import at_most
from gpumlp.io.types import HostArray
from gpumlp.loader.examples import check_range
from gpumlp.network import MLP
from gpumlp.training import members


def fit(e: Any, data: UserData, validation: UserData, classes: Any, incremental: bool) -> None:
    """Fit `n_models` models with the parameters of the estimator e, and own random states."""
    _check(e)
    first = not hasattr(e, "models_") or not (incremental or e.warm_start)
    backend = settings.backend(e)
    X, y = inputs.supervised(e, *data[:2], backend, reset=first)
    if first:
        vars(e).pop("net_", None)  # of a fit of a single model
        e._inspect_targets(y, classes)
        e.models_, e._asked = _new(e), e.n_models
    X = _placed(e, X)
    if validation[0] is not None and validation[1] is not None:
        with inputs.of_validation():
            X_val, y_val = inputs.supervised(e, *validation[:2], backend, reset=False)
            validation = (_placed(e, X_val), y_val, validation[2])
    own = ("n_models", "random_state")
    shared = {k: value for k, value in e.get_params(deep=False).items() if k not in own}
    models: Sequence[Any] = e.models_
    lost: dict[int, DivergenceError] = {}

    def fit_one(i: int) -> None:
        try:
            models[i].set_params(**shared)
            models[i]._given = e._codes  # X has codes
            models[i]._fit((X, y, data[2]), validation, classes, incremental)
        except DivergenceError as error:
            lost[i] = error.with_traceback(None)
        finally:
            del models[i]._given

    try:
        with settings.one_backend(e):
            members.call(fit_one, range(len(models)), at_most(members.count(backend)))
        if len(lost) == len(models):
            raise next(iter(lost.values()))
    except BaseException:
        if first:
            del e.models_
        raise
    if lost:
        i, error = next(iter(lost.items()))
        warnings.warn(
            f"{len(lost)} of {len(models)} models diverged and are left out: {error.what} of model "
            f"{i}; lower learning_rate_init={e.learning_rate_init:g}", RuntimeWarning, stacklevel=6,
        )  # fmt: skip
    _note(e, [model for i, model in enumerate(models) if i not in lost])


def _placed(e: Any, X: Any) -> Any:
    """Return X as an array that all models read, without a copy of their own where possible."""
    backend = settings.backend(e, "float32" if X.dtype == np.float32 else "float64")
    X = inputs.dense(X, backend.dtype)
    if isinstance(X, np.ndarray) and backend.on_host and backend.storage == backend.dtype:
        check_range(backend, X, "X")
        return np.ascontiguousarray(X, backend.dtype)
    return X


def _check(e: Any) -> None:
    """Raise ValueError if a parameter or callback of the estimator e is for a single model."""
    for name, place in (("callbacks", "callbacks"), ("set_callbacks", "_skl_callbacks")):
        if getattr(e, place, None):
            raise ValueError(
                f"{name} is for one model, which several threads would call at the same time; "
                "leave it out, or pass n_models=1"
            )


def _new(e: Any) -> list[Any]:
    """Models that are not fitted yet."""
    random = check_random_state(e.random_state)
    seeds = random.randint(2**31 - 1, size=e.n_models).tolist()
    parameters = e.get_params(deep=False)
    return [type(e)(**{**parameters, "n_models": 1, "random_state": seed}) for seed in seeds]


def _note(e: Any, models: list[Any]) -> None:
    """Set the attributes of a fit that has ended."""
    e.models_, e.ensemble_ = models, Ensemble.of([model.net_ for model in models])
    e.n_iter_ = max(model.n_iter_ for model in models)
    e.loss_ = float(np.mean([model.loss_ for model in models]))
    for name in ("n_layers_", "n_outputs_", "out_activation_"):
        setattr(e, name, getattr(models[0], name))


def networks(e: Any) -> list[MLP]:
    """The network of each model."""
    check_is_fitted(e, ["net_", "models_"], all_or_any=any)
    return [model.net_ for model in e.models_] if hasattr(e, "models_") else [e.net_]


def outputs(e: Any, X: Any) -> list[HostArray]:
    """Return ŷ of X, (m, n_L), of each model, on the host, which is finite."""
    nets = networks(e)
    backend = nets[0].backend
    X = inputs.features(e, X, backend)
    check_range(backend, X.data if sp.issparse(X) else X, "X")
    parts: list[list[HostArray]] = [[] for _ in nets]
    for part in inputs.dense_parts(X, backend.dtype):
        for net, own in zip(nets, parts, strict=True):
            with np.errstate(over="ignore", invalid="ignore"):
                y_hat = net.forward(part)
            own.append(y_hat if isinstance(y_hat, np.ndarray) else backend.to_host(y_hat))
    each = [own[0] if len(own) == 1 else np.concatenate(own) for own in parts]
    for y_hat in each:
        inputs.check_outputs(y_hat)
    return each


def mean(each: Sequence[HostArray]) -> HostArray:
    """The mean of arrays of one shape; of a single one itself."""
    if len(each) == 1:
        return each[0]
    return np.asarray(np.mean(each, axis=0, dtype=np.float64))
