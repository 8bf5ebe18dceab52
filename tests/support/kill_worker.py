"""A training run for the tests of checkpoints, in this process or in one that is killed.

    python kill_worker.py CHECKPOINT STEPS

The script prints the time at the start and after each step, before the checkpoint is written.  It
does so many steps, and waits to be killed.
"""

from __future__ import annotations

import signal
import sys
import time

import numpy as np

import gpumlp

EPOCHS, STEPS = 12, 9  # 60 examples by 7, the last minibatch of 4


class Clock(gpumlp.Callback):
    def on_fit_begin(self, trainer):
        print(time.perf_counter(), flush=True)

    def on_step_end(self, trainer):
        self.on_fit_begin(trainer)
        if trainer.steps == int(sys.argv[2]):
            signal.pause()


def run(checkpoint=None, *, net=None, trainer=None, data_seed=0, label_seed=0, **fit):
    """The trainer after a fit that uses all that a checkpoint saves; keywords change settings."""
    rng = np.random.default_rng(data_seed)
    x = rng.standard_normal((60, 5))
    noise = np.random.default_rng([1, label_seed]).random(60)
    y = np.where(noise < 0.3, 0, (x[:, 0] > 0) + (x[:, 1] > 0).astype(int))
    settings = {"widths": [5, 8, 3], "activation": "gelu", "regularizer": gpumlp.L2(1e-3)}
    built = gpumlp.MLP(**{**settings, "backend": "numpy", **(net or {})})
    arguments = {"optimizer": "adamw", "lr": 0.05, "batch_size": 7, "schedule": "one_cycle"}
    made = gpumlp.Trainer(built, **{**arguments, "clip_norm": 1.0, "seed": 3, **(trainer or {})})
    validation = (x[:20] + 0.1, y[:20])
    keywords = {"epochs": EPOCHS, "validation": validation, "early_stopping": 50, **fit}
    made.fit(x, y, checkpoint=checkpoint, **keywords)
    return made


def outcome(trainer):
    """The result of a run without the seconds: bytes and numbers to compare exactly."""
    history = {**trainer.history, "seconds": len(trainer.history["seconds"])}
    theta = trainer.net.theta.flat.tobytes()
    ended = (trainer.history.stopped, trainer.history.best_epoch, trainer.steps, trainer.epochs)
    return theta, trainer.slots.tobytes(), history, ended


if __name__ == "__main__":
    run(sys.argv[1], checkpoint_every=1, callbacks=[Clock()])
