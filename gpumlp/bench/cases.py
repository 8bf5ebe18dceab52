"""The networks that are timed, with the FLOPs of one training step and the bytes it must move."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, product
from types import SimpleNamespace
from typing import Any, Self

import numpy as np

from gpumlp import checks
from gpumlp.functions import ACTIVATIONS, LOSSES, OPTIMIZERS, REGULARIZERS
from gpumlp.functions.entry import lookup
from gpumlp.io.types import HostArray
from gpumlp.step.program import Buffer, Program
from gpumlp.step.settings import Settings, described
from gpumlp.step.tables import Tables
from gpumlp.step.training import TrainingStep

SEED = 20_16
RATES = {"sgd": 0.01, "adamw": 1e-3}  # learning rates; no time depends on them
ITEM_BYTES = {"float64": 8, "float32": 4, "tf32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Case:
    """One network and how it is trained.

    Attributes:
        widths: n_0 … n_L.
        batch_size: examples in a step.
        activation, optimizer, precision, loss: names.
        busy: as many other processes as there are cores compute meanwhile.
    """

    name: str
    widths: tuple[int, ...]
    batch_size: int
    activation: str = "relu"
    optimizer: str = "sgd"
    precision: str = "float32"
    loss: str = "softmax_cross_entropy"
    busy: bool = False

    def __str__(self) -> str:
        return (
            f"{self.name}, minibatch {self.batch_size}, {self.activation}, {self.optimizer}, "
            f"{self.precision}{', other processes compute' if self.busy else ''}"
        )

    @property
    def slug(self) -> str:
        """A name for files. No other case has the same one."""
        loss = "" if self.loss == "softmax_cross_entropy" else f"-{self.loss}"
        functions = f"{self.activation}-{self.optimizer}-{self.precision}{loss}"
        functions += "-busy" if self.busy else ""
        return f"{network_name(self.widths)}-m{self.batch_size}-{functions}"

    @property
    def lr(self) -> float:
        """The learning rate of every competitor."""
        return RATES.get(self.optimizer, 1e-3)

    @property
    @cache  # noqa: B019  (there are few cases, and they hold no arrays)
    def program(self) -> Program:
        """The operations of a step, with the fields of this case."""
        dtype = np.dtype("float64" if self.precision == "float64" else "float32")
        # of a 16-bit type only the size matters
        storage = np.dtype(np.float16) if ITEM_BYTES[self.precision] == 2 else dtype
        backend = SimpleNamespace(
            dtype=dtype, storage=storage, scales_loss=False, folds=True, branches=0, row_flops=0,
            pre_activation=lambda f, m, n: ((m, n), storage) if "z" in f.reads else None,
        )  # fmt: skip
        hidden = [ACTIVATIONS[self.activation]] * (len(self.widths) - 2)
        f = (None, *hidden, ACTIVATIONS["identity"])
        loss, omega = LOSSES[self.loss], REGULARIZERS["none"]
        net = SimpleNamespace(
            widths=self.widths, f=f, loss=loss, regularizer=omega, blocks=(), embed=None
        )
        step = TrainingStep(Settings(
            described(net, backend), OPTIMIZERS[self.optimizer],
            accumulate=1, clip_norm=None, groups={}, rates={1.0}, ema=None, slot_type=dtype,
            low_memory=False, fold=None,
        ))  # fmt: skip
        m, labels = self.batch_size, loss.target == "class"
        y = (m,) if labels else (m, self.widths[-1])
        data = (Buffer("x", (m, self.widths[0]), storage), Buffer("y", y, dtype))
        target = np.dtype(np.int32) if labels else dtype
        kinds = storage, target
        tables = Tables(backend, *data, kinds, (False, False), False, m, m, numbers=5)
        return step.plans(tables, m)["sequential"].program

    def products(self) -> list[tuple[int, int, int]]:
        """(m, n, k) of each matrix product (m, k) (k, n) of a step."""
        return [product for op in self.program for product in op.products]

    def flops(self) -> int:
        """Multiplications and additions in the products of a step."""
        return sum(op.flops for op in self.program)

    def product_bytes(self) -> int:
        """Bytes that the products move if each operand and each result is moved once."""
        return ITEM_BYTES[self.precision] * sum(
            m * k + k * n + m * n for m, n, k in self.products()
        )

    def rest_bytes(self) -> int:
        """Bytes that a step must move in its operations without products.

        The minibatch is gathered, ŷ is read and its gradient written, and the update passes over θ,
        but not over the weights if a product updates them. All other work, on biases and
        activations, can be done within the products.
        """
        return sum(op.bytes for op in self.program if not op.products)

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
    "busy": [Case("busy", (27, 256, 256, 2), 64, "relu", "adamw", busy=True)],
    "grid": [
        Case(network_name((n,) * (L + 1)), (n,) * (L + 1), m, f, optimizer)
        for n, L, m, f, optimizer in product(
            WIDTHS, DEPTHS, BATCH_SIZES, ("relu", "gelu"), ("sgd", "adamw")
        )
    ],
}


def choose(
    presets: Sequence[str], widths: Sequence[str] = (), batch_sizes: Sequence[int] = (),
    precisions: Sequence[str] = (), optimizers: Sequence[str] = (), activations: Sequence[str] = (),
) -> list[Case]:  # fmt: skip
    """The cases of the presets, changed to every combination of the values that are given.

    An unknown name raises ValueError, which lists the known ones.
    """
    given: dict[str, Sequence[Any]] = {
        "case": presets, "batch_size": batch_sizes, "precision": precisions,
        "optimizer": optimizers, "activation": activations,
    }  # fmt: skip
    tables: dict[str, Mapping[str, Any]] = {
        "case": PRESETS, "precision": ITEM_BYTES, "optimizer": RATES,
    }  # fmt: skip
    for field, known in tables.items():
        for name in given[field]:
            if name not in known:
                raise ValueError(f"unknown {field} {name!r}; the benchmark has: {', '.join(known)}")
    for activation in activations:
        lookup(ACTIVATIONS, "activation", activation)
    for batch_size in batch_sizes:
        checks.positive_int(batch_size, "batch_size")
    cases = [case for name in given.pop("case") for case in PRESETS[name]]
    if widths:
        networks = [parse_widths(text) for text in widths]
        cases = [replace(c, name=network_name(n), widths=n) for c in cases for n in networks]
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
