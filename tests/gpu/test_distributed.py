"""Messages between processes by NCCL, on a device."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

import gpumlp
from gpumlp.backends import get_backend
from gpumlp.backends.cuda import nccl
from gpumlp.backends.declaration import Call
from gpumlp.distributed.world import ALONE
from tests.support.launching import under_mpi

WORKER = "tests/support/training_worker.py"


@pytest.fixture(autouse=True)
def _with_nccl() -> None:
    try:
        nccl.cupy_nccl()
    except gpumlp.DeviceError as error:
        pytest.skip(str(error))


def test_messages_of_one_rank_in_a_recorded_step() -> None:
    backend = get_backend("cupy")
    source = backend.asarray(np.arange(1000.0), np.float32)
    received = backend.full((1, 1000), 0, np.float32)
    calls = [
        Call(partial(backend.exchange, ALONE, source, (1000,), received)),
        Call(partial(backend.collect, ALONE, source, (1000,))),
    ]
    run = backend.compile({"": calls}, "")
    for start in (0.0, 1.0, 2.0):  # as it is, recorded, and replayed
        backend.asarray(np.arange(start, start + 1000), np.float32, out=source)
        run(1)
        np.testing.assert_array_equal(backend.to_host(received)[0], np.arange(start, start + 1000))


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_on_one_gpu_give_the_same_bits(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1")
    found = []
    for count in (1, processes):
        ended = under_mpi(count, WORKER, "bits", "cupy", within=240)
        assert ended.status == 0, ended.output
        found.append(json.loads(ended.output.splitlines()[-1]))
    assert found[0] == found[1]
