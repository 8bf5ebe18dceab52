"""A world in one process: which one it is, its waits, time-outs and errors."""

import io
import subprocess
import sys

import numpy as np
import pytest

import gpumlp.distributed
from gpumlp.distributed import Launch, World, ending_together, launch
from gpumlp.distributed.world import CROWDED, SPIN, pause
from tests.support.launching import environment, run

TORCH = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
HYDRA = {"PMI_RANK": "3", "PMI_SIZE": "8"}
SRUN = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "16", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Launch()),
        (TORCH, Launch("torch", 4, 0)),
        (TORCH | {"LOCAL_RANK": "1"} | SRUN, Launch("torch", 4, 1)),  # srun … torchrun
        (TORCH | {"WORLD_SIZE": "1"}, Launch()),
        ({"RANK": "1", "WORLD_SIZE": "4"}, Launch()),  # not torchrun's: no address
        (HYDRA, Launch("mpi", 8, None)),
        (HYDRA | {"MPI_LOCALRANKID": "2"} | SRUN, Launch("mpi", 8, 2)),  # mpiexec by srun
        ({"PMI_SIZE": "1"}, Launch()),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}, Launch("mpi", 2, 1)),
        ({"MV2_COMM_WORLD_SIZE": "2"}, Launch("mpi", 2, None)),
        (SRUN, Launch("mpi", 16, 1)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "16"}, Launch()),  # a batch script without srun
        ({"PMIX_RANK": "0"}, Launch("mpi", None, None)),
        ({"PMI_SIZE": "", "PMIX_RANK": ""}, Launch()),  # as `export PMI_SIZE=` leaves them
        (TORCH | {"WORLD_SIZE": ""} | HYDRA, Launch("mpi", 8, None)),
        (TORCH | {"LOCAL_RANK": ""}, Launch("torch", 4, 0)),
    ],
)
def test_the_environment_decides(variables, expected):
    assert launch(variables) == expected


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"PMI_SIZE": "two"},
            "PMI_SIZE in the environment must be a whole number, .* got 'two'; u",
        ),
        (HYDRA | {"MPI_LOCALRANKID": "0.5"}, "MPI_LOCALRANKID in the environment .* got '0.5'"),
        (TORCH | {"RANK": "x"}, "RANK in the environment must be a whole number"),
        (TORCH | {"RANK": "4"}, "RANK=4 and WORLD_SIZE=4 in the environment contradict"),
    ],
)
def test_variables_that_no_launcher_sets_are_named(variables, said):
    """The error was "invalid literal for int()", also of an empty variable."""
    with pytest.raises(ValueError, match=said):
        launch(variables)


def test_world_of_one_is_made_once_and_imports_nothing():
    code = (
        "import sys, gpumlp; world = gpumlp.distributed.world; w = world(timeout=5); "
        "print(w.rank, w.size, w.local_rank, w.timeout, world() is w, world().timeout, "
        "world(timeout=7).timeout, 'mpi4py' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=environment(), timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == ["0", "1", "0", "5", "True", "5", "7", "False", "False"]


def test_world_of_one_exchanges_with_itself():
    world = World()
    source, received = np.arange(5.0), np.zeros((1, 5))
    world.exchange(source, [5], received)
    np.testing.assert_array_equal(received[0], source)
    world.gather(source, [5])
    np.testing.assert_array_equal(source, np.arange(5.0))
    assert world.share("a") == ["a"]
    assert world.broadcast(source) is source


@pytest.mark.parametrize(
    ("library", "made", "extra"),
    [("mpi4py", HYDRA, "distributed"), ("torch", TORCH, "torch")],
)
def test_missing_library_is_named_with_its_extra(library, made, extra, monkeypatch):
    monkeypatch.setattr(gpumlp.distributed, "launch", lambda: launch(made))
    monkeypatch.setattr(gpumlp.distributed, "_worlds", [])
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf'need {library}: pip install "gpumlp\[{extra}\]"'):
        gpumlp.distributed.world()


@pytest.mark.parametrize(
    ("source", "counts", "received", "said"),
    [
        (np.zeros(4), [2, 2], np.zeros((1, 4)), "counts must be 1 numbers, one a rank, not [2, 2]"),
        (np.zeros(4), [5], np.zeros((1, 5)), "source has shape (4,) but counts need (5,)"),
        (np.zeros(4), [4], np.zeros((4, 1)), "received has shape (4, 1) but counts need (1, 4)"),
        (np.zeros(8)[::2], [4], np.zeros((1, 4)), "source is not C-contiguous; "),
        (np.zeros(4), [4], np.zeros((1, 4), "f4"), "received is float32 but source is float64"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(source, counts, received, said):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (compared below)
        World().exchange(source, counts, received)
    assert str(caught.value).startswith(said)


def test_gather_refuses_arrays_that_do_not_fit():
    with pytest.raises(ValueError, match=r"whole has shape \(4,\) but counts need \(3,\)"):
        World().gather(np.zeros(4), [3])


@pytest.fixture(autouse=True)
def _no_wait_for_rank_0(monkeypatch):
    monkeypatch.setattr("gpumlp.distributed.together.LATER", 0.0)


class Clock:
    """A clock that goes on by 1 µs when it is read, and by the time of a pause."""

    def __init__(self):
        self.now, self.away, self.pauses = 0.0, 0.0, []

    def perf_counter(self):
        self.now += 1e-6
        return self.now

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds

    def sched_yield(self):
        self.pauses.append("yield")
        self.now += self.away


@pytest.fixture
def clock(monkeypatch):
    found, module = Clock(), sys.modules[World.__module__]
    monkeypatch.setattr(module, "time", found)
    monkeypatch.setattr(module, "_crowded_until", 0.0)
    monkeypatch.setattr("os.sched_yield", found.sched_yield, raising=False)
    return found


class Deaf:
    """Rank 1 of three, whose exchange never ends, or ends in an error."""

    rank, size, local_rank = 1, 3, 1
    broken = (ConnectionError,)

    def __init__(self, missing=(), error=None, complete=lambda: False):
        self.absent, self.error, self.complete = list(missing), error, complete

    def exchange(self, source, counts, received):
        return self

    def end(self, status):
        raise SystemExit(status)

    def done(self):
        if self.error:
            raise self.error
        return self.complete()

    def missing(self):
        return self.absent


def exchanged(world):
    world.host, world.doing = "node7", "step 12, exchange of ∇W"
    world.exchange(np.zeros(3), [1, 1, 1], np.zeros((3, 1)))


@pytest.mark.parametrize(
    ("missing", "named"),
    [([], "the other ranks"), ([2], "rank 2"), ([0, 2], "ranks 0, 2"),
     (range(20), "ranks 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, …")],
)  # fmt: skip
def test_time_out_ends_with_one_line(missing, named, capsys, clock):
    with pytest.raises(SystemExit) as ended:
        exchanged(World(Deaf(missing), timeout=0.05))
    assert 0.05 <= clock.now < 0.0511
    assert ended.value.code == 75
    assert capsys.readouterr().err == (
        f"gpumlp: rank 1 of 3 on node7: exchange: no answer from {named} for 0.05 s; if they are "
        "only slow, use gpumlp.distributed.world(timeout=0.1) (step 12, exchange of ∇W)\n"
    )


def test_lost_connection_ends_with_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        exchanged(World(Deaf(error=ConnectionError("reset by peer"))))
    assert ended.value.code == 75
    assert capsys.readouterr().err == (
        "gpumlp: rank 1 of 3 on node7: exchange failed: reset by peer; look for errors of other "
        "ranks (step 12, exchange of ∇W)\n"
    )


def test_ctrl_c_acts_in_a_wait_and_the_world_is_not_used_again():
    """Else the next exchange could get what was meant for the one that was interrupted."""
    transport = Deaf(error=KeyboardInterrupt())
    world = World(transport)
    with pytest.raises(KeyboardInterrupt):
        exchanged(world)
    transport.error, transport.complete = None, lambda: True
    with pytest.raises(RuntimeError, match="ended an earlier wait for other ranks"):
        exchanged(world)


@pytest.mark.parametrize("after", [5e-6, 1e-3, 0.04])
def test_wait_ends_soon_after_the_transfer(after, clock):
    """A process sleeps for at most an eighth of what it has waited, and at most 1 ms."""
    exchanged(World(Deaf(complete=lambda: clock.now > after)))
    assert after < clock.now < after + min(after / 7, 1e-3) + 2e-6


def test_pauses_grow_to_a_millisecond(clock):
    for waited in (0.0, 0.9 * SPIN, 4e-3, 1.0, 100.0):
        pause(waited)
    assert clock.pauses == ["yield", "yield", 5e-4, 1e-3, 1e-3]


def test_short_waits_sleep_for_a_while_where_others_keep_the_core(clock):
    clock.away = 20e-3
    for waited in (0.0, 0.0, 16e-6):
        pause(waited)
    clock.now += CROWDED
    pause(0.0)
    assert clock.pauses == ["yield", 1e-6, 2e-6, "yield"]


# ---- ending together -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "said", "traced"),
    [
        (ValueError("x is bad\nsee y"), 1, "ValueError: x is bad", True),
        (ValueError(), 1, "ValueError", True),
        (SystemExit(3), 3, "sys.exit(3)", False),
        (SystemExit("no data"), 1, "sys.exit('no data')", False),
        (KeyboardInterrupt(), 130, "interrupted by Ctrl-C", False),
    ],
)
def test_error_ends_all(error, status, said, traced, capsys):
    world = World(Deaf())
    world.host = "node7"
    with pytest.raises(SystemExit) as ended, ending_together(world):
        raise error
    assert ended.value.code == status
    printed = capsys.readouterr().err
    assert printed.splitlines()[-1] == f"gpumlp: rank 1 of 3 on node7: {said}"
    assert printed.startswith("Traceback") == traced


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_stream_that_cannot_be_written_does_not_keep_processes_from_ending(name, monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, name, closed)
    with pytest.raises(SystemExit) as ended, ending_together(World(Deaf())):
        raise ZeroDivisionError
    assert ended.value.code == 1


@pytest.mark.parametrize("code", [0, None])
def test_successful_exit_of_one_rank_does_not_end_the_others(code, capsys):
    with pytest.raises(SystemExit) as ended, ending_together(World(Deaf())):
        sys.exit(code)
    assert ended.value.code == code
    assert capsys.readouterr().err == ""


def test_errors_in_a_world_of_one_stay_what_they_are():
    with pytest.raises(ZeroDivisionError), ending_together(World()):
        _ = 1 / 0


def test_module_runs_a_script_as_python_does(tmp_path):
    script = tmp_path / "script.py"
    (tmp_path / "beside.py").write_text("NAME = 'beside'\n")
    script.write_text("import sys, beside\nprint(__name__, sys.argv[1:], beside.NAME)\nsys.exit(4)")
    ended = run([sys.executable, "-m", "gpumlp.distributed", script, "a", "--b"], 60)
    assert ended.output == "__main__ ['a', '--b'] beside\n"
    assert ended.status == 4


@pytest.mark.parametrize("arguments", [[], ["absent.py"]])
def test_module_without_a_script_says_how_to_use_it(arguments):
    ended = run([sys.executable, "-m", "gpumlp.distributed", *arguments], 60)
    assert ended.status == 2
    assert "usage: mpiexec -n PROCESSES python -m gpumlp.distributed SCRIPT.py" in ended.output
    assert ("there is no file absent.py" in ended.output) == bool(arguments)
