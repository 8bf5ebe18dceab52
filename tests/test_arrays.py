"""Arrays of torch, JAX and others are accepted like NumPy's, and results have the same kind."""

import sys
import types

import ml_dtypes
import numpy as np
import pytest

import gpumlp
from gpumlp.arrays import as_backend_array, as_kind_of
from gpumlp.backends import get_backend
from tests.support.cuda_networks import assert_same, on_cuda_backend
from tests.support.harness.host_device import HostArray
from tests.support.refusal import refusal

X = np.linspace(-1, 1, 12).reshape(4, 3)
LABELS = np.array([0, 1, 1, 0])
ROWS = np.eye(2)[LABELS]
HOST = get_backend("numpy", "float64")


def network(loss="softmax_cross_entropy", **settings):
    settings = {"precision": "float64", "backend": "numpy"} | settings
    return gpumlp.MLP([3, 5, 2], "tanh", loss=loss, **settings)


def in_torch(a):
    return pytest.importorskip("torch").tensor(a)


def in_jax(a):
    return pytest.importorskip("jax").numpy.asarray(a)


def in_strict(a):
    return pytest.importorskip("array_api_strict").asarray(a)


KINDS = {"torch": in_torch, "jax": in_jax, "strict": in_strict}


class OnGpu:
    """An array that declares to be on a GPU, like those of Numba and RAPIDS."""

    def __init__(self, values):
        self.values = values
        self.__cuda_array_interface__ = values.__array_interface__ | {"stream": 1}


class OnGpu1:
    """An array with DLPack, on the second GPU."""

    def __dlpack_device__(self):
        return 2, 1

    def __dlpack__(self, **_):
        raise BufferError("not here")


# ---- in -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["torch", "strict"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "int8", "uint8", "bool"])
def test_memory_is_shared_with_other_libraries(kind, dtype):
    a = KINDS[kind]((X > 0).astype(dtype))
    ours = as_backend_array(a, HOST)
    assert ours.dtype == dtype
    ours[1, 2] = not ours[1, 2]
    np.testing.assert_array_equal(ours, np.from_dlpack(a))


def test_jax_arrays_are_read_without_a_copy():
    a = in_jax(X.astype("float32"))
    ours = as_backend_array(a, HOST)
    assert ours.ctypes.data == a.unsafe_buffer_pointer()
    assert not ours.flags.writeable  # other arrays may share the values
    np.testing.assert_array_equal(ours, np.asarray(a))


def test_other_objects_are_returned_unchanged():
    for a in (X, X.tolist(), None, "auto", 3, {0: 1.0}):
        assert as_backend_array(a, HOST) is a


def test_bfloat16_keeps_its_values():
    torch = pytest.importorskip("torch")
    values = np.array([[1.5, -2.25, 3e38]])
    for a in (torch.tensor(values, dtype=torch.bfloat16), in_jax(values.astype("bfloat16"))):
        np.testing.assert_array_equal(
            as_backend_array(a, HOST).astype("float64"),
            values.astype(ml_dtypes.bfloat16).astype("float64"),
        )
        assert np.isfinite(np.asarray(network().forward(a))).all()


LAYOUTS = {
    "as it is": lambda x: x,
    "requires grad": lambda x: x.clone().requires_grad_(),
    "a result": lambda x: x.clone().requires_grad_() * 1,
    "F-ordered": lambda x: x.T.contiguous().T,
    "strided": lambda x: x.repeat_interleave(2, 0).repeat_interleave(3, 1)[::2, ::3],
    "expanded": lambda x: x[:1].expand(4, 3),
    "negated lazily": lambda x: (1j * x).conj().imag,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_a_tensor_gives_the_same_result(layout):
    torch = pytest.importorskip("torch")
    net, x = network(), LAYOUTS[layout](torch.tensor(X))
    values = x.detach().resolve_neg().numpy()
    y = net.forward(x)
    assert not y.requires_grad
    assert isinstance(y, torch.Tensor)
    np.testing.assert_array_equal(y.numpy(), net.forward(values))
    J, gradients = net.cost_and_gradients(x, torch.tensor(LABELS))
    J_numpy, want = net.cost_and_gradients(values, LABELS)
    assert J_numpy == J
    np.testing.assert_array_equal(gradients.W[0], want.W[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "int32", "uint8", "bool"])
def test_every_method_accepts_other_libraries(kind, dtype, rng):
    if (kind, dtype) == ("strict", "float16"):
        pytest.skip("the standard has no float16")
    x, to = (10 * X).astype(dtype), KINDS[kind]
    weights = rng.random(4).astype("float32")
    for loss, y in (("softmax_cross_entropy", LABELS), ("squared_error", ROWS.astype("float32"))):
        net = network(loss)
        want = net.cost_and_gradients(x, y, weights)[0]
        assert net.cost_and_gradients(to(x), to(y), to(weights))[0] == want
        assert net.cost(to(x), to(y), to(weights)) == pytest.approx(want, rel=1e-14)
        trained = []
        for bring in (np.asarray, to):
            net = network(loss)
            trainer = gpumlp.Trainer(net, batch_size=2)
            data = bring(x), bring(y)
            history = trainer.fit(
                *data, 2, sample_weight=bring(weights), validation=data, progress=False
            )
            trained.append((net.theta.flat.tobytes(), history["val_cost"]))
        assert trained[0] == trained[1]
        assert str(trainer.memory(to(x), to(y))) == str(trainer.memory(x, y))


def test_arrays_without_rows_raise():
    for to in KINDS.values():
        refusal(ValueError, lambda to=to: network().forward(to(X[:0])), "x has no rows; pass")


def test_a_state_dict_is_assigned_completely_or_not_at_all(rng):
    torch = pytest.importorskip("torch")
    net = network()
    layers = (torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    module = torch.nn.Sequential(*layers).double()
    net.assign(dict(module.named_parameters()))  # which require grad
    want = module(torch.tensor(X)).detach()
    np.testing.assert_allclose(net.forward(X), want.numpy(), rtol=1e-12, atol=1e-15)
    before = net.theta.flat.copy()
    broken = module.state_dict() | {"2.bias": torch.ones(2).to_sparse()}
    refusal(TypeError, lambda: net.assign(broken), "2.bias", "pass a dense array")
    np.testing.assert_array_equal(net.theta.flat, before)
    net.assign({name: in_jax(a.numpy()) for name, a in module.state_dict().items()})
    np.testing.assert_allclose(net.theta.flat, before, rtol=1e-6, atol=1e-8)  # JAX has float32


# ---- out ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_results_have_the_kind_of_x(kind):
    for precision in ("float32", "float64"):
        net = network(precision=precision)
        x = KINDS[kind](X.astype(precision))
        for operation in (net.forward, net.predict):
            result = operation(x)
            assert type(result) is type(x)
            assert result.device == x.device
            got, want = np.from_dlpack(result), operation(as_backend_array(x, HOST))
            if kind != "jax":  # float32, unless it is configured for 64 bits
                assert got.dtype == precision
            np.testing.assert_allclose(got, want, rtol=1e-6 if kind == "jax" else 0)


def test_results_share_memory():
    a = np.ones((3, 2))
    for kind in ("torch", "strict"):
        result = as_kind_of(a, KINDS[kind](X))
        a[1, 1] += 1
        assert float(result[1, 1]) == a[1, 1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "result", [X[::-1], X.T, X[:, ::2], X[:0], np.array(1.5), np.broadcast_to(2.0, (3,))]
)
def test_results_of_any_layout_are_converted(kind, result):
    back = as_kind_of(result, KINDS[kind](X))
    np.testing.assert_allclose(np.asarray(back), result, rtol=1e-6)


def test_other_results_are_returned_unchanged():
    names = np.array(["a", "b"])
    assert as_kind_of(names, in_torch(X)) is names
    for like in (X.tolist(), X, None):
        assert as_kind_of(X, like) is X
    assert isinstance(network().predict(X.tolist()), np.ndarray)


def test_a_tensor_over_a_layer_changes_the_layer():
    """The documentation promises this of `torch.from_dlpack(net.layers[0].W)`."""
    torch = pytest.importorskip("torch")
    net = network()
    for layer in net.layers:
        W = torch.from_dlpack(layer.W)
        assert W.shape == layer.W.shape
        before = layer.W.copy()
        W.mul_(2)
        np.testing.assert_array_equal(layer.W, 2 * before)
    np.testing.assert_array_equal(net.theta.W[1], net.layers[0].W)


# ---- arrays on a GPU -----------------------------------------------------------------------------


def gpu_network(loss):
    net = network(loss)
    return net, on_cuda_backend(net)


def test_the_cuda_backend_reads_gpu_arrays(rng):
    for loss, y in (("softmax_cross_entropy", LABELS), ("squared_error", ROWS)):
        net, gpu = gpu_network(loss)
        for x in (X, X.astype("float32"), np.asfortranarray(X), X[::-1], X[:, ::-1].copy()):
            result = gpu.forward(OnGpu(x))
            assert isinstance(result, HostArray)  # on the caller's device, but not of its kind
            assert_same(result, net.forward(x), 1e-12)
            J = gpu.cost(OnGpu(x), OnGpu(y), OnGpu(np.ones(4)))
            assert_same(J, net.cost(x, y), 1e-12)
        trainers = [gpumlp.Trainer(each, batch_size=2, lr=0.01) for each in (net, gpu)]
        trainers[0].fit(X, y, 2, progress=False)
        trainers[1].fit(OnGpu(X), OnGpu(y), 2, progress=False)
        assert_same(gpu.theta.flat, net.theta.flat, 1e-8)


def test_a_gpu_array_shares_its_memory():
    backend = gpu_network("squared_error")[1].backend
    ours, x = as_backend_array(OnGpu(X), backend), X.copy()
    assert backend._device.address(ours) == X.ctypes.data
    assert ours.shape == x.shape
    assert as_backend_array(ours, backend) is ours


def test_what_the_stream_of_the_caller_still_computes_is_waited_for():
    net = network(dropout=0.5)
    gpu = on_cuda_backend(net)

    def computed(a):
        return gpu.backend.asarray(a, dtype=a.dtype).astype(a.dtype)

    assert_same(gpu.forward(computed(X)), net.forward(X), 1e-12)
    assert_same(gpu.predict(computed(X), samples=2), net.predict(X, samples=2), 1e-12)
    assert_same(gpu.cost(computed(X), computed(LABELS)), net.cost(X, LABELS), 1e-12)
    got, want = (gpumlp.Ensemble.of([each]).cost_and_prediction for each in (gpu, net))
    assert_same(got(computed(X), computed(LABELS))[0], want(X, LABELS)[0], 1e-12)
    trainers = [gpumlp.Trainer(each, batch_size=2, lr=0.01) for each in (net, gpu)]
    given = X, LABELS, np.arange(1.0, 5.0)
    fits = [
        trainer.fit(*each[:2], 2, sample_weight=each[2], validation=each, progress=False)
        for trainer, each in zip(trainers, (given, [*map(computed, given)]), strict=True)
    ]
    for name in ("cost", "val_cost"):
        assert_same(fits[1][name], fits[0][name], 1e-9)


def test_the_cuda_backend_accepts_host_arrays():
    net, gpu = gpu_network("squared_error")
    for to in KINDS.values():
        x = to(X.astype("float32"))
        result = gpu.forward(x)
        assert type(result) is type(x)
        np.testing.assert_allclose(np.asarray(result), net.forward(X), rtol=1e-5, atol=1e-7)


def test_gpu_arrays_raise_on_the_numpy_backend():
    net = network()
    said = 'pass numpy.asarray(x), or build the network with backend="cupy"'
    for x, where in ((OnGpu(X), "a GPU"), (OnGpu1(), "GPU 1")):
        for operation in (net.forward, net.predict):
            refusal(
                ValueError, lambda x=x, operation=operation: operation(x),
                f"is on {where} but this network computes on the host", said,
            )  # fmt: skip
    refusal(ValueError, lambda: net.cost(X, OnGpu(LABELS)), "y, a tests OnGpu, is on a GPU")
    fit = gpumlp.Trainer(net).fit
    refusal(ValueError, lambda: fit(X, LABELS, sample_weight=OnGpu(X)), "sample_weight, a")


def test_unreadable_arrays_raise(monkeypatch):
    _, gpu = gpu_network("squared_error")
    backend = gpu.backend
    with monkeypatch.context() as patch:
        patch.setattr(backend._device, "adopt", lambda a: object())
        refusal(
            ValueError, lambda: gpu.forward(OnGpu1()), "is on GPU 1 but this network is on the CPU",
            "move one to the other's GPU",
        )  # fmt: skip
        patch.setattr(backend._device, "adopt", lambda a: a.__dlpack__())
        refusal(TypeError, lambda: gpu.forward(OnGpu1()), "cannot be read as an array (not here)")
    torch = pytest.importorskip("torch")
    for odd in (torch.ones(4, 3).to_sparse(), torch.ones(4, 3).to(torch.float8_e4m3fn)):
        refusal(TypeError, lambda odd=odd: network().forward(odd), "x, a torch Tensor, cannot be")
    meta = torch.ones(4, 3, device="meta")
    refusal(ValueError, lambda: network().forward(meta), "is on meta", "pass x.cpu()")


def test_assign_copies_gpu_arrays_to_the_host():
    """`assign` copies all its arguments."""
    net = network()
    twice = {name: 2 * a for name, a in net.tensors().items()}
    net.assign(
        {name: types.SimpleNamespace(get=lambda a=a: a, **GPUS) for name, a in twice.items()}
    )
    np.testing.assert_array_equal(net.tensors()["0.weight"], twice["0.weight"])


GPUS = {"__cuda_array_interface__": {}}


def test_cudf_frames_are_read_through_cupy(monkeypatch):
    cudf, cupy = types.ModuleType("cudf"), types.ModuleType("cupy")
    cudf.DataFrame = type("DataFrame", (), {"__module__": "cudf", "to_cupy": lambda self: OnGpu(X)})
    cupy.asarray = lambda a: ("cupy", a)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    net, gpu = gpu_network("squared_error")
    frame = cudf.DataFrame()
    assert_same(gpu._outputs(frame), net.forward(X), 1e-12)
    assert as_kind_of(X, frame)[0] == "cupy"
