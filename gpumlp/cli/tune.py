"""gpumlp tune: measure the matrix products of a training step, and store the fastest variants."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from gpumlp import storage
from gpumlp.backends.cuda import open_device
from gpumlp.backends.cuda.opening import OR_NUMPY
from gpumlp.backends.cuda.plans import Gemm
from gpumlp.backends.cuda.tuning import Choice, Tuner
from gpumlp.cli import options as shared
from gpumlp.cli.options import argument, option, switch
from gpumlp.cli.output import print_json, print_table
from gpumlp.ensemble import Ensemble
from gpumlp.errors import DeviceError
from gpumlp.network import MLP
from gpumlp.training import Trainer

ROLES = {"NT": "forward", "NN": "∂J/∂h", "TN": "∂J/∂W", "TT": ""}
COLUMNS = ("product", "m×n×k", "epilogue", "fused", "tried", "µs", "TFLOP/s", "speed-up")


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """The options of tune."""

    model: Path | None = argument(None, "MODEL", "A file model.safetensors, instead of --widths.")
    widths: str | None = option(
        None, "WIDTHS", "Widths of inputs, hidden layers and outputs, such as 784,1024,1024,10."
    )
    activation: str | None = shared.activation(
        None,
        help="Activation of the hidden layers: {names}.  [default: relu, or that of MODEL]",
    )
    optimizer: str = shared.optimizer("adamw")
    batch_size: int = shared.batch_size(256)
    precision: str | None = option(
        None, "NAME", "Precision: {names}.  [default: float32, or that of MODEL]",
        shared.PRECISIONS,
    )  # fmt: skip
    again: bool = switch("--again", "Also measure the products that were measured before.")
    json: bool = shared.json()


def tune(options: TuneOptions) -> None:
    """Find the fastest GPU kernels for a network.

    Every matrix product of a training step is measured with all algorithms of cublasLt, and then
    the step in each way to order its operations and to share them among streams.  The fastest are
    stored in a file, and later trainings with these widths and this batch size use them.  The file
    is in $GPUMLP_CACHE, or else in the user's cache folder.

    The speed-up is relative to the algorithm that cublasLt suggests first.  A product with an
    epilogue (bias and activation in the same kernel) is also measured without it, followed by
    gpumlp's own kernels.
    """
    net = _network(options)
    if not options.json:
        typer.echo(repr(net))
    tuner = _measure(net, options)
    # products with a limit of multiprocessors are those of one of the ways, whose time is shown
    whole = {gemm: each for gemm, each in tuner.choices.items() if not gemm.multiprocessors}
    rows = [_row(gemm, choice) for gemm, choice in whole.items()]
    if options.json:
        about = {"backend": net.backend.describe(), "file": str(tuner.cache.path)}
        steps = tuner.measured
        print_json(
            {**about, "found": len(tuner.found & whole.keys()), "products": rows, "steps": steps}
        )
    else:
        _print(tuner, rows, len(tuner.found & whole.keys()))


def _network(options: TuneOptions) -> MLP:
    """The network of the file or of the options, on the GPU."""
    if (options.model is None) == (options.widths is None):
        raise ValueError("give a MODEL file, or the widths of a network: --widths 784,1024,1024,10")
    try:
        open_device()
    except DeviceError as error:  # which may advise to use another backend
        message = str(error).removesuffix(f", {OR_NUMPY}")
        raise DeviceError(f"tune measures products on a GPU: {message}") from error
    given: dict[str, Any] = {"activation": options.activation, "precision": options.precision}
    given = {name: value for name, value in given.items() if value is not None}
    if options.model is not None:
        if storage.has_ensemble(options.model):  # all members have the same products
            config = Ensemble.load(options.model, "cupy")[0].config()
            return MLP(**{**config, **given, "backend": "cupy"})
        return MLP.load(options.model, "cupy", **given)
    widths = shared.parse_widths(options.widths or "", "--widths", "784,256,10")
    return MLP(widths, **given, backend="cupy")


def _measure(net: MLP, options: TuneOptions) -> Tuner:
    """Train two steps on noise: this measures every product of the step, and then the step."""
    tuner = open_device().tuner
    rng, m, n = np.random.default_rng(0), 2 * options.batch_size, net.widths[-1]
    x = rng.standard_normal((m, net.widths[0]))
    # all losses but those of classes accept 0 and 1
    y = rng.integers(n, size=m) if net.loss.target == "class" else rng.integers(2, size=(m, n))
    trainer = Trainer(net, options.optimizer, batch_size=options.batch_size)
    with tuner.everything(options.again):
        if trainer.fit(x, y, 1, progress=False).stopped == "interrupted":
            raise KeyboardInterrupt
    return tuner


def _row(gemm: Gemm, choice: Choice) -> dict[str, Any]:
    """The measurements of a product; None where nothing was measured."""
    chosen, first = choice.microseconds, choice.first
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
        "microseconds": chosen,
        "first_microseconds": first,
        "unfused_microseconds": choice.unfused,
        "tflops": chosen and 2e-6 * gemm.m * gemm.n * gemm.k / chosen,
        "speedup": chosen and first and first / chosen,
    }


def _print(tuner: Tuner, rows: list[dict[str, Any]], found: int) -> None:
    lines = [
        [
            row["product"], f"{row['m']}×{row['n']}×{row['k']}", row["epilogue"] or "",
            ("yes" if row["fused"] else "no") if row["epilogue"] else "", str(row["candidates"]),
            *("" if row[name] is None else f"{row[name]:.3g}"
              for name in ("microseconds", "tflops", "speedup")),
        ]
        for row in rows
    ]  # fmt: skip
    print_table(COLUMNS, lines, left=4)
    for step, times in tuner.measured.items():
        typer.echo(f"{step}: {', '.join(f'{name} {time:.3g} µs' for name, time in times.items())}")
    path = tuner.cache.path
    typer.echo(f"{len(rows) - found} measured now, {found} measured before; stored in {path}")
