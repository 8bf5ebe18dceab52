"""Starts a script as several processes, and ends all of them if they take too long."""

import contextlib
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

WORKER = Path(__file__).with_name("world_worker.py")
ROOT = Path(__file__).parents[2]
LAUNCHERS = ("OMPI_", "MV2_", "PMI_", "PMIX_", "SLURM_")
TORCH = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}


class Ended(NamedTuple):
    """A run that ended: its status, and what it printed."""

    status: int
    output: str

    def lines(self):
        """The lines of gpumlp's own errors."""
        return [line for line in self.output.splitlines() if line.startswith("gpumlp: ")]


def mpiexec():
    """The mpiexec of the library that mpi4py uses; without one the test is skipped."""
    pytest.importorskip("mpi4py")
    beside = Path(sys.executable).with_name("mpiexec")
    if beside.exists():
        return str(beside)
    try:  # packages of another prefix
        files = importlib.metadata.files("mpich") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = [str(file.locate()) for file in files if file.name == "mpiexec"]
    path = found[0] if found else shutil.which("mpiexec")
    return path or pytest.skip("there is no mpiexec")


def under_mpi(n, *arguments, within=120, interrupt_after=None):
    """Run `python …` as n processes of MPI."""
    command = [mpiexec(), "-n", n, sys.executable, *arguments]
    return run(command, within, interrupt_after=interrupt_after)


def under_torchrun(n, *arguments, within=120):
    """Run `…` as n processes of torchrun."""
    pytest.importorskip("torch.distributed.run")
    options = ["--standalone", "--nproc-per-node", n]  # standalone: on a free port
    return run([sys.executable, "-m", "torch.distributed.run", *options, *arguments], within)


def run(command, within, interrupt_after=None, **variables):
    """Run a command for at most `within` seconds; then it and all that it started are killed.

    `interrupt_after` is the time until Ctrl-C, in seconds after the first line that it prints.
    """
    process = subprocess.Popen(
        [str(part) for part in command], env=environment() | variables, text=True, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        first = ""
        if interrupt_after is not None:
            first = process.stdout.readline()
            time.sleep(interrupt_after)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        output = first + process.communicate(timeout=within)[0]
    except subprocess.TimeoutExpired:
        for pid in (process.pid, *descendants(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        output = process.communicate(timeout=10)[0]
        pytest.fail(f"{command} did not end within {within} s; it printed\n{output}")
    return Ended(process.returncode, output)


def descendants(pid):
    """The processes that a process started, and those started by them, in any session."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True).stdout
    parents = dict(map(int, line.split()) for line in listed.splitlines())
    found = [child for child, parent in parents.items() if parent == pid]
    return found + [each for child in found for each in descendants(child)]


def environment():
    """The environment without the variables of any launcher, with one BLAS thread a process."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in TORCH and not name.startswith(LAUNCHERS)
    }
    return kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
