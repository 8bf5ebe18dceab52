"""Export to ONNX: Gemm and activation for each layer; with a Preparation, columns → labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp._version import __version__
from gpumlp.checks import boolean, positive_int
from gpumlp.data import Preparation
from gpumlp.ensemble import Ensemble, tensors
from gpumlp.errors import needs
from gpumlp.functions.blocks import Block
from gpumlp.functions.embeddings import Embeddings
from gpumlp.functions.stages import ColumnStage
from gpumlp.interop.onnx_graph import Graph, Signature
from gpumlp.interop.onnx_inputs import ML_DOMAIN, graph_inputs, network_inputs
from gpumlp.io.files import atomic_write, check_place, together
from gpumlp.io.paths import PathLike
from gpumlp.network import MLP, check_kind

OPSET, OLDEST = 17, 13  # 17: IR 8, onnxruntime 1.12 and TensorRT 8.5; 13: axes of sums are inputs
LIMIT = 2_000_000_000  # bytes of θ in one file: protobuf holds at most 2 GiB


def export_onnx(
    net: MLP | Ensemble,
    path: PathLike | None = None,
    *,
    opset: int = OPSET,
    link: bool = True,
    preparation: Preparation | None = None,
) -> Any:
    """A network or an ensemble as an onnx.ModelProto, checked, and written to `path` if given.

    The input "x" (batch, n_0) and the output have the dtype of θ, float64 or float32. The output is
    "predictions", equal to `net.predict`, or "y_hat", equal to `net.forward`, (batch, n_L).

    With a preparation, x holds the columns of the data set in float64, and so does the output:
    "probabilities" (batch, classes) with their "label" (batch,), strings, "" for NaN; or "values"
    (batch, k) in the target's unit. If there are columns of categories, each column is an input of
    its own in place of x, (batch, 1): float64 or strings, without surrounding spaces; "" is a
    missing value.
    An input has the name of its column. An output of the same name gets a _ at its end, "label_".

    Of an ensemble, "predictions" is the mean of the members that have not diverged, after the link.
    Their θ is called "members.0.0.weight", …, numbered without those that diverged.

    θ keeps the names of `MLP.tensors`, "0.weight" (n_1, n_0), "0.bias", … The metadata hold
    gpumlp's version, the network's settings, and with a preparation the features, the target and
    the classes, as JSON.

    An activation becomes the operator of its name if the opset and the dtype have it, else its
    NumPy expression. erf is computed in float32, as onnxruntime has no other. A layer norm is
    LayerNormalization in float32 from opset 17, and the other norms are NumPy expressions. An
    embedding is a Gather of the column, cast to int64. Dropout is not in the graph, as predictions
    drop nothing.

    Args:
        net: the network or the ensemble, on any backend.
        path: the file, written completely or not at all. If θ is too large for a protobuf, it is
            written to "PATH.data".
        opset: the version of the operators, at least 13; it determines the IR version.
        link: apply the loss's link to ŷ: softmax, sigmoid or exp; otherwise the output is ŷ.
        preparation: how `gpumlp train` prepared the data; the graph does the same.

    Raises:
        TypeError: net is no network.
        ValueError: an activation, a norm, the opset or the preparation cannot be exported; or link
            is false for an ensemble, whose members' ŷ are not averaged.
        ImportError: onnx is missing.
    """
    check_kind(net, "net", MLP, Ensemble)
    onnx = _onnx()
    newest = onnx.defs.onnx_opset_version()
    if positive_int(opset, "opset", OLDEST) > newest:
        raise ValueError(
            f"opset must be at most {newest}, as in onnx {onnx.__version__}; got {opset}"
        )
    boolean(link, "link")
    if preparation is not None and not isinstance(preparation, Preparation):
        raise TypeError(
            "preparation must be a gpumlp.data.Preparation, such as Preparation.of(dataset), got "
            f"{type(preparation).__name__}"
        )
    if path is not None:
        check_place(path)
    graph, output = _network(net, opset, link, preparation)
    model = _model(graph, output, net, preparation)
    if path is not None:
        _write(model, Path(path))
    elif sum(array.nbytes for array in graph.constants.values()) < LIMIT:
        onnx.checker.check_model(model, full_check=True)
    return model


# ---- the graph -----------------------------------------------------------------------------------


def _network(
    net: MLP | Ensemble, opset: int, link: bool, preparation: Preparation | None
) -> tuple[Graph, Signature]:
    several = isinstance(net, Ensemble)
    if several and not link and net.loss.link.name != "identity":
        raise ValueError(
            f"link=False is for single networks: the mean of an ensemble is that after "
            f"{net.loss.link.name}; pass link=True"
        )
    nets = net.whole if isinstance(net, Ensemble) else [net]
    arrays = tensors(nets) if several else nets[0].tensors()
    dtype: npt.DTypeLike = next(iter(arrays.values())).dtype
    reserved = ["x"] if preparation is None else [*graph_inputs(preparation)]
    graph = Graph(dtype, opset, reserved)
    x = "x" if preparation is None else network_inputs(graph, preparation, net.widths[0])
    each = []
    for i, member in enumerate(nets):
        graph.dtype = np.dtype(dtype)
        y_hat = _y_hat(graph, member, x, arrays, f"members.{i}." if several else "")
        if preparation is not None:  # in float32 a probability is 1 from a logit of 17 on
            y_hat, graph.dtype = graph.cast(y_hat, float), np.dtype(float)
        each.append(graph.activation(net.loss.link, y_hat) if link else y_hat)
    graph.place, [h, *others] = "output/", each
    if others:
        h = graph.node("Div", graph.node("Sum", *each), graph.constant(len(each)))
    if link and preparation is not None:
        outputs = _results(graph, preparation, h, net.widths[-1])
    else:
        name = graph.free("predictions" if link else "y_hat")
        graph.node("Identity", h, output=name)
        outputs = {name: (graph.dtype, net.widths[-1])}
    return graph, outputs


def _y_hat(graph: Graph, net: MLP, x: str, arrays: Mapping[str, Any], prefix: str) -> str:
    """ŷ of a network for its inputs x; the names of its θ and its nodes begin with the prefix."""

    def theta(name: str) -> list[str]:
        names = (f"{prefix}{name}.{kind}" for kind in ("weight", "bias"))
        return [graph.constant(arrays[name], name=name) for name in names if name in arrays]

    h = [x if net.embed is None else _input(graph, net.embed, x, arrays, prefix)]
    for k, block in enumerate(net.blocks or [Block()] * net.L, 1):
        graph.place, name, below = f"{prefix}layer{k}/", str(2 * (k - 1)), h[-1]
        if block.norm is not None:
            states = []
            if isinstance(block.norm, ColumnStage):
                names = [f"{prefix}{name}.norm.{each}" for each, *_ in block.norm.running]
                states = [graph.constant(arrays[each], name=each) for each in names]
            below = graph.norm(block.norm, below, theta(f"{name}.norm"), states)
        z = graph.node("Gemm", below, *theta(name), transB=1)
        if block.gate is None:
            a = graph.activation(net.f[k], z)
        else:
            a, b = graph.halves(z, net.widths[k])
            assert block.gate.cuda_f is not None
            a = graph.node("Mul", a, graph.activation(block.gate.cuda_f, b))
        if block.skip:
            below = h[k - block.skip]
            if block.projects:
                below = graph.node("Gemm", below, *theta(f"{name}.skip"), transB=1)
            a = graph.node("Add", a, below)
        h.append(a)
    graph.place = f"{prefix}output/"
    return h[-1]


def _input(
    graph: Graph, embeddings: Embeddings, x: str, arrays: Mapping[str, Any], prefix: str
) -> str:
    """What layer 1 reads of x: columns without codes, and a row of a table for each code."""
    graph.place, parts = f"{prefix}embed/", list[str]()
    if embeddings.plain:
        plain = graph.constant(embeddings.plain, np.int64, f"{prefix}embed/plain")
        parts.append(graph.node("Gather", x, plain, axis=1))
    for j in embeddings.coded:
        name = f"{prefix}embed.{j}.weight"
        place = graph.constant(j, np.int64, f"{prefix}embed/column.{j}")  # [j] has another shape
        codes = graph.cast(graph.node("Gather", x, place, axis=1), np.int64)
        parts.append(graph.node("Gather", graph.constant(arrays[name], name=name), codes, axis=0))
    return graph.node("Concat", *parts, axis=1)


def _results(graph: Graph, preparation: Preparation, p: str, width: int) -> Signature:
    """Probabilities and labels, or values, as `Preparation.outputs` computes them."""
    classes = preparation.classes
    if classes is None:
        if preparation.y_shift is not None:
            p = graph.node("Mul", p, graph.constant(preparation.y_scale, float, "output/y_scale"))
            p = graph.node("Add", p, graph.constant(preparation.y_shift, float, "output/y_shift"))
        values = graph.node("Identity", p, output=graph.free("values"))
        return {values: (float, width)}
    if width == 1:
        p = graph.node("Concat", graph.node("Sub", graph.constant(1, float), p), p, axis=1)
    probabilities = graph.node("Identity", p, output=graph.free("probabilities"))
    best = _label(graph, p, len(classes))
    names = graph.constant((*classes, ""), object, "output/classes")
    label = graph.node("Gather", names, best, output=graph.free("label"))
    return {probabilities: (float, len(classes)), label: (object, None)}


def _label(graph: Graph, p: str, n: int) -> str:
    """The position of the largest of n probabilities; n where they are NaN."""
    axes = graph.constant([1], np.int64)
    total = graph.node("ReduceSum", p, axes, keepdims=0)
    best = graph.node("ArgMax", p, axis=1, keepdims=0)
    return graph.node("Where", graph.node("IsNaN", total), graph.constant(n, np.int64), best)


# ---- the file ------------------------------------------------------------------------------------


def _model(
    graph: Graph, outputs: Signature, net: MLP | Ensemble, preparation: Preparation | None
) -> Any:
    """The ModelProto. Its versions are set here, as onnx's defaults are its newest ones."""
    helper = _onnx().helper

    def value(name: str, dtype: npt.DTypeLike, width: int | None) -> Any:
        shape = ["batch"] if width is None else ["batch", width]
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return helper.make_tensor_value_info(name, kind, shape)

    inputs: Signature = {"x": (graph.dtype, net.widths[0])}
    kind = "ensemble" if isinstance(net, Ensemble) else "network"
    about = {"gpumlp": __version__, kind: json.dumps(net.config())}
    if preparation is not None:
        inputs = graph_inputs(preparation)
        names = ["task", "features", "target", "classes"]
        names += ["categories"] if preparation.categories else []
        about |= {name: json.dumps(getattr(preparation, name)) for name in names}
    made = helper.make_graph(
        graph.nodes, "gpumlp", [value(name, *kind) for name, kind in inputs.items()],
        [value(name, *kind) for name, kind in outputs.items()],
        [_onnx().numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", graph.opset)]
    if any(node.domain for node in graph.nodes):
        opsets.append(helper.make_opsetid(*ML_DOMAIN))
    model = helper.make_model(
        made, producer_name="gpumlp", producer_version=__version__, opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
    )  # fmt: skip
    helper.set_model_props(model, about)
    return model


def _write(model: Any, path: Path) -> None:
    """Check the model and write it to `path`; if θ is too large, write θ to a second file."""
    onnx = _onnx()
    tensors = [tensor for tensor in model.graph.initializer if tensor.raw_data]
    data = [tensor.raw_data for tensor in tensors]
    if sum(map(len, data)) < LIMIT:
        onnx.checker.check_model(model, full_check=True)
        atomic_write(path, model.SerializeToString())
        return
    second, start = path.with_name(f"{path.name}.data"), 0
    for tensor, values in zip(tensors, data, strict=True):
        onnx.external_data_helper.set_external_data(tensor, second.name, start, len(values))
        tensor.ClearField("raw_data")
        start += len(values)
    with together():
        atomic_write(second, b"".join(data))
        atomic_write(path, model.SerializeToString())
    onnx.checker.check_model(str(path), full_check=True)


def _onnx() -> Any:
    with needs("to export", "onnx"):
        import onnx
        import onnx.external_data_helper
    return onnx
