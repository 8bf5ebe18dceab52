"""Training with θ as 16-bit weights and a remainder, against training with θ in float32.

The reference rounds θ as the pair does, ties away from zero, from a θ in float32 that its update
reads and writes.  Then θ, slots and average are the same bit for bit.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import Group
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.loader.examples import Examples
from tests.support.cuda_networks import KIND, classifier, on_cuda_backend, on_host, problem
from tests.support.harness.host_device import HostDevice
from tests.support.training_cases import Die, Hook, die_at


class AwayFromZero(CudaBackend):
    """θ in float32 and its copy in bfloat16, in which ties are rounded away from zero."""

    def round(self, theta: Any, rounded: Any, remainder: Any = None) -> None:
        """The copy; the remainder is of no use here."""
        if len(theta) not in self.__dict__.setdefault("spare", {}):
            self.spare[len(theta)] = self.empty(theta.shape, np.int16)
        super().round(theta, rounded, self.spare[len(theta)])

    def update(
        self, optimizer: Any, regularizer: Any, theta: Any, rounded: Any, *rest: Any
    ) -> None:
        """The update, and the copy again."""
        super().update(optimizer, regularizer, theta, rounded, *rest)
        self.round(theta, rounded)


def network(backend: Any = None, **settings: Any) -> gpumlp.MLP:
    """`classifier` in bfloat16, on the harness unless another backend is given."""
    net = classifier(precision="float32", **settings)
    backend = backend or CudaBackend(HostDevice(), "bfloat16")
    gpu = gpumlp.MLP(**net.config() | {"precision": "bfloat16"}, backend=backend)
    gpu.assign(net.tensors())
    return gpu


def trainer_of(remainder: bool, net: Any = None, **settings: Any) -> gpumlp.Trainer:
    """A trainer with the remainder, or the reference, which does not fold either."""
    settings = {"lr": 0.01, "batch_size": 16, "fold": False} | settings
    if net is None:
        net = network(None if remainder else AwayFromZero(HostDevice(), "bfloat16"))
    return gpumlp.Trainer(net, remainder=remainder, **settings)


def fitted(trainer: gpumlp.Trainer, epochs: int = 5, **fit: Any) -> gpumlp.Trainer:
    x, y, weights = problem()
    trainer.fit(x, y, epochs, sample_weight=weights, progress=False, **fit)
    return trainer


def bits(trainer: gpumlp.Trainer) -> list[bytes]:
    """θ and all else that a further fit depends on."""
    trainer.net.backend.synchronize()
    arrays = [trainer.net.theta.flat, trainer.slots]
    arrays += [] if trainer.average is None else trainer.average.both(trainer.net)
    return [on_host(a).tobytes() for a in arrays]


GROUPS = {"biases": Group(lr=2.0), "first": Group(lr=0.5)}
SETTINGS: list[dict[str, Any]] = [
    {"optimizer": name, **settings}
    for name, settings in zip(
        gpumlp.OPTIMIZERS,
        3 * [
            {}, {"clip_norm": 0.3}, {"groups": GROUPS, "ema": 0.9}, {"accumulate": 3},
            {"accumulate": 5, "clip_norm": 0.3, "groups": GROUPS, "memory": "low"},
        ], strict=False,
    )
] + [
    {"optimizer": "adamw", "slot_precision": "bfloat16", **more}
    for more in (
        {}, {"clip_norm": 0.3}, {"accumulate": 3, "ema": 0.9}, {"groups": GROUPS},
        {"schedule": "one_cycle"},
    )
]  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: " ".join(map(str, s.values()))[:60])
def test_every_bit_is_that_of_float32(settings: dict[str, Any]) -> None:
    want, got = (fitted(trainer_of(each, **settings)) for each in (False, True))
    assert want.steps == got.steps == 25
    assert bits(got) == bits(want)
    assert bits(got)[0] != on_host(network().theta.flat).tobytes()


@pytest.mark.parametrize("regularizer", [None, gpumlp.L2(0.01), gpumlp.ElasticNet(0.01, 0.01)])
@pytest.mark.parametrize("data", ["device", "stream"])
def test_with_any_regularizer_and_streamed(regularizer: Any, data: str) -> None:
    found = []
    for remainder, kind in ((False, AwayFromZero), (True, CudaBackend)):
        net = network(kind(HostDevice(), "bfloat16"), regularizer=regularizer)
        trainer = trainer_of(remainder, net, clip_norm=0.3, accumulate=2)
        found.append(bits(fitted(trainer, data=data)))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "way", ["branched", "branched, early update", "early update, reserved", "sequential"]
)
@pytest.mark.parametrize("late", ["copies", "both"])
def test_in_every_way_of_a_step(way: str, late: str) -> None:
    device = HostDevice(order=2, variant=way, late_branches=late == "both", late=late)
    trainer = trainer_of(True, network(CudaBackend(device, "bfloat16")))
    assert bits(fitted(trainer)) == bits(fitted(trainer_of(False)))


# ---- who reads θ, and who assigns to it ----------------------------------------------------------


def test_callbacks_and_evaluations_see_the_current_theta() -> None:
    ends = []
    for remainder in (False, True):
        seen: list[Any] = []

        def note(trainer: Any, *row: Any, seen: list[Any] = seen) -> None:
            trainer.net.backend.synchronize()
            seen.append(on_host(trainer.net.theta.flat).tobytes())

        x, y, _ = problem()
        trainer = fitted(trainer_of(remainder), 2, callbacks=[Hook(note, note)])
        history = fitted(trainer, 2, validation=(x, y)).history.to_dict()["columns"]
        assert len(set(seen)) == 10
        ends.append((seen, history["cost"], history["val_cost"]))
    assert ends[0][:2] == ends[1][:2]
    # predictions read θ rounded to even
    np.testing.assert_allclose(ends[0][2], ends[1][2], rtol=1e-3)


def test_assignments_of_callbacks_count() -> None:
    """After a step or an epoch, also with an average of θ."""

    def assign(trainer: Any) -> None:
        if trainer.steps in (3, 7):
            trainer.net.layers[0].W[...] = 0.25
            trainer.net.round()  # the reference reads the rounded θ before its update

    def after_epoch(trainer: Any, row: Any) -> None:
        trainer.net.layers[1].b[...] = -trainer.steps

    for settings in ({}, {"ema": 0.9}):
        want, got = (
            bits(fitted(trainer_of(each, **settings), 3, callbacks=[Hook(assign, after_epoch)]))
            for each in (False, True)
        )
        assert got == want
        assert got != bits(fitted(trainer_of(True, **settings), 3))


@pytest.mark.parametrize("ending", [Die, KeyboardInterrupt])
def test_theta_is_current_however_a_fit_ends(
    ending: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an error of a callback, or one that comes from a step."""
    found = []
    for remainder in (False, True):
        trainer = trainer_of(remainder)
        fit: dict[str, Any] = {"callbacks": [die_at(step=3)]} if ending is Die else {}
        if ending is KeyboardInterrupt:
            step = trainer.step

            def pressed(
                batches: Any, steps: int = 1, step: Any = step, trainer: Any = trainer
            ) -> None:
                step(batches, steps)
                if trainer.steps == 3:
                    raise KeyboardInterrupt

            monkeypatch.setattr(trainer, "step", pressed)
        with pytest.raises(ending):
            fitted(trainer, **fit)
        found.append(bits(trainer))
    assert found[0] == found[1]


@pytest.mark.parametrize("way", [copy.deepcopy, copy.copy])
def test_copies_in_the_middle_of_an_epoch(way: Any) -> None:
    """A copy has the θ of the last step; one that shares the arrays goes on from there."""
    x, y, _ = problem()
    found = []
    for remainder in (False, True):
        trainer = trainer_of(remainder)
        batches = trainer.batches(Examples.checked(trainer.net, x, y))
        table = trainer.controls([0.01] * batches.order.steps, 1)
        trainer.net.round()
        batches.start(0, table, np.zeros(batches.order.steps), 0)
        trainer.step(batches, 2)
        second = way(trainer)
        if way is copy.copy:
            second.step(batches)
            trainer.step(batches)
            second.restore_theta()
        found.append(bits(second))
    assert found[0] == found[1]


def test_range_test_has_the_same_costs() -> None:
    x, y, _ = problem()
    curves = []
    for remainder in (False, True):
        trainer = fitted(trainer_of(remainder), 1)
        before = bits(trainer)
        curves.append(trainer.find_lr(x, y, start=1e-6, end=1e-2, steps=12).loss.tolist())
        assert bits(trainer) == before
    assert curves[0] == curves[1]


# ---- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [True, False])
def test_checkpoint_is_read_with_and_without_it(
    after: bool, tmp_path: Any, no_waiting_for_the_disk: None
) -> None:
    """It holds θ in float32, so the run goes on bit for bit in either form."""
    file = tmp_path / "run.safetensors"
    saved = {"checkpoint": file, "checkpoint_every": 2}
    with pytest.raises(Die):
        fitted(trainer_of(not after), callbacks=[die_at(step=9)], **saved)
    resumed = fitted(trainer_of(after), resume=True, **saved)
    assert bits(resumed) == bits(fitted(trainer_of(True)))
    stored = gpumlp.MLP.load(file, backend="numpy").tensors()
    for name, tensor in resumed.net.tensors().items():
        assert stored[name].tobytes() == tensor.tobytes()


# ---- its plan ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("slots", "moved"), [("bfloat16", 18), (None, 26)])
def test_bytes_of_an_update(slots: str | None, moved: int) -> None:
    for remainder in (False, True):
        trainer = trainer_of(remainder, slot_precision=slots)
        size = len(trainer.net.theta.flat)
        for device in (None, "h100"):
            (line,) = (
                each
                for each in trainer.explain(70, device=device).lines
                if each.operation == "update"
            )
            assert line.bytes == (moved + 2 * (not remainder)) * size
        assert trainer.explain(70, device="h100", precision="float32").lines
        assert trainer.memory(70).remainder == 2 * size * remainder


def test_products_do_not_update_split_weights() -> None:
    net = gpumlp.MLP([64, 128, 128, 64], loss="squared_error", backend="numpy")
    names = []
    for remainder in (False, True):
        trainer = trainer_of(remainder, on_cuda_backend(net, precision="bfloat16"))
        with pytest.raises(ValueError, match="way must be one of") as error:
            trainer.explain(64, way="none")
        names.append("update in products" in str(error.value))
    assert names == [True, False]


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float64", "float32", "tf32", "float16", "numpy"])
def test_other_precisions_raise(precision: str) -> None:
    net = classifier(precision="float32")
    if precision != "numpy":
        net = on_cuda_backend(net, precision=precision)
    with pytest.raises(ValueError, match="remainder=True does not go with.*or remainder=False"):
        gpumlp.Trainer(net, remainder=True)


def test_invalid_remainder_raises() -> None:
    with pytest.raises(TypeError, match="remainder must be"):
        gpumlp.Trainer(network(), remainder="yes")
    with pytest.raises(ValueError, match="reads and writes θ and its remainder; pass fold=None"):
        trainer_of(True, network(regularizer=None), optimizer="sgd", fold=True)
    assert not trainer_of(True, network(regularizer=None), optimizer="sgd", fold=None).folds


def test_divergence_shows() -> None:
    """NaN in θ reaches the products: rounding does not carry its bits to a number."""
    for more in ({}, {"clip_norm": 0.5}):
        trainer = trainer_of(True)
        tensors = trainer.net.tensors()
        tensors["0.weight"].view(np.uint32)[0, 0] = 0x7FFFFFFF  # NaN, as a GPU writes it
        trainer.net.assign(tensors)
        with pytest.raises(FloatingPointError, match="the cost is nan"):
            fitted(trainer_of(True, trainer.net, **more), 1)


def test_weights_of_16_bits_are_those_of_theta() -> None:
    """What the products read after a fit."""
    trainer = fitted(trainer_of(True))
    rounded, theta = (on_host(a.flat) for a in (trainer.net.rounded, trainer.net.theta))
    assert rounded.dtype == KIND["bfloat16"]
    np.testing.assert_allclose(rounded.astype(np.float32), theta, rtol=2.0**-8)
