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
        of_linux = cpuinfo().get("flags", "").split()
        return all(found.get(each) or each in of_linux for each in self.features)


@cache
def cpuinfo() -> dict[str, str]:
    """What Linux says about the first core; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


BFLOAT16 = "avx512_bf16"
"""The instruction set with products of bfloat16, as Linux names it: NumPy does not."""
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
