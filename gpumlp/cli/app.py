"""The commands; each is the few steps that a Python user would take."""

from __future__ import annotations

from typing import Annotated

import typer

import gpumlp
from gpumlp import data as datasets
from gpumlp.cli import describe, machine, models, options, predictions
from gpumlp.cli.benchmark import bench
from gpumlp.cli.errors import Commands, reported, show_tracebacks
from gpumlp.cli.export import export
from gpumlp.cli.find_lr import find_lr
from gpumlp.cli.measures import Measures
from gpumlp.cli.pictures import Picture
from gpumlp.cli.train import train

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


app.command()(train)
app.command("find-lr")(find_lr)


@app.command()
@reported
def evaluate(
    model: options.Model,
    data: options.DataToUse,
    target: options.Target = None,
    plot: options.Picture = None,
    backend: options.BackendName = "auto",
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
    backend: options.BackendName = "auto",
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
