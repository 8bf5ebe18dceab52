"""NVRTC compiles every kernel of every storage type for three GPU generations.

One source of each file is compiled in all storage types, in bfloat16 for all three.  Each function
of the tables is compiled in float64 and in a type whose arithmetic is float32: all for all would
take minutes.  Register counts must not exceed the committed ceilings, which are the largest counts
of what is compiled.  After a change that is worth its registers, run

    python -m tests.kernels.test_resources > tests/resources/registers.json
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from zlib import crc32

import pytest

from gpumlp.backends.cuda.source import CASTS, KernelSource
from tests.support.harness import nvrtc
from tests.support.harness.catalogue import (
    CATALOGUE,
    DTYPES,
    activation_source,
    cast_source,
    update_source,
)
from tests.support.harness.host_module import kernel_names

pytestmark = pytest.mark.slow
ARCHITECTURES = (80, 90, 100)  # Ampere, Hopper, Blackwell
OF_ALL = ("bfloat16", "int32")  # the type with the most headers, and that of labels
NARROW = ("float32", "bfloat16", "float16")  # arithmetic is in float32
FOR_ALL = {
    "silu", "softmax", "huber of values", "softmax_cross_entropy of labels", "penalty elastic_net",
    "update by adamw", "gather", "reduce", "round", "average", "orthogonal", "step",
    "cast from uint8", "layer norm", "batch norm", "whole batch norm", "gate of silu", "dropout",
    "embedding",
}  # fmt: skip
CEILINGS = Path(__file__).parents[1] / "resources" / "registers.json"
SOURCES = [(dtype, name) for dtype, named in CATALOGUE.items() for name in named]
# the function of an activation, a loss of values or an update in another kernel
VARIANTS = [name for name in CATALOGUE["bfloat16"] if re.search("gate|labels|with", name)]


def generations(dtype: str, name: str) -> list[int]:
    """The architectures that a source is compiled for: all, if it stands for its file."""
    place = crc32(name.encode())
    one = [ARCHITECTURES[(place + list(CATALOGUE).index(dtype)) % len(ARCHITECTURES)]]
    if name in FOR_ALL:
        return list(ARCHITECTURES) if dtype in OF_ALL else one
    if dtype == "float64":
        return [] if name in VARIANTS else one
    plain = name not in VARIANTS and any(name.removesuffix(" of values") in v for v in VARIANTS)
    kinds = [kind for kind in NARROW if name in CATALOGUE[kind]]
    return one if dtype == kinds[place % len(kinds)] and not plain else []


@cache
def everything() -> dict[tuple[str, str, int], dict[str, dict[str, int]]]:
    """(dtype, name, architecture) -> kernel -> resources."""
    keys = [(*source, arch) for source in SOURCES for arch in generations(*source)]

    def one(key: tuple[str, str, int]) -> dict[str, dict[str, int]]:
        dtype, name, arch = key
        return nvrtc.resources(CATALOGUE[dtype][name], arch)

    with ThreadPoolExecutor(2) as pool:  # ctypes releases the interpreter's lock
        return dict(zip(keys, pool.map(one, keys), strict=True))


def registers() -> dict[str, int]:
    """File, kernel and dtype -> the largest register count over functions and architectures."""
    most: dict[str, int] = {}
    for (dtype, name, _), table in everything().items():
        for kernel, used in table.items():
            key = f"{CATALOGUE[dtype][name].file} {kernel} {dtype}"
            most[key] = max(most.get(key, 0), used["registers"])
    return dict(sorted(most.items()))


def test_each_file_is_compiled_in_all_types_and_each_function_in_two() -> None:
    files, types = defaultdict(set), defaultdict(set)
    for dtype, name in SOURCES:
        source, found = CATALOGUE[dtype][name], generations(dtype, name)
        files[source.file, dtype] |= set(found)
        types[source.functor] |= {dtype} if found else set()
    for (_, dtype), found in files.items():
        assert len(found) >= (len(ARCHITECTURES) if dtype in OF_ALL else 1)
    for found in types.values():
        assert "float64" in found
        assert found & set(NARROW)


def test_every_kernel_compiles() -> None:
    for (dtype, name, _), table in everything().items():
        assert sorted(table) == sorted(kernel_names(CATALOGUE[dtype][name]))


@pytest.mark.parametrize("dtype", ["float64", "float32", "int32"])
def test_toolkit_headers_only_for_16_bit_types(dtype: str) -> None:
    """Sources without 16-bit types include nothing."""
    for source in CATALOGUE[dtype].values():
        if {source.slots, source.source} & {"bfloat16", "float16"}:
            assert source.headers
        else:
            assert source.headers == ()
            assert "#include" not in source.text()


def test_no_register_spills() -> None:
    """Spilled registers and stack frames cause memory traffic in the loops."""
    spilled = {
        (key, kernel): used
        for key, table in everything().items()
        for kernel, used in table.items()
        if used["spilled"] or used["stack"]
    }
    assert not spilled


def test_registers() -> None:
    committed, found = json.loads(CEILINGS.read_text()), registers()
    assert found.keys() == committed.keys()
    above = {key: (n, committed[key]) for key, n in found.items() if n > committed[key]}
    assert not above, "more registers than committed (found, committed)"


def test_shared_memory_allows_as_many_blocks_as_registers() -> None:
    """A multiprocessor of sm_80 has 164 KiB, and the system uses 1 KiB of it for each block.

    It has 65,536 registers: 8 blocks of 256 threads if a thread needs 32 of them.
    """
    for key, table in everything().items():
        for kernel, used in table.items():
            blocks = min(8, 65_536 // (256 * used["registers"]))
            assert blocks * (used["shared"] + 1024) <= 164 * 1024, (key, kernel, used)


SIZE = {"uint8": 1, "int8": 1, "int16": 2, "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
CAST_PAIRS = [(source, dtype) for source in CASTS for dtype in DTYPES if source != dtype]
VECTORS = {"float64": r"v2\.[fbu]64", "float32": r"v4\.[fbu]32"}


COLUMN_KERNELS = ("columns", "columns_gradient", "column_moments", "column_slopes")


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    ("kernel", "loads", "stores"),
    [
        ("bias_activation", 2, 2), ("activation_gradient", 2, 1),
        ("gather", 1, 1), ("begin_minibatch", 2, 2),
        ("forward", 4, 2), ("vjp", 4, 1), ("loss", 2, 0), ("loss_gradient", 2, 1),
        ("cross_entropy loss", 3, 0), ("cross_entropy loss_gradient", 5, 1),
        ("norm stage", 3, 1), ("norm stage_gradient", 3, 1),
        ("columns", 4, 1), ("columns_gradient", 6, 1),
        ("column_mean", 2, 0), ("column_moments", 3, 0), ("column_slopes", 5, 0),
        ("gate stage", 4, 2), ("gate stage_gradient", 3, 2), ("dropout", 2, 2), ("join", 2, 1),
    ],
)  # fmt: skip
def test_16_byte_accesses(kernel: str, loads: int, stores: int, dtype: str) -> None:
    catalogue, softmax = CATALOGUE[dtype], activation_source("softmax", dtype)
    cross_entropy = catalogue["softmax_cross_entropy of values"]
    huber = catalogue["huber of values"]
    source = {
        "gather": catalogue["gather"], "begin_minibatch": catalogue["step"],
        "forward": softmax, "vjp": softmax,
        "loss": huber, "loss_gradient": huber,
        "cross_entropy loss": cross_entropy, "cross_entropy loss_gradient": cross_entropy,
        "norm stage": catalogue["layer norm"], "norm stage_gradient": catalogue["layer norm"],
        **dict.fromkeys(COLUMN_KERNELS, catalogue["batch norm"]),
        "column_mean": catalogue["column rms"],
        "gate stage": catalogue["gate of silu"], "gate stage_gradient": catalogue["gate of silu"],
        "dropout": catalogue["dropout"], "join": catalogue["dropout"],
    }.get(kernel, activation_source("silu", dtype))  # fmt: skip
    vector = VECTORS.get(dtype, r"v4\.[fbu]32")
    body = function(nvrtc.ptx(source, 90), kernel.split()[-1])
    assert len(re.findall(rf"ld\.global\.{vector}", body)) >= loads
    assert len(re.findall(rf"st\.global\.(?:{vector}|v4\.u32)", body)) >= stores


OVER_THETA = [
    ("update", "update by adam"), ("penalty", "penalty elastic_net"),
    ("clip", "penalty elastic_net"), ("average", "average"), ("add", "reduce"),
    ("round_theta", "round"),
]  # fmt: skip
OVER_SPLIT_THETA = [
    ("update", "update by adam with a remainder"), ("clip", "penalty elastic_net with a remainder"),
    ("average", "average with a remainder"), ("split_theta", "round"), ("restore_theta", "round"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "kernel", "name"),
    [(dtype, *case) for dtype in DTYPES for case in OVER_THETA]
    + [("bfloat16", *case) for case in OVER_SPLIT_THETA],
)
def test_stores_of_a_warp_are_whole_sectors(dtype: str, kernel: str, name: str) -> None:
    """Threads take as many entries as 16 bytes of θ have, and no two accesses to an array.

    So neighbouring threads access neighbouring bytes, also of arrays in the storage type.
    """
    real, body = SIZE[dtype], function(nvrtc.ptx(CATALOGUE[dtype][name], 90), kernel)
    wide = 16 // max(real, 4)
    vectors = re.findall(r"(?:ld|st)\.global\.v(\d)\.[a-z](\d+)", body)
    assert {int(count) * int(bits) // 8 for count, bits in vectors} <= {16, wide * real}
    addresses = re.findall(r"(ld|st)\.global\.v\d\.[a-z]\d+ [^\n]*\[(%rd\d+)(?:\+\d+)?\]", body)
    assert len(set(addresses)) == len(addresses) > 0


@pytest.mark.parametrize(("source", "dtype"), CAST_PAIRS)
def test_16_byte_accesses_of_casts(source: str, dtype: str) -> None:
    """The wider type has 16-byte accesses.  Single accesses are only for the rest."""
    body = function(nvrtc.ptx(cast_source(source, dtype), 90), "cast")
    each = 16 // max(SIZE[source], SIZE[dtype])
    for access, size in (("ld", SIZE[source]), ("st", SIZE[dtype])):
        accesses = re.findall(rf"{access}\.global\.(?:v(\d)\.)?[a-z](\d+)", body)
        widths = {int(count or 1) * int(bits) // 8 for count, bits in accesses}
        assert widths == {size, each * size}


BYTES = {  # of an AdamW step for one parameter: θ, two slots, dθ, and the 16-bit copy of θ
    ("float64", ""): 3 * 16 + 8,
    ("float32", ""): 3 * 8 + 4,
    ("bfloat16", ""): 3 * 8 + 2 + 2,
    ("float16", ""): 3 * 8 + 2 + 2,
    ("bfloat16", "bfloat16"): 8 + 2 * 4 + 2 + 2,
}


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(
    ("dtype", "slots", "remainder"),
    [*((*key, False) for key in BYTES), *(("bfloat16", kind, True) for kind in ("", "bfloat16"))],
)
def test_update_accesses_each_byte_once(
    dtype: str, slots: str, remainder: bool, grouped: bool
) -> None:
    """Counts accesses of more than an entry in its only loop.  Rows of groups are scalar accesses.

    Of θ in two parts, both are read and written: 8 bytes in place of 8 and 2.
    """
    source = update_source("adamw", dtype, slots, grouped=grouped, remainder=remainder)
    body = function(nvrtc.ptx(source, 90), "update")
    moved = 0
    for count, bits in re.findall(r"(?:ld|st)\.global\.(?:v(\d)\.[a-z](\d+)|u64)", body):
        moved += int(count or 1) * int(bits or 64) // 8
    assert moved == 16 // max(4, SIZE[dtype]) * (BYTES[dtype, slots] - 2 * remainder)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_tanh_by_one_instruction_in_bfloat16_only(name: str, dtype: str) -> None:
    """Its error of 2⁻¹¹ is below bfloat16's rounding, but not below that of the other types."""
    ptx = nvrtc.ptx(activation_source(name, dtype), 80)
    assert ("tanh.approx.f32" in ptx) == (dtype == "bfloat16")


def test_control_is_read_once() -> None:
    """The loop of the update reads no double: its numbers are in registers."""
    body = function(nvrtc.ptx(update_source("adamw", "float32"), 90), "update")
    loop = body[body.index("ld.global.v4.f32") :]
    assert ".f64" not in loop


def function(ptx: str, name: str) -> str:
    """The PTX of one kernel."""
    return ptx.split(f".entry {name}(")[1].split(".entry")[0]


def test_compile_error_names_file_and_line() -> None:
    broken = KernelSource("activation.cu", "float32", "__device__ real f(real z) { return z; }\n")
    with pytest.raises(nvrtc.CompileError, match=r'activation.cu\(\d+\).*"df" is undefined'):
        nvrtc.resources(broken, 90)


if __name__ == "__main__":
    print(json.dumps(registers(), indent=2))
