"""Processes of MPI: what they exchange, and how all end when one fails."""

import importlib.util
import socket
import sys

import pytest

from gpumlp.distributed.mpi import wheel_library
from tests.support.launching import WORKER, run, under_mpi

pytest.importorskip("mpi4py")

MODULE = ("-m", "gpumlp.distributed")
TIMEOUT = 1.5  # seconds
HOST = socket.gethostname()
WHERE = "(step 2, exchange of ∇W)"


def completed(ended):
    return sorted(line for line in ended.output.splitlines() if line.endswith("completed"))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_exchange_gather_share_and_broadcast_are_numpys(n):
    ended = under_mpi(n, *MODULE, WORKER, "check")
    assert ended.status == 0, ended.output
    assert completed(ended) == [f"rank {rank} of {n} completed" for rank in range(n)]


@pytest.mark.slow
def test_slow_rank_does_no_harm():
    ended = under_mpi(3, WORKER, "slow")
    assert ended.status == 0, ended.output
    assert len(completed(ended)) == 3
    assert ended.lines() == []


def test_exception_of_one_rank_ends_all():
    ended = under_mpi(3, *MODULE, WORKER, "raise")
    assert ended.status == 1
    assert ended.lines() == [f"gpumlp: rank 1 of 3 on {HOST}: ValueError: the fourth row {WHERE}"]
    frames = [line for line in ended.output.splitlines() if line.startswith("  File ")]
    assert frames[0].startswith(f'  File "{WORKER}"')  # the traceback begins in the script
    assert "    raise ValueError(" in ended.output
    assert completed(ended) == []


def test_sys_exit_of_one_rank_ends_all_with_its_status():
    ended = under_mpi(3, *MODULE, WORKER, "exit")
    assert ended.status == 3
    assert ended.lines() == [f"gpumlp: rank 1 of 3 on {HOST}: sys.exit(3) {WHERE}"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["raise", "stop"])
def test_time_out_names_the_rank_that_does_not_answer(how):
    """Without the module, a rank that raised waits in its exit for the others."""
    ended = under_mpi(3, WORKER, how, TIMEOUT)
    assert ended.status == 75
    assert 1 <= len(ended.lines()) <= 2
    for line in ended.lines():
        said, _, rest = line.partition(": exchange: ")
        assert said in [f"gpumlp: rank {rank} of 3 on {HOST}" for rank in (0, 2)]
        assert rest.startswith("no answer from rank 1 for 1.5 s; ")
        assert rest.endswith(WHERE)


def test_killed_rank_ends_all():
    ended = under_mpi(3, *MODULE, WORKER, "kill")
    assert ended.status == 9
    assert completed(ended) == []


def test_ctrl_c_interrupts_a_wait():
    """Rank 1 sleeps, and rank 0 is interrupted while it waits for it."""
    ended = under_mpi(2, *MODULE, WORKER, "interrupt")
    assert ended.status == 130
    line = f"gpumlp: rank 0 of 2 on {HOST}: interrupted by Ctrl-C {WHERE}"
    assert ended.lines() == [line]


def test_ctrl_c_of_a_terminal_ends_all():
    ended = under_mpi(2, *MODULE, WORKER, "wait", interrupt_after=0.3)
    assert ended.status != 0
    assert completed(ended) == []


def test_processes_that_another_mpi_launched_are_refused():
    """The variables say two processes, of Open MPI, but the library sees one."""
    command = [sys.executable, WORKER, "check"]
    ended = run(command, 120, OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="0")
    assert ended.status == 1
    assert "RuntimeError: 2 processes were launched, but " in ended.output
    assert "sees 1: each would train alone; use the mpiexec of the same library" in ended.output


def test_one_process_of_mpiexec_is_a_world_of_one():
    code = "import sys, gpumlp.distributed as d; print(d.world().size, 'mpi4py' in sys.modules)"
    assert under_mpi(1, "-c", code).output.strip() == "1 False"


def test_library_of_a_wheel_is_found():
    if importlib.util.find_spec("mpich") is None and wheel_library() is None:
        pytest.skip("no wheel of an MPI library")
    assert wheel_library().rpartition("/")[2].startswith("libmpi.")


@pytest.mark.slow
def test_process_that_never_starts_ends_the_others():
    """Rank 1 ends before MPI's start, in which MPICH waits for it without a limit."""
    script = (
        "import os, sys; os.environ['PMI_RANK'] == '1' and sys.exit(0); "
        f"import gpumlp; gpumlp.distributed.world(timeout={TIMEOUT})"
    )
    ended = under_mpi(2, "-c", script, within=30)
    assert ended.status == 1, ended.output
    assert "in import_mpi" in ended.output


@pytest.mark.slow
def test_ctrl_c_ends_a_wait_for_processes_that_start():
    script = (
        "import os, time, gpumlp; print('begins', flush=True); "
        "os.environ['PMI_RANK'] == '1' and time.sleep(60); gpumlp.distributed.world()"
    )
    ended = under_mpi(2, "-c", script, within=30, interrupt_after=1)
    assert ended.status != 0, ended.output
