"""GPUs on paper: what their data sheets say, and a device that computes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import log, prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends.cuda.plans import WORKSPACE_BYTES
from gpumlp.errors import did_you_mean, first_line, is_one_of
from gpumlp.io.types import Array

REACH = 2.5  # a multiprocessor can move so many times its part of the bandwidth
KIND = {"tf32": "tf32", "bfloat16": "half", "float16": "half"}


@dataclass(frozen=True)
class Gpu:
    """Numbers of a data sheet, or measured ones.

    Attributes:
        bandwidth: bytes per second.
        peak: FLOP per second of dense products: "float64", "float32", "tf32" and, for both 16-bit
            types, "half".
        products: (m, n, k, FLOP per second): measured products of one precision.  One of another
            shape is as fast as the measured one whose logarithms of m, n and k are the nearest.
        gap: seconds between an operation of a recorded step and the next one.
        update_rate: how fast the product of `weight_update` is, relative to other products.
    """

    name: str
    capability: str
    multiprocessors: int
    bandwidth: float
    peak: Mapping[str, float]
    products: tuple[tuple[int, int, int, float], ...] = ()
    gap: float = 0.0
    update_rate: float = 1.0

    def work(
        self, products: list[tuple[int, int, int]], moved: int, precision: str, updates: bool,
        multiprocessors: int,
    ) -> tuple[float, float, float]:  # fmt: skip
        """The seconds of an operation's products, those of the bytes that it moves, and its own.

        It multiplies while it moves bytes, so alone it takes the longer of the two times.

        updates: whether it is a `weight_update`.
        multiprocessors: how many it uses; 0: all.
        """
        share = multiprocessors / self.multiprocessors if multiprocessors else 1.0
        rate = self.update_rate if updates else 1.0
        multiplying = sum(
            2 * prod(shape) / (rate * self._rate(shape, precision)) for shape in products
        )
        moving = moved / self.bandwidth
        return multiplying, moving, max(multiplying / share, moving / min(1.0, REACH * share))

    def _rate(self, shape: tuple[int, int, int], precision: str) -> float:
        def distance(measured: tuple[int, int, int, float]) -> float:
            return sum(abs(log(a / b)) for a, b in zip(shape, measured[:3], strict=True))

        if self.products:
            return min(self.products, key=distance)[3]
        kind = KIND.get(precision, precision)
        if kind not in self.peak:
            raise ValueError(f"{self.name} has no rate of products in {precision}")
        return self.peak[kind]


_HOPPER = {"float64": 66.9e12, "float32": 66.9e12, "tf32": 494.7e12, "half": 989.4e12}
_AMPERE = {"float64": 19.5e12, "float32": 19.5e12, "tf32": 156e12, "half": 312e12}
GPUS = {  # of NVIDIA's data sheets, for SXM boards
    "a100": Gpu("NVIDIA A100 SXM 80 GB", "8.0", 108, 2.039e12, _AMPERE),
    "h100": Gpu("NVIDIA H100 SXM", "9.0", 132, 3.35e12, _HOPPER),
    "h200": Gpu("NVIDIA H200 SXM", "9.0", 132, 4.8e12, _HOPPER),
}


def gpu_named(name: str) -> Gpu:
    """The GPU of that name, or of a JSON file with the attributes of a `Gpu`.

    Raises:
        ValueError: there is no such name, or the file is not as described.
    """
    if isinstance(name, str) and name.endswith(".json"):
        return _read(Path(name))
    if not is_one_of(name, GPUS):
        hint = did_you_mean(str(name), GPUS)
        known = ", ".join(GPUS)
        raise ValueError(f"unknown device {name!r}; {hint}known: {known}, or a .json file")
    return GPUS[name]


def _read(path: Path) -> Gpu:
    names = ", ".join(each.name for each in fields(Gpu))
    try:
        gpu = Gpu(**json.loads(path.read_text(encoding="utf-8")))
        numbers = [gpu.bandwidth, gpu.update_rate, *gpu.peak.values()]
        numbers += [number for product in gpu.products for number in product]
        valid = all(number > 0 for number in numbers) and gpu.gap >= 0 and gpu.multiprocessors > 0
        valid = valid and all(len(product) == 4 for product in gpu.products)
    except OSError as error:
        raise ValueError(f"device {str(path)!r} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} does not describe a GPU ({first_line(error)}); it has an object with {names}"
        ) from error
    if not valid:
        raise ValueError(f"{path} does not describe a GPU: its rates must be positive numbers")
    return gpu


class PaperDevice:
    """A `Device` whose arrays have no memory, for programs that are planned and not run."""

    reserved = 2 * WORKSPACE_BYTES  # as `CupyDevice` has

    def __init__(self, gpu: Gpu) -> None:
        self.name, self.multiprocessors = gpu.name, gpu.multiprocessors
        self.usable = gpu.multiprocessors
        self.capability = gpu.capability

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """An array of zeros that all share one entry."""
        return np.broadcast_to(np.zeros((), dtype), shape)

    def fill(self, a: Array, value: float) -> None:
        """Nothing, as there is no memory."""

    def owns(self, a: Any) -> bool:
        """Nothing is an array of this device."""
        return False

    def upload(self, a: Array, out: Array) -> None:
        """Nothing, as there is no memory."""

    copy = upload

    def synchronize(self) -> None:
        """Nothing, as there is no work."""

    def free_memory(self) -> None:
        """None: it is not known."""
