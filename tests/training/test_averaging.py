"""The average of θ: its formula, against torch, and where a fit shows it."""

from __future__ import annotations

import signal
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.errors import CheckpointError
from gpumlp.training import averaging
from tests.support.cuda_networks import (
    classifier,
    device,
    on_cuda_backend,
    on_host,
    problem,
    trained,
)
from tests.support.kill_worker import STEPS, outcome, run
from tests.support.refusal import refusal
from tests.support.training_cases import Hook, X, Y, regression

PRECISIONS = ["float64", "float32", "tf32", "bfloat16", "float16"]


def decay(ema: float, t: int) -> float:
    return min(ema, (t - 1) / (t + 8))


class Kept(gpumlp.Callback):
    """Records θ after each step, and the parameters of the network after each epoch."""

    def __init__(self) -> None:
        self.thetas: list[Any] = []
        self.shown: list[Any] = []

    def on_step_end(self, trainer: Any) -> None:
        trainer.net.backend.synchronize()
        self.thetas.append(on_host(trainer.net.theta.flat).astype(float))

    def on_epoch_end(self, trainer: Any, row: Any) -> None:
        self.shown.append(trainer.net.tensors())

    def average(self, ema: float) -> Any:
        mean = self.thetas[0]
        for t, theta in enumerate(self.thetas, start=1):
            d = decay(ema, t)
            mean = d * mean + (1 - d) * theta
        return mean


def of(trainer: gpumlp.Trainer) -> tuple[Any, Any]:
    """θ̄ and the θ of the last step, on the host."""
    assert trainer.average is not None
    mean, theta = trainer.average.both(trainer.net)
    return on_host(mean).copy(), on_host(theta).copy()


# ---- against torch and a loop written out --------------------------------------------------------


@pytest.mark.parametrize("ema", [0.1, 0.9, 0.999])
def test_average_equals_torchs(ema: float) -> None:
    """By torch's own function for 0.1, where d is constant from the second step on."""
    torch = pytest.importorskip("torch")
    from torch.optim import swa_utils

    net = regression()
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2)
    ).double()  # fmt: skip
    way: dict[str, Any] = {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.1)}
    if ema != 0.1:
        way = {"avg_fn": lambda mean, theta, n: torch.lerp(theta, mean, decay(ema, int(n) + 1))}
    averaged = swa_utils.AveragedModel(model, **way)

    def step(trainer: gpumlp.Trainer) -> None:
        tensors = {name: torch.tensor(t) for name, t in trainer.net.tensors().items()}
        model.load_state_dict(tensors)
        averaged.update_parameters(model)

    gpumlp.Trainer(net, lr=0.05, batch_size=7, ema=ema).fit(X, Y, 6, callbacks=[Hook(step)])
    for name, mean in averaged.module.state_dict().items():
        np.testing.assert_allclose(net.tensors()[name], mean.numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("settings", "ema"),
    [({"optimizer": "sgd", "lr": 0.1}, 0.5), ({"clip_norm": 0.1}, 0.99), ({"memory": "low"}, 0.5)],
)
def test_average_does_not_change_steps_of_the_cuda_backend(
    settings: Any, ema: float, precision: str
) -> None:
    """θ is the same bit for bit; the padding of the average stays zero."""
    gpus = [on_cuda_backend(classifier(precision="float32"), precision=precision) for _ in "ab"]
    x, y, _ = problem()
    kept, trainers = Kept(), []
    for gpu, each in zip(gpus, ({}, {"ema": ema}), strict=True):
        trainers.append(gpumlp.Trainer(gpu, batch_size=16, **settings, **each))
        trainers[-1].fit(x, y, 3, callbacks=[kept] * bool(each), progress=False)
    mean, theta = of(trainers[1])
    assert theta.tobytes() == on_host(gpus[0].theta.flat).tobytes()
    assert trainers[1].slots.values.tobytes() == trainers[0].slots.values.tobytes()
    assert mean.tobytes() == on_host(gpus[1].theta.flat).tobytes()
    rtol = 1e-13 if precision == "float64" else 1e-5
    np.testing.assert_allclose(mean, kept.average(ema), rtol=rtol, atol=rtol)
    assert np.abs(mean - theta).max() > 1e-4
    layout, used = gpus[1].theta.layout, np.zeros(len(mean), bool)
    for start, part in zip(layout.starts, layout.parts, strict=False):
        used[start : start + np.prod(part.shape)] = True
    assert not mean[~used].any()
    rounded = on_host(gpus[1].rounded.flat)  # what the products read is the average's
    assert rounded.tobytes() == mean.astype(rounded.dtype).tobytes()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("way", ["branched", "branched, early update"])
def test_branches_change_no_bit(way: str, precision: str) -> None:
    """The average comes after the last update, however late that is."""
    ends = []
    for name, late in (("", False), (way, False), (way, True)):
        gpu = on_cuda_backend(classifier("relu", precision="float32"), precision=precision)
        device(gpu).variant, device(gpu).late_branches = name, late
        ends.append([a.tobytes() for a in of(trained(gpu, ema=0.9, lr=0.05))])
    assert ends[1:] == [ends[0]] * 2


def test_average_adds_one_launch() -> None:
    launches = []
    for ema in (None, 0.9):
        gpu = on_cuda_backend(classifier(precision="float32"))
        x, y, _ = problem(32)
        trainer = gpumlp.Trainer(gpu, batch_size=16, ema=ema)
        trainer.fit(x, y, 2, metric=None, progress=False)
        calls = device(gpu).calls
        last = max(i for i, call in enumerate(calls) if call.startswith("replay"))
        launches.append([call for call in calls[last:] if call.startswith(("kernel", "gemm"))])
    plain, averaged = launches
    more = [call for call in averaged if "average" in call]
    assert len(more) == 1
    assert [call for call in averaged if call not in more] == plain


def test_skipped_step_does_not_change_the_average() -> None:
    gpu = on_cuda_backend(classifier(precision="float32"), precision="float16")
    trainer = gpumlp.Trainer(gpu, lr=0.05, batch_size=16, ema=0.8)
    trainer.scaling.values[:2] = 2.0**24, 2.0**-24
    x, y, _ = problem()
    means, skipped = [], []

    def step(trainer: Any) -> None:
        means.append(of(trainer))
        skipped.append(int(trainer.scaling.values[3]))

    start = on_host(gpu.theta.flat).copy()
    trainer.fit(x, y, 4, callbacks=[Hook(step)], progress=False)
    assert 1 < skipped[-1] < 10
    before, count = start, 0
    for t, ((mean, theta), so_far) in enumerate(zip(means, skipped, strict=True), start=1):
        if so_far > count:
            assert mean.tobytes() == before.tobytes()
        else:
            d = decay(0.8, t)
            np.testing.assert_allclose(mean, d * before + (1 - d) * theta, rtol=1e-5, atol=1e-7)
        before, count = mean, so_far


# ---- who sees it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numpy", "harness"])
@pytest.mark.parametrize("spare", [64, 1 << 20])
def test_validation_hooks_and_the_end_see_the_average(
    monkeypatch: pytest.MonkeyPatch, backend: str, spare: int
) -> None:
    monkeypatch.setattr(averaging, "SPARE", spare)
    net = classifier()
    net = on_cuda_backend(net) if backend == "harness" else net
    x, y, _ = problem()
    held, kept = (x[:20] + 0.1, y[:20]), Kept()
    trainer = gpumlp.Trainer(net, lr=0.05, batch_size=16, ema=0.8)
    history = trainer.fit(x, y, 4, validation=held, callbacks=[kept], progress=False)
    second = classifier()
    for epoch in range(4):
        seen = Kept()
        seen.thetas = kept.thetas[: 5 * (epoch + 1)]
        second.theta.flat[...] = seen.average(0.8)
        assert history["val_cost"][epoch] == pytest.approx(second.cost(*held), rel=1e-9)
        for name, tensor in second.tensors().items():
            np.testing.assert_allclose(kept.shown[epoch][name], tensor, rtol=1e-9, atol=1e-12)
    assert net.cost(*held) == pytest.approx(history["val_cost"][-1], rel=1e-12)
    # the training's own cost is of its own θ
    second.theta.flat[...] = kept.thetas[-1]
    assert second.cost(*held) != pytest.approx(history["val_cost"][-1], rel=1e-6)


def test_early_stopping_keeps_the_best_average() -> None:
    net = regression()
    kept = Kept()
    trainer = gpumlp.Trainer(net, lr=0.2, batch_size=10, ema=0.6)
    held = (X[:10] + 1, Y[:10])
    history = trainer.fit(
        X, Y, 60, validation=held, early_stopping=4, callbacks=[kept], progress=False
    )
    assert history.stopped == "early"
    best = history.best_epoch
    assert best is not None
    for name, tensor in net.tensors().items():
        assert tensor.tobytes() == kept.shown[best][name].tobytes()
    assert net.cost(*held) == pytest.approx(min(history["val_cost"]), rel=1e-12)
    assert of(trainer)[1].tobytes() == kept.thetas[-1].tobytes()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_second_fit_goes_on_from_the_last_theta(precision: str) -> None:
    x, y, _ = problem()
    trainers = []
    for epochs in ((5,), (2, 3), (1, 1, 3)):
        gpu = on_cuda_backend(classifier(precision="float32"), precision=precision)
        trainers.append(gpumlp.Trainer(gpu, batch_size=16, ema=0.9))
        for n in epochs:
            trainers[-1].fit(x, y, n, progress=False)
    ends = [[a.tobytes() for a in of(trainer)] for trainer in trainers]
    assert ends == [ends[0]] * 3


def test_what_a_network_is_assigned_before_the_first_step_counts() -> None:
    one, other = regression(), regression()
    trainer = gpumlp.Trainer(one, batch_size=10, ema=0.9)
    other.theta.flat[...] *= 0.5
    one.assign(other.tensors())

    def early_update(trainer: Any) -> None:
        trainer.stop = True

    hook = Hook()
    hook.on_fit_begin = early_update  # type: ignore[method-assign]
    trainer.fit(X, Y, 1, callbacks=[hook])
    assert one.theta.flat.tobytes() == other.theta.flat.tobytes()
    trainer.fit(X, Y, 2)
    gpumlp.Trainer(other, batch_size=10, ema=0.9).fit(X, Y, 2)
    assert one.theta.flat.tobytes() == other.theta.flat.tobytes()


def test_average_is_nearer_to_the_minimum() -> None:
    """Where steps keep jumping about a minimum the average lies nearer to it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4))
    y = x @ rng.normal(size=(4, 2)) + rng.normal(size=(400, 2))
    net = gpumlp.MLP([4, 2], loss="squared_error", precision="float64", backend="numpy")
    trainer = gpumlp.Trainer(net, "sgd", lr=0.1, batch_size=4, ema=0.99)
    trainer.fit(x, y, 10)
    mean = net.cost(x, y)
    net.theta.flat[...] = of(trainer)[1]
    theta = net.cost(x, y)
    gpumlp.fit_lbfgs(net, x, y, tol=1e-8)
    least = net.cost(x, y)
    assert mean - least < 0.2 * (theta - least)


# ---- interrupted, resumed, copied ----------------------------------------------------------------

AVERAGED: dict[str, Any] = {"trainer": {"ema": 0.9}, "epochs": 5}


def ended(trainer: gpumlp.Trainer) -> Any:
    return [a.tobytes() for a in of(trainer)], outcome(trainer)


class Die(Exception):
    pass


@pytest.mark.parametrize("step", [STEPS + 4, 2 * STEPS])
def test_ctrl_c_leaves_the_average_in_network_and_file(tmp_path: Any, step: int) -> None:
    path, whole = tmp_path / "run.safetensors", ended(run(**AVERAGED))
    seen = Kept()

    def stop(trainer: gpumlp.Trainer) -> None:
        if trainer.steps == step:
            signal.raise_signal(signal.SIGINT)

    kept = {**AVERAGED, "early_stopping": None}
    stopped = run(path, callbacks=[seen, Hook(stop)], **kept)
    assert stopped.history.stopped == "interrupted"
    mean, theta = of(stopped)
    assert theta.tobytes() == seen.thetas[-1].astype(theta.dtype).tobytes()
    np.testing.assert_allclose(mean, seen.average(0.9), rtol=1e-4, atol=1e-6)
    loaded = gpumlp.MLP.load(path, backend="numpy")
    assert loaded.theta.flat.tobytes() == stopped.net.theta.flat.tobytes() == mean.tobytes()
    finished = run(path, resume=True, **kept)
    assert [a.tobytes() for a in of(finished)][1] == whole[0][1]


def test_resume_with_other_ema_raises(tmp_path: Any) -> None:
    path = tmp_path / "run.safetensors"
    run(path, **AVERAGED)
    for ema in (None, 0.8):
        with pytest.raises(CheckpointError, match="of a run with other ema: 0.9, here"):
            run(path, resume=True, trainer={"ema": ema}, epochs=5)


def test_an_error_in_a_hook_leaves_the_average_in_the_network() -> None:
    net, kept = regression(), Kept()

    def fail(trainer: gpumlp.Trainer) -> None:
        if trainer.steps == 8:
            raise Die

    trainer = gpumlp.Trainer(net, batch_size=10, ema=0.9)
    with pytest.raises(Die):
        trainer.fit(X, Y, 4, callbacks=[kept, Hook(fail)])
    np.testing.assert_allclose(net.theta.flat, kept.average(0.9), rtol=1e-12, atol=1e-14)
    assert of(trainer)[1].tobytes() == kept.thetas[-1].tobytes()


@pytest.mark.parametrize("ema", [0, 1, -0.5, 2, True, "0.9", float("nan"), [0.9]])
def test_invalid_ema_raises(ema: Any) -> None:
    assert gpumlp.Trainer(regression(), ema=np.float32(0.5)).ema == 0.5
    refusal(
        ValueError, lambda: gpumlp.Trainer(regression(), ema=ema),
        "ema must be a number between 0 and 1", "0.999", repr(ema),
    )  # fmt: skip
