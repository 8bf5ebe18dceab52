"""Translate an estimator's parameters into the arguments of `gpumlp.MLP` and `gpumlp.Trainer`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sklearn.metrics import check_scoring
from sklearn.utils import check_scalar

from gpumlp import checks
from gpumlp.backends import Backend, get_backend
from gpumlp.functions import (
    ACTIVATIONS,
    L2,
    OPTIMIZERS,
    REGULARIZERS,
    SCHEDULES,
    Activation,
    Loss,
    Optimizer,
    Regularizer,
    Schedule,
)  # fmt: skip
from gpumlp.functions.entry import lookup

SCIKIT_LEARN = {"sigmoid": "logistic", "exponential": "exp"}  # its names where ours differ
# the step of these optimizers is proportional to the gradient, so their learning rate has its unit
PROPORTIONAL = ("sgd", "momentum", "nesterov")
LEARNING_RATES: Mapping[str, Schedule] = {
    **SCHEDULES,
    "invscaling": Schedule(
        "invscaling",  # scikit-learn's: 1 / (examples seen before the epoch + 1)^power_t
        factor=lambda t, steps, power_t, seen, rows, per_epoch: (
            (seen + t // per_epoch * rows + 1) ** -power_t
        ),
        params={"power_t": 0.5, "seen": 0.0, "rows": 1.0, "per_epoch": 1.0},
        limits={"power_t": "[0, inf)"},
    ),
    "adaptive": Schedule("adaptive", factor=lambda t, steps: 1.0),  # `EpochLog` lowers the base
}


def has_partial_fit(e: Any) -> bool:
    """Return whether the solver of the estimator e can train on a part of the data."""
    if e.solver == "lbfgs":
        raise AttributeError(
            'partial_fit needs a solver that uses minibatches; pass one, such as solver="adam"'
        )
    return True


def check(e: Any) -> None:
    """Raise if a parameter of the estimator e is invalid that no other function checks."""
    for name in ("max_iter", "max_fun"):
        checks.positive_int(getattr(e, name), name)
    for name in ("alpha", "tol", "momentum"):
        checks.positive_number(getattr(e, name), name, least=0)
    checks.positive_number(e.learning_rate_init, "learning_rate_init")
    if not e.momentum < 1:
        raise ValueError(f"momentum must be less than 1, got {e.momentum}")
    if e.scoring is not None:
        check_scoring(e, e.scoring)
    if e.batch_size != "auto":
        checks.positive_int(e.batch_size, "batch_size")
    if e.n_iter_no_change != math.inf:
        checks.positive_int(e.n_iter_no_change, "n_iter_no_change")
    if e.early_stopping:
        check_scalar(
            e.validation_fraction, "validation_fraction", (int, float), min_val=0, max_val=1,
            include_boundaries="neither",
        )  # fmt: skip


def network(e: Any, loss: Loss, n: int) -> dict[str, Any]:
    """Return the arguments of `MLP` for the estimator's parameters; n is the number of outputs."""
    hidden = e.hidden_layer_sizes
    hidden = list(hidden) if hasattr(hidden, "__iter__") else [hidden]
    widths = [checks.positive_int(w, f"hidden_layer_sizes[{i}]") for i, w in enumerate(hidden)]
    each = e.activation if isinstance(e.activation, (list, tuple)) else [e.activation] * len(widths)
    last = e.output_activation
    if last == "auto":
        last = "softmax" if loss.probabilities else "identity"
    return {
        "widths": [e.n_features_in_, *widths, n],
        "activation": [_activation(f) for f in each],
        "output_activation": _activation(last),
        "loss": loss,
    }


def _activation(f: Any) -> Activation:
    """Return the entry, also for scikit-learn's name of it."""
    ours = next((name for name, theirs in SCIKIT_LEARN.items() if f == theirs), f)
    found: Activation = lookup(ACTIVATIONS, "activation", ours)
    return found


def loss_unit(loss: Loss, n: int) -> float:
    """Return scikit-learn's loss of an example, a sum over n outputs or half of it, over ours.

    With J in this unit, alpha, tol, epsilon, sgd's learning rate and loss_ mean the same as there.
    """
    return (0.5 if loss.name == "squared_error" else 1.0) / loss.output_scale(n)


def optimizer(e: Any, unit: float) -> Optimizer:
    """Return the optimizer that `solver` names; `unit` is the loss's `loss_unit`."""
    solver = e.solver
    if solver in ("adam", "adamw"):
        moments = {"beta1": e.beta_1, "beta2": e.beta_2, "eps": e.epsilon / unit}
        return OPTIMIZERS[solver].set(**moments)
    if solver == "sgd" and e.momentum > 0:
        solver = "nesterov" if e.nesterovs_momentum else "momentum"
    if solver in ("nesterov", "momentum"):
        return OPTIMIZERS[solver].set(mu=e.momentum)
    try:
        found: Optimizer = lookup(OPTIMIZERS, "solver", solver)
    except ValueError as error:
        raise ValueError(f"{error}, lbfgs") from None
    return found


def schedule(e: Any, m: int, rows: int, incremental: bool) -> Schedule:
    """Return the learning-rate schedule of a fit of m examples, `rows` in a minibatch."""
    found: Schedule = lookup(LEARNING_RATES, "learning_rate", e.learning_rate)
    if found.name == "invscaling":
        return found.set(power_t=e.power_t, seen=e.t_, rows=m, per_epoch=-(-m // rows))
    if incremental and found.name not in ("constant", "adaptive"):
        raise ValueError(
            f'learning_rate="{found.name}" spans a whole fit, and partial_fit does not know its '
            'length; pass "constant", "invscaling" or "adaptive"'
        )
    return found


def regularizer(e: Any, weight: float, unit: float) -> Regularizer:
    """λΩ(θ): the estimator's `regularizer`, or ½·alpha·Σ‖W‖² over the weight of a minibatch."""
    if e.regularizer is not None:
        found: Regularizer = lookup(REGULARIZERS, "regularizer", e.regularizer)
        return found
    lam = e.alpha / (weight * unit)
    return L2(lam, biases=False) if lam > 0 else REGULARIZERS["none"]


def backend(e: Any, precision: str = "float32") -> Backend:
    """Return the backend; `precision` is what the precision "auto" means on the CPU."""
    auto = e.precision == "auto"
    found = get_backend(e.backend, "float32" if auto else e.precision)
    if auto and found.name == "numpy" and found is not e.backend:
        return get_backend("numpy", precision)
    if not auto and found.precision != e.precision:
        raise ValueError(
            f"precision={e.precision!r}, but the backend passed as backend computes in "
            f'{found.precision}; pass precision="auto", or another backend'
        )
    return found
