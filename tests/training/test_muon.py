"""Muon against torch's, in both backends."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends import get_backend
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.functions.optimizers import NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS
from gpumlp.step import passes
from tests.support.compiled import needs_compiler
from tests.support.cuda_networks import (
    assert_same,
    classifier,
    device,
    on_cuda_backend,
    on_host,
    problem,
    trained,
)
from tests.support.harness.host_device import HostDevice

MUON = gpumlp.OPTIMIZERS["muon"]
SHAPES = [(8, 8), (5, 17), (17, 5), (1, 9), (9, 1), (1, 1), (64, 33), (70, 130)]


def deep(f: str = "tanh", **settings: Any) -> gpumlp.MLP:
    """A network with layers of equal shape: one, two of (9, 9), one, and two of (8, 8)."""
    return gpumlp.MLP([5, 9, 9, 9, 8, 8, 8, 3], f, backend="numpy", **settings)


def by_the_book(V: Any, scale: float) -> Any:
    """The formula of the iteration, applied to the singular values: V = Q diag(σ) Rᵀ.

    V is a matrix or a stack of them.
    """
    Q, sigma, R = np.linalg.svd(V.astype(np.float64), full_matrices=False)
    sigma = sigma / np.maximum(np.sqrt((sigma**2).sum(-1, keepdims=True)), 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        sigma = a * sigma + b * sigma**3 + c * sigma**5
    return scale * (Q * sigma[..., None, :]) @ R


def orthogonalized(backend: Any, V: Any, scale: float = 1.0, padding: int = 0) -> Any:
    """What the operation makes of a matrix, or of a stack of them; the padding stays as it is."""
    stack = V.reshape(-1, *V.shape[-2:])
    K, size, r = len(stack), stack[0].size, min(stack.shape[1:])
    rows = np.concatenate([stack.reshape(K, size), np.full((K, padding), 7.25)], axis=1)
    ours = backend.asarray(rows)
    buffers = (backend.empty(shape) for shape in (stack.shape, (K, r, r), (K, r, r)))
    backend.orthogonalize(ours, scale, *buffers)
    got = backend.to_host(ours)
    assert (got[:, size:] == 7.25).all()
    return got[:, :size].reshape(V.shape)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> Any:
    """torch with an iteration that does not round to bfloat16."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda tensor: tensor.clone())
    return torch


# ---- the operation -------------------------------------------------------------------------------


BACKENDS: dict[str, tuple[Callable[[], Any], float]] = {
    "numpy float64": (lambda: get_backend("numpy", "float64"), 1e-11),
    "numpy float32": (lambda: get_backend("numpy", "float32"), 1e-3),
    "cpu float64": (lambda: get_backend("cpu", "float64"), 1e-11),
    "cpu float32": (lambda: get_backend("cpu", "float32"), 1e-3),
    **{
        f"harness {precision}": (
            lambda precision=precision: CudaBackend(HostDevice(), precision),
            {"float64": 1e-11, "bfloat16": 0.06, "float16": 0.01}.get(precision, 1e-3),
        )
        for precision in ("float64", "float32", "tf32", "bfloat16", "float16")
    },
}
NAMES = [
    pytest.param(name, marks=needs_compiler if name.startswith("cpu") else ()) for name in BACKENDS
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonalize_is_the_iteration_on_singular_values(
    shape: tuple[int, int], name: str
) -> None:
    open_backend, tolerance = BACKENDS[name]
    V = np.random.default_rng(0).normal(size=shape)
    got = orthogonalized(open_backend(), V, 1.5)
    np.testing.assert_allclose(got, by_the_book(V, 1.5), rtol=0, atol=tolerance)
    sigma = np.linalg.svd(got / 1.5, compute_uv=False)
    assert 0.5 < sigma.min() <= sigma.max() < 1.25


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_batch_has_the_bits_of_single_matrices(
    shape: tuple[int, int], padding: int, name: str
) -> None:
    """Also beside zeros and a member that is not finite."""
    backend, V = BACKENDS[name][0](), np.random.default_rng(4).normal(size=(5, *shape))
    V *= np.reshape((1.0, 0.0, 1e3, np.inf, 1e-2), (5, 1, 1))
    got = orthogonalized(backend, V, 1.5, padding)
    for one, alone in zip(got, V, strict=True):
        assert one.tobytes() == orthogonalized(backend, alone, 1.5).tobytes()
    assert not got[1].any()
    assert np.isnan(got[3]).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonalize_equals_torchs(exact: Any, shape: tuple[int, int]) -> None:
    from torch.optim._muon import _zeropower_via_newtonschulz

    V = np.random.default_rng(1).normal(size=shape)
    theirs = _zeropower_via_newtonschulz(exact.tensor(V), NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS, 1e-7)
    got = orthogonalized(get_backend("numpy", "float64"), V)
    np.testing.assert_allclose(got, theirs.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_orthogonalize_of_zeros_small_and_large_numbers(name: str) -> None:
    open_backend, tolerance = BACKENDS[name]
    backend, V = open_backend(), np.random.default_rng(2).normal(size=(6, 4))
    assert not orthogonalized(backend, 0 * V).any()
    for size in (1e-4, 1e15):
        np.testing.assert_allclose(
            orthogonalized(backend, size * V), orthogonalized(backend, V), rtol=0,
            atol=max(1e-3, tolerance),
        )  # fmt: skip
    for odd in (np.nan, np.inf, -np.inf):
        V[3, 2] = odd
        assert np.isnan(orthogonalized(backend, V)).all()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_products_of_16_bit_networks_have_16_bits(precision: str) -> None:
    gpu = HostDevice()
    orthogonalized(CudaBackend(gpu, precision), np.ones((3, 5)))
    products = [call for call in gpu.calls if call.startswith("gemm")]
    shapes = "NT 3 3 5", "NN 3 3 3", "NN 3 5 3"
    assert products == 5 * [f"gemm {shape} {precision}" for shape in shapes]


# ---- the step ------------------------------------------------------------------------------------


@pytest.fixture(params=["single layers", "batches"])
def _batches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of equal shape are one operation also on the host."""
    if request.param == "batches":
        insert = passes.orthogonalize
        monkeypatch.setattr(
            passes, "orthogonalize", lambda *args: insert(*args[:-1], passes.BATCH_BYTES)
        )


@pytest.mark.usefixtures("_batches")
@pytest.mark.parametrize("backend", ["numpy", pytest.param("cpu", marks=needs_compiler)])
@pytest.mark.parametrize("params", [{}, {"mu": 0.8, "weight_decay": 0.3, "rest": 0.02}])
@pytest.mark.parametrize(
    "widths", [[5, 9, 8, 3], [5, 4, 2], [5, 7, 7, 7, 1], [5, 8, 8, 8, 6, 6, 6, 2]]
)
def test_theta_equals_torchs(exact: Any, widths: list[int], params: Any, backend: str) -> None:
    """Every W but the last by torch.optim.Muon, the rest by its AdamW, after 30 steps."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(60, 5)), rng.normal(size=(60, widths[-1]))
    settings = {"loss": "squared_error", "precision": "float64", "backend": backend}
    net = gpumlp.MLP(widths, "tanh", regularizer=gpumlp.L2(0.01), **settings)
    rule, lr, start = MUON.set(**params), 0.03, net.tensors()
    layers = [exact.nn.Linear(i, o).double() for i, o in pairwise(widths)]
    for k, layer in enumerate(layers):
        layer.weight.data = exact.tensor(start[f"{2 * k}.weight"])
        layer.bias.data = exact.tensor(start[f"{2 * k}.bias"])
    hidden = [layer.weight for layer in layers[:-1]]
    rest = [layers[-1].weight, *(layer.bias for layer in layers)]
    p = rule.params
    optimizers = [
        exact.optim.Muon(hidden, lr=lr, weight_decay=p["weight_decay"], momentum=p["mu"]),
        exact.optim.AdamW(rest, lr=p["rest"] * lr, weight_decay=p["weight_decay"]),
    ]
    for _ in range(30):
        h = exact.tensor(x)
        for layer in layers[:-1]:
            h = exact.tanh(layer(h))
        omega = sum((q**2).sum() for q in [*hidden, *rest])
        J = ((layers[-1](h) - exact.tensor(y)) ** 2).mean() + 0.005 * omega
        for optimizer in optimizers:
            optimizer.zero_grad()
        J.backward()
        for optimizer in optimizers:
            optimizer.step()
    gpumlp.Trainer(net, rule, lr, batch_size=60).fit(x, y, 30, progress=False)
    for ours, theirs in zip(net.layers, layers, strict=True):
        for got, want in ((ours.W, theirs.weight), (ours.b, theirs.bias)):
            np.testing.assert_allclose(got, want.detach().numpy(), rtol=0, atol=1e-9)
    moved = np.abs(net.tensors()["0.weight"] - start["0.weight"])
    assert moved.mean() > 0.05


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-9), ("float32", 1e-3)])
@pytest.mark.parametrize(
    "settings", [{}, {"clip_norm": 0.5}, {"memory": "low"}, {"ema": 0.9}, {"accumulate": 3}]
)
@pytest.mark.parametrize("network", [classifier, deep])
def test_both_backends_agree(network: Any, settings: Any, precision: str, tolerance: float) -> None:
    net = network(precision=precision)
    gpu = on_cuda_backend(net)
    for each in (net, gpu):
        trained(each, "muon", steps=10, **settings)
    assert_same(gpu.theta.flat, net.theta.flat, tolerance)


@pytest.mark.parametrize("settings", [{}, {"accumulate": 3}], ids=str)
@pytest.mark.parametrize("precision", ["float64", "float32", "tf32", "bfloat16", "float16"])
def test_batches_of_layers_change_no_bit(
    precision: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends, batches = [], []
    for most in (passes.BATCH_BYTES, 0):
        monkeypatch.setattr(passes, "BATCH_BYTES", most)
        gpu = on_cuda_backend(deep("relu", precision="float32"), precision=precision)
        trainer = trained(gpu, "muon", steps=5, **settings)
        ends.append((on_host(gpu.theta.flat).tobytes(), on_host(trainer.slots).tobytes()))
        batches.append(sum(call.endswith("batch of 2") for call in device(gpu).calls))
    assert ends[0] == ends[1]
    assert batches == [5 * 2 * 15, 0]  # in each step, for 9 · 9 and for 8 · 8


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_branches_and_the_order_of_threads_change_no_bit(precision: str) -> None:
    ends = []
    for order, way, late in ((0, "", False), (1, "branched", False), (2, "branched", True)):
        net = classifier("relu", precision="float32")
        gpu = on_cuda_backend(net, order, precision=precision)
        device(gpu).variant, device(gpu).late_branches = way, late
        trainer = trained(gpu, "muon")
        ends.append((on_host(gpu.theta.flat).tobytes(), on_host(trainer.slots).tobytes()))
        rounded = on_host(gpu.rounded.flat)
        assert rounded.tobytes() == on_host(gpu.theta.flat).astype(rounded.dtype).tobytes()
    assert ends[1:] == [ends[0]] * 2


@pytest.mark.parametrize("network", [classifier, deep])
@pytest.mark.parametrize("backend", ["numpy", "harness"])
def test_padding_stays_zero(backend: str, network: Any) -> None:
    net = network()
    net = on_cuda_backend(net) if backend == "harness" else net
    trainer = trained(net, "muon", steps=10)
    inside = sum(np.abs(tensor, dtype="f8").sum() for tensor in net.tensors().values())
    assert np.abs(on_host(net.theta.flat), dtype="f8").sum() == pytest.approx(inside, rel=1e-12)
    used, layout = np.zeros(net.theta.layout.size, bool), net.theta.layout
    for start, part in zip(layout.starts, layout.parts, strict=False):
        used[start : start + np.prod(part.shape)] = True
    assert not on_host(trainer.slots)[:, ~used].any()


def test_linear_network_trains_by_adamw() -> None:
    """Its only W is the last one."""
    x, y, _ = problem()
    ends = []
    for name, lr in (("muon", 0.02), ("adamw", 0.1 * 0.02)):
        net = gpumlp.MLP([5, 3], precision="float64", backend="numpy")
        gpumlp.Trainer(net, name, lr, batch_size=16).fit(x, y, 5, progress=False)
        ends.append(net.theta.flat.copy())
    np.testing.assert_array_equal(*ends)


def test_a_step_that_overflows_is_skipped() -> None:
    gpu = on_cuda_backend(classifier(precision="float32"), precision="float16")
    trainer = gpumlp.Trainer(gpu, "muon", batch_size=70)
    trainer.scaling.values[:2] = 2.0**40, 2.0**-40
    x, y, _ = problem()
    before = on_host(gpu.theta.flat).copy()
    trainer.fit(x, y, 1, progress=False)
    assert trainer.scaling.values[3] == 1
    assert on_host(gpu.theta.flat).tobytes() == before.tobytes()


@pytest.mark.parametrize("network", [classifier, deep])
def test_the_launches_of_its_update(network: Any) -> None:
    """One rule for the rest, one before and one after, and 2 + 5 · 4 launches for each shape."""
    gpu = on_cuda_backend(network(precision="float32"))
    x, y, _ = problem(48)
    gpumlp.Trainer(gpu, "muon", batch_size=16).fit(x, y, 1, metric=None, progress=False)
    calls = device(gpu).calls
    last = max(i for i, call in enumerate(calls) if call.startswith("replay"))
    names = [call.split()[1] for call in calls[last + 1 :][: int(calls[last].split()[-1])]]
    update = names[names.index("update") :]
    turn = ["NT", "NN", "quintic", "NN"]
    tall = ["TN", "NN", "quintic", "NN"]
    one, other = (["squares", "normalize", *5 * part] for part in (tall, turn))
    between = [] if network is classifier else [*other, *other]  # two of (9, 9), and (8, 9)
    assert update == ["update", "update", *one, *between, *other, "update"]


def test_16_bit_slots_raise() -> None:
    gpu = on_cuda_backend(classifier(precision="float32"))
    with pytest.raises(ValueError, match=r"'bfloat16' does not go with muon.*slot_precision=None"):
        gpumlp.Trainer(gpu, "muon", slot_precision="bfloat16")


def test_fold_with_muon_raises() -> None:
    with pytest.raises(ValueError, match="muon needs the gradient in addition to its state"):
        gpumlp.Trainer(classifier(), "muon", fold=True)


# ---- that it learns ------------------------------------------------------------------------------


def test_muon_learns_digits_in_fewer_steps_than_adamw() -> None:
    """Default settings, against AdamW by default and at twice its rate: J of the training data."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = ((x - x.mean(0)) / (x.std(0) + 1e-9)).astype(np.float32)
    costs = {}
    for optimizer, lr in (("muon", None), ("adamw", 1e-3), ("adamw", 2e-3)):
        net = gpumlp.MLP([64, 128, 128, 10], "relu", backend="numpy")
        gpumlp.Trainer(net, optimizer, lr, batch_size=64).fit(x, y, 5, progress=False)
        costs[optimizer, lr] = net.cost(x, y)
    assert costs["muon", None] < 0.8 * min(costs["adamw", 1e-3], costs["adamw", 2e-3]), costs
