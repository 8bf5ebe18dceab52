"""What a trainer offers besides `fit`, for networks with norms, gates, dropout and skips."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import MLP, Trainer
from gpumlp.callbacks.logs import settings
from tests.support.blocks import MANY, WIDTHS
from tests.support.fitted import assert_planned

RNG = np.random.default_rng(6)
X = RNG.normal(size=(64, 6))
LABELS = X[:, :3].argmax(axis=1)


def network(**settings: Any) -> MLP:
    settings = {"backend": "numpy", "precision": "float64", "seed": 1} | MANY | settings
    return MLP(settings.pop("widths", WIDTHS), "gelu", **settings)


@pytest.mark.parametrize("memory", ["normal", "low"])
def test_explain_counts_all_products(memory: str) -> None:
    """Each matrix but the first is in three products of 2mnk FLOPs; the first has no ∂J/∂x."""
    net, m = network(), 32
    step = Trainer(net, batch_size=m, memory=memory).explain(len(X))
    sizes = {name: a.size for name, a in net.tensors().items() if a.ndim == 2}
    again = 0
    if memory == "low":  # which computes products of the forward pass twice
        again = step.flops - 2 * m * (3 * sum(sizes.values()) - sizes["0.weight"])
        assert 0 <= again <= 2 * m * sum(sizes.values())
    assert step.flops - again == 2 * m * (3 * sum(sizes.values()) - sizes["0.weight"])
    names = [line.operation for line in step.lines]
    assert names.count("dropout") >= 4  # of two layers, forward and backward
    assert names.count("stage") >= 4  # three norms and a gate
    assert names.count("stage_gradient") == 4
    assert "stage_gradient" in str(step)


def test_explain_draws_the_step(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib")
    step = Trainer(network(), batch_size=32).explain(len(X))
    step.plot(tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000
    assert len(step.buffers) > len(Trainer(network(**PLAIN), batch_size=32).explain(64).buffers)


PLAIN: dict[str, Any] = {"norm": None, "dropout": 0.0, "residual": False, "gated": None}


def test_memory_is_what_a_fit_allocates() -> None:
    x, y = np.tile(X, (20, 1)), np.tile(LABELS, 20)
    net = network(widths=[6, 300, 300, 400, 3], precision="float32")
    Trainer(network(), batch_size=32).fit(X, LABELS, 1, progress=False)  # threads, modules
    assert_planned(net, x, y, 5_000_000)


def test_find_lr_takes_the_steps_of_a_fit() -> None:
    """With almost the same learning rate in all steps, the costs are those of a fit."""
    net = network(dropout=0.0)
    trainer = Trainer(net, "adamw", lr=1e-2, batch_size=64, seed=3, shuffle=False)
    before = copy.deepcopy(net)
    curve = trainer.find_lr(X, LABELS, start=1e-2, end=1.0001e-2, steps=20)
    assert np.array_equal(net.theta.flat, before.theta.flat)
    history = trainer.fit(X, LABELS, 20, progress=False)
    np.testing.assert_allclose(curve.loss[0], history["cost"][0], rtol=1e-12)
    np.testing.assert_allclose(curve.loss, history["cost"], rtol=1e-3)


def test_lbfgs_finds_a_minimum() -> None:
    """The gradient of all parameters, with those of norms and skips, becomes 0."""
    net = network(regularizer=gpumlp.ElasticNet(l2=0.05))
    _, grads = net.cost_and_gradients(X, LABELS)
    first = {name: float(np.abs(g).max()) for name, g in grads.named.items()}
    history = gpumlp.fit_lbfgs(net, X, LABELS, max_iter=6000, tol=1e-7)
    assert history.stopped == "converged"
    J, grads = net.cost_and_gradients(X, LABELS)
    assert history["cost"][-1] == pytest.approx(J, rel=1e-12)
    for name, g in grads.named.items():
        assert float(np.abs(g).max()) < 1e-5 < 1e-3 < first[name], name


def test_settings_that_callbacks_log() -> None:
    found = settings(Trainer(network(dropout=0.1), batch_size=32))
    assert found["norm"] == "layer-rms-layer"
    assert (found["dropout"], found["gated"]) == ("0.1", "none-silu-none")
    assert found["residual"] == "False-True-True"
    assert found["widths"] == "6-8-8-11-3"
    assert not {*MANY} & {*settings(Trainer(network(**PLAIN), batch_size=32))}


def test_callbacks_keep_the_best_network_with_its_blocks(tmp_path: Any) -> None:
    net = network()
    keeping = gpumlp.callbacks.ModelCheckpoint(tmp_path / "best.safetensors")
    trainer = Trainer(net, batch_size=32, lr=0.01)
    history = trainer.fit(
        X, LABELS, 6, validation=(X, LABELS), callbacks=[keeping], progress=False
    )  # fmt: skip
    best = MLP.load(tmp_path / "best.safetensors", "numpy")
    assert best.blocks == net.blocks
    np.testing.assert_allclose(best.cost(X, LABELS), min(history["val_cost"]), rtol=1e-12)
