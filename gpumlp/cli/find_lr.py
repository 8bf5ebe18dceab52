"""gpumlp find-lr: the learning-rate range test, of the network that train would train."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from gpumlp.cli import describe, machine, models, options, outputs, pictures
from gpumlp.cli.building import build
from gpumlp.cli.errors import reported

Start = Annotated[float, Option(help="The first learning rate.")]
End = Annotated[float, Option(help="The last one; the test ends where the cost explodes.")]
Steps = Annotated[int, Option(min=10, help="Their number, a minibatch each.")]
Picture = Annotated[
    Path | None, Option(metavar="FILE", help="Draw the cost over the learning rate there, a PNG.")
]


@reported
def find_lr(
    context: typer.Context,
    data: options.Data = "mnist5k",
    target: options.Target = None,
    task: options.Task = None,
    hidden: options.Hidden = "256,256",
    activation: options.Activation = "relu",
    loss: options.Loss = None,
    label_smoothing: options.LabelSmoothing = None,
    optimizer: options.Optimizer = "adamw",
    start: Start = 1e-7,
    end: End = 10.0,
    steps: Steps = 200,
    batch_size: options.BatchSize = 64,
    accumulate: options.Accumulate = 1,
    shuffle: options.Shuffle = True,
    l1: options.L1 = 0.0,
    l2: options.L2 = 0.0,
    weight_decay: options.WeightDecay = None,
    group: options.Group = None,
    clip_norm: options.ClipNorm = None,
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
    plot: Picture = None,
    config_file: options.Config = None,
    as_json: options.AsJson = False,
) -> None:
    """Find a learning rate: one that grows from step to step until the cost explodes.

    Takes train's options of data, network and steps, or a run.toml of its by --config.  What it
    suggests is where the cost falls most steeply; a tenth of where it is least is cautious.
    """
    models.require("sklearn")
    if not 0 < start < end < math.inf:
        raise ValueError(
            f"--start must be more than 0 and less than --end, got {start:g} and {end:g}"
        )
    pictures.check(plot)
    built = build(context.params, outputs.nearest(Path("runs")))
    if not as_json:
        describe.start(built.dataset, built.part, built.held, built.net)
    describe.preparation(built.preparation)
    x, y = built.seen(built.part)
    describe.scratch(built.scratch)
    curve = built.trainer.find_lr(x, y, start=start, end=end, steps=steps)
    if plot is not None:
        curve.plot(plot)
    if as_json:
        machine.learning_rates(built.dataset, built.net, curve)
    else:
        describe.learning_rates(curve)
