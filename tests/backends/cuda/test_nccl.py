"""What is asked of NCCL, with a fake that moves the bytes between threads."""

from __future__ import annotations

import sys
import threading
import types
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda.device import CudaDevice
from gpumlp.backends.cuda.nccl import Nccl, cupy_nccl
from gpumlp.distributed.world import ALONE
from tests.support.fake_cublaslt import FakeCublasLt
from tests.support.fake_cupy import FakeArray, FakeCupy
from tests.support.harness.memory import aligned_empty

RANKS = 3
STREAM = 77


class FakeNccl:
    """NCCL for ranks in threads.  Messages of a group move when all ranks have ended theirs."""

    NCCL_UINT8 = 1

    class NcclError(RuntimeError):
        """As CuPy's."""

    def __init__(self, available: bool = True) -> None:
        self.ids, self.available = [bytes(range(128))], available
        self.barrier = threading.Barrier(RANKS, timeout=60)
        self.sent: dict[tuple[int, int], bytes] = {}
        self.local = threading.local()

    def get_unique_id(self) -> bytes:
        return self.ids[0]

    def NcclCommunicator(self, size: int, identity: Any, rank: int) -> FakeNccl:  # noqa: N802
        assert (size, identity) == (RANKS, self.ids[0])
        self.local.rank = rank
        return self

    def groupStart(self) -> None:  # noqa: N802
        self.local.receives = []

    def send(self, address: int, count: int, kind: int, to: int, stream: int) -> None:
        assert (kind, stream) == (self.NCCL_UINT8, STREAM)
        self.sent[self.local.rank, to] = memory(address, count).tobytes()

    def recv(self, address: int, count: int, kind: int, of: int, stream: int) -> None:
        assert (kind, stream) == (self.NCCL_UINT8, STREAM)
        self.local.receives.append((address, count, of))

    def bcast(self, address: int, count: int, kind: int, root: int, stream: int) -> None:
        if root == self.local.rank:
            for other in range(RANKS):
                self.send(address, count, kind, other, stream)
        else:
            self.recv(address, count, kind, root, stream)

    def groupEnd(self) -> None:  # noqa: N802
        self.barrier.wait()
        for address, count, of in self.local.receives:
            sent = self.sent[of, self.local.rank]
            assert len(sent) == count
            memory(address, count)[:] = np.frombuffer(sent, np.uint8)
        self.barrier.wait()


def memory(address: int, count: int) -> Any:
    interface = {"shape": (count,), "typestr": "|u1", "data": (address, False), "version": 3}
    return np.asarray(types.SimpleNamespace(__array_interface__=interface))


def on_ranks(work: Any) -> list[Any]:
    """work(communicator, rank) on all ranks; the results."""
    nccl = FakeNccl()
    found: list[Any] = [None] * RANKS

    def run(rank: int) -> None:
        world: Any = types.SimpleNamespace(
            rank=rank, size=RANKS, broadcast=lambda value: nccl.ids[0]
        )
        found[rank] = work(Nccl(nccl, world), rank)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(RANKS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return found


def array(values: Any) -> Any:
    made = aligned_empty(np.shape(values), np.float32).view(FakeArray)
    made[...] = values
    return made


@pytest.mark.parametrize("counts", [(2, 2, 2), (3, 0, 5), (0, 0, 4)])
def test_exchange(counts: tuple[int, ...]) -> None:
    n = sum(counts)

    def work(communicator: Nccl, rank: int) -> Any:
        received = array(np.full((RANKS, counts[rank]), -1))
        communicator.exchange(array(100 * rank + np.arange(n)), counts, received, STREAM)
        return np.array(received)

    starts = np.cumsum([0, *counts])
    for rank, received in enumerate(on_ranks(work)):
        own = np.arange(starts[rank], starts[rank + 1])
        np.testing.assert_array_equal(received, [100 * other + own for other in range(RANKS)])


@pytest.mark.parametrize("counts", [(2, 2, 2), (3, 0, 5), (0, 0, 4)])
def test_collect(counts: tuple[int, ...]) -> None:
    starts = np.cumsum([0, *counts])

    def work(communicator: Nccl, rank: int) -> Any:
        whole = array(np.full(sum(counts), -1))
        whole[starts[rank] : starts[rank + 1]] = 10 * rank + np.arange(counts[rank])
        communicator.collect(whole, counts, STREAM)
        return np.array(whole)

    want = np.concatenate([10 * rank + np.arange(counts[rank]) for rank in range(RANKS)])
    for whole in on_ranks(work):
        np.testing.assert_array_equal(whole, want)


def importable(monkeypatch: pytest.MonkeyPatch, nccl: FakeNccl) -> None:
    """CuPy's packages as Python imports them.  They have no attribute for the module of NCCL."""
    for name in ("cupy", "cupy.cuda"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", nccl)


def test_cupy_without_nccl_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    importable(monkeypatch, FakeNccl(available=False))
    with pytest.raises(gpumlp.DeviceError, match=r'pip install "gpumlp\[nccl13\]"'):
        cupy_nccl()


def test_errors_of_nccl_become_device_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    nccl, device = FakeNccl(), CudaDevice(FakeCupy(), FakeCublasLt())
    importable(monkeypatch, nccl)

    def fail(*_: Any) -> None:
        raise nccl.NcclError("NCCL_ERROR_SYSTEM_ERROR: unhandled system error")

    monkeypatch.setattr(nccl, "NcclCommunicator", fail)
    source = device.empty((4,), np.float32)
    with pytest.raises(gpumlp.DeviceError) as caught:
        device.exchange(ALONE, source, (4,), source)
    assert str(caught.value) == (
        "sending gradients to other GPUs: NCCL_ERROR_SYSTEM_ERROR: unhandled system error; after "
        "such an error the process must be restarted"
    )
