"""Checkpoints: all that a fit needs to go on bit for bit, in one safetensors file.

Tensors: θ by torch's names ("0.weight", …), the optimizer's slots ("optimizer.m.0.weight", …) and,
if early stopping restores it, the best θ ("best.0.weight", …).  If θ is averaged, the average has
θ's names, and the θ of the last step has others ("iterate.0.weight", …).  Metadata: "network" as
`MLP.save` writes it, so that `MLP.load` reads the network, and "training", the rest.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp import checks, storage
from gpumlp.backends import Backend
from gpumlp.errors import CheckpointError, is_one_of
from gpumlp.io.chunks import chunks
from gpumlp.io.types import Array, HostArray
from gpumlp.loader.examples import Examples
from gpumlp.parameters import Parameters
from gpumlp.training.events import Callback
from gpumlp.training.fields import ADVICE, LARGEST, Fields
from gpumlp.training.history import STOPPED
from gpumlp.training.monitor import UNRANKED
from gpumlp.training.stepping import Stepping


class Checkpoint:
    """The file of one fit.

    Args:
        path: the file; its folder must exist.
        every: also save after each `every` steps of the fit; None: only at the ends of epochs.
        network: the settings of the network, `MLP.config`.
        settings: what must be equal for a run to go on as if it had not stopped.
    """

    def __init__(
        self, path: str | os.PathLike[str], every: int | None, network: dict[str, Any],
        settings: dict[str, Any],
    ) -> None:  # fmt: skip
        self.path, self.every = Path(path), every
        self._network, self._settings = network, settings

    def due(self, done: int) -> bool:
        """Whether to save after so many steps of the fit, within an epoch."""
        return self.every is not None and done % self.every == 0

    def save(self, tensors: Mapping[str, HostArray], **state: Any) -> None:
        """Replace the file, completely or not at all.

        Args:
            tensors: arrays on the host, by name.
            state: what JSON can hold: "position", numbers such as the epoch, the step and the costs
                of its steps; "history"; "watch", the numbers of early stopping, or None; and
                "callbacks", what `callback_states` returned.
        """
        training = {"settings": self._settings, **state}
        metadata = {"network": json.dumps(self._network), "training": json.dumps(training)}
        storage.write(self.path, tensors, {"gpumlp": storage.FORMAT, **metadata})

    def load(
        self, columns: Iterable[str], steps: int, monitor: str | None
    ) -> tuple[dict[str, HostArray], dict[str, Any]] | None:
        """The tensors and the state in the file, checked; None if there is no file.

        Args:
            columns: those of the history.
            steps: the steps of an epoch.
            monitor: the column that early stopping watches, if there is early stopping.

        Raises:
            CheckpointError: the file is damaged, or of another run.
        """
        if not self.path.exists():
            return None
        tensors, metadata = storage.read(self.path)
        if metadata.get("gpumlp") != storage.FORMAT or "training" not in metadata:
            raise CheckpointError(
                f"{self.path} is no checkpoint of a training run; pass the path of one, or "
                "resume=False to write a new one there"
            )
        network = storage.json_of(self.path, metadata.get("network", "null"))
        training = storage.json_of(self.path, metadata["training"])
        state = Fields(training, self.path)
        if network.get("seed") is not None:
            Fields(network, self.path, "network").whole("seed")
        self._compare(network, state.fields("settings").values)
        check_state(state, list(columns), steps, monitor)
        return tensors, training

    def _compare(self, network: dict[str, Any], settings: dict[str, Any]) -> None:
        """Raise unless the file is of this network and these settings."""
        ours = json.loads(json.dumps(_without_seed(self._network) | self._settings))
        ours, theirs = ({"shards": 1} | each for each in (ours, _without_seed(network) | settings))
        for name in {**ours, **theirs}:
            if ours.get(name) != theirs.get(name):
                raise CheckpointError(
                    f"{self.path} is of a run with other {name}: {theirs.get(name)}, here "
                    f"{ours.get(name)}; pass what that run had, or resume=False to start anew"
                )

    def check(
        self, tensors: Mapping[str, HostArray], views: Mapping[str, Array], squares: tuple[str, ...]
    ) -> None:
        """Raise CheckpointError unless the tensors have the names and shapes of the views.

        They must be floating-point numbers, finite but for the optimizer's state, which may have
        overflowed.  squares: how the names of those begin that are 0 or more.
        """
        shapes = {name: view.shape for name, view in views.items()}
        if shapes != {name: tensor.shape for name, tensor in tensors.items()}:
            raise CheckpointError(f"{self.path}: its tensors are not those of this network")
        for name, tensor in tensors.items():
            low = " of 0 or more" * name.startswith(squares)
            wrong = np.isnan(tensor) if name.startswith("optimizer.") else ~np.isfinite(tensor)
            if tensor.dtype.kind != "f" or wrong.any() or (low and (tensor < 0).any()):
                raise CheckpointError(
                    f"{self.path}: the tensor {name} must be finite numbers{low}, {ADVICE}"
                )


def check_state(state: Fields, columns: list[str], steps: int, monitor: str | None) -> None:
    """Check what `Checkpoint.save` got as `state`; the arguments are those of `Checkpoint.load`.

    Raises:
        CheckpointError: a field is missing, is no such value, or contradicts another field.
    """
    position, history, callbacks = map(state.fields, ("position", "history", "callbacks"))
    epoch = position.whole("epoch")
    history.get("stopped", f"one of {', '.join(STOPPED)}", lambda word: is_one_of(word, STOPPED))
    if history.get("best_epoch") is not None:
        history.whole("best_epoch", 0, epoch - 1)
    found, known = history.fields("columns"), f"the columns {', '.join(columns)}"
    history.get("columns", known, lambda mapping: sorted(mapping) == sorted(columns))
    for name in columns:
        least, finite = (0, True) if name in UNRANKED else (-math.inf, name == "cost")
        found.numbers(name, epoch, f"position.epoch {epoch}", least, finite)

    step = position.whole("step", 0, steps - 1)
    position.numbers("J", step, "position.step")
    position.whole("steps_ever", epoch * steps + step)
    position.whole("epochs_ever", epoch)
    for name in ("seconds", "lr_factor", "last_lr", *({"epoch_lr_factor"} & {*position.values})):
        position.number(name)
    position.get("lr_factor", "a factor of learning rates", lambda factor: factor <= LARGEST)
    position.numbers("scaling", 4, "the format", 0)
    scale = "a loss scale S, 1/S and two counts"
    position.get("scaling", scale, lambda four: abs(four[0] * four[1] - 1) < 1e-6)

    if monitor is None:
        state.get("watch", "null, as there is no early stopping", lambda watch: watch is None)
    else:
        watch = state.fields("watch")
        watch.whole("waited", 0, epoch)
        none, there = watch.get("best_epoch") is None, "null where best_epoch is, and only there"
        watch.get("best", there, lambda best: (best is None) == none)
        if not none:
            at = watch.whole("best_epoch", 0, epoch - 1)
            value = found.numbers(monitor, epoch, "", finite=False)[at]
            same = f"{value}, the {monitor} of its best_epoch"
            watch.get("best", same, lambda best: best == value)
    for name in callbacks.values:
        callbacks.fields(name)


def checked(path: Any, every: int | None, resume: bool) -> int | None:
    """The argument `checkpoint_every` of `Trainer.fit`, checked with `checkpoint` and `resume`."""
    checks.boolean(resume, "resume")
    if path is None and (every is not None or resume):
        name = "resume" if resume else "checkpoint_every"
        raise ValueError(f"{name} needs a file; pass checkpoint=PATH")
    if path is not None:
        storage.check_writable(path)
    return None if every is None else checks.positive_int(every, "checkpoint_every")


def check_is_no_data(path: Any, *data: Any) -> None:
    """Raise ValueError if a checkpoint's path is a file that an array, or one in a tuple, maps."""
    if path is None or not Path(storage.checked_path(path, "checkpoint")).exists():
        return
    for a in (a for part in data for a in (part if isinstance(part, tuple) else (part,))):
        while isinstance(a, np.ndarray):
            file = getattr(a, "filename", None)  # of np.memmap
            if file is not None and Path(path).samefile(file):
                raise ValueError(f"checkpoint {path} is a file of the data; pass another path")
            a = a.base


def views(trainer: Stepping, slots: Array, best: Array | None) -> dict[str, Array]:
    """The arrays that a checkpoint holds, by name.  slots: of all processes; best: the best θ."""
    flat = {"": (theta := trainer.net.theta).whole}
    if trainer.average is not None:
        flat[""], flat["iterate."] = trainer.average.both(trainer.net)
    for i, slot in enumerate(trainer.optimizer.slots):
        flat[f"optimizer.{slot}."] = slots[i]
    if best is not None:
        flat["best."] = best
    return {
        f"{prefix}{name}": view
        for prefix, buffer in flat.items()
        for name, view in Parameters(theta.layout, buffer).named().items()
    } | theta.states()


def _without_seed(config: dict[str, Any]) -> dict[str, Any]:
    """A network's settings without the seed of the initial θ, which a file replaces."""
    return {f"network's {name}": value for name, value in config.items() if name != "seed"}


def fingerprint(backend: Backend, data: Examples | None) -> str | None:
    """The SHA-256 of the shapes and values of data, as the steps see them, wherever they are."""
    if data is None:
        return None
    digest = hashlib.sha256()
    of_weights = [] if data.weights is None else [(data.weights, np.dtype(np.float64))]
    for a, kind in [(data.x, data.kind), (data.y, data.target), *of_weights]:
        digest.update(f"{a.shape} {kind.str}".encode())
        for rows in chunks(a):
            part = a[rows] if isinstance(a, np.ndarray) else backend.to_host(a[rows])
            digest.update(part.astype(kind, copy=False).tobytes())
    return digest.hexdigest()[:16]


# ---- callbacks -----------------------------------------------------------------------------------


def _by_name(callbacks: Iterable[Callback]) -> dict[str, Callback]:
    """The callbacks by class, with a number if there are several: "CSVLogger", "CSVLogger 2"."""
    seen: Counter[str] = Counter()
    found = {}
    for callback in callbacks:
        name = type(callback).__qualname__
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name} {seen[name]}"] = callback
    return found


def callback_states(callbacks: Iterable[Callback]) -> dict[str, Any]:
    """The state of each callback, by its name, without empty states.

    Raises:
        TypeError: JSON cannot hold a state.
    """
    states = {}
    for name, callback in _by_name(callbacks).items():
        state = dict(callback.state())
        try:
            json.dumps(state)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{name}.state() gave what JSON cannot hold ({error}); "
                "return numbers, strings, lists and dicts"
            ) from error
        if state:
            states[name] = state
    return states


def restore_callbacks(
    callbacks: Iterable[Callback], states: Mapping[str, Any], path: os.PathLike[str]
) -> None:
    """Restore the state of each callback; warn about states whose callback is missing.

    A callback without a state in the file starts anew.

    Raises:
        CheckpointError: a callback cannot be restored from its state.
    """
    found = _by_name(callbacks)
    for name, state in states.items():
        if name in found:
            try:
                found[name].restore(state)
            except CheckpointError:
                raise
            except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
                what = f"{error} is missing" if isinstance(error, KeyError) else f"{error}"
                raise CheckpointError(
                    f"{path}: callbacks.{name} cannot be restored ({what}); {ADVICE}"
                ) from error
        else:
            warnings.warn(
                f"{path} is of a run with the callback {name}, without which this one goes on; "
                "pass it to go on as that run would have",
                RuntimeWarning,
                stacklevel=2,
            )
