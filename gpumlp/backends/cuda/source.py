"""Kernel sources: a file of `kernels/` with types and an entry's device functions put above it.

The text is self-contained: includes are inlined, because CuPy's disk cache hashes the text alone
and would not notice an edited header.  One text serves NVRTC and, in the tests, a C++ compiler.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

# storage type -> its CUDA name, the type of arithmetic, and the toolkit's header it needs
TYPES = {
    "float64": ("double", "double", ""),
    "float32": ("float", "float", ""),
    "bfloat16": ("__nv_bfloat16", "float", "cuda_bf16.h"),
    "float16": ("__half", "float", "cuda_fp16.h"),
    "int32": ("int", "float", ""),
    "int16": ("short", "float", ""),
    "int8": ("signed char", "float", ""),
    "uint8": ("unsigned char", "float", ""),
}
# what cast.cu casts from
CASTS = ("uint8", "int8", "int16", "float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class KernelSource:
    """What a kernel is compiled from; equal sources are compiled once.

    Attributes:
        file: in `kernels/`, such as "activation.cu".
        dtype: the storage type T.
        functor: CUDA source of the device functions that the file asks for.
        labels: y holds integer labels, not values.
        slots: the type of an optimizer's state; "" is that of arithmetic.
        gradient: the type of dθ; "" is the storage type.
        source: the type that cast.cu casts from.
        grouped: update.cu's learning rate and weight decay differ from region to region of θ.
    """

    file: str
    dtype: str
    functor: str = ""
    labels: bool = False
    slots: str = ""
    gradient: str = ""
    source: str = ""
    grouped: bool = False

    @property
    def headers(self) -> tuple[str, ...]:
        """The toolkit's headers that the types need."""
        named = {TYPES[dtype][2] for dtype in (self.dtype, self.slots, self.source) if dtype}
        return tuple(sorted(named - {""}))

    def text(self) -> str:
        """The whole CUDA C++ source."""
        storage, arithmetic, _ = TYPES[self.dtype]
        slots = TYPES[self.slots][0] if self.slots else "real"
        include = "".join(f"#include <{header}>\n" for header in self.headers)
        return (
            f"{include}typedef {storage} T;\ntypedef {arithmetic} real;\n"
            f"typedef {'int' if self.labels else 'real'} Y;\n"
            f"typedef {slots} Slot;\nenum {{ GROUPED = {int(self.grouped)} }};\n"
            f"typedef {TYPES[self.gradient or self.dtype][0]} Grad;\n{self._cast()}"
            f"{_inlined('common.cuh')}\n{self.functor}\n"
            + "".join(_inlined(name) for name in _includes(self.file) if name != "common.cuh")
            + _inlined(self.file)
        )

    def _cast(self) -> str:
        """The types of cast.cu."""
        if not self.source:
            return ""
        source, wide, _ = TYPES[self.source]
        if self.dtype == "bfloat16":  # which ml_dtypes reaches from double by way of float
            wide = "float"
        return f"typedef {source} Source;\ntypedef {wide} Wide;\n"


@cache
def _read(name: str) -> str:
    return (files("gpumlp.kernels") / name).read_text(encoding="utf-8")


@cache
def _includes(name: str) -> tuple[str, ...]:
    return tuple(re.findall(r'^#include "(.+)"$', _read(name), re.MULTILINE))


@cache
def _inlined(name: str) -> str:
    """A file without its includes of ours and #pragma once; #line keeps messages readable."""
    text = re.sub(r'^(#include ".+"|#pragma once)$', "", _read(name), flags=re.MULTILINE)
    return f'#line 1 "{name}"\n{text}'
