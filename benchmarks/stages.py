"""Run commands one after another, each with a log, and write a page about their outcomes.

Each outcome is a file of the folder, so that stages that ran alone are on the page, too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.bars import Figures, bars, epilogues, table
from gpumlp.bench.timing import gpu, machine

ROOT = Path(__file__).parents[1]
PASSED, FAILED, MISSING = "passed", "FAILED", "missing"
SUFFIX = ".outcome.json"


@dataclass(frozen=True)
class Stage:
    """A command to run.

    Attributes:
        command: program and arguments; the program is "" if it was not found.
        seconds: a command that runs for longer is stopped, and has failed.
        environment: more environment variables.
        needs: says what to install if the program was not found.
        prints_json: the command prints JSON, which goes to NAME.json.
    """

    name: str
    command: Sequence[str]
    seconds: float
    environment: dict[str, str] = field(default_factory=dict)
    needs: str = ""
    prints_json: bool = False


@dataclass(frozen=True)
class Outcome:
    """The outcome of a stage: passed, FAILED or missing, and why; and when it began."""

    name: str
    status: str
    seconds: float
    detail: str
    log: str
    begun: str = ""


def run_all(chosen: Sequence[Stage], out: Path, report: Callable[[str], None]) -> list[Outcome]:
    """Run each stage, also after one that failed. Ctrl-C leaves out the remaining ones."""
    out.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    try:
        for stage in chosen:
            report(f"{stage.name} …")
            outcomes.append(run_one(stage, out))
            done = outcomes[-1]
            report(f"  {done.status} in {done.seconds:.0f} s{done.detail and ': '}{done.detail}")
            keep(done, out)
            write(out)
    except KeyboardInterrupt:
        report("interrupted")
        for stage in chosen[len(outcomes) :]:
            outcomes.append(Outcome(stage.name, FAILED, 0.0, "interrupted", ""))
            keep(outcomes[-1], out)
        write(out)
    return outcomes


def keep(outcome: Outcome, out: Path) -> None:
    """Write the outcome's file, in place of that of an earlier run."""
    (out / f"{outcome.name}{SUFFIX}").write_text(json.dumps(asdict(outcome), indent=1) + "\n")


def kept(out: Path) -> list[Outcome]:
    """The outcomes of all runs, in the order in which the stages began."""
    found = [Outcome(**json.loads(path.read_text())) for path in out.glob(f"*{SUFFIX}")]
    return sorted(found, key=lambda outcome: (outcome.begun or "~", outcome.name))


def run_one(stage: Stage, out: Path) -> Outcome:
    """Run one stage. Its output goes to FOLDER/NAME.log."""
    log = out / f"{stage.name}.log"
    started = datetime.now().isoformat(timespec="seconds")
    if not stage.command[0]:
        return Outcome(stage.name, MISSING, 0.0, stage.needs, "", started)
    begun = time.monotonic()
    with ExitStack() as files:
        file = files.enter_context(log.open("w"))
        printed = file
        if stage.prints_json:
            printed = files.enter_context((out / f"{stage.name}.json").open("w"))
        process = subprocess.Popen(
            stage.command, cwd=ROOT, stdout=printed, stderr=file,
            env={**os.environ, **stage.environment}, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(timeout=stage.seconds)
            detail = "" if code == 0 else f"exit status {code}: {last_line(log)}"
        except subprocess.TimeoutExpired:
            code, detail = -1, f"ended after {stage.seconds:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # its child processes too
                process.wait()
    status = PASSED if code == 0 else FAILED
    return Outcome(stage.name, status, time.monotonic() - begun, detail, log.name, started)


def last_line(log: Path) -> str:
    """The last line of the log."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "no output"


def write(out: Path) -> None:
    """Write gpu.json and summary.md, from all that is in the folder."""
    outcomes, figures = kept(out), Figures(out)
    rows = [bar.row(figures) for bar in bars()]
    content = {
        "gpu": gpu(), "machine": machine(), "bars": rows,
        "stages": [asdict(outcome) for outcome in outcomes],
        "results": figures.results, "kernels": figures.kernels,
    }  # fmt: skip
    (out / "gpu.json").write_text(json.dumps(content, indent=1) + "\n")
    (out / "summary.md").write_text(summary(outcomes, out, rows))


def summary(outcomes: Sequence[Outcome], out: Path, rows: Sequence[dict[str, Any]] = ()) -> str:
    """A page: the bars, the outcome of each stage, the ends of the failed logs, and the figures."""
    lines = ["# The bars on a GPU", "", *table(rows), ""] if rows else []
    lines += [
        "# What ran on the GPU",
        "",
        "| stage | result | seconds | |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {o.name} | {o.status} | {o.seconds:.0f} | {o.detail} |" for o in outcomes]
    for outcome in outcomes:
        log = out / outcome.log if outcome.log else None
        if log is None or (outcome.status == PASSED and not has_figures(outcome.name)):
            continue
        text = log.read_text(errors="replace").rstrip().splitlines()
        shown = text if has_figures(outcome.name) else text[-15:]
        lines += ["", f"## {outcome.name}", "", "```", *shown[-60:], "```"]
    for path in sorted([*out.glob("*kernels*.json"), out / "products.json"]):
        lines += kernel_table(path)
    lines += epilogues(Figures(out))
    return "\n".join([*lines, ""])


def has_figures(name: str) -> bool:
    """Whether the page has the output of this stage even if the stage passed."""
    return name == "info" or name.startswith("bench")


def kernel_table(path: Path) -> list[str]:
    """Each kernel compared with a copy of as many bytes; each product in TFLOP/s."""
    try:
        found = json.loads(path.read_text())["benchmarks"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    lines = ["", f"## {path.stem}", "", "| benchmark | ms | of a copy's speed | TFLOP/s |"]
    lines.append("| --- | --- | --- | --- |")
    for one in found:
        extra = one["extra_info"]
        share, tflops = extra.get("share_of_copy"), extra.get("tflops")
        lines.append(
            f"| {one['name']} | {1e3 * extra.get('seconds', one['stats']['median']):.3f} "
            f"| {'' if share is None else f'{share:.2f}'} "
            f"| {'' if tflops is None else f'{tflops:.1f}'} |"
        )
    return lines
