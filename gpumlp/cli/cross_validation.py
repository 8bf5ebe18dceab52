"""The fits of a search: every candidate on every fold, all trained together."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from gpumlp.backends import Backend, get_backend
from gpumlp.cli.building import Built, assembled, preparing, trainer_settings
from gpumlp.cli.fit_options import FitOptions
from gpumlp.cli.layers import ends
from gpumlp.cli.options import dashed
from gpumlp.data import Dataset, Preparation, Scratch, split
from gpumlp.data.scratch import select_rows
from gpumlp.ensemble import Ensemble
from gpumlp.errors import DivergenceError
from gpumlp.functions import Loss
from gpumlp.io.signals import shared
from gpumlp.io.types import HostArray
from gpumlp.training import EnsembleTrainer, members
from gpumlp.training.folds import Fold, k_folds
from gpumlp.training.metrics import measures
from gpumlp.training.scorers import Scorer


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes:
        dataset: all examples; train: those of the search; validation: those left out of it.
        folds: pairs of the rows of `train` to train on and to validate on.
        candidates: the options of each candidate; values: what `--try` says of it.
        metrics: the names of the scores, of which the first decides.
        watched: the share of the rows to train on that early stopping watches instead.
    """

    dataset: Dataset
    train: Dataset
    validation: Dataset | None
    folds: Sequence[Fold]
    candidates: Sequence[FitOptions]
    values: Sequence[Mapping[str, Any]]
    metrics: Sequence[str]
    scratch: Scratch
    watched: float = 0.0

    @cached_property
    def names(self) -> list[str]:
        """The options that are tried, as the user writes them."""
        return [*map(dashed, self.values[0])]


class Fit(NamedTuple):
    """One fit: a score for each metric, NaN where it diverged; and its seconds."""

    scores: Mapping[str, float]
    seconds: float
    diverged: str = ""


class Part(NamedTuple):
    """A fold that is prepared: inputs and targets to train on, inputs and y to validate on.

    watched: inputs and targets that early stopping watches.
    """

    train: Dataset
    preparation: Preparation
    x: HostArray
    targets: HostArray
    x_val: HostArray
    y_val: HostArray
    watched: tuple[HostArray, HostArray] | None


def folds_of(train: Dataset, number: int, seed: int) -> list[Fold]:
    """The folds; each has the classes' shares, but for classes with too few examples.

    Raises ValueError if there are more folds than examples.
    """
    if number > len(train):
        raise ValueError(
            f"--folds {number} is more than the {len(train)} examples; use --folds {len(train)}"
        )
    if train.classes is None or np.bincount(train.y).max() < number:
        return k_folds(len(train), number, seed)
    from sklearn.model_selection import StratifiedKFold

    splitter = StratifiedKFold(number, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")
        return list(splitter.split(np.zeros(len(train)), train.y))


def check_metrics(search: Search) -> None:
    """Raise ValueError if a metric has no score for the examples of a fold."""
    found = {}
    for options in search.candidates:
        loss, n = ends(search.dataset, options.loss, options.label_smoothing)
        found[loss.name] = loss, n
    for loss, n in found.values():
        scorers = [m for m in measures(loss, search.metrics).values() if isinstance(m, Scorer)]
        for measure in scorers:
            for _, rows in search.folds:
                measure.validate(_targets(search.train.y[rows], loss), n, None, "validation")


def cross_validate(search: Search, progress: bool) -> list[list[Fit]]:
    """Train and score each candidate, (candidates, folds).

    Raises KeyboardInterrupt if a signal came; all fits have ended then.
    """
    from tqdm import tqdm

    options = search.candidates[0]
    backend = get_backend(options.backend, options.precision)
    parts, groups = _Parts(search, backend), _groups(search, backend)
    found: dict[tuple[int, int], Fit] = {}
    silent = not (progress and sys.stderr and sys.stderr.isatty())

    count = sum(len(own) for _, own in groups)
    with shared() as interrupt, tqdm(total=count, unit="fit", disable=silent) as bar:

        def work(number: int) -> None:
            if interrupt.requested:
                return
            fold, own = groups[number]
            each = [search.candidates[i] for i in own]
            part = parts.of(each[0], fold)
            builts = [parts.built(options, part) for options in each]
            fits = _fits(builts, part, each[0], search.metrics)
            if interrupt.requested:
                return
            found.update(zip([(i, fold) for i in own], fits, strict=True))
            bar.update(len(own))

        members.call(work, range(len(groups)), members.count(backend))
    if interrupt.requested:
        raise KeyboardInterrupt
    folds = range(len(search.folds))
    return [[found[i, fold] for fold in folds] for i in range(len(search.candidates))]


def _groups(search: Search, backend: Backend) -> list[tuple[int, list[int]]]:
    """The trainings: a fold, and the candidates that are trained on it in lockstep.

    These differ only in what the members of an ensemble can have of their own.  The compiled CPU
    backend has a thread for each training instead.
    """
    alike: dict[str, list[int]] = {}
    for i, options in enumerate(search.candidates):
        shape = replace(options, lr=None, weight_decay=None, l1=0.0, l2=0.0)
        alike.setdefault(str(i) if backend.compiles else repr(shape), []).append(i)
    return [(fold, own) for own in alike.values() for fold in range(len(search.folds))]


class _Parts:
    """The folds, each prepared once for all candidates that prepare it alike."""

    def __init__(self, search: Search, backend: Backend) -> None:
        self._search, self._backend = search, backend
        self._known: dict[Any, Part] = {}
        self._lock = Lock()

    def of(self, options: FitOptions, fold: int) -> Part:
        """The data of a fold, as a candidate prepares it."""
        how = preparing(options, self._search.dataset)
        key = (fold, *how.values())
        with self._lock:
            if key not in self._known:
                self._known[key] = self._prepared(fold, how)
            return self._known[key]

    def built(self, options: FitOptions, part: Part) -> Built:
        """Network and trainer of a candidate."""
        search = self._search
        return assembled(
            options, search.dataset, part.train, None, search.scratch,
            preparation=part.preparation, backend=self._backend,
        )  # fmt: skip

    def _prepared(self, fold: int, how: Mapping[str, Any]) -> Part:
        search, dtype = self._search, self._backend.dtype
        train, validation = (_rows(search.train, rows) for rows in search.folds[fold])
        train, watched = split(train, search.watched, search.candidates[0].seed)
        known = Preparation.of(train, **how)
        x, x_val, *x_watched = (
            known.prepared(part.x, dtype, search.scratch, part.categories)
            for part in (train, validation, *([watched] if watched else []))
        )
        held_out = (x_watched[0], known.targets(watched.y)) if watched else None
        return Part(train, known, x, known.targets(train.y), x_val, validation.y, held_out)


def _rows(dataset: Dataset, rows: HostArray) -> Dataset:
    return replace(dataset, x=select_rows(dataset.x, rows), y=dataset.y[rows])


def _fits(
    builts: Sequence[Built], part: Part, options: FitOptions, names: Sequence[str]
) -> list[Fit]:
    """Train, and score the validation part in the target's unit."""
    started = time.perf_counter()
    lost = _train(builts, part, options)
    seconds = (time.perf_counter() - started) / len(builts)
    return [
        _scored(built, part, names, what, seconds) for built, what in zip(builts, lost, strict=True)
    ]


def _train(builts: Sequence[Built], part: Part, options: FitOptions) -> list[str]:
    """Train the networks: what is not finite of each that diverged, "" of the others."""
    named: Any = {
        "metric": None, "progress": False,
        "validation": part.watched, "early_stopping": options.patience,
    }  # fmt: skip
    try:
        if len(builts) == 1:
            builts[0].trainer.fit(part.x, part.targets, options.epochs, **named)
            return [""]
        rules = [built.trainer.optimizer for built in builts]
        rates = [built.trainer.lr for built in builts]
        settings = trainer_settings(options)
        del settings["optimizer"], settings["lr"]
        nets: list[Any] = [built.net for built in builts]
        ensemble = Ensemble.of(nets)
        histories = EnsembleTrainer(ensemble, rules, rates, **settings).fit(
            part.x, part.targets, options.epochs, orders="same", **named
        )
    except DivergenceError as error:
        return [error.what] * len(builts)
    return [histories.diverged.get(i, "") for i in range(len(builts))]


def _scored(built: Built, part: Part, names: Sequence[str], lost: str, seconds: float) -> Fit:
    """The scores of a network that is trained."""
    started, loss = time.perf_counter(), built.net.loss
    with np.errstate(over="ignore", invalid="ignore"):
        p = None if lost else built.net.predict(part.x_val)
    if p is None or not np.isfinite(p).all():
        what = lost or "a prediction is not finite"
        return Fit(dict.fromkeys(names, float("nan")), seconds, what)
    y, p = _targets(part.y_val, loss), p if built.dataset.classes else built.preparation.outputs(p)
    each = zip(names, measures(loss, names).values(), strict=True)
    scores = {name: float(measure(y, p, None)) for name, measure in each}
    return Fit(scores, seconds + time.perf_counter() - started)


def _targets(y: HostArray, loss: Loss) -> HostArray:
    """Labels or values as a metric takes them."""
    return y if loss.target == "class" else y.reshape(len(y), -1)
