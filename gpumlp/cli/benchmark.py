"""gpumlp bench: a training step here, beside others and beside its floor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from typer import Option

from gpumlp.backends import get_backend
from gpumlp.bench import cases, report, run
from gpumlp.bench.peers import COMPETITORS, OURS, known
from gpumlp.bench.results import TIMED, Results
from gpumlp.bench.settings import Settings
from gpumlp.cli import machine, models, options, outputs
from gpumlp.cli.errors import reported
from gpumlp.storage import check_writable

T = TypeVar("T")

ACTIVATIONS = ("relu", "gelu", "tanh", "silu")  # those that all competitors have
PRESETS = Annotated[
    str,
    Option(
        "--case",
        help=f"One or more of {', '.join(cases.PRESETS)}, with commas.",
        autocompletion=options.completing(cases.PRESETS),
    ),
]
Widths = Annotated[
    str | None, Option(help="Networks in place of the case's: 512x4 (width x layers), 64-128-10.")
]
BatchSizes = Annotated[str | None, Option("--batch-size", help="Examples a step.")]
Precisions = Annotated[
    str | None, options.named(cases.ITEM_BYTES, ", ".join(cases.ITEM_BYTES), "--precision")
]
Optimizers = Annotated[
    str | None, options.named(cases.RATES, ", ".join(cases.RATES), "--optimizer")
]
Activations = Annotated[
    str | None, options.named(ACTIVATIONS, ", ".join(ACTIVATIONS), "--activation")
]
Rounds = Annotated[int, Option(min=2, help="Timed turns of each.")]
Peers = Annotated[
    str | None,
    Option(
        help=f"Who competes: {', '.join(n for n in COMPETITORS if n != OURS)}, or module:function "
        "of your own.  [default: all]",
        autocompletion=options.completing(n for n in COMPETITORS if n != OURS),
    ),
]
Cold = Annotated[
    bool, Option("--cold/--no-cold", help="Also take a first step with nothing compiled.")
]
Save = Annotated[Path | None, Option(metavar="FILE", help="Write all results there, as JSON.")]
Plot = Annotated[
    Path | None, Option(metavar="FILE", help="Draw ratios and a roofline there, a PNG.")
]
Out = Annotated[Path, Option(help="Folder for each part's result.")]
Resume = Annotated[bool, Option("--resume", help="Keep the results that the folder has.")]
Minutes = Annotated[
    float | None, Option(min=0.0, help="Start no part that may not end by then; see --resume.")
]


@reported
def bench(
    case: PRESETS = "small",
    widths: Widths = None,
    batch_size: BatchSizes = None,
    precision: Precisions = None,
    optimizer: Optimizers = None,
    activation: Activations = None,
    backend: options.BackendName = "auto",
    peers: Peers = None,
    rounds: Rounds = 15,
    cold: Cold = True,
    save: Save = None,
    plot: Plot = None,
    out: Out = Path("runs/bench"),
    resume: Resume = False,
    minutes: Minutes = None,
    as_json: options.AsJson = False,
) -> None:
    """Time a training step beside torch, JAX, scikit-learn and the step's floor.

    All must move the parameters alike before any is timed.  Options with commas are combined.
    Each result is a file in --out as soon as it is there; Ctrl-C leaves what is done.
    """
    if plot is not None:
        models.require("matplotlib")
    outputs.check_folder(out)
    for file in (save, plot):
        if file is not None:
            check_writable(file)
    chosen = cases.choose(
        _listed(case), _listed(widths), _listed(batch_size, int), _listed(precision),
        _listed(optimizer), _listed(activation),
    )  # fmt: skip
    names = known(_listed(peers) or [name for name in COMPETITORS if name != OURS])
    name = get_backend(backend).name
    settings = Settings(name, names, rounds, cold, resume, minutes)
    results = Results(out)
    if resume:
        results.load()
    complete, interrupted = False, False
    try:
        complete = run.run(chosen, settings, results, lambda line: typer.echo(line, err=True))
    except KeyboardInterrupt:
        interrupted = True
    wanted = [results.of(c, name, one) for c in chosen for one in (OURS, *names)]
    found = [result for result in wanted if result is not None]
    if as_json:
        machine.show(report.content(found))
    else:
        for line in report.table(found):
            typer.echo(line)
    if save is not None:
        report.write_json(save, found)
    if plot is not None and any(result.status == TIMED for result in found):
        from gpumlp.plots.benchmark import plot as draw

        draw(found, plot)
    if not complete:
        typer.echo(f"{len(found)} of {len(wanted)} parts are in {out}; --resume goes on", err=True)
    if interrupted:
        raise typer.Exit(130)
    if any(r.competitor == OURS and r.status in ("failed", "refused") for r in found):
        raise typer.Exit(1)


def _listed(text: str | None, kind: Callable[[str], T] = str) -> list[T]:  # type: ignore[assignment]
    """The parts of "a,b"."""
    return [kind(part.strip()) for part in (text or "").split(",") if part.strip()]
