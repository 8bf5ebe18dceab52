"""gpumlp export: a model for other programs, as ONNX, plain safetensors or .npz."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from typer import Argument, Option

from gpumlp import storage
from gpumlp.cli import describe, machine, options
from gpumlp.cli.errors import reported
from gpumlp.data import Preparation
from gpumlp.errors import CheckpointError
from gpumlp.network import MLP

SUFFIXES = (".onnx", ".safetensors", ".npz")
Exported = Annotated[
    Path,
    Argument(
        metavar="OUT", help=".onnx; .safetensors or .npz: the weights alone, by torch's names."
    ),
]
Opset = Annotated[
    int | None, Option(metavar="N", help="ONNX operators' version, 13 and up.  [default: 17]")
]
Probabilities = Annotated[
    bool | None,
    Option(
        "--probabilities/--logits",
        help="Apply softmax, sigmoid or exp, as the loss has it, or leave the last layer's output "
        "as it is.  [default: probabilities]",
    ),
]
Raw = Annotated[
    bool | None,
    Option(
        "--raw/--no-raw",
        help="Take raw numbers and words, give labels and probabilities or values in their unit; "
        "or the network alone.  [default: raw, where the model is `gpumlp train`'s]",
    ),
]


@reported
def export(
    model: options.Model,
    out: Exported,
    opset: Opset = None,
    probabilities: Probabilities = None,
    raw: Raw = None,
    as_json: options.AsJson = False,
) -> None:
    """Write a model for other programs: ONNX, or its weights alone."""
    kind = out.suffix.lower()
    if kind not in SUFFIXES:
        raise ValueError(f"OUT must end in {', '.join(SUFFIXES)}, got {out}")
    if kind != ".onnx" and (opset, probabilities, raw) != (None, None, None):
        raise ValueError(
            f"--opset, --logits and --raw are for .onnx files; leave them out for {out}"
        )
    storage.check_place(out)
    net, preparation = load(model)
    if kind == ".onnx":
        told = write_onnx(out, net, preparation, opset, probabilities is not False, raw)
    else:
        told = write_tensors(out, net)
    if as_json:
        machine.show({"file": str(out), **told})
    else:
        describe.exported(out, told)


def load(model: Path) -> tuple[MLP, Preparation | None]:
    """The network, on the CPU, and the preparation of one that `gpumlp train` made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch's files carry no digest: they are refused
        settings = storage.read(model)[1]
    if "network" not in settings:
        raise CheckpointError(
            f"{model} does not say its activations; load it in Python, gpumlp.MLP.load(…, "
            "activation=…), and pass that to gpumlp.interop.onnx.export_onnx"
        )
    extra = storage.load_extra(model)
    net = MLP.load(model, "numpy")
    return net, Preparation.from_json(model, extra) if "data" in extra else None


def write_onnx(
    out: Path, net: MLP, known: Preparation | None, opset: int | None, link: bool, raw: bool | None
) -> dict[str, Any]:
    """Write the ONNX file; what it takes and gives."""
    from gpumlp.interop.onnx import OPSET, export_onnx

    if raw and known is None:
        raise ValueError(
            "--raw needs a model of `gpumlp train`, which knows its data; use --no-raw"
        )
    used = None if raw is False else known
    asked = OPSET if opset is None else opset
    made = export_onnx(net, out, opset=asked, link=link, preparation=used)
    return {
        "opset": made.opset_import[0].version,
        "ir_version": made.ir_version,
        "inputs": {value.name: _shape(value) for value in made.graph.input},
        "outputs": {value.name: _shape(value) for value in made.graph.output},
        "raw": used is not None,
    }


def write_tensors(out: Path, net: MLP) -> dict[str, Any]:
    """Write θ by torch's names and nothing else."""
    tensors: dict[str, Any] = net.tensors()
    if out.suffix.lower() == ".npz":
        binary = io.BytesIO()
        np.savez(binary, **tensors)
        storage.atomic_write(out, binary.getvalue())
    else:
        storage.write_plain(out, tensors)
    return {"tensors": {name: list(tensor.shape) for name, tensor in tensors.items()}}


def _shape(value: Any) -> list[int | str]:
    return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
