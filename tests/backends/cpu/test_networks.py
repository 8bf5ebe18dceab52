"""Whole networks on the CPU backend, by the test bodies of the CUDA backend."""

from __future__ import annotations

from typing import Any

import pytest

import gpumlp
from tests.support import network_tests
from tests.support.compiled import needs_library
from tests.support.network_tests import (  # noqa: F401  (collected here)
    test_every_activation_with_every_loss,
    test_every_depth_and_regularizer,
    test_every_optimizer,
    test_hidden_softmax_layer,
    test_nan_gradient_shows_in_next_cost,
    test_twenty_steps_of_adamw,
    test_widths_and_minibatches,
)

pytestmark = needs_library


@pytest.fixture(autouse=True)
def _on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the collected tests on the CPU backend."""

    def on_cpu(net: gpumlp.MLP, order: int = 0, **changes: Any) -> gpumlp.MLP:
        precision = changes.pop("precision", net.precision)
        other = gpumlp.MLP(**net.config() | {"precision": precision} | changes, backend="cpu")
        other.assign(net.tensors())
        return other

    monkeypatch.setattr(network_tests, "on_cuda_backend", on_cpu)
