"""One rank of a command of gpumlp that fails.

    mpiexec -n 2 python command_worker.py "HOW RANK" train …

After the first epoch, rank RANK raises an error or stops, as HOW says.  After a stop, the others
wait for TIMEOUT seconds.
"""

from __future__ import annotations

import os
import signal
import sys

import gpumlp.distributed
from gpumlp.cli import main
from gpumlp.training.stepping import Stepping

TIMEOUT = 2.0


def fail(how):
    """Raise what no command expects, or stop."""
    if how == "raise":
        raise LookupError("a planted fault")
    os.kill(os.getpid(), signal.SIGSTOP)


def plant(how, rank):
    """Make steps of the second epoch fail."""
    step = Stepping.step

    def failing(self, batches, steps=1):
        world = self.shards.world
        if self.epochs and rank == str(world.rank):
            fail(how)
        if self.epochs and how == "stop":
            world.timeout = TIMEOUT
        step(self, batches, steps)

    Stepping.step = failing


if __name__ == "__main__":
    gpumlp.distributed.world(timeout=600)
    plant(*sys.argv.pop(1).split())
    main()
