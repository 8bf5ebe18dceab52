"""NumPy expression → ONNX nodes: an activation's own f is called with a symbol for its array.

So every entry that is written with NumPy's elementwise functions can be exported, a user's too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

UFUNCS = {
    np.add: "Add", np.subtract: "Sub", np.multiply: "Mul", np.divide: "Div", np.power: "Pow",
    np.negative: "Neg", np.absolute: "Abs", np.fabs: "Abs", np.sqrt: "Sqrt", np.exp: "Exp",
    np.log: "Log", np.tanh: "Tanh", np.sin: "Sin", np.cos: "Cos", np.sign: "Sign",
    np.floor: "Floor", np.ceil: "Ceil", np.reciprocal: "Reciprocal", np.maximum: "Max",
    np.minimum: "Min", np.less: "Less", np.greater: "Greater", np.less_equal: "LessOrEqual",
    np.greater_equal: "GreaterOrEqual", np.equal: "Equal", np.logical_and: "And",
    np.logical_or: "Or", np.logical_not: "Not", np.bitwise_and: "And", np.bitwise_or: "Or",
    np.invert: "Not",
}  # fmt: skip
TRUTHS = ("Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal", "And", "Or", "Not")


class Graph:
    """Nodes and constants in the making.

    Args:
        dtype: of its arithmetic, float32 or float64.
        opset: whose operators it has.
    """

    def __init__(self, dtype: npt.DTypeLike, opset: int) -> None:
        from onnx import helper

        self.dtype, self.opset = np.dtype(dtype), opset
        self.nodes: list[Any] = []
        self.constants: dict[str, npt.NDArray[Any]] = {}
        self.place = ""  # what the names of its nodes begin with
        self._helper = helper

    def node(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node of one output, and return that output's name."""
        name = f"{self.place}{op}_{len(self.nodes)}"
        made = self._helper.make_node(op, inputs, [output or name], name, **attributes)
        self.nodes.append(made)
        return output or name

    def constant(
        self, value: Any, dtype: npt.DTypeLike | None = None, name: str | None = None
    ) -> str:
        """The name of a constant; equal numbers share one."""
        array = np.asarray(value, dtype or self.dtype)
        if name is None:
            name = "_".join(["constant", array.dtype.name, *map(repr, array.ravel().tolist())])
        self.constants[name] = array
        return name

    def cast(self, name: str, dtype: npt.DTypeLike) -> str:
        """The array in another dtype."""
        return self.node("Cast", name, to=self._helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def traced(self, f: Callable[..., Any], z: str, **params: float) -> str:
        """f(z, **params), by the nodes that f's NumPy expression stands for.

        Raises:
            TypeError: f does with z what no node can.
        """
        result = f(Symbol(self, z), **params)
        if not isinstance(result, Symbol):
            raise TypeError(f"its f returns {type(result).__name__}, whatever z is")
        return result.as_number()


class Symbol(NDArrayOperatorsMixin):
    """An array of which only the name in a graph is known."""

    def __init__(self, graph: Graph, name: str, truth: bool = False) -> None:
        self.graph, self.name, self.truth = graph, name, truth
        self.dtype = np.dtype(bool) if truth else graph.dtype

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **settings: Any) -> Any:
        """The node that stands for a ufunc's call; what it writes into becomes its result."""
        name = ufunc.__name__.partition(" ")[0]
        if method != "__call__" or set(settings) - {"out"}:
            raise TypeError(f"it uses numpy.{name} with {method}, {', '.join(settings)}")
        if ufunc not in UFUNCS and name not in COMPOSED:
            raise TypeError(f"it uses {name}")
        if ufunc in UFUNCS:
            result = self._call(UFUNCS[ufunc], *inputs)
        else:
            result = COMPOSED[name](*(self._symbol(value) for value in inputs))
        if "out" not in settings:
            return result
        (out,) = settings["out"]
        if not isinstance(out, Symbol):
            raise TypeError(f"it has numpy.{name} write into an array of its own")
        vars(out).update(vars(result))
        return out

    def __array_function__(
        self, function: Any, types: Any, args: tuple[Any, ...], settings: dict[str, Any]
    ) -> Any:
        """numpy.where, clip, sum and max as nodes."""
        if function.__name__ not in FUNCTIONS:
            raise TypeError(f"it uses numpy.{function.__name__}")
        first, *rest = args
        return FUNCTIONS[function.__name__](self._symbol(first), *rest, **settings)

    def __array__(self, *args: Any, **settings: Any) -> Any:
        raise TypeError("it turns z into an array of its own, numpy.asarray(z)")

    def __bool__(self) -> bool:
        raise TypeError('it asks "if z …"; numpy.where(z > 0, a, b) asks for each entry')

    def __getitem__(self, key: Any) -> Any:
        raise TypeError("it takes parts of z")

    def __getattr__(self, name: str) -> Any:
        error = AttributeError if name.startswith("__") else TypeError  # NumPy looks for protocols
        raise error(f"it uses z.{name}")

    def astype(self, dtype: Any, **settings: Any) -> Symbol:
        """Itself as a number: the graph has one dtype."""
        return Symbol(self.graph, self.as_number())

    def sum(self, axis: int | None = None, keepdims: bool = False) -> Symbol:
        """Σ over the last axis."""
        return self._reduced("ReduceSum", axis, keepdims)

    def max(self, axis: int | None = None, keepdims: bool = False) -> Symbol:
        """The largest over the last axis."""
        return self._reduced("ReduceMax", axis, keepdims)

    def clip(self, min: Any = None, max: Any = None) -> Symbol:
        """The nearest value from `min` to `max`."""
        clipped = self if min is None else self._call("Max", self, min)
        return clipped if max is None else self._call("Min", clipped, max)

    def as_number(self) -> str:
        """The name of it as numbers: truth values become 0 and 1."""
        return self.graph.cast(self.name, self.graph.dtype) if self.truth else self.name

    def where(self, yes: Any, no: Any) -> Symbol:
        """`yes` where it is true, else `no`."""
        condition = self.name if self.truth else self.graph.cast(self.name, bool)
        a, b = self._symbol(yes).as_number(), self._symbol(no).as_number()
        return Symbol(self.graph, self.graph.node("Where", condition, a, b))

    def _call(self, op: str, *inputs: Any) -> Symbol:
        symbols = [self._symbol(value) for value in inputs]
        logical = op in ("And", "Or", "Not")
        names = [s.name if logical else s.as_number() for s in symbols]
        return Symbol(self.graph, self.graph.node(op, *names), truth=op in TRUTHS)

    def _symbol(self, value: Any) -> Symbol:
        if isinstance(value, Symbol):
            return value
        return Symbol(self.graph, self.graph.constant(value))

    def _reduced(self, op: str, axis: int | None, keepdims: bool) -> Symbol:
        if axis not in (-1, 1) or not keepdims:
            raise TypeError("it reduces z other than by axis=-1, keepdims=True")
        name = self.as_number()
        if op == "ReduceSum" or self.graph.opset >= 18:  # from then on axes are an input
            axes = self.graph.constant([-1], np.int64)
            return Symbol(self.graph, self.graph.node(op, name, axes, keepdims=1))
        return Symbol(self.graph, self.graph.node(op, name, axes=[-1], keepdims=1))


def _expm1(z: Symbol) -> Any:
    return np.tanh(z / 2) * (np.exp(z) + 1)  # exp(z) − 1 would lose the digits of a small z


def _log1p(z: Symbol) -> Any:
    u = 1 + z  # whose rounding cancels in log(u) / (u − 1): Goldberg (1991), theorem 4
    return np.where(u == 1, z, np.log(u) * z / np.where(u == 1, 1, u - 1))


def _erf(z: Symbol) -> Symbol:
    """In float32 also for float64: onnxruntime has no other."""
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
}
SIGNS = ("Add", "Sub", "Mul", "Div", "Pow", "Neg")
NAMED = [f.__name__ for f, op in UFUNCS.items() if op not in (*TRUTHS, *SIGNS)]
KNOWN = "+ - * / **, comparisons, NumPy's " + ", ".join(
    ["where", "clip", *NAMED, *COMPOSED, "sum and max over the last axis"]
)
