"""What several processes with a GPU each send each other, by NCCL: messages that only move bytes.

The sums are our own kernels', so that bits do not depend on NCCL's version, topology or algorithm.
Source: NCCL's documentation, "Point-to-point communication" and "Using NCCL with CUDA graphs".
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from gpumlp.distributed.world import World
from gpumlp.errors import DeviceError
from gpumlp.io.types import Array


def cupy_nccl() -> Any:
    """CuPy's module of NCCL.  `import cupy` does not import it.

    Raises:
        DeviceError: CuPy does not find NCCL.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a missing NCCL: the error says more
        nccl = importlib.import_module("cupy.cuda.nccl")
    if not nccl.available:
        raise DeviceError(
            'several GPUs need NCCL, which CuPy does not find: pip install "gpumlp[nccl13]", '
            "or nccl12 beside CuPy for CUDA 12, or start one process"
        )
    return nccl


class Nccl:
    """The communicator of a world's GPUs.

    All ranks make it, and use it, at the same point and in the same order.  The first use sets up
    connections, so it must come before a step is captured: a training's first step is not.

    Args:
        nccl: what `cupy_nccl` returns.
        world: the processes; MPI or torch.distributed carries NCCL's unique id.
    """

    def __init__(self, nccl: Any, world: World) -> None:
        identity = world.broadcast(nccl.get_unique_id() if world.rank == 0 else None)
        self._nccl, self._world = nccl, world
        self._communicator = nccl.NcclCommunicator(world.size, identity, world.rank)

    def exchange(self, source: Array, counts: Sequence[int], received: Array, stream: int) -> None:
        """Enqueue `Sharing.exchange`."""
        own = counts[self._world.rank] * source.itemsize
        self._nccl.groupStart()
        for rank, (start, length) in enumerate(_bytes(source, counts)):
            if length:
                self._communicator.send(
                    source.data.ptr + start, length, self._nccl.NCCL_UINT8, rank, stream
                )
            if own:
                self._communicator.recv(
                    received.data.ptr + rank * own, own, self._nccl.NCCL_UINT8, rank, stream
                )
        self._nccl.groupEnd()

    def collect(self, whole: Array, counts: Sequence[int], stream: int) -> None:
        """Enqueue `Sharing.collect`."""
        self._nccl.groupStart()
        for rank, (start, length) in enumerate(_bytes(whole, counts)):
            if length:
                self._communicator.bcast(
                    whole.data.ptr + start, length, self._nccl.NCCL_UINT8, rank, stream
                )
        self._nccl.groupEnd()


def _bytes(a: Array, counts: Sequence[int]) -> list[tuple[int, int]]:
    """The first byte and the bytes of each rank's piece."""
    starts = accumulate(counts, initial=0)
    return [(start * a.itemsize, n * a.itemsize) for start, n in zip(starts, counts, strict=False)]
