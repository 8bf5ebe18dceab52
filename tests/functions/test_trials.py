"""Entries of one's own are tried before a training, which would go on with many of their faults."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import (
    MLP,
    Activation,
    ColumnStage,
    Loss,
    Optimizer,
    Regularizer,
    Schedule,
    Stage,
    Trainer,
)
from gpumlp.functions import ACTIVATIONS, LOSSES, NORMS, OPTIMIZERS, REGULARIZERS, SCHEDULES
from gpumlp.functions.trials import TRIALS, tried
from tests.support.refusal import refusal


def slope(z: Any, h: Any) -> Any:
    return 1 - h * h


def square(y_hat: Any, y: Any) -> Any:
    return (y_hat - y) ** 2


def difference(y_hat: Any, y: Any) -> Any:
    return 2 * (y_hat - y)


def descent(theta: Any, g: Any, lr: float) -> None:
    theta -= lr * g


def shift(theta: Any, g: Any, lr: float) -> None:
    theta -= lr


def forgetful(theta: Any, g: Any, lr: float, m: Any) -> None:
    m = 0.9 * m + g  # another array
    theta -= lr * m


def of_norm(theta: Any, g: Any, lr: float) -> None:
    theta -= lr * g / np.linalg.norm(g)


COLUMNS: dict[str, Any] = {  # a norm of columns by the mean of their squares
    "forward": lambda x, phi, s, momentum: x / np.sqrt(s[0]) * phi[0],
    "vjp": lambda x, phi, gy, s, t, momentum: (gy * phi[0] - x / s[0] * t[0]) / np.sqrt(s[0]),
    "means": (lambda x, s, momentum: np.square(x),),
    "sums": lambda x, phi, gy, s, momentum: ((gy * phi[0] * x,), (gy * x / np.sqrt(s[0]),)),
    "initial": (1.0,), "slopes": 1, "running": (("square", 1.0, False),),
    "params": {"momentum": 0.1},
}  # fmt: skip


def columns(**changes: Any) -> ColumnStage:
    return ColumnStage("own", **COLUMNS | changes)


FAULTS = [
    (Activation("own", lambda z: z[:, :1], slope), "f of activation 'own' returned an array of"),
    (Activation("own", lambda z: z + 0j, slope), "f of activation 'own' must return real numbers"),
    (Activation("own", lambda z: np.tanh(z, out=z), slope), "changes an argument"),
    (Activation("own", lambda z: z / np.abs(z).sum(), slope), "f of activation 'own' is not elem"),
    (Activation("own", lambda z: z - z.max(axis=-1, keepdims=True), slope), "is not elementwise"),
    (Activation("own", np.tanh, lambda z, h: h.mean(axis=1, keepdims=True)), r"df .* \(2, 1\)"),
    (Activation("own", np.tanh, slope, reads="z"), 'df .* reads more than reads="z"; pass reads'),
    (Activation("own", np.tanh, vjp=lambda z, h, gh: h.sum(axis=1)), "vjp .*returned an array"),
    (Loss("own", lambda y_hat, y: square(y_hat, y).mean(), difference), "value of loss 'own'"),
    (Loss("own", square, difference, rowwise=True), r"value of loss 'own' .* \(2,\) was expected"),
    (Loss("own", square, lambda y_hat, y: difference(y_hat, y)[:, :1]), "gradient of loss 'own'"),
    (Loss("own", square, lambda y_hat, y: np.subtract(y_hat, y, out=y)), "changes an argument"),
    (Regularizer("own", np.cos, np.sin), "omega of regularizer 'own' must be 0 at θ = 0, got 1.0"),
    (Regularizer("own", np.square, lambda t: t / np.linalg.norm(t)), "gradient .* not elementw"),
    (Optimizer("own", lambda theta, g, lr: theta - lr * g), "rule .* does not move theta; change"),
    (Optimizer("own", lambda theta, g, lr: None), "rule of optimizer 'own' does not move theta"),
    (Optimizer("own", shift), "rule of optimizer 'own' must leave 0 where θ, g and the slots"),
    (Optimizer("own", forgetful, slots=("m",)), r"not change its slot m; .* m \*= … or m \+= …"),
    (Optimizer("own", of_norm), "rule of optimizer 'own' is not elementwise"),
    (Optimizer("own", descent, scalars=lambda t: {"c": t}), "returns c; list these names"),
    (Schedule("own", lambda t, steps: -1.0), "factor of schedule 'own' must be 0 or more"),
    (Schedule("own", lambda t, steps: "low"), "factor of schedule 'own' must return real numbers"),
    (columns(forward=lambda x, phi, s, momentum: x[:1]), "forward of columnstage 'own' returned"),
    (columns(forward=lambda x, phi, s, momentum: np.sqrt(abs(x), out=x)), "changes an argument"),
    (columns(vjp=lambda x, phi, gy, s, t, momentum: gy[:1]), "vjp of columnstage 'own' returned"),
    (columns(means=(lambda x, s, momentum: x.mean(0),)), r"means\[0\] .* \(2, 4\) was expected"),
    (columns(slopes=2), r"sums .* must return .*, \(2, 1\); got \(1, 1\)"),
    (columns(initial=(1.0, 0.0)), r"sums .* must return .*, \(1, 2\); got \(1, 1\)"),
    (columns(sums=lambda x, phi, gy, s, momentum: ((gy,), (gy.sum(0),))), r"sums .* \(2, 4\) was"),
    (Stage("own", lambda x, phi: x.mean(axis=-1), lambda x, phi, gy: (gy, None)), "forward of st"),
    (Stage("own", lambda x, phi: x, lambda x, phi, gy: (gy, None), (1.0,)), "vjp of stage 'own'"),
]  # fmt: skip


def test_a_norm_of_columns_without_a_fault_is_accepted() -> None:
    assert tried(columns()).name == "own"


@pytest.mark.parametrize(("entry", "said"), FAULTS)
def test_faults_of_own_entries_raise_before_a_training(entry: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        tried(entry)
    name = {Stage: "norm", ColumnStage: "norm"}.get(type(entry), type(entry).__name__.lower())
    of_trainer = name in ("optimizer", "schedule")
    net = MLP([4, 3, 2], backend="numpy", **{} if of_trainer else {name: entry})
    with pytest.raises((TypeError, ValueError), match=said):
        Trainer(net, **{name: entry} if of_trainer else {})


def test_errors_of_own_entries_say_where_they_come_from() -> None:
    net = MLP([4, 3, 2], Activation("own", lambda z: z / 0, slope), backend="numpy")
    with pytest.raises(ValueError, match="scale") as caught:
        gpumlp.fit_lbfgs(MLP([4, 3, 2], Activation("own", broken, slope)), np.eye(4), [0, 1, 0, 1])
    assert "f of activation 'own' raised this in a trial" in caught.value.__notes__[0]
    tried(net.f[1])  # not finite, which a training says


def broken(z: Any) -> Any:
    raise ValueError("scale")


def test_own_entries_like_ours_pass() -> None:
    tables = ACTIVATIONS, LOSSES, REGULARIZERS, OPTIMIZERS, SCHEDULES, NORMS
    for entry in (each for table in tables for each in table.values() if type(each) in TRIALS):
        TRIALS[type(entry)](entry)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": 3}, "name of activation 3 must be a string, got 3"),
        ({"f": "tanh"}, "f of activation 'own' must be a function, got 'tanh'"),
        ({"df": 1.0}, "df of activation 'own' must be a function, got 1.0"),
        ({"cuda_f": np.tanh}, "cuda_f of activation 'own' must be a string"),
        ({"params": ["b"]}, "params of activation 'own' must be a mapping"),
    ],
)
def test_fields_of_other_types_raise(arguments: Any, said: str) -> None:
    refusal(
        TypeError,
        lambda: Activation(**{"name": "own", "f": np.tanh, "df": slope} | arguments),
        said,
    )


def test_limits_that_are_no_interval_raise() -> None:
    given = {"params": {"b": 1.0}, "limits": {"b": "0,1"}}
    refusal(ValueError, lambda: Activation("own", np.tanh, slope, **given), 'like "[0, 1)"')


def test_initial_weights_of_another_shape_raise() -> None:
    own = gpumlp.Initializer("own", lambda rng, n_out, n_in: rng.normal(size=(n_in, n_out)))
    refusal(
        ValueError, lambda: MLP([4, 3, 2], initializer=own), "draw of initializer 'own'", "(3, 4)"
    )
