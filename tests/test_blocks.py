"""Networks with norms, gates, dropout and skips: against torch, differences and each other."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import MLP, Ensemble, EnsembleTrainer, Trainer
from gpumlp.backends.numpy.stages import _bits
from gpumlp.backends.stages import UNIT
from gpumlp.functions.stages import GATES, NORMS, gate
from tests.support.blocks import (
    DYT,
    MANY,
    ROW_NORMS,
    UNIT_NORM,
    WIDTHS,
    outputs_in_torch,
    random_network,
)
from tests.support.compiled import needs_library
from tests.support.fitted import assert_near, fitted
from tests.support.refusal import refusal

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 6))
LABELS = X[:, :3].argmax(axis=1)
BACKENDS = ["numpy", pytest.param("cpu", marks=needs_library)]


def network(backend: str = "numpy", precision: str = "float64", **blocks: Any) -> MLP:
    return MLP(WIDTHS, "gelu", backend=backend, precision=precision, seed=1, **MANY | blocks)


def trained(net: MLP, *epochs: Any, **settings: Any) -> MLP:
    """After epochs of three minibatches, the last one smaller."""
    return fitted(net, X, LABELS, *epochs, **settings)


# ---- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(20))
def test_gradients_equal_those_of_torch(seed: int, backend: str) -> None:
    """∇θ, ∂J/∂x and gh of each layer, in float64."""
    torch = pytest.importorskip("torch")
    net = random_network(seed, backend)
    x, y = RNG.normal(size=(7, net.widths[0])), RNG.integers(0, 3, 7)
    p = {k: torch.tensor(v, requires_grad=True) for k, v in net.tensors().items()}
    h = outputs_in_torch(net, p, torch.tensor(x, requires_grad=True))
    for each in h:
        each.retain_grad()
    J = torch.nn.functional.cross_entropy(h[-1], torch.tensor(y))
    J.backward()
    ours, grads = net.cost_and_gradients(x, y)
    np.testing.assert_allclose(ours, J.item(), rtol=1e-12)
    np.testing.assert_allclose(net.forward(x), h[-1].detach().numpy(), 1e-10, 1e-12)
    pairs = [(grads.x, h[0].grad)] + [(gh, each.grad) for gh, each in zip(grads.h, h[1:])]  # noqa: B905
    pairs += [(each, p[name].grad) for name, each in grads.named.items()]
    assert len(pairs) == 1 + net.L + len(p)
    # a norm of one entry has a gradient of 0 but for rounding
    least = 1e-2 * max(float(want.abs().max()) for _, want in pairs)
    for got, want in pairs:
        scale = max(least, float(want.abs().max()))
        np.testing.assert_allclose(np.asarray(got), want.numpy(), rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize("seed", range(4))
def test_gradients_equal_differences(seed: int) -> None:
    """Along one random direction of all parameters."""
    net = random_network(100 + seed)
    x, y = RNG.normal(size=(9, net.widths[0])), RNG.integers(0, 3, 9)
    tensors = net.tensors()
    way = {name: RNG.normal(size=a.shape) for name, a in tensors.items()}
    _, grads = net.cost_and_gradients(x, y)
    slope = sum(float(np.sum(np.asarray(g) * way[name])) for name, g in grads.named.items())
    costs = []
    for step in (1e-6, -1e-6):
        net.assign({name: a + step * way[name] for name, a in tensors.items()})
        costs.append(net.cost(x, y))
    np.testing.assert_allclose(slope, (costs[0] - costs[1]) / 2e-6, rtol=1e-6)


# ---- trainings -----------------------------------------------------------------------------------


@needs_library
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "momentum", "muon"])
def test_backends_train_to_the_same_parameters(optimizer: str) -> None:
    one, other = (trained(network(backend), optimizer=optimizer) for backend in ("numpy", "cpu"))
    assert_near(one, other)


@pytest.mark.parametrize(
    "settings", [{"accumulate": 4}, {"shards": 2}, {"shards": 4}, {"memory": "low"}],
    ids=lambda each: "-".join(each),
)  # fmt: skip
def test_parts_of_a_minibatch_have_the_same_masks(settings: dict[str, Any]) -> None:
    assert_near(trained(network(), **settings), trained(network()))


@pytest.mark.parametrize("groups", [None, {"biases": gpumlp.Group()}], ids=["default", "all"])
def test_weight_decay_leaves_norms_and_biases_alone(groups: Any) -> None:
    """As torch's AdamW does with two groups; `Group()` gives them the decay of the weights."""
    torch = pytest.importorskip("torch")
    net = network(dropout=0.0)
    p = {k: torch.tensor(v, requires_grad=True) for k, v in net.tensors().items()}
    kinds: dict[bool, list[Any]] = {True: [], False: []}
    for tensor in p.values():
        kinds[tensor.ndim == 2].append(tensor)
    adamw = gpumlp.OPTIMIZERS["adamw"].set(weight_decay=0.5)
    trained(net, epochs=4, optimizer=adamw, batch_size=len(X), groups=groups)
    theirs = torch.optim.AdamW(
        [
            {"params": kinds[True], "weight_decay": 0.5},
            {"params": kinds[False], "weight_decay": 0.5 if groups else 0.0},
        ],
        lr=0.01,
    )
    x, y = torch.tensor(X), torch.tensor(LABELS)
    for _ in range(4):
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(outputs_in_torch(net, p, x)[-1], y).backward()
        theirs.step()
    for name, got in net.tensors().items():
        np.testing.assert_allclose(got, p[name].detach().numpy(), 1e-9, 1e-9, err_msg=name)


def test_penalties_without_biases_cover_the_weights_of_skips() -> None:
    net = network(regularizer=gpumlp.L2(2.0, biases=False))
    squares = [np.sum(a**2) for name, a in net.tensors().items() if a.ndim == 2]
    assert len(squares) == 5
    assert net.penalty() == pytest.approx(sum(squares), rel=1e-12)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_a_folded_update_is_the_same(optimizer: str) -> None:
    folded, apart = (trained(network(), optimizer=optimizer, fold=f) for f in (None, False))
    assert_near(folded, apart)


def test_members_of_an_ensemble_equal_their_own_trainings() -> None:
    ensemble = Ensemble(3, WIDTHS, "gelu", backend="numpy", precision="float64", **MANY)
    trainer = EnsembleTrainer(ensemble, "adamw", lr=[0.01, 0.02, 0.03], batch_size=32, seed=3)
    trainer.fit(X, LABELS, 3)
    for i, net in enumerate(ensemble):
        alone = MLP(WIDTHS, "gelu", backend="numpy", precision="float64", seed=i, **MANY)
        trained(alone, lr=0.01 * (i + 1), seed=3 + i)
        assert np.array_equal(net.theta.flat, alone.theta.flat)


def test_a_resumed_training_has_the_masks_of_one_without_a_break(tmp_path: Any) -> None:
    whole = trained(network(), 4)
    for epochs in (2, 4):
        net = network()
        Trainer(net, lr=0.01, batch_size=32, seed=3).fit(
            X, LABELS, epochs, progress=False, checkpoint=tmp_path / "c", resume=epochs > 2
        )
    assert np.array_equal(net.theta.flat, whole.theta.flat)


def test_lbfgs_drops_nothing() -> None:
    dropping, without = network(), network(dropout=0.0)
    for net in (dropping, without):
        gpumlp.fit_lbfgs(net, X, LABELS, max_iter=5)
    assert np.array_equal(dropping.theta.flat, without.theta.flat)


def test_a_deep_residual_network_learns_and_a_plain_one_does_not() -> None:
    """100 layers of width 64, as He et al. (2016) found it."""
    x, y = RNG.normal(size=(512, 16)), RNG.integers(0, 2, 512)
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    costs = {}
    for name, blocks in (("plain", {}), ("residual", {"norm": "layer", "residual": True})):
        net = MLP([16, *[64] * 99, 2], "relu", backend="numpy", seed=0, **blocks)
        history = Trainer(net, "adamw", lr=1e-3, batch_size=128).fit(x, y, 12, progress=False)
        costs[name] = history["cost"][-1]
    assert costs["residual"] < 0.2
    assert costs["plain"] > 0.5


# ---- masks ---------------------------------------------------------------------------------------


def dropped(x: Any, rate: float, layer: int = 1, row: int = 0, seed: int = 7, step: int = 1) -> Any:
    backend, y = gpumlp.get_backend("numpy", "float64"), np.empty_like(x)
    backend.dropout(x, rate, layer, row, np.array([seed]), np.array([1.0, 0.1, step]), None, y)
    return y


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_mean_and_variance_of_masks(rate: float) -> None:
    y = dropped(np.ones((2000, 300)), rate)
    p = round(rate * UNIT) / UNIT
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - p)])
    deviation = np.sqrt(p / (1 - p) / y.size)
    assert abs(y.mean() - 1) < 4 * deviation
    assert np.abs(y.mean(axis=0) - 1).max() < 5 * deviation * np.sqrt(300)
    assert np.abs(y.mean(axis=1) - 1).max() < 5 * deviation * np.sqrt(2000)


def test_masks_of_steps_layers_rows_and_seeds_are_independent() -> None:
    ones = np.ones((400, 250))
    base = dropped(ones, 0.5)
    others = [
        dropped(ones, 0.5, layer=2), dropped(ones, 0.5, seed=8), dropped(ones, 0.5, step=2),
        dropped(ones, 0.5, row=400), np.roll(base, 1, axis=0), np.roll(base, 1, axis=1),
    ]  # fmt: skip
    for other in others:
        assert abs(np.corrcoef(base.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(base.size)


@pytest.mark.parametrize("n", [1, 3, 16, 37])
def test_masks_of_rows_are_those_of_the_whole(n: int) -> None:
    whole = dropped(np.ones((40, n)), 0.3)
    for begin, end in ((0, 7), (7, 8), (8, 40)):
        part = dropped(np.ones((end - begin, n)), 0.3, row=begin)
        assert np.array_equal(part, whole[begin:end])


@pytest.mark.parametrize("seed", [7, 2**64 - 3])
def test_masks_come_from_philox(seed: int) -> None:
    """Of Salmon et al. (2011), here with Python's integers."""
    for block in range(2):
        word, key = [1 + block, 5, 0, 0], [seed, 2]
        for _ in range(10):
            a, b = 0xD2E7470EE14C6C93 * word[0], 0xCA5A826395121157 * word[2]
            word = [
                (b >> 64) ^ word[1] ^ key[0],
                b % 2**64,
                (a >> 64) ^ word[3] ^ key[1],
                a % 2**64,
            ]
            key = [(key[0] + 0x9E3779B97F4A7C15) % 2**64, (key[1] + 0xBB67AE8584CAA73B) % 2**64]
        want = [word[i // 4] >> 16 * (i % 4) & 0xFFFF for i in range(16)]
        assert _bits((seed, 2), 5, 16 * block, 16 * (block + 1)).tolist() == want


@needs_library
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize(("m", "n"), [(7, 5), (300, 37), (9, 1), (40, 256)])
def test_operations_of_the_compiled_backend(m: int, n: int, precision: str) -> None:
    numpy, cpu = (gpumlp.get_backend(name, precision) for name in ("numpy", "cpu"))
    x, g, wide = (RNG.normal(size=(m, k * n)).astype(precision) for k in (1, 1, 2))
    near = {"rtol": 1e-4, "atol": 1e-4} if precision == "float32" else {"rtol": 0, "atol": 1e-12}
    of_entries = [(norm, x) for norm in ROW_NORMS.values()]
    of_entries += [(gate(f), wide) for f in GATES.values()]
    for stage, rows in of_entries:
        phi = RNG.normal(size=(len(stage.initial), n)).astype(precision) if stage.initial else None
        results = []
        for backend in (numpy, cpu):
            y, gx = np.empty_like(x), np.empty_like(rows)
            dphi = None if phi is None else np.empty_like(phi)
            if stage.halves:
                dphi = np.empty(2 * n, precision)  # ∇b
            backend.stage(stage, rows, phi, y)
            backend.stage_gradient(stage, rows, phi, g, None, gx, dphi)
            results.append([y, gx.copy()] + ([] if dphi is None else [dphi]))
            if not stage.halves:
                backend.stage_gradient(stage, rows, phi, g, y, gx, dphi)
                np.testing.assert_allclose(gx, results[-1][1] + y, **near)
        for want, got in zip(*results, strict=True):
            np.testing.assert_allclose(got, want, err_msg=stage.name, **near)
    for seed in (3, -5):
        same, joined = [], []
        for backend in (numpy, cpu):
            y, numbers = x.copy(), np.array([1.0, 0.1, 9.0])
            backend.dropout(y, 0.3, 2, 11, np.array([seed]), numbers, None, y)
            joined.append(g.copy())
            backend.dropout(x, 0.3, 2, 11, np.array([seed]), numbers, *joined[-1:] * 2)
            backend.join(y, g, y)
            same.append(y)
        assert np.array_equal(*same)
        for each in joined:
            np.testing.assert_allclose(each, same[0], rtol=1e-6, atol=1e-6)


def test_what_is_dropped_is_0_whatever_it_was() -> None:
    x = np.full((50, 8), np.nan)
    y = dropped(x, 0.5)
    assert set(np.unique(np.isnan(y))) == {False, True}
    assert (y[~np.isnan(y)] == 0).all()


def test_predictions_and_costs_drop_nothing() -> None:
    net, same = network(), network(dropout=0.0)
    assert np.array_equal(net.predict(X), same.predict(X))
    assert net.cost(X, LABELS) == same.cost(X, LABELS)
    np.testing.assert_array_equal(
        net.cost_and_gradients(X, LABELS)[1].W[0], same.cost_and_gradients(X, LABELS)[1].W[0]
    )
    trainer = Trainer(net, batch_size=32)
    history = trainer.fit(X, LABELS, 1, validation=(X, LABELS), progress=False)
    assert history["val_cost"][0] == pytest.approx(net.cost(X, LABELS), rel=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_samples_of_predictions(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their mean is near that of many more, and their variance that of torch's dropout."""
    torch = pytest.importorskip("torch")
    net = MLP([6, 40, 1], "relu", loss="squared_error", dropout=0.4, backend=backend, seed=3)
    x = X[:5].astype(np.float32)
    samples = net.predict(x, samples=3000)
    assert samples.shape == (3000, 5, 1)
    assert np.array_equal(samples[:2], net.predict(x, samples=2))
    tensors = {name: torch.tensor(a) for name, a in net.tensors().items()}
    h = torch.relu(torch.tensor(x) @ tensors["0.weight"].T + tensors["0.bias"])
    torch.manual_seed(0)
    dropped = torch.nn.functional.dropout(h.expand(3000, -1, -1), 0.4)
    theirs = (dropped @ tensors["2.weight"].T + tensors["2.bias"]).numpy()
    deviation = theirs.std(axis=0) / np.sqrt(3000)
    np.testing.assert_array_less(np.abs(samples.mean(0) - theirs.mean(0)), 6 * deviation)
    np.testing.assert_allclose(samples.std(0), theirs.std(0), rtol=0.08)
    monkeypatch.setattr("gpumlp.network.CHUNK", 2)  # each chunk has masks of its own
    chunks = net.predict(np.repeat(x[:1], 4, axis=0), samples=20)
    assert not np.array_equal(chunks[:, 0], chunks[:, 2])
    refusal(ValueError, lambda: network(dropout=0.0).predict(X, samples=3), "dropout=0.1")
    refusal(ValueError, lambda: net.predict(x, samples=10**9), "samples must be at most 1,000,000")


# ---- files, copies, arguments --------------------------------------------------------------------


def test_files_and_copies_keep_blocks(tmp_path: Any) -> None:
    net = trained(network())
    net.save(tmp_path / "m.safetensors")
    loaded = MLP.load(tmp_path / "m.safetensors", "numpy")
    assert loaded.blocks == net.blocks
    for other in (loaded, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert np.array_equal(other.predict(X), net.predict(X))
        assert other.config() == net.config()
    assert set(net.tensors()) >= {"2.norm.weight", "2.norm.bias", "4.norm.weight", "4.skip.weight"}
    assert "4.norm.bias" not in net.tensors()
    assert "with layer norm, rms norm, gate of silu, dropout 0.2, dropout 0.5, skips" in repr(net)
    plain = MLP(WIDTHS, norm=None, dropout=0.0, residual=False, backend="numpy")
    assert plain.blocks == ()
    assert not {"norm", "dropout", "residual", "gated"} & set(plain.config())


def test_where_skips_begin_and_end() -> None:
    def skips(residual: Any) -> list[int]:
        return [each.skip for each in MLP([4] * 8, residual=residual, backend="numpy").blocks[:-1]]

    assert skips(True) == [0, 1, 1, 1, 1, 1]
    assert skips(2) == [0, 0, 2, 0, 2, 0]
    assert skips(3) == [0, 0, 0, 3, 0, 0]
    assert skips([False, True, False, False, True, True]) == [0, 1, 0, 0, 1, 1]


def test_norms_begin_as_norms_and_skips_add_the_input() -> None:
    net = MLP(
        [3, 5, 5, 2], "relu", norm="layer", residual=True, backend="numpy", precision="float64"
    )
    net.layers[1].W[...], net.layers[1].b[...] = 0, 0
    x = RNG.normal(size=(4, 3))
    h = np.maximum(x @ net.layers[0].W.T + net.layers[0].b, 0)
    normal = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(net.forward(x), normal @ net.layers[2].W.T + net.layers[2].b, 1e-10)


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_of_ones_own(name: str) -> None:
    own = NORMS[name].set(eps=0.1)
    net = MLP([3, 5, 5, 2], norm=[own, None], backend="numpy")
    assert net.blocks[1].norm is own
    assert MLP(**net.config(), backend="numpy").blocks == net.blocks


@pytest.mark.parametrize("stage", [DYT, UNIT_NORM], ids=lambda each: each.name)
def test_gradient_of_a_stage_of_ones_own(stage: Any) -> None:
    """Along a random direction, by differences."""
    net = MLP([6, 8, 8, 3], "tanh", norm=stage, residual=True, backend="numpy", precision="float64")
    net.assign({n: a + 0.3 * RNG.normal(size=a.shape) for n, a in net.tensors().items()})
    tensors = net.tensors()
    assert ("2.norm.weight" in tensors) == bool(stage.initial)
    way = {name: RNG.normal(size=a.shape) for name, a in tensors.items()}
    _, grads = net.cost_and_gradients(X, LABELS)
    slope = sum(float(np.sum(np.asarray(g) * way[name])) for name, g in grads.named.items())
    costs = []
    for step in (1e-6, -1e-6):
        net.assign({name: a + step * way[name] for name, a in tensors.items()})
        costs.append(net.cost(X, LABELS))
    np.testing.assert_allclose(slope, (costs[0] - costs[1]) / 2e-6, rtol=1e-6)


@needs_library
@pytest.mark.parametrize("stage", [DYT, UNIT_NORM], ids=lambda each: each.name)
def test_a_stage_of_ones_own_is_compiled(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its NumPy expressions are not called; without C++ expressions, they are."""
    nets = [
        MLP(WIDTHS, "gelu", norm=stage, seed=1, backend=backend, precision="float64")
        for backend in ("numpy", "cpu", "cpu")
    ]
    trained(nets[0])
    in_numpy = dataclasses.replace(stage, cuda_y="")
    nets[2] = MLP(WIDTHS, "gelu", norm=in_numpy, seed=1, backend="cpu", precision="float64")
    trained(nets[2])
    called: list[Any] = []
    monkeypatch.setattr(
        "gpumlp.backends.numpy.stages.NumpyStages.stage", lambda *each: called.append(each)
    )
    trained(nets[1])
    assert not called
    for net in nets[1:]:
        assert_near(net, nets[0])


def test_a_stage_without_cuda_expressions_says_so() -> None:
    stage = dataclasses.replace(UNIT_NORM, cuda_gx="")
    refusal(ValueError, stage.cuda, "'unit' has no CUDA expressions", "cuda_gx", 'backend="numpy"')


def test_numbers_of_numpy_are_arguments() -> None:
    net = MLP([4, 5, 5, 2], residual=np.True_, dropout=np.float32(0.25), backend="numpy")
    assert (
        net.blocks
        == MLP([4, 5, 5, 2], residual=[False, True], dropout=0.25, backend="numpy").blocks
    )
    assert MLP([4, 5, 5, 2], residual=0, backend="numpy").blocks == ()


def test_explain_on_paper_shows_blocks() -> None:
    trainer = Trainer(network("numpy", "float32"), batch_size=32)
    text = str(trainer.explain(100, device="h100"))
    assert text.count("stage_gradient") == 4
    assert text.count("dropout") == 4


def test_find_lr_has_the_masks_of_a_fit() -> None:
    trainer = Trainer(network(), lr=1e-9, batch_size=70, seed=3)
    costs = trainer.find_lr(X, LABELS, start=1e-9, end=2e-9, steps=20).loss
    history = Trainer(network(), "sgd", lr=1e-9, batch_size=70, seed=3).fit(
        X, LABELS, 1, progress=False
    )
    assert costs[0] == pytest.approx(history["cost"][0], rel=1e-12)


def test_gates_are_elementwise() -> None:
    assert gate(GATES["silu"]) is gate(GATES["silu"])
    refusal(ValueError, lambda: gate(gpumlp.ACTIVATIONS["softmax"]), "elementwise", "silu")


def test_invalid_arguments_raise() -> None:
    def wrong(kind: type[Exception], *said: str, **blocks: Any) -> None:
        refusal(kind, lambda: MLP([4, 5, 5, 2], backend="numpy", **blocks), *said)

    wrong(ValueError, "unknown norm 'batch_'", "known: layer, rms", norm="batch_")
    wrong(ValueError, "norm has 3 entries", "2 hidden layers", norm=["layer"] * 3)
    wrong(ValueError, "dropout must be a number from 0 to below 1", "1.0", dropout=1.0)
    wrong(ValueError, "dropout must be", "'much'", dropout="much")
    wrong(ValueError, "residual must be True, False, a number", "-1", residual=-1)
    wrong(ValueError, "False for the first", residual=[True, True])
    wrong(ValueError, "residual=2 needs 3 hidden layers or more", "there are 2", residual=2)
    wrong(ValueError, "unknown gated 'softmax'", gated="softmax")


@pytest.mark.parametrize(
    "blocks",
    [
        {"norm": "layer"},
        {"dropout": (0.1,)},
        {"residual": True},
        {"gated": gpumlp.ACTIVATIONS["silu"]},
    ],
)
def test_blocks_without_hidden_layers_raise(blocks: dict[str, Any]) -> None:
    (name,) = blocks
    said = f"{name}=", "needs hidden layers, and widths [4, 2] has none", "leave it out, or give"
    refusal(ValueError, lambda: MLP([4, 2], backend="numpy", **blocks), *said)
    MLP([4, 3, 2], backend="numpy", **blocks)
    assert not MLP([4, 2], norm=[], dropout=0, residual=False, backend="numpy").blocks
