"""Several processes that train one network: `world()` is what they have in common.

Start a script with ``mpiexec -n 8 python -m gpumlp.distributed script.py``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from gpumlp.distributed.together import ending_together
from gpumlp.distributed.transport import Transport
from gpumlp.distributed.world import TIMEOUT, World
from gpumlp.io.threads import share_cores

__all__ = ["World", "ending_together", "world"]

TORCH = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # torchrun's, and Ray Train's
MPI = [  # variables with the number of processes, and with the number on this machine
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),  # Open MPI
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"),  # MVAPICH
    ("PMI_SIZE", "MPI_LOCALRANKID"),  # MPICH, Intel MPI, srun --mpi=pmi2
    ("SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),  # srun; a batch script without srun has no step
]
_worlds: list[World] = []  # the one of this process, once it is made


def world(timeout: float | None = None) -> World:
    """Return the processes that were launched together; the same object in every call.

    The environment decides, and nothing is imported for a process on its own:

    - torchrun and Ray Train set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT: the
      bytes travel by torch.distributed with gloo.
    - mpiexec, mpirun and srun set OMPI_COMM_WORLD_SIZE (Open MPI), MV2_COMM_WORLD_SIZE (MVAPICH),
      PMI_SIZE (MPICH, Intel MPI), SLURM_STEP_NUM_TASKS or PMIX_RANK: they travel by MPI.
    - Otherwise, and where one process was launched, it is a world of one.

    The processes of a machine share its cores, unless the launcher or OMP_NUM_THREADS has done so:
    make the world before networks.

    Args:
        timeout: the longest wait for other processes, in seconds; after it all processes end
            with status 75.  None: as set before, else 300.

    Raises:
        ImportError: mpi4py or torch is needed and not installed.
        ValueError: timeout is not as described.
        RuntimeError: MPI knows of fewer processes than were launched, or has no library.
    """
    number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool) and timeout > 0
    if timeout is not None and not number:
        raise ValueError(f"timeout must be seconds, a number above 0, or None; got {timeout!r}")
    if not _worlds:
        seconds = TIMEOUT if timeout is None else timeout
        made = World(_transport(seconds), seconds)
        _worlds.append(made)
        if made.size > 1:
            share_cores(made.share(made.host).count(made.host))
    if timeout is not None:
        _worlds[0].timeout = timeout
    return _worlds[0]


def made() -> World | None:
    """Return what `world` has returned in this process; None if it was not called."""
    return _worlds[0] if _worlds else None


def _transport(timeout: float) -> Transport | None:
    launched = launch()
    if launched.by == "torch":
        from gpumlp.distributed.torch_world import TorchTransport

        return TorchTransport(timeout, launched.local_rank or 0)
    if launched.by == "mpi":
        from gpumlp.distributed.mpi import MpiTransport

        return MpiTransport(launched.size, launched.local_rank, timeout)
    return None


class Launch(NamedTuple):
    """How this process was launched.

    Attributes:
        by: "torch", "mpi", or "" for a process on its own.
        size: the number of processes; None if the launcher does not say.
        local_rank: this process's number on its machine; None if the launcher does not say.
    """

    by: str = ""
    size: int | None = 1
    local_rank: int | None = 0


def launch(environment: Mapping[str, str] = os.environ) -> Launch:
    """How this process was launched; the first launcher whose variables are set decides.

    torchrun comes first, since it runs within srun, too, then mpiexec for the same reason.
    """
    if all(environment.get(name) for name in TORCH):
        size, rank = _number(environment, "WORLD_SIZE") or 1, _number(environment, "RANK") or 0
        if size <= 1:
            return Launch()
        if not 0 <= rank < size:
            raise ValueError(
                f"RANK={rank} and WORLD_SIZE={size} in the environment contradict each other; "
                "start the processes by torchrun, or unset both"
            )
        return Launch("torch", size, _number(environment, "LOCAL_RANK") or 0)
    for total, local in MPI:
        if (count := _number(environment, total)) is not None:
            return Launch("mpi", count, _number(environment, local)) if count > 1 else Launch()
    if environment.get("PMIX_RANK"):
        return Launch("mpi", None, None)
    return Launch()


def _number(environment: Mapping[str, str], name: str) -> int | None:
    """The whole number in a variable; None if it is not set, or empty."""
    text = environment.get(name, "").strip()
    try:
        return int(text) if text else None
    except ValueError as error:
        raise ValueError(
            f"{name} in the environment must be a whole number, as a launcher sets it, got "
            f"{text!r}; unset it"
        ) from error
