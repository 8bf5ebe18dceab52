"""Both backends have the same operations; those of the NumPy backend against plain NumPy."""

import inspect

import numpy as np
import pytest

import gpumlp
from gpumlp import ACTIVATIONS, L2, LOSSES, OPTIMIZERS, get_backend
from gpumlp.backends import operations
from gpumlp.backends.columns import Columns
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.backends.declaration import Facts
from gpumlp.backends.numpy.backend import NumpyBackend
from gpumlp.backends.sharing import Sharing
from gpumlp.backends.stages import Stages
from gpumlp.io import threads
from gpumlp.io.threads import Threads
from gpumlp.step.chunked import UNSCALED

OPERATIONS = {
    name: operation
    for part in (Facts, Columns, Sharing, Stages, operations.Backend)
    for name, operation in vars(part).items()
    if inspect.isfunction(operation) and not name.startswith("_")
}


def parameters(operation):
    return [(p.name, p.kind, p.default) for p in inspect.signature(operation).parameters.values()]


def test_operations_are_found():
    assert {"affine_activation", "output_gradient", "hidden_gradient", "update"} < set(OPERATIONS)


DEFAULTS = {"free_memory", "feed_memory", "compile", "synchronize", "own_memory",
            "updates_in_product", "scratch_memory", "movable", "networks_at_a_time"}  # fmt: skip


@pytest.mark.parametrize("backend", [NumpyBackend, CudaBackend])
def test_backends_have_exactly_the_operations(backend):
    public = {
        name
        for name in dir(backend)
        if callable(getattr(backend, name)) and not name.startswith("_")
    }
    assert public == set(OPERATIONS)
    parts = backend.__mro__[: backend.__mro__.index(operations.Backend)]
    own = {name for each in parts for name in vars(each)}
    assert set(OPERATIONS) - own <= DEFAULTS
    for name, operation in OPERATIONS.items():
        assert parameters(getattr(backend, name)) == parameters(operation), name


def test_numpy_backend_attributes():
    assert (NumpyBackend.name, CudaBackend.name) == ("numpy", "cupy")
    backend = NumpyBackend("float32")
    assert (backend.precision, backend.dtype) == ("float32", np.float32)
    assert "NumPy" in backend.describe()
    assert backend.synchronize() is None
    assert backend.owns(np.ones(1))
    assert not backend.owns([1.0])
    assert get_backend(backend) is backend


def test_auto_is_on_the_host_without_gpu(monkeypatch):
    def no_device():
        raise gpumlp.DeviceError("none")

    monkeypatch.setattr("gpumlp.backends.cuda.open_device", no_device)
    assert get_backend("auto", "float64").dtype == np.float64
    assert get_backend().name in ("cpu", "numpy")


# ---- arrays -------------------------------------------------------------------------------------


def test_empty_is_aligned_and_contiguous():
    backend = NumpyBackend("float32")
    arrays = []  # keeps them alive, so that each array gets new memory
    for shape in [(1,), (3, 5), (0, 4), (257, 13), (2, 3, 4), ()]:
        for dtype in (None, "float64", "int32", "int64"):
            a = backend.empty(shape, dtype)
            arrays.append(a)
            assert a.ctypes.data % 256 == 0 or a.size == 0
            assert a.flags.c_contiguous
            assert (a.shape, a.dtype) == (shape, np.dtype(dtype or "float32"))


def test_full_asarray_and_to_host():
    backend = NumpyBackend("float32")
    np.testing.assert_array_equal(backend.full((2, 3), 7, "int32"), np.full((2, 3), 7))
    values = np.arange(12.0).reshape(3, 4)
    inputs = [values, np.asfortranarray(values), values[::-1, ::2], values.astype(">f8"), [[1, 2]]]
    for a in inputs:
        copied = backend.asarray(a)
        np.testing.assert_array_equal(copied, a)
        assert copied.dtype == np.float32
        assert copied.flags.c_contiguous
        assert copied.ctypes.data % 256 == 0
        assert not np.shares_memory(copied, values)
    out = backend.empty((3, 4))
    assert backend.asarray(np.asfortranarray(values), out=out) is out
    np.testing.assert_array_equal(out, values)
    host = backend.to_host(out)
    out[...] = 0
    np.testing.assert_array_equal(host, values)


def test_gather_rows_and_entries_of_any_dtype(rng):
    backend, index = NumpyBackend("float64"), np.array([4, 0, 4, 2])
    for source in (
        rng.normal(size=(5, 3)),
        np.arange(5, dtype="int32"),
        rng.normal(size=5).astype("float32"),
    ):
        out = np.empty((4, *source.shape[1:]), source.dtype)
        backend.gather(source, index, out)
        np.testing.assert_array_equal(out, source[index])


def test_mean_weights_sum_to_one(rng):
    for dtype, rtol in (("float32", 1e-6), ("float64", 1e-14)):
        backend, weights = NumpyBackend(dtype), rng.random(9).astype(dtype)
        index, out = np.array([3, 3, 8, 0]), np.full(4, np.nan, dtype)
        backend.mean_weights(weights, index, out)
        np.testing.assert_allclose(out, weights[index] / weights[index].sum(), rtol=rtol)
        weights[[3, 8, 0]] = 0
        backend.mean_weights(weights, index, out)
        np.testing.assert_array_equal(out, np.zeros(4))


# ---- blocks and threads -------------------------------------------------------------------------

M, N_IN, N_OUT = 57, 13, 7


def run_operations(backend, f, loss, seed=0):
    """Call every operation of a step once on new data.  Returns inputs and results by name."""
    rng, real = np.random.default_rng(seed), backend.dtype
    shapes = {
        "x": (M, N_IN), "W": (N_OUT, N_IN), "b": (N_OUT,), "y": (M, N_OUT), "weights": (M,),
        "above": (M, 5), "W_above": (5, N_OUT), "theta": (600,), "dtheta": (600,),
    }  # fmt: skip
    a = {name: rng.normal(size=shape).astype(real) for name, shape in shapes.items()}
    for name in ("z", "h", "gh", "gz", "gh2", "gz2", "gz3"):
        a[name] = np.full((M, N_OUT), np.nan, real)
    a |= {name: np.full(N_OUT, np.nan, real) for name in ("db", "db2", "db3")}
    a |= {"dW": np.full((N_OUT, N_IN), np.nan, real), "gx": np.full((M, N_IN), np.nan, real)}
    a |= {
        "J": np.zeros(1),
        "J2": np.zeros(1),
        "slots": np.zeros((2, 600), real),
        "scaling": UNSCALED,
    }
    f, loss, adam, omega = ACTIVATIONS[f], LOSSES[loss], OPTIMIZERS["adam"], L2(0.1, biases=0.5)
    a["control"] = control = np.array([1.0, *adam.control(0.1, 1)])

    def arrays(*names):
        return [a[name] for name in names]

    backend.affine_activation(*arrays("x", "W", "b"), f, *arrays("z", "h"))
    if f.elementwise:
        a["again"] = np.full((M, N_OUT), np.nan, real)
        backend.activation(f, *arrays("z", "again"))
        np.testing.assert_array_equal(a["again"], a["h"])
    backend.loss(loss, *arrays("h", "y", "weights", "J"))
    outputs = arrays("z", "h", "y", "weights", "scaling", "gh", "gz", "db", "J2")
    backend.output_gradient(loss, f, *outputs)
    backend.weight_gradient(*arrays("gz", "x", "dW"), None)
    backend.input_gradient(*arrays("gz", "W", "gx"))
    backend.hidden_gradient(*arrays("above", "W_above"), f, *arrays("z", "h", "gh2", "gz2", "db2"))
    backend.activation_gradient(f, *arrays("z", "h", "gh2", "gz3", "db3"))
    backend.clip(omega, *arrays("theta", "dtheta"), 500, 0.5, UNSCALED, control)
    backend.update(
        adam, omega, *arrays("theta", "theta", "dtheta", "slots"), 500, UNSCALED, control
    )
    del a["dtheta"]  # undefined after the update
    return a


def backend_of(dtype, threads):
    backend = NumpyBackend(dtype)
    backend._threads = Threads(threads)
    return backend


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("f", ["relu", "gelu", "softmax", "identity"])
def test_blocks_change_only_rounding_and_threads_change_nothing(dtype, f, monkeypatch):
    whole = run_operations(backend_of(dtype, 1), f, "huber")
    eps = float(np.finfo(dtype).eps)
    for block_bytes in (64, 1000):
        monkeypatch.setattr(threads, "BLOCK_BYTES", block_bytes)
        runs = [run_operations(backend_of(dtype, threads), f, "huber") for threads in (1, 2, 5, 5)]
        for name, a in whole.items():
            scale = np.abs(a).max()
            np.testing.assert_allclose(runs[0][name], a, rtol=0, atol=60 * eps * scale)
            for run in runs[1:]:
                np.testing.assert_array_equal(run[name], runs[0][name], err_msg=name)


@pytest.mark.parametrize("f", ["relu", "gelu", "softmax", "identity"])
def test_operations_match_plain_numpy(f, monkeypatch):
    monkeypatch.setattr(threads, "BLOCK_BYTES", 300)
    a = run_operations(backend_of("float64", 3), f, "squared_error")
    entry = ACTIVATIONS[f]

    def times_derivative(gh):
        return gh * entry.df(a["z"], a["h"]) if entry.df else entry.vjp(a["z"], a["h"], gh)

    expected = {"z": a["x"] @ a["W"].T + a["b"]}
    expected["h"] = entry.f(expected["z"])
    expected["J"] = a["weights"] @ ((a["h"] - a["y"]) ** 2).mean(axis=1)
    expected["J2"] = expected["J"]
    expected["gh"] = a["weights"][:, None] * 2 / N_OUT * (a["h"] - a["y"])
    expected["gz"] = times_derivative(expected["gh"])
    expected["db"] = expected["gz"].sum(axis=0)
    expected["dW"] = expected["gz"].T @ a["x"]
    expected["gx"] = expected["gz"] @ a["W"]
    expected["gh2"] = a["above"] @ a["W_above"]
    expected["gz2"] = expected["gz3"] = times_derivative(expected["gh2"])
    expected["db2"] = expected["db3"] = expected["gz2"].sum(axis=0)
    for name, value in expected.items():
        at = np.squeeze(a[name]) if name in ("J", "J2") else a[name]
        np.testing.assert_allclose(at, value, rtol=1e-11, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("f", [name for name, f in ACTIVATIONS.items() if "z" not in f.reads])
def test_shared_buffers_give_same_bits(f, rng):
    """z may be h if f' does not read z, and gz may be gh."""
    backend, entry, loss = NumpyBackend("float64"), ACTIVATIONS[f], LOSSES["squared_error"]
    x, W, b = rng.normal(size=(M, N_IN)), rng.normal(size=(N_OUT, N_IN)) / 4, rng.normal(size=N_OUT)
    y, weights, above = rng.normal(size=(M, N_OUT)), rng.random(M), rng.normal(size=(M, 5))
    W_above, found = rng.normal(size=(5, N_OUT)), []
    for shared in (False, True):
        z, h, gh, gz = (np.full((M, N_OUT), np.nan) for _ in range(4))
        z, gz = (h, gh) if shared else (z, gz)
        db, db2, J = np.empty(N_OUT), np.empty(N_OUT), np.zeros(1)
        backend.affine_activation(x, W, b, entry, z, h)
        backend.output_gradient(loss, entry, z, h, y, weights, UNSCALED, gh, gz, db, J)
        first = gz.copy()
        backend.hidden_gradient(above, W_above, entry, z, h, gh, gz, db2)
        found.append([h, first, gz, db, db2, J])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_threads_keep_order_and_raise_errors():
    for count in (1, 2, 5):
        assert Threads(count).map(lambda i: i * i, range(11)) == [i * i for i in range(11)]
        assert Threads(count).map(lambda i: i, []) == []
        with pytest.raises(ZeroDivisionError):
            Threads(count).map(lambda i: 1 / (10 - i), range(11))
