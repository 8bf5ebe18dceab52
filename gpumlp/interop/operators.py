"""Activations as ONNX operators: their own where there is one, else their NumPy expression."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gpumlp.functions import Activation
from gpumlp.interop.tracing import KNOWN, Graph

# name → (operator, the opset that has it, whether onnxruntime has it in float64 too, attributes by
# the entry's parameters).  Attributes are float32: in float64 what has some is written out.
NATIVE: Mapping[str, tuple[str, int, bool, Mapping[str, Any]]] = {
    "relu": ("Relu", 13, True, {}),
    "leaky_relu": ("LeakyRelu", 13, False, {"alpha": "slope"}),
    "elu": ("Elu", 13, False, {"alpha": "alpha"}),
    "selu": ("Selu", 13, False, {"alpha": "alpha", "gamma": "scale"}),
    "sigmoid": ("Sigmoid", 13, True, {}),
    "tanh": ("Tanh", 13, True, {}),
    "softplus": ("Softplus", 13, False, {}),
    "softsign": ("Softsign", 13, False, {}),
    "gelu": ("Gelu", 20, False, {"approximate": b"tanh"}),
    "gelu_erf": ("Gelu", 20, False, {"approximate": b"none"}),
    "mish": ("Mish", 22, False, {}),
    "hard_swish": ("HardSwish", 14, False, {}),
    "exponential": ("Exp", 13, True, {}),
    "softmax": ("Softmax", 13, True, {"axis": -1}),
}
# where two or three operators say in float32 what takes a dozen nodes of the NumPy expression.
# Swish, of opset 24, is in no onnxruntime at opset 25 (1.32)
SHORT: Mapping[str, Callable[[Graph, str], str]] = {
    "silu": lambda graph, z: graph.node("Mul", z, graph.node("Sigmoid", z)),
    "mish": lambda graph, z: graph.node("Mul", z, graph.node("Tanh", graph.node("Softplus", z))),
}


def activation(graph: Graph, f: Activation, z: str) -> str:
    """h = f(z): f's own operator, or its NumPy expression."""
    if f.name == "identity":
        return z
    if f.is_built_in() and f.name in NATIVE:
        op, since, in_float64, given = NATIVE[f.name]
        if graph.opset >= since and (in_float64 or graph.dtype == np.float32):
            values: dict[str, Any] = {}
            values |= {k: f.params[v] if isinstance(v, str) else v for k, v in given.items()}
            return graph.node(op, z, **values)
    if f.is_built_in() and f.name in SHORT and graph.dtype == np.float32:
        return SHORT[f.name](graph, z)
    try:
        return graph.traced(f.f, z, **f.params)
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"activation {f.name!r} cannot be written in ONNX: {error}; write its f with {KNOWN}"
        ) from error
