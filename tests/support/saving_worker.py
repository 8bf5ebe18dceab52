"""Processes that write the same files again and again, and are killed at random.

    python -m tests.support.saving_worker FOLDER PROCESSES SAVES KILLS

A save writes two files together, and a third one alone.  At the end one more save is made, and the
script prints as JSON how the processes ended, and which files are in the folder.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path

import numpy as np

from gpumlp import storage
from gpumlp.io.files import atomic_write, together


def save(folder: Path, owner: int) -> None:
    tensors = {"a": np.full((300, 300), owner, np.float32)}
    with together():
        storage.write(folder / "model", tensors, {"gpumlp": storage.FORMAT})
        atomic_write(folder / "run.toml", b"%d" % owner * 1000)
    storage.write(folder / "checkpoint", tensors, {"gpumlp": storage.FORMAT})


def main(folder: Path, processes: int, saves: int, kills: int) -> None:
    children = []
    for owner in range(processes):
        if (child := os.fork()) == 0:
            status = 1
            try:
                for _ in range(saves):
                    save(folder, owner)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    rng = random.Random(3)
    for child in rng.sample(children, kills):
        time.sleep(rng.uniform(0, 0.02))
        os.kill(child, 9)
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    model, checkpoint = (storage.read(folder / name)[0]["a"] for name in ("model", "checkpoint"))
    owners = {(folder / "run.toml").read_text()[:1], *(f"{v:.0f}" for v in np.unique(model))}
    before = len(list(folder.iterdir()))
    save(folder, 0)
    left = sorted(path.name for path in folder.iterdir())
    whole = len(np.unique(checkpoint)) == 1
    print(json.dumps({"ended": ended, "owners": len(owners), "whole": whole, "files": left,
                      "before": before}))  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
