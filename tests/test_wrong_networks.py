"""What takes a network says what came in its place, and what an estimator has instead."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import gpumlp

pytest.importorskip("sklearn")
pytest.importorskip("torch")
pytest.importorskip("onnx")
from gpumlp.estimators import MLPClassifier
from gpumlp.interop.onnx import export_onnx
from gpumlp.interop.torch import to_torch
from tests.support.refusal import refusal

X, Y = np.random.default_rng(0).normal(size=(12, 3)), np.arange(12) % 2
NETWORK: dict[str, tuple[Any, str]] = {  # the call, and the argument's name in its error
    "Trainer": (gpumlp.Trainer, "net must be a gpumlp.MLP,"),
    "fit_lbfgs": (lambda net: gpumlp.fit_lbfgs(net, X, Y, max_iter=1), "net must be a gpumlp.MLP,"),
    "Ensemble.of": (lambda net: gpumlp.Ensemble.of([net]), "nets[0] must be a gpumlp.MLP,"),
    "to_torch": (to_torch, "net must be a gpumlp.MLP or gpumlp.Ensemble,"),
    "export_onnx": (export_onnx, "net must be a gpumlp.MLP or gpumlp.Ensemble,"),
}


def fitted(**settings: Any) -> MLPClassifier:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged
        return MLPClassifier((4,), max_iter=1, backend="numpy", **settings).fit(X, Y)


@pytest.mark.parametrize("name", NETWORK)
def test_an_estimator_says_where_its_network_is(name: str) -> None:
    call, said = NETWORK[name]
    estimator = fitted(norm="layer")
    refusal(TypeError, lambda: call(estimator), f"{said} got MLPClassifier; pass its net_")
    call(estimator.net_)


def test_an_estimator_of_several_models_says_where_its_ensemble_is() -> None:
    estimator = fitted(n_models=2)
    for call in (gpumlp.EnsembleTrainer, to_torch, export_onnx):
        refusal(TypeError, lambda call=call: call(estimator), "; pass its ensemble_")
        call(estimator.ensemble_)


@pytest.mark.parametrize("name", NETWORK)
@pytest.mark.parametrize("value", [None, 3, "model.safetensors", gpumlp.MLP])
def test_other_objects_are_named(name: str, value: Any) -> None:
    call, said = NETWORK[name]
    refusal(TypeError, lambda: call(value), f"{said} got {type(value).__name__}")
