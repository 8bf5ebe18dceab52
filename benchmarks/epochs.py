"""Epochs of one network by several libraries, each in a process of its own, which take turns.

Before the timing, an epoch in the order of the data must change the parameters of all alike. A
library that fails to start or fails this check is reported and left out.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import gpumlp
from gpumlp.bench.processes import ONE_THREAD, environment
from gpumlp.bench.timing import machine

LR = 1e-3
SECONDS = 0.3  # of a turn, unless its epochs are given
# What rounding explains of a change of θ: a few per cent after a hundred steps of Adam. If products
# round to bfloat16, it is up to 0.18 of it.
MOST_ROUNDING = (0.1, 0.3)
# If an epoch is longer than a turn, a library has no further turn after so many seconds: torch's
# threads, which spin, need up to 100 times as long on a busy machine.
MOST_SECONDS = 30.0
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


class Race:
    """The processes of the competitors on a network; those that started and passed the check.

    Only one of them computes at a time: libraries whose threads spin would stop each other.

    Args:
        network: what they train.
        names: keys of COMPETITORS.
        epochs: those of the check.
        one_thread: all run on one thread of the same core.

    Raises:
        ValueError: the backend "cpu" failed.
    """

    def __init__(
        self, network: Network, names: list[str], epochs: int = 1, one_thread: bool = False
    ) -> None:
        self._shuffle = network.steps > 1
        self._counts: dict[str, int] = {}
        self._spent = dict.fromkeys(names, 0.0)
        self._ends: dict[str, Any] = {}
        self._processes: list[Any] = []
        train, parameters = of_gpumlp(network, "numpy")
        before = [t.copy() for t in parameters()]
        train(epochs, False)
        with tempfile.TemporaryDirectory() as folder, one_core() if one_thread else nullcontext():
            ends = {name: self._start(network, name, Path(folder)) for name in names}
            for name, end in ends.items():
                try:
                    ask(end, epochs, False)
                    check(ask(end), parameters(), before, MOST_ROUNDING[name == MEDIUM])
                    self._ends[name] = end
                except ValueError as error:
                    if name == "cpu":
                        raise
                    print(f"{network}: {name} is left out: {error}", flush=True)

    def warm_up(self) -> None:
        """Train a little; from now on a turn takes about SECONDS, or one epoch."""
        for name, end in self._ends.items():
            first = ask(end, 1, self._shuffle)
            each = ask(end, 3, self._shuffle) if first < SECONDS else first
            self._counts[name] = max(1, round(SECONDS / each))

    def turns(self, i: int, epochs: int | None = None) -> dict[str, float]:
        """Let each competitor train once, in an order that depends on i; seconds of an epoch.

        epochs: how many; None: what `warm_up` found, and only while it has time for more turns.
        """
        names = [
            name
            for name in self._ends
            if epochs or self._counts[name] > 1 or self._spent[name] < MOST_SECONDS
        ]
        seconds = {}
        for name in names if i % 2 else reversed(names):
            time.sleep(0.05)  # the threads of the process before come to rest
            count = epochs or self._counts[name]
            seconds[name] = ask(self._ends[name], count, self._shuffle)
            self._spent[name] += count * seconds[name]
        return {name: seconds[name] for name in names}

    def end(self) -> dict[str, Arrays]:
        """End the processes; return the parameters that they have trained."""
        parameters = {name: ask(end) for name, end in self._ends.items()}
        for end in self._ends.values():
            end.close()
        for process in self._processes:
            process.join(10)
        return parameters

    def _start(self, network: Network, name: str, folder: Path) -> Any:
        """Start the process of a competitor; return the end of its pipe."""
        spawn = multiprocessing.get_context("spawn")
        end, theirs = spawn.Pipe()
        process = spawn.Process(target=work, args=(theirs, network, name), daemon=True)
        try:
            with environment(intel_mkl(folder) if name == AVX512 else {}):
                process.start()
            self._processes.append(process)
        except (OSError, subprocess.CalledProcessError) as error:
            theirs.send(error)
        theirs.close()
        return end


def work(connection: Any, network: Network, name: str) -> None:
    """Train so many epochs, shuffled or not, and answer the seconds of one; or the parameters."""
    with suppress(EOFError):  # until the pipe is closed
        try:
            train, parameters = COMPETITORS[name](network)
            while True:
                epochs, *shuffle = connection.recv()
                if not epochs:
                    connection.send(parameters())
                    continue
                start = time.perf_counter()
                train(epochs, *shuffle)
                connection.send((time.perf_counter() - start) / epochs)
        except Exception as error:
            if isinstance(error, EOFError):
                raise
            lines = str(error).strip().splitlines()
            connection.send(ValueError(f"{type(error).__name__}: {lines[0] if lines else ''}"))


def ask(end: Any, epochs: int = 0, shuffle: bool = False) -> Any:
    """Let a process train; return the seconds of an epoch, or for 0 epochs its parameters.

    Raises:
        ValueError: it failed.
    """
    with suppress(OSError):  # the process may have ended; its last message says why
        end.send((epochs, shuffle))
    try:
        answer = end.recv()
    except (EOFError, OSError):
        raise ValueError("its process has ended") from None
    if isinstance(answer, Exception):
        raise ValueError(str(answer)) from answer
    return answer


def check(got: Arrays, want: Arrays, before: Arrays, most: float) -> None:
    """Raise ValueError if the change of θ differs by more than `most` of it."""
    start, one, other = (np.concatenate([t.ravel() for t in each]) for each in (before, got, want))
    difference = np.linalg.norm(one - other) / np.linalg.norm(other - start)
    if not difference < most:
        raise ValueError(f"its change of θ differs by {difference:.2g} of it")


@contextmanager
def one_core() -> Iterator[None]:
    """Start processes that have one core and one thread."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    with environment(ONE_THREAD):
        if cores:
            os.sched_setaffinity(0, {max(cores)})
        try:
            yield
        finally:
            if cores:
                os.sched_setaffinity(0, cores)


def intel_mkl(folder: Path) -> dict[str, str]:
    """Return variables with which MKL takes an AMD processor for Intel's, and so uses AVX-512.

    A library that is loaded first answers for MKL's own test (pytorch/builder, pull request 1245).
    """
    path = folder / "intel.so"
    source = "int mkl_serv_intel_cpu_true(void) { return 1; }"
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=source, text=True, check=True, capture_output=True)
    return {"LD_PRELOAD": str(path)}
