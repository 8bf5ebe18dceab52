"""Epochs of small and wide networks on the CPU, beside JAX with lax.scan over an epoch.

    python -m benchmarks.cpu_epochs [--write] [--rounds N] [--only TEXT]

An epoch shuffles, gathers each minibatch, and makes a step on it: relu, softmax cross-entropy,
float32.  JAX's epoch is one compiled call, `lax.scan` over the minibatches with donated buffers.
Each competitor is a process of its own.  They take turns, and one round times each once.  Before
the timing, an epoch without shuffling must change the parameters of all alike.

"busy" times the same epochs while as many other processes as there are cores multiply matrices.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from benchmarks.output import write

COMPETITORS = ["cpu", "numpy", *(["jax"] if find_spec("jax") else [])]
LR = 1e-3
SECONDS = 0.3  # of a turn
DECAY, EPS, BETA = 0.01, 1e-8, (0.9, 0.999)


class Network(NamedTuple):
    """A network, its minibatch and optimizer, and the steps of an epoch."""

    widths: tuple[int, ...]
    batch: int
    optimizer: str
    steps: int
    busy: bool = False

    def __str__(self) -> str:
        name = f"{'-'.join(map(str, self.widths))} @{self.batch} {self.optimizer}"
        return f"{name}, busy" if self.busy else name

    def problem(self) -> tuple[Any, Any]:
        """Return x and labels."""
        rng = np.random.default_rng(0)
        m = self.batch * self.steps
        x = rng.normal(size=(m, self.widths[0])).astype(np.float32)
        return x, rng.integers(0, self.widths[-1], m)


NETWORKS = [
    Network((32, 32, 2), 32, "sgd", 1000),
    Network((20, 24, 3), 50, "adamw", 1000),
    Network((64, 128, 128, 10), 64, "adamw", 200),
    Network((48, 160, 160, 7), 96, "adamw", 100),
    Network((784, 128, 10), 128, "adamw", 60),
    Network((300, 300, 300, 5), 128, "sgd", 60),
    Network((784, 1024, 1024, 10), 256, "adamw", 10),
    Network((784, 1024, 1024, 10), 256, "sgd", 10),
    Network((2048, 2048, 2048, 2048, 2048, 10), 512, "sgd", 2),
    Network((27, 256, 256, 2), 64, "adamw", 100),
    Network((27, 256, 256, 2), 64, "adamw", 100, busy=True),
]


def ours(network: Network, backend: str) -> tuple[Callable[..., None], Callable[[], Any]]:
    """Return a function that trains some epochs, and one that returns the parameters."""
    import gpumlp

    x, y = network.problem()
    net = gpumlp.MLP(network.widths, backend=backend)
    settings = {"lr": LR, "batch_size": network.batch}
    trainers = {
        shuffle: gpumlp.Trainer(net, network.optimizer, shuffle=shuffle, **settings)
        for shuffle in (False, True)
    }

    def train(shuffle: bool, epochs: int = 1) -> None:
        trainers[shuffle].fit(x, y, epochs=epochs, progress=False)

    return train, lambda: list(net.tensors().values())


def of_jax(network: Network) -> tuple[Callable[..., None], Callable[[], Any]]:
    """Return the same for JAX."""
    import jax
    import jax.numpy as jnp

    import gpumlp

    start = gpumlp.MLP(network.widths, backend="numpy")
    theta = [jnp.array(t) for t in start.tensors().values()]
    x, y = map(jnp.asarray, network.problem())
    zeros = [jnp.zeros_like(t) for t in theta]
    state = [(theta, zeros, [jnp.zeros_like(t) for t in theta], jnp.float32(0))]

    def cost(theta: Any, x: Any, y: Any) -> Any:
        h = x
        for k in range(0, len(theta) - 2, 2):
            h = jax.nn.relu(h @ theta[k].T + theta[k + 1])
        z = h @ theta[-2].T + theta[-1]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], 1))

    def step(state: Any, index: Any) -> Any:
        theta, m, v, t = state
        J, g = jax.value_and_grad(cost)(theta, x[index], y[index])
        if network.optimizer == "sgd":
            return ([a - LR * b for a, b in zip(theta, g, strict=True)], m, v, t), J
        t = t + 1
        b1, b2 = BETA
        m = [b1 * a + (1 - b1) * b for a, b in zip(m, g, strict=True)]
        v = [b2 * a + (1 - b2) * b * b for a, b in zip(v, g, strict=True)]
        c1, c2 = 1 / (1 - b1**t), 1 / (1 - b2**t)
        moved = [
            a * (1 - LR * DECAY) - LR * c1 * p / (jnp.sqrt(q * c2) + EPS)
            for a, p, q in zip(theta, m, v, strict=True)
        ]
        return (moved, m, v, t), J

    def run(state: Any, order: Any) -> Any:
        return jax.lax.scan(step, state, order)

    compiled = jax.jit(run, donate_argnums=0)
    rng = np.random.default_rng(0)

    def train(shuffle: bool, epochs: int = 1) -> None:
        order = np.arange(len(x))
        for _ in range(epochs):
            if shuffle:
                rng.shuffle(order)
            state[0], costs = compiled(state[0], order.reshape(network.steps, network.batch))
            jax.block_until_ready(costs)

    return train, lambda: [np.asarray(t) for t in state[0][0]]


def work(connection: Any, network: Network, competitor: str) -> None:
    """Answer the parameters after an epoch in order, and then the seconds of epochs."""
    made = of_jax(network) if competitor == "jax" else ours(network, competitor)
    train, parameters = made
    train(False)
    connection.send(parameters())
    train(True)
    start = time.perf_counter()
    train(True, 3)
    count = max(1, round(3 * SECONDS / (time.perf_counter() - start)))
    while connection.recv():
        start = time.perf_counter()
        train(True, count)
        connection.send((time.perf_counter() - start) / count)


def multiply() -> None:
    """Multiply matrices for ever, on one thread."""
    a = np.random.default_rng(0).normal(size=(400, 400))
    while True:
        a = a @ a
        a /= np.abs(a).max()


@contextmanager
def load(count: int) -> Iterator[None]:
    """Keep as many cores busy."""
    context = multiprocessing.get_context("spawn")
    before = os.environ.get("OPENBLAS_NUM_THREADS")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    others = [context.Process(target=multiply, daemon=True) for _ in range(count)]
    for each in others:
        each.start()
    if before is None:
        del os.environ["OPENBLAS_NUM_THREADS"]
    else:
        os.environ["OPENBLAS_NUM_THREADS"] = before
    try:
        yield
    finally:
        for each in others:
            each.terminate()


def check(network: Network, name: str, got: list[Any], want: list[Any]) -> None:
    """Raise ValueError if the first epoch has changed the parameters otherwise.

    Rounding alone makes a few per cent of the change after a hundred steps of Adam.
    """
    import gpumlp

    before = list(gpumlp.MLP(network.widths, backend="numpy").tensors().values())
    start, one, other = (np.concatenate([t.ravel() for t in each]) for each in (before, got, want))
    difference = np.linalg.norm(one - other) / np.linalg.norm(other - start)
    if not difference < 0.1:
        raise ValueError(f"{network}: the change of θ by {name} differs by {difference:.2g} of it")


def timed(network: Network, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of an epoch in each round, by competitor."""
    context = multiprocessing.get_context("spawn")
    ends, seconds = {}, {name: [] for name in COMPETITORS}
    for name in COMPETITORS:
        ends[name], theirs = context.Pipe()
        context.Process(target=work, args=(theirs, network, name), daemon=True).start()
        theirs.close()
    changed = {name: end.recv() for name, end in ends.items()}
    for name, tensors in changed.items():
        check(network, name, tensors, changed["numpy"])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with load(cores if network.busy else 0):
        for i in range(rounds):
            for name in COMPETITORS if i % 2 else reversed(COMPETITORS):
                time.sleep(0.05)  # the threads of the process before come to rest
                ends[name].send(True)
                seconds[name].append(ends[name].recv())
    for end in ends.values():
        end.send(False)
    return seconds


def main() -> None:
    """Time all networks and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="networks whose names contain this text")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    found = {}
    print(f"{'µs a step (cpu / this)':42s}" + "".join(f"{name:>20s}" for name in COMPETITORS))
    for network in (each for each in NETWORKS if options.only in str(each)):
        seconds = timed(network, options.rounds)
        micros = {k: 1e6 * statistics.median(v) / network.steps for k, v in seconds.items()}
        ratios = {
            name: statistics.median(a / b for a, b in zip(seconds["cpu"], each, strict=True))
            for name, each in seconds.items()
        }
        row = "".join(f"{micros[name]:12.1f} ({ratios[name]:.2f})" for name in COMPETITORS)
        print(f"{network!s:42s}{row}", flush=True)
        found[str(network)] = {"median_us_a_step": micros, "cpu_over_this": ratios}
    write("cpu_epochs", found)


if __name__ == "__main__":
    main()
