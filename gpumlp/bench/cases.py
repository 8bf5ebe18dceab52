"""What is timed: one training step of a network, with its FLOPs and the bytes it must move."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise, product
from typing import Any, Self

import numpy as np

from gpumlp import checks
from gpumlp.functions import ACTIVATIONS, OPTIMIZERS
from gpumlp.functions.entry import lookup
from gpumlp.io.types import HostArray

SEED = 20_16
RATES = {"sgd": 0.01, "adamw": 1e-3}  # learning rates; no time depends on them
ITEM_BYTES = {"float64": 8, "float32": 4, "tf32": 4, "bfloat16": 2, "float16": 2}
# accesses to memory, in numbers of the master's type, of one pass that updates one parameter,
# but for the gradient's: θ is read and written, and so is every slot
MASTER_ACCESSES = {"sgd": 2, "adamw": 6}


@dataclass(frozen=True)
class Case:
    """One network and how it is trained.

    Attributes:
        name: of the preset, or the widths.
        widths: n_0 … n_L.
        batch_size: examples a step.
        activation, optimizer, precision, loss: by name.
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
        """A file's name that no other case has."""
        loss = "" if self.loss == "softmax_cross_entropy" else f"-{self.loss}"
        functions = f"{self.activation}-{self.optimizer}-{self.precision}{loss}"
        return f"{network_name(self.widths)}-m{self.batch_size}-{functions}"

    @property
    def parameters(self) -> int:
        """Numbers in θ."""
        return sum(n_out * (n_in + 1) for n_in, n_out in pairwise(self.widths))

    @property
    def lr(self) -> float:
        """The learning rate of every competitor."""
        return RATES[self.optimizer]

    def products(self) -> list[tuple[int, int, int]]:
        """(m, n, k) of each matrix product (m, k) (k, n) of a step; layer 1 needs no W^T gz."""
        m, layers = self.batch_size, list(pairwise(self.widths))
        forward = [(m, n_out, n_in) for n_in, n_out in layers]
        weight_gradients = [(n_out, n_in, m) for n_in, n_out in layers]
        return forward + weight_gradients + [(m, n_in, n_out) for n_in, n_out in layers[1:]]

    def flops(self) -> int:
        """Multiplications and additions of a step's products."""
        return sum(2 * m * n * k for m, n, k in self.products())

    def product_bytes(self) -> int:
        """What the products move if each operand and result is moved once."""
        return ITEM_BYTES[self.precision] * sum(
            m * k + k * n + m * n for m, n, k in self.products()
        )

    def rest_bytes(self) -> int:
        """What a step must move besides: minibatch in, ŷ to its gradient, one pass of the update.

        Everything else, biases and activations, can be done within the products.  So can SGD's
        update, and a step that does that may beat this floor.
        """
        item, m = ITEM_BYTES[self.precision], self.batch_size
        master = max(4, item)
        update = item + MASTER_ACCESSES[self.optimizer] * master + (item if item < 4 else 0)
        edges = 2 * m * self.widths[0] + 2 * m * self.widths[-1]
        return self.parameters * update + item * edges

    def theta(self) -> Iterator[tuple[str, HostArray]]:
        """Every competitor's θ, float32, one tensor at a time: "0.weight", "0.bias", "2.weight", …

        Weights are He's; biases are small but not 0, so that leaving them out would show.
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

    def to_json(self) -> dict[str, Any]:
        """The fields, as JSON can hold them."""
        return {**asdict(self), "widths": list(self.widths)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """What `to_json` was made of."""
        return cls(**{**fields, "widths": tuple(fields["widths"])})


def network_name(widths: Sequence[int]) -> str:
    """What `parse_widths` reads: "512x4" for layers of one width, else "64-128-10"."""
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
    """The presets' cases, each with every combination of what is given in place of its own.

    Raises:
        ValueError: an unknown name, or widths that are none; the message lists what is known.
    """
    cases: list[Case] = []
    for name in presets:
        if name not in PRESETS:
            raise ValueError(f"unknown case {name!r}; known: {', '.join(PRESETS)}")
        cases += PRESETS[name]
    if widths:
        cases = [_with_widths(case, parse_widths(one)) for case in cases for one in widths]
    given: dict[str, Sequence[Any]] = {
        "batch_size": batch_sizes, "precision": precisions,
        "optimizer": optimizers, "activation": activations,
    }  # fmt: skip
    for field, values in given.items():
        _known(field, values)
        if values:
            cases = [replace(case, **{field: v}) for case in cases for v in values]
    return list(dict.fromkeys(cases))


def parse_widths(text: str) -> tuple[int, ...]:
    """(512, 512, 512) of "512x2", two layers; (64, 128, 10) of "64-128-10"."""
    try:
        if "x" in text:
            width, depth = map(int, text.split("x"))
            return checks.widths([width] * (depth + 1))
        return checks.widths([int(n) for n in text.split("-")])
    except ValueError as error:
        raise ValueError(
            f"widths must look like 512x4 (width x layers) or 64-128-10, got {text!r} ({error})"
        ) from None


def _with_widths(case: Case, widths: tuple[int, ...]) -> Case:
    return replace(case, name=network_name(widths), widths=widths)


def _known(field: str, values: Sequence[Any]) -> None:
    """Raise for a value that no case can have."""
    known: dict[str, Mapping[str, Any]] = {"precision": ITEM_BYTES, "optimizer": RATES}
    for value in values:
        if field == "activation":
            lookup(ACTIVATIONS, "activation", value)
        elif field == "batch_size":
            checks.positive_int(value, "batch_size")
        elif value not in known[field]:
            listed = ", ".join(known[field])
            raise ValueError(f"the benchmark has no {field} {value!r}; it has: {listed}")


assert set(RATES) <= set(OPTIMIZERS)
