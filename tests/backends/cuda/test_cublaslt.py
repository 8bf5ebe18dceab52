"""Plans of products: descriptors, layouts and arguments, against NumPy's product."""

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda.cache import TuningCache
from gpumlp.backends.cuda.cublaslt import Blas
from gpumlp.backends.cuda.plans import COMPUTE_TYPE, EPILOGUE, WORKSPACE_BYTES, Gemm, Plan
from gpumlp.backends.cuda.protocol import Epilogue, mask_shape
from gpumlp.backends.cuda.tuning import Tuner
from tests.support.fake_cublaslt import FakeCublasLt
from tests.support.harness import epilogues
from tests.support.harness.memory import aligned, aligned_empty
from tests.support.products import Product, dtype

SHAPES = [(1, 1, 1), (5, 7, 3), (256, 10, 784), (1, 33, 2), (31, 1, 8)]
NARROW = ("bfloat16", "float16")


def blas(lt, stream=0, workspace=0, fuse=True):
    tuner = Tuner(None, TuningCache({"device": "test"}), lt.cuBLASLtError, lambda gemm: fuse)
    tuner.comparing = False
    return Blas(lt, stream, workspace, tuner)


@pytest.mark.parametrize("compute", COMPUTE_TYPE)
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_plan_describes_product(m, n, k, transpose_a, transpose_b, compute):
    lt = FakeCublasLt()
    product = Product(m, n, k, transpose_a, transpose_b, compute)
    assert product.on(blas(lt, 5, 4096))
    product.check(product.exact)
    [call] = lt.calls
    assert call["alpha"] > 0
    assert call | {"alpha": 0} == {
        "algo": 70, "workspace": 4096, "workspace_size": WORKSPACE_BYTES, "stream": 5, "alpha": 0,
        "compute": COMPUTE_TYPE[compute], "epilogue": 1, "pointer_mode": 0,
    }  # fmt: skip


@pytest.mark.parametrize("compute", COMPUTE_TYPE)
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
def test_plan_describes_a_batch(transpose_a, transpose_b, compute):
    """Members of any stride: they are aligned to as many bytes as the plan says."""
    lt = FakeCublasLt()
    on = blas(lt)
    for m, n, k, padding in ((8, 16, 32, 0), (5, 7, 3, 0), (5, 7, 3, 2)):
        product = Product(m, n, k, transpose_a, transpose_b, compute, batch=3)
        whole = aligned_empty((3, m * n + padding), product.out.dtype)
        whole[:, m * n :] = 7
        product.out = whole[:, : m * n].reshape(3, m, n)
        product.on(on)
        product.check(product.exact)
        assert (whole[:, m * n :] == 7).all()
    assert len(lt.preferences) == len(lt.calls) == 3


@pytest.mark.parametrize("compute", NARROW)
@pytest.mark.parametrize("name", epilogues.NAMES)
def test_epilogues_of_a_batch(name, compute):
    """Each member has its own bias (or sums), a view of θ, and its own aux."""
    product = Product(6, 16, 5, compute=compute, batch=3)
    kind, rng = product.out.dtype, np.random.default_rng(0)
    theta = aligned(rng.standard_normal((3, 160)), kind)
    bias, aux = theta[:, 128:144], None
    if name in ("relu_aux_bias", "drelu_bgrad"):
        aux = aligned(rng.integers(0, 256, (3, *mask_shape(6, 16))), np.uint8)
    elif name in ("gelu_aux_bias", "dgelu_bgrad"):
        aux = aligned(rng.standard_normal((3, 6, 16)), kind)
    want_bias, want_aux = (
        bias.astype(np.float64),
        None if aux is None else aux.astype(np.float64 if aux.dtype == kind else np.uint8),
    )
    want = [
        epilogues.apply(name, exact, want_bias[i], None if want_aux is None else want_aux[i])
        for i, exact in enumerate(product.exact)
    ]
    product.epilogue = Epilogue(name, bias, aux)
    assert product.on(blas(FakeCublasLt()), fallback=lambda: None)
    product.check(np.array(want))
    product.check(want_bias, bias)
    if want_aux is not None:
        product.check(want_aux.astype(np.float64), aux.astype(np.float64).astype(kind))


def test_a_batch_of_one_is_a_product():
    on = blas(FakeCublasLt())
    for batch in ({}, {"batch": 1}):
        product = Product(5, 7, 3, **batch)
        product.on(on)
        product.check(product.exact)
    assert len(on._plans) == 1


@pytest.mark.parametrize("compute", NARROW)
def test_16_bit_inputs_with_float32_result(compute):
    product = Product(6, 5, 300, compute=compute, out="float32")
    product.on(blas(FakeCublasLt()))
    product.check(product.exact)  # accurate to float32, although the inputs have only 8 or 11 bits


@pytest.mark.parametrize("compute", COMPUTE_TYPE)
def test_factors_are_read_when_product_runs(compute):
    """One plan and one address, but the current values, as a captured graph needs it."""
    lt = FakeCublasLt()
    on, product = blas(lt), Product(6, 5, 40, True, compute=compute)
    product.factors = aligned([0, 0], "float64" if compute == "float64" else "float32")
    for alpha, beta in [(1, 0), (1, 1), (-0.5, 0.75)]:
        product.out[...] = before = product.normal((6, 5), product.out.dtype)
        product.factors[...] = alpha, beta
        product.on(on)
        product.check(alpha * product.exact + beta * before.astype(np.float64))
    assert {(call["pointer_mode"], call["alpha"]) for call in lt.calls} == {
        (1, product.factors.ctypes.data)
    }
    assert len(lt.preferences) == 1


def test_beta_of_zero_does_not_read_result():
    product = Product(6, 5, 40)
    product.factors = aligned([2, 0], "float32")
    product.on(blas(FakeCublasLt()))  # out is NaN
    product.check(2 * product.exact)


@pytest.mark.parametrize("compute", ["float32", "tf32", *NARROW])
@pytest.mark.parametrize("name", epilogues.NAMES)
@pytest.mark.parametrize("n", [8, 136])
def test_epilogues(name, n, compute):
    """Bias and sums are over features, and aux is row-major, although cublasLt is column-major."""
    m, k = 7, 5
    product = Product(m, n, k, compute=compute)
    kind, backward = product.out.dtype, name.startswith("d")
    bias, aux = product.normal((n,), kind), None
    if "aux" in name or backward:
        aux = product.normal((m, n), kind)
        if "relu" in name:
            aux = product.rng.integers(0, 256, mask_shape(m, n)).astype(np.uint8)
    want_bias, want_aux = bias.astype(np.float64), None if aux is None else aux.copy()
    if aux is not None and "gelu" in name:
        want_aux = want_aux.astype(np.float64)
    want = epilogues.apply(name, product.exact, want_bias, want_aux)
    product.epilogue = Epilogue(name, bias, aux)
    assert product.on(blas(FakeCublasLt()), lambda: pytest.fail("unexpected fallback"))
    product.check(want)
    product.check(want_bias, bias)
    if aux is not None and aux.dtype == np.uint8:
        np.testing.assert_array_equal(aux, want_aux)
    elif aux is not None:
        product.check(want_aux, aux)


def test_layers_of_one_shape_share_plan_but_not_bias():
    lt = FakeCublasLt()
    on, biases = blas(lt), [aligned(np.full(8, value), "float32") for value in (1.0, 2.0, 1.0)]
    for bias in biases:
        product = Product(3, 8, 4)
        product.epilogue = Epilogue("bias", bias)
        product.on(on, lambda: None)
        product.check(product.exact + bias)
    assert len(lt.preferences) == 1


@pytest.mark.parametrize(
    ("name", "shape", "k", "aux"),
    [
        ("relu_aux_bias", (3, 8), 4, np.zeros((3, 8), np.uint8)),  # rows of 64 bits
        ("relu_aux_bias", (3, 136), 4, np.zeros((3, 16), np.uint8)),  # 128 bits for 136
        ("gelu_aux_bias", (3, 12), 4, np.zeros((3, 12), np.float32)),
        ("drelu_bgrad", (3, 8), 1, np.zeros((3, 16), np.uint8)),
        ("dgelu_bgrad", (3, 8), 1, np.zeros((3, 8), np.float32)),
        ("bias", (3, 8), 4, None),  # unaligned
    ],
)
def test_refused_epilogue_uses_fallback(name, shape, k, aux):
    """The fake cublasLt refuses what the manual excludes, and the product warns once."""
    product, called = Product(*shape, k), []
    bias = aligned(np.zeros(shape[1] + 1), "float32")
    bias = bias[1:] if name == "bias" else bias[:-1]
    product.epilogue = Epilogue(name, bias, None if aux is None else aligned(aux))
    on = blas(FakeCublasLt())
    with pytest.warns(UserWarning, match=f"no algorithm for NN .* {name}.*without the epilogue"):
        assert not product.on(on, lambda: called.append(1))
    assert not product.on(on, lambda: called.append(2))
    assert called == [1, 2]


def test_different_types_of_c_and_d_raise():
    lt = FakeCublasLt()
    plan = Plan(lt, lt.create(), Gemm(4, 8, 4, False, False, "bfloat16", "float32", "bfloat16"))
    lt.objects[plan.a] = (0, *lt.objects[plan.a][1:])
    with pytest.raises(lt.cuBLASLtError, match="types"):
        plan.candidates()


@pytest.mark.parametrize(
    ("compute", "out"),
    [*((c, dtype(c)) for c in COMPUTE_TYPE), *((c, np.dtype("float32")) for c in NARROW)],
)
def test_split_k_never_rounds_partial_sums_to_16_bits(compute, out):
    """Split-K may only round the result: COMPUTE_TYPE is the only reduction scheme."""
    lt = FakeCublasLt()
    Product(5, 7, 3, compute=compute, out=out).on(blas(lt))
    masked = {3: 2} if out.itemsize == 2 else {}
    assert lt.preferences == [{1: WORKSPACE_BYTES, **masked, **dict.fromkeys(range(5, 9), 256)}]


def test_plan_is_made_once_per_shape():
    lt = FakeCublasLt()
    on = blas(lt)
    for _ in range(3):
        Product(5, 7, 3, False, True).on(on)
    assert (len(lt.preferences), len(lt.calls)) == (1, 3)
    Product(5, 7, 3, False, True, "tf32").on(on)
    assert len(lt.preferences) == 2
    assert "handle" in lt.objects.values()


@pytest.mark.parametrize(("compute", "elements"), [("bfloat16", 1), ("float32", 3), ("tf32", 4)])
@pytest.mark.parametrize("which", ["a", "b", "out"])
def test_unaligned_operands_have_plans_of_their_own(compute, elements, which):
    """Views of other libraries' arrays."""
    lt = FakeCublasLt()
    on, product = blas(lt), Product(6, 8, 16, compute=compute)
    product.on(on)
    whole = getattr(product, which)
    moved = aligned_empty((whole.size + elements,), whole.dtype)[elements:].reshape(whole.shape)
    moved[...] = whole
    setattr(product, which, moved)
    product.out[...] = 0
    product.on(on)
    product.check(product.exact)
    bytes_ = elements * whole.itemsize & -(elements * whole.itemsize)
    least = {3: 2} if compute == "bfloat16" else {}
    assert lt.preferences[1] == {1: WORKSPACE_BYTES, **least, **dict.fromkeys(range(5, 9), bytes_)}
    for gemm in on._plans:
        assert str(gemm).endswith(f"aligned to {bytes_}") == (gemm.alignment < 256)
    product.on(on)
    assert len(lt.preferences) == 2


def test_descriptions_of_products_are_unique():
    kinds = [
        Gemm(
            m, n, 3, ta, tb, "bfloat16", out, compute, epilogue, aux, factors, alignment, 0, *batch
        )
        for m, n in ((1, 23), (12, 3)) for ta in (False, True) for tb in (False, True)
        for out in ("bfloat16", "float32") for compute in ("bfloat16", "tf32")
        for epilogue in EPILOGUE for aux in (0, 128) for factors in (False, True)
        for alignment in (16, 256)
        for batch in ((), (2, (1, 23, 4)), (2, (12, 3, 4)), (3, (12, 3, 4)),
                      (2, (1, 23, 4), (5, 8)), (2, (1, 23, 4), (5, 9)))
        if len(batch) < 3 or epilogue
    ]  # fmt: skip
    assert len(set(map(str, kinds))) == len(kinds)


def test_first_usable_algorithm_is_used():
    lt = FakeCublasLt(states=(15, 0, 0))
    Product(5, 7, 3).on(blas(lt))
    assert lt.calls[0]["algo"] == 71


def test_no_algorithm_raises_and_frees_plan():
    lt = FakeCublasLt(states=(15,))
    on = blas(lt)
    before = dict(lt.objects)
    with pytest.raises(gpumlp.DeviceError, match="no algorithm for NN 5 7 3 float32 in float32"):
        Product(5, 7, 3).on(on)
    assert lt.objects == before


def test_heuristic_error_frees_plan():
    lt = FakeCublasLt(states=())
    on = blas(lt)
    before = dict(lt.objects)
    with pytest.raises(lt.cuBLASLtError, match="NOT_SUPPORTED"):
        Product(5, 7, 3).on(on)
    assert lt.objects == before
