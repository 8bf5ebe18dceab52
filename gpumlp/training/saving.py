"""What a checkpoint keeps of a fit, and how a fit goes on from one."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from gpumlp import storage
from gpumlp.loader.examples import Examples
from gpumlp.training import checkpoint as files
from gpumlp.training import together
from gpumlp.training.checkpoint import Checkpoint
from gpumlp.training.history import History
from gpumlp.training.loop import Fit
from gpumlp.training.rates import Rates


def opened(
    run: Fit, path: Any, every: int | None, resume: bool, data: Examples,
    validated: Examples | None,
) -> Checkpoint | None:  # fmt: skip
    """The checkpoint of a fit, whose arguments are checked; None without a path."""
    trainer, watch = run.trainer, run.watch
    every = together.on_first(trainer.shards.world, lambda: files.checked(path, every, resume))
    if path is None:
        return None
    backend = trainer.net.backend
    settings = {  # what must be equal for a run to go on as if it had not stopped
        **trainer.settings,
        "early_stopping": watch and dataclasses.asdict(watch.rule),
        "columns": list(run.history),
        "data": files.fingerprint(backend, data),
        "validation": files.fingerprint(backend, validated),
    }
    if trainer.schedule.name != "constant":  # the others depend on the number of epochs
        settings["epochs"] = run.epochs
    return Checkpoint(path, every, trainer.net.config(), settings)


def save(run: Fit, checkpoint: Checkpoint) -> None:
    """Write the checkpoint.

    Raises:
        FloatingPointError: θ or J is not finite; the old file is left.
    """
    trainer, watch, backend = run.trainer, run.watch, run.trainer.net.backend
    together.complete(trainer)
    slots = together.whole_slots(trainer)
    J = run.batches.costs(slice(run.step)).tolist() if run.step else []
    best = watch.theta if watch and watch.best is not None else None
    # in θ's type: float32 holds all values of 16-bit slots, and every reader knows it
    tensors = {
        name: np.asarray(backend.to_host(view) if backend.owns(view) else view, backend.dtype)
        for name, view in files.views(trainer, slots, best).items()
    }
    run.check_finite(storage.theta_of(tensors), sum(J))
    position = {
        "epoch": run.epoch, "step": run.step, "J": J,
        "seconds": run.seconds() if run.step else 0.0,
        "steps_ever": trainer.steps, "epochs_ever": trainer.epochs,
        "scaling": backend.to_host(trainer.scaling).tolist(),
        "last_lr": trainer.last_lr,
        **Rates.of(trainer).position(), **run.rates.position("epoch_"),
    }  # fmt: skip
    together.on_first(trainer.shards.world, lambda: checkpoint.save(
        tensors, position=position, history=run.history.to_dict(),
        watch=watch and watch.state(), callbacks=files.callback_states(run.callbacks),
    ))  # fmt: skip


def resume(run: Fit, checkpoint: Checkpoint) -> None:
    """Go on from the state in the file, if there is a file.

    Raises:
        CheckpointError: the file is damaged, or of another run; nothing was changed.
    """
    trainer, watch, backend = run.trainer, run.watch, run.trainer.net.backend
    world, monitor = trainer.shards.world, None if watch is None else watch.rule.monitor
    loaded = together.on_first(
        world, lambda: checkpoint.load(run.history, run.batches.order.steps, monitor)
    )
    if loaded is None:
        return
    tensors, state = loaded
    position = state["position"]
    numbers = state["watch"] or {"best": None}
    best = watch.theta if watch and numbers["best"] is not None else None
    slots = together.whole_slots(trainer)
    views = files.views(trainer, slots, best)
    squares = tuple(f"optimizer.{slot}." for slot in trainer.optimizer.squares())
    checkpoint.check(tensors, views, squares)
    rates = Rates.of(trainer).read(position, checkpoint.path)
    run.rates = rates.read(position, checkpoint.path, "epoch_")
    together.on_first(world, lambda: files.restore_callbacks(
        run.callbacks, state["callbacks"], checkpoint.path
    ))  # fmt: skip
    for name, view in views.items():
        if backend.owns(view):
            backend.asarray(tensors[name], out=view)
        else:
            np.copyto(view, tensors[name])
    together.keep_slots(trainer, slots)
    run.epoch, run.step, run.spent = (position[k] for k in ("epoch", "step", "seconds"))
    run.J[: run.step] = position["J"]
    backend.asarray(np.array(position["scaling"]), dtype=np.float64, out=trainer.scaling)
    trainer.steps, trainer.epochs = position["steps_ever"], position["epochs_ever"]
    trainer.last_lr = position["last_lr"]
    trainer.lr, trainer.lr_factor, trainer.schedule = rates
    run.history = History.from_dict(state["history"])
    if watch is not None:
        watch.set_state(numbers)
