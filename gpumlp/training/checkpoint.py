"""Checkpoints: all that a fit needs to go on bit for bit, in one safetensors file.

Tensors: θ by torch's names ("0.weight", …), the optimizer's slots ("optimizer.m.0.weight", …) and,
where early stopping keeps it, the best θ ("best.0.weight", …).  Where θ is averaged, the average
has θ's names, and the training's own θ others ("iterate.0.weight", …).  Metadata: "network" as
`MLP.save` writes it, so that `MLP.load` reads the network, and "training", the rest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp import checks, storage
from gpumlp.backends import Backend
from gpumlp.errors import CheckpointError
from gpumlp.io.chunks import chunks
from gpumlp.io.types import Array
from gpumlp.loader.examples import Examples
from gpumlp.parameters import Parameters
from gpumlp.training.callback_states import restore_all, states
from gpumlp.training.history import History

if TYPE_CHECKING:
    from gpumlp.training.fit import Fit
    from gpumlp.training.trainer import Trainer


class Checkpoint:
    """The file of one fit.

    Args:
        path: the file; its folder must exist.
        every: also save after each so many steps, counted over the fit; None for no more than the
            ends of epochs.
        fit: the fit to save, or to put where the file says it stood.
        data: the training data, and the validation data or None.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        every: int | None,
        fit: Fit,
        data: Iterable[Examples | None],
    ) -> None:
        storage.check_writable(path)
        self.path = Path(path)
        self._every, self._fit = every, fit
        self._network = fit.trainer.net.config()
        self._settings = _settings(fit)
        backend = fit.trainer.net.backend
        self._settings["data"], self._settings["validation"] = (
            _fingerprint(backend, d) for d in data
        )

    def due(self) -> bool:
        """Whether the step just done is one to save after, the epoch's last left out."""
        fit = self._fit
        if self._every is None or fit.step == fit.batches.steps:
            return False
        return fit.done % self._every == 0

    def save(self) -> None:
        """Replace the file, unless θ or J is not finite.

        Raises:
            FloatingPointError: one of them is not; the old file is left.
        """
        fit, trainer = self._fit, self._fit.trainer
        backend = trainer.net.backend
        J = backend.to_host(fit.batches.costs)[: fit.step].tolist() if fit.step else []
        best = fit.watch is not None and fit.watch.best is not None
        tensors = {  # float32 holds what slots of 16 bits do, and all readers know it
            name: np.asarray(backend.to_host(view), dtype=backend.dtype)
            for name, view in self._views(best).items()
        }
        fit.check_finite(storage.theta_of(tensors), sum(J))
        training = {
            "settings": self._settings,
            "position": {
                "epoch": fit.epoch, "step": fit.step, "J": J,
                "seconds": fit.seconds() if fit.step else 0.0,
                "steps_ever": trainer.steps, "epochs_ever": trainer.epochs,
                "scaling": backend.to_host(trainer.scaling).tolist(),
                "lr_factor": trainer.lr_factor, "last_lr": trainer.last_lr,
            },
            "history": fit.history.to_dict(),
            "watch": fit.watch and fit.watch.state(),
            "callbacks": states(fit.callbacks),
        }  # fmt: skip
        metadata = {"network": json.dumps(self._network), "training": json.dumps(training)}
        storage.write(self.path, tensors, {"gpumlp": storage.FORMAT, **metadata})

    def resume(self) -> None:
        """Put the fit where the file says it stood; nothing where there is no file.

        Raises:
            CheckpointError: the file is damaged, or of another run; nothing was changed.
        """
        if not self.path.exists():
            return
        tensors, metadata = storage.read(self.path)
        if metadata.get("gpumlp") != storage.FORMAT or "training" not in metadata:
            raise CheckpointError(
                f"{self.path} is no checkpoint of a training run; pass the path of one, or "
                "resume=False to write a new one there"
            )
        training = json.loads(metadata["training"])
        self._compare(json.loads(metadata["network"]), training["settings"])
        state = training["watch"]
        views = self._views(bool(state) and state["best"] is not None)
        shapes = {name: view.shape for name, view in views.items()}
        if shapes != {name: tensor.shape for name, tensor in tensors.items()}:
            raise CheckpointError(f"{self.path}: its tensors are not those of this network")
        restore_all(self._fit.callbacks, training["callbacks"], self.path)
        for name, view in views.items():
            self._fit.trainer.net.backend.asarray(tensors[name], out=view)
        self._restore(training)

    def _restore(self, training: dict[str, Any]) -> None:
        fit, trainer, position = self._fit, self._fit.trainer, training["position"]
        fit.epoch, fit.step = position["epoch"], position["step"]
        fit.J[: fit.step], fit.spent = position["J"], position["seconds"]
        scaling = np.array(position["scaling"])
        trainer.net.backend.asarray(scaling, dtype=np.float64, out=trainer.scaling)
        trainer.steps, trainer.epochs = position["steps_ever"], position["epochs_ever"]
        trainer.lr_factor, trainer.last_lr = position["lr_factor"], position["last_lr"]
        fit.history = trainer.history = History.from_dict(training["history"])
        if fit.watch is not None:
            for name, value in training["watch"].items():
                setattr(fit.watch, name, value)

    def _compare(self, network: dict[str, Any], settings: dict[str, Any]) -> None:
        """Raise unless the file is of this network and these settings."""
        ours = json.loads(json.dumps(_of_network(self._network) | self._settings))
        theirs = _of_network(network) | settings
        for name in {**ours, **theirs}:
            if ours.get(name) != theirs.get(name):
                raise CheckpointError(
                    f"{self.path} is of a run with other {name}: {theirs.get(name)}, here "
                    f"{ours.get(name)}; pass what that run had, or resume=False to start anew"
                )

    def _views(self, best: bool) -> dict[str, Array]:
        """The backend's arrays that a file holds, by name; `best`: the best θ among them."""
        trainer, watch = self._fit.trainer, self._fit.watch
        flat = {"": trainer.net.theta.flat}
        if trainer.average is not None:
            flat[""], flat["iterate."] = trainer.average.both(trainer.net)
        for i, slot in enumerate(trainer.optimizer.slots):
            flat[f"optimizer.{slot}."] = trainer.slots[i]
        if best and watch is not None and watch.theta is not None:
            flat["best."] = watch.theta
        layout = trainer.net.theta.layout
        return {
            f"{prefix}{name}": view
            for prefix, buffer in flat.items()
            for name, view in Parameters(layout, buffer).named().items()
        }


def asked_for(
    path: Any, every: int | None, resume: bool, fit: Fit, data: Examples, held: Examples | None
) -> Checkpoint | None:
    """The checkpoint of a fit that was given these arguments, or None."""
    if path is None:
        if every is not None or resume:
            name = "resume" if resume else "checkpoint_every"
            raise ValueError(f"{name} needs a file; pass checkpoint=PATH")
        return None
    if every is not None:
        every = checks.positive_int(every, "checkpoint_every")
    return Checkpoint(path, every, fit, [data, held])


def _of_network(config: dict[str, Any]) -> dict[str, Any]:
    """A network's settings, but for the seed of the initial θ, which a file replaces."""
    return {f"network's {name}": value for name, value in config.items() if name != "seed"}


def settings_of(trainer: Trainer) -> dict[str, Any]:
    """A trainer's settings, as JSON can hold them."""
    return {
        "optimizer": trainer.optimizer.spec(),
        "lr": trainer.lr,
        "batch_size": trainer.batch_size,
        "accumulate": trainer.accumulate,
        "schedule": trainer.schedule.spec(),
        "clip_norm": trainer.clip_norm,
        "groups": {
            f"{name}.{what}": number
            for name, group in trainer.groups.items()
            for what, number in dataclasses.asdict(group).items()
        },
        "ema": trainer.ema,
        "seed": trainer.seed,
        "shuffle": trainer.shuffle,
        "slot_precision": str(trainer.slots.dtype),
    }


def _settings(fit: Fit) -> dict[str, Any]:
    """What must be the same for a run to go on as if it had not stopped."""
    trainer, watch = fit.trainer, fit.watch
    settings = settings_of(trainer) | {
        "early_stopping": watch and dataclasses.asdict(watch.rule),
        "columns": list(fit.history),
    }
    if trainer.schedule.name != "constant":  # the others are stretched over the epochs
        settings["epochs"] = fit.epochs
    return settings


def _fingerprint(backend: Backend, data: Examples | None) -> str | None:
    """SHA-256 over the shapes and values of data, as the steps see them, wherever they lie."""
    if data is None:
        return None
    digest = hashlib.sha256()
    weights = np.dtype(np.float64)
    parts = ((data.x, backend.storage), (data.y, data.target), (data.weights, weights))
    for a, kind in parts:
        if a is None:
            continue
        digest.update(f"{a.shape} {kind.str}".encode())
        for rows in chunks(a):
            part = a[rows] if isinstance(a, np.ndarray) else backend.to_host(a[rows])
            digest.update(part.astype(kind, copy=False).tobytes())
    return digest.hexdigest()[:16]
