"""Networks with embeddings on the CUDA backend, executed on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import MLP, Trainer
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.backends.cuda.plans import Gemm
from gpumlp.backends.numpy.backend import NumpyBackend
from gpumlp.backends.stages import parts
from tests.support.cuda_networks import (
    NEAR,
    assert_gradients_near,
    assert_members_train_alone,
    assert_near,
    assert_same,
    device,
    moved,
    on_cuda_backend,
    on_host,
    relative,
)
from tests.support.embeddings import EMBED, WIDTHS, examples, network, with_places
from tests.support.harness.host_device import HostDevice

X, LABELS = examples(320)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {}, "wide": {"embed": {0: (300, 40), 5: (2, 1)}},
    "blocks": {"norm": "layer", "gated": "silu", "residual": True},
    "batch norm": {"norm": "batch"},
}  # fmt: skip


def data(kind: str) -> Any:
    return examples(320, KINDS[kind].get("embed"))[0]


def fitted(
    net: MLP, optimizer: Any = "adamw", steps: int = 5, kind: str = "plain", **settings: Any
) -> Trainer:
    """Some steps, of 16 examples each."""
    trainer = Trainer(net, optimizer, **{"lr": 0.01, "batch_size": 16, "seed": 3, **settings})
    m = steps * trainer.batch_size
    trainer.fit(data(kind)[:m], LABELS[:m], 1, progress=False)
    assert trainer.steps == steps
    return trainer


@pytest.mark.parametrize("order", [0, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_steps_of_adamw(kind: str, order: int) -> None:
    """The second step is recorded, and the others replay it."""
    net = network(**KINDS[kind])
    gpu = on_cuda_backend(net, order)
    fitted(net, steps=20, kind=kind)
    fitted(gpu, steps=20, kind=kind)
    assert any(call.startswith("replay") for call in device(gpu).calls)
    assert_near(gpu, net)
    assert_same(gpu.forward(data(kind)), net.forward(data(kind)), 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str) -> None:
    net = network(regularizer=gpumlp.L2(0.1), **KINDS[kind])
    gpu = on_cuda_backend(net, order=1)
    assert_gradients_near(gpu, net, data(kind), LABELS)


@pytest.mark.parametrize(
    "settings",
    [
        {"accumulate": 2, "batch_size": 16}, {"clip_norm": 0.1, "ema": 0.9}, {"memory": "low"},
        {"shards": 2}, {"groups": {"embeddings": gpumlp.Group(lr=2.0, decay=0.0)}},
    ],
    ids=lambda each: next(iter(each)),
)  # fmt: skip
def test_settings(settings: dict[str, Any]) -> None:
    net = network()
    gpu = on_cuda_backend(net)
    fitted(net, **settings)
    fitted(gpu, **settings)
    assert_near(gpu, net)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd", "momentum"])
@pytest.mark.parametrize("way", ["branched", "branched, early update", "early update, reserved"])
@pytest.mark.parametrize("late", [False, True])
def test_ways_of_a_step(optimizer: str, way: str, late: bool) -> None:
    """Folded, early, by Muon, and with work of other streams as late as it may be."""
    net = network()
    gpu = on_cuda_backend(net)
    device(gpu).variant, device(gpu).late_branches = way, late
    fitted(net, optimizer)
    fitted(gpu, optimizer)
    assert_near(gpu, net)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
def test_sgd_changes_the_rows_of_codes_alone(precision: str, late: bool) -> None:
    """But in 16 bits, where θ is also rounded."""
    net = network(precision="float64")
    gpu = on_cuda_backend(net, precision=precision)
    device(gpu).late_branches = late
    start, near = net.tensors(), {"float64": 1e-12, "float32": 1e-4, "bfloat16": 0.1}[precision]
    fitted(net, "sgd", lr=0.5, ema=0.9)
    fitted(gpu, "sgd", lr=0.5, ema=0.9)
    assert relative(moved(gpu, start), moved(net, start)) < near
    folded, apart = (
        Trainer(gpu, "sgd", batch_size=16, fold=fold).explain(320) for fold in (None, False)
    )
    results = [{line.result.split(", ")[-1] for line in each.lines} for each in (folded, apart)]
    assert ("θ E" in results[0]) == (precision != "bfloat16")
    assert "∇J E" in results[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", NEAR)
def test_precisions(precision: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near a training in float64, as far as the roundings of each precision allow."""
    adamw = gpumlp.OPTIMIZERS["adamw"].set(eps=1e-4)
    monkeypatch.setattr("gpumlp.step.training.SCALE", 1024.0)  # with 65536 some steps are left out
    net = network(**KINDS[kind])
    gpu = on_cuda_backend(net, precision=precision)
    start = {name: tensor.copy() for name, tensor in net.tensors().items()}
    of_gradients, of_steps = NEAR[precision]
    (_, want), (_, got) = (each.cost_and_gradients(data(kind), LABELS) for each in (net, gpu))
    for name, each in want.named.items():
        assert relative(got.named[name], each) < of_gradients
    fitted(net, adamw, kind=kind)
    fitted(gpu, adamw, kind=kind)
    assert relative(moved(gpu, start), moved(net, start)) < of_steps


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("placed", ["device", "stream"])
def test_codes_are_not_rounded(precision: str, placed: str) -> None:
    """bfloat16 has whole numbers up to 256 only, and float16 no number above 65504."""
    net = MLP([2, 3, 2], embed={0: (90_001, 4)}, precision="float32", backend="numpy")
    gpu = on_cuda_backend(net, precision=precision)
    codes = [90_000, 39_873, 257, 2049]
    x, y = np.column_stack([codes, np.linspace(0, 1, 4)]), [0, 1, 0, 1]
    trainer = Trainer(gpu, "adam", lr=0.5, batch_size=4)
    trainer.fit(x, y, 2, progress=False, data=placed)
    before, after = (each.tensors()["embed.0.weight"] for each in (net, gpu))
    assert np.flatnonzero((before != after).any(axis=1)).tolist() == sorted(codes)
    x[2, 1] = 1e6
    if precision == "float16":
        with pytest.raises(ValueError, match="beyond the network's float16"):
            trainer.fit(x, y, 1, progress=False)


def test_first_launches_are_one() -> None:
    """`begin` gathers x also where it has not the storage type."""
    for precision in ("float32", "bfloat16"):
        gpu = on_cuda_backend(network(precision="float32"), precision=precision)
        fitted(gpu)
        names = [call.split()[1] for call in device(gpu).launches if call.startswith("kernel")]
        assert "begin_minibatch" in names
        assert "gather" not in names
        assert names.count("embed") == names.count("embed_sort") == names.count("embed_sum") == 5


def test_arrays_on_the_device() -> None:
    """In θ's type they are used without a copy; codes that are out of range raise."""
    net = network(precision="float32")
    gpu = on_cuda_backend(net)
    x = gpu.backend.asarray(X)
    assert_same(gpu.forward(x), net.forward(X), 1e-5)
    for each, rows in ((net, X), (gpu, x)):
        Trainer(each, "adamw", lr=0.01, batch_size=16, seed=3).fit(rows, LABELS, 1, progress=False)
    for name, tensor in net.tensors().items():
        assert_same(gpu.tensors()[name], tensor, 2e-4)
    x.values[5, 4] = 11
    for call in (lambda: gpu.predict(x), lambda: Trainer(gpu).fit(x, LABELS, 1, progress=False)):
        with pytest.raises(ValueError, match=r"x\[5, 4\] is 11"):
            call()


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_members_in_lockstep(precision: str) -> None:
    assert_members_train_alone(precision, WIDTHS, X, LABELS, embed=EMBED)


# ---- the operations ----------------------------------------------------------------------------


@pytest.mark.parametrize("networks", [1, 3])
@pytest.mark.parametrize("m", [7, 1500])
def test_operations_of_networks(m: int, networks: int) -> None:
    """E and dE are views of θ and of its gradient; of 1500 examples, tiles are merged."""
    gpu, cpu = CudaBackend(HostDevice(order=2), "float64"), NumpyBackend("float64")
    embeddings = with_places(4, {1: (9, 3), 2: (1200, 5)})
    rng = np.random.default_rng(m)
    x = rng.normal(size=(networks, m, 4))
    for one in embeddings.each:
        x[..., one.column] = np.minimum(rng.integers(0, 2 * one.c, (networks, m)), one.c - 1)
    n = embeddings.starts[-1] + 1200 * 5
    E, g = rng.normal(size=(networks, n)), rng.normal(size=(networks, m, 10))
    order = np.zeros((networks, 2, 2, m), np.int64)
    sums = np.zeros((networks, parts(m), 2, embeddings.added))
    results = []
    for backend in (cpu, gpu):
        arrays = [backend.asarray(a, dtype=a.dtype) for a in (x, E, g, order, sums)]
        h, dE = backend.full((networks, m, embeddings.width), 0), backend.full((networks, n), 5)
        on_x, on_E, on_g, *scratch, on_h, on_dE = [
            a if networks > 1 else a[0] for a in (*arrays, h, dE)
        ]
        backend.embed(on_x, on_E, embeddings, on_h)
        backend.embed_gradient(on_x, on_g, embeddings, *scratch, on_dE)
        results.append((on_host(h), on_host(dE)))
    for want, got in zip(*results, strict=True):
        assert_same(got, want, 1e-12)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("plain", [0, 3, 8])
def test_the_product_reads_columns_of_w(plain: int, precision: str) -> None:
    gpu = CudaBackend(HostDevice(), precision)
    rng = np.random.default_rng(plain)
    gz, W = rng.integers(-8, 8, (5, 4)), rng.integers(-8, 8, (4, plain + 6))
    on_gpu = [gpu.asarray(a, dtype=gpu.storage) for a in (gz, W)]
    gx = gpu.empty((5, 6), gpu.storage)
    gpu.input_gradient(*on_gpu, gx)
    assert np.array_equal(on_host(gx).astype(float), gz @ W[:, plain:])
    product = Gemm.of(on_gpu[0], on_gpu[1][:, plain:], gx, False, False, precision, None, None)
    assert product.row == (plain + 6 if plain else 0)
    assert product.layouts()["A"] == (6, 4, plain + 6)
    assert (f"rows of {plain + 6}" in str(product)) == (plain > 0)
