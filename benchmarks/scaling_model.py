"""The speed of a training on P GPUs by an alpha-beta model, beside P single GPUs.

    python -m benchmarks.scaling_model [--buckets N] [--fit FILE.json]

All numbers are of other people's measurements or stated; none was measured with gpumlp.

A ring collective (exchange or gather) of S bytes among P ranks takes (P - 1) alpha for its steps
and S (P - 1) / P / rate for its bytes:

- NVLink in a node of 8 H100: 370 GB/s (NVIDIA/nccl-tests#212), 3.4 µs a step (NCCL's tuning.cc).
- Between nodes: 45 GB/s a GPU, which has its own NIC: 46 to 48 GB/s (nccl-tests#290), and a ring
  over 4 nodes reaches 360 GB/s. Over 128 nodes it reaches 260 (NVIDIA/nccl#1229); between them the
  model loses the same for each doubling. 14 µs a step (tuning.cc).
- "flat" is one ring of all GPUs, which passes each node once. "two-level" goes within the nodes
  first; then each GPU exchanges an eighth of the bytes with those of its number in other nodes, in
  log2(nodes) steps as NCCL's algorithm PAT has them (NCCL 2.23, for one GPU a node).

The step is that of `Trainer(world=…)`: L layers of equal width in bfloat16, with AdamW. As soon as
the backward pass has the gradients of a bucket, a second stream exchanges them, updates this GPU's
piece of θ and gathers the result (2 bytes a parameter each), while the pass continues. The products
run at 700 TFLOP/s, 600 for minibatches below 4,096, and the update moves 28 bytes a parameter at
3.0 TB/s. The efficiency is (the time of one GPU, which updates all θ) / (the time of a step on P):
it is more than 1 where the shared update saves more than the communication costs.

--buckets sets the number of buckets; without it there is one a layer.  The columns "…, best" have
the number for which the step is shortest, since each bucket pays the latency.

--fit FILE.json replaces alpha and rate of a link by those that fit measured collectives:
{"nvlink": {"ranks": 8, "pairs": [[bytes, seconds], …]}, "network": {…}}.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.cli.output import print_table

NODE = 8  # GPUs
LAYERS = 8
UPDATE_BYTES = 28  # a parameter: AdamW with a float32 master and a bfloat16 copy
EXCHANGED = GATHERED = 2  # bytes a parameter: bfloat16
CASES = ((8192, 8192), (8192, 1024), (4096, 4096), (1024, 8192))  # width, minibatch of a GPU
GPUS = (8, 64, 256, 1024)


@dataclass(frozen=True)
class Link:
    """A link of a ring: the seconds of a step, and bytes a second."""

    alpha: float
    rate: float

    def seconds(self, size: float, ranks: int) -> float:
        """The time of a collective of so many bytes."""
        return (ranks - 1) * self.alpha + size * (ranks - 1) / ranks / self.rate


@dataclass(frozen=True)
class Machine:
    """GPUs in nodes; the network's rate is that of one GPU."""

    nvlink: Link = Link(3.4e-6, 370e9)
    network: Link = Link(14e-6, 45e9)
    half_rate: float = 700e12  # FLOP/s
    memory_rate: float = 3.0e12  # bytes/s

    def network_rate(self, nodes: int) -> float:
        """Bytes a second of one GPU: 1/18 less than over 4 nodes for each doubling."""
        return self.network.rate * (1 - max(0.0, math.log2(nodes / 4)) / 18)

    def flat(self, size: float, gpus: int) -> float:
        """Seconds of a collective in one ring."""
        nodes = math.ceil(gpus / NODE)
        if nodes == 1:
            return self.nvlink.seconds(size, gpus)
        steps = (gpus - nodes) * self.nvlink.alpha + (nodes - 1) * self.network.alpha
        rate = min(self.nvlink.rate, NODE * self.network_rate(nodes))
        return steps + size * (gpus - 1) / gpus / rate

    def two_level(self, size: float, gpus: int) -> float:
        """Seconds of a collective within the nodes, and of one between them."""
        nodes = math.ceil(gpus / NODE)
        within = self.nvlink.seconds(size, min(gpus, NODE))
        steps = math.ceil(math.log2(nodes)) * self.network.alpha
        return within + steps + size / NODE * (nodes - 1) / nodes / self.network_rate(nodes)


@dataclass(frozen=True)
class Step:
    """A training step of L layers of equal width."""

    width: int
    batch: int
    machine: Machine = Machine()
    layers: int = LAYERS

    @property
    def product(self) -> float:
        """Seconds of one product of a layer."""
        rate = self.machine.half_rate * (1 if self.batch >= 4096 else 6 / 7)
        return 2 * self.batch * self.width**2 / rate

    def update(self, parameters: float) -> float:
        """Seconds of the update of so many parameters."""
        return UPDATE_BYTES * parameters / self.machine.memory_rate

    def alone(self) -> float:
        """Seconds of a step on one GPU; the first layer needs no gradient of its input."""
        return (3 * self.layers - 1) * self.product + self.update(self.layers * self.width**2)

    def together(self, gpus: int, levels: str, buckets: int | None = None) -> float:
        """Seconds of a step on several GPUs.

        Args:
            gpus: their number.
            levels: "flat" or "two_level".
            buckets: their number, a divisor of that of the layers; None: one a layer.
        """
        buckets = buckets or self.layers
        size = self.layers // buckets * self.width**2  # parameters
        collective = getattr(self.machine, levels)
        shared = collective(EXCHANGED * size, gpus) + collective(GATHERED * size, gpus)
        now = self.layers * self.product  # the forward pass
        free = 0.0  # when the second stream has completed the buckets before
        for bucket in range(1, buckets + 1):
            products = 2 * self.layers // buckets - (bucket == buckets)
            now += products * self.product
            free = max(now, free) + shared + self.update(size / gpus)
        return max(now, free)

    def efficiency(self, gpus: int, levels: str, buckets: int | None = None) -> float:
        """The speed of P GPUs over P times that of one."""
        return self.alone() / self.together(gpus, levels, buckets)

    def best_buckets(self, gpus: int, levels: str) -> int:
        """The number of buckets with the shortest step."""
        divisors = [n for n in range(1, self.layers + 1) if self.layers % n == 0]
        return min(divisors, key=lambda n: self.together(gpus, levels, n))


def fitted(ranks: int, pairs: Sequence[Sequence[float]]) -> Link:
    """Return the link whose collectives have the least squares of relative errors.

    Args:
        ranks: how many took part.
        pairs: bytes and measured seconds; at least two sizes.
    """
    size, seconds = np.array(pairs, float).T
    columns = np.stack([np.full_like(size, ranks - 1), size * (ranks - 1) / ranks], 1)
    (alpha, beta), _, rank, _ = np.linalg.lstsq(
        columns / seconds[:, None], np.ones_like(seconds), rcond=None
    )
    if rank < 2 or alpha < 0 or beta <= 0:
        raise ValueError(
            f"no link has these times: alpha is {alpha:.3g} s, a byte takes {beta:.3g} s; measure "
            "several sizes, from some KB to some 100 MB"
        )
    return Link(float(alpha), float(1 / beta))


def machine_of(measured: dict[str, Any]) -> Machine:
    """Return the machine with links that fit the measurements, see the top of this file."""
    return Machine(**{name: fitted(m["ranks"], m["pairs"]) for name, m in measured.items()})


def rows(machine: Machine, buckets: int | None = None) -> list[tuple[str, ...]]:
    """The table: efficiencies by case and number of GPUs."""
    table = []
    for width, batch in CASES:
        step = Step(width, batch, machine)
        for gpus in GPUS:
            cells = []
            for levels in ("flat", "two_level"):
                best = step.best_buckets(gpus, levels)
                cells.append(f"{step.efficiency(gpus, levels, buckets):.2f}")
                cells.append(f"{step.efficiency(gpus, levels, best):.2f} ({best})")
            table.append((f"{width}, {batch}", str(gpus), *cells))
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Efficiency of training on several GPUs")
    divisors = [n for n in range(1, LAYERS + 1) if LAYERS % n == 0]
    parser.add_argument("--buckets", type=int, choices=divisors)
    parser.add_argument("--fit", type=Path, metavar="FILE.json")
    options = parser.parse_args(arguments)
    machine = machine_of(json.loads(options.fit.read_text())) if options.fit else Machine()
    for name in ("nvlink", "network"):
        link: Link = getattr(machine, name)
        print(f"{name}: {1e6 * link.alpha:.2f} µs a step, {link.rate / 1e9:.1f} GB/s")
    head = ["width, batch a GPU", "GPUs", "flat", "flat, best", "two-level", "two-level, best"]
    print_table(head, rows(machine, options.buckets))


if __name__ == "__main__":
    main()
