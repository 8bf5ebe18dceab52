"""gpumlp bench: the time of a training step, compared with other libraries."""

from __future__ import annotations

import glob
import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import typer

from gpumlp.backends import get_backend
from gpumlp.bench import cases
from gpumlp.bench.case_runner import Settings, run
from gpumlp.bench.peers import COMPETITORS, FLOOR, OURS, known
from gpumlp.bench.profile import rows
from gpumlp.bench.results import SUFFIX, TIMED, Result, Results
from gpumlp.cli import options as shared
from gpumlp.cli import run_folder
from gpumlp.cli.command import require
from gpumlp.cli.options import option, switch
from gpumlp.cli.output import check_outputs, print_json, print_table
from gpumlp.io.files import atomic_write, check_place, together
from gpumlp.io.signals import ending
from gpumlp.plots import write_png

ACTIVATIONS = ("relu", "gelu", "tanh", "silu")  # those that all competitors have
PEERS = tuple(name for name in COMPETITORS if name != OURS)
COLUMNS = (
    "", "median ms", "quartiles ms", "gpumlp takes", "TFLOP/s", "of floor", "peak MB",
    "first step s", "error",
)  # fmt: skip
LEGEND = """\
gpumlp takes: the time of gpumlp over the time of this competitor, round by round.
of floor: the time of the floor over the time of this competitor. The floor is the bare products of
  the step, and its other bytes at the speed of a copy.
peak MB: {peak}.
first step s: seconds from the import on, cold (nothing compiled) / warm. On a GPU, gpumlp tunes the
  step in this time.
error: relative error of the first change of the parameters, compared with float64.
model µs: the time of an operation by the measured rates of bare products, copies and launches.
alone µs: its time if it is repeated by itself."""


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
    profile: bool = option(
        True, None, "Also show the step's operations: the model of their time, and each alone."
    )
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
            check_place(file)
    check_outputs(
        {f"--save {options.save}": options.save, f"--plot {options.plot}": options.plot},
        {"a result": f"{glob.escape(str(options.out))}/*{SUFFIX}"},
    )
    case, widths, sizes, precisions, optimizers, activations, peers = map(
        shared.split_commas,
        (options.case, options.widths, options.batch_size, options.precision, options.optimizer,
         options.activation, options.peers),
    )  # fmt: skip
    chosen = cases.choose(case, widths, list(map(int, sizes)), precisions, optimizers, activations)
    names = known(peers or list(PEERS))
    backend = get_backend(options.backend).name
    settings = Settings(
        backend, names, options.rounds, options.cold, options.profile, options.minutes
    )
    results = Results(options.out)
    if options.resume:
        results.load()
    complete, interrupted = False, False
    try:
        complete = run(chosen, settings, results, lambda line: typer.echo(line, err=True))
    except KeyboardInterrupt:
        interrupted = True
    wanted = [(case.slug, backend, one) for case in chosen for one in (OURS, *names)]
    found = [results[key] for key in wanted if key in results]
    _report(found, options)
    if not complete:
        done = f"{len(found)} of {len(wanted)} parts are in {options.out}"
        typer.echo(f"{done}; --resume continues", err=True)
    if interrupted:
        raise typer.Exit(ending.status)
    if any(r.competitor == OURS and r.status in ("failed", "refused") for r in found):
        raise typer.Exit(1)


def _report(found: list[Result], options: BenchOptions) -> None:
    """Print the results, and write the files that were asked for."""
    content = {"results": [result.to_json() for result in found]}
    if options.json:
        print_json(content)
    else:
        _print_tables(found)
    with together():
        if options.save is not None:
            atomic_write(options.save, f"{json.dumps(content, indent=1)}\n".encode())
        if options.plot is not None and any(result.status == TIMED for result in found):
            from gpumlp.bench.figure import figure

            write_png(figure(found), options.plot)


def _print_tables(found: list[Result]) -> None:
    """Print a table for each case, and who was left out and why."""
    for heading, group in groupby(found, key=_heading):
        results = list(group)
        timed = [r for r in results if r.status == TIMED]
        floor = next((r for r in timed if r.competitor == FLOOR), None)
        typer.echo(heading)
        print_table(COLUMNS, [_row(r, floor) for r in timed])
        for r in results:
            if r.status != TIMED:
                typer.echo(f"  {r.competitor}: {r.status}: {r.reason}")
            if "profile" in r.notes:
                _print_profile(r)
        typer.echo()
    kinds = sorted({r.peak_of for r in found if r.status == TIMED})
    if kinds:
        typer.echo(LEGEND.format(peak=" or ".join(kinds)))
    on_cpu = [r for r in found if r.backend != "cupy" and "torch" in r.competitor]
    for note in dict.fromkeys(r.machine["note"] for r in on_cpu if "note" in r.machine):
        typer.echo(f"note: {note}.")


def _print_profile(result: Result) -> None:
    """The operations of this library's step."""
    profiled = result.notes["profile"]
    typer.echo()
    print_table(("  operation", "writes", "model µs", "alone µs"), rows(profiled))
    model, measured = profiled["model"], result.timing.median
    typer.echo(
        f"  model of the step: {1e6 * model:,.1f} µs, which is {model / measured:.0%} of the "
        f"{1e6 * measured:,.1f} µs that it takes"
    )


def _heading(result: Result) -> str:
    """The case, and where it ran."""
    name = result.machine.get("gpu", {}).get("name") or result.machine.get("processor", "")
    return f"{result.case}, on the {'GPU' if result.backend == 'cupy' else 'CPU'} ({name})"


def _row(result: Result, floor: Result | None) -> tuple[str, ...]:
    """The cells of a result."""
    low, high = result.timing.quartiles
    start = result.first_step
    return (
        f"  {result.competitor}",
        f"{1e3 * result.timing.median:.3f}",
        f"{1e3 * low:.3f} {1e3 * high:.3f}",
        "" if result.competitor == OURS else f"{result.ours_over_this:.2f}x",
        f"{result.tflops:.3g}",
        # both were compared with rounds of this library that alternate with theirs
        "" if floor is None else f"{result.ours_over_this / floor.ours_over_this:.0%}",
        "" if result.peak_bytes is None else f"{result.peak_bytes / 1e6:.0f}",
        " / ".join(f"{start[name]:.2f}" for name in ("cold", "warm") if name in start),
        "" if result.error is None else f"{result.error:.1e}",
    )
