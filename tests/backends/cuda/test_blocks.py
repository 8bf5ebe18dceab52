"""Networks with norms, gates, dropout and skips on the CUDA backend, executed on the CPU."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import MLP, Trainer
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.backends.numpy.backend import NumpyBackend
from gpumlp.functions import ACTIVATIONS
from gpumlp.functions.stages import NORMS, Stage, gate
from tests.support.blocks import BATCH_BY_MEANS, COLUMN_RMS, DYT, ROW_NORMS, UNIT_NORM
from tests.support.compiled import needs_library
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
from tests.support.harness.host_device import HostDevice

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(320, 6)), RNG.integers(0, 3, 320)
WIDTHS = [6, 16, 16, 9, 3]
BLOCKS: dict[str, dict[str, Any]] = {
    "layer norm": {"norm": "layer"},
    "rms norm": {"norm": "rms"},
    "gates": {"gated": ["silu", None, "gelu"]},
    "dropout": {"dropout": [0.1, 0.5, 0.0]},
    "skips": {"residual": True},
    "own stages": {"norm": [DYT, UNIT_NORM, None]},
    "all": {"norm": "layer", "gated": "silu", "dropout": 0.2, "residual": True},
    "mixed": {"norm": ["rms", None, "layer"], "dropout": 0.3, "residual": 2},
    "batch norm": {"norm": "batch"},
    "own norms of columns": {"norm": [COLUMN_RMS, BATCH_BY_MEANS, COLUMN_RMS]},
    "all with batch norm": {
        "norm": ["batch", "batch", "layer"],
        "gated": "silu",
        "dropout": 0.2,
        "residual": True,
    },
}


def network(kind: str, precision: str = "float64", **more: Any) -> MLP:
    settings = {"precision": precision, "backend": "numpy", **BLOCKS[kind], **more}
    net = MLP(WIDTHS, "gelu", **settings)
    rng = np.random.default_rng(5)
    net.assign({n: t + 0.1 * rng.normal(size=t.shape) for n, t in net.tensors().items()})
    return net


def fitted(net: MLP, optimizer: Any = "adamw", steps: int = 5, **settings: Any) -> Trainer:
    """Some steps, of 16 examples each."""
    trainer = Trainer(net, optimizer, **{"lr": 0.01, "batch_size": 16, "seed": 3, **settings})
    m = steps * trainer.batch_size
    trainer.fit(X[:m], LABELS[:m], 1, progress=False)
    assert trainer.steps == steps
    return trainer


@pytest.mark.parametrize("order", [0, 3])
@pytest.mark.parametrize("kind", BLOCKS)
def test_twenty_steps_of_adamw(kind: str, order: int) -> None:
    """The second step is recorded, and the others replay it."""
    net = network(kind)
    gpu = on_cuda_backend(net, order)
    fitted(net, steps=20)
    fitted(gpu, steps=20)
    assert any(call.startswith("replay") for call in device(gpu).calls)
    assert_near(gpu, net)
    assert_same(gpu.forward(X), net.forward(X), 1e-12)


@needs_library
@pytest.mark.parametrize("kind", BLOCKS)
def test_twenty_steps_on_the_compiled_backend(kind: str) -> None:
    net = network(kind)
    cpu = network(kind, backend="cpu")
    fitted(net, steps=20)
    fitted(cpu, steps=20)
    assert_near(cpu, net)


@pytest.mark.parametrize("kind", BLOCKS)
def test_gradients(kind: str) -> None:
    net = network(kind, regularizer=gpumlp.L2(0.1))
    gpu = on_cuda_backend(net, order=1)
    assert_gradients_near(gpu, net, X, LABELS)


@pytest.mark.parametrize("kind", ["all", "all with batch norm"])
@pytest.mark.parametrize(
    "settings",
    [
        {"accumulate": 2, "batch_size": 16}, {"clip_norm": 0.1, "ema": 0.9}, {"memory": "low"},
        {"shards": 2, "accumulate": 2},
    ],
    ids=lambda each: "-".join(each),
)  # fmt: skip
def test_settings(settings: dict[str, Any], kind: str) -> None:
    """Micro-batches have the masks, and the statistics, of the whole minibatch."""
    net = network(kind)
    gpu = on_cuda_backend(net)
    fitted(net, **settings)
    fitted(gpu, **settings)
    assert_near(gpu, net)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd", "momentum"])
@pytest.mark.parametrize("way", ["branched", "branched, early update"])
def test_weights_of_skips(optimizer: str, way: str) -> None:
    """They are updated as W is: folded, early, by Muon; and are read before."""
    net = network("all")
    gpu = on_cuda_backend(net)
    device(gpu).variant = way
    groups = {"weights": gpumlp.Group(lr=0.5)}
    fitted(net, optimizer, groups=groups)
    fitted(gpu, optimizer, groups=groups)
    assert_near(gpu, net)
    start = network("all").tensors()["4.skip.weight"]
    assert np.abs(net.tensors()["4.skip.weight"] - start).max() > 1e-4


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("precision", NEAR)
def test_precisions(precision: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near a training in float64, as far as the roundings of each precision allow.

    With adamw's usual ε, a gradient near 0 moves θ as far as others, and with it its rounding.
    """
    adamw = gpumlp.OPTIMIZERS["adamw"].set(eps=1e-4)
    monkeypatch.setattr("gpumlp.step.training.SCALE", 1024.0)  # with 65536 some steps are left out
    net = network(kind)
    gpu = on_cuda_backend(net, precision=precision)
    start = {name: tensor.copy() for name, tensor in net.tensors().items()}
    of_gradients, of_steps = NEAR[precision]
    (_, want), (_, got) = (each.cost_and_gradients(X, LABELS) for each in (net, gpu))
    for name in ("W", "b"):
        for one, other in zip(getattr(got, name), getattr(want, name), strict=True):
            assert relative(one, other) < of_gradients
    fitted(net, adamw)
    fitted(gpu, adamw)
    assert relative(moved(gpu, start), moved(net, start)) < of_steps


def test_statistics_beside_a_split_theta() -> None:
    """With a remainder, steps keep θ elsewhere, and the statistics where they are."""
    found = []
    for settings in ({}, {"remainder": True}):
        gpu = on_cuda_backend(network("batch norm"), precision="bfloat16")
        fitted(gpu, **settings)
        found.append({name: a for name, a in gpu.tensors().items() if "running" in name})
    first = network("batch norm").tensors()
    for name, want in found[0].items():
        assert relative(found[1][name], want) < 1e-2 < relative(first[name], want)


LOCKSTEP = [kind for kind in BLOCKS if "batch" not in kind and "columns" not in kind]


@pytest.mark.parametrize(
    ("kind", "precision"),
    [(kind, "float64") for kind in LOCKSTEP] + [("all", "bfloat16"), ("own stages", "bfloat16")],
)
def test_members_in_lockstep(kind: str, precision: str) -> None:
    assert_members_train_alone(precision, WIDTHS, X[:90], LABELS[:90], **BLOCKS[kind])


# ---- the operations ----------------------------------------------------------------------------


def both(a: Any, gpu: CudaBackend) -> tuple[Any, Any]:
    """An array of each backend."""
    return a.copy(), gpu.asarray(a)


@pytest.mark.parametrize("cols", [16, 37])
@pytest.mark.parametrize("networks", [1, 3])
@pytest.mark.parametrize(
    "stage", [*ROW_NORMS.values(), DYT, UNIT_NORM, gate(ACTIVATIONS["silu"])], ids=repr
)
def test_stages_of_networks(stage: Stage, networks: int, cols: int) -> None:
    """φ and dφ are views of θ and of a shorter array, as those of micro-batches are."""
    gpu, cpu = CudaBackend(HostDevice(order=2), "float64"), NumpyBackend("float64")
    rng, p = np.random.default_rng(cols), len(stage.initial)
    of_gradient = (2 * cols,) if stage.halves else (p, cols)  # of a gate ∇b
    shape, wide = (networks, 40, cols), (networks, 40, cols * (2 if stage.halves else 1))
    x, gy = both(rng.normal(size=wide), gpu), both(rng.normal(size=shape), gpu)
    y, gx = both(np.zeros(shape), gpu), both(np.zeros(wide), gpu)
    theta = both(rng.normal(size=(networks, 320)), gpu)
    dtheta = both(np.zeros((networks, 224)), gpu)

    def views(flat: Any, start: int, own: tuple[int, ...]) -> Any:
        if not prod(own):
            return None
        parts = [flat[i][start : start + prod(own)].reshape(own) for i in range(networks)]
        if networks == 1:
            return parts[0]
        whole = flat.values if hasattr(flat, "values") else flat
        view = np.lib.stride_tricks.as_strided(
            whole[:, start:], (networks, *own), (whole.strides[0], *([8 * cols, 8][-len(own) :]))
        )
        return type(flat)(view) if hasattr(flat, "values") else view

    for backend, i in ((cpu, 0), (gpu, 1)):
        own = [each[i] if networks > 1 else each[i][0] for each in (x, gy, y, gx)]
        phi, dphi = views(theta[i], 32, (p, cols)), views(dtheta[i], 64, of_gradient)
        backend.stage(stage, own[0], phi, own[2])
        backend.stage_gradient(stage, own[0], phi, own[1], None, own[3], dphi)
    for host, other in (y, gx, dtheta):
        assert_same(other, host, 1e-12)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("cols", [16, 7])
def test_dropout_of_micro_batches(cols: int, precision: str) -> None:
    """The parts of a minibatch have the masks of the whole, to the bit, and those of NumPy."""
    gpu, cpu = CudaBackend(HostDevice(), precision), NumpyBackend(precision)
    x = np.random.default_rng(0).normal(size=(50, cols)).astype(cpu.dtype)
    seed, control, want = np.array([2**62 + 5]), np.array([0.1, 9.0]), np.empty_like(x)
    cpu.dropout(x, 0.3, 4, 0, seed, control, None, want)
    y = gpu.asarray(x)
    on_gpu = gpu.asarray(seed, np.int64), gpu.asarray(control, np.float64)
    for rows in (slice(0, 16), slice(16, 17), slice(17, 50)):
        gpu.dropout(y[rows], 0.3, 4, rows.start, *on_gpu, None, y[rows])
    assert on_host(y).tobytes() == want.tobytes()
    assert 0.2 < (want == 0).mean() < 0.4


def test_a_norm_whose_sums_do_not_fit_raises() -> None:
    gpu, norm = CudaBackend(HostDevice(multiprocessors=1)), NORMS["layer"]
    x, phi = (gpu.full((rows, 20_000), 1) for rows in (1, 2))
    with pytest.raises(gpumlp.DeviceError, match="20000 columns"):
        gpu.stage_gradient(norm, x, phi, x, None, x, phi)


@pytest.mark.parametrize("kind", ["dropout", "all"])
def test_predictions_with_dropout(kind: str) -> None:
    net = network(kind, loss="squared_error")
    gpu = on_cuda_backend(net)
    want, got = (each.predict(X, samples=5) for each in (net, gpu))
    assert_same(got, want, 1e-12)
    assert np.abs(on_host(got) - net.predict(X)).max() > 0.01
