"""Changes of the learning rate between recorded steps, on a GPU."""

from __future__ import annotations

import numpy as np
import pytest

import gpumlp
from gpumlp.callbacks import LearningRateLogger, ReduceOnPlateau
from tests.support.kill_worker import STEPS, run
from tests.support.training_cases import LABELS, X, classifier, theta


def plateau() -> ReduceOnPlateau:
    return ReduceOnPlateau(factor=0.5, patience=1, min_delta=0.05, cooldown=1)


def test_plateau_lowers_learning_rate_of_recorded_steps() -> None:
    common = {"epochs": 6, "early_stopping": None, "trainer": {"lr": 0.3}}
    backend, rates = {"backend": "cupy", "precision": "float64"}, LearningRateLogger()
    expected = run(net={"precision": "float64"}, callbacks=[plateau()], **common)
    trainer = run(net=backend, callbacks=[plateau(), rates], **common)
    assert trainer.history["lr"] == expected.history["lr"]
    assert rates.lr[STEPS - 1 :: STEPS].tolist() == trainer.history["lr"]
    for name, tensor in trainer.net.tensors().items():
        want = expected.net.tensors()[name]
        np.testing.assert_allclose(tensor, want, rtol=1e-10, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("data", ["device", "stream"])
def test_learning_rate_test_matches_cpu(data: str) -> None:
    net = classifier()
    gpu = gpumlp.MLP(**net.config(), backend="cupy")
    gpu.assign(net.tensors())
    before = theta(gpu)
    want, got = (
        gpumlp.Trainer(each, batch_size=16).find_lr(X, LABELS, end=0.5, steps=60, data=data)
        for each in (net, gpu)
    )
    np.testing.assert_allclose(got.loss, want.loss, rtol=1e-9)
    assert got.suggestion == want.suggestion
    assert theta(gpu) == before
