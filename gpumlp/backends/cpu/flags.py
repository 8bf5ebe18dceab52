"""How the CPU backend's library is compiled, and for which processors."""

from __future__ import annotations

import ctypes
import platform
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

# Not -ffast-math, with which NaN and inf would be lost.  In GNU's C++, GCC joins a product and a
# sum to one instruction wherever it can, and clang within an expression.  By -ffp-contract=fast,
# clang joins them in some copies of a loop and not in others, so that bits depend on the threads.
FLAGS = (
    "-std=gnu++17", "-g0", "-fPIC", "-fvisibility=hidden", "-pthread", "-fno-math-errno",
    "-fno-trapping-math", "-Wno-unused-parameter",
)  # fmt: skip


class InstructionSet(NamedTuple):
    """The compiler's flags, and what the processor needs, in NumPy's words."""

    flags: tuple[str, ...] = ("-O3",)
    features: tuple[str, ...] = ()

    def usable(self) -> bool:
        """Whether this machine's processor has it."""
        found = import_module("numpy._core._multiarray_umath").__cpu_features__
        of_linux = cpuinfo().get("flags", "").split()
        there = all(found.get(each) or each in of_linux for each in self.features)
        return there and (AMX not in self.features or _may_use_tiles())

    @property
    def has_wide_vectors(self) -> bool:
        """Whether it is AVX-512, with more or without."""
        return "-mavx512f" in self.flags

    @property
    def has_bfloat16(self) -> bool:
        """Whether it has products of bfloat16."""
        return "-mavx512bf16" in self.flags


@cache
def cpuinfo() -> dict[str, str]:
    """What Linux says about the first core; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _may_use_tiles() -> bool:
    """Ask Linux for AMX's registers of 8 KiB, which a process has only by permission."""
    arch_prctl, request, tile_data = 158, 0x1023, 18
    return bool(ctypes.CDLL(None).syscall(arch_prctl, request, tile_data) == 0)


# as Linux names them: NumPy does not
BFLOAT16, AMX = "avx512_bf16", "amx_bf16"
AVX512 = InstructionSet(
    ("-O3", "-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx512cd", "-mfma",
     "-mprefer-vector-width=512"),
    ("AVX512_SKX", "FMA3"),
)  # fmt: skip
AVX512_BFLOAT16 = InstructionSet((*AVX512.flags, "-mavx512bf16"), (*AVX512.features, BFLOAT16))
X86 = {
    "amx": InstructionSet(
        (*AVX512_BFLOAT16.flags, "-mamx-tile", "-mamx-bf16"), (*AVX512_BFLOAT16.features, AMX)
    ),
    BFLOAT16: AVX512_BFLOAT16,
    "avx512": AVX512,
    "avx2": InstructionSet(("-O3", "-mavx2", "-mfma"), ("AVX2", "FMA3")),
    "baseline": InstructionSet(("-O2",)),  # of processors before 2013: it compiles in less time
}  # fmt: skip
INSTRUCTION_SETS = (
    X86 if platform.machine() in ("x86_64", "AMD64") else {"baseline": InstructionSet()}
)
"""By name, the best first."""
