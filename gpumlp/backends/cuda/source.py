"""The source text of CUDA kernels: types, device functions of an entry, and a file of `kernels/`.

The text is self-contained.  Includes of our own are inlined, because CuPy's disk cache hashes only
the text and would not notice an edited header.  NVRTC compiles the text; in tests, a C++ compiler
does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from gpumlp.errors import DeviceError

# storage type -> its CUDA name, the type of arithmetic, and the CUDA toolkit's header it needs
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
# the types that cast.cu can read
CASTS = ("uint8", "int8", "int16", "float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class KernelSource:
    """The source of one or more kernels.  Equal sources are compiled once.

    Attributes:
        file: a file of `kernels/`, such as "activation.cu".
        functor: CUDA source of the device functions that the file calls.
        labels: y holds integer labels instead of values.
        wide: x has the type of arithmetic instead of the storage type.
        slots: the type of the optimizer's slots; "" is the type of arithmetic.
        gradient: the type of dθ; "" is the storage type.
        source: the type that cast.cu reads.
        grouped: in update.cu, the learning rate and the weight decay depend on the region of θ.
        remainder: θ is split into 16 bits and a remainder, see theta.cuh.
    """

    file: str
    dtype: str
    functor: str = ""
    labels: bool = False
    slots: str = ""
    gradient: str = ""
    source: str = ""
    grouped: bool = False
    remainder: bool = False
    wide: bool = False

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers of the CUDA toolkit that the types need."""
        named = {TYPES[dtype][2] for dtype in (self.dtype, self.slots, self.source) if dtype}
        return tuple(sorted(named - {""}))

    def text(self) -> str:
        """The complete CUDA C++ source."""
        storage, arithmetic, _ = TYPES[self.dtype]
        slots = TYPES[self.slots][0] if self.slots else "real"
        include = "".join(f"#include <{header}>\n" for header in self.headers)
        return (
            f"{include}typedef {storage} T;\ntypedef {arithmetic} real;\n"
            f"typedef {'int' if self.labels else 'real'} Y;\n"
            f"typedef {'real' if self.wide else 'T'} X;\n"
            f"typedef {slots} Slot;\nenum {{ GROUPED = {int(self.grouped)} }};\n"
            f"typedef {TYPES[self.gradient or self.dtype][0]} Grad;\n"
            f"typedef {'short' if self.remainder else 'real'} Theta;\n{self._cast()}"
            f"{_inlined('common.cuh')}\n{self.functor}\n"
            + "".join(_inlined(name) for name in _includes(self.file) if name != "common.cuh")
            + _inlined(self.file)
        )

    def _cast(self) -> str:
        """The types of cast.cu."""
        if not self.source:
            return ""
        source, wide, _ = TYPES[self.source]
        if self.dtype == "bfloat16":  # ml_dtypes casts double to bfloat16 by way of float
            wide = "float"
        return f"typedef {source} Source;\ntypedef {wide} Wide;\n"


@cache
def _read(name: str) -> str:
    """The text of a file of `kernels/`.  A checkout has it only where gpumlp is installed."""
    try:
        return (files("gpumlp.kernels") / name).read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise DeviceError(
            f"the CUDA source {name} is not installed; in a checkout of gpumlp, run `pip install "
            "-e .`, elsewhere `pip install --force-reinstall gpumlp`"
        ) from error


@cache
def _includes(name: str) -> tuple[str, ...]:
    return tuple(re.findall(r'^#include "(.+)"$', _read(name), re.MULTILINE))


@cache
def _inlined(name: str) -> str:
    """A file without #pragma once and our own includes.  #line keeps compiler messages readable."""
    text = re.sub(r'^(#include ".+"|#pragma once)$', "", _read(name), flags=re.MULTILINE)
    return f'#line 1 "{name}"\n{text}'


def dtype_of(name: str) -> np.dtype[Any]:
    """The NumPy dtype called `name`.  bfloat16 comes from ml_dtypes, because NumPy lacks it.

    Raises:
        DeviceError: `name` is bfloat16 and ml_dtypes is not installed.
    """
    if name != "bfloat16":
        return np.dtype(name)
    try:
        from ml_dtypes import bfloat16
    except ImportError as error:
        raise DeviceError("bfloat16 needs ml_dtypes: pip install ml_dtypes") from error
    dtype: np.dtype[Any] = np.dtype(bfloat16)
    return dtype
