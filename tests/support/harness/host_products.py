"""Products of `HostDevice`: NumPy's, with the epilogues and the refusals of cublasLt."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends.cuda.plans import Gemm
from gpumlp.backends.cuda.protocol import Epilogue
from tests.support.harness import epilogues
from tests.support.harness.host_module import KernelError

Host = npt.NDArray[Any]


@cache  # NumPy makes the name anew each time
def name_of(dtype: np.dtype[Any]) -> str:
    """The name of a dtype."""
    return dtype.name


def multiply(
    gemm: Gemm, a: Host, b: Host, out: Host, factors: Host | None, epilogue: Epilogue | None
) -> None:
    """out ← op(a) op(b), with factors or an epilogue.  Raises KernelError where cublasLt would.

    A batch has a leading dimension, and each of its products is computed as if it were alone.
    """
    if out.ndim == 3:
        _check_batch(gemm, a, b, out, epilogue)
        for i, member in enumerate(zip(a, b, out, strict=True)):
            own = epilogue and Epilogue(
                epilogue.name, epilogue.bias[i], None if epilogue.aux is None else epilogue.aux[i]
            )
            multiply(gemm, *member, factors, own)
        return
    _check_product(gemm, a, b, out)
    wide = np.float64 if gemm.compute == "float64" else np.float32
    left, right = a.astype(wide, copy=False), b.astype(wide, copy=False)
    s = (left.T if gemm.transpose_a else left) @ (right.T if gemm.transpose_b else right)
    if factors is not None:
        out[...] = _scaled(gemm, factors, s, out)
    elif epilogue is not None:
        out[...] = _with_epilogue(gemm, epilogue, s, out)
    else:
        out[...] = s


def _check_product(gemm: Gemm, a: Host, b: Host, out: Host) -> None:
    """Raise for operands that cublasLt refuses, or for which its result is undefined."""
    if any(x.ndim != 2 or not x.flags.c_contiguous for x in (a, out)):
        raise KernelError("gemm needs contiguous matrices")
    columns = gemm.row > b.shape[1] and b.strides == (gemm.row * b.itemsize, b.itemsize)
    if b.ndim != 2 or not (b.flags.c_contiguous if gemm.row == 0 else columns):
        raise KernelError(f"gemm needs b with rows of {gemm.row or b.shape[1]}")
    inputs = "float32" if gemm.compute == "tf32" else gemm.compute
    results = {inputs, "float32"} if inputs in ("bfloat16", "float16") else {inputs}
    names = [name_of(x.dtype) for x in (a, b, out)]
    if set(names[:2]) != {inputs} or names[2] not in results:
        raise KernelError(f"gemm of {names} computed in {gemm.compute}")
    if any(np.may_share_memory(x, out) for x in (a, b)):
        raise KernelError("gemm's result overlaps an input")
    op_a = a.shape[::-1] if gemm.transpose_a else a.shape
    op_b = b.shape[::-1] if gemm.transpose_b else b.shape
    if (op_a[0], op_b[1]) != out.shape or op_a[1] != op_b[0]:
        raise KernelError(f"gemm {gemm.letters} of {a.shape} and {b.shape} into {out.shape}")


def _check_batch(gemm: Gemm, a: Host, b: Host, out: Host, epilogue: Epilogue | None) -> None:
    """Raise for a batch that cublasLt's strides do not describe, or that writes what it reads."""
    of_epilogue = [each for each in (epilogue and epilogue.bias, epilogue and epilogue.aux) if each]
    if any(len(each) != len(out) for each in of_epilogue):
        raise KernelError(f"gemm {gemm}: an epilogue of another batch")
    bits = [8 if each.dtype == np.uint8 else 1 for each in of_epilogue]
    apart = [
        each.strides[0] // each.itemsize * n for each, n in zip(of_epilogue, bits, strict=True)
    ]
    if len(out) > 1 and list(gemm.apart[: len(apart)]) != apart:
        raise KernelError(f"gemm {gemm}: an epilogue's arrays at strides {apart}")
    if {x.ndim for x in (a, b, out)} != {3} or len({len(x) for x in (a, b, out)}) > 1:
        raise KernelError(f"a batch of {a.shape} and {b.shape} into {out.shape}")
    if len(out) > 1:
        strides = tuple(x.strides[0] // x.itemsize for x in (a, b, out))
        if (gemm.batch, gemm.strides) != (len(out), strides):
            raise KernelError(f"gemm {gemm}: a batch of {len(out)} at strides {strides}")
        if any(x.strides[0] < x[0].nbytes for x in (a, b, out)):
            raise KernelError(f"gemm {gemm}: members of the batch overlap")
    if any(np.may_share_memory(x, out) for x in (a, b)):
        raise KernelError("gemm's result overlaps an input")


def _scaled(gemm: Gemm, factors: Host, s: Host, out: Host) -> Host:
    if gemm.epilogue or factors.shape != (2,) or factors.dtype.name != gemm.scale:
        raise KernelError(f"gemm with factors {factors.shape} {factors.dtype}, {gemm}")
    scaled: Host = factors[0] * s  # if beta is 0, cublasLt does not read out
    return scaled + factors[1] * out.astype(s.dtype) if factors[1] else scaled


def _with_epilogue(gemm: Gemm, epilogue: Epilogue, s: Host, out: Host) -> Host:
    bias, aux = epilogue.bias.values, epilogue.aux and epilogue.aux.values
    needs = "aux" in epilogue.name or epilogue.name.startswith("d")
    kind = np.dtype("uint8") if "relu" in epilogue.name else out.dtype
    reason = epilogues.refusal(epilogue.name, gemm.n, gemm.k, out.dtype, gemm.aux)
    if (aux is not None) != needs or (needs and (len(aux), aux.dtype) != (gemm.m, kind)):
        reason = "aux is missing, not needed, or of the wrong shape or dtype"
    if bias.shape != (gemm.n,) or bias.dtype != out.dtype:
        reason = f"bias is {bias.shape} {bias.dtype}"
    if any(x.ctypes.data % 16 for x in (out, bias, *([] if aux is None else [aux]))):
        reason = "an array is not aligned"
    if any(np.may_share_memory(out, x) for x in (bias, aux) if x is not None):
        reason = "an array overlaps the result"
    if reason:
        raise KernelError(f"gemm {gemm}: {reason}")
    return epilogues.apply(epilogue.name, s, bias, aux)
