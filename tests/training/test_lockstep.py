"""Members in lockstep: one program for a step of all, on NumPy and on the harness's GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import MLP, Ensemble, EnsembleTrainer, Trainer
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.backends.numpy import members as numpy_members
from gpumlp.training import lockstep
from tests.support.cuda_networks import on_host
from tests.support.harness.host_device import HostDevice

RNG = np.random.default_rng(0)
M, K = 53, 4
X = RNG.normal(size=(M, 6))
LABELS = X[:, :3].argmax(axis=1)
VALUES = np.stack([X[:, 0] * X[:, 1], np.sin(X[:, 2]), X[:, 3]], axis=1)
WEIGHTS = RNG.uniform(0.5, 2, M)
WEIGHTS[::7] = 0
RATES, PENALTIES = [0.01, 0.02, 0.005, 0.03], [None, gpumlp.L2(0.01), gpumlp.L2(0.01), "l1"]
FITS: dict[str, dict[str, Any]] = {
    "labels": {},
    "weighted": {"sample_weight": WEIGHTS, "class_weight": "balanced"},
    "values": {"loss": "squared_error"},
    "probabilities": {"loss": "negative_log_likelihood", "output_activation": "softmax"},
}


def fitted(
    trainer: Any, kind: str = "labels", epochs: int = 3, **more: Any
) -> Any:  # of a Trainer or an EnsembleTrainer
    more |= {k: v for k, v in FITS[kind].items() if "weight" in k}
    return trainer.fit(X, VALUES if kind == "values" else LABELS, epochs, **more)


def network(kind: str) -> dict[str, Any]:
    return {k: v for k, v in FITS[kind].items() if "weight" not in k}


def check(
    backend: Any, reference: Any, kind: str = "labels", widths: Any = (6, 16, 8, 3), *,
    optimizer: Any = "adamw", near: float = 0.0, fit: Any = None, activation: str = "relu",
    dropout: float = 0.0, **settings: Any,
) -> EnsembleTrainer:  # fmt: skip
    """Each member of an ensemble equals its own training on the reference backend."""
    common: dict[str, Any] = {"activation": activation, "dropout": dropout, **network(kind)}
    settings = {"batch_size": 16, "seed": 5, **settings}
    ensemble = Ensemble(
        K, widths, regularizer=PENALTIES, backend=backend, seeds=[3, 1, 4, 1], **common
    )
    trainer = EnsembleTrainer(ensemble, optimizer, lr=RATES, **settings)
    histories = fitted(trainer, kind, **(fit or {}))
    for i, net in enumerate(ensemble):
        own = MLP(
            widths, backend=reference, regularizer=net.regularizer, seed=net.seed,
            precision=getattr(reference, "precision", net.precision), **common,
        )  # fmt: skip
        single = Trainer(own, optimizer, lr=RATES[i], **{**settings, "seed": 5 + net.seed})
        history = fitted(single, kind, progress=False, **(fit or {}))
        theta, want = on_host(net.theta.flat), on_host(own.theta.flat)
        for name in history:
            if name != "seconds":
                np.testing.assert_allclose(
                    histories[i][name], history[name], near, near, err_msg=name
                )
        assert (histories[i].stopped, histories[i].best_epoch) == (
            history.stopped, history.best_epoch,
        )  # fmt: skip
        count = min(theta.size, want.size)  # padding depends on the smallest dtype
        if theta.size == want.size:
            np.testing.assert_allclose(theta, want, near, near)
        else:
            assert count
            for name, tensor in own.tensors().items():
                np.testing.assert_allclose(net.tensors()[name], tensor, near, near, err_msg=name)
    return trainer


def harness(precision: str = "float64", **device: Any) -> CudaBackend:
    return CudaBackend(HostDevice(**device), precision)


# ---- NumPy: to the bit ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize("activation", ["relu", "gelu", "softmax"])
def test_on_numpy_to_the_bit(kind: str, activation: str) -> None:
    trainer = check("numpy", "numpy", kind, (6, 7, 5, 3), activation=activation)
    assert lockstep.possible(trainer.trainers)


@pytest.mark.parametrize(
    "settings",
    [
        {"clip_norm": 0.1, "ema": 0.9},
        {"groups": {"biases": gpumlp.Group(0.3, 0.5)}},
        {"memory": "low"},
        {"schedule": "warmup_cosine", "shuffle": False},
        {"optimizer": "lion"},
        {"optimizer": "momentum", "fold": False},
        {"optimizer": [gpumlp.OPTIMIZERS["adamw"].set(weight_decay=w) for w in (0, 0, 0.1, 1)]},
    ],
    ids=lambda each: "-".join(each),
)
def test_settings_on_numpy_to_the_bit(settings: dict[str, Any]) -> None:
    rules = settings.get("optimizer")
    if not isinstance(rules, list):
        check("numpy", "numpy", "weighted", **settings)
        return
    ensemble = Ensemble(K, [6, 9, 3], backend="numpy")
    trainer = EnsembleTrainer(ensemble, rules, lr=RATES, batch_size=16)
    fitted(trainer)
    assert lockstep.possible(trainer.trainers)
    for i, rule in enumerate(rules):
        net = MLP([6, 9, 3], backend="numpy", seed=i)
        fitted(Trainer(net, rule, lr=RATES[i], batch_size=16, seed=i), progress=False)
        assert np.array_equal(ensemble.theta[i], net.theta.flat)


def test_embeddings_of_single_rows_on_numpy_to_the_bit() -> None:
    x, y = np.array([[0.3, 0.0, -1.2]]), np.array([[0.5, -1.0]])
    settings: dict[str, Any] = {
        "loss": "huber", "precision": "float64", "backend": "numpy", "embed": {1: (1, 2)},
    }  # fmt: skip
    ensemble = Ensemble(2, [3, 16, 8, 2], **settings)
    trainer = EnsembleTrainer(ensemble, "adamw")
    trainer.fit(x, y, 2)
    for i, member in enumerate(trainer.trainers):
        single = Trainer(MLP([3, 16, 8, 2], seed=i, **settings), "adamw", seed=i)
        single.fit(x, y, 2, progress=False)
        assert np.array_equal(member.slots, single.slots)


def test_members_that_fill_a_block_are_computed_one_by_one(monkeypatch: Any) -> None:
    """Otherwise their sums would have another order than alone."""
    monkeypatch.setattr(numpy_members, "BLOCK_BYTES", 100)
    monkeypatch.setattr("gpumlp.io.threads.BLOCK_BYTES", 100)
    check("numpy", "numpy", "weighted", activation="gelu")


@pytest.mark.parametrize("optimizer", ["muon", "sgd"])
def test_what_cannot_be_one_program_is_trained_one_by_one(optimizer: str) -> None:
    trainer = check("numpy", "numpy", optimizer=optimizer)
    assert not lockstep.possible(trainer.trainers)


# ---- the GPU backend -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize("activation", ["relu", "gelu", "softmax"])
def test_on_a_gpu_as_on_numpy(kind: str, activation: str) -> None:
    """In float64, in any order of blocks."""
    backend = harness(order=3, multiprocessors=2)
    check(
        backend, gpumlp.get_backend("numpy", "float64"), kind, (6, 16, 7, 3), near=1e-11,
        activation=activation, clip_norm=0.5, ema=0.9,
    )  # fmt: skip


@pytest.mark.parametrize("fuses", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_precisions_with_and_without_epilogues(
    precision: str, activation: str, fuses: bool
) -> None:
    """As each alone on a GPU: products with epilogues in batches, too."""
    together, alone = harness(precision), harness(precision)
    together._device.fuses = alone._device.fuses = lambda epilogue: fuses  # type: ignore[attr-defined]
    near = 1e-5 if precision == "float32" else 2e-3
    check(together, alone, widths=(6, 16, 24, 3), activation=activation, near=near)
    calls = together._device.launches  # type: ignore[attr-defined]
    assert any("_aux_bias batch of 4" in call for call in calls) == fuses


@pytest.mark.parametrize("settings", [{"remainder": True}, {"slot_precision": "bfloat16"}])
def test_16_bit_state(settings: dict[str, Any]) -> None:
    check(harness("bfloat16"), harness("bfloat16"), near=2e-3, **settings)


def test_a_step_has_the_launches_of_one_network() -> None:
    """Products in batches; and one launch more, as several networks do not share the last one."""

    def launches(train: Any, device: HostDevice) -> list[str]:
        train.fit(X[:32], LABELS[:32], 1)
        return [call for call in device.launches if "first" not in call]

    devices = HostDevice(), HostDevice()
    widths, batch = [6, 16, 16, 8], {"batch_size": 32}
    both = [CudaBackend(device, "float32") for device in devices]
    ensemble = Ensemble(K, widths, "gelu", backend=both[0])
    together = launches(EnsembleTrainer(ensemble, "adamw", lr=RATES, **batch), devices[0])
    net = MLP(widths, "gelu", backend=both[1])
    alone = launches(Trainer(net, "adamw", **batch), devices[1])
    products = [call for call in together if call.startswith("gemm")]
    assert len(products) == 8
    assert all(call.endswith("batch of 4") for call in products)
    assert len(together) == len(alone) + 1
    assert together[-1].startswith("kernel end")
    assert sum("update" in call for call in together) == 1


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_rules_that_differ_in_their_parameters_are_one_launch(precision: str) -> None:
    """λ, weight decay and β₁ of each member; the last one's Ω is another function."""
    adamw = gpumlp.OPTIMIZERS["adamw"]
    rules = [adamw.set(weight_decay=w, beta1=b) for w, b in
             [(0.0, 0.9), (0.1, 0.9), (0.1, 0.8), (1.0, 0.9), (0.0, 0.9)]]  # fmt: skip
    penalties = [gpumlp.L2(0.1), gpumlp.L2(0.1), gpumlp.L2(0.3), gpumlp.L2(0.0), gpumlp.L1(0.2)]
    device = HostDevice()
    widths, settings = [6, 16, 3], {"batch_size": 32, "clip_norm": 0.2}
    ensemble = Ensemble(5, widths, regularizer=penalties, backend=CudaBackend(device, precision))
    fitted(EnsembleTrainer(ensemble, rules, lr=0.02, **settings))
    launches = [call for call in device.launches if "update.cu" in call or "clip" in call]
    assert len(launches) == 4 * 6  # clip and update, of two functions, in each of 6 steps
    for i, net in enumerate(ensemble):
        reference = "numpy" if precision == "float64" else harness(precision)
        kind = "float64" if precision == "float64" else "float32"
        own = MLP(widths, regularizer=penalties[i], backend=reference, precision=kind, seed=i)
        fitted(Trainer(own, rules[i], lr=0.02, seed=i, **settings), progress=False)
        for name, tensor in own.tensors().items():
            near = 1e-11 if precision == "float64" else 2e-3
            np.testing.assert_allclose(net.tensors()[name], tensor, near, near)


# ---- members that rest ---------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("gpu", [False, True])
def test_members_that_stop_are_left_out(gpu: bool, dropout: float) -> None:
    """When half have stopped, the program is made for the rest, which keep all of their state."""
    backend = harness() if gpu else gpumlp.get_backend("numpy", "float64")
    numpy = gpumlp.get_backend("numpy", "float64")
    fit = {"epochs": 30, "validation": (X[:20], LABELS[:20]), "early_stopping": 1}
    made: list[int] = []

    class Watched(lockstep.JointSteps):
        def __init__(self, *arguments: Any) -> None:
            made.append(arguments[2].members)
            super().__init__(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lockstep, "JointSteps", Watched)
        trainer = check(
            backend, numpy, near=1e-9 if gpu else 0.0, fit=fit, optimizer="adamw", ema=0.5,
            dropout=dropout,
        )  # fmt: skip
    assert trainer.histories is not None
    assert len({history.epochs for history in trainer.histories}) > 2
    assert made[0] == K
    assert made[-1] <= K // 2
    assert made == sorted(made, reverse=True)


def test_folds_of_different_sizes_and_a_resumed_member(tmp_path: Any) -> None:
    """Members at different steps, with minibatches of different sizes."""
    folds = [(np.arange(40), np.arange(40, 53)), (np.arange(5, 38), np.arange(5)),
             (np.arange(10), np.arange(10, 53))]  # fmt: skip

    def trained(epochs: list[int], path: Any) -> EnsembleTrainer:
        trainer = EnsembleTrainer(
            Ensemble(3, [6, 9, 3], backend="numpy"), "adam", lr=0.01, batch_size=16
        )
        for i, count in enumerate(epochs):
            trainer.fit(X, LABELS, count, folds=folds, checkpoint=path, resume=i > 0)
        return trainer

    whole = trained([6], tmp_path / "whole")
    assert whole.histories is not None
    for i, (train, left) in enumerate(folds):
        net = MLP([6, 9, 3], backend="numpy", seed=i)
        single = Trainer(net, "adam", lr=0.01, batch_size=16, seed=i)
        single.fit(
            X[train], LABELS[train], 6, validation=(X[left], LABELS[left]), progress=False
        )  # fmt: skip
        assert np.array_equal(whole.ensemble.theta[i], net.theta.flat)
        assert whole.histories[i]["cost"] == single.history["cost"]
    trained([2], tmp_path / "parts")
    (tmp_path / "parts" / "member-1.safetensors").unlink()
    again = EnsembleTrainer(Ensemble(3, [6, 9, 3], backend="numpy"), "adam", lr=0.01, batch_size=16)
    again.fit(X, LABELS, 6, folds=folds, checkpoint=tmp_path / "parts", resume=True)
    assert np.array_equal(again.ensemble.theta, whole.ensemble.theta)


@pytest.mark.parametrize("gpu", [False, True])
def test_a_member_that_diverged_keeps_the_others_whole(gpu: bool) -> None:
    backend = harness() if gpu else gpumlp.get_backend("numpy", "float64")
    rates = [0.01, 1e200, 0.02, 0.03]
    ensemble = Ensemble(K, [6, 9, 3], backend=backend)
    trainer = EnsembleTrainer(ensemble, "nesterov", lr=rates, batch_size=16, clip_norm=1e150)
    histories = fitted(trainer, epochs=4)
    assert list(histories.diverged) == [1]
    for i in (0, 2, 3):
        net = MLP([6, 9, 3], backend="numpy", precision="float64", seed=i)
        single = Trainer(net, "nesterov", lr=rates[i], batch_size=16, seed=i, clip_norm=1e150)
        fitted(single, epochs=4, progress=False)
        for name, tensor in net.tensors().items():
            np.testing.assert_allclose(ensemble[i].tensors()[name], tensor, 1e-10, 1e-12)


def test_more_members_than_a_device_can_take_at_a_time(monkeypatch: Any) -> None:
    backend = harness()
    monkeypatch.setattr(backend, "networks_at_a_time", lambda widths: 3)
    check(backend, gpumlp.get_backend("numpy", "float64"), near=1e-11)
    kernels = harness(multiprocessors=2)._kernels
    assert 1 <= kernels.networks_at_a_time([4, 100_000]) <= kernels.networks_at_a_time([4, 4]) == 16


def test_the_memory_plan_is_what_a_fit_allocates() -> None:
    device = HostDevice()
    ensemble = Ensemble(8, [20, 64, 64, 3], "gelu", backend=CudaBackend(device, "bfloat16"))
    trainer = EnsembleTrainer(ensemble, "adamw", batch_size=128, ema=0.9)
    x, y = RNG.normal(size=(600, 20)), RNG.integers(0, 3, 600)
    fit: dict[str, Any] = {"validation": (x[:100], y[:100]), "early_stopping": 3}
    planned, start = trainer.memory(x, y, **fit), device.live
    device.peak = start
    trainer.fit(x, y, 2, **fit)
    # an evaluation, with the best θ, is made once more to check the arguments
    once_more = (planned.evaluation + planned.best) // 8
    assert 0 <= device.peak - start - planned.missing <= once_more + 4096


def test_large_members_are_trained_one_after_the_other() -> None:
    """On a CPU they would need more memory, and no less time; on a GPU as many as fit."""
    wide = [EnsembleTrainer(Ensemble(3, [6, 400, 3], backend=backend), batch_size=4000)
            for backend in ("numpy", harness("float32"))]  # fmt: skip
    assert [lockstep.possible(each.trainers) for each in wide] == [False, True]
    backend = wide[1].ensemble.backend
    assert lockstep.at_a_time(wide[1].trainers) == backend.networks_at_a_time([6, 400, 3])
    device = backend._device  # type: ignore[attr-defined]
    device.limit = device.live + 3 * (4 * 4000 * 409 * 4)
    assert lockstep.at_a_time(wide[1].trainers) == 2


def test_a_copy_goes_on_like_the_original() -> None:
    import copy

    trainer = EnsembleTrainer(Ensemble(K, [6, 9, 3], backend="numpy"), "adamw", lr=RATES)
    fitted(trainer)
    other = copy.deepcopy(trainer)
    for each in (trainer, other):
        fitted(each)
    assert np.array_equal(trainer.ensemble.theta, other.ensemble.theta)
    assert other.trainers[1].slots.base is not None
    assert not np.shares_memory(other.trainers[1].slots, trainer.trainers[1].slots)
