"""ONNX graphs: nodes, constants, and functions as ONNX operators or as their NumPy expressions.

An activation or norm without an operator of its own, a user's too, is traced: its NumPy function is
called with a symbol in place of an array, and each NumPy function that it calls adds a node.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partialmethod
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

from gpumlp.functions import Activation
from gpumlp.functions.entry import Entry
from gpumlp.functions.stages import Stage
from gpumlp.io.types import HostArray

Signature = dict[str, tuple[npt.DTypeLike, int | None]]
"""The inputs or outputs of a graph: name → dtype and width; None for a vector."""

# name → (operator, its first opset, whether onnxruntime has it in float64 too, its attributes as
# names of the entry's parameters). Attributes are float32: operators with attributes are used in
# float32 only.
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
# two or three operators in float32 in place of a dozen nodes of the NumPy expression. Swish, of
# opset 24, is in no onnxruntime at opset 25 (1.32)
SHORT: Mapping[str, Callable[[Graph, str], str]] = {
    "silu": lambda graph, z: graph.node("Mul", z, graph.node("Sigmoid", z)),
    "mish": lambda graph, z: graph.node("Mul", z, graph.node("Tanh", graph.node("Softplus", z))),
}
UFUNCS = {
    np.add: "Add", np.subtract: "Sub", np.multiply: "Mul", np.divide: "Div", np.power: "Pow",
    np.negative: "Neg", np.absolute: "Abs", np.fabs: "Abs", np.sqrt: "Sqrt", np.exp: "Exp",
    np.log: "Log", np.tanh: "Tanh", np.sin: "Sin", np.cos: "Cos", np.sign: "Sign",
    np.floor: "Floor", np.rint: "Round", np.ceil: "Ceil", np.reciprocal: "Reciprocal",
    np.maximum: "Max", np.minimum: "Min", np.less: "Less", np.greater: "Greater",
    np.less_equal: "LessOrEqual", np.greater_equal: "GreaterOrEqual", np.equal: "Equal",
    np.logical_and: "And", np.logical_or: "Or", np.logical_not: "Not", np.bitwise_and: "And",
    np.bitwise_or: "Or", np.invert: "Not",
}  # fmt: skip
LOGICAL = ("And", "Or", "Not")
BOOLEAN = ("Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal", *LOGICAL)


OPERATORS = {"layer": ("LayerNormalization", 17), "batch": ("BatchNormalization", 14)}


class Graph:
    """The nodes and constants of a graph; its arithmetic has one dtype, float32 or float64.

    place: the prefix of the names of new nodes.
    reserved: the names of inputs, which nodes and constants cannot have.
    """

    def __init__(self, dtype: npt.DTypeLike, opset: int, reserved: Collection[str] = ()) -> None:
        from onnx import helper

        self.dtype, self.opset = np.dtype(dtype), opset
        self.nodes: list[Any] = []
        self.constants: dict[str, HostArray] = {}
        self.place = ""
        self._reserved = frozenset(reserved)
        self._helper = helper

    def node(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output, and return the output's name."""
        name = self.free(f"{self.place}{op}_{len(self.nodes)}")
        made = self._helper.make_node(op, inputs, [output or name], name, **attributes)
        self.nodes.append(made)
        return output or name

    def free(self, name: str) -> str:
        """The name, or one with _ at its end if an input has it."""
        while name in self._reserved:
            name += "_"
        return name

    def constant(
        self, value: Any, dtype: npt.DTypeLike | None = None, name: str | None = None
    ) -> str:
        """The name of a constant; equal numbers share one."""
        array = np.asarray(value, dtype or self.dtype)
        if name is None:
            name = "_".join(["constant", array.dtype.name, *map(repr, array.ravel().tolist())])
        name = self.free(name)
        self.constants[name] = array
        return name

    def cast(self, name: str, dtype: npt.DTypeLike) -> str:
        """The array in another dtype."""
        return self.node("Cast", name, to=self._helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def activation(self, f: Activation, z: str) -> str:
        """h = f(z), by f's own operator or by its NumPy expression."""
        if f.name == "identity":
            return z
        ours, single = f.is_built_in(), self.dtype == np.float32
        if ours and f.name in NATIVE:
            op, since, in_float64, given = NATIVE[f.name]
            if self.opset >= since and (in_float64 or single):
                return self.node(op, z, **{k: f.params.get(v, v) for k, v in given.items()})
        if ours and f.name in SHORT and single:
            return SHORT[f.name](self, z)
        return self._traced("activation", "f", f, lambda: f.f(Symbol(self, z), **f.params))

    def norm(self, norm: Stage, x: str, phi: Sequence[str], s: Sequence[str] = ()) -> str:
        """A norm of the rows x with the parameters φ: an operator, or its NumPy expression.

        s: the running averages of a norm over columns.
        """
        operator, since = OPERATORS.get(norm.name if norm.is_built_in() else "", ("", 0))
        if operator and self.opset >= since and self.dtype == np.float32:  # as its ε
            return self.node(operator, x, *phi, *s, epsilon=norm.params["eps"])
        known = [[Symbol(self, each) for each in names] for names in ([phi, s] if s else [phi])]
        return self._traced(
            "norm", "forward", norm, lambda: norm.forward(Symbol(self, x), *known, **norm.params)
        )

    def halves(self, x: str, n: int) -> tuple[str, str]:
        """The first and the last n columns of x."""
        name = f"{self.place}Split_{len(self.nodes)}"
        outputs = [self.free(f"{name}_{i}") for i in (0, 1)]
        inputs = [x, self.constant([n, n], np.int64)]
        self.nodes.append(self._helper.make_node("Split", inputs, outputs, name, axis=-1))
        return outputs[0], outputs[1]

    def _traced(self, what: str, field: str, entry: Entry, call: Callable[[], Any]) -> str:
        """What an entry's NumPy function in this field returns for symbols."""
        try:
            h = call()
            if not isinstance(h, Symbol):
                raise TypeError(f"its {field} returns {type(h).__name__}, whatever its input is")
            return h.as_number()
        except (TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{what} {entry.name!r} cannot be written in ONNX: {error}; "
                f"write its {field} with {SUPPORTED}"
            ) from error


class Symbol(NDArrayOperatorsMixin):
    """Stands for an array in a NumPy expression; only its name in a graph is known."""

    def __init__(self, graph: Graph, name: str, boolean: bool = False) -> None:
        self.graph, self.name, self.boolean = graph, name, boolean
        self.dtype = np.dtype(bool) if boolean else graph.dtype

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **settings: Any) -> Any:
        """The result of a ufunc's call, as a node. `out`, if there is one, becomes the result."""
        name = ufunc.__name__.partition(" ")[0]
        if method != "__call__" or set(settings) - {"out"}:
            raise TypeError(f"it uses numpy.{name} with {method}, {', '.join(settings)}")
        if ufunc in UFUNCS:
            result = self._call(UFUNCS[ufunc], *inputs)
        elif name in COMPOSED:
            result = COMPOSED[name](*(self._symbol(value) for value in inputs))
        else:
            raise TypeError(f"it uses {name}")
        if "out" not in settings:
            return result
        (out,) = settings["out"]
        if not isinstance(out, Symbol):
            raise TypeError(f"numpy.{name} writes into an array that is not part of the graph")
        vars(out).update(vars(result))
        return out

    def __array_function__(
        self, function: Any, types: Any, args: tuple[Any, ...], settings: dict[str, Any]
    ) -> Any:
        """The result of numpy.where, clip, sum, mean or max, as a node."""
        if function.__name__ not in FUNCTIONS:
            raise TypeError(f"it uses numpy.{function.__name__}")
        first, *rest = args
        return FUNCTIONS[function.__name__](self._symbol(first), *rest, **settings)

    def __array__(self, *args: Any, **settings: Any) -> Any:
        raise TypeError("it turns z into a NumPy array, as numpy.asarray(z) does")

    def __bool__(self) -> bool:
        raise TypeError('it asks "if z …"; numpy.where(z > 0, a, b) decides for each entry')

    def __getitem__(self, key: Any) -> Any:
        raise TypeError("it takes parts of z")

    def __getattr__(self, name: str) -> Any:
        error = AttributeError if name.startswith("__") else TypeError  # NumPy looks for protocols
        raise error(f"it uses z.{name}")

    def astype(self, dtype: Any, **settings: Any) -> Symbol:
        """The symbol as a number; the dtype is always the graph's."""
        return Symbol(self.graph, self.as_number())

    def clip(self, min: Any = None, max: Any = None) -> Symbol:
        """The nearest value from `min` to `max`."""
        clipped = self if min is None else self._call("Max", self, min)
        return clipped if max is None else self._call("Min", clipped, max)

    def as_number(self) -> str:
        """The name of the symbol as a number: booleans become 0 and 1."""
        return self.graph.cast(self.name, self.graph.dtype) if self.boolean else self.name

    def where(self, yes: Any, no: Any) -> Symbol:
        """`yes` where the symbol is true, `no` elsewhere."""
        condition = self.name if self.boolean else self.graph.cast(self.name, bool)
        a, b = self._symbol(yes).as_number(), self._symbol(no).as_number()
        return Symbol(self.graph, self.graph.node("Where", condition, a, b))

    def _call(self, op: str, *inputs: Any) -> Symbol:
        symbols = [self._symbol(value) for value in inputs]
        names = [s.name if op in LOGICAL else s.as_number() for s in symbols]
        return Symbol(self.graph, self.graph.node(op, *names), boolean=op in BOOLEAN)

    def _symbol(self, value: Any) -> Symbol:
        if isinstance(value, Symbol):
            return value
        return Symbol(self.graph, self.graph.constant(value))

    def _reduced(self, op: str, axis: int | None = None, keepdims: bool = False) -> Symbol:
        """The sum, maximum or mean over the last axis."""
        if axis not in (-1, 1) or not keepdims:
            raise TypeError("it reduces z other than by axis=-1, keepdims=True")
        graph, name = self.graph, self.as_number()
        if op == "ReduceSum" or graph.opset >= 18:  # here the axes are an input
            axes = graph.constant([-1], np.int64)
            return Symbol(graph, graph.node(op, name, axes, keepdims=1))
        return Symbol(graph, graph.node(op, name, axes=[-1], keepdims=1))

    sum = partialmethod(_reduced, "ReduceSum")
    max = partialmethod(_reduced, "ReduceMax")
    mean = partialmethod(_reduced, "ReduceMean")


def _expm1(z: Symbol) -> Any:
    return np.tanh(z / 2) * (np.exp(z) + 1)  # exp(z) − 1 would lose digits for small z


def _log1p(z: Symbol) -> Any:
    u = 1 + z  # its rounding error cancels in log(u) / (u − 1): Goldberg (1991), theorem 4
    return np.where(u == 1, z, np.log(u) * z / np.where(u == 1, 1, u - 1))


def _erf(z: Symbol) -> Symbol:
    """erf in float32, also for float64: onnxruntime has no other."""
    graph = z.graph
    if graph.dtype == np.float32:
        return Symbol(graph, graph.node("Erf", z.as_number()))
    rough = graph.node("Erf", graph.cast(z.as_number(), np.float32))
    return Symbol(graph, graph.cast(rough, graph.dtype))


COMPOSED: dict[str, Callable[..., Any]] = {
    "square": lambda z: z * z,
    "positive": lambda z: z,
    "expm1": _expm1,
    "log1p": _log1p,
    "logaddexp": lambda a, b: np.maximum(a, b) + _log1p(np.exp(-np.abs(a - b))),
    "erf": _erf,
    "expit": lambda z: z._call("Sigmoid", z),
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "where": Symbol.where,
    "clip": lambda z, *bounds, **settings: z.clip(
        *bounds, **{key.removeprefix("a_"): value for key, value in settings.items()}
    ),
    "sum": Symbol.sum,
    "max": Symbol.max,
    "amax": Symbol.max,
    "mean": Symbol.mean,
}
SIGNS = ("Add", "Sub", "Mul", "Div", "Pow", "Neg")
NAMED = [f.__name__ for f, op in UFUNCS.items() if op not in (*BOOLEAN, *SIGNS)]
SUPPORTED = "+ - * / **, comparisons, NumPy's " + ", ".join(
    ["where", "clip", *NAMED, *COMPOSED, "sum, mean and max over the last axis"]
)
