"""The commands; each is the few steps that a Python user would take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import gpumlp
from gpumlp import data as datasets
from gpumlp.callbacks import TensorBoard
from gpumlp.cli import config, describe, machine, models, options, outputs, predictions
from gpumlp.cli.benchmark import bench
from gpumlp.cli.errors import Commands, reported, show_tracebacks
from gpumlp.cli.export import export
from gpumlp.cli.measures import Measures
from gpumlp.cli.pictures import Picture
from gpumlp.training import Trainer

app = typer.Typer(
    cls=Commands,
    help="Train multilayer perceptrons on NVIDIA GPUs, or on the CPU where there is none.",
    epilog="With --json stdout holds JSON alone.  An error is one line on stderr.  Exit status: 0 "
    "done; 1 a part of `bench` failed; 2 wrong use, or what its message says to mend; 130 Ctrl-C.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its columns are so narrow that they cut off names
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"gpumlp {gpumlp.__version__}")
        raise typer.Exit


@app.callback()
def _start(
    debug: Annotated[bool, typer.Option(hidden=True, help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    show_tracebacks(debug)


@app.command()
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
    lr: options.LearningRate = None,
    schedule: options.Schedule = "warmup_cosine",
    batch_size: options.BatchSize = 64,
    epochs: options.Epochs = 20,
    l1: options.L1 = 0.0,
    l2: options.L2 = 0.0,
    weight_decay: options.WeightDecay = None,
    clip_norm: options.ClipNorm = None,
    precision: options.Precision = "float32",
    slot_precision: options.SlotPrecision = None,
    memory: options.Memory = "normal",
    backend: options.Room = "auto",
    seed: options.Seed = 0,
    validation: options.Validation = 0.2,
    standardize: options.Standardize = None,
    categorical: options.Categorical = None,
    max_categories: options.MaxCategories = 100,
    min_frequency: options.MinFrequency = 5,
    impute: options.Impute = "mean",
    stream: options.Stream = None,
    scratch: options.Scratch = None,
    patience: options.Patience = None,
    out: options.Folder = None,
    checkpoint_every: options.CheckpointEvery = None,
    resume: options.Resume = False,
    tensorboard: options.TensorBoard = False,
    config_file: options.Config = None,
    plan: options.Plan = False,
    quiet: options.Quiet = False,
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
    if patience is not None and not validation:
        raise ValueError("--patience watches the validation cost; leave out --validation 0")
    datasets.check_impute(impute)
    rule = models.optimizer(optimizer, weight_decay)

    def trainer_of(net: gpumlp.MLP) -> Trainer:
        return Trainer(
            net, rule, lr, batch_size, schedule, clip_norm, seed, slot_precision, memory=memory
        )

    settings: Any = {"precision": precision, "backend": backend, "seed": seed}
    models.check(hidden, activation, loss, trainer_of, **settings)
    room = datasets.Scratch(scratch or outputs.nearest(out or Path("runs")), stream)
    dataset = datasets.load(
        data, target, task, categorical=options.listed(categorical), scratch=room
    )
    part, held = datasets.split(dataset, validation, seed)
    cost = models.loss_for(dataset, loss, label_smoothing)
    preparation = models.prepare(
        part, cost, standardize, impute=impute, max_categories=max_categories,
        min_frequency=min_frequency,
    )  # fmt: skip
    net = models.build(
        dataset, len(preparation.columns), hidden, activation, cost, l1=l1, l2=l2, **settings
    )
    trainer = trainer_of(net)

    def seen(examples: datasets.Dataset) -> tuple[Any, Any]:
        x = preparation.prepared(examples.x, net.backend.dtype, room, examples.categories)
        return x, preparation.targets(examples.y)

    if not (quiet or as_json):
        describe.start(dataset, part, held, net)
    describe.preparation(preparation)
    if plan:
        planned = trainer.memory(
            len(part), validation=len(held or ()), early_stopping=patience, train_metric=True
        )
        machine.plan(dataset, net, planned) if as_json else typer.echo(planned)
        return
    with outputs.folder(out or Path("runs") / dataset.name) as folder:
        checkpoint = folder / "checkpoint.safetensors"
        describe.earlier_run(folder, checkpoint, resume)
        data_to_fit, to_watch = seen(part), seen(held) if held else None
        describe.scratch(room)
        history = trainer.fit(
            *data_to_fit, epochs, validation=to_watch, early_stopping=patience,
            train_metric=True, progress=not quiet, checkpoint=checkpoint,
            checkpoint_every=checkpoint_every, resume=resume,
            callbacks=[TensorBoard(folder / "tensorboard")] if tensorboard else [],
        )  # fmt: skip
        outputs.write(folder, net, preparation, history, dataset.name)
        config.write(folder / "run.toml", context)
    if as_json:
        machine.trained(dataset, net, history, folder)
    else:
        if not quiet:
            describe.table(history, net)
        describe.end(history, net, folder)
    if history.stopped == "interrupted":
        raise typer.Exit(130)


@app.command()
@reported
def evaluate(
    model: options.Model,
    data: options.DataToUse,
    target: options.Target = None,
    plot: options.Picture = None,
    backend: options.Room = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Show a model's cost and metrics on data, in the data's own unit.

    All rows of it count, those that the model was trained on too.
    """
    picture = Picture(plot)
    net, preparation = models.load(model, backend)
    measures = Measures(net, preparation)
    unmet = describe.Unmet(preparation)
    for part in datasets.pieces(data, preparation, target):
        unmet.note(part)
        picture.add(part, measures.add(part))
    unmet.tell()
    picture.draw()
    unit = "" if preparation.y_shift is None else " (of the standardised target)"
    measured = {f"cost{unit}": measures.cost()} | measures.metrics()
    if as_json:
        machine.evaluated(measures.name, measures.examples, preparation, net, measured)
        return
    typer.echo(repr(measures))
    typer.echo(repr(net))
    width = max(map(len, measured)) + 2
    for name, value in measured.items():
        typer.echo(f"{name:<{width}}{value:.6g}")


@app.command()
@reported
def predict(
    model: options.Model,
    data: options.DataToUse,
    out: options.Predictions = None,
    backend: options.Room = "auto",
    as_json: options.PredictionsAsJson = False,
) -> None:
    """Write a model's predictions, a row for each example.

    A row holds the label and the classes' probabilities, or the value.  The data is read, and the
    predictions are written, piece by piece; a file is there when it is whole.
    """
    predictions.check(out)
    net, preparation = models.load(model, backend)
    unmet, examples = describe.Unmet(preparation), 0
    with predictions.writer(out, preparation.classes) as write:
        for part in datasets.pieces(data, preparation, labelled=False):
            unmet.note(part)
            p = preparation.outputs(net.predict(preparation.inputs(part.x[:])))
            if as_json and out is None:
                machine.predicted(p, preparation.classes)
            else:
                write(p)
            examples += len(p)
    unmet.tell()
    if as_json and out is not None:
        machine.show({"file": str(out), "examples": examples})


app.command()(export)
app.command()(bench)


@app.command()
@reported
def tune(
    model: options.ModelToTune = None,
    widths: options.Widths = None,
    activation: options.ActivationToTune = None,
    optimizer: options.Optimizer = "adamw",
    batch_size: options.BatchSize = 256,
    precision: options.PrecisionToTune = None,
    again: options.Again = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure the matrix products of a training step on the GPU, and keep the fastest ways.

    Trainings of networks with these widths and this batch size use them from then on.  The file is
    in $GPUMLP_CACHE, or the user's cache folder.  The speed-up is over the algorithm that cublasLt
    puts first; a product with an epilogue is also measured without it, beside gpumlp's own kernels.
    """
    from gpumlp.cli import tune as tuning

    net = tuning.network(model, widths, activation, precision)
    if not as_json:
        typer.echo(repr(net))
    tuning.show(net, tuning.measure(net, batch_size, optimizer, again), as_json)


@app.command()
@reported
def info(as_json: options.AsJson = False) -> None:
    """Show versions, devices, and why the GPU is or isn't used."""
    found = dict(describe.installation())
    if as_json:
        machine.show({k: None if text == describe.MISSING else text for k, text in found.items()})
        return
    for name, text in found.items():
        typer.echo(f"{name:<14}{text}")
