"""One rank of the tests of gpumlp.distributed.

    mpiexec -n 4 python world_worker.py HOW [TIMEOUT]

HOW is "check", which compares all operations with NumPy, or what rank 1 does in step 3, from which
on TIMEOUT holds.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import numpy as np

import gpumlp.distributed

COUNTS = ([3, 0, 5, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 7, 0, 0], [70_001, 1, 99_999, 2])
LARGE = 1_000_000  # entries of float32 a rank: 4 MB
SLOW, LONG = 1.0, 600.0  # seconds


def say(line):
    """Print a line in one piece: other ranks print to the same pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def values(seed, n, dtype):
    """The same values of a seed on every rank."""
    numbers = np.random.default_rng([20_16, seed]).integers(0, 200, n)
    return numbers.astype(dtype)


def check(world):
    """Compare all operations with what NumPy computes from the values of all ranks."""
    dtypes = [np.float32, np.float64, np.uint8]
    try:
        import ml_dtypes
    except ImportError:
        say("without bfloat16")
    else:
        dtypes.append(ml_dtypes.bfloat16)
    for dtype in dtypes:
        for counts in COUNTS:
            check_arrays(world, counts[: world.size], dtype)
    check_arrays(world, [LARGE] * world.size, np.float32)
    check_values(world)


def check_arrays(world, counts, dtype):
    world.doing = f"{np.dtype(dtype)}, pieces of {counts}"
    starts = np.cumsum([0, *counts])
    own = slice(starts[world.rank], starts[world.rank + 1])
    sources = [values(rank, starts[-1], dtype) for rank in range(world.size)]
    source = sources[world.rank].copy()
    source.flags.writeable = False  # as of a mapped file
    received = np.full((world.size, counts[world.rank]), 77, dtype)
    world.exchange(source, counts, received)
    expected = np.stack([each[own] for each in sources])
    assert received.tobytes() == expected.tobytes(), world.doing
    whole = np.full(starts[-1], 77, dtype)
    whole[own] = sources[0][own]
    world.gather(whole, counts)
    assert whole.tobytes() == sources[0].tobytes(), world.doing


def check_values(world):
    world.doing = "values"
    said = world.share({"rank": world.rank, "text": "é" * world.rank})
    assert said == [{"rank": rank, "text": "é" * rank} for rank in range(world.size)]
    assert world.share(None) == [None] * world.size
    assert world.broadcast("θ" if world.rank == 0 else None) == "θ"
    theta = np.asfortranarray(values(5, LARGE, np.float32).reshape(1000, -1))
    sent = {"θ": theta, "strided": theta[::7, ::3], "empty": theta[:0], "steps": [3, None]}
    got = world.broadcast(sent if world.rank == 0 else None)
    assert list(got) == list(sent)
    for name in ("θ", "strided", "empty"):
        np.testing.assert_array_equal(got[name], sent[name])
    assert got["steps"] == [3, None]
    assert got["θ"].flags.writeable
    locals_ = world.share(world.local_rank)  # all are on one machine
    assert sorted(locals_) == list(range(world.size))
    assert gpumlp.distributed.world() is world


def do(how):
    """What rank 1 does in place of an exchange."""
    if how == "raise":
        raise ValueError("the fourth row\nis bad")
    if how == "exit":
        sys.exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if how == "slow":
        time.sleep(SLOW)
    if how in ("wait", "interrupt"):
        time.sleep(LONG)


def steps(world, how, timeout):
    """Four exchanges; in the third, rank 1 does something else first."""
    source, received = np.arange(world.size), np.empty((world.size, 1), int)
    for step in range(4):
        world.doing = f"step {step}, exchange of ∇W"
        if step == 2:
            say("begins")
            world.timeout = timeout
            if world.rank == 1:
                do(how)
            elif how == "interrupt" and world.rank == 0:
                interrupt = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
                interrupt.start()
        world.exchange(source, [1] * world.size, received)
        assert (received == world.rank).all()


if __name__ == "__main__":
    how, *rest = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    world = gpumlp.distributed.world(timeout=LONG)
    if how.startswith("check"):
        check(world)
    if how != "check":
        steps(world, how.removeprefix("check-"), float(rest[0]) if rest else LONG)
    say(f"rank {world.rank} of {world.size} completed")
