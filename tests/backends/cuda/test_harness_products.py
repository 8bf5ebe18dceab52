"""Products of the CPU harness: their results, and errors where cublasLt refuses."""

import ml_dtypes
import numpy as np
import pytest

from gpumlp.backends.cuda.protocol import Epilogue, mask_shape
from tests.support.harness.host_device import HostArray, HostDevice
from tests.support.harness.host_module import KernelError
from tests.support.harness.memory import aligned, unaligned

BF16 = np.dtype(ml_dtypes.bfloat16)


def placed(rng, shape, kind="float32"):
    return HostArray(aligned(rng.normal(size=shape), kind))


def zeros(shape, kind="float32", place=aligned):
    return HostArray(place(np.zeros(shape, kind)))


@pytest.mark.parametrize(("kind", "compute"), [(BF16, "bfloat16"), (np.float16, "float16")])
def test_16_bit_inputs_are_summed_in_float32(rng, kind, compute):
    a, b = placed(rng, (4, 3000), kind), placed(rng, (3000, 8), kind)
    want = a.values.astype(np.float64) @ b.values.astype(np.float64)
    for out in (zeros((4, 8)), zeros((4, 8), kind)):
        assert HostDevice().gemm(a, b, out, compute=compute)
        eps = float(ml_dtypes.finfo(out.dtype).eps)
        np.testing.assert_allclose(out.values, want, rtol=eps, atol=2e-4)


def test_factors_accumulate(rng):
    a, b, out = placed(rng, (4, 5)), placed(rng, (5, 8)), placed(rng, (4, 8))
    before, factors = out.values.copy(), HostArray(aligned([-0.5, 0.75], "float32"))
    device = HostDevice()
    device.gemm(a, b, out, compute="float32", factors=factors)
    want = -0.5 * (a.values @ b.values) + 0.75 * before
    np.testing.assert_allclose(out.values, want, rtol=1e-6, atol=1e-6)
    assert device.calls == ["gemm NN 4 8 5 float32 factors"]
    out.values[...] = np.nan
    factors.values[...] = 1, 0
    device.gemm(a, b, out, compute="float32", factors=factors)
    np.testing.assert_array_equal(out.values, a.values @ b.values)


def epilogue(name, bias=None, aux=None, n=16):
    return Epilogue(name, zeros(n) if bias is None else bias, aux)


INVALID = {
    "k of 1": (1, epilogue("drelu_bgrad", aux=zeros(mask_shape(3, 16), np.uint8))),
    "k of 1 for gelu": (1, epilogue("dgelu_bgrad", aux=zeros((3, 16)))),
    "a mask's rows": (4, epilogue("relu_aux_bias", aux=zeros((3, 2), np.uint8))),
    "a mask's dtype": (4, epilogue("relu_aux_bias", aux=zeros((3, 16)))),
    "a mask of fewer rows": (4, epilogue("relu_aux_bias", aux=zeros((2, 16), np.uint8))),
    "gelu's aux in other bits": (4, epilogue("gelu_aux_bias", aux=zeros((3, 16), np.float16))),
    "no aux": (4, epilogue("gelu_aux_bias")),
    "an unneeded aux": (4, epilogue("gelu_bias", aux=zeros((3, 16)))),
    "the bias's dtype": (4, epilogue("bias", zeros(16, np.float16))),
    "the bias's length": (4, epilogue("bias", zeros(15))),
    "the bias's address": (4, epilogue("bias", zeros(16, place=unaligned))),
    "aux's address": (4, epilogue("gelu_aux_bias", aux=zeros((3, 16), place=unaligned))),
}


@pytest.mark.parametrize("what", INVALID)
def test_invalid_epilogues_raise(rng, what):
    k, wrong = INVALID[what]
    a, b, out = placed(rng, (3, k)), placed(rng, (k, 16)), zeros((3, 16))
    with pytest.raises(KernelError, match=f"gemm NN 3 16 {k} float32"):
        HostDevice().gemm(a, b, out, compute="float32", epilogue=wrong, fallback=lambda: None)


def test_aux_overlapping_result_raises(rng):
    a, b, out = placed(rng, (3, 4)), placed(rng, (4, 16)), zeros((3, 16))
    wrong = epilogue("gelu_aux_bias", aux=out)
    with pytest.raises(KernelError, match="overlaps the result"):
        HostDevice().gemm(a, b, out, compute="float32", epilogue=wrong, fallback=lambda: None)


@pytest.mark.parametrize(
    ("kinds", "compute"),
    [
        (("float32", "float32", BF16), "bfloat16"),
        ((BF16, "float32", BF16), "bfloat16"),
        ((BF16, BF16, np.float16), "bfloat16"),
        (("float32", "float32", "float64"), "float32"),
        ((BF16, BF16, BF16), "float32"),
        (("float64", "float64", "float64"), "tf32"),
    ],
)
def test_invalid_types_raise(rng, kinds, compute):
    arrays = [placed(rng, s, kind) for s, kind in zip([(3, 4), (4, 8), (3, 8)], kinds, strict=True)]
    with pytest.raises(KernelError, match="computed in"):
        HostDevice().gemm(*arrays, compute=compute)


def test_no_epilogue_in_float64(rng):
    a, b, out = (placed(rng, s, "float64") for s in [(3, 4), (4, 16), (3, 16)])
    with pytest.raises(KernelError, match="no epilogue computes in float64"):
        HostDevice().gemm(
            a, b, out, compute="float64", epilogue=epilogue("bias", zeros(16, "float64")),
            fallback=lambda: None,
        )  # fmt: skip


def test_batches(rng):
    """Each member as if alone; the padding between members of the result is left."""
    a, b = placed(rng, (3, 5, 4)), placed(rng, (3, 5, 8))
    whole = zeros((3, 40))
    out, device = whole[:, :32].reshape(3, 4, 8), HostDevice()
    device.gemm(a, b, out, transpose_a=True, compute="float32")
    assert device.calls == ["gemm TN 4 8 5 float32 batch of 3"]
    for one, left, right in zip(out.values, a.values, b.values, strict=True):
        np.testing.assert_array_equal(one, left.T @ right)
    assert not whole.values[:, 32:].any()


@pytest.mark.parametrize("name", ["relu_aux_bias", "gelu_aux_bias", "dgelu_bgrad"])
def test_batches_with_epilogues(rng, name):
    """Biases are views of θ, far apart."""
    a, b, device = placed(rng, (3, 4, 5)), placed(rng, (3, 5, 16)), HostDevice()
    theta, out = placed(rng, (3, 100)), zeros((3, 4, 16))
    bias = theta[:, 64:80]
    relu = "relu" in name and "d" not in name[:1]
    aux = zeros((3, *mask_shape(4, 16)), np.uint8) if relu else placed(rng, (3, 4, 16))
    before = bias.values.copy(), aux.values.copy()
    device.gemm(
        a, b, out, compute="float32", epilogue=Epilogue(name, bias, aux), fallback=lambda: None
    )
    for i in range(3):
        own_bias, own_aux = HostArray(aligned(before[0][i])), HostArray(aligned(before[1][i]))
        one = zeros((4, 16))
        HostDevice().gemm(
            HostArray(aligned(a.values[i])), HostArray(aligned(b.values[i])), one,
            compute="float32", epilogue=Epilogue(name, own_bias, own_aux), fallback=lambda: None,
        )  # fmt: skip
        np.testing.assert_array_equal(out.values[i], one.values)
        np.testing.assert_array_equal(bias.values[i], own_bias.values)
        np.testing.assert_array_equal(aux.values[i], own_aux.values)


def test_invalid_batches_raise(rng):
    a, b, out = placed(rng, (3, 4, 4)), placed(rng, (3, 4, 16)), zeros((3, 4, 16))
    for bias in (zeros((2, 16)), zeros(16)):
        with pytest.raises(KernelError, match="an epilogue of another batch"):
            HostDevice().gemm(
                a, b, out, compute="float32", epilogue=epilogue("bias", bias),
                fallback=lambda: None,
            )  # fmt: skip
    with pytest.raises(KernelError, match=r"a batch of \(2, 4, 4\)"):
        HostDevice().gemm(a[:2], b, out, compute="float32")
    with pytest.raises(KernelError, match="overlaps an input"):
        HostDevice().gemm(a, a, a, compute="float32")
    one = np.lib.stride_tricks.as_strided(out.values, strides=(128, 64, 4))
    with pytest.raises(KernelError, match="members of the batch overlap"):
        HostDevice().gemm(a, b, HostArray(one), compute="float32")


@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_invalid_factors_raise(rng, kind):
    a, b, out = placed(rng, (3, 4)), placed(rng, (4, 16)), zeros((3, 16))
    more = {"epilogue": epilogue("bias"), "fallback": lambda: None} if kind == "float32" else {}
    with pytest.raises(KernelError, match="with factors"):
        HostDevice().gemm(a, b, out, compute="float32", factors=zeros(2, kind), **more)
