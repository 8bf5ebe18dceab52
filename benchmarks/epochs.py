"""Epochs of one network by several libraries: shuffle, gather, step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np

import gpumlp
from gpumlp.bench.timing import machine

LR = 1e-3
DECAY, EPS, BETA = 0.01, 1e-8, (0.9, 0.999)
AVX512, MEDIUM = "torch eager AVX-512", "torch eager medium"

Arrays = list[Any]
Trained = tuple[Callable[[int, bool], None], Callable[[], Arrays]]
"""A function that trains so many epochs, shuffled or not; and one that returns the parameters."""


@dataclass(frozen=True)
class Network:
    """A network, its minibatch and optimizer, and the steps of an epoch.

    With one step an epoch, the minibatch is all data, and nobody needs to gather it.
    """

    widths: tuple[int, ...]
    batch: int
    optimizer: str
    steps: int
    busy: bool = False
    activation: str = "relu"
    loss: str = "softmax_cross_entropy"

    def __str__(self) -> str:
        name = f"{'-'.join(map(str, self.widths))} @{self.batch} {self.optimizer}"
        return f"{name}, busy" if self.busy else name

    def problem(self) -> tuple[Any, Any]:
        """Return x and labels."""
        rng = np.random.default_rng(0)
        m = self.batch * self.steps
        x = rng.normal(size=(m, self.widths[0])).astype(np.float32)
        return x, rng.integers(0, self.widths[-1], m)

    def network(self, backend: str = "numpy") -> gpumlp.MLP:
        """Return the network with the first parameters of all libraries."""
        return gpumlp.MLP(self.widths, activation=self.activation, loss=self.loss, backend=backend)


def of_gpumlp(network: Network, backend: str) -> Trained:
    """Train by this library."""
    x, y = network.problem()
    net = network.network(backend)
    settings = {"lr": LR, "batch_size": network.batch}
    trainers = [
        gpumlp.Trainer(net, network.optimizer, shuffle=each, **settings) for each in (False, True)
    ]

    def train(epochs: int, shuffle: bool) -> None:
        trainers[shuffle].fit(x, y, epochs=epochs, progress=False)

    return train, lambda: list(net.tensors().values())


def of_jax(network: Network) -> Trained:
    """Train by JAX: one call an epoch with `lax.scan`, or one for all epochs of a single step."""
    import jax
    import jax.numpy as jnp

    theta = [jnp.array(t) for t in network.network().tensors().values()]
    x, y = map(jnp.asarray, network.problem())
    zeros = [jnp.zeros_like(t) for t in theta]
    state = [(theta, zeros, [jnp.zeros_like(t) for t in theta], jnp.float32(0))]
    f = {"relu": jax.nn.relu, "tanh": jnp.tanh}[network.activation]
    decay = DECAY if network.optimizer == "adamw" else 0.0

    def cost(theta: Any, x: Any, y: Any) -> Any:
        h = x
        for k in range(0, len(theta) - 2, 2):
            h = f(h @ theta[k].T + theta[k + 1])
        z = h @ theta[-2].T + theta[-1]
        if network.loss == "squared_error":
            return jnp.mean(jnp.square(z - y))
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], 1))

    def step(state: Any, index: Any) -> Any:
        theta, m, v, t = state
        batch = (x, y) if index is None else (x[index], y[index])
        J, g = jax.value_and_grad(cost)(theta, *batch)
        if network.optimizer == "sgd":
            return ([a - LR * b for a, b in zip(theta, g, strict=True)], m, v, t), J
        t = t + 1
        b1, b2 = BETA
        m = [b1 * a + (1 - b1) * b for a, b in zip(m, g, strict=True)]
        v = [b2 * a + (1 - b2) * b * b for a, b in zip(v, g, strict=True)]
        c1, c2 = 1 / (1 - b1**t), 1 / (1 - b2**t)
        moved = [
            a * (1 - LR * decay) - LR * c1 * p / (jnp.sqrt(q * c2) + EPS)
            for a, p, q in zip(theta, m, v, strict=True)
        ]
        return (moved, m, v, t), J

    def scan(state: Any, order: Any, steps: int) -> Any:
        return jax.lax.scan(step, state, order, steps)

    compiled = jax.jit(scan, donate_argnums=0, static_argnums=2)
    rng = np.random.default_rng(0)

    def run(order: Any, steps: int) -> None:
        state[0], costs = compiled(state[0], order, steps)
        jax.block_until_ready(costs)

    def train(epochs: int, shuffle: bool) -> None:
        if network.steps == 1:
            run(None, epochs)
            return
        order = np.arange(len(x))
        for _ in range(epochs):
            if shuffle:
                rng.shuffle(order)
            run(order.reshape(network.steps, network.batch), network.steps)

    return train, lambda: [np.asarray(t) for t in state[0][0]]


def of_torch(network: Network, products: str | None = None, mode: str | None = None) -> Trained:
    """Train by torch, whose optimizer has torch's own settings.

    products: for `set_float32_matmul_precision`; None leaves torch as it is installed.
    mode: torch.compile compiles the forward and backward pass in this mode; None: eager.
    """
    import torch

    if products:
        torch.set_float32_matmul_precision(products)
    f = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}[network.activation]
    layers: list[Any] = []
    for n_in, n_out in pairwise(network.widths):
        layers += [torch.nn.Linear(n_in, n_out), f()]
    net = torch.nn.Sequential(*layers[:-1])
    first = network.network().tensors()
    net.load_state_dict({name: torch.from_numpy(value) for name, value in first.items()})
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    optimizer = kind[network.optimizer](net.parameters(), lr=LR)
    losses = {"squared_error": "mse_loss", "softmax_cross_entropy": "cross_entropy"}
    loss = getattr(torch.nn.functional, losses[network.loss])
    x, y = map(torch.from_numpy, network.problem())

    def cost(x: Any, y: Any) -> Any:
        return loss(net(x), y)

    if mode:
        cost = torch.compile(cost, mode=mode)

    def train(epochs: int, shuffle: bool) -> None:
        for _ in range(epochs):
            batches: Any = [slice(None)]
            if network.steps > 1:
                order = torch.randperm(len(x)) if shuffle else torch.arange(len(x))
                batches = order.split(network.batch)
            for index in batches:
                optimizer.zero_grad()
                cost(x[index], y[index]).backward()
                optimizer.step()

    return train, lambda: [t.detach().numpy().copy() for t in net.parameters()]


COMPETITORS: dict[str, Callable[[Network], Trained]] = {
    "cpu": partial(of_gpumlp, backend="cpu"),
    "numpy": partial(of_gpumlp, backend="numpy"),
    "jax": of_jax,
    "torch eager": of_torch,
    MEDIUM: partial(of_torch, products="medium"),
    "torch.compile reduce-overhead": partial(of_torch, mode="reduce-overhead"),
    AVX512: of_torch,  # in a process whose MKL is made to use it
}


def available() -> list[str]:
    """Return the competitors whose library is installed and whose processor is here."""
    about = machine()
    missing = [name for name in ("jax", "torch") if not find_spec(name)]
    if not (about["avx512"] and "note" in about):
        missing.append(AVX512)
    return [name for name in COMPETITORS if not any(map(name.startswith, missing))]
