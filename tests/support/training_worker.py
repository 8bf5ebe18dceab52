"""One rank of the tests of trainings by several processes.

    mpiexec -n 4 python training_worker.py bits BACKEND
    mpiexec -n 4 python training_worker.py buckets
    mpiexec -n 4 python training_worker.py fit FOLDER EPOCHS [HOW STEP]

"bits" trains networks with many settings; rank 0 prints a hash of each θ and history as JSON.
"buckets" does so on the harness in 16 bits, with a bucket for each W.
"fit" trains one with a checkpoint, from the checkpoint on if there is one; rank 0 writes the hash
of θ to a file.  HOW is what rank 1 does before the step STEP, or how its arguments differ.  After
"stop", rank 0 waits for TIMEOUT seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import gpumlp
from gpumlp.distributed import world
from gpumlp.step import sharding
from gpumlp.training import Callback, together

SHARDS = 4
TIMEOUT = 2.0
RNG = np.random.default_rng(14)
X, Y = RNG.standard_normal((403, 20)), RNG.integers(0, 5, 403)  # the last minibatch has 19 rows
WEIGHTS = RNG.random(403) + 0.1
X[:, 3] = RNG.integers(0, 9, 403)  # codes, which only one network reads as such
OF_MEANS = replace(  # a norm of one's own, which reads x for each mean
    gpumlp.NORMS["batch"], name="of means", cuda_means=gpumlp.NORMS["layer"].cuda_means,
    means=(lambda x, s, eps, momentum: x, lambda x, s, eps, momentum: (x - s[0]) ** 2),
)  # fmt: skip
SETTINGS = {
    "adamw": {},
    "adamw, clipped": {"clip_norm": 0.1},
    "adamw, averaged": {"ema": 0.99, "clip_norm": 0.5},
    "adamw with groups": {"groups": {"biases": gpumlp.Group(lr=2.0, decay=0.0)}},
    "momentum in micro-batches": {"optimizer": "momentum", "accumulate": 2},
    "sgd": {"optimizer": "sgd"},
    "muon": {"optimizer": "muon", "clip_norm": 0.5},
    "blocks": {"blocks": {
        "norm": ["layer", "rms"], "dropout": 0.2, "residual": True, "gated": [None, "silu"],
    }},
    "batch norm": {"blocks": {"norm": "batch", "dropout": 0.2}, "accumulate": 2, "clip_norm": 0.5},
    "norms of columns with momentum": {
        "blocks": {"norm": ["batch", OF_MEANS]}, "optimizer": "momentum",
    },
    "embeddings": {"blocks": {"embed": {3: (9, 5)}}, "clip_norm": 0.5},
}  # fmt: skip
IN_16_BITS = {"slot_precision": "bfloat16", "remainder": True, "clip_norm": 0.5, "ema": 0.99}
FITS = {"": {}, "streamed": {"data": "stream"}, "weighted": {"sample_weight": WEIGHTS}}


def trainer_of(backend, precision, **settings):
    """A trainer of a small network, the same on all ranks."""
    net = gpumlp.MLP(
        [20, 33, 40, 5], "gelu", precision=precision, backend=backend, seed=1,
        regularizer=gpumlp.ElasticNet(l1=1e-5, l2=1e-3), **settings.pop("blocks", {}),
    )  # fmt: skip
    kept = {"batch_size": 96, "shards": SHARDS, "world": world()} | settings
    return gpumlp.Trainer(net, kept.pop("optimizer", "adamw"), **kept)


def backend_of(name, precision):
    """The backend of this name; "harness" is the CUDA backend on the CPU."""
    if name != "harness":
        return name
    from gpumlp.backends.cuda.backend import CudaBackend
    from tests.support.harness.host_device import HostDevice

    return CudaBackend(HostDevice(late_branches=True), precision)


def theta(trainer):
    """θ on the host, flat, and the statistics behind it."""
    return trainer.net.backend.to_host(trainer.net.theta.whole)


def digest(trainer, history):
    """A hash of θ and of the history's numbers."""
    columns = {k: v for k, v in history.to_dict()["columns"].items() if k != "seconds"}
    return hashlib.sha256(theta(trainer).tobytes() + json.dumps(columns).encode()).hexdigest()[:16]


def bits(backend):
    """Train with all settings; the hashes by name, and θ of the first in float64."""
    found = {}
    harness, wanted = backend == "harness", SETTINGS
    for precision in ("float64", "bfloat16") if harness else ("float64", "float32"):
        if harness:
            first = {"slots and θ in 16 bits": IN_16_BITS} if precision == "bfloat16" else {}
            wanted = first | {
                name: SETTINGS[name] for name in ("adamw", "adamw, averaged", "batch norm")
            }
        for name, settings in wanted.items():
            for how, arguments in FITS.items():
                if how and name != "adamw, averaged" and "micro-batches" not in name:
                    continue
                trainer = trainer_of(backend_of(backend, precision), precision, **settings)
                x = X.astype("float32" if precision == "bfloat16" else precision)
                history = trainer.fit(x, Y, 2, validation=(x[:90], Y[:90]), **arguments)
                found[f"{name} {how} {precision}"] = digest(trainer, history)
                found.setdefault("θ", theta(trainer).tolist())
    if world().rank == 0:
        print(json.dumps(found))


class Reads(Callback):
    """Reads θ after each step and each epoch."""

    def __init__(self):
        self.seen = hashlib.sha256()

    def on_step_end(self, trainer):
        trainer.net.backend.synchronize()
        self.seen.update(theta(trainer).tobytes())

    def on_epoch_end(self, trainer, row):
        self.seen.update(theta(trainer).tobytes())


def buckets():
    """Train on the harness in 16 bits, and read θ in callbacks; the hashes by name."""
    sharding.BUCKET = 64
    found = {}
    for precision in ("bfloat16", "float16"):
        for name in ("adamw, averaged", "muon"):
            trainer = trainer_of(backend_of("harness", precision), precision, **SETTINGS[name])
            reads = Reads()
            arguments = {"validation": (X[:90], Y[:90]), "early_stopping": 1}
            history = trainer.fit(X[:203], Y[:203], 2, callbacks=[reads], **arguments)
            found[f"{name} {precision}"] = digest(trainer, history), reads.seen.hexdigest()
    if world().rank == 0:
        print(json.dumps(found))


def fit(folder, epochs, how="", step="0"):
    """Train with a checkpoint; rank 1 does `how` before a step."""
    other = world().rank == 1
    trainer = trainer_of("auto", "float64", ema=0.9, clip_norm=1.0, **(
        {"lr": 0.5} if other and how == "settings" else {}
    ))  # fmt: skip
    x = X + 1.0 if other and how == "data" else X
    if other and how == "version":
        together.__version__ = "0.0.0"
    watch(trainer, how, int(step), other)
    path = Path(folder) / "checkpoint.safetensors"
    history = trainer.fit(
        x, Y, int(epochs), validation=(X[:90], Y[:90]), checkpoint=path, checkpoint_every=3,
        resume=True, early_stopping=50,
    )  # fmt: skip
    if world().rank == 0:
        (Path(folder) / "digest").write_text(digest(trainer, history), encoding="utf-8")


def watch(trainer, how, step, other):
    """Do `how` before a step of the trainer, on one rank."""
    before = trainer.step

    def watched(batches, steps=1):
        if trainer.steps >= step and not other:
            world().timeout = TIMEOUT if how == "stop" else world().timeout
        elif trainer.steps >= step:
            if how == "raise":
                raise RuntimeError("a planted fault")
            if how in ("kill", "stop"):
                os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGSTOP)
            if how == "sleep":
                time.sleep(0.5)
        before(batches, steps)

    trainer.step = watched


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    world(timeout=600)
    {"bits": bits, "buckets": buckets, "fit": fit}[sys.argv[1]](*sys.argv[2:])
