"""What the environment says about how this process was launched."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

TORCH = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # torchrun's, and Ray Train's
MPI = [  # variables with the number of processes, and with the number on this machine
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),  # Open MPI
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"),  # MVAPICH
    ("PMI_SIZE", "MPI_LOCALRANKID"),  # MPICH, Intel MPI, srun --mpi=pmi2
    ("SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),  # srun; a batch script without srun has no step
]


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
    if all(name in environment for name in TORCH):
        size = int(environment["WORLD_SIZE"])
        return (
            Launch("torch", size, int(environment.get("LOCAL_RANK", 0))) if size > 1 else Launch()
        )
    for total, local in MPI:
        if total in environment:
            size = int(environment[total])
            local_rank = int(environment[local]) if local in environment else None
            return Launch("mpi", size, local_rank) if size > 1 else Launch()
    if "PMIX_RANK" in environment:
        return Launch("mpi", None, None)
    return Launch()
