"""JAX: the whole step, or many, under one jit, with donated buffers and an optimizer of optax."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpumlp.bench.cases import Case
from gpumlp.bench.peers import Problem, Step, Unsupported, float_type, lookup
from gpumlp.io.types import HostArray

Params = list[Any]


class JaxStep(Step):
    """One compiled step on one minibatch. For bfloat16 it casts its float32 parameters."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.theta_type = float_type(problem.case.precision)
        jax, optax = _jax(problem)
        case = problem.case
        tensors = dict(problem.theta())
        self._names = list(tensors)
        params = [jax.numpy.asarray(tensors[name], self.theta_type) for name in self._names]
        del tensors
        self._jax = jax
        self._data = (jax.numpy.asarray(problem.x, self.theta_type), jax.numpy.asarray(problem.y))
        optimizer = {
            "sgd": lambda: optax.sgd(case.lr),
            "adamw": lambda: optax.adamw(case.lr, weight_decay=0.01),
        }[case.optimizer]()
        cost = _cost(jax, optax, case)

        def step(params: Params, state: Any, x: Any, y: Any) -> tuple[Params, Any]:
            gradient = jax.grad(cost)(params, x, y)
            updates, state = optimizer.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        self._one: Callable[..., Any] = step
        self._step = jax.jit(step, donate_argnums=(0, 1))
        self._params, self._state = params, jax.jit(optimizer.init)(params)

    def run(self) -> None:
        self._params, self._state = self._step(self._params, self._state, *self._data)

    def many(self, steps: int) -> Any:
        """So many steps as one compiled call."""

        def scan(params: Params, state: Any, x: Any, y: Any) -> Any:
            def body(carry: Any, _: None) -> tuple[Any, None]:
                return self._one(*carry, x, y), None

            return self._jax.lax.scan(body, (params, state), None, length=steps)[0]

        return self._jax.jit(scan, donate_argnums=(0, 1))

    def synchronize(self) -> None:
        self._jax.block_until_ready(self._params)

    def tensors(self) -> Iterator[tuple[str, HostArray]]:
        for name, value in zip(self._names, self._params, strict=True):
            yield name, np.asarray(value)

    def peak_bytes(self) -> int | None:
        stats = self._jax.devices()[0].memory_stats() or {}
        return stats.get("peak_bytes_in_use")


class JaxScan(JaxStep):
    """Many steps in one call, by `lax.scan`, so that the host's time for a call is shared."""

    STEPS = 16  # in a call

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._many = self.many(self.STEPS)
        self.notes["steps_in_a_call"] = self.STEPS

    def run_many(self, steps: int) -> None:
        for _ in range(steps // self.STEPS):
            self._params, self._state = self._many(self._params, self._state, *self._data)
        super().run_many(steps % self.STEPS)


def _jax(problem: Problem) -> tuple[Any, Any]:
    """The modules jax and optax, set to the precision and the device of the problem."""
    precision = problem.case.precision
    if precision == "float16":
        raise Unsupported("float16 needs loss scaling, and jax and optax have none")
    if precision == "tf32" and not problem.on_gpu:
        raise Unsupported("tf32 needs a GPU")
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    os.environ.setdefault("JAX_PLATFORMS", "cuda" if problem.on_gpu else "cpu")
    import jax
    import optax

    jax.config.update("jax_enable_x64", precision == "float64")
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if cache:  # JAX saves only slow compilations by default
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if precision in ("tf32", "float32"):
        arithmetic = "tensorfloat32" if precision == "tf32" else "float32"
        jax.config.update("jax_default_matmul_precision", arithmetic)
    return jax, optax


def _cost(jax: Any, optax: Any, case: Case) -> Callable[[Params, Any, Any], Any]:
    """A function that returns J for the parameters [W_1, b_1, …] and a minibatch."""
    activations = {
        "relu": jax.nn.relu,
        "tanh": jax.numpy.tanh,
        "silu": jax.nn.silu,
        "gelu": lambda z: jax.nn.gelu(z, approximate=True),
    }
    f = lookup("jax", "activation", case.activation, activations)
    amp = jax.numpy.bfloat16 if case.precision == "bfloat16" else None

    def cost(params: Params, x: Any, y: Any) -> Any:
        h = x.astype(amp) if amp else x
        for i in range(0, len(params), 2):
            W, b = (p.astype(amp) if amp else p for p in params[i : i + 2])
            z = h @ W.T + b
            h = f(z) if i + 2 < len(params) else z
        y_hat = h.astype(jax.numpy.float32) if amp else h
        if case.loss == "squared_error":
            return jax.numpy.square(y_hat - y).mean()
        return optax.softmax_cross_entropy_with_integer_labels(y_hat, y).mean()

    return cost
