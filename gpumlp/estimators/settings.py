"""Translate an estimator's parameters into the arguments of `gpumlp.MLP` and `gpumlp.Trainer`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy.special import xlogy
from sklearn.base import BaseEstimator, is_classifier

from gpumlp import checks
from gpumlp.backends import Backend, get_backend
from gpumlp.data.codes import set_to_zero
from gpumlp.errors import is_one_of
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
    blocks,
)  # fmt: skip
from gpumlp.functions.activations import identity
from gpumlp.functions.blocks import Block
from gpumlp.functions.entry import lookup
from gpumlp.functions.initializers import INITIALIZERS
from gpumlp.functions.optimizers import adam_epsilon_hat
from gpumlp.io.types import HostArray
from gpumlp.network import MLP

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


class Named(BaseEstimator):  # type: ignore[misc]
    """An estimator that reads the names of its parameters once: a search asks at each clone."""

    @classmethod
    @cache
    def _get_param_names(cls) -> list[str]:
        names: list[str] = super()._get_param_names()
        return names


def has_partial_fit(e: Any) -> bool:
    """Return whether the solver of the estimator e can train on a part of the data."""
    if e.solver == "lbfgs":
        raise AttributeError(
            'partial_fit needs a solver that uses minibatches; pass one, such as solver="adam"'
        )
    return True


def network(e: Any, loss: Loss, n: int) -> dict[str, Any]:
    """Return the arguments of `MLP` for the estimator's parameters; n is the number of outputs."""
    hidden = e.hidden_layer_sizes
    several = isinstance(hidden, (Sequence, np.ndarray)) and not isinstance(hidden, (str, bytes))
    hidden = list(hidden) if several and np.ndim(hidden) else [hidden]
    widths = [checks.positive_int(w, f"hidden_layer_sizes[{i}]") for i, w in enumerate(hidden)]
    each = e.activation if isinstance(e.activation, (list, tuple)) else [e.activation] * len(widths)
    last = e.output_activation
    if last == "auto":
        last = "softmax" if loss.probabilities else "identity"
    wanted = {
        "widths": [e.n_features_in_, *widths, n],
        "activation": [_activation("activation", f) for f in each],
        "output_activation": _activation("output_activation", last),
        "loss": loss,
        **{name: python(getattr(e, name)) for name in BLOCKS},
    }
    if e._codes.columns:
        wanted["embed"] = {j: column.shape for j, column in e._codes.columns.items()}
    blocks_of(wanted)  # raises if one of their parameters is invalid
    return wanted


def new_network(e: Any, wanted: Mapping[str, Any], backend: Backend) -> MLP:
    """Return a new network; wanted: what `network` returns.

    With the initializer "auto" it has the small weights of fan_in, which overfit less in long
    trainings, but for a classifier's last layer: logits must grow, and from fan_in's they take some
    epochs more (benchmarks/initializers.py).
    """
    auto = is_one_of(e.initializer, ("auto",))
    initializer = "fan_in" if auto else e.initializer
    net = MLP(**wanted, initializer=initializer, backend=backend, seed=e._seed)
    if auto and is_classifier(e):
        W = net.layers[-1].W
        rng = np.random.default_rng((e._seed, net.L))
        backend.asarray(INITIALIZERS["glorot"].weights(rng, *W.shape), out=W)
    set_to_zero(net, e._codes.never)
    return net


def changed(e: Any, net: MLP, wanted: Mapping[str, Any]) -> str:
    """Return the parameter that no longer describes the network, or "".

    wanted: what `network` returns.
    """
    initializer = "fan_in" if is_one_of(e.initializer, ("auto",)) else e.initializer
    if initializer is not None:
        initializer = lookup(INITIALIZERS, "initializer", initializer)
    differs = {
        "loss": net.loss != wanted["loss"],
        "hidden_layer_sizes": list(net.widths) != wanted["widths"],
        **changed_blocks(net, wanted),
        "output_activation": net.f[-1] != wanted["output_activation"],
        "initializer": net.initializer != initializer,
        "embed": e._codes.embed != e.embed,
    }
    if (e.backend, e.precision) != e._placed:
        asked = backend(e, net.precision)
        differs["precision"] = asked.precision != net.precision
        differs["backend"] = asked.describe() != net.backend.describe()
    return next((name for name, changes in differs.items() if changes), "")


def _activation(name: str, f: Any) -> Activation:
    """Return the entry, also for scikit-learn's name of it."""
    ours = next((name for name, theirs in SCIKIT_LEARN.items() if is_one_of(f, (theirs,))), f)
    found: Activation = lookup(ACTIVATIONS, name, ours)
    return found


class Unit(NamedTuple):
    """scikit-learn's loss over ours.

    Attributes:
        J: of what is minimised, a sum over n outputs or half of it: with it alpha, epsilon,
            lbfgs's tol and sgd's learning rate mean the same as there.
        L: of what loss_ shows of it, without the penalty: for losses of values their mean.
    """

    J: float
    L: float


def loss_unit(loss: Loss, n: int) -> Unit:
    """Return the unit of a loss of n outputs."""
    scale = loss.output_scale(n)
    J = (0.5 if loss.name == "squared_error" else 1.0) / scale
    return Unit(J, J * scale if loss.target == "real" else J)


def loss_constant(loss: Loss, y: HostArray, weights: HostArray | None) -> float:
    """Return what scikit-learn's loss of the targets y has, and ours, of the same minimum, not."""
    if loss.name != "poisson":
        return 0.0
    y = np.asarray(y, np.float64).reshape(len(y), -1)
    return float(np.average((xlogy(y, y) - y).sum(axis=1), weights=weights))


LEAST_EPSILON = 1e-37  # a normal number of float32


def optimizer(e: Any, unit: float) -> Optimizer:
    """Return the optimizer that `solver` names; `unit` is that of J."""
    solver = e.solver
    if solver in ("adam", "adamw"):
        eps = max(e.epsilon / unit, LEAST_EPSILON)
        found = adam_epsilon_hat if solver == "adam" else OPTIMIZERS[solver]
        return found.set(beta1=e.beta_1, beta2=e.beta_2, eps=eps)
    if solver == "sgd" and e.momentum > 0:
        solver = "nesterov" if e.nesterovs_momentum else "momentum"
    if solver in ("nesterov", "momentum"):
        return OPTIMIZERS[solver].set(mu=e.momentum)
    try:
        entry: Optimizer = lookup(OPTIMIZERS, "solver", solver)
    except ValueError as error:
        raise ValueError(f"{error}, lbfgs") from None
    return entry


def schedule(e: Any, m: int, rows: int, incremental: bool) -> Schedule:
    """Return the learning-rate schedule of a fit of m examples, `rows` in a minibatch."""
    found: Schedule = lookup(LEARNING_RATES, "learning_rate", e.learning_rate)
    if found.name == "invscaling":
        return found.set(power_t=e.power_t, seen=e.t_, rows=m, per_epoch=-(-m // rows))
    if incremental and found.name not in ("constant", "adaptive"):
        raise ValueError(
            f'learning_rate="{found.name}" spans a whole fit, and partial_fit does not know its '
            'length; pass learning_rate="constant", "invscaling" or "adaptive"'
        )
    return found


def regularizer(e: Any, weight: float, unit: float) -> Regularizer:
    """λΩ(θ): the estimator's `regularizer`, or ½·alpha·Σ‖W‖² over the weight of a minibatch."""
    if e.regularizer is not None:
        found: Regularizer = lookup(REGULARIZERS, "regularizer", e.regularizer)
        return found
    lam = e.alpha / (weight * unit)
    return L2(lam, biases=False) if lam > 0 else REGULARIZERS["none"]


_backends: ContextVar[dict[tuple[str, str], Backend] | None] = ContextVar("_backends", default=None)


@contextmanager
def one_backend(*estimators: Any) -> Iterator[None]:
    """In this context, and in threads that have it, estimators share their backends.

    A backend notes BLAS's number of threads when it is made, and a fit in another thread may have
    set it to 1 meanwhile.  So those of `estimators` are made at the beginning.
    """
    if _backends.get() is not None:
        yield
        return
    token = _backends.set({})
    try:
        for e in estimators:
            for precision in ("float32", "float64"):
                backend(e, precision)
        yield
    finally:
        _backends.reset(token)


def _backend(name: str | Backend, precision: str) -> Backend:
    """As `get_backend`; in `one_backend`, the one that was made first."""
    known = _backends.get()
    if known is None or not isinstance(name, str):
        return get_backend(name, precision)
    if (name, precision) not in known:
        return known.setdefault((name, precision), get_backend(name, precision))
    return known[name, precision]


def backend(e: Any, precision: str = "float32") -> Backend:
    """Return the backend; `precision` is what the precision "auto" means on the CPU."""
    auto = e.precision == "auto"
    found = _backend(e.backend, "float32" if auto else e.precision)
    if auto and found.on_host and found is not e.backend:
        return _backend(found.name, precision)
    if not auto and found.precision != e.precision:
        raise ValueError(
            f"precision={e.precision!r}, but the backend passed as backend computes in "
            f'{found.precision}; pass precision="auto", or another backend'
        )
    return found


# the parameters of the layers' blocks, in the order of `blocks.blocks` -> the field of `Block`
BLOCKS = {"norm": "norm", "dropout": "dropout", "residual": "skip", "gated": "gate"}


def python(value: Any) -> Any:
    """NumPy's numbers, such as those of a search's grid, as Python's."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return [python(each) for each in value] if isinstance(value, (list, tuple)) else value


def blocks_of(wanted: Mapping[str, Any]) -> tuple[Block, ...]:
    """The blocks of the network with these arguments, also those that do nothing."""
    found = blocks.blocks(wanted["widths"], *(wanted[name] for name in BLOCKS))
    return found or (Block(),) * (len(wanted["widths"]) - 1)


def changed_blocks(net: MLP, wanted: Mapping[str, Any]) -> dict[str, bool]:
    """Whether each parameter of the layers, also `activation`, no longer describes the network."""
    new, own = blocks_of(wanted), net.blocks or (Block(),) * net.L
    f = [identity, *wanted["activation"], wanted["output_activation"]]
    differs = {
        name: [getattr(block, field) for block in new] != [getattr(block, field) for block in own]
        for name, field in BLOCKS.items()
    }
    return differs | {"activation": net.f[1:-1] != blocks.activations(f, new)[1:-1]}
