"""gpumlp bench: the time of a training step, compared with other libraries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from gpumlp.backends import get_backend
from gpumlp.bench import cases, report, run
from gpumlp.bench.case_runner import Settings
from gpumlp.bench.peers import COMPETITORS, OURS, known
from gpumlp.bench.results import TIMED, Result, Results
from gpumlp.cli import options as shared
from gpumlp.cli import run_folder
from gpumlp.cli.command import require
from gpumlp.cli.options import option, switch
from gpumlp.cli.output import print_json
from gpumlp.storage import check_writable

ACTIVATIONS = ("relu", "gelu", "tanh", "silu")  # those that all competitors have
PEERS = tuple(name for name in COMPETITORS if name != OURS)


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """The options of bench."""

    case: str = option("small", "NAMES", "Cases to time: {names}.", cases.PRESETS)
    widths: str | None = option(
        None, "WIDTHS",
        "Networks to use instead of those of the case: 512x4 (4 layers of width 512), or all "
        "widths as in 64-128-10.",
    )  # fmt: skip
    batch_size: str | None = option(
        None, "SIZES", "Numbers of examples in a minibatch.  [default: as in the case]"
    )
    precision: str | None = option(
        None, "NAMES", "Precisions: {names}.  [default: as in the case]", cases.ITEM_BYTES
    )
    optimizer: str | None = option(
        None, "NAMES", "Optimizers: {names}.  [default: as in the case]", cases.RATES
    )
    activation: str | None = option(
        None, "NAMES", "Activations: {names}.  [default: as in the case]", ACTIVATIONS
    )
    backend: str = shared.backend()
    peers: str | None = option(
        None, "NAMES",
        "Competitors: {names}, or a function of your own as module:function.  [default: all]",
        PEERS,
    )  # fmt: skip
    rounds: int = option(15, "N", "Number of timed rounds of each competitor.", min=2)
    cold: bool = option(True, None, "Also time a first step, with nothing compiled before it.")
    save: Path | None = option(None, "FILE", "Write all results to a JSON file.")
    plot: Path | None = option(None, "FILE", "Draw the ratios and a roofline as a .png file.")
    out: Path = option(Path("runs/bench"), "DIR", "Folder for the result of each part.")
    resume: bool = switch(
        "--resume", "Use the results that are in the folder, and add the missing ones."
    )
    minutes: float | None = option(
        None, "MINUTES", "Time limit: start no part that may end later.  --resume continues.",
        min=0.0,
    )  # fmt: skip
    json: bool = shared.json()


def bench(options: BenchOptions) -> None:
    """Time a training step against other libraries.

    The competitors are torch, JAX and scikit-learn, and the floor: the time of the step's bare
    matrix products and memory traffic.  Before timing, every competitor must change the parameters
    in the same way as gpumlp.

    Options with commas are combined: every precision with every batch size, for example.  Each
    result is written to --out as soon as it is measured, and stays there after Ctrl-C.
    """
    if options.plot is not None:
        require("matplotlib")
    run_folder.check_folder(options.out)
    for file in (options.save, options.plot):
        if file is not None:
            check_writable(file)
    case, widths, sizes, precisions, optimizers, activations = map(
        shared.split_commas,
        (options.case, options.widths, options.batch_size, options.precision, options.optimizer,
         options.activation),
    )  # fmt: skip
    chosen = cases.choose(case, widths, list(map(int, sizes)), precisions, optimizers, activations)
    names = known(shared.split_commas(options.peers) or list(PEERS))
    backend = get_backend(options.backend).name
    settings = Settings(
        backend, names, options.rounds, options.cold, options.resume, options.minutes
    )
    results = Results(options.out)
    if options.resume:
        results.load()
    complete, interrupted = False, False
    try:
        complete = run.run(chosen, settings, results, lambda line: typer.echo(line, err=True))
    except KeyboardInterrupt:
        interrupted = True
    wanted = [results.of(case, backend, one) for case in chosen for one in (OURS, *names)]
    found = [result for result in wanted if result is not None]
    _report(found, options)
    if not complete:
        done = f"{len(found)} of {len(wanted)} parts are in {options.out}"
        typer.echo(f"{done}; --resume continues", err=True)
    if interrupted:
        raise typer.Exit(130)
    if any(r.competitor == OURS and r.status in ("failed", "refused") for r in found):
        raise typer.Exit(1)


def _report(found: list[Result], options: BenchOptions) -> None:
    """Print the results, and write the files that were asked for."""
    if options.json:
        print_json(report.content(found))
    else:
        for line in report.table(found):
            typer.echo(line)
    if options.save is not None:
        report.write_json(options.save, found)
    if options.plot is not None and any(result.status == TIMED for result in found):
        from gpumlp.bench.figure import plot

        plot(found, options.plot)
