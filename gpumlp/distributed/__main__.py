"""``mpiexec -n 8 python -m gpumlp.distributed script.py [arguments]``: run a script on all ranks.

An exception on one rank ends all of them; with ``python script.py`` the others would wait for it.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from gpumlp.distributed import ending_together, world

USAGE = "usage: mpiexec -n PROCESSES python -m gpumlp.distributed SCRIPT.py [ARGUMENTS]\n"


def main(arguments: list[str]) -> None:
    """Run the script `arguments[0]` as __main__, with the other arguments in its sys.argv."""
    if not arguments or not Path(arguments[0]).exists():
        missing = f"gpumlp: there is no file {arguments[0]}\n" if arguments else ""
        sys.stderr.write(missing + USAGE)
        raise SystemExit(2)
    sys.argv = arguments
    sys.path[0] = str(Path(arguments[0]).resolve().parent)  # as of `python SCRIPT.py`
    with ending_together(world()):
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
