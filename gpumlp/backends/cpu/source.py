"""C++ source of an entry's operations on the CPU, from its CUDA expressions.

Each entry becomes a struct of its parameters with its functions, for which the templates in
`kernels/cpu/` are instantiated for float and double, and where they read activations also for
bfloat16.  Built-in entries get their parameters at run time, so that one library holds all of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from itertools import product
from pathlib import Path

from gpumlp.backends.columns import Columns
from gpumlp.backends.declaration import OPERATIONS
from gpumlp.functions import (
    ACTIVATIONS,
    LOSSES,
    OPTIMIZERS,
    REGULARIZERS,
    Activation,
    Loss,
    Optimizer,
    Regularizer,
)
from gpumlp.functions.entry import Entry
from gpumlp.functions.optimizers import UNLISTED
from gpumlp.functions.stages import NORMS, ColumnStage, Stage

INCLUDE = '#include "operations.hpp"\n'
REALS = ("float", "double")
STORED = (*REALS, "bfloat16")
COLUMNS = tuple(name for name in vars(Columns) if name in OPERATIONS)


def struct_name(entry: Entry) -> str:
    """The name of an entry's struct; that of a user's own entry also has a hash of its text."""
    kind = type(entry).__name__.lower()
    if entry.is_built_in():
        return f"{kind}_{entry.name}"
    digest = hashlib.sha256(_body(entry, "").encode()).hexdigest()[:12]
    return f"{kind}_{re.sub(r'[^A-Za-z0-9]', '_', entry.name)}_{digest}"


def has_source(entry: Entry) -> bool:
    """Whether the entry has the C++ expressions of a struct."""
    return bool(entry.row_functions() if isinstance(entry, Stage) else _functions(entry))


def parameters(entry: Entry) -> list[float]:
    """The numbers from which the struct is made, in order."""
    if isinstance(entry, Optimizer):  # in float32, 1 − β would lose half of the digits
        return [x for value in entry.params.values() for x in (value, 1 - value)]
    return list(entry.params.values())


def operations(entry: Entry, omega: Regularizer | None = None) -> dict[str, str]:
    """For each operation of the entry the template that does it; of an optimizer with Ω."""
    name = struct_name(entry)
    if isinstance(entry, Activation):
        return {f"{name}_{each}": f"{each}<{name}, %s>" for each in (
            "bias_activation_part", "activation_gradient_part",
            *_on_rows_too("bias_activation", "activation", "activation_gradient"),
            *_on_rows_too("gate", "gate_gradient"),
        )}  # fmt: skip
    if isinstance(entry, Loss):
        return {
            f"{name}_loss{of}{rows}": f"loss{rows}<{name}, %s, {target}>"
            for of, target in (("", "Arithmetic<%s>"), ("_of_labels", "int32_t"))
            for rows in ("", "_on_rows")
        }
    if isinstance(entry, Regularizer):
        return {f"{name}_{each}": f"{each}<{name}, %s>" for each in ("penalty", "clip")}
    if isinstance(entry, Stage):
        each_of = _on_rows_too("rows", "rows_gradient")
        if isinstance(entry, ColumnStage):
            row_wise = (each for each in COLUMNS if OPERATIONS[each].by_rows)
            each_of = list(dict.fromkeys([*COLUMNS, *_on_rows_too(*row_wise)]))
        return {f"{name}_{each}": f"{each}<{name}, %s>" for each in each_of}
    assert omega is not None
    other = struct_name(omega)
    return {
        f"{name}_{other}_{each}": f"{each}<{name}, {other}, %s>"
        for each in ("update", "update_part")
    }


def _on_rows_too(*names: str) -> list[str]:
    return [f"{name}{on_rows}" for name in names for on_rows in ("", "_on_rows")]


def types(entry: Entry) -> tuple[str, ...]:
    """The types of numbers for which its operations exist."""
    return STORED if isinstance(entry, Activation | Loss | Stage) else REALS


def text(entry: Entry, omega: Regularizer | None = None) -> str:
    """The whole source of one entry's operations."""
    structs = dict.fromkeys(each for each in (entry, omega) if each is not None)
    return INCLUDE + "".join(map(_struct, structs)) + _instances(entry, omega)


def headers() -> Path:
    """The folder of the templates, in an installed gpumlp."""
    return Path(str(files("gpumlp.kernels"))) / "cpu"


def built_in(headers: Path) -> str:
    """The source of the library: the runner of programs, and all entries of the tables."""
    text = '#include "program.cpp"\n' + _entries()
    templates = sorted(each for each in headers.iterdir() if each.is_file())
    content = text + "".join(each.read_text(encoding="utf-8") for each in templates)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return f'{text}GPUMLP_EXPORT const char gpumlp_version[] = "{digest}";\n'


def version(text: str) -> str:
    """What `gpumlp_version` holds in the library of this source."""
    return text.rsplit('"', 2)[1]


def _entries() -> str:
    tables: tuple[Mapping[str, Entry], ...] = (ACTIVATIONS, LOSSES, REGULARIZERS, NORMS)
    entries = [e for table in tables for e in table.values() if has_source(e)]
    rules = list(_rules(OPTIMIZERS.values()))
    instances = [_instances(entry) for entry in entries]
    instances += [_instances(*both) for both in product(rules, REGULARIZERS.values())]
    return INCLUDE + "".join(map(_struct, [*entries, *rules])) + "".join(instances)


def _rules(optimizers: Iterable[Optimizer]) -> Iterator[Optimizer]:
    for each in optimizers:
        yield each
        yield from each.orthogonal or ()
    yield from UNLISTED


def _instances(entry: Entry, omega: Regularizer | None = None) -> str:
    functions = "".join(
        f"GPUMLP_EXPORT void {real}_{name}(const void* p, const {_second(name)}& t) {{\n"
        f"    {template.replace('%s', real)}(p, t);\n}}\n"
        for name, template in operations(entry, omega).items() for real in types(entry)
    )  # fmt: skip
    return f"namespace gpumlp {{\n{functions}}}\n"


def _second(operation: str) -> str:
    """The type of an operation's second argument."""
    return "Part" if operation.endswith(("_part", "_on_rows")) else "Threads"


def _functions(entry: Entry) -> dict[str, str]:
    """The signatures of the struct's functions and their expressions; none if one is missing."""
    found: dict[str, str] = {}
    if isinstance(entry, Activation) and entry.elementwise:
        found = {"f(real z)": entry.cuda_f, "df(real z, real h)": entry.cuda_df}
    elif isinstance(entry, Loss) and not entry.rowwise:
        found = {
            "value(real y_hat, real y)": entry.cuda_value,
            "gradient(real y_hat, real y)": entry.cuda_gradient,
        }
    elif isinstance(entry, Regularizer):
        found = {"omega(real theta)": entry.cuda_omega, "domega(real theta)": entry.cuda_gradient}
    elif isinstance(entry, Optimizer):
        found = {"rule": entry.cuda_rule}
    return found if all(found.values()) else {}


def _struct(entry: Entry) -> str:
    name = struct_name(entry)
    return f"namespace gpumlp {{\n{_body(entry, name)}}}\n"


def _body(entry: Entry, name: str) -> str:
    if isinstance(entry, Optimizer):
        return _rule(entry, name)
    if isinstance(entry, Stage):
        functions = "    " + entry.row_numbers()
        bodies = entry.row_functions()
    else:
        functions, bodies = "", {k: f"return {e};" for k, e in _functions(entry).items()}
    words = set(re.findall(r"\w+", " ".join(bodies.values())))
    numbers = {key: f"p[{i}]" for i, key in enumerate(entry.params)}
    others = {f"one_minus_{key}": f"1 - {number}" for key, number in numbers.items()}
    numbers |= {key: others[key] for key in others if key in words}
    constants = "".join(f"    real {key};\n" for key in numbers)
    values = ", ".join(f"{key}(real({number}))" for key, number in numbers.items())
    for signature, body in bodies.items():
        template, _, rest = signature.rpartition("> ")
        functions += (
            f"    {template}{'> ' * bool(template)}GPUMLP_INLINED real {rest} const {{ {body} }}\n"
        )
    return (
        f"template <class real> struct {name} {{\n{constants}"
        f"    explicit {name}(const double* p) {': ' if values else ''}{values} {{ (void)p; }}\n"
        "    static real tiny() { return std::numeric_limits<real>::min(); }\n"
        f"{functions}}};\n"
    )


def _rule(rule: Optimizer, name: str) -> str:
    """The struct of an update rule; its numbers of a step are in `control`."""
    values = {key: f"real(control[{i}])" for i, key in enumerate(("lr", *rule.scalar_names))}
    for i, key in enumerate(rule.params):
        values |= {key: f"real(p[{2 * i}])", f"one_minus_{key}": f"real(p[{2 * i + 1}])"}
    values["lr"] = f"lr_factor * {values['lr']}"
    if "weight_decay" in values:
        values["weight_decay"] = f"decay_factor * {values['weight_decay']}"
    words = set(re.findall(r"\w+", rule.cuda_rule))
    values = {key: value for key, value in values.items() if key in words}
    slots = "".join(
        f"        real& {slot} = slot[{i}];\n" for i, slot in enumerate(rule.slots) if slot in words
    )
    members = "".join(f"    real {key};\n" for key in values)
    made = ", ".join(f"{key}({value})" for key, value in values.items())
    return (
        f"template <class real> struct {name} {{\n    enum {{ SLOTS = {len(rule.slots)} }};\n"
        f"{members}    {name}(const double* p, const double* control, real lr_factor,\n"
        f"        real decay_factor) {': ' if made else ''}{made} {{\n"
        "        (void)p, (void)control, (void)lr_factor, (void)decay_factor;\n    }\n"
        "    GPUMLP_INLINED void rule(real& theta, real* slot, real g) const {\n"
        f"        (void)theta, (void)slot, (void)g;\n{slots}        {rule.cuda_rule}\n    }}\n}};\n"
    )
