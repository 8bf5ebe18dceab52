"""Trials of one's own entries before a training: their NumPy expressions, on a few numbers.

NumPy goes on with many faults, such as a result of another shape, which it broadcasts, or an
argument that was overwritten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpumlp.functions.activations import Activation
from gpumlp.functions.entry import Array, E, Entry, same_function
from gpumlp.functions.losses import Loss
from gpumlp.functions.optimizers import UNLISTED
from gpumlp.functions.regularizers import Regularizer
from gpumlp.functions.schedules import Schedule
from gpumlp.functions.stages import ColumnStage, Stage
from gpumlp.functions.update_rule import Optimizer

Z = np.linspace(-1.7, 1.9, 8).reshape(2, 4)


def _called(entry: Entry, name: str, *arrays: Any, **params: Any) -> Any:
    """What the field's function returns for these arrays, which it must not change.

    name: of the field, or as "means[0]" where it has several.
    """
    given: list[Any] = [None if a is None else a.copy() for a in arrays]
    field, _, index = name.partition("[")
    function = getattr(entry, field)
    try:
        with np.errstate(all="ignore"):
            value = (function[int(index[:-1])] if index else function)(*given, **params)
    except Exception as error:
        error.add_note(f"{name} of {entry.what} raised this in a trial with a few numbers")
        raise
    if any(
        a is not None and a.tobytes() != b.tobytes() for a, b in zip(arrays, given, strict=True)
    ):
        raise ValueError(f"{name} of {entry.what} changes an argument; compute new arrays")
    return value


def _shaped(entry: Entry, name: str, value: Any, *shapes: tuple[int, ...]) -> Array:
    """The value of a field's function, if it is real numbers of one of the shapes."""
    found = np.asarray(value)
    if found.dtype.kind not in "fiub":
        raise TypeError(f"{name} of {entry.what} must return real numbers, got {found.dtype}")
    if found.shape not in shapes:
        raise ValueError(
            f"{name} of {entry.what} returned an array of shape {found.shape} in a trial, where "
            f"{shapes[0]} was expected"
        )
    return np.broadcast_to(found, shapes[0])


def _elementwise(entry: Entry, name: str, *arrays: Array, **params: float) -> Array:
    shape = arrays[0].shape
    return _shaped(entry, name, _called(entry, name, *arrays, **params), shape, ())


def _activation(f: Activation) -> None:
    h = _elementwise(f, "f", Z, **f.params)
    if not f.elementwise:
        _elementwise(f, "vjp", Z, h, np.ones_like(Z), **f.params)
        return
    if not np.allclose(h[1:, :1], _elementwise(f, "f", Z[1:, :1], **f.params), equal_nan=True):
        raise ValueError(f"f of {f.what} is not elementwise; give vjp in place of df")
    read = (a if name in f.reads else a + 7 for a, name in ((Z, "z"), (h, "h")))
    df, own = (_elementwise(f, "df", *both, **f.params) for both in ((Z, h), read))
    if not np.allclose(df, own, equal_nan=True):
        raise ValueError(f'df of {f.what} reads more than reads="{f.reads}"; pass reads="zh"')


def _loss(loss: Loss) -> None:
    y_hat, y = np.array([[0.2, 0.3, 0.5], [0.7, 0.1, 0.2]]), np.eye(3)[[2, 1]]
    value = _called(loss, "value", y_hat, y, **loss.params)
    _shaped(loss, "value", value, (2,) if loss.rowwise else y.shape)
    _elementwise(loss, "gradient", y_hat, y, **loss.params)


def _regularizer(regularizer: Regularizer) -> None:
    for name in ("omega", "gradient"):
        theta, params = np.array([0.5, -1.5, 0.0]), regularizer.arguments()
        found = _elementwise(regularizer, name, theta, **params)
        if found[-1] != 0:
            raise ValueError(f"{name} of {regularizer.what} must be 0 at θ = 0, got {found[-1]}")
        _alone(regularizer, name, found, _elementwise(regularizer, name, theta[:1], **params))


def _alone(entry: Entry, name: str, found: Array, alone: Array) -> None:
    """Raise unless the first result is that of the first number alone: θ comes in blocks."""
    if not np.allclose(found[:1], alone, equal_nan=True):
        raise ValueError(
            f"{name} of {entry.what} is not elementwise: its result for an entry of θ depends on "
            "the others, which come in blocks of any size; compute it from this entry"
        )


def _optimizer(optimizer: Optimizer) -> None:
    scalars = optimizer.scalars(1, **optimizer.params)
    if {*scalars} != {*optimizer.scalar_names}:
        raise ValueError(
            f"scalars of {optimizer.what} returns {', '.join(scalars) or 'nothing'}; list these "
            "names as scalar_names"
        )
    given = np.array([[2.0, -3.0, 0.0], [-0.5, 1.5, 0.0]])
    theta, *slots = _moved(optimizer, *given)
    if theta[0] == 2:
        raise ValueError(
            f"rule of {optimizer.what} does not move theta; change it in place, theta -= …, and "
            "return nothing"
        )
    if any(a[-1] != 0 for a in (theta, *slots)):
        raise ValueError(f"rule of {optimizer.what} must leave 0 where θ, g and the slots are 0")
    _alone(optimizer, "rule", theta, _moved(optimizer, *given[:, :1])[0])
    for name, slot in zip(optimizer.slots, slots, strict=True):
        if not slot.any() and optimizer.orthogonal is None:
            raise ValueError(
                f"rule of {optimizer.what} does not change its slot {name}; change it in place, "
                f"{name} *= … or {name} += …"
            )


def _moved(optimizer: Optimizer, start: Array, g: Array) -> list[Array]:
    """θ and the slots after some steps from `start`; `start` if the rule returns something."""
    theta, slots = start.copy(), [np.zeros_like(start) for _ in optimizer.slots]
    for t in (*range(1, 9), 1000):  # it may begin slowly
        given = {"theta": theta, "g": g.copy(), **dict(zip(optimizer.slots, slots, strict=True))}
        more = {"lr": 0.1, **optimizer.scalars(t, **optimizer.params), **optimizer.params}
        if _called(optimizer, "rule", **given, **more) is not None:
            return [start, *slots]
    return [theta, *slots]


def _schedule(schedule: Schedule) -> None:
    factor = _shaped(schedule, "factor", schedule.factor(0, 10, **schedule.params), ())
    if not factor >= 0:
        raise ValueError(f"factor of {schedule.what} must be 0 or more, got {factor}")


def _phi(stage: Stage) -> Array | None:
    return np.array(stage.initial)[:, None] + np.zeros(4) if stage.initial else None


def _stage(stage: Stage) -> None:
    phi = _phi(stage)
    y = _elementwise(stage, "forward", Z, phi, **stage.params)
    gx, dphi = _called(stage, "vjp", Z, phi, y, **stage.params)
    _shaped(stage, "vjp", gx, Z.shape)
    if phi is not None:
        _shaped(stage, "vjp", dphi, phi.shape)


def _column_stage(stage: ColumnStage) -> None:
    phi = _phi(stage)
    s, params = np.stack([Z.mean(axis=0), Z.var(axis=0)]), stage.params
    for i in range(len(stage.means)):
        mean = _called(stage, f"means[{i}]", Z, s[:i] if i else None, **params)
        new = _shaped(stage, f"means[{i}]", mean, Z.shape).mean(axis=0, keepdims=True)
        s = np.concatenate([s[:i], new])
    y = _elementwise(stage, "forward", Z, phi, s, **params)
    parts = _called(stage, "sums", Z, phi, y, s, **params)
    numbers = tuple(map(len, parts)) if isinstance(parts, tuple) else ()
    expected = stage.slopes, len(stage.initial)
    if numbers != expected:
        raise ValueError(
            f"sums of {stage.what} must return (slopes, dphi), tuples of as many arrays as slopes "
            f"and initial say, {expected}; got {numbers or type(parts).__name__}"
        )
    for each in (*parts[0], *parts[1]):
        _shaped(stage, "sums", each, Z.shape)
    gx = _called(stage, "vjp", Z, phi, y, s, np.zeros((stage.slopes, 4)), **params)
    _shaped(stage, "vjp", gx, Z.shape)
    if "momentum" not in params:
        raise ValueError(
            f"{stage.what} has no parameter momentum, the share of a step in the running averages; "
            'add it to params, {"momentum": 0.1}'
        )


TRIALS: dict[type[Entry], Callable[[Any], None]] = {
    Activation: _activation, Loss: _loss, Regularizer: _regularizer, Optimizer: _optimizer,
    Schedule: _schedule, Stage: _stage, ColumnStage: _column_stage,
}  # fmt: skip


def tried(entry: E) -> E:
    """Return the entry; raise if it is one's own and its NumPy expressions are not as described."""
    ours = entry.is_built_in() or any(same_function(entry, each) for each in UNLISTED)
    if type(entry) in TRIALS and not ours:
        TRIALS[type(entry)](entry)
    return entry
