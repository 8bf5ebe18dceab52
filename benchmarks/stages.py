"""Run commands one after another, each with a log, and write a page about their outcomes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PASSED, FAILED, MISSING = "passed", "FAILED", "missing"


@dataclass(frozen=True)
class Stage:
    """A command to run.

    Attributes:
        command: program and arguments; the program is "" if it was not found.
        seconds: a command that runs for longer is stopped, and has failed.
        environment: more environment variables.
        needs: says what to install if the program was not found.
    """

    name: str
    command: Sequence[str]
    seconds: float
    environment: dict[str, str] = field(default_factory=dict)
    needs: str = ""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a stage: passed, FAILED or missing, and why."""

    name: str
    status: str
    seconds: float
    detail: str
    log: str


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
            write(outcomes, out)
    except KeyboardInterrupt:
        report("interrupted")
        rest = chosen[len(outcomes) :]
        outcomes += [Outcome(s.name, FAILED, 0.0, "interrupted", "") for s in rest]
        write(outcomes, out)
    return outcomes


def run_one(stage: Stage, out: Path) -> Outcome:
    """Run one stage. Its output goes to FOLDER/NAME.log."""
    log = out / f"{stage.name}.log"
    if not stage.command[0]:
        return Outcome(stage.name, MISSING, 0.0, stage.needs, "")
    begun = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            stage.command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT,
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
    return Outcome(stage.name, status, time.monotonic() - begun, detail, log.name)


def last_line(log: Path) -> str:
    """The last line of the log."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "no output"


def write(outcomes: Sequence[Outcome], out: Path) -> None:
    """Write report.json and summary.md."""
    (out / "report.json").write_text(json.dumps([asdict(o) for o in outcomes], indent=1) + "\n")
    (out / "summary.md").write_text(summary(outcomes, out))


def summary(outcomes: Sequence[Outcome], out: Path) -> str:
    """A page with the outcome of each stage, the ends of the failed logs, and the figures."""
    lines = [
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
    return "\n".join([*lines, *kernel_table(out / "kernels.json"), ""])


def has_figures(name: str) -> bool:
    """Whether the page has the output of this stage even if the stage passed."""
    return name == "info" or name.startswith("bench")


def kernel_table(path: Path) -> list[str]:
    """Each kernel compared with a copy of as many bytes; each product in TFLOP/s."""
    try:
        found = json.loads(path.read_text())["benchmarks"]
    except (OSError, ValueError, KeyError):
        return []
    lines = ["", "## kernels", "", "| benchmark | ms | of a copy's speed | TFLOP/s |"]
    lines.append("| --- | --- | --- | --- |")
    for one in found:
        extra = one["extra_info"]
        share, tflops = extra.get("share_of_copy"), extra.get("tflops")
        lines.append(
            f"| {one['name']} | {1e3 * one['stats']['median']:.3f} "
            f"| {'' if share is None else f'{share:.2f}'} "
            f"| {'' if tflops is None else f'{tflops:.1f}'} |"
        )
    return lines
