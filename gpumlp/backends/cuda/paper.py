"""GPUs on paper: what their data sheets say, and a device that computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends.cuda.protocol import TileKernel
from gpumlp.backends.cuda.tiles import ARCHITECTURES, TileSource
from gpumlp.errors import did_you_mean
from gpumlp.io.types import Array

KIND = {"tf32": "tf32", "bfloat16": "half", "float16": "half"}


@dataclass(frozen=True)
class Gpu:
    """Numbers of a data sheet.

    Attributes:
        capability: the compute capability.
        bandwidth: bytes per second.
        peak: FLOP per second of dense products: "float64", "float32", "tf32" and, for both 16-bit
            types, "half".
    """

    name: str
    capability: str
    multiprocessors: int
    bandwidth: float
    peak: Mapping[str, float]

    def seconds(self, flops: int, moved: int, precision: str) -> float:
        """The least time of work: that of its products or that of its bytes."""
        return max(flops / self.peak[KIND.get(precision, precision)], moved / self.bandwidth)


_HOPPER = {"float64": 66.9e12, "float32": 66.9e12, "tf32": 494.7e12, "half": 989.4e12}
_AMPERE = {"float64": 19.5e12, "float32": 19.5e12, "tf32": 156e12, "half": 312e12}
GPUS = {  # of NVIDIA's data sheets, for SXM boards
    "a100": Gpu("NVIDIA A100 SXM 80 GB", "8.0", 108, 2.039e12, _AMPERE),
    "h100": Gpu("NVIDIA H100 SXM", "9.0", 132, 3.35e12, _HOPPER),
    "h200": Gpu("NVIDIA H200 SXM", "9.0", 132, 4.8e12, _HOPPER),
}


def gpu_named(name: str) -> Gpu:
    """The GPU; ValueError if there is no such name."""
    if name not in GPUS:
        hint = did_you_mean(str(name), GPUS)
        raise ValueError(f"unknown device {name!r}; {hint}known: {', '.join(GPUS)}")
    return GPUS[name]


class PaperDevice:
    """A `Device` whose arrays have no memory, for programs that are planned and not run."""

    reserved = 0

    def __init__(self, gpu: Gpu) -> None:
        self.name, self.multiprocessors = gpu.name, gpu.multiprocessors
        self._capability = gpu.capability

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """An array of zeros that all share one entry."""
        return np.broadcast_to(np.zeros((), dtype), shape)

    def tile_kernel(self, source: TileSource) -> TileKernel | None:
        """A kernel that cannot run, where the GPU has code for it."""
        return _nothing if self._capability in ARCHITECTURES else None

    def owns(self, a: Any) -> bool:
        """Nothing is an array of this device."""
        return False


def _nothing(blocks: int, arguments: tuple[Any, ...]) -> None:
    raise NotImplementedError("a device on paper computes nothing")
