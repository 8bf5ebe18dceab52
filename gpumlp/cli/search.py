"""gpumlp search: compare candidates by cross-validation, and train the best one."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import typer

from gpumlp.checks import MOST_MODELS
from gpumlp.cli import candidates as trying
from gpumlp.cli import options as shared
from gpumlp.cli import processes, results, run_folder, streams
from gpumlp.cli import train as training
from gpumlp.cli.building import assembled, check, preparing, scratch_of
from gpumlp.cli.command import require
from gpumlp.cli.config import from_file
from gpumlp.cli.cross_validation import Search, check_metrics, cross_validate, folds_of
from gpumlp.cli.data_options import load, print_reading
from gpumlp.cli.fit_options import FitOptions, complete_metric, metrics
from gpumlp.cli.options import dashed, option, switch
from gpumlp.cli.results import Results
from gpumlp.cli.train import TrainOptions
from gpumlp.data import Preparation, split


@dataclass(frozen=True, kw_only=True)
class SearchOptions(FitOptions):
    """The options of search."""

    tries: list[str] | None = option(
        None, "NAME=VALUES",
        "Values of an option to try, with commas: lr=0.001,0.01 or hidden=64,128x128.  With "
        "--random also a range: lr=0.0001..0.1.  This option can be repeated; all combinations are "
        "candidates.  [default: 0.3, 1 and 3 times the learning rate, hidden=64x64,256x256]",
        (), "--try",
        autocompletion=shared.completing([f"{name}=" for name in trying.NAMES]),
    )  # fmt: skip
    random: int | None = option(
        None, "N", "Draw this number of candidates at random, in place of all combinations.", min=1
    )
    folds: int = option(
        5, "N",
        "Number of folds: parts of the examples, of which each validates the networks that are "
        "trained on the others.",
        min=2,
    )  # fmt: skip
    validation: float = option(
        0.0, "SHARE",
        "Examples that are left out of the search and of the last training, which they validate: "
        "a share, or their number if it is 1 or more; 0 for none.  With --patience the last "
        "training watches them, and each fit of the search as large a share of its own rows.",
    )  # fmt: skip
    metric: str | None = option(
        None, "NAMES",
        "Scores of the validation parts: names of scikit-learn's scorers with commas, such as "
        "f1_macro,roc_auc_ovr, or auto (accuracy or R²), in the unit of the target.  The first one "
        "decides which candidate is the best.  [default: auto]",
        autocompletion=complete_metric,
    )  # fmt: skip
    models: int | None = option(
        None, "K",
        "Train the best candidate as an ensemble of K networks, which differ in their first "
        "weights and in the order of the data.  The candidates are single networks.  [default: 1]",
        min=1, max=MOST_MODELS,
    )  # fmt: skip
    patience: int | None = option(
        None, "EPOCHS",
        "Early stopping of each training: stop when the cost of the examples that it watches has "
        "not improved for this many epochs, and keep the best network.", min=1,
    )  # fmt: skip
    out: Path | None = option(
        None, "DIR", "Folder for the files.  [default: runs/NAME OF THE DATA-search]"
    )
    config: Path | None = from_file()
    quiet: bool = switch("--quiet", "Show no progress and no table.", "-q")
    json: bool = shared.json()


def search(options: SearchOptions) -> None:
    """Compare settings by cross-validation, and train the best on all examples.

    Each candidate is trained once for each fold, without the examples of the fold, from which
    nothing is learnt: means, categories, or when to stop.  On the compiled CPU backend candidates
    are trained at the same time, each on one core; elsewhere those that differ in learning rate,
    weight decay and penalties in lockstep.  The score is that of the fold after the last epoch;
    with --patience, of the network that is the best on a part of the other examples.

    The folder gets search.csv, search.json and search.png with the scores, and the files of
    `gpumlp train` with the best settings.  `gpumlp train --config run.toml` repeats this training.

    Ctrl-C ends the search without a file; in the last training it does what it does in train.
    """
    world = processes.join()
    require("matplotlib", "safetensors", "sklearn", "tqdm")
    if world.size > 1:
        raise ValueError(
            f"search trains its candidates in one process, on all cores, not in {world.size}; "
            "start it without mpiexec"
        )
    if not options.json:
        streams.not_needed()
    files = (*run_folder.files(False, options.several), *results.FILES)
    if options.out is not None:
        run_folder.check_files(options, options.out, files)
    search = _searched(options)
    out = options.out or Path("runs") / f"{search.dataset.name}-search"
    run_folder.check_files(options, out, files)
    if not (options.quiet or options.json):
        typer.echo(f"{search.dataset!r}\n{_counts(options, search)} × {options.folds} folds")
    found = Results.of(search, cross_validate(search, not options.quiet))
    best = _train_options(options, found.best, bool(search.dataset.classes))
    with run_folder.folder(out) as folder:
        results.write(folder, found)
        if not (options.quiet or options.json):
            results.print_table_of(found)
            typer.echo(f"training the best candidate on {len(search.train):,} examples")
        built = assembled(
            best, search.dataset, search.train, search.validation, search.scratch,
            models=best.models or 1,
        )  # fmt: skip
        named: dict[str, Any] = {
            "early_stopping": best.patience, "metric": metrics(best), "train_metric": True,
        }  # fmt: skip
        report = training.fit(built, best, folder, [], named)
    training.end(built, report, options.json, out, files, search=found.as_json())


def _searched(options: SearchOptions) -> Search:
    """Check the options, and load the data."""
    names = metrics(options)
    if options.patience is not None and not options.validation:
        raise ValueError(
            "--patience watches examples that are left out of a training; add --validation 0.2"
        )
    check(options)
    grid = trying.grid(options, options.tries or (), options.random is not None)
    values = trying.combined(grid, options.random, options.seed)
    candidates = [replace(options, **each) for each in values]
    for each, own in zip(candidates, values, strict=True):
        try:
            check(each)
        except ValueError as error:
            text = ", ".join(f"{dashed(name)}={trying.shown(v)}" for name, v in own.items())
            raise ValueError(f"--try {text}: {error}") from None
    scratch = scratch_of(options, options.out or Path("runs"))
    dataset, decision = load(options, scratch, options.loss, candidates)
    train, validation = split(dataset, options.validation, options.seed)
    known = Preparation.of(train, **preparing(candidates[0], dataset))
    print_reading(dataset, known, decision)
    folds = folds_of(train, options.folds, options.seed)
    watched = 0.0 if options.patience is None else len(validation or ()) / len(dataset)
    found = Search(dataset, train, validation, folds, candidates, values, names, scratch, watched)
    check_metrics(found)
    return found


def _counts(options: SearchOptions, search: Search) -> str:
    """How many candidates there are, and of what: "6 candidates (3 lr × 2 hidden)"."""
    count = len(search.values)
    columns = zip(*(map(trying.shown, each.values()) for each in search.values), strict=True)
    of = " × ".join(f"{len({*c})} {name}" for c, name in zip(columns, search.names, strict=True))
    if options.random is not None:
        of = ", ".join(search.names)
    return f"{count} candidate{'s' * (count > 1)} ({of})"


def _train_options(options: SearchOptions, best: FitOptions, classes: bool) -> TrainOptions:
    """The options of train for the best candidate."""
    given: dict[str, Any] = {field.name: getattr(best, field.name) for field in fields(FitOptions)}
    if not classes:  # train rounds its targets: a score that needs y ≥ 0 may refuse a y of 0
        given["metric"] = None
    return TrainOptions(**given, out=options.out, quiet=options.quiet or options.json)
