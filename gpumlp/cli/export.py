"""gpumlp export: a model for other programs, as ONNX, safetensors or .npz."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from gpumlp import storage
from gpumlp.cli import options as shared
from gpumlp.cli import streams
from gpumlp.cli.models import Model, load_network
from gpumlp.cli.options import argument, option
from gpumlp.cli.output import check_outputs, print_json
from gpumlp.data import Preparation
from gpumlp.data.dataset import listed
from gpumlp.ensemble import Ensemble, tensors
from gpumlp.errors import CheckpointError

SUFFIXES = (".onnx", ".safetensors", ".npz")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The options of export."""

    model: Path = shared.model()
    out: Path = argument(
        MISSING, "OUT",
        "File to write: .onnx for the model; .safetensors or .npz for its weights alone, with the "
        "names that torch uses.",
    )  # fmt: skip
    opset: int | None = option(
        None, "N", "Version of the ONNX operators, 13 or higher.  [default: 17]"
    )
    probabilities: bool | None = option(
        None, None,
        "Output of the ONNX model: predictions (softmax, sigmoid or exp applied, as the loss "
        "needs), or the plain output of the last layer.  [default: probabilities]",
        (), "--probabilities/--logits",
    )  # fmt: skip
    raw: bool | None = option(
        None, None,
        "Include the preparation of the data in the ONNX model: it takes raw numbers and words, "
        "and returns labels and probabilities, or values in the target's unit.  [default: raw, if "
        "the model is from `gpumlp train`]",
    )  # fmt: skip
    json: bool = shared.json()


def export(options: ExportOptions) -> None:
    """Write a model as ONNX, or its weights alone.

    An ensemble of train --models becomes one ONNX graph, which averages its networks; its weights
    are called members.0.0.weight, ….
    """
    out, kind = options.out, options.out.suffix.lower()
    if kind not in SUFFIXES:
        raise ValueError(f"OUT must end in {', '.join(SUFFIXES)}, got {out}")
    own = {"--opset": options.opset, "--logits": options.probabilities, "--raw": options.raw}
    given = [flag for flag, value in own.items() if value is not None]
    if kind != ".onnx" and given:
        raise ValueError(f"{', '.join(own)} are for .onnx files, not for {out}; leave them out")
    storage.check_place(out)
    second = out.with_name(f"{out.name}.data")  # of a large .onnx file
    check_outputs({f"OUT {out}": out, f"{second}": second}, {"the model": options.model})
    if not options.json:
        streams.not_needed()
    net, preparation = _load(options.model)
    is_onnx = kind == ".onnx"
    content = _write_onnx(net, preparation, options) if is_onnx else _write_tensors(net, out)
    if options.json:
        print_json({"file": str(out), **content})
        return
    for side in ("inputs", "outputs"):
        if side in content:
            shapes = (f"{name} ({', '.join(map(str, s))})" for name, s in content[side].items())
            typer.echo(f"{side:<9}{listed(shapes)}")
    typer.echo(f"wrote {out}")


def _load(model: Path) -> tuple[Model, Preparation | None]:
    """The model, on the CPU, and its preparation if `gpumlp train` wrote the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning that files of torch, refused here, have no hash
        settings = storage.read(model)[1]
    if not {"network", "ensemble"} & settings.keys():
        raise CheckpointError(
            f"{model} does not say its activations; load it in Python, gpumlp.MLP.load(…, "
            "activation=…), and pass that to gpumlp.interop.onnx.export_onnx"
        )
    known = "data" in storage.load_extra(model)
    return load_network(model, "numpy"), Preparation.load(model) if known else None


def _write_onnx(
    net: Model, preparation: Preparation | None, options: ExportOptions
) -> dict[str, Any]:
    """Write the ONNX file; returns its inputs, outputs and versions."""
    from gpumlp.interop.onnx import OPSET, export_onnx

    if options.raw and preparation is None:
        raise ValueError(
            "--raw needs a model of `gpumlp train`, which knows its data; use --no-raw"
        )
    link = options.probabilities is not False
    if not link and isinstance(net, Ensemble) and net.loss.link.name != "identity":
        raise ValueError(
            "--logits is for a single network: an ensemble averages probabilities or rates, not "
            "logits; leave it out, or export a network of its folder checkpoints"
        )
    used = None if options.raw is False else preparation
    made = export_onnx(
        net, options.out, opset=OPSET if options.opset is None else options.opset,
        link=link, preparation=used,
    )  # fmt: skip
    return {
        "opset": made.opset_import[0].version,
        "ir_version": made.ir_version,
        "inputs": _shapes(made.graph.input),
        "outputs": _shapes(made.graph.output),
        "raw": used is not None,
    }


def _shapes(values: Iterable[Any]) -> dict[str, list[int | str]]:
    dimensions = {value.name: value.type.tensor_type.shape.dim for value in values}
    return {name: [d.dim_param or d.dim_value for d in each] for name, each in dimensions.items()}


def _write_tensors(net: Model, out: Path) -> dict[str, Any]:
    """Write θ with the names that torch uses, and nothing else."""
    theta: dict[str, Any] = tensors(net.whole) if isinstance(net, Ensemble) else net.tensors()
    if out.suffix.lower() == ".npz":
        with storage.replacing(out) as file:
            np.savez(file, **theta)
    else:
        storage.write(out, theta, {"format": "pt"}, digest=False)  # like torch
    return {"tensors": {name: list(tensor.shape) for name, tensor in theta.items()}}
