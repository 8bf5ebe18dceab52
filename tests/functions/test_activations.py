"""f against the textbook, and its derivatives against difference quotients."""

import sys

import numpy as np
import pytest

import gpumlp
from gpumlp import ACTIVATIONS
from gpumlp.backends.cuda.protocol import mask_shape
from tests.support import reference
from tests.support.harness import epilogues
from tests.support.reference import ELEMENTWISE, EPS32, grid

OTHER_PARAMS = {
    "leaky_relu": {"slope": 0.3},
    "elu": {"alpha": 0.7},
    "selu": {"alpha": 1.2, "scale": 0.8},
}
VARIANTS = [(name, {}) for name in ACTIVATIONS] + list(OTHER_PARAMS.items())
ELEMENTWISE_VARIANTS = [v for v in VARIANTS if v[0] in ELEMENTWISE]


def quotient(f, z, step=6e-6):
    above, below = z + step, z - step
    return (f(above) - f(below)) / (above - below)


def test_the_reference_has_every_activation():
    assert set(reference.ACTIVATIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize(("name", "params"), VARIANTS)
def test_f_matches_the_textbook(name, params):
    entry, z = ACTIVATIONS[name].set(**params), grid(name)
    h = entry.f(z, **entry.params)
    np.testing.assert_allclose(h, reference.ACTIVATIONS[name](z, **params), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("name", "params"), ELEMENTWISE_VARIANTS)
def test_df_matches_difference_quotients(name, params):
    entry, z = ACTIVATIONS[name].set(**params), grid(name)
    df = entry.df(z, entry.f(z, **entry.params), **entry.params)
    slope = quotient(lambda at: entry.f(at, **entry.params), z)
    np.testing.assert_allclose(df, slope, rtol=1e-8, atol=1e-9)


def test_softmax_vjp_is_the_product_with_its_jacobian(rng):
    f = ACTIVATIONS["softmax"]
    for n in (1, 2, 7):
        z, gh = 3 * rng.normal(size=(5, n)), rng.normal(size=(5, n))
        step = 6e-6
        columns = [f.f(z + step * e) - f.f(z - step * e) for e in np.eye(n)]
        product = [(gh * column / (2 * step)).sum(axis=1) for column in columns]
        gz = f.vjp(z, f.f(z), gh)
        np.testing.assert_allclose(gz, np.stack(product, axis=1), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_derivative_reads_only_what_reads_names(name, rng):
    entry = ACTIVATIONS[name]
    z = grid(name)[None]
    h, gh = entry.f(z, **entry.params), rng.normal(size=z.shape)
    nan = np.full_like(z, np.nan)

    def derivative(z, h):
        if entry.elementwise:
            return entry.df(z, h, **entry.params)
        return entry.vjp(z, h, gh, **entry.params)

    read = derivative(z if "z" in entry.reads else nan, h if "h" in entry.reads else nan)
    np.testing.assert_array_equal(read, derivative(z, h))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_stays_nan(name):
    entry = ACTIVATIONS[name]
    h = entry.f(np.array([[1.0, np.nan, -1.0], [1.0, 2.0, 3.0]]), **entry.params)
    assert np.isnan(h[0, 1])
    assert np.isfinite(h[1]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "exponential"])
def test_large_inputs_do_not_overflow(name, dtype):
    entry = ACTIVATIONS[name]
    z = np.array([[-1e4, -300, -90, 90, 300, 1e4]], dtype)
    with np.errstate(all="raise", under="ignore"):
        h = entry.f(z, **entry.params)
        if entry.elementwise:
            g = entry.df(z, h, **entry.params)
        else:
            g = entry.vjp(z, h, z, **entry.params)
    assert np.isfinite(h).all()
    assert np.isfinite(g).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_float32_is_as_accurate_as_the_textbook_in_float32(name):
    """Errors against float64 of the same z, in units of rounding of the largest number involved.

    The largest error of f is at most twice that of the textbook formula, and that of f' at most 3.
    """
    entry = ACTIVATIONS[name]
    z = grid(name, "float32")
    z = z if entry.elementwise else np.stack([z, z / 2, -z], axis=1)
    exact = entry.f(z.astype(float), **entry.params)

    def worst(value, exact):
        assert np.result_type(value, np.float32) == np.float32
        unit = EPS32 * np.maximum(np.maximum(1, np.abs(z)), np.abs(exact))
        return float((np.abs(np.subtract(value, exact, dtype=float)) / unit).max())

    h = entry.f(z, **entry.params)
    assert worst(h, exact) <= 2 * worst(reference.ACTIVATIONS[name](z), exact)
    if entry.elementwise:
        slope = entry.df(z.astype(float), exact, **entry.params)
        assert worst(entry.df(z, h, **entry.params), slope) <= 3


@pytest.mark.parametrize(("name", "params"), VARIANTS)
def test_value_and_derivative_match_torch(name, params, rng):
    torch = pytest.importorskip("torch")
    from tests.support.in_torch import activation

    entry, at = ACTIVATIONS[name].set(**params), grid(name)
    z = at if entry.elementwise else np.stack([at, at / 2, -at], axis=1)
    gh = rng.normal(size=z.shape)
    theirs = torch.tensor(z, requires_grad=True)
    h = activation(entry)(theirs)
    h.backward(torch.tensor(gh))
    own = entry.f(z, **entry.params)
    np.testing.assert_allclose(own, h.detach().numpy(), rtol=1e-13, atol=1e-15)
    gz = gh * entry.df(z, own, **entry.params) if entry.df else entry.vjp(z, own, gh)
    np.testing.assert_allclose(gz, theirs.grad.numpy(), rtol=1e-12, atol=1e-13)


def test_erf_without_scipy_uses_the_standard_library(monkeypatch):
    special = pytest.importorskip("scipy.special")
    from gpumlp.functions import activations as ours

    z = grid("gelu_erf")
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    ours._erf.cache_clear()
    try:
        plain, plain32 = ours.erf(z), ours.erf(z.astype("float32"))
    finally:
        ours._erf.cache_clear()
    np.testing.assert_allclose(plain, special.erf(z), rtol=1e-15)
    assert plain32.dtype == np.float32
    np.testing.assert_allclose(plain32, special.erf(z), rtol=2e-7)


def test_incomplete_entry_raises():
    f = np.tanh
    with pytest.raises(TypeError, match=r"give df .* or vjp .*, and not both"):
        gpumlp.Activation("mine", f=f)
    with pytest.raises(TypeError, match="and not both"):
        gpumlp.Activation("mine", f=f, df=f, vjp=f)
    with pytest.raises(ValueError, match=r"reads must be .* got 'x'"):
        gpumlp.Activation("mine", f=f, df=f, reads="x")
    with pytest.raises(ValueError, match=r"no CUDA expression; give cuda_f and cuda_df"):
        gpumlp.Activation("mine", f=f, df=f).cuda()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sigmoid_of_small_probabilities_is_accurate(dtype):
    """A formula with tanh would give σ(−20) = 0 in float32."""
    z = np.array([-80, -50, -20, -17.5, -12, -1, 0, 3, 40], dtype)
    want = 1 / (1 + np.exp(-z.astype("longdouble")))
    np.testing.assert_allclose(ACTIVATIONS["sigmoid"].f(z), want, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", [name for name, f in ACTIVATIONS.items() if f.epilogue])
def test_the_epilogue_computes_f(name):
    """f(s + bias), and s ⊙ f'(z), as cublasLt's manual defines them."""
    f, z = ACTIVATIONS[name], grid(name)[None]
    s, bias = z - 0.25, np.full(z.shape[1], 0.25)
    z = s + bias
    h = f.f(z, **f.params)
    plain = "bias" if f.epilogue == "bias" else f"{f.epilogue}_bias"
    np.testing.assert_allclose(epilogues.apply(plain, s, bias, None), h, rtol=1e-14, atol=1e-15)
    if f.epilogue == "bias":
        return
    aux = np.zeros(mask_shape(*z.shape), np.uint8) if f.epilogue == "relu" else np.empty_like(z)
    epilogues.apply(f"{f.epilogue}_aux_bias", s, bias, aux)
    gh, db = np.linspace(1, 2, z.size)[None], np.empty(z.shape[1])
    gz = epilogues.apply(f"d{f.epilogue}_bgrad", gh, db, aux)
    np.testing.assert_allclose(gz, gh * f.df(z, h, **f.params), rtol=1e-13, atol=1e-14)
    np.testing.assert_array_equal(db, gz[0])


def test_unknown_epilogue_raises():
    with pytest.raises(ValueError, match="mine: epilogue must be .* got \"?'?silu"):
        gpumlp.Activation("mine", f=lambda z: z, df=lambda z, h: z, epilogue="silu")
