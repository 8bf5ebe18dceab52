"""Batch norm: against torch, parts of minibatches against the whole, and what keeps its state."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import MLP, NORMS, Ensemble, EnsembleTrainer, Trainer
from tests.support.blocks import BATCH_BY_MEANS, COLUMN_RMS, batch_network, outputs_in_torch
from tests.support.compiled import needs_library
from tests.support.fitted import assert_near, fitted
from tests.support.refusal import refusal

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 6))
X32 = X.astype(np.float32)
LABELS = X[:, :3].argmax(axis=1)
BACKENDS = ["numpy", pytest.param("cpu", marks=needs_library)]
WIDTHS = [6, 8, 8, 11, 3]
ALL: dict[str, Any] = {
    "norm": ["batch", "batch", "layer"], "dropout": [0.2, 0.0, 0.5], "residual": True,
    "gated": [None, "silu", None],
}  # fmt: skip
RUNNING = ("running_mean", "running_var")


def network(backend: Any = "numpy", precision: str = "float64", **blocks: Any) -> MLP:
    return MLP(WIDTHS, "gelu", backend=backend, precision=precision, seed=1, **ALL | blocks)


def trained(net: MLP, *epochs: Any, **settings: Any) -> MLP:
    """After epochs of three minibatches, the last one smaller."""
    return fitted(net, X, LABELS, *epochs, **settings)


def of_torch(net: MLP) -> tuple[dict[str, Any], dict[str, Any]]:
    """All tensors, and those that are parameters."""
    torch = pytest.importorskip("torch")
    every = {
        name: torch.tensor(a, requires_grad=name.rpartition(".")[2] not in RUNNING)
        for name, a in net.tensors().items()
    }
    return every, {name: a for name, a in every.items() if a.requires_grad}


# ---- against torch -------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(12))
def test_gradients_of_a_training_step_equal_those_of_torch(seed: int, backend: str) -> None:
    """A step of SGD with the rate 1 subtracts ∇J.  The statistics are those of torch, too."""
    torch = pytest.importorskip("torch")
    net = batch_network(seed, backend)
    x, y = RNG.normal(size=(9, net.widths[0])), RNG.integers(0, 3, 9)
    every, p = of_torch(net)
    y_hat = outputs_in_torch(net, every, torch.tensor(x), training=True)[-1]
    torch.nn.functional.cross_entropy(y_hat, torch.tensor(y)).backward()
    before = net.tensors()
    Trainer(net, "sgd", lr=1.0, batch_size=9, shuffle=False).fit(x, y, 1, progress=False)
    least = 1e-2 * max(float(each.grad.abs().max()) for each in p.values())
    for name, after in net.tensors().items():
        if name in p:
            want = p[name].grad.numpy()
            scale = max(least, np.abs(want).max())
            got = before[name] - after
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-10 * scale, err_msg=name)
        else:
            np.testing.assert_allclose(after, every[name].numpy(), 1e-12, 1e-12, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(6))
def test_everything_else_reads_running_statistics(seed: int, backend: str) -> None:
    """`forward`, `cost` and `cost_and_gradients` are those of torch's evaluation mode."""
    torch = pytest.importorskip("torch")
    net = batch_network(seed, backend)
    x, y = RNG.normal(size=(7, net.widths[0])), RNG.integers(0, 3, 7)
    every, p = of_torch(net)
    h = outputs_in_torch(net, every, torch.tensor(x, requires_grad=True))
    for each in h:
        each.retain_grad()
    J = torch.nn.functional.cross_entropy(h[-1], torch.tensor(y))
    J.backward()
    before = net.tensors()
    ours, grads = net.cost_and_gradients(x, y)
    np.testing.assert_allclose([ours, net.cost(x, y)], J.item(), rtol=1e-12)
    np.testing.assert_allclose(net.forward(x), h[-1].detach().numpy(), 1e-10, 1e-12)
    assert set(grads.named) == set(p)
    pairs = [(grads.x, h[0].grad)] + [(gh, each.grad) for gh, each in zip(grads.h, h[1:])]  # noqa: B905
    pairs += [(each, p[name].grad) for name, each in grads.named.items()]
    least = 1e-2 * max(float(want.abs().max()) for _, want in pairs)
    for got, want in pairs:
        scale = max(least, float(want.abs().max()))
        np.testing.assert_allclose(np.asarray(got), want.numpy(), rtol=0, atol=1e-10 * scale)
    assert all(np.array_equal(a, before[name]) for name, a in net.tensors().items())


@pytest.mark.parametrize("momentum", [0.1, 0.5])
def test_a_training_is_that_of_torch(momentum: float) -> None:
    """Twelve steps of AdamW, the last of each epoch with fewer examples, and weight decay."""
    torch = pytest.importorskip("torch")
    norm = NORMS["batch"].set(momentum=momentum, eps=1e-3)
    net = MLP([6, 8, 8, 3], "tanh", norm=norm, backend="numpy", precision="float64")
    every, p = of_torch(net)
    decayed = [a for a in p.values() if a.ndim == 2]
    others = [a for a in p.values() if a.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    theirs = torch.optim.AdamW(groups, lr=0.01)
    adamw = gpumlp.OPTIMIZERS["adamw"].set(weight_decay=0.1)
    trained(net, 4, adamw, shuffle=False)
    x, y = torch.tensor(X), torch.tensor(LABELS)
    for _ in range(4):
        for rows in (slice(0, 32), slice(32, 64), slice(64, 70)):
            theirs.zero_grad()
            y_hat = outputs_in_torch(net, every, x[rows], training=True)[-1]
            torch.nn.functional.cross_entropy(y_hat, y[rows]).backward()
            theirs.step()
    for name, got in net.tensors().items():
        np.testing.assert_allclose(got, every[name].detach().numpy(), 1e-10, 1e-10, err_msg=name)


# ---- trainings -----------------------------------------------------------------------------------


@needs_library
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "momentum", "muon"])
def test_backends_train_to_the_same_parameters(optimizer: str) -> None:
    one, other = (trained(network(backend), 7, optimizer) for backend in ("numpy", "cpu"))
    assert_near(one, other)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "settings",
    [
        {"accumulate": 4}, {"accumulate": 3, "optimizer": "momentum"}, {"shards": 2}, {"shards": 4},
        {"shards": 3, "accumulate": 2, "clip_norm": 0.5}, {"memory": "low"},
    ],
    ids=str,
)  # fmt: skip
def test_statistics_are_those_of_the_whole_minibatch(
    settings: dict[str, Any], backend: str
) -> None:
    whole = {name: settings[name] for name in ("optimizer", "clip_norm") if name in settings}
    assert_near(trained(network(backend), **settings), trained(network(backend), **whole))


def test_a_folded_update_is_the_same() -> None:
    folded, apart = (trained(network(), optimizer="sgd", fold=f) for f in (None, False))
    assert_near(folded, apart)


def test_statistics_are_no_parameters() -> None:
    """No penalty, decay, clipping or average changes them, and the count leaves them out."""
    adamw = gpumlp.OPTIMIZERS["adamw"].set(weight_decay=0.5)
    plain: dict[str, Any] = {"norm": "batch", "dropout": 0.0, "gated": None, "residual": False}
    net = network(regularizer=gpumlp.L2(2.0), **plain)
    before = net.tensors()
    own = {name: a for name, a in before.items() if name.rpartition(".")[2] not in RUNNING}
    assert len(own) == len(before) - 6
    assert net.theta.layout.count == sum(a.size for a in own.values())
    assert net.penalty() == pytest.approx(sum(np.sum(a**2) for a in own.values()), rel=1e-12)
    first = trained(net, 1, adamw, batch_size=70, ema=0.9, clip_norm=1e-3).tensors()
    same = trained(network(**plain), 1, adamw, batch_size=70, lr=0.5).tensors()
    for name in set(before) - set(own):
        np.testing.assert_allclose(first[name], same[name], 1e-12, 1e-12)
        assert not np.array_equal(first[name], before[name])


def test_a_last_minibatch_of_one_example_reads_running_statistics() -> None:
    """Its variance would be 0; and as in torch, batch_size=1 is refused."""
    torch = pytest.importorskip("torch")
    net = MLP([6, 8, 3], "tanh", norm="batch", backend="numpy", precision="float64")
    trained(net, 1, batch_size=69, optimizer="sgd", lr=1.0, shuffle=False)
    every, p = of_torch(MLP([6, 8, 3], "tanh", norm="batch", backend="numpy", precision="float64"))
    x, y = torch.tensor(X), torch.tensor(LABELS)
    for rows in (slice(0, 69), slice(69, 70)):
        y_hat = outputs_in_torch(net, every, x[rows], training=rows.start == 0)[-1]
        torch.nn.functional.cross_entropy(y_hat, y[rows]).backward()
        with torch.no_grad():
            for each in p.values():
                each -= each.grad
                each.grad = None
    for name, got in net.tensors().items():
        np.testing.assert_allclose(got, every[name].detach().numpy(), 1e-10, 1e-10, err_msg=name)
    before = net.tensors()
    refusal(ValueError, lambda: trained(net, batch_size=1), "two examples", "batch_size=2")
    assert all(np.array_equal(a, before[name]) for name, a in net.tensors().items())


def test_streamed_parts_of_a_minibatch_are_refused() -> None:
    def streamed(**settings: Any) -> MLP:
        net = network()
        trainer = Trainer(net, lr=0.01, batch_size=32, seed=3, **settings)
        trainer.fit(X32, LABELS, 3, data="stream", progress=False)  # it is cast, so not in place
        return net

    refusal(ValueError, lambda: streamed(accumulate=2), "whole minibatch", "accumulate=1")
    whole = network()
    trainer = Trainer(whole, lr=0.01, batch_size=32, seed=3)
    trainer.fit(X32.astype(float), LABELS, 3, progress=False)
    assert_near(streamed(), whole)


def test_too_many_parts_are_refused() -> None:
    x, y = RNG.normal(size=(2100, 6)), RNG.integers(0, 3, 2100)
    trainer = Trainer(network(), batch_size=2100, accumulate=1050)
    refusal(
        ValueError, lambda: trainer.fit(x, y, 1, progress=False), "at most 1023 micro-batches",
        "here are 1,050", "smaller accumulate",
    )  # fmt: skip


def test_weights_of_examples_do_not_weigh_the_statistics() -> None:
    weights = np.where(np.arange(len(X)) % 2, 3.0, 0.0)
    net, other = network(), network()
    for each, given in ((net, weights), (other, None)):
        Trainer(each, batch_size=70).fit(X, LABELS, 1, sample_weight=given, progress=False)
    for name in ("2.norm.running_mean", "2.norm.running_var"):
        np.testing.assert_allclose(net.tensors()[name], other.tensors()[name], rtol=1e-12)


def test_members_of_an_ensemble_equal_their_own_trainings() -> None:
    ensemble = Ensemble(3, WIDTHS, "gelu", backend="numpy", precision="float64", **ALL)
    trainer = EnsembleTrainer(ensemble, "adamw", lr=[0.01, 0.02, 0.03], batch_size=32, seed=3)
    trainer.fit(X, LABELS, 3)
    for i, net in enumerate(ensemble):
        alone = MLP(WIDTHS, "gelu", backend="numpy", precision="float64", seed=i, **ALL)
        trained(alone, lr=0.01 * (i + 1), seed=3 + i)
        assert all(np.array_equal(a, alone.tensors()[name]) for name, a in net.tensors().items())


@needs_library
def test_members_on_threads_equal_their_own_trainings() -> None:
    ensemble = Ensemble(3, WIDTHS, "gelu", backend="cpu", precision="float64", **ALL)
    EnsembleTrainer(ensemble, "adamw", lr=0.01, batch_size=32, seed=3).fit(X, LABELS, 3)
    for i, net in enumerate(ensemble):
        alone = MLP(WIDTHS, "gelu", backend="cpu", precision="float64", seed=i, **ALL)
        trained(alone, seed=3 + i)
        assert all(np.array_equal(a, alone.tensors()[name]) for name, a in net.tensors().items())


def test_find_lr_leaves_the_statistics() -> None:
    net = trained(network())
    before = net.theta.whole.copy()
    Trainer(net, batch_size=32).find_lr(X, LABELS, steps=10)
    assert np.array_equal(net.theta.whole, before)


def test_samples_with_dropout_read_running_statistics() -> None:
    net = trained(network())
    alone, all_rows = net.predict(X[:1], samples=3), net.predict(X[:1].repeat(2, 0), samples=3)
    np.testing.assert_allclose(alone[:, 0], all_rows[:, 0], rtol=1e-12)


def test_lbfgs_keeps_the_statistics() -> None:
    net = trained(network())
    before = net.tensors()
    gpumlp.fit_lbfgs(net, X, LABELS, max_iter=5)
    for name, a in net.tensors().items():
        assert np.array_equal(a, before[name]) == (name.rpartition(".")[2] in RUNNING), name


# ---- the operations, and norms of one's own ------------------------------------------------------


@needs_library
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize(("m", "n"), [(7, 5), (300, 37), (9, 1), (1000, 256)])
@pytest.mark.parametrize(
    "stage", [NORMS["batch"], BATCH_BY_MEANS, COLUMN_RMS], ids=lambda each: each.name
)
def test_operations_of_the_compiled_backend(stage: Any, m: int, n: int, precision: str) -> None:
    x, g = (RNG.normal(size=(m, n)).astype(precision) for _ in range(2))
    phi = RNG.normal(size=(len(stage.initial), n)).astype(precision)
    results = []
    for backend in (gpumlp.get_backend(name, precision) for name in ("numpy", "cpu")):
        moments, t = (np.full((rows, n + 3), np.nan, precision) for rows in (3, 2))
        s, t = moments[: len(stage.running)], t[: stage.slopes]
        running, dphi, y, gx, flat = (np.ones_like(a) for a in (s[:, :n], phi, x, x, phi))
        if stage.moments:
            backend.column_moments(stage, x, moments, running)
            again = running.copy()
            backend.column_moments(stage, x, moments, None)
            assert np.array_equal(running, again)
        for i in range(len(stage.means)):
            backend.column_mean(stage, i, x, s[:i] if i else None, m + 3, s[i : i + 1])
        backend.columns(stage, x, phi, s, y)
        backend.running_mean(stage, s, m + 3, running)
        backend.column_slopes(stage, x, phi, g, s, m + 3, None, flat)
        backend.column_slopes(stage, x, phi, g, s, m + 3, t, dphi)
        assert np.array_equal(flat, dphi)
        backend.columns_gradient(stage, x, phi, g, s, t, None, gx)
        results.append([s, running, y, t, dphi, gx, gx.copy()])
        backend.columns_gradient(stage, x, phi, g, s, None, y, gx)
    near = (
        {"rtol": 2e-4, "atol": 2e-4} if precision == "float32" else {"rtol": 1e-12, "atol": 1e-12}
    )
    for want, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, **near)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("settings", [{}, {"accumulate": 3}, {"shards": 2}], ids=str)
def test_moments_are_two_means(settings: dict[str, Any], backend: str) -> None:
    """Batch norm reads x once for both; a user's norm once for each of its means."""
    norms = NORMS["batch"], BATCH_BY_MEANS
    nets = [trained(network(backend, norm=norm), 3, "sgd", **settings) for norm in norms]
    assert_near(*nets)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("parts", [1, 2, 7])
@pytest.mark.parametrize("n", [3, 300])
@pytest.mark.parametrize("at", [0.0, 1e4, 1e6])
def test_variances_of_large_numbers(at: float, n: int, parts: int, backend: str) -> None:
    """In float32, columns of nearly equal numbers; and parts of the rows, joined."""
    of, rng = gpumlp.get_backend(backend, "float32"), np.random.default_rng(n)
    x = (at + rng.normal(size=(1500, n)) * rng.choice([0.5, 10.0, 300.0], n)).astype(np.float32)
    x[:2, 0] = at + 3000  # differences from the first row are large, too
    each, total = np.zeros((parts, 3, n), np.float32), np.zeros((3, n), np.float32)
    cuts = np.sort(rng.choice(np.arange(1, 1500), parts - 1, replace=False)).tolist()
    for moments, begin, end in zip(each, [0, *cuts], [*cuts, 1500], strict=True):
        of.column_moments(NORMS["batch"], x[begin:end], moments, None)
    of.tree_moments(each.reshape(parts, -1), total.reshape(-1))
    wide = x.astype(np.float64)
    want, scale = wide.var(0), np.abs(wide).max(0)
    np.testing.assert_allclose(total[0], wide.mean(0), rtol=0, atol=1e-6 * scale.max())
    # the mean of a part is rounded to the digits of x
    rounding = (1e-7 * scale) ** 2 + 1e-7 * scale * np.sqrt(want) if parts > 1 else 0.0
    assert (np.abs(total[1] - want) <= 2e-6 * want + rounding).all()
    two_passes = np.square(x - x.mean(0)).mean(0)
    assert np.abs(total[1] - want).max() <= np.abs(two_passes - want).max() + 1e-5 * want.max()
    assert (total[2] == 1500).all()


def test_running_averages_are_of_all_means() -> None:
    few = NORMS["batch"].running[:1]
    refusal(
        ValueError, lambda: dataclasses.replace(NORMS["batch"], name="own", running=few),
        "'own' has a mean and a variance", "1 entries", "one entry (name",
    )  # fmt: skip
    refusal(
        ValueError, lambda: dataclasses.replace(COLUMN_RMS, running=()), "1 means", "0 entries"
    )  # fmt: skip
    plain = dataclasses.replace(BATCH_BY_MEANS, cuda_means=("x",))
    refusal(ValueError, plain.cuda, "no CUDA expressions", "for each of means cuda_means")


def test_a_step_reads_x_twice_and_writes_each_array_once() -> None:
    """The least for launches that must each end before the next can begin: mean, then output."""
    m, n = 512, 256
    net = MLP([20, n, 3], "tanh", norm="batch", backend="numpy", precision="float32")
    moved: dict[str, int] = {}
    for line in Trainer(net, batch_size=m).explain(m).lines:
        moved[line.operation] = moved.get(line.operation, 0) + line.bytes
    row, array = 4 * n, 4 * m * n
    assert moved["column_moments"] == array + 3 * row + 2 * 2 * row  # x; moments; running averages
    assert moved["columns"] == 2 * array + 4 * row  # x, y; s, φ
    assert moved["column_slopes"] == 2 * array + 8 * row  # x, gy; s, φ, t, dφ
    assert moved["columns_gradient"] == 3 * array + 6 * row  # x, gy, gx; s, φ, t
    assert not {"running_mean", "column_mean"} & set(moved)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_norm_of_ones_own(tmp_path: Any, backend: str) -> None:
    """Its training step against differences of the cost with the statistics of the minibatch."""
    net = MLP([6, 8, 3], "tanh", norm=COLUMN_RMS, backend=backend, precision="float64")
    assert list(net.tensors())[-2:] == ["2.norm.weight", "2.norm.running_square"]
    before, eps = net.tensors(), COLUMN_RMS.params["eps"]

    def cost(p: dict[str, Any]) -> float:
        h = np.tanh(X @ p["0.weight"].T + p["0.bias"])
        n = h / np.sqrt(np.square(h).mean(0) + eps) * p["2.norm.weight"]
        z = n @ p["2.weight"].T + p["2.bias"]
        of_labels = z[np.arange(len(z)), LABELS]
        return float(np.mean(np.log(np.exp(z).sum(1)) - of_labels))

    trained(net, 1, "sgd", lr=1.0, batch_size=len(X))
    after = net.tensors()
    for name in ("0.weight", "2.norm.weight", "2.weight"):
        way = RNG.normal(size=before[name].shape)
        costs = [cost(before | {name: before[name] + step * way}) for step in (1e-6, -1e-6)]
        slope = np.sum((before[name] - after[name]) * way)
        np.testing.assert_allclose(slope, (costs[0] - costs[1]) / 2e-6, rtol=1e-6)
    h = np.tanh(X @ before["0.weight"].T + before["0.bias"])
    want = 0.8 + 0.2 * np.square(h).mean(0)
    np.testing.assert_allclose(after["2.norm.running_square"], want, rtol=1e-12)
    net.save(tmp_path / "m")
    loaded = MLP.load(tmp_path / "m", backend, functions=[COLUMN_RMS])
    assert np.array_equal(loaded.predict(X), net.predict(X))


@needs_library
def test_a_norm_without_cuda_expressions_runs_by_its_numpy_expressions() -> None:
    plain = dataclasses.replace(COLUMN_RMS, cuda_y="")
    nets = [
        MLP([6, 8, 3], "tanh", norm=norm, backend=backend, precision="float64")
        for norm, backend in ((COLUMN_RMS, "numpy"), (plain, "cpu"))
    ]
    assert_near(*map(trained, nets))
    refusal(ValueError, plain.cuda, "'column rms' has no CUDA expressions", 'backend="numpy"')


# ---- what keeps the state ------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"ema": 0.9}, {"shards": 2}], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_resumed_training_has_the_bits_of_one_without_a_break(
    tmp_path: Any, settings: dict[str, Any], backend: str
) -> None:
    whole = trained(network(backend), 4, **settings)
    for epochs in (2, 4):
        net = network(backend)
        trainer = Trainer(net, lr=0.01, batch_size=32, seed=3, **settings)
        trainer.fit(X, LABELS, epochs, progress=False, checkpoint=tmp_path / "c", resume=epochs > 2)
    assert np.array_equal(net.theta.whole, whole.theta.whole)
    loaded = MLP.load(tmp_path / "c", backend)
    assert np.array_equal(loaded.predict(X), whole.predict(X))


@pytest.mark.parametrize("backend", BACKENDS)
def test_files_and_copies_keep_the_statistics(tmp_path: Any, backend: str) -> None:
    net = trained(network(backend))
    net.save(tmp_path / "m.safetensors")
    loaded = MLP.load(tmp_path / "m.safetensors", backend)
    assert loaded.blocks == net.blocks
    copied = Trainer(net, batch_size=32)
    others = [copy.deepcopy(net), pickle.loads(pickle.dumps(net)), copy.deepcopy(copied).net]
    for other in (loaded, *others):
        assert np.array_equal(other.predict(X), net.predict(X))
        assert np.array_equal(other.theta.whole, net.theta.whole)
        trained(other)
        assert not np.array_equal(other.theta.whole, net.theta.whole)
    names = {f"{2 * k}.norm.{each}" for k in (1, 2) for each in RUNNING}
    assert names == {name for name in net.tensors() if "running" in name}
    assert "with batch norm, layer norm, gate of silu" in repr(net)
    first = MLP([2, 3, 1], norm="batch", loss="squared_error", backend="numpy").tensors()
    assert (first["2.norm.running_mean"] == 0).all()
    assert (first["2.norm.running_var"] == 1).all()


def test_ensembles_keep_the_statistics(tmp_path: Any) -> None:
    ensemble = Ensemble(2, WIDTHS, "gelu", backend="numpy", **ALL)
    EnsembleTrainer(ensemble, lr=0.01, batch_size=32).fit(X, LABELS, 2)
    ensemble.save(tmp_path / "e")
    loaded = Ensemble.load(tmp_path / "e", "numpy")
    for other in (loaded, copy.deepcopy(ensemble), Ensemble.of([*ensemble])):
        assert np.array_equal(other.predict(X), loaded.predict(X))
        assert other.theta.shape == (2, ensemble[0].theta.layout.whole)


def test_early_stopping_restores_the_statistics_of_the_best_epoch() -> None:
    net = network(dropout=0.0)
    trainer = Trainer(net, lr=0.1, batch_size=10)
    rule = gpumlp.EarlyStopping(patience=3, restore_best=True)
    x, y = RNG.normal(size=(40, 6)), RNG.integers(0, 3, 40)
    history = trainer.fit(
        X, LABELS, 60, validation=(x, y), early_stopping=rule, progress=False
    )  # fmt: skip
    assert history.stopped == "early"
    np.testing.assert_allclose(net.cost(x, y), min(history["val_cost"]), rtol=1e-12)


def test_memory_counts_the_statistics() -> None:
    net = network()
    assert Trainer(net, batch_size=32).memory(X, LABELS).theta == net.theta.whole.nbytes
    assert net.theta.whole.nbytes > net.theta.flat.nbytes


def test_a_file_of_torch_has_a_counter_that_is_left_out() -> None:
    net = network()
    net.assign(net.tensors() | {"2.norm.num_batches_tracked": np.array(7)})
    wrong = net.tensors() | {"2.norm.other": np.zeros(8)}
    refusal(ValueError, lambda: net.assign(wrong), "2.norm.other")


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_invalid_momentum_raises(value: float) -> None:
    refusal(ValueError, lambda: NORMS["batch"].set(momentum=value), "momentum")
