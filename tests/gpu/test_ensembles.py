"""Members of an ensemble in lockstep on a device: batches of products, kernels of K networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import MLP, Ensemble, EnsembleTrainer, Trainer
from gpumlp.training import lockstep

RNG = np.random.default_rng(0)
X = RNG.normal(size=(500, 24))
LABELS = X[:, :10].argmax(axis=1)
K, WIDTHS = 12, [24, 64, 40, 10]
NEAR = {"float64": 1e-9, "float32": 2e-3, "tf32": 5e-2, "bfloat16": 0.1, "float16": 5e-2}
TRIALS: dict[str, Any] = {
    "plain": {}, "clip, ema": {"clip_norm": 0.5, "ema": 0.9}, "momentum": {"optimizer": "momentum"},
}  # fmt: skip


@pytest.mark.parametrize("trial", TRIALS)
@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
@pytest.mark.parametrize("precision", NEAR)
def test_members_equal_their_own_trainings_on_numpy(
    precision: str, activation: str, trial: str
) -> None:
    """With own rates, λ and weights; the last minibatch is smaller; recorded and replayed."""
    settings: dict[str, Any] = {"optimizer": "adamw", "batch_size": 64, **TRIALS[trial]}
    rates = [0.003 * (1 + i % 4) for i in range(K)]
    penalties = [gpumlp.L2(0.01 * (i // 4)) for i in range(K)]
    fit: dict[str, Any] = {"sample_weight": RNG.uniform(0.5, 2, len(X)), "epochs": 3}
    ensemble = Ensemble(
        K, WIDTHS, activation, precision=precision, backend="cupy", regularizer=penalties
    )
    trainer = EnsembleTrainer(ensemble, lr=rates, **settings)
    assert lockstep.possible(trainer.trainers)
    histories = trainer.fit(X, LABELS, **fit)
    for i in (0, 5, K - 1):
        net = MLP(
            WIDTHS, activation, precision="float64", backend="numpy", seed=i,
            regularizer=penalties[i],
        )  # fmt: skip
        single = Trainer(net, lr=rates[i], seed=i, **settings)
        history = single.fit(X, LABELS, progress=False, **fit)
        np.testing.assert_allclose(histories[i]["cost"], history["cost"], rtol=NEAR[precision])
        if precision in ("float64", "float32"):
            for name, tensor in net.tensors().items():
                np.testing.assert_allclose(
                    ensemble[i].tensors()[name], tensor, rtol=0, atol=NEAR[precision]
                )


def test_a_run_repeats_to_the_bit_and_members_stop_by_themselves() -> None:
    """When half have stopped, the program is recorded again for the rest."""

    def trained() -> Any:
        ensemble = Ensemble(K, WIDTHS, backend="cupy")
        trainer = EnsembleTrainer(ensemble, "adamw", lr=0.01, batch_size=50)
        fit: dict[str, Any] = {"validation": (X[:100], LABELS[:100]), "early_stopping": 1}
        histories = trainer.fit(X[100:], LABELS[100:], 30, **fit)
        return ensemble.backend.to_host(ensemble.theta).tobytes(), histories.best_epochs

    assert trained() == trained()


def test_a_member_that_diverged_rests() -> None:
    rates = [0.01] * K
    rates[3] = 1e30
    ensemble = Ensemble(K, WIDTHS, backend="cupy")
    histories = EnsembleTrainer(ensemble, "nesterov", lr=rates, batch_size=50).fit(X, LABELS, 4)
    assert list(histories.diverged) == [3]
    assert all(np.isfinite(histories[i]["cost"]).all() for i in range(K) if i != 3)
