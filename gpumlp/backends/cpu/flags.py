"""How the CPU backend's library is compiled, and for which processors."""

from __future__ import annotations

import platform
from importlib import import_module
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
        return all(found.get(each) for each in self.features)


X86 = {
    "avx512": InstructionSet(
        ("-O3", "-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx512cd", "-mfma",
         "-mprefer-vector-width=512"),
        ("AVX512_SKX", "FMA3"),
    ),
    "avx2": InstructionSet(("-O3", "-mavx2", "-mfma"), ("AVX2", "FMA3")),
    "baseline": InstructionSet(("-O2",)),  # of processors before 2013: it compiles in less time
}  # fmt: skip
INSTRUCTION_SETS = (
    X86 if platform.machine() in ("x86_64", "AMD64") else {"baseline": InstructionSet()}
)
"""By name, the best first."""
