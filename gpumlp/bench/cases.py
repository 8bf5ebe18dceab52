"""The networks that are timed, with the FLOPs of one training step and the bytes it must move."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any, Self

import numpy as np

from gpumlp import checks
from gpumlp.functions import ACTIVATIONS
from gpumlp.functions.entry import lookup
from gpumlp.io.types import HostArray

SEED = 20_16
RATES = {"sgd": 0.01, "adamw": 1e-3}  # learning rates; no time depends on them
ITEM_BYTES = {"float64": 8, "float32": 4, "tf32": 4, "bfloat16": 2, "float16": 2}
# Numbers that the update reads and writes for each parameter, apart from the gradient. They have
# the type of the master weights. θ is read and written, and so is every slot of the optimizer.
MASTER_ACCESSES = {"sgd": 2, "adamw": 6}


@dataclass(frozen=True)
class Case:
    """One network and how it is trained.

    Attributes:
        name: name of the preset, or the widths.
        widths: n_0 … n_L.
        batch_size: examples in a step.
        activation, optimizer, precision, loss: names.
    """

    name: str
    widths: tuple[int, ...]
    batch_size: int
    activation: str = "relu"
    optimizer: str = "sgd"
    precision: str = "float32"
    loss: str = "softmax_cross_entropy"

    def __str__(self) -> str:
        return (
            f"{self.name}, minibatch {self.batch_size}, {self.activation}, {self.optimizer}, "
            f"{self.precision}"
        )

    @property
    def slug(self) -> str:
        """A name for files. No other case has the same one."""
        loss = "" if self.loss == "softmax_cross_entropy" else f"-{self.loss}"
        functions = f"{self.activation}-{self.optimizer}-{self.precision}{loss}"
        return f"{network_name(self.widths)}-m{self.batch_size}-{functions}"

    @property
    def parameters(self) -> int:
        """How many numbers θ has."""
        return sum(n_out * (n_in + 1) for n_in, n_out in pairwise(self.widths))

    @property
    def lr(self) -> float:
        """The learning rate of every competitor."""
        return RATES.get(self.optimizer, 1e-3)

    def products(self) -> list[tuple[int, int, int]]:
        """(m, n, k) of each matrix product (m, k) (k, n) of a step; layer 1 needs no gz W."""
        m, layers = self.batch_size, list(pairwise(self.widths))
        forward = [(m, n_out, n_in) for n_in, n_out in layers]
        weight_gradients = [(n_out, n_in, m) for n_in, n_out in layers]
        return forward + weight_gradients + [(m, n_in, n_out) for n_in, n_out in layers[1:]]

    def flops(self) -> int:
        """Multiplications and additions in the products of a step."""
        return sum(2 * m * n * k for m, n, k in self.products())

    def product_bytes(self) -> int:
        """Bytes that the products move if each operand and each result is moved once."""
        return ITEM_BYTES[self.precision] * sum(
            m * k + k * n + m * n for m, n, k in self.products()
        )

    def rest_bytes(self) -> int:
        """Bytes that a step must move outside its products.

        The minibatch is read and written, ŷ is read and its gradient written, and the update passes
        over θ once. All other work, on biases and activations, can be done within the products. The
        update of SGD can be done there too, so a step that does so may be faster than the floor.
        """
        item, m = ITEM_BYTES[self.precision], self.batch_size
        master = max(4, item)
        update = item + MASTER_ACCESSES[self.optimizer] * master + (item if item < 4 else 0)
        edges = 2 * m * self.widths[0] + 2 * m * self.widths[-1]
        return self.parameters * update + item * edges

    def theta(self) -> Iterator[tuple[str, HostArray]]:
        """The first θ of every competitor, float32: "0.weight" (n_1, n_0), "0.bias" (n_1,), …

        The weights are He's. The biases are small but not 0, so that the check notices a competitor
        that has none.
        """
        for layer, (n_in, n_out) in enumerate(pairwise(self.widths)):
            rng = np.random.default_rng([SEED, layer])
            W = rng.standard_normal((n_out, n_in), np.float32)
            W *= np.float32(math.sqrt(2 / n_in))
            yield f"{2 * layer}.weight", W
            yield f"{2 * layer}.bias", rng.uniform(-0.1, 0.1, n_out).astype(np.float32)

    def data(self) -> tuple[HostArray, HostArray]:
        """One minibatch: x (m, n_0) float32, normal; y labels (m,), or normal values (m, n_L)."""
        rng = np.random.default_rng(SEED)
        x = rng.standard_normal((self.batch_size, self.widths[0]), np.float32)
        if self.loss == "softmax_cross_entropy":
            return x, rng.integers(0, self.widths[-1], self.batch_size)
        return x, rng.standard_normal((self.batch_size, self.widths[-1]), np.float32)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The case with these fields, whose widths may be a list."""
        return cls(**{**fields, "widths": tuple(fields["widths"])})


def network_name(widths: Sequence[int]) -> str:
    """Text that `parse_widths` reads: "512x4" if all layers have one width, else "64-128-10"."""
    same = len(set(widths)) == 1
    return f"{widths[0]}x{len(widths) - 1}" if same else "-".join(map(str, widths))


WIDTHS = (512, 1024, 2048, 4096, 8192, 16384)
DEPTHS = (2, 4, 8, 16)
BATCH_SIZES = (64, 256, 1024, 4096, 16384)

PRESETS: dict[str, list[Case]] = {
    "small": [Case("small", (64, 128, 128, 10), 64)],
    "tabular": [Case("tabular", (512, 1024, 1024, 1), 1024, loss="squared_error")],
    "wide": [Case("wide", (8192,) * 9, m, "gelu", "adamw", "bfloat16") for m in (1024, 4096, 8192)],
    "launch": [Case("launch", (512,) * 5, 256, "relu", "adamw")],
    "grid": [
        Case(network_name((n,) * (L + 1)), (n,) * (L + 1), m, f, optimizer)
        for n, L, m, f, optimizer in product(
            WIDTHS, DEPTHS, BATCH_SIZES, ("relu", "gelu"), ("sgd", "adamw")
        )
    ],
}


def choose(
    presets: Sequence[str],
    widths: Sequence[str] = (),
    batch_sizes: Sequence[int] = (),
    precisions: Sequence[str] = (),
    optimizers: Sequence[str] = (),
    activations: Sequence[str] = (),
) -> list[Case]:
    """The cases of the presets, changed to every combination of the values that are given.

    An unknown name raises ValueError, which lists the known ones.
    """
    tables: dict[str, tuple[Sequence[str], Iterable[str]]] = {
        "case": (presets, PRESETS),
        "precision": (precisions, ITEM_BYTES),
        "optimizer": (optimizers, RATES),
    }
    for field, (names, known) in tables.items():
        for name in names:
            if name not in known:
                raise ValueError(f"unknown {field} {name!r}; the benchmark has: {', '.join(known)}")
    for activation in activations:
        lookup(ACTIVATIONS, "activation", activation)
    for batch_size in batch_sizes:
        checks.positive_int(batch_size, "batch_size")
    cases = [case for name in presets for case in PRESETS[name]]
    if widths:
        networks = [parse_widths(text) for text in widths]
        cases = [replace(c, name=network_name(n), widths=n) for c in cases for n in networks]
    given: dict[str, Sequence[Any]] = {
        "batch_size": batch_sizes, "precision": precisions,
        "optimizer": optimizers, "activation": activations,
    }  # fmt: skip
    for field, values in given.items():
        if values:
            cases = [replace(case, **{field: v}) for case in cases for v in values]
    return list(dict.fromkeys(cases))


def parse_widths(text: str) -> tuple[int, ...]:
    """The widths that a text means: (512, 512, 512) for "512x2", (64, 128, 10) for "64-128-10"."""
    try:
        if "x" in text:
            width, depth = map(int, text.split("x"))
            return checks.widths([width] * (depth + 1))
        return checks.widths([int(n) for n in text.split("-")])
    except ValueError as error:
        raise ValueError(
            f"widths must look like 512x4 (width x layers) or 64-128-10, got {text!r} ({error})"
        ) from None
