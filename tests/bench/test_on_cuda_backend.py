"""The steps and suites of the benchmark on the CUDA backend, which runs on the CPU harness.

Nothing is timed. The tests show that the calls work on a device, and check their numbers.
"""

import contextlib
from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks import suite, test_kernels, test_products, test_training
from gpumlp.backends import cuda
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.backends.cuda.device import CudaDevice
from gpumlp.bench.cases import Case
from gpumlp.bench.correct import changes, check
from gpumlp.bench.peers import UNTUNED, Problem, builder, gpumlp_peer
from tests.support.fake_cupy import FakeCupy, with_clock
from tests.support.harness.host_device import HostDevice

CASE = Case("c", (12, 24, 24, 5), 32)
tuning = gpumlp_peer.tuning


@pytest.fixture(autouse=True)
def _harness(monkeypatch):
    def get_backend(backend, precision):
        return CudaBackend(HostDevice(), precision)

    monkeypatch.setattr(gpumlp_peer, "get_backend", get_backend)
    monkeypatch.setattr(gpumlp_peer, "tuning", contextlib.nullcontext)
    monkeypatch.setattr(suite, "get_backend", get_backend)
    monkeypatch.setattr(gpumlp_peer, "COPIES", 2)
    monkeypatch.setitem(gpumlp_peer.COPY_BYTES, "GPU", 4096)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(
    ("loss", "precision", "bar"),
    [
        ("softmax_cross_entropy", "float32", 1e-3),
        ("squared_error", "float32", 1e-3),
        ("squared_error", "bfloat16", 1),
        ("softmax_cross_entropy", "float16", 1),
    ],
)
def test_step_changes_the_parameters_as_numpy_does(optimizer, loss, precision, bar, monkeypatch):
    """In 16 bits the products read a copy of θ."""
    case = replace(CASE, optimizer=optimizer, loss=loss, precision=precision, activation="gelu")

    def stepped(one):
        problem = Problem(one, "cupy")
        step = gpumlp_peer.GpumlpStep(problem)
        step.run()
        step.synchronize()
        return changes(problem, step)

    got = stepped(case)
    with monkeypatch.context() as numpy_backend:
        from gpumlp.backends import get_backend

        numpy_backend.setattr(gpumlp_peer, "get_backend", lambda b, p: get_backend("numpy", p))
        exact = stepped(replace(case, precision="float64"))
    assert check(got, exact, case) < bar


def test_floor_replays_the_products_of_a_step_and_nothing_else():
    """As one graph: launches by Python would take longer than small products."""
    floor = gpumlp_peer.Floor(Problem(CASE, "cupy"))
    device = floor.backend._device
    device.calls.clear()
    floor.run()
    floor.synchronize()
    first, *calls, last = device.calls
    assert (first, last) == (f"replay of {len(CASE.products())}", "synchronize")
    shapes = []
    for call in calls:
        kind, _, *sizes, _ = call.split()
        assert kind == "gemm"
        shapes.append(tuple(map(int, sizes)))
    assert sorted(shapes) == sorted(CASE.products())
    assert floor.extra_seconds == CASE.rest_bytes() / floor.notes["copy_bytes_per_second"]


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")
class TestTuning:
    """Products and steps are measured before the step that is timed.

    CuPy and cublasLt are fakes, which multiply but launch no kernel.
    """

    case = replace(CASE, optimizer="adamw")

    @pytest.fixture
    def device(self, monkeypatch):
        lt = with_clock(monkeypatch)
        device = CudaDevice(FakeCupy(), lt)
        monkeypatch.setattr(cuda, "open_device", lambda: device)
        monkeypatch.setattr(gpumlp_peer, "get_backend", lambda _, p: CudaBackend(device, p))
        monkeypatch.setattr(gpumlp_peer, "tuning", tuning)
        return device

    def test_step_is_tuned_before_it_is_timed(self, device):
        step = gpumlp_peer.GpumlpStep(Problem(self.case, "cupy"))
        assert len(device.tuner.measured) == 1
        assert {choice.candidates for choice in device.tuner.choices.values()} == {3}
        assert None not in {choice.microseconds for choice in device.tuner.choices.values()}
        assert not device.tuner.measuring
        assert not device.tuner.steps
        start = dict(Problem(self.case, "cupy").theta())
        for name, tensor in step.tensors():  # what the measurements trained is forgotten
            assert (tensor == start[name]).all()
        device._blas._lt.calls.clear()
        step.run()
        assert {call["algo"] for call in device._blas._lt.calls} == {71}
        assert len(device._blas._lt.calls) == len(self.case.products())

    def test_exact_step_is_not_tuned(self, device):
        builder(UNTUNED)(Problem(self.case, "cupy")).run()
        assert not device.tuner.measured

    def test_floor_has_the_products_of_a_tuned_step(self, device):
        gpumlp_peer.Floor(Problem(self.case, "cupy"))
        choices = list(device.tuner.choices.values())
        assert choices
        assert {round(choice.microseconds) for choice in choices} == {3}


def benchmark(function=None, **settings):
    """Replaces the fixture of pytest-benchmark: calls the function once."""
    function()


benchmark.stats = None
benchmark.pedantic = lambda function, setup, **settings: (setup(), function())


@pytest.fixture
def _small(monkeypatch):
    monkeypatch.setattr(test_kernels, "COLS", 64)
    monkeypatch.setattr(test_kernels, "rows_of", lambda item: 72)
    for module in (suite, test_products, test_training):
        monkeypatch.setattr(module, "WIDTH", 24)
        monkeypatch.setattr(module, "ROWS", 8)


@pytest.mark.usefixtures("_small")
class TestSuites:
    @pytest.mark.parametrize("activation", ["relu", "mish"])
    def test_kernels(self, activation):
        test_kernels.test_activation_gradient_and_bias_sum(benchmark, activation)
        test_kernels.test_softmax_cross_entropy(benchmark)
        test_kernels.test_gather(benchmark)

    @pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adamw"])
    def test_update(self, optimizer):
        test_kernels.test_update(benchmark, optimizer)

    @pytest.mark.parametrize("activation", ["identity", "gelu"])
    def test_products(self, activation):
        test_products.test_forward(benchmark, activation)
        test_products.test_backward(benchmark, activation)
        test_products.test_weight_gradient(benchmark)
        test_products.test_input_gradient(benchmark)

    def test_training(self):
        test_training.test_step(benchmark, "relu", "sgd")
        test_training.test_epoch(benchmark, "sgd")
        test_training.test_inference(benchmark, 9)

    def test_extra_info(self):
        """GB/s, the share of a copy's speed, and TFLOP/s, for a median that is known.

        On a GPU it is the median of a graph of several calls.
        """
        stats = SimpleNamespace(stats=SimpleNamespace(median=0.5))

        def timed(function):
            function()

        timed.stats, timed.extra_info = stats, {}
        where = suite.backend()
        suite.timed(timed, where, lambda: None, moved=10**6, flops=10**12)
        assert timed.extra_info["seconds"] == 0.5 / suite.CALLS
        assert timed.extra_info["tflops"] == 2.0 * suite.CALLS
        assert timed.extra_info["gigabytes_per_second"] == 10**6 / (0.5 / suite.CALLS) / 1e9
        assert timed.extra_info["share_of_copy"] > 0
