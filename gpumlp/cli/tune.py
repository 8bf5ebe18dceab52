"""gpumlp tune: the products of one training step, measured, and their fastest ways kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from gpumlp.backends.cuda import open_device
from gpumlp.backends.cuda.opening import OR_NUMPY
from gpumlp.backends.cuda.plans import Gemm
from gpumlp.backends.cuda.tuning import Choice, Tuner
from gpumlp.cli import machine
from gpumlp.errors import DeviceError
from gpumlp.network import MLP
from gpumlp.training import Trainer

ROLES = {"NT": "forward", "NN": "∂J/∂h", "TN": "∂J/∂W", "TT": ""}
COLUMNS = ("product", "m×n×k", "epilogue", "used", "tried", "µs", "TFLOP/s", "speed-up")


def network(
    model: Path | None, widths: str | None, activation: str | None, precision: str | None
) -> MLP:
    """The network of the file or of the options, on the GPU."""
    settings = {"activation": activation, "precision": precision}
    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    if (model is None) == (widths is None):
        raise ValueError("give a MODEL file, or the widths of one: --widths 784,1024,1024,10")
    _check_device()
    if model is not None:
        return MLP.load(model, "cupy", **given)
    assert widths is not None
    try:
        each = [int(width) for width in widths.split(",")]
    except ValueError:
        raise ValueError(f"--widths takes widths such as 784,256,10, got {widths!r}") from None
    return MLP(each, **given, backend="cupy")


def measure(net: MLP, batch_size: int, optimizer: str, again: bool) -> Tuner:
    """Train for two steps on noise: every product that they meet is measured, and then the step."""
    tuner = open_device().tuner
    tuner.measuring = tuner.steps = True
    tuner.again = again
    rng, m = np.random.default_rng(0), 2 * batch_size
    x = rng.standard_normal((m, net.widths[0]))
    Trainer(net, optimizer, batch_size=batch_size).fit(x, _targets(net, m, rng), 1, progress=False)
    tuner.steps = False
    return tuner


def row(gemm: Gemm, choice: Choice) -> dict[str, Any]:
    """What was measured of a product; None for what was not."""
    taken, first = choice.microseconds, choice.first
    return {
        "product": ROLES[gemm.letters],
        "m": gemm.m,
        "n": gemm.n,
        "k": gemm.k,
        "dtype": gemm.dtype,
        "out": gemm.out,
        "precision": gemm.compute,
        "factors": gemm.factors,
        "epilogue": gemm.epilogue or None,
        "fused": bool(gemm.epilogue) and choice.algorithm is not None,
        "candidates": choice.candidates,
        "microseconds": taken,
        "first_microseconds": first,
        "unfused_microseconds": choice.unfused,
        "tflops": taken and 2e-6 * gemm.m * gemm.n * gemm.k / taken,
        "speedup": taken and first and first / taken,
    }


def show(net: MLP, tuner: Tuner, as_json: bool) -> None:
    """The table, or the same as JSON."""
    rows = [row(gemm, choice) for gemm, choice in tuner.choices.items()]
    if as_json:
        content = {"backend": net.backend.describe(), "file": str(tuner.cache.path)}
        machine.show(
            {**content, "found": len(tuner.found), "products": rows, "steps": tuner.measured}
        )
        return
    lines = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        lines.add_column(name, justify="left" if name in COLUMNS[:4] else "right", overflow="fold")
    for each in rows:
        lines.add_row(
            each["product"], f"{each['m']}×{each['n']}×{each['k']}", each["epilogue"],
            ("yes" if each["fused"] else "no") if each["epilogue"] else "", str(each["candidates"]),
            *(_number(each[name]) for name in ("microseconds", "tflops", "speedup")),
        )  # fmt: skip
    Console().print(lines)
    for step, times in tuner.measured.items():
        told = ", ".join(f"{way} {time:.3g} µs" for way, time in times.items())
        typer.echo(f"{step}: {told}")
    now = len(rows) - len(tuner.found)
    typer.echo(f"{now} measured now, {len(tuner.found)} before; kept in {tuner.cache.path}")


def _check_device() -> None:
    """Raise where there is no GPU; another backend is no remedy here."""
    try:
        open_device()
    except DeviceError as error:
        told = str(error).removesuffix(f", {OR_NUMPY}")
        raise DeviceError(f"tune measures products on a GPU: {told}") from error


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _targets(net: MLP, m: int, rng: np.random.Generator) -> Any:
    """Targets that the network's loss takes."""
    n = net.widths[-1]
    if net.loss.target == "class":
        return rng.integers(0, n, m)
    if net.loss.target == "real":
        return rng.standard_normal((m, n))
    return rng.integers(0, 2, (m, n))  # 0 and 1 are counts, too
