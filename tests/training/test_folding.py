"""The update folded into the weight-gradient product gives the same steps."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.numpy.blas import numpy_blas
from tests.support.cuda_networks import (
    EPS,
    TOLERANCE,
    classifier,
    device,
    moved,
    on_cuda_backend,
    on_host,
    problem,
    relative,
)
from tests.support.training_cases import FOLDABLE

SCHEDULE = "one_cycle" if "one_cycle" in gpumlp.SCHEDULES else "warmup_cosine"


def trained(net: gpumlp.MLP, optimizer: Any, fold: bool | None, **settings: Any) -> gpumlp.Trainer:
    """After two epochs of five minibatches, with a learning rate that changes at every step."""
    x, y, weights = problem(70)
    settings = {"lr": 0.1, "schedule": SCHEDULE, "batch_size": 16} | settings
    trainer = gpumlp.Trainer(net, optimizer, fold=fold, **settings)
    assert trainer.folds is (fold is not False)
    trainer.fit(x, y, 2, sample_weight=weights, progress=False)
    return trainer


@pytest.mark.parametrize(("backend", "f"), [("numpy", "relu"), ("harness", "gelu")])
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize(("name", "params", "omega"), FOLDABLE)
def test_folded_steps_equal_separate_updates(
    name: str, params: Any, omega: Any, precision: str, backend: str, f: str
) -> None:
    optimizer, runs = gpumlp.OPTIMIZERS[name].set(**params), []
    for fold in (False, None, True):
        net = classifier(f, precision=precision, regularizer=omega)
        net = on_cuda_backend(net) if backend == "harness" else net
        runs.append(trained(net, optimizer, fold))
    apart, *folded = runs
    assert not apart.folds
    for trainer in folded:
        assert trainer.folds
        for ours, theirs in (
            (trainer.net.theta.flat, apart.net.theta.flat), (trainer.slots, apart.slots)
        ):  # fmt: skip
            want = on_host(theirs)
            np.testing.assert_allclose(
                on_host(ours), want, rtol=0, atol=TOLERANCE[precision] * np.abs(want).max(initial=0)
            )
        np.testing.assert_allclose(
            trainer.history["cost"], apart.history["cost"], rtol=TOLERANCE[precision]
        )


@pytest.mark.parametrize("precision", ["bfloat16"])
@pytest.mark.parametrize(("name", "params", "omega"), FOLDABLE)
def test_folded_steps_in_low_precision(name: str, params: Any, omega: Any, precision: str) -> None:
    """The gradient is added in float32, and so more exactly than it would have been stored."""
    optimizer, net = gpumlp.OPTIMIZERS[name].set(**params), classifier("tanh", precision="float32")
    start, runs = net.tensors(), []
    for each in ("float64", precision):
        settings = {"precision": each, "regularizer": omega}
        second = gpumlp.MLP(**{**net.config(), "precision": "float64"}, backend="numpy")
        second = on_cuda_backend(second, **settings)
        second.assign(start)
        runs.append(trained(second, optimizer, None).net)
    exact, rough = runs
    assert relative(moved(rough, start), moved(exact, start)) < 8 * EPS["bfloat16"]
    rounded = rough.rounded.flat.values
    assert rounded.tobytes() == rough.theta.flat.values.astype(rounded.dtype).tobytes()


@pytest.mark.parametrize(
    ("optimizer", "settings", "network", "reason"),
    [
        ("adamw", {}, {}, "adamw needs the gradient in addition to its state"),
        ("nesterov", {}, {}, "nesterov needs the gradient"),
        ("sgd", {"clip_norm": 1.0}, {}, "clip_norm needs the norm of the whole gradient first"),
        ("sgd", {}, {"regularizer": gpumlp.L1(0.1)}, "gradient of l1 is not a multiple of"),
        ("sgd", {}, {"regularizer": gpumlp.ElasticNet(0.1, 0.1)}, "gradient of elastic_net is not"),
        ("momentum", {}, {"regularizer": gpumlp.L2(0.1)}, "with momentum, l2 goes through the vel"),
        ("sgd", {}, {"precision": "float16"}, "float16 skips a step whose gradient overflows"),
        ("momentum", {"slot_precision": "bfloat16"}, {"precision": "tf32"}, "slots of 16 bits are"),
    ],
)
def test_fold_that_would_change_the_step_raises(
    optimizer: str, settings: Any, network: Any, reason: str
) -> None:
    net = on_cuda_backend(classifier(precision="float32", regularizer=None), **network)
    assert not gpumlp.Trainer(net, optimizer, **settings).folds
    with pytest.raises(ValueError, match=f"fold=True is not possible: .*{reason}.*pass fold=None"):
        gpumlp.Trainer(net, optimizer, **settings, fold=True)


def test_no_gradient_buffer_and_no_pass_over_the_weights() -> None:
    """SGD in float32: the products update the weights, and one launch the biases."""
    allocated, launches = [], []
    for fold in (False, None):
        gpu = on_cuda_backend(classifier("relu", precision="float32", regularizer=gpumlp.L2(0.1)))
        calls = device(gpu).calls
        calls.clear()
        trainer = gpumlp.Trainer(gpu, "sgd", batch_size=32, fold=fold)
        shapes = [call for call in calls if call.startswith("empty")]
        allocated.append(sum(int(call.split("(")[1].split(",")[0]) for call in shapes))
        x, y, _ = problem(96)
        trainer.fit(x, y, 1, progress=False)
        calls.clear()
        trainer.fit(x, y, 1, progress=False, metric=None)
        launches.append([call for call in device(gpu).launches if "step.cu" not in call][-8:])
    split, size = gpu.theta.layout.split, gpu.theta.layout.size
    assert allocated[0] - allocated[1] == split
    assert size > split
    apart, folded = ([call for call in each if "gemm TN" in call] for each in launches)
    assert apart
    assert all(call.endswith(" factors") for call in folded)
    assert [call.removesuffix(" factors") for call in folded] == apart


# ---- NumPy's BLAS --------------------------------------------------------------------------------


def test_numpys_blas_can_be_called_here() -> None:
    """Every wheel of NumPy for Linux and macOS allows it."""
    assert numpy_blas() is not None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ways", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (3, 5, 7), (1, 9, 4), (9, 1, 4), (9, 4, 1), (2, 3, 0)]
)
def test_blas_product(shape: tuple[int, int, int], ways: tuple[int, int], dtype: str) -> None:
    (m, n, k), rng, blas = shape, np.random.default_rng(0), numpy_blas()
    assert blas is not None
    a, b = (
        rng.normal(size=s[::-1] if way else s).astype(dtype)
        for s, way in zip(((m, k), (k, n)), ways, strict=True)
    )
    a, b = a.T if ways[0] else a, b.T if ways[1] else b
    out = rng.normal(size=(m, n)).astype(dtype)
    want = 1.5 * a.astype(float) @ b.astype(float) - 0.5 * out
    blas.gemm(a, b, out, 1.5, -0.5)
    np.testing.assert_allclose(out, want, rtol=1e-5 if dtype == "float32" else 1e-13, atol=1e-6)
    out.fill(np.nan)
    blas.gemm(a, b, out, 1.0, 0.0)
    np.testing.assert_allclose(out, a @ b, rtol=1e-5, atol=1e-6)


def test_products_that_it_cannot_do_are_errors() -> None:
    blas, a, out = numpy_blas(), np.ones((4, 6)), np.ones((4, 4))
    assert blas is not None
    for wrong in (
        (a, a, out), (a[:, ::2], np.ones((3, 4)), out), (a, np.ones((6, 4)), out[:, :3]),
        (a, np.ones((6, 4), np.float32), out), (a, np.ones((6, 4)), out[::-1]),
        (a.astype(int), np.ones((6, 4), int), np.ones((4, 4), int)),
    ):  # fmt: skip
        before = wrong[2].copy()
        with pytest.raises(ValueError, match=r"BLAS cannot multiply arrays like these: \(4, "):
            blas.gemm(*wrong, 1.0, 0.0)
        np.testing.assert_array_equal(wrong[2], before)


def test_fold_without_numpys_blas_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpumlp.backends.numpy.backend.numpy_blas", lambda: None)
    net = classifier(regularizer=None)
    assert not gpumlp.Trainer(net, "sgd").folds
    with pytest.raises(ValueError, match="NumPy's BLAS cannot be called directly here"):
        gpumlp.Trainer(net, "sgd", fold=True)


def test_diverging_folded_step_raises() -> None:
    """The error is the same as with a separate update."""
    x, y, _ = problem(64)
    net = classifier("relu", precision="float32", regularizer=None)
    with warnings.catch_warnings(), pytest.raises(FloatingPointError, match="training diverged"):
        gpumlp.Trainer(net, "sgd", lr=1e30, fold=True).fit(x, y, 3, progress=False)


@pytest.mark.parametrize("fold", ["yes", 1, "no"])
def test_invalid_fold_raises(fold: Any) -> None:
    """A string would count as True."""
    with pytest.raises(TypeError, match="fold must be True, False or None, got"):
        gpumlp.Trainer(classifier(), "sgd", fold=fold)
    assert not gpumlp.Trainer(classifier(regularizer=None), "sgd", fold=np.False_).folds
