"""The fit of `gpumlp train`, of one network or of several, and the report of several."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import typer

from gpumlp import callbacks, checks
from gpumlp.cli import processes, run_folder
from gpumlp.cli.building import Built
from gpumlp.cli.output import print_table
from gpumlp.cli.run_folder import Report, column_title
from gpumlp.data.dataset import listed
from gpumlp.ensemble import Ensemble
from gpumlp.training import Histories
from gpumlp.training.events import Callback
from gpumlp.training.metrics import measures
from gpumlp.training.scorers import scorer

Callbacks = Callable[[int], Sequence[Callback]]
"""The callbacks of a member, by its number."""


def fit(
    built: Built, folder: Path, hooks: Sequence[Callback], tensorboard: bool, **arguments: Any
) -> Report:
    """Train with checkpoints in the folder; each network has callbacks of its own.

    hooks: the callbacks of one network, besides that of --tensorboard.
    arguments: of `Trainer.fit`.
    """
    arguments["metric"] = _in_unit(arguments["metric"], built)
    training, *held_out = built.prepared(
        built.train, *([built.validation] if built.validation else [])
    )
    several, first = isinstance(built.net, Ensemble), processes.join().rank == 0

    def callbacks_of(i: int) -> list[Callback]:
        events = folder / run_folder.EVENTS
        if not (tensorboard and first):
            return copy.deepcopy([*hooks])
        tracking = callbacks.TensorBoard(events / f"member-{i}" if several else events)
        return [*copy.deepcopy(hooks), tracking]

    checkpoint = folder / run_folder.checkpoint(several)
    of_members = _clearing(callbacks_of, checkpoint, arguments["resume"])
    history: Any = built.trainer.fit(
        *training, **arguments, validation=next(iter(held_out), None), checkpoint=checkpoint,
        callbacks=of_members if several else callbacks_of(0),  # type: ignore[arg-type]
    )  # fmt: skip
    if not several:
        return Report(history, built.net)
    report = EnsembleReport(history, built.trainer)
    report.score(arguments["metric"], *(held_out or [training])[0], "val_" if held_out else "")
    return report


def _in_unit(names: Sequence[str], built: Built) -> Any:
    """The argument `metric` of `Trainer.fit`: scores in the target's unit, if it is standardised.

    R², of "auto", is the same in every unit.
    """
    if built.preparation.y_shift is None:
        return names
    loss, outputs = built.net.loss, built.preparation.outputs
    return {
        "metric" if name == "auto" else name:
        "auto" if name == "auto" else replace(scorer(name, loss), outputs=outputs)
        for name in names
    }  # fmt: skip


def _clearing(own: Callbacks, checkpoints: Path, resume: bool) -> Callbacks:
    """The callbacks; the first call of a new training removes the checkpoints of an earlier one.

    Else --resume would find those for members that had not begun.
    """
    lock, cleared = threading.Lock(), [resume]

    def of_member(i: int) -> Sequence[Callback]:
        with lock:  # the fit has checked its arguments, and has written nothing yet
            if not cleared[0]:
                for old in checkpoints.glob("member-*.safetensors"):
                    old.unlink(missing_ok=True)
            cleared[0] = True
        return own(i)

    return of_member


class EnsembleReport(Report):
    """The end of a training of several networks.

    Attributes:
        history: what the fit returned.
        model: the members that have begun, which are all unless the training was interrupted.
        stopped: "interrupted" if a member was, "early" if all others stopped early, or "finished".

    Raises:
        FloatingPointError: all members that had begun diverged before the training was interrupted.
    """

    history: Histories
    model: Ensemble

    def __init__(self, histories: Histories, trainer: Any) -> None:
        self.history, self._seeds = histories, trainer.ensemble.seeds
        self._begun = [i for i, each in enumerate(trainer.trainers) if each.steps]
        self.model = _of_members(trainer.ensemble, self._begun)
        if len(self.model.diverged) == len(self.model):
            what = next(iter(histories.diverged.values()))
            raise FloatingPointError(
                f"all members that had begun diverged before the interruption: {what}; lower --lr"
            )
        ends = {*histories.stopped} - {"diverged"}
        self.stopped = "early" if ends == {"early"} else "finished"
        if "interrupted" in ends:
            self.stopped = "interrupted"
        self._scores: dict[str, float] = {}

    def score(self, metrics: Any, x: Any, y: Any, prefix: str) -> None:
        """Compute cost and metrics of the mean prediction, with names that begin with prefix."""
        net = self.model
        J, p = net.cost_and_prediction(x, y)
        y = checks.targets(net.backend, net.loss, y, len(x), net.widths[-1])
        found = {name: of(y, p, None) for name, of in measures(net.loss, metrics).items()}
        self._scores = {f"{prefix}{name}": value for name, value in {"cost": J, **found}.items()}

    def print_history(self) -> None:
        """Print the mean of the members, and their number where some ended earlier than others."""
        mean, trained = self.history.mean(), self.history.trained
        counts = [sum(epoch < one.epochs for one in trained) for epoch in range(mean.epochs)]
        further = {"members": counts} if len({*counts}) > 1 else {}
        run_folder.print_epochs(mean, self.model, further)

    def print_end(self) -> None:
        """Print how the members ended, and the scores of their mean and their own."""
        waiting = [i for i in range(len(self.history)) if self._begun and i not in self._begun]
        ends: dict[str, list[int]] = {how: [] for how in run_folder.HOW}
        for i, one in enumerate(self.history):
            if i not in waiting:
                ends[one.stopped].append(one.epochs)
        texts = [f"{len(n)} {run_folder.ended(how, n)}" for how, n in ends.items() if n]
        if waiting:
            texts.insert(-1, f"{len(waiting)} not begun")
        typer.echo(f"{len(self.history)} members: {', '.join(texts)}")
        for i, what in self.history.diverged.items():
            typer.echo(f"member {i} diverged and is left out: {what}; lower --lr")
        if waiting:
            numbers = listed(map(str, waiting))
            typer.echo(f"not begun, and left out of {run_folder.MODEL}: {numbers}")
        if self.history.trained:
            rows = [
                (column_title(name, self.model), f"{value:.4f}", self._spread(name))
                for name, value in self._scores.items()
            ]
            print_table(("", "ensemble", "its members"), rows)

    def end_as_json(self) -> dict[str, Any]:
        """The scores of the mean prediction, and how the training of each member ended."""
        each = enumerate(zip(self._seeds, self.history, strict=True))
        members = [
            {"seed": seed, **run_folder.end_of_one(h), "diverged": self.history.diverged.get(i)}
            for i, (seed, h) in each
        ]
        return {"stopped": self.stopped, **self._result(self._scores), "members": members}

    def _spread(self, name: str) -> str:
        """The mean and the standard deviation of a column at the epochs of the members' θ."""
        found = [h[name][run_folder.epoch_of_network(h)] for h in self.history.trained]
        return f"{np.mean(found):.4f} ± {np.std(found):.4f}"


def _of_members(ensemble: Ensemble, begun: Sequence[int]) -> Ensemble:
    """The ensemble of these members; of all if there are none of these."""
    if len(begun) in (0, len(ensemble)):
        return ensemble
    found = Ensemble.of([ensemble[i] for i in begun])
    found.diverged = {j for j, i in enumerate(begun) if i in ensemble.diverged}
    return found
