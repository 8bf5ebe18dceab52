"""Entries: every function in the tables of `gpumlp.functions` is one entry."""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Self, TypeVar

from gpumlp.errors import did_you_mean, renamed

Array = Any
"""numpy.ndarray of a floating dtype.  NumPy annotates most arithmetic on arrays as Any too."""
NEEDED: dict[str, tuple[Any, str]] = {
    "str": (str, "a string"), "Callable": (Callable, "a function"),
    "Mapping": (Mapping, "a mapping"),
}  # fmt: skip
"""By the beginning of a field's annotation, the type of its value, and its name in errors."""


@dataclass(frozen=True, repr=False)
class Entry:
    """A named function with its parameters; subclasses add the NumPy and CUDA expressions.

    NumPy expressions get the parameters as keyword arguments, CUDA's as constants of their names,
    and 1 − p, for a parameter p, as one_minus_p.
    All values in CUDA are `real`: double for float64 networks, float for all others.

    Attributes:
        name: the name in tables, files and error messages.
        params: the function's parameters and their values.
        limits: the interval of valid values of each parameter, such as ``"[0, 1)"``.
    """

    name: str
    params: Mapping[str, float] = field(default_factory=dict, kw_only=True, hash=False)
    limits: Mapping[str, str] = field(default_factory=dict, kw_only=True, hash=False)

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            value, kind = getattr(self, each.name), str(each.type)
            needed = next((need for start, need in NEEDED.items() if kind.startswith(start)), None)
            optional = value is None and "None" in kind
            if needed is not None and not optional and not isinstance(value, needed[0]):
                raise TypeError(
                    f"{each.name} of {self.what} must be {needed[1]}, got {value!r:.60}"
                )
        values = {key: self._number(key, value) for key, value in self.params.items()}
        object.__setattr__(self, "params", MappingProxyType(values))

    def set(self, **params: float) -> Self:
        """Return the function with other parameters, e.g. ``huber.set(delta=2.0)``."""
        for key in params:
            if key not in self.params:
                known = ", ".join(self.params) or "none"
                raise TypeError(f"{self.name} has no parameter {key!r}; it has: {known}")
        return dataclasses.replace(self, params={**self.params, **params})

    def __repr__(self) -> str:
        values = "".join(f", {key}={value!r}" for key, value in self.params.items())
        return f"{type(self).__name__}({self.name!r}{values})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # an entry never changes

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle an entry of a table by name, another one by its fields, which excludes lambdas."""
        if self.is_built_in():
            return _by_name, (type(self), self.name, dict(self.params))
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        fields |= {"params": dict(self.params), "limits": dict(self.limits)}
        return partial(type(self), **fields), ()

    def is_built_in(self) -> bool:
        """Whether this is the entry of a table, possibly with other parameters."""
        known = _BUILT_IN.get((type(self), self.name))
        return known is not None and same_function(known, self)

    stands_in_a_table = renamed("stands_in_a_table", "is_built_in")

    def spec(self) -> dict[str, Any]:
        """Return name and parameters in JSON types; `lookup` returns the entry for them."""
        return {"name": self.name, **self.params}

    @property
    def what(self) -> str:
        """Kind and name, as errors call the entry: "activation 'relu'"."""
        return f"{type(self).__name__.lower()} {self.name!r}"

    def cuda(self) -> str:
        """Return CUDA source of the device functions that the entry's kernels call."""
        return ""

    def cuda_constants(self, leave_out: Iterable[str] = (), text: str = "") -> str:
        """Return one CUDA definition per parameter p, for the top of a device function's body.

        And one of each one_minus_p in the text: in float32, 1 − p would lose digits.
        """
        values = {key: value for key, value in self.params.items() if key not in leave_out}
        others = {f"one_minus_{key}": 1 - value for key, value in self.params.items()}
        values |= {key: others[key] for key in re.findall(r"\w+", text) if key in others}
        return "".join(f"const real {key} = real({value!r}); " for key, value in values.items())

    def _device_functions(
        self, signatures: Mapping[str, str], leave_out: Iterable[str] = ()
    ) -> str:
        """Return CUDA source of functions; signatures: field with the expression -> "f(real z)"."""
        expressions = {field: getattr(self, field) for field in signatures}
        if not all(expressions.values()):
            raise ValueError(
                f"{self.what} has no CUDA expression; "
                f'give {" and ".join(signatures)}, or use backend="numpy"'
            )
        return "".join(
            f"__device__ real {signatures[field]} "
            f"{{ {self.cuda_constants(leave_out, text)}return {text}; }}\n"
            for field, text in expressions.items()
        )

    def _number(self, key: str, value: float) -> float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"{self.name}: {key} must be a number, got {value!r}")
        interval = self.limits.get(key, "(-inf, inf)")
        try:
            low, high = (float(bound) for bound in interval[1:-1].split(","))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f'{self.name}: limits of {key} must be like "[0, 1)", got {interval!r}'
            ) from error
        try:
            number = float(value)
        except OverflowError:  # of a whole number
            number = math.inf
        above = number > low or (interval[0] == "[" and number == low)
        below = number < high or (interval[-1] == "]" and number == high)
        if not (math.isfinite(number) and above and below):
            raise ValueError(f"{self.name}: {key} must lie in {interval}, got {number}")
        return number


class OfNetworks:
    """A parameter with a value for each of several networks; in CUDA an expression of member()."""

    def __init__(self, values: Iterable[float]) -> None:
        self.values = tuple(values)

    def __rsub__(self, other: float) -> OfNetworks:
        return OfNetworks(other - value for value in self.values)

    def __repr__(self) -> str:
        """The value of each run of networks that have the same."""
        text = f"real({self.values[-1]!r})"
        for i in range(len(self.values) - 1, 0, -1):
            if self.values[i - 1] != self.values[i]:
                text = f"(member() < {i} ? real({self.values[i - 1]!r}) : {text})"
        return text


E = TypeVar("E", bound=Entry)
_BUILT_IN: dict[tuple[type[Entry], str], Entry] = {}


def table(*entries: E) -> Mapping[str, E]:
    """Return the read-only table name -> entry."""
    _BUILT_IN.update({(type(entry), entry.name): entry for entry in entries})
    return MappingProxyType({entry.name: entry for entry in entries})


def joint(entries: Sequence[E]) -> E:
    """One entry for several networks, whose entries differ in nothing but parameters.

    Only its CUDA source may be used.
    """
    first, found = entries[0], dataclasses.replace(entries[0])
    params: dict[str, Any] = {}
    for key, value in first.params.items():
        values = [each.params[key] for each in entries]
        params[key] = value if len(set(values)) == 1 else OfNetworks(values)
    object.__setattr__(found, "params", MappingProxyType(params))
    return found


def same_function(a: Entry, b: Entry) -> bool:
    """Whether two entries differ in nothing but parameters."""
    if a is b:
        return True
    names = (name for name in type(a).__dataclass_fields__ if name != "params")
    pairs = ((getattr(a, name), getattr(b, name)) for name in names)
    return type(a) is type(b) and all(one is other or one == other for one, other in pairs)


def _by_name(kind: type[Entry], name: str, params: dict[str, float]) -> Entry:
    return _BUILT_IN[kind, name].set(**params)


def lookup(known: Mapping[str, E], what: str, asked: str | Mapping[str, Any] | E) -> E:
    """Return the entry for `asked`: a name, a `spec()`, or an entry, which is returned unchanged.

    Raises:
        ValueError: the name is not in the table; the message lists the names.  Or the entry is
            another function with a name of the table: a saved network stores the name alone.
        TypeError: `asked` is none of the three, or is an entry of another kind.
    """
    if isinstance(asked, Mapping):
        params = dict(asked)
        name: str = params.pop("name", "")
        if name not in known:
            raise ValueError(
                f"unknown {what} {name!r}; if it is your own, load it with functions=[your entry]; "
                f"known: {', '.join(known)}"
            )
        return lookup(known, what, name).set(**params)
    if isinstance(asked, str):
        if asked in known:
            return known[asked]
        hint = did_you_mean(asked, known)
        raise ValueError(f"unknown {what} {asked!r}; {hint}known: {', '.join(known)}")
    kind: type[E] = type(next(iter(known.values())))
    if not isinstance(asked, kind):
        raise TypeError(
            f"{what} must be a name or an entry (gpumlp.{kind.__name__}), "
            f"got {type(asked).__name__}; known names: {', '.join(known)}"
        )
    if asked.name in known and not asked.is_built_in():
        raise ValueError(
            f"{what} {asked.name!r} is not gpumlp's function of that name; rename yours"
        )
    return asked
