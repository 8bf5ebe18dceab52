"""From an estimator's parameters to what `gpumlp.MLP` and `gpumlp.Trainer` take."""

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

THEIRS = {"sigmoid": "logistic", "exponential": "exp"}  # scikit-learn's names where ours differ
# their step grows with the gradient; the others' does not
PROPORTIONAL = ("sgd", "momentum", "nesterov")

invscaling = Schedule(
    "invscaling",  # scikit-learn's: 1 / (examples seen before the epoch + 1)^power_t
    factor=lambda t, steps, power_t, seen, rows, per_epoch: (
        (seen + t // per_epoch * rows + 1) ** -power_t
    ),
    params={"power_t": 0.5, "seen": 0.0, "rows": 1.0, "per_epoch": 1.0},
    limits={"power_t": "[0, inf)"},
)
adaptive = Schedule("adaptive", factor=lambda t, steps: 1.0)  # `Watch` lowers the base itself
PACES: Mapping[str, Schedule] = {**SCHEDULES, "invscaling": invscaling, "adaptive": adaptive}


def stored(e: Any, arguments: dict[str, Any]) -> None:
    """The constructor's arguments as attributes of the same names, as they are."""
    for name, value in arguments.items():
        if name != "self":
            setattr(e, name, value)


def goes_on(e: Any) -> bool:
    """Whether the solver can go on with other examples."""
    if e.solver == "lbfgs":
        raise AttributeError('partial_fit needs a solver of minibatches; pass solver="adam", say')
    return True


def check(e: Any) -> None:
    """Raise where a parameter of the estimator `e` that nobody else checks is not as said."""
    for name in ("max_iter", "max_fun"):
        checks.positive_int(getattr(e, name), name)
    for name in ("alpha", "tol", "momentum"):
        checks.positive_number(getattr(e, name), name, least=0)
    checks.positive_number(e.learning_rate_init, "learning_rate_init")
    if not e.momentum < 1:
        raise ValueError(f"momentum must be below 1, got {e.momentum}")
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
    """The arguments of `MLP` that the estimator's parameters stand for; n: its outputs."""
    hidden = e.hidden_layer_sizes
    listed = list(hidden) if hasattr(hidden, "__iter__") else [hidden]
    widths = [checks.positive_int(w, f"hidden_layer_sizes[{i}]") for i, w in enumerate(listed)]
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


def _activation(asked: Any) -> Activation:
    """The entry; scikit-learn's "logistic" is our "sigmoid"."""
    ours = {theirs: name for name, theirs in THEIRS.items()}
    name = ours.get(asked, asked) if isinstance(asked, str) else asked
    found: Activation = lookup(ACTIVATIONS, "activation", name)
    return found


def batch_size(e: Any, m: int) -> int:
    """The examples of a minibatch: all of them for L-BFGS."""
    if e.solver == "lbfgs":
        return m
    return min(200 if e.batch_size == "auto" else int(e.batch_size), m)


def out_activation(loss: Loss, f: Activation) -> str:
    """scikit-learn's name of what `predict` applies last."""
    last = f if loss.link.name == "identity" else loss.link
    return THEIRS.get(last.name, last.name)


def unit(loss: Loss, n: int) -> float:
    """scikit-learn's loss of an example over ours: it adds up n outputs, and halves squares.

    With J in its unit alpha, tol, epsilon, sgd's learning rate and loss_ mean what they do there.
    """
    return (0.5 if loss.name == "squared_error" else 1.0) / loss.output_scale(n)


def optimizer(e: Any, of: float) -> Optimizer:
    """The rule that `solver` names; `of`: the `unit` of the loss."""
    solver = e.solver
    if solver in ("adam", "adamw"):
        moments = {"beta1": e.beta_1, "beta2": e.beta_2, "eps": e.epsilon / of}
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


def step_length(e: Any, rule: Optimizer, of: float) -> float:
    """The learning rate that moves θ as scikit-learn's does."""
    return float(e.learning_rate_init * (of if rule.name in PROPORTIONAL else 1.0))


def schedule(e: Any, m: int, rows: int, incremental: bool) -> Schedule:
    """The learning rate's course over a fit of m examples in minibatches of so many rows."""
    found: Schedule = lookup(PACES, "learning_rate", e.learning_rate)
    if found is invscaling:
        return found.set(power_t=e.power_t, seen=e.t_, rows=m, per_epoch=-(-m // rows))
    if incremental and found.name not in ("constant", "adaptive"):
        raise ValueError(
            f'learning_rate="{found.name}" spans a whole fit, of which partial_fit does not know '
            'the length; pass "constant", "invscaling" or "adaptive"'
        )
    return found


def regularizer(e: Any, counted: float, of: float) -> Regularizer:
    """λΩ(θ): the estimator's own, or ½·alpha·Σ‖W‖² over the weight `counted` of a minibatch."""
    if e.regularizer is not None:
        found: Regularizer = lookup(REGULARIZERS, "regularizer", e.regularizer)
        return found
    lam = e.alpha / (counted * of)
    return L2(lam, biases=False) if lam > 0 else REGULARIZERS["none"]


def backend(e: Any, precision: str = "float32") -> Backend:
    """The backend to compute in; `precision`: what "auto" stands for on the CPU."""
    if e.precision != "auto":
        found = get_backend(e.backend, e.precision)
        if found.precision != e.precision:
            raise ValueError(
                f"precision={e.precision!r}, but the backend passed as backend computes in "
                f'{found.precision}; pass precision="auto", or another backend'
            )
        return found
    found = get_backend(e.backend)
    fits = found is e.backend or found.name != "numpy" or found.precision == precision
    return found if fits else get_backend("numpy", precision)
