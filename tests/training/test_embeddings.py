"""What a trainer offers besides `fit`, for networks with embeddings."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import MLP, Trainer
from gpumlp.callbacks.logs import settings
from tests.support.embeddings import EMBED, WIDTHS, examples, network
from tests.support.fitted import assert_planned

X, LABELS = examples(64)


@pytest.mark.parametrize("memory", ["normal", "low"])
def test_explain_counts_all_products(memory: str) -> None:
    """Of the first W a third product has the embedded columns only."""
    net, m = network(), 32
    step = Trainer(net, batch_size=m, memory=memory).explain(len(X))
    sizes = [layer.W.size for layer in net.layers]
    embedded = 9 * (3 + 5)
    assert step.flops == 2 * m * (3 * sum(sizes) - sizes[0] + embedded)
    names = [line.operation for line in step.lines]
    assert names.count("embed") == names.count("embed_gradient") == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("way", [None, "branched, early update"])
def test_explain_on_paper(precision: str, way: str | None) -> None:
    net = network(precision="float32")
    trainer = Trainer(net, batch_size=32)
    step = trainer.explain(len(X), device="h100", precision=precision, way=way)
    assert "embed_gradient" in str(step)
    assert "at least" in step.summary()


def test_bytes_of_a_gradient_are_those_of_the_minibatch_and_of_zeros() -> None:
    net = MLP([2, 8, 2], embed={0: (10_000, 16)}, backend="numpy")
    lines = {each.operation: each for each in Trainer(net, batch_size=32).explain(500).lines}
    assert lines["embed"].bytes == 32 * 2 * 4 + 32 * 16 * 4 + 32 * 17 * 4
    assert lines["embed_gradient"].bytes == 32 * 4 + 2 * 32 * 16 * 4 + 10_000 * 16 * 4


def test_memory_is_what_a_fit_allocates() -> None:
    x, y = np.tile(X, (20, 1)), np.tile(LABELS, 20)
    embed = {1: (20_000, 16), 4: (11, 5)}
    net = MLP([6, 300, 400, 3], precision="float32", embed=embed, backend="numpy")
    Trainer(network(), batch_size=32).fit(X, LABELS, 1, progress=False)  # threads, modules
    assert_planned(net, x, y, 2_000_000)


def test_find_lr_takes_the_steps_of_a_fit() -> None:
    """With almost the same learning rate in all steps, the costs are those of a fit."""
    net = network()
    trainer = Trainer(net, "adamw", lr=1e-2, batch_size=64, seed=3, shuffle=False)
    before = copy.deepcopy(net)
    curve = trainer.find_lr(X, LABELS, start=1e-2, end=1.0001e-2, steps=20)
    assert np.array_equal(net.theta.flat, before.theta.flat)
    history = trainer.fit(X, LABELS, 20, progress=False)
    np.testing.assert_allclose(curve.loss, history["cost"], rtol=1e-3)


def test_lbfgs_finds_a_minimum() -> None:
    """The gradient of all parameters, with the tables, becomes 0."""
    net = network(regularizer=gpumlp.ElasticNet(l2=0.05))
    gpumlp.fit_lbfgs(net, X, LABELS, max_iter=6000, tol=1e-7)
    for name, g in net.cost_and_gradients(X, LABELS)[1].named.items():
        assert float(np.abs(g).max()) < 1e-5, name


def test_settings_that_callbacks_log() -> None:
    found = settings(Trainer(network(), batch_size=32))
    assert (found["embed.1"], found["embed.4"]) == ("7x3", "11x5")
    assert found["widths"] == "6-9-8-3"


def test_callbacks_keep_the_best_network_with_its_tables(tmp_path: Any) -> None:
    net = network()
    keeping = gpumlp.callbacks.ModelCheckpoint(tmp_path / "best.safetensors")
    trainer = Trainer(net, batch_size=32, lr=0.01)
    history = trainer.fit(
        X, LABELS, 6, validation=(X, LABELS), callbacks=[keeping], progress=False
    )  # fmt: skip
    best = MLP.load(tmp_path / "best.safetensors", "numpy")
    assert best.embed == net.embed
    np.testing.assert_allclose(best.cost(X, LABELS), min(history["val_cost"]), rtol=1e-12)


def test_resume_of_other_embeddings_raises(tmp_path: Any) -> None:
    saved = {"checkpoint": tmp_path / "c.safetensors", "progress": False}
    Trainer(network(), batch_size=32).fit(X, LABELS, 1, **saved)
    for embed in ({**EMBED, 1: (8, 3)}, None):
        other = MLP(WIDTHS, "gelu", embed=embed, precision="float64", backend="numpy")
        with pytest.raises(gpumlp.CheckpointError, match="network's embed"):
            Trainer(other, batch_size=32).fit(X, LABELS, 2, resume=True, **saved)


def test_tuned_steps_are_of_one_shape_of_tables() -> None:
    names = {Trainer(network(embed=each)).name for each in (None, EMBED, {1: (7, 4)})}
    assert len(names) == 3
