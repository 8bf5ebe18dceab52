"""gpumlp find-lr: the learning-rate range test of the network that train would train."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import typer

from gpumlp.cli import options as shared
from gpumlp.cli import output
from gpumlp.cli.building import TrainingOptions, build
from gpumlp.cli.command import require
from gpumlp.cli.config import from_file
from gpumlp.cli.options import option


@dataclass(frozen=True, kw_only=True)
class FindLROptions(TrainingOptions):
    """The options of find-lr."""

    start: float = option(1e-7, "X", "First learning rate of the test.")
    end: float = option(
        10.0, "X", "Last learning rate.  The test ends earlier if the cost explodes."
    )
    steps: int = option(200, "N", "Number of steps, each on one minibatch.", min=10)
    plot: Path | None = option(None, "FILE", "Draw the cost over the learning rate as a .png file.")
    config: Path | None = from_file()
    json: bool = shared.json()


def find_lr(options: FindLROptions) -> None:
    """Find a good learning rate in a short test.

    The learning rate grows from step to step until the cost explodes.  The suggestion is the rate
    where the cost falls fastest.  A more careful choice is a tenth of the rate where the cost is
    lowest.

    The options of data, network and steps are those of train.  For train --models, the rate of one
    network is that of each.  --config also reads the run.toml of a training.
    """
    require("sklearn")
    start, end = options.start, options.end
    if not 0 < start < end < math.inf:
        raise ValueError(
            f"--start must be more than 0 and less than --end, got {start:g} and {end:g}"
        )
    output.check_plot(options.plot)
    read = {"the data": options.data, "the file of --config": options.config}
    output.check_outputs({f"--plot {options.plot}": options.plot}, read)
    built = build(options, Path("runs"))
    built.print(quiet=options.json)
    [(x, y)] = built.prepared(built.train)
    curve = built.trainer.find_lr(x, y, start=start, end=end, steps=options.steps)
    if options.plot is not None:
        curve.plot(options.plot)
    if options.json:
        found = {name: getattr(curve, name) for name in ("suggestion", "minimum", "exploded")}
        lines = {name: getattr(curve, name).tolist() for name in ("lr", "loss", "smoothed")}
        output.print_json({**built.describe(), **found, "curve": lines})
        return
    suggestion = "none: the cost never falls"
    if curve.suggestion is not None:
        suggestion = f"{curve.suggestion:.2g}, where the cost falls fastest"
    typer.echo(f"suggestion  {suggestion}")
    typer.echo(f"minimum     {curve.minimum:.2g}, where the cost is lowest")
    exploded = ", where the cost explodes" if curve.exploded else ""
    first, last = curve.lr[0], curve.lr[-1]
    typer.echo(f"steps       {len(curve.lr)}, from {first:.2g} to {last:.2g}{exploded}")
