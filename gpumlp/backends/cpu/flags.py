"""How the CPU backend's library is compiled, and for which processors."""

from __future__ import annotations

import platform
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

# not -ffast-math, with which NaN and inf would be lost
FLAGS = (
    "-std=c++17", "-g0", "-fPIC", "-fvisibility=hidden", "-pthread", "-fno-math-errno",
    "-fno-trapping-math", "-ffp-contract=fast", "-Wno-unused-parameter",
)  # fmt: skip


class InstructionSet(NamedTuple):
    """The compiler's flags, and what the processor needs, in NumPy's words."""

    flags: tuple[str, ...] = ("-O3",)
    features: tuple[str, ...] = ()

    def usable(self) -> bool:
        """Whether this machine's processor has it."""
        found = import_module("numpy._core._multiarray_umath").__cpu_features__
        return all(found.get(each) or each in _of_the_kernel() for each in self.features)


@cache
def _of_the_kernel() -> frozenset[str]:
    """The features that Linux names: NumPy does not name AVX512_BF16."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    flags = (line for line in text.splitlines() if line.startswith("flags"))
    return frozenset(next(flags, "").split())


BFLOAT16 = "avx512_bf16"
"""The instruction set with products of bfloat16, as Linux names it."""
AVX512 = InstructionSet(
    ("-O3", "-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx512cd", "-mfma",
     "-mprefer-vector-width=512"),
    ("AVX512_SKX", "FMA3"),
)  # fmt: skip
X86 = {
    BFLOAT16: InstructionSet((*AVX512.flags, "-mavx512bf16"), (*AVX512.features, BFLOAT16)),
    "avx512": AVX512,
    "avx2": InstructionSet(("-O3", "-mavx2", "-mfma"), ("AVX2", "FMA3")),
    "baseline": InstructionSet(("-O2",)),  # of processors before 2013: it compiles in less time
}  # fmt: skip
INSTRUCTION_SETS = (
    X86 if platform.machine() in ("x86_64", "AMD64") else {"baseline": InstructionSet()}
)
"""By name, the best first."""
