"""Ensemble: members over one array, their mean, and files."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import MLP, CheckpointError, Ensemble, storage
from gpumlp.functions import ACTIVATIONS
from tests.support.compiled import needs_library
from tests.support.cuda_networks import on_host
from tests.support.refusal import refusal

BACKENDS = ["numpy", pytest.param("cpu", marks=needs_library)]


def ensemble(**settings: Any) -> Ensemble:
    settings = {"backend": "numpy", "seeds": [5, 0, 2]} | settings
    return Ensemble(3, [4, 7, 3], "tanh", **settings)


def x(m: int = 11) -> Any:
    return np.random.default_rng(m).normal(size=(m, 4))


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_members_are_networks_over_one_array(backend: str, precision: str) -> None:
    e = ensemble(backend=backend, precision=precision)
    assert len(e) == 3
    assert e.seeds == [5, 0, 2]
    for i, net in enumerate(e):
        single = MLP([4, 7, 3], "tanh", backend=backend, precision=precision, seed=e.seeds[i])
        assert np.array_equal(e.theta[i], single.theta.flat)
        assert np.array_equal(net.predict(x()), single.predict(x()))
        assert e[i] is net
        net.layers[1].b[...] = i + 1
        assert (e.theta[i] == i + 1).sum() >= 3
        assert net.theta.flat.ctypes.data % 256 == 0


def test_default_seeds_are_the_numbers() -> None:
    assert Ensemble(3, [2, 2], backend="numpy").seeds == [0, 1, 2]


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "binary_cross_entropy", "poisson"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_predict_is_the_mean_after_the_link(backend: str, loss: str) -> None:
    e = ensemble(backend=backend, loss=loss, precision="float64")
    each = [net.predict(x()) for net in e]
    assert np.array_equal(e.predict(x(), members=True), each)
    np.testing.assert_allclose(e.predict(x()), np.mean(each, axis=0), rtol=1e-14)
    e.diverged.add(1)
    np.testing.assert_allclose(e.predict(x()), (each[0] + each[2]) / 2, rtol=1e-14)
    assert np.array_equal(e.predict(x(), members=True), each)


def test_samples_of_dropout_are_those_of_the_members() -> None:
    e = ensemble(dropout=0.3)
    each = [net.predict(x(), samples=4) for net in e]
    assert np.array_equal(e.predict(x(), members=True, samples=4), each)
    e.diverged.add(1)
    p = e.predict(x(), samples=4)
    np.testing.assert_allclose(p, (each[0] + each[2]) / 2, rtol=1e-6)
    assert p.std(axis=0).min() > 0
    refusal(ValueError, lambda: ensemble().predict(x(), samples=4), "leave out samples")


def test_predictions_are_of_the_kind_of_x() -> None:
    torch = pytest.importorskip("torch")
    e = ensemble()
    for members in (False, True):
        p = e.predict(torch.from_numpy(x()), members=members)
        assert isinstance(p, torch.Tensor)
        assert np.array_equal(p.numpy(), e.predict(x(), members=members))


def test_own_penalties_of_members() -> None:
    e = ensemble(regularizer=[None, gpumlp.L2(0.1), "l1"])
    y = np.arange(11) % 3
    for net, omega in zip(e, (None, gpumlp.L2(0.1), "l1"), strict=True):
        single = MLP([4, 7, 3], "tanh", regularizer=omega, backend="numpy", seed=net.seed)
        assert net.cost(x(), y) == single.cost(x(), y)
    assert len({net.penalty() for net in e}) == 3


@pytest.mark.parametrize(
    "loss", ["softmax_cross_entropy", "binary_cross_entropy", "poisson", "huber"]
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_cost_of_the_mean_prediction(backend: str, loss: str) -> None:
    """J of the mean prediction is below the mean of the members' J, as L is convex in it."""
    e = ensemble(backend=backend, loss=loss, precision="float64", regularizer=gpumlp.L2(0.1))
    many = x(9000)  # several chunks
    y: Any = np.arange(9000) % 3
    if loss != "softmax_cross_entropy":
        y = (np.eye(3)[y] if loss == "binary_cross_entropy" else np.eye(3)[y] * 4) + 0.0
    J, p = e.cost_and_prediction(many, y)
    np.testing.assert_allclose(p, e.predict(many), rtol=1e-11)
    expected = {
        "softmax_cross_entropy": lambda: -np.log(p[np.arange(9000), y]),
        "binary_cross_entropy": lambda: -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(axis=1),
        "poisson": lambda: (p - y * np.log(p)).mean(axis=1),
        "huber": lambda: np.where(abs(p - y) < 1, (p - y) ** 2 / 2, abs(p - y) - 0.5).mean(axis=1),
    }[loss]()
    np.testing.assert_allclose(J, expected.mean() + e.penalty(), rtol=1e-11)
    np.testing.assert_allclose(e.penalty(), np.mean([net.penalty() for net in e]), rtol=1e-15)
    assert np.mean([net.cost(many, y) for net in e]) > J
    link = e.loss.link
    np.testing.assert_allclose(link.f(e.forward(many), **link.params), p, rtol=1e-11)
    e.diverged = {0, 2}
    np.testing.assert_allclose(e.cost_and_prediction(many, y)[0], e[1].cost(many, y), rtol=1e-12)


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "poisson"])
def test_cost_of_the_mean_prediction_on_a_gpu(loss: str) -> None:
    """On the harness, with x and y on the host and on the device."""
    from gpumlp.backends.cuda.backend import CudaBackend
    from tests.support.harness.host_device import HostDevice

    backend: Any = CudaBackend(HostDevice(), "float64")
    gpu = ensemble(backend=backend, loss=loss, precision="float64")
    host = ensemble(loss=loss, precision="float64")
    y: Any = np.arange(11) % 3 if loss != "poisson" else np.arange(33.0).reshape(11, 3)
    J, p = host.cost_and_prediction(x(), y)
    for place in (np.asarray, lambda a: backend.asarray(a, a.dtype)):
        found, predicted = gpu.cost_and_prediction(place(x()), place(y))
        np.testing.assert_allclose(found, J, rtol=1e-12)
        np.testing.assert_allclose(on_host(predicted), p, rtol=1e-12)
        y_hat = gpu.forward(place(x()))
        np.testing.assert_allclose(on_host(y_hat), host.forward(x()), rtol=1e-12, atol=1e-14)


# ---- files and copies ----------------------------------------------------------------------------


def test_files_have_further_contents(tmp_path: Any) -> None:
    path, other = tmp_path / "members.safetensors", tmp_path / "net.safetensors"
    e = ensemble()
    e.save(path, {"data": {"columns": [1, 2]}})
    for net in (e, e[0]):
        refusal(TypeError, lambda net=net: net.save(path, [1]), "extra must be a mapping")
        refusal(TypeError, lambda net=net: net.save(path, {"a": x}), "extra has what JSON cannot")
    e[0].save(other)
    assert storage.load_extra(path) == {"data": {"columns": [1, 2]}}
    assert np.array_equal(Ensemble.load(path, "numpy").theta, e.theta)
    assert [storage.has_ensemble(each) for each in (path, other)] == [True, False]
    other.write_bytes(b"\xff" * 40)
    assert not storage.has_ensemble(other)
    assert not storage.has_ensemble(tmp_path)


@pytest.mark.parametrize("backend", BACKENDS)
def test_files_keep_everything(backend: str, tmp_path: Any) -> None:
    path = tmp_path / "members.safetensors"
    e = ensemble(backend=backend, regularizer=[None, gpumlp.L2(0.1), "l1"], precision="float64")
    e.theta += np.where(e.theta != 0, 0.5, 0)
    e.diverged.add(2)
    e.save(path)
    found = Ensemble.load(path, backend=backend)
    assert np.array_equal(found.theta, e.theta)
    assert found.config() == e.config()
    assert found.diverged == {2}
    assert repr(found) == repr(e)
    tensors, _ = storage.read(path)
    assert np.array_equal(tensors["members.1.0.weight"], e[1].layers[0].W)


def test_files_of_own_functions_load(tmp_path: Any) -> None:
    path = tmp_path / "members.safetensors"
    own = ACTIVATIONS["tanh"].set()
    own = type(own)(**{**vars(own), "name": "mine"})
    e = Ensemble(2, [4, 7, 3], own, backend="numpy")
    e.save(path)
    loaded = Ensemble.load(path, "numpy", functions=[own])
    assert np.array_equal(loaded.predict(x()), e.predict(x()))
    with pytest.raises(CheckpointError, match="mine"):
        Ensemble.load(path, "numpy")


def test_damaged_and_foreign_files_raise(tmp_path: Any) -> None:
    path, other = tmp_path / "members.safetensors", tmp_path / "net.safetensors"
    e = ensemble()
    e.save(path)
    e[0].save(other)
    refusal(CheckpointError, lambda: Ensemble.load(other, "numpy"), "gpumlp.MLP.load")
    refusal(CheckpointError, lambda: MLP.load(path, "numpy"), "gpumlp.Ensemble.load")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    refusal(CheckpointError, lambda: Ensemble.load(path, "numpy"), "SHA-256")
    tensors = {f"members.{i}.{k}": a for i, n in enumerate(e) for k, a in n.tensors().items()}
    settings = {"config": e.config(), "diverged": []}
    fourth = {"members.3.0.weight": tensors["members.0.0.weight"]}
    for change, said in (
        ({"tensors": {**tensors, **fourth}}, "3 members"),
        ({"tensors": dict(list(tensors.items())[1:])}, "tensor names"),
        ({"settings": {"config": e.config()}}, "diverged"),
        ({"settings": {**settings, "config": {**e.config(), "K": 2}}}, "entries"),
        ({"settings": {**settings, "config": {**e.config(), "depth": 2}}}, "depth"),
    ):  # fmt: skip
        made = {"tensors": tensors, "settings": settings} | change
        metadata = {"gpumlp": storage.FORMAT, "ensemble": json.dumps(made["settings"])}
        storage.write(path, made["tensors"], metadata)
        refusal(CheckpointError, lambda: Ensemble.load(path, "numpy"), said)
    storage.write(path, tensors, {"gpumlp": "2", "ensemble": json.dumps(settings)})
    refusal(CheckpointError, lambda: Ensemble.load(path, "numpy"), "the format 2", "reads 1")


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_have_their_own_array(duplicate: Any) -> None:
    e = ensemble()
    e.diverged.add(1)
    other = duplicate(e)
    assert np.array_equal(other.theta, e.theta)
    assert other.diverged == {1}
    assert not np.shares_memory(other.theta, e.theta)
    other[2].layers[0].W[...] = 1
    assert np.shares_memory(other.theta, other[2].theta.flat)
    assert not np.array_equal(other.theta, e.theta)
    assert np.array_equal(copy.deepcopy(e[2]).theta.flat, e.theta[2])


def test_networks_whose_backends_saw_other_numbers_of_threads_go_together(monkeypatch: Any) -> None:
    """BLAS may have one thread for a moment, while a network is made in another thread."""
    nets = []
    for count in (2, 1):
        monkeypatch.setattr("gpumlp.backends.numpy.backend.blas_threads", lambda count=count: count)
        nets.append(MLP([4, 7, 3], backend="numpy", seed=count))
    assert nets[0].backend.describe() != nets[1].backend.describe()
    assert np.array_equal(Ensemble.of(nets)[1].predict(x()), nets[1].predict(x()))
    other = MLP([4, 7, 3], backend="numpy", precision="float64")
    refusal(ValueError, lambda: Ensemble.of([nets[0], other]), "pass nets of one shape")


def test_members_and_their_array_cannot_be_replaced() -> None:
    ensemble = Ensemble(2, [3, 2], backend="numpy")
    for each in (ensemble, copy.deepcopy(ensemble)):
        for name in ("theta", "nets"):
            with pytest.raises(AttributeError, match=f"{name} of an ensemble cannot change"):
                setattr(each, name, [])
        each.theta *= 0
        assert not each.nets[1].layers[0].W.any()


def test_invalid_settings_raise() -> None:
    for nets in (None, ensemble()[0]):
        refusal(TypeError, lambda nets=nets: Ensemble.of(nets), "nets must be a list of gpumlp.MLP")
    refusal(ValueError, lambda: ensemble(seeds=[1, 2]), "seeds has 2 entries", "3 members")
    refusal(TypeError, lambda: ensemble(seeds=4), "seeds must be a list")
    refusal(ValueError, lambda: ensemble(seeds=[1, 2, -1]), "seed")
    refusal(ValueError, lambda: ensemble(regularizer=["l2"]), "regularizer has 1 entries")
    refusal(ValueError, lambda: Ensemble(0, [2, 2]), "K must be at least 1")
    refusal(ValueError, lambda: Ensemble(10**30, [2, 2]), "K must be at most 1,000,000")
    refusal(TypeError, lambda: Ensemble(2.0, [2, 2]), "K must be")  # type: ignore[arg-type]
    refusal(ValueError, lambda: ensemble().predict(x()[:, 1:]), "columns")
    refusal(TypeError, lambda: ensemble().predict(x(), members=1), "members")  # type: ignore[arg-type]
