"""An epoch of a residual, pre-norm, gated network on the CPU, beside torch.compile and JAX.

    python -m benchmarks.blocks [--write] [--rounds N] [--width N] [--depth N]

64 inputs, a first hidden layer, 8 residual layers of width 256 (layer norm, SwiGLU, skip), 10
classes; AdamW on minibatches of 256 of 12,800 examples, float32.  Each competitor's gradient is
compared with gpumlp's before it is timed.

- torch: `torch.compile` of the loss, fused AdamW; JAX: `jit` of an epoch by `lax.scan`, donated.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import gpumlp
from benchmarks.output import compare_with_gpumlp, note, write
from gpumlp.bench.timing import interleaved
from gpumlp.io.types import HostArray

M, ROWS, INPUTS, CLASSES, LR, BAR = 12_800, 256, 64, 10, 1e-3, 0.9

Epoch = Callable[[int], None]
Cost = Callable[[], tuple[float, HostArray]]
"""J of the first minibatch, and its gradient of the first W, before the training."""


def network(width: int, depth: int) -> gpumlp.MLP:
    """The network before the training."""
    widths = [INPUTS, *[width] * (depth + 1), CLASSES]
    gates = [None, *["silu"] * depth]
    return gpumlp.MLP(
        widths, "silu", norm="layer", residual=True, gated=gates, backend="cpu", seed=0
    )  # fmt: skip


def order(epoch: int) -> HostArray:
    """The minibatches of an epoch, (steps, rows)."""
    return np.random.default_rng([0, epoch]).permutation(M).reshape(-1, ROWS)


def ours(net: gpumlp.MLP, x: HostArray, y: HostArray) -> tuple[Epoch, Cost]:
    """A `Trainer`."""
    trainer = gpumlp.Trainer(net, "adamw", lr=LR, batch_size=ROWS)

    def cost() -> tuple[float, HostArray]:
        J, grads = net.cost_and_gradients(x[:ROWS], y[:ROWS])
        return J, grads.W[0]

    return lambda epoch: trainer.fit(x, y, 1, metric=None, progress=False), cost  # type: ignore[return-value]


def in_torch(net: gpumlp.MLP, x: HostArray, y: HostArray) -> tuple[Epoch, Cost]:
    """torch, with the tensors of the network."""
    import torch
    from torch.nn import functional as F  # noqa: N812  (torch's own documentation)

    p = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in net.tensors().items()}
    X, Y, L = torch.tensor(x), torch.tensor(y), net.L

    def loss(x: Any, y: Any) -> Any:
        h = F.silu(F.linear(x, p["0.weight"], p["0.bias"]))
        for k in range(1, L):
            name, shape = str(2 * k), h.shape[-1:]
            n = F.layer_norm(h, shape, p[f"{name}.norm.weight"], p[f"{name}.norm.bias"], 1e-5)
            z = F.linear(n, p[f"{name}.weight"], p[f"{name}.bias"])
            if k < L - 1:
                a, b = z.chunk(2, dim=-1)
                h = h + a * F.silu(b)
        return F.cross_entropy(z, y)

    compiled = torch.compile(loss)
    optimizer = torch.optim.AdamW(p.values(), lr=LR, weight_decay=0.01, fused=True)

    def cost() -> tuple[float, HostArray]:
        optimizer.zero_grad()
        J = compiled(X[:ROWS], Y[:ROWS])
        J.backward()
        grad = p["0.weight"].grad
        assert grad is not None
        return J.item(), grad.numpy().copy()

    def run(epoch: int) -> None:
        for index in torch.tensor(order(epoch)):
            optimizer.zero_grad()
            compiled(X[index], Y[index]).backward()
            optimizer.step()

    return run, cost


def in_jax(net: gpumlp.MLP, x: HostArray, y: HostArray) -> tuple[Epoch, Cost]:
    """JAX: one call for an epoch."""
    import jax
    import jax.numpy as jnp
    import optax

    optimizer = optax.adamw(LR, weight_decay=0.01)
    X, Y, L = jnp.asarray(x), jnp.asarray(y), net.L
    params = {k: jnp.asarray(v) for k, v in net.tensors().items()}

    def loss(p: Any, index: Any) -> Any:
        h = jax.nn.silu(X[index] @ p["0.weight"].T + p["0.bias"])
        for k in range(1, L):
            name = str(2 * k)
            d = h - h.mean(-1, keepdims=True)
            n = d * jax.lax.rsqrt((d * d).mean(-1, keepdims=True) + 1e-5)
            n = n * p[f"{name}.norm.weight"] + p[f"{name}.norm.bias"]
            z = n @ p[f"{name}.weight"].T + p[f"{name}.bias"]
            if k < L - 1:
                a, b = jnp.split(z, 2, axis=-1)
                h = h + a * jax.nn.silu(b)
        return optax.softmax_cross_entropy_with_integer_labels(z, Y[index]).mean()

    def epoch(p: Any, state: Any, indices: Any) -> Any:
        def step(carry: Any, index: Any) -> tuple[Any, None]:
            p, state = carry
            updates, state = optimizer.update(jax.grad(loss)(p, index), state, p)
            return (optax.apply_updates(p, updates), state), None

        return jax.lax.scan(step, (p, state), indices)[0]

    compiled = jax.jit(epoch, donate_argnums=(0, 1))
    J, grads = jax.value_and_grad(loss)(params, np.arange(ROWS))
    first = float(J), np.asarray(grads["0.weight"])
    now = [params, jax.jit(optimizer.init)(params)]

    def run(number: int) -> None:
        now[:] = jax.block_until_ready(compiled(*now, order(number)))

    return run, lambda: first


def main() -> None:
    """Time all competitors, and print a table and whether the bar is met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=8, help="residual layers")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rng, net = np.random.default_rng(0), network(options.width, options.depth)
    x, y = rng.normal(size=(M, INPUTS)).astype("f4"), rng.integers(0, CLASSES, M)
    made = {
        "torch.compile": in_torch(net, x, y), "jax": in_jax(net, x, y), "gpumlp": ours(net, x, y),
    }  # fmt: skip
    J, gradient = made["gpumlp"][1]()
    for name, (_, cost) in made.items():
        other, theirs = cost()
        off = np.linalg.norm(theirs - gradient) / np.linalg.norm(gradient)
        if abs(other - J) > 1e-4 * abs(J) or off > 1e-4:
            raise RuntimeError(f"{name} has J {other}, not {J}, or a gradient that is {off} off")
    numbers = dict.fromkeys(made, 0)

    def timed(name: str) -> None:
        numbers[name] += 1
        made[name][0](numbers[name])

    timings = interleaved(
        {name: lambda name=name: timed(name) for name in made}, options.rounds, warmup=1
    )
    table = compare_with_gpumlp(f"an epoch of {M // ROWS} steps", timings)
    fastest = max(timings["gpumlp"].ratio(timings[name]) for name in ("torch.compile", "jax"))
    print(f"at most {BAR} of the faster: {fastest:.2f}, {'met' if fastest <= BAR else 'not met'}")
    note()
    write("blocks", {"width": options.width, "depth": options.depth, "bar": BAR, "epoch": table})


if __name__ == "__main__":
    main()
