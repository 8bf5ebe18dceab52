"""The application: all commands, each of which is one file beside this one."""

from __future__ import annotations

from typing import Annotated

import typer

import gpumlp
from gpumlp.cli.benchmark import bench
from gpumlp.cli.command import Commands, command, show_tracebacks
from gpumlp.cli.describe import describe
from gpumlp.cli.evaluate import evaluate
from gpumlp.cli.export import export
from gpumlp.cli.find_lr import find_lr
from gpumlp.cli.info import info
from gpumlp.cli.predict import predict
from gpumlp.cli.search import search
from gpumlp.cli.train import train
from gpumlp.cli.tune import tune

app = typer.Typer(
    cls=Commands,
    help="Train multilayer perceptrons on NVIDIA GPUs, or on the CPU if there is no GPU.",
    epilog="With --json, stdout holds only JSON.  An error is one line on stderr.  Exit status: "
    "0: success; 1: a part of `bench` failed, or the reader of stdout has gone; 2: usage error, or "
    "an error that its message explains; 130: stopped by Ctrl-C; 143: by SIGTERM; 129: by SIGHUP.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's columns are so narrow that they cut off names
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"gpumlp {gpumlp.__version__}")
        raise typer.Exit


@app.callback()
def _start(
    debug: Annotated[bool, typer.Option(hidden=True, help="Show tracebacks.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    show_tracebacks(debug)


for _run in (train, find_lr, search, describe, evaluate, predict, export, bench, tune, info):
    app.command(_run.__name__.replace("_", "-"))(command(_run))
