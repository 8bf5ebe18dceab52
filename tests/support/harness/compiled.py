"""The library's kernels, compiled at the first request: all kernels of a storage type together.

GPUMLP_SANITIZE ("address,undefined" or "thread") compiles them with that sanitizer.  Then a few
representatives stand for each table of functions, because the sanitizer checks the loops and not
the mathematics.  With GPUMLP_KERNELS=device the kernels are launched
on a GPU.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import groupby

from gpumlp.backends.cuda.source import CASTS, KernelSource
from tests.support.harness.catalogue import CATALOGUE
from tests.support.harness.host_module import HostKernel, HostModule
from tests.support.harness.on_device import DeviceKernel

ON_DEVICE = os.environ.get("GPUMLP_KERNELS", "") == "device"
SANITIZE = os.environ.get("GPUMLP_SANITIZE", "")
PROCESSES = 2  # of g++ in parallel
REPRESENTATIVES = {
    "gather", "reduce", "round", "average", "orthogonal", "step", "softmax", "silu",
    "layer norm", "rms norm", "batch norm", "whole batch norm", "gate of silu", "dropout",
    "embedding", "penalty elastic_net",
    "huber of values", "huber of labels",
    "softmax_cross_entropy of values", "softmax_cross_entropy of labels",
    "update by sgd", "update by momentum", "update by adamw",  # 0, 1 and 2 slots
    "update by adamw with slots of bfloat16", "update by adamw with a gradient of float32",
    "update by adamw with groups",
    "penalty elastic_net with a gradient of float32", *(f"cast from {source}" for source in CASTS),
}  # fmt: skip
_others: dict[KernelSource, HostModule] = {}


def kernel(name: str, source: KernelSource) -> HostKernel | DeviceKernel:
    """The kernel `name` of `source`.  A source that is not in the catalogue compiles in 0.5 s."""
    if ON_DEVICE:
        return DeviceKernel(name, source)
    if source in _in_catalogue(source.dtype):
        return _catalogue()[source.dtype].result().get_kernel(name, source)
    precompile([source])
    return _others[source].get_kernel(name, source)


def precompile(sources: Iterable[KernelSource]) -> None:
    """Compile sources that are not in the catalogue, those of one storage type together."""
    missing = {s for s in sources if s not in _others and s not in _in_catalogue(s.dtype)}
    ordered = sorted(missing, key=lambda s: (s.dtype, s.text()))
    batches = [list(group) for _, group in groupby(ordered, key=lambda s: s.dtype)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        for batch, module in zip(batches, pool.map(_compile, batches), strict=True):
            _others.update(dict.fromkeys(batch, module))


@cache
def _in_catalogue(dtype: str) -> frozenset[KernelSource]:
    return frozenset(s for name, s in CATALOGUE[dtype].items() if _together(name, dtype))


def _together(name: str, dtype: str) -> bool:
    """Whether the source is compiled together with the others of its storage type."""
    if SANITIZE == "thread":
        return name in REPRESENTATIVES and not re.search("cast|slots|groups", name)
    if SANITIZE and dtype in ("float32", "bfloat16"):  # kernels see them as float64 or float16
        return "cast" in name
    return not SANITIZE or name in REPRESENTATIVES


@cache
def _catalogue() -> dict[str, Future[HostModule]]:
    """The module of each storage type.  While a test uses one, the others are compiled."""
    dtypes = ["float32"] if SANITIZE == "thread" else list(CATALOGUE)
    pool = ThreadPoolExecutor(PROCESSES)
    return {dtype: pool.submit(_compile, _in_catalogue(dtype)) for dtype in dtypes}


def _compile(sources: Iterable[KernelSource]) -> HostModule:
    return HostModule(sorted(sources, key=lambda s: s.text()), SANITIZE)
