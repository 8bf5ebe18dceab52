"""gpumlp train: a network trained, with its files in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

import gpumlp
from gpumlp import callbacks
from gpumlp.cli import config, describe, machine, models, options, outputs, watching
from gpumlp.cli.building import build
from gpumlp.cli.errors import reported
from gpumlp.cli.options import named

LearningRate = Annotated[
    float | None, Option(help="Base learning rate; the optimizer's usual one if left out.")
]
Schedule = Annotated[
    str, named(gpumlp.SCHEDULES, f"Of the learning rate: {', '.join(gpumlp.SCHEDULES)}.")
]
Plateau = Annotated[
    int | None,
    Option(
        min=1,
        metavar="EPOCHS",
        help="Lower the learning rate, the schedule's, when the validation cost has not improved "
        "for so many.",
    ),
]
PlateauFactor = Annotated[
    float | None, Option(help="What --plateau multiplies it by.  [default: 0.1]")
]
Ema = Annotated[
    float | None,
    Option(
        metavar="DECAY",
        help="Average the weights over the steps with this, 0.999 say: the average is validated, "
        "watched and written.",
    ),
]
Epochs = Annotated[int, Option(min=1, help="Passes over the training data.")]
Metric = Annotated[
    str | None,
    Option(
        metavar="NAMES",
        help="What is measured beside the cost: scikit-learn's scorers, with commas, such as "
        "f1_macro,roc_auc_ovr, each a column of the history, val_f1_macro of the validation data; "
        "auto is the column metric.  [default: auto, accuracy or R²]",
        autocompletion=watching.complete,
    ),
]
Patience = Annotated[
    int | None,
    Option(
        min=1,
        metavar="EPOCHS",
        help="Stop when the validation cost has not improved for so many, and keep the best.",
    ),
]
Watched = Annotated[
    str | None,
    Option(
        "--monitor",
        metavar="COLUMN",
        help="What --patience and --plateau watch: val_cost, cost, or a metric's column, of which "
        "more is better.  [default: val_cost]",
    ),
]
Folder = Annotated[
    Path | None, Option("--out", help="Folder for what is written.  [default: runs/NAME]")
]
CheckpointEvery = Annotated[
    int | None,
    Option(
        metavar="STEPS",
        min=1,
        help="Write checkpoint.safetensors after so many steps too, not only after each epoch.",
    ),
]
Resume = Annotated[
    bool,
    Option(
        "--resume",
        help="Go on from the folder's checkpoint, as if the training had never stopped.  Give the "
        "same options again.",
    ),
]
TensorBoard = Annotated[
    bool,
    Option(
        "--tensorboard",
        help="Write the history for TensorBoard, too, into the folder's `tensorboard`: "
        "tensorboard --logdir runs compares all runs.",
    ),
]
Plan = Annotated[
    bool, Option("--plan", help="Show the memory that the training would take, and do not train.")
]
Quiet = Annotated[bool, Option("--quiet", "-q", help="No progress bar and no table.")]


@reported
def train(
    context: typer.Context,
    data: options.Data = "mnist5k",
    target: options.Target = None,
    task: options.Task = None,
    hidden: options.Hidden = "256,256",
    activation: options.Activation = "relu",
    loss: options.Loss = None,
    label_smoothing: options.LabelSmoothing = None,
    optimizer: options.Optimizer = "adamw",
    lr: LearningRate = None,
    schedule: Schedule = "warmup_cosine",
    plateau: Plateau = None,
    plateau_factor: PlateauFactor = None,
    batch_size: options.BatchSize = 64,
    accumulate: options.Accumulate = 1,
    epochs: Epochs = 20,
    shuffle: options.Shuffle = True,
    l1: options.L1 = 0.0,
    l2: options.L2 = 0.0,
    weight_decay: options.WeightDecay = None,
    group: options.Group = None,
    clip_norm: options.ClipNorm = None,
    ema: Ema = None,
    precision: options.Precision = "float32",
    slot_precision: options.SlotPrecision = None,
    memory: options.Memory = "normal",
    backend: options.BackendName = "auto",
    seed: options.Seed = 0,
    validation: options.Validation = 0.2,
    standardize: options.Standardize = None,
    categorical: options.Categorical = None,
    max_categories: options.MaxCategories = 100,
    min_frequency: options.MinFrequency = 5,
    impute: options.Impute = "mean",
    stream: options.Stream = None,
    scratch: options.Scratch = None,
    metric: Metric = None,
    patience: Patience = None,
    monitor: Watched = None,
    out: Folder = None,
    checkpoint_every: CheckpointEvery = None,
    resume: Resume = False,
    tensorboard: TensorBoard = False,
    config_file: options.Config = None,
    plan: Plan = False,
    quiet: Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Train a network; write it and the history of its training.

    The folder gets model.safetensors, checkpoint.safetensors, history.json, history.png, and
    run.toml, with which --config repeats the run; files of those names are replaced.

    Ctrl-C ends the training and writes them too; --resume goes on from there.
    """
    models.require("matplotlib", "safetensors", "sklearn", "tqdm")
    if out is not None:
        outputs.check_folder(out)
    measured = watching.metrics(metric, loss)
    stopping, hooks = watching.rules(
        measured, validation, monitor, patience, plateau, plateau_factor
    )
    built = build(context.params, outputs.nearest(out or Path("runs")))
    dataset, part, held, net = built.dataset, built.part, built.held, built.net
    if not (quiet or as_json):
        describe.start(dataset, part, held, net)
    describe.preparation(built.preparation)
    if plan:
        planned = built.trainer.memory(
            len(part), validation=len(held or ()), early_stopping=stopping, metric=measured,
            train_metric=True,
        )  # fmt: skip
        machine.plan(dataset, net, planned) if as_json else typer.echo(planned)
        return
    with outputs.folder(out or Path("runs") / dataset.name) as folder:
        checkpoint = folder / "checkpoint.safetensors"
        describe.earlier_run(folder, checkpoint, resume, tensorboard)
        data_to_fit, to_watch = built.seen(part), built.seen(held) if held else None
        describe.scratch(built.scratch)
        if tensorboard:
            hooks.append(callbacks.TensorBoard(folder / describe.EVENTS))
        history = built.trainer.fit(
            *data_to_fit, epochs, validation=to_watch, early_stopping=stopping, callbacks=hooks,
            metric=measured, train_metric=True, progress=not quiet, checkpoint=checkpoint,
            checkpoint_every=checkpoint_every, resume=resume,
        )  # fmt: skip
        outputs.write(folder, net, built.preparation, history, dataset.name)
        config.write(folder / "run.toml", context)
    written = describe.files(tensorboard)
    if as_json:
        machine.trained(dataset, net, history, folder, written)
    else:
        if not quiet:
            describe.table(history, net)
        describe.end(history, net, folder, written)
    if history.stopped == "interrupted":
        raise typer.Exit(130)
