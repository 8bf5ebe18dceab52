"""gpumlp train: train a network and write its files into a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import typer

from gpumlp import callbacks
from gpumlp.backends import Backend
from gpumlp.backends.cuda.paper import GPUS
from gpumlp.cli import config, fitting, output, processes, run_folder, streams
from gpumlp.cli import options as shared
from gpumlp.cli.building import Built, build
from gpumlp.cli.command import require
from gpumlp.cli.config import from_file
from gpumlp.cli.fit_options import FitOptions, metrics
from gpumlp.cli.options import dashed, option, switch
from gpumlp.cli.run_folder import Report
from gpumlp.ensemble import Ensemble
from gpumlp.io.signals import ending
from gpumlp.training import EarlyStopping
from gpumlp.training.events import Callback
from gpumlp.training.explaining import backend_on_paper
from gpumlp.training.memory import Memory
from gpumlp.training.monitor import Monitor


@dataclass(frozen=True, kw_only=True)
class TrainOptions(FitOptions):
    """The options of train."""

    shards: int | None = option(
        None, "N",
        "Cut each minibatch into this many parts whose gradients are added in a fixed order.  Then "
        "several processes, started by mpiexec, have the same result as one.  [default: the number "
        "of processes]",
        min=1,
    )  # fmt: skip
    plateau: int | None = option(
        None, "EPOCHS",
        "Lower the learning rate when the validation cost has not improved for this many epochs.",
        min=1,
    )  # fmt: skip
    plateau_factor: float | None = option(
        None, "X", "Factor by which --plateau multiplies the learning rate.  [default: 0.1]"
    )
    monitor: str | None = option(
        None, "COLUMN",
        "Column of the history that --patience and --plateau watch: val_cost, cost, or a metric, "
        "where higher is better.  [default: val_cost]",
    )  # fmt: skip
    out: Path | None = option(
        None, "DIR", "Folder for the files.  [default: runs/NAME OF THE DATA]"
    )
    checkpoint_every: int | None = option(
        None, "STEPS",
        "Write checkpoint.safetensors also after this many steps, not only after each epoch.",
        min=1,
    )  # fmt: skip
    resume: bool = switch(
        "--resume",
        "Continue from the checkpoint in the folder, with the same result as a training without a "
        "break.  Give the same options as before.",
    )
    tensorboard: bool = switch(
        "--tensorboard",
        "Also write the history for TensorBoard, into the folder tensorboard.  `tensorboard "
        "--logdir runs` compares all runs.",
    )
    config: Path | None = from_file()
    plan: bool = switch(
        "--plan",
        "Show the memory that the training would need and the operations of a step, and do not "
        "train.",
    )
    device: str | None = option(
        None, "NAME",
        "With --plan: the memory and the step on a GPU, which need not be there, and the least "
        "time of each operation: {names}, or a .json file with measured rates.", GPUS,
    )  # fmt: skip
    plan_plot: Path | None = option(
        None, "FILE", "With --plan: draw the step's streams and its memory as a .png file."
    )
    quiet: bool = switch("--quiet", "Show no progress and no table.", "-q")
    json: bool = shared.json()


def train(options: TrainOptions) -> None:
    """Train a network and write it to a folder.

    The folder gets model.safetensors, checkpoint.safetensors, history.json, history.png and
    run.toml.  `gpumlp train --config run.toml` repeats the run.  Existing files with these names
    are replaced.

    Ctrl-C, SIGTERM and SIGHUP end the training early and write the files; --resume continues it.

    `mpiexec -n 4 gpumlp train …` trains with 4 processes; --batch-size is that of all of them.

    --models 8 trains 8 networks, as many at a time as there are cores.  Their checkpoints are in
    the folder checkpoints.  Every command takes their model as that of one network.  Networks that
    diverge are left out.
    """
    world = processes.join()
    require("matplotlib", "safetensors", "sklearn", "tqdm")
    if not (options.json or options.plan):
        streams.not_needed()
    several, names = options.several, run_folder.files(False, options.several)
    if options.out is not None:
        run_folder.check_files(options, options.out, names)
    backend, named = _backend_of_plan(options), metrics(options)
    if several and world.size > 1:
        raise ValueError(
            f"--models trains its networks in one process, on all cores, not in {world.size}; "
            "start it without mpiexec, or leave out --models"
        )
    early_stopping, hooks = _watching(options, named)
    watched: Any = {"early_stopping": early_stopping, "metric": named, "train_metric": True}
    built = build(options, options.out or Path("runs"), options.models or 1, backend, world=world)
    built.print(quiet=options.quiet or options.json)
    if options.plan:
        validation = len(built.validation or ())
        memory = built.trainer.memory(len(built.train), validation=validation, **watched)
        _print_plan(built, replace(memory, held=0) if backend else memory, options)
        return
    out = options.out or Path("runs") / built.dataset.name
    run_folder.check_files(options, out, names)
    report = fit(built, options, out, hooks, watched)
    if not (options.json or options.quiet):
        report.print_history()
    end(built, report, options.json, out, run_folder.files(options.tensorboard, several))


def fit(
    built: Built, options: TrainOptions, out: Path, hooks: list[Callback],
    watched: Mapping[str, Any],
) -> Report:  # fmt: skip
    """Train, and write the files of the run.

    watched: the arguments of `Trainer.fit` about metrics and early stopping.
    """
    world, several = processes.join(), isinstance(built.net, Ensemble)
    with run_folder.folder(out) as folder:
        run_folder.print_earlier_run(folder, options.resume, options.tensorboard, several)
        report = fitting.fit(
            built, folder, hooks, options.tensorboard, epochs=options.epochs, **watched,
            resume=options.resume, checkpoint_every=options.checkpoint_every,
            progress=not options.quiet,
        )  # fmt: skip
        with run_folder.writing(folder, several) as late:
            if world.rank == 0:
                name = built.dataset.name
                run_folder.write(folder, report.model, built.preparation, report.history, name)
                # whose default depends on the number of processes
                shards = built.trainer.shards.count if world.size > 1 else options.shards
                config.write(folder / "run.toml", "train", replace(options, shards=shards))
        world.share(None)  # the others wait until the files are written
    report.interrupted = report.stopped == "interrupted" or bool(late.requested)
    return report


def end(
    built: Built, report: Report, json: bool, out: Path, files: Sequence[str], **more: Any
) -> None:
    """Print how a training ended and its files; typer.Exit if a signal came.  more: for JSON."""
    if json:
        paths = {name: str(out / name) for name in files}
        output.print_json({**built.describe(), **more, **report.end_as_json(), "files": paths})
    else:
        report.print_end()
        typer.echo(f"wrote {out}/{', '.join(files)}")
    if report.interrupted:
        raise typer.Exit(ending.status)


def _backend_of_plan(options: TrainOptions) -> Backend | None:
    """Check the options of a plan; the backend of --device, a GPU that need not be there."""
    for name in ("device", "plan_plot"):
        if getattr(options, name) is not None and not options.plan:
            raise ValueError(f"--{dashed(name)} is for --plan; add --plan")
    output.check_plot(options.plan_plot, "--plan-plot")
    read = {"the data": options.data, "the file of --config": options.config}
    output.check_outputs({f"--plan-plot {options.plan_plot}": options.plan_plot}, read)
    return (
        None if options.device is None else backend_on_paper(options.device, options.precision)[1]
    )


def _print_plan(built: Built, memory: Memory, options: TrainOptions) -> None:
    """Print the memory of a training, in bytes, and the operations of a step."""
    step = built.trainer.explain(len(built.train), device=options.device)
    if options.plan_plot is not None:
        step.plot(options.plan_plot)
    if options.json:
        bytes_needed = {**asdict(memory), "total": memory.total}
        output.print_json({**built.describe(), "memory": bytes_needed, "step": step.to_dict()})
    else:
        typer.echo(f"{memory}\n\n{step}")


def _watching(
    options: TrainOptions, named: list[str]
) -> tuple[EarlyStopping | None, list[Callback]]:
    """Early stopping for --patience, and a callback for --plateau; both watch --monitor."""
    patience, plateau, factor = options.patience, options.plateau, options.plateau_factor
    if options.monitor is not None and patience is None and plateau is None:
        raise ValueError(
            "--monitor is for --patience and --plateau; add --patience EPOCHS or --plateau EPOCHS"
        )
    if factor is not None and plateau is None:
        raise ValueError("--plateau-factor is for --plateau; add --plateau EPOCHS")
    column = options.monitor or "val_cost"
    if patience is not None or plateau is not None:
        _check_monitor(options, column, named)
    stopping = EarlyStopping(patience, monitor=column) if patience else None
    if plateau is None:
        return stopping, []
    settings: Any = {} if factor is None else {"factor": factor}
    return stopping, [callbacks.ReduceOnPlateau(column, patience=plateau, **settings)]


def _check_monitor(options: TrainOptions, column: str, named: list[str]) -> None:
    """Raise unless the history will have the column."""
    columns = ["cost", *("metric" if name == "auto" else name for name in named)]
    if options.validation:
        columns += [f"val_{name}" for name in columns]
    elif options.monitor is None:
        user = "--plateau" if options.patience is None else "--patience"
        raise ValueError(f"{user} watches the validation cost; leave out --validation 0")
    elif column.removeprefix("val_") in columns and column not in columns:
        raise ValueError(
            f"--monitor watches {column!r}, which needs validation data; leave out --validation 0, "
            f"or monitor one of: {', '.join(columns)}"
        )
    Monitor(column).check("--monitor", columns)
