"""Estimators on the CUDA backend, whose kernels run on the CPU: the same results, and copies."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from gpumlp import OPTIMIZERS
from gpumlp.backends.cpu import loading
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.estimators import MLPClassifier, MLPRegressor
from tests.support.compiled import needs_library
from tests.support.harness.host_device import HostDevice

RNG = np.random.default_rng(4)
X = RNG.normal(size=(80, 4))
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)
WEIGHTS = np.arange(80) % 3
SETTINGS: dict[str, Any] = {
    "hidden_layer_sizes": (6, 5), "max_iter": 4, "batch_size": 16, "random_state": 0, "tol": 0,
    "early_stopping": True,
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:Training ended after")


def on_harness(solver: str = "adam", precision: str = "float64", **settings: Any) -> Any:
    settings = SETTINGS | {"solver": solver, "precision": precision} | settings
    return MLPClassifier(**settings, backend=CudaBackend(HostDevice(), precision))


def same(one: Any, other: Any) -> bool:
    pairs = zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


@needs_library
@pytest.mark.parametrize("solver", [*OPTIMIZERS, "lbfgs"])
def test_solvers_are_compiled_on_installation(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a C++ compiler runs whole steps of the library, not NumPy expressions."""

    def none(text: str, instruction_set: str) -> None:
        raise AssertionError(f"not in the installed library: {text[-200:]}")

    monkeypatch.setattr(loading, "_compiled", none)
    for activation in ("relu", "tanh", "logistic"):
        own = SETTINGS | {"solver": solver, "activation": activation, "backend": "cpu"}
        MLPClassifier(**own).fit(X, Y)
        MLPRegressor(**own, alpha=0.1).fit(X, X[:, :2])


@pytest.mark.parametrize("solver", ["adam", "sgd", "muon", "lbfgs"])
def test_cuda_backend_equals_numpy_backend(solver: str) -> None:
    gpu = on_harness(solver).fit(X, Y, sample_weight=WEIGHTS)
    settings = SETTINGS | {"solver": solver, "precision": "float64", "backend": "numpy"}
    cpu = MLPClassifier(**settings).fit(X, Y, sample_weight=WEIGHTS)
    for got, want in zip(gpu.coefs_, cpu.coefs_, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(gpu.loss_curve_, cpu.loss_curve_, rtol=1e-8)
    assert gpu.validation_scores_ == cpu.validation_scores_
    assert (gpu.predict(X) == cpu.predict(X)).all()


@pytest.mark.parametrize(
    ("solver", "precision"),
    [("adam", "float32"), ("adam", "float16"), ("sgd", "float64"), ("muon", "bfloat16")],
)
def test_copy_continues_like_the_original(solver: str, precision: str) -> None:
    """A copy has the optimizer's state and the best parameters so far on the host."""
    e = on_harness(solver, precision)
    for _ in range(3):
        e.partial_fit(X, Y, classes=[0, 1, 2])
    copied = copy.deepcopy(e)
    for _ in range(2):
        e.partial_fit(X, Y)
        copied.partial_fit(X[:, ::-1][:, ::-1], Y)
    assert same(copied, e)
    assert copied.validation_scores_ == e.validation_scores_
    e.set_params(warm_start=True).fit(X, Y)
    assert len(e.loss_curve_) == 5 + e.n_iter_


def test_clone_uses_the_same_backend() -> None:
    e = on_harness()
    copied = clone(e)
    assert copied.backend is e.backend
    assert same(copied.fit(X, Y), e.fit(X, Y))


def test_pickle_finds_the_backend_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example, a search fits in other processes."""
    e = on_harness("muon", "bfloat16").partial_fit(X, Y, classes=[0, 1, 2])
    monkeypatch.setattr("gpumlp.backends.cuda.open_device", lambda: HostDevice())
    copied = pickle.loads(pickle.dumps(e))
    assert copied.net_.precision == copied.backend.precision == "bfloat16"
    assert same(copied.partial_fit(X, Y), e.partial_fit(X, Y))


def test_muon_learns_a_regression() -> None:
    """A regression that is far from its start, on both backends."""
    y = np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2]
    settings = {"solver": "muon", "learning_rate_init": 0.02, "random_state": 0, "tol": 0}
    for backend in ("numpy", CudaBackend(HostDevice(), "float32")):
        e = MLPRegressor(
            hidden_layer_sizes=(16, 16), batch_size=16, max_iter=40, backend=backend, **settings
        ).fit(X, y)
        assert e.score(X, y) > 0.9


def test_backend_of_another_precision_raises() -> None:
    """The backend does not silently compute in its own precision."""
    backend = CudaBackend(HostDevice(), "float32")
    e = MLPClassifier(**SETTINGS, backend=backend, precision="float64")
    with pytest.raises(ValueError, match=r"precision='float64', but .* in float32; pass .*auto"):
        e.fit(X, Y)
    assert e.set_params(precision="auto").fit(X, Y).net_.precision == "float32"
