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
from gpumlp.cli.building import Built, assembled, preparing
from gpumlp.cli.candidates import shown
from gpumlp.cli.fit_options import FitOptions
from gpumlp.cli.losses import ends
from gpumlp.data import Dataset, Preparation, Scratch
from gpumlp.data.scratch import select_rows
from gpumlp.errors import DivergenceError
from gpumlp.functions import Loss
from gpumlp.io.types import HostArray
from gpumlp.training import members
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
    """

    dataset: Dataset
    train: Dataset
    validation: Dataset | None
    folds: Sequence[Fold]
    candidates: Sequence[FitOptions]
    values: Sequence[Mapping[str, Any]]
    metrics: Sequence[str]
    scratch: Scratch

    @cached_property
    def tried(self) -> dict[str, list[str]]:
        """The different values of each option that is tried, as texts."""
        names = list(self.values[0])
        return {
            name.replace("_", "-"): list(dict.fromkeys(shown(each[name]) for each in self.values))
            for name in names
        }


class Fit(NamedTuple):
    """One fit: a score for each metric, NaN where it diverged; and its seconds."""

    scores: Mapping[str, float]
    seconds: float
    diverged: str = ""


class Part(NamedTuple):
    """A fold that is prepared: inputs and targets to train on, inputs and y to validate on."""

    train: Dataset
    preparation: Preparation
    x: HostArray
    targets: HostArray
    x_val: HostArray
    y_val: HostArray


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
    parts = _Parts(search, backend)
    folds = len(search.folds)
    found: dict[int, Fit] = {}
    interrupted: list[int] = []
    silent = not (progress and sys.stderr and sys.stderr.isatty())

    with tqdm(total=len(search.candidates) * folds, unit="fit", disable=silent) as bar:

        def work(number: int) -> None:
            i, j = divmod(number, folds)
            built, part = parts.built(search.candidates[i], j)
            fit = _fit(built, part, search.candidates[i], search.metrics)
            if fit is None:
                interrupted.append(number)
                return
            found[number] = fit
            bar.update()

        numbers = range(len(search.candidates) * folds)
        members.call(work, numbers, members.count(backend))
    if interrupted:
        raise KeyboardInterrupt
    return [[found[i * folds + j] for j in range(folds)] for i in range(len(search.candidates))]


class _Parts:
    """The folds, each prepared once for all candidates that prepare it alike."""

    def __init__(self, search: Search, backend: Backend) -> None:
        self._search, self._backend = search, backend
        self._known: dict[Any, Part] = {}
        self._lock = Lock()

    def built(self, options: FitOptions, fold: int) -> tuple[Built, Part]:
        """Network and trainer of a candidate, and the data of a fold."""
        search = self._search
        how = preparing(options, search.dataset)
        key = (fold, *how.values())
        with self._lock:
            if key not in self._known:
                self._known[key] = self._prepared(fold, how)
            part = self._known[key]
        built = assembled(
            options, search.dataset, part.train, None, search.scratch,
            preparation=part.preparation, backend=self._backend,
        )  # fmt: skip
        return built, part

    def _prepared(self, fold: int, how: Mapping[str, Any]) -> Part:
        search, dtype = self._search, self._backend.dtype
        train, validation = (_rows(search.train, rows) for rows in search.folds[fold])
        known = Preparation.of(train, **how)
        x, x_val = (
            known.prepared(part.x, dtype, search.scratch, part.categories)
            for part in (train, validation)
        )
        return Part(train, known, x, known.targets(train.y), x_val, validation.y)


def _rows(dataset: Dataset, rows: HostArray) -> Dataset:
    return replace(dataset, x=select_rows(dataset.x, rows), y=dataset.y[rows])


def _fit(built: Built, part: Part, options: FitOptions, names: Sequence[str]) -> Fit | None:
    """Train, and score the validation part in the target's unit; None if a signal came."""
    started = time.perf_counter()
    try:
        history = built.trainer.fit(
            part.x, part.targets, options.epochs, metric=None, progress=False
        )
        if history.stopped == "interrupted":
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            p = built.net.predict(part.x_val)
        if not np.isfinite(p).all():
            raise DivergenceError("", "a prediction is not finite")
    except DivergenceError as error:
        lost = dict.fromkeys(names, float("nan"))
        return Fit(lost, time.perf_counter() - started, error.what)
    scored = _scores(built, part.y_val, p, names)
    return Fit(scored, time.perf_counter() - started)


def _scores(built: Built, y: HostArray, p: HostArray, names: Sequence[str]) -> dict[str, float]:
    loss = built.net.loss
    of = zip(names, measures(loss, names).values(), strict=True)
    y, p = _targets(y, loss), p if built.dataset.classes else built.preparation.outputs(p)
    return {name: float(measure(y, p, None)) for name, measure in of}


def _targets(y: HostArray, loss: Loss) -> HostArray:
    """Labels or values as a metric takes them."""
    return y if loss.target == "class" else y.reshape(len(y), -1)
