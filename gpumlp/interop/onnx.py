"""MLP → ONNX: Gemm and activation, layer by layer; with a Preparation, raw columns → labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import gpumlp
from gpumlp.checks import positive_int
from gpumlp.interop.onnx_inputs import WORDS, check_names, entries, seen
from gpumlp.interop.operators import activation
from gpumlp.interop.tracing import Graph
from gpumlp.network import MLP
from gpumlp.storage import PathLike, atomic_write, check_place

if TYPE_CHECKING:
    from gpumlp.data import Preparation

Outputs = dict[str, tuple[npt.DTypeLike, int | None]]
"""Name → dtype and width; None for a vector."""

OPSET, OLDEST = 17, 13  # 17: IR 8, onnxruntime 1.12 and TensorRT 8.5; 13: axes of sums are inputs
LIMIT = 2_000_000_000  # bytes of θ in one file: protobuf holds 2 GiB


def export_onnx(
    net: MLP,
    path: PathLike | None = None,
    *,
    opset: int = OPSET,
    link: bool = True,
    preparation: Preparation | None = None,
) -> Any:
    """The network as an onnx.ModelProto, checked, and written to `path` where one is given.

    Its input "x" (batch, n_0) and its output have the network's dtype, float64 or float32 (of the
    16-bit precisions, too: θ is float32).  The output is "predictions", what `net.predict` gives,
    or "y_hat", what `net.forward` gives, (batch, n_L).

    With a preparation x is raw, float64, and so is the output: "probabilities" (batch, classes)
    with their "label" (batch,), strings, or "values" (batch, k) in the target's unit.  Where there
    are columns of categories, each column is an input of its name in x's place, (batch, 1):
    float64, or strings, without blanks around them, "" where the value is missing.

    θ keeps torch's names, "0.weight" (n_1, n_0), "0.bias", …  The metadata say gpumlp's version,
    the network's settings, and of a preparation the features, the target and the classes, as JSON.
    An activation is the operator of its name where the opset and the dtype have it, else its NumPy
    expression node by node: an entry of your own, too.  erf is of float32, since onnxruntime has
    no other.

    Args:
        net: the network, in any backend.
        path: the file, whole or not at all; where θ is larger than a protobuf may be, it lies in
            "PATH.data" beside it.
        opset: of the operators, 13 and up; it decides the IR version.
        link: apply the loss's link to ŷ: softmax, sigmoid or exp; else the logits come out.
        preparation: what `gpumlp train` kept of the data: builds in what stands for missing values
            (NaN), the categories' inputs, the standardisation, and with `link` the labels' names
            or the target's unit.

    Raises:
        ValueError: an activation, the opset or the preparation cannot be exported.
        ImportError: onnx is missing.
    """
    onnx = _onnx()
    newest = onnx.defs.onnx_opset_version()
    if positive_int(opset, "opset", OLDEST) > newest:
        raise ValueError(
            f"opset must be at most {newest}, as in onnx {onnx.__version__}; got {opset}"
        )
    if path is not None:
        check_place(path)
    graph, output = _network(net, opset, link, preparation)
    model = _model(graph, output, net, preparation)
    if path is None:
        if sum(array.nbytes for array in graph.constants.values()) < LIMIT:
            onnx.checker.check_model(model, full_check=True)
    else:
        _write(model, Path(path))
    return model


# ---- the graph -----------------------------------------------------------------------------------


def _network(
    net: MLP, opset: int, link: bool, preparation: Preparation | None
) -> tuple[Graph, Outputs]:
    """The graph and what it gives."""
    tensors = net.tensors()
    graph = Graph(tensors["0.weight"].dtype, opset)
    h = "x" if preparation is None else seen(graph, preparation, net.widths[0])
    for k, f in enumerate(net.f[1:]):
        graph.place = f"layer{k + 1}/"
        names = [graph.constant(tensors[n], name=n) for n in (f"{2 * k}.weight", f"{2 * k}.bias")]
        h = activation(graph, f, graph.node("Gemm", h, *names, transB=1))
    graph.place = "output/"
    if link:
        h = activation(graph, net.loss.link, h)
    if preparation is None:
        name, dtype = "predictions" if link else "y_hat", graph.dtype
        graph.node("Identity", h, output=name)
        return graph, {name: (dtype, net.widths[-1])}
    h = graph.cast(h, float)
    if link:
        outputs = _told(graph, preparation, h, net.widths[-1])
    else:
        graph.node("Identity", h, output="y_hat")
        outputs = {"y_hat": (np.dtype(float), net.widths[-1])}
    check_names(graph, preparation)
    return graph, outputs


def _told(graph: Graph, preparation: Preparation, p: str, width: int) -> Outputs:
    """Probabilities and labels, or values, as `Preparation.outputs` has them."""
    number, classes = np.dtype(float), preparation.classes
    if classes is None:
        if preparation.y_shift is not None:
            p = graph.node("Mul", p, graph.constant(preparation.y_scale, float, "output/y_scale"))
            p = graph.node("Add", p, graph.constant(preparation.y_shift, float, "output/y_shift"))
        graph.node("Identity", p, output="values")
        return {"values": (number, width)}
    if width == 1:
        p = graph.node("Concat", graph.node("Sub", graph.constant(1, float), p), p, axis=1)
    graph.node("Identity", p, output="probabilities")
    best = graph.node("ArgMax", p, axis=1, keepdims=0)
    names = graph.constant(classes, object, "output/classes")
    graph.node("Gather", names, best, output="label")
    return {"probabilities": (number, len(classes)), "label": (np.dtype(object), None)}


# ---- the file ------------------------------------------------------------------------------------


def _model(graph: Graph, outputs: Outputs, net: MLP, preparation: Preparation | None) -> Any:
    """The ModelProto, its versions set by hand: onnx's own defaults are its newest."""
    helper = _onnx().helper

    def value(name: str, dtype: npt.DTypeLike, width: int | None) -> Any:
        shape = ["batch"] if width is None else ["batch", width]
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return helper.make_tensor_value_info(name, kind, shape)

    inputs: Outputs = {"x": (graph.dtype, net.widths[0])}
    if preparation is not None:
        inputs = {**entries(preparation)}
    made = helper.make_graph(
        graph.nodes, "gpumlp", [value(name, *kind) for name, kind in inputs.items()],
        [value(name, *kind) for name, kind in outputs.items()],
        [_onnx().numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", graph.opset)]
    if any(node.domain for node in graph.nodes):
        opsets.append(helper.make_opsetid(*WORDS))
    model = helper.make_model(
        made, producer_name="gpumlp", producer_version=gpumlp.__version__, opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
    )  # fmt: skip
    about = {"gpumlp": gpumlp.__version__, "network": json.dumps(net.config())}
    if preparation is not None:
        told = ["task", "features", "target", "classes"] + ["categories"] * bool(
            preparation.categories
        )
        about |= {name: json.dumps(getattr(preparation, name)) for name in told}
    helper.set_model_props(model, about)
    return model


def _write(model: Any, path: Path) -> None:
    """Check the model and put it at `path`; θ beside it where it is too large."""
    onnx = _onnx()
    tensors = [tensor for tensor in model.graph.initializer if tensor.raw_data]
    data = [tensor.raw_data for tensor in tensors]
    if sum(map(len, data)) < LIMIT:
        onnx.checker.check_model(model, full_check=True)
        atomic_write(path, model.SerializeToString())
        return
    beside, start = path.with_name(f"{path.name}.data"), 0
    for tensor, values in zip(tensors, data, strict=True):
        onnx.external_data_helper.set_external_data(tensor, beside.name, start, len(values))
        tensor.ClearField("raw_data")
        start += len(values)
    atomic_write(beside, b"".join(data))
    atomic_write(path, model.SerializeToString())
    onnx.checker.check_model(str(path), full_check=True)


def _onnx() -> Any:
    """The one place where onnx is imported."""
    try:
        import onnx
        import onnx.external_data_helper
    except ImportError as error:
        raise ImportError('to export: pip install "gpumlp[onnx]"') from error
    return onnx
