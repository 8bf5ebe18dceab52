"""The optimizer's step in the product that computes ∇W: a cuTile kernel, compiled ahead of time.

The kernel's text is `kernels/weight_update.py` below the optimizer's rule, which is translated from
the entry's CUDA statements.  `kernels/cubins/` has the machine code for the optimizers of the
library, which `kernels/compile_tiles.py` writes.  Where cuda-tile is installed, the rules of a
user's own optimizers are compiled at their first use.
"""

from __future__ import annotations

import ast
import hashlib
import io
import linecache
import lzma
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from gpumlp.errors import DeviceError
from gpumlp.functions import Optimizer
from gpumlp.io.paths import cache_folder
from gpumlp.storage import atomic_write

ARCHITECTURES = {"9.0": "sm_90", "10.0": "sm_100"}  # by compute capability
KERNEL = "weight_update"  # the kernel's name
TILE = 128  # rows and columns of a block's part of W, as in kernels/weight_update.py
ALIGNED = 8  # entries: a row of bfloat16 must be a multiple of 16 bytes
FUNCTIONS = {"sqrt", "sign"}  # of kernels/weight_update.py, which a rule may call
OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.USub, ast.UAdd, ast.Load, ast.Store)


@dataclass(frozen=True)
class TileSource:
    """The source of one tile kernel.

    Attributes:
        text: the kernel's module, without the name `ct`.
        numbers: the names of the launch's numbers after the first three: parameters of the
            optimizer, or one_minus_ and the name of one.
    """

    name: str
    text: str
    numbers: tuple[str, ...]

    @property
    def stem(self) -> str:
        """What names a file with the machine code of exactly this text."""
        return f"{self.name}-{hashlib.sha256(self.text.encode()).hexdigest()[:16]}"

    def arguments(self, optimizer: Optimizer, *first: float) -> tuple[float, ...]:
        """The launch's numbers: `first`, and the parameters of the optimizer."""
        values = {f"one_minus_{name}": 1 - value for name, value in optimizer.params.items()}
        values |= optimizer.params
        return (*first, *(values[name] for name in self.numbers))


@cache
def weight_update(optimizer: Optimizer) -> TileSource | None:
    """The kernel for a rule, or None if the rule has other statements than assignments of sums,
    products, quotients, sqrt and sign.
    """
    statements = _statements(optimizer.cuda_rule)
    if statements is None or optimizer.orthogonal is not None:
        return None
    words = set(re.findall(r"\w+", optimizer.cuda_rule))
    lines = {"lr": "numbers[1] * number(control, 1)"}
    for i, name in enumerate(optimizer.scalar_names, 2):
        lines[name] = f"number(control, {i})"
    numbers: list[str] = []
    for name in optimizer.params:
        for used in (name, f"one_minus_{name}"):
            if used in words:
                factor = "numbers[2] * " if used == "weight_decay" else ""
                lines[used] = f"{factor}numbers[{3 + len(numbers)}]"
                numbers.append(used)
    lines = {name: line for name, line in lines.items() if name in words}
    slots, names = _tuple(optimizer.slots), _tuple(lines)
    text = "\n".join([
        f"SLOTS = {len(optimizer.slots)}\n\n",
        "def values(control, numbers):",
        *(f"    {name} = {line}" for name, line in lines.items()),
        f"    return {names}\n\n",
        "def rule(theta, slots, g, values):",
        *[f"    {slots} = slots"] * bool(optimizer.slots),
        *[f"    {names} = values"] * bool(lines),
        *(f"    {statement}" for statement in statements),
        f"    return theta, {slots}\n\n",
    ])  # fmt: skip
    below = (files("gpumlp.kernels") / "weight_update.py").read_text(encoding="utf-8")
    code = re.sub(
        r"^#.*\n", "", below, flags=re.MULTILINE
    )  # comments do not change the file's name
    return TileSource(optimizer.name, text + code, tuple(numbers))


def _tuple(names: Any) -> str:
    """The Python tuple of some names."""
    return f"({', '.join(names)}{',' * (len(names) == 1)})"


def _statements(rule: str) -> list[str] | None:
    """The statements of a CUDA rule in Python; None if there are some that it does not know."""
    found = []
    for statement in filter(None, map(str.strip, rule.split(";"))):
        try:
            tree = ast.parse(re.sub(r"^(const )?(real|float|double|auto) ", "", statement))
        except SyntaxError:
            return None
        (assignment,) = tree.body
        if not isinstance(assignment, (ast.Assign, ast.AugAssign)):
            return None
        if not all(map(_known, ast.walk(assignment))):
            return None
        found.append(ast.unparse(_Quotients().visit(assignment)))
    return found or None


def _known(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS and not node.keywords
    allowed = (ast.Assign, ast.AugAssign, ast.BinOp, ast.UnaryOp, ast.Name, ast.Constant)
    return isinstance(node, (*allowed, *OPERATORS))


class _Quotients(ast.NodeTransformer):
    """x / y becomes divide(x, y)."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        if not isinstance(node.op, ast.Div):
            return node
        return ast.Call(ast.Name("divide", ast.Load()), [node.left, node.right], [])


@cache
def machine_code(source: TileSource, capability: str) -> bytes | None:
    """The code for a GPU of this compute capability: shipped, from the cache, or compiled now.

    None if the GPU is of another kind, or if the code is not shipped and cuda-tile is missing.
    """
    architecture = ARCHITECTURES.get(capability)
    if architecture is None:
        return None
    shipped = files("gpumlp.kernels") / "cubins" / f"{source.stem}-{architecture}.cubin.xz"
    if shipped.is_file():
        return lzma.decompress(shipped.read_bytes())
    path = cache_folder() / f"{source.stem}-{architecture}.cubin"
    if path.is_file():
        return path.read_bytes()
    try:
        code = compiled(source, architecture)
    except (ImportError, FileNotFoundError):  # cuda-tile, or its compiler
        return None
    with suppress(OSError):  # without a cache, another process compiles it again
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, code)
    return code


def compiled(source: TileSource, architecture: str) -> bytes:
    """Compile with cuda-tile, in seconds.  Raises ImportError where it is not installed."""
    import cuda.tile as ct
    from cuda.tile import compilation

    def array(kind: Any, ndim: int) -> Any:
        outer = ndim - 1
        return compilation.ArrayConstraint(
            kind, ndim, index_dtype=ct.int32, stride_lower_bound_incl=0, alias_groups=(),
            may_alias_internally=False, stride_constant=(*[None] * outer, 1),
            stride_divisible_by=(*[ALIGNED] * outer, 1),
            shape_divisible_by=(*[1] * outer, ALIGNED if outer else 1), base_addr_divisible_by=16,
        )  # fmt: skip

    half, single = ct.bfloat16, ct.float32
    arrays = [array(half, 2), array(half, 2), array(single, 2), array(half, 2), array(single, 3)]
    numbers = [compilation.ScalarConstraint(single)] * (3 + len(source.numbers))
    signature = compilation.KernelSignature(
        [*arrays, array(ct.float64, 1), compilation.TupleConstraint(numbers)],
        calling_convention=compilation.CallingConvention.cutile_python_v2(), symbol=KERNEL,
    )  # fmt: skip
    kernel, out = loaded(source, ct), io.BytesIO()
    compilation.export_kernel(
        kernel, [signature], out, gpu_code=architecture, output_format="cubin"
    )
    return out.getvalue()


def loaded(source: TileSource, ct: Any) -> Any:
    """The kernel's function; `ct` is cuda.tile, or what stands for it."""
    name = f"<{source.stem}>"  # cuda-tile reads the text of the function from `linecache`
    linecache.cache[name] = len(source.text), None, source.text.splitlines(keepends=True), name
    namespace: dict[str, Any] = {"ct": ct}
    exec(compile(source.text, name, "exec"), namespace)
    return namespace[KERNEL]


def loaded_code(cupy: Any, source: TileSource, capability: str) -> Any:
    """CuPy's function of the kernel, whose `machine_code` there is."""
    module = cupy.cuda.function.Module()
    module.load(machine_code(source, capability))
    return module.get_function(KERNEL)


def flattened(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments as cuTile's calling convention has them: an array's address, shape and strides.

    cuTile launches blocks of (1, 1, 1), since the code knows how many threads a block has.

    DeviceError: an array has so many entries that 32 bits do not count them.
    """
    flat: list[Any] = []
    for each in arguments:
        flat.append(each)
        if getattr(each, "ndim", 0):
            numbers = *each.shape, *(stride // each.itemsize for stride in each.strides)
            if max(numbers) > np.iinfo(np.int32).max:
                raise DeviceError("θ has too many entries for the optimizer's step in a product")
            flat += map(np.int32, numbers)
    return tuple(flat)
