"""Networks with embeddings of categories: against torch, between backends, and their settings."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import MLP, Ensemble, EnsembleTrainer, Trainer
from gpumlp.step.training import TrainingStep
from gpumlp.training.memory import Data
from tests.support.blocks import outputs_in_torch
from tests.support.compiled import needs_library
from tests.support.embeddings import EMBED, WIDTHS, examples, input_in_torch, network
from tests.support.fitted import assert_near, fitted
from tests.support.refusal import refusal

X, LABELS = examples(70)
BACKENDS = ["numpy", pytest.param("cpu", marks=needs_library)]


def trained(net: MLP, *epochs: Any, **settings: Any) -> MLP:
    """After epochs of three minibatches, the last one smaller."""
    return fitted(net, X, LABELS, *epochs, **settings)


# ---- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("embed", "more"),
    [
        (EMBED, {}),
        ({0: (3, 2)}, {}),
        ({5: (40, 1), 0: (1, 4)}, {}),
        ({j: (2 + j, 1 + j) for j in range(6)}, {}),
        (EMBED, {"norm": "layer", "gated": "silu"}),
        (EMBED, {"norm": "rms", "residual": True}),
    ],
    ids=["two", "first", "ends", "all", "gated", "residual"],
)
def test_gradients_equal_those_of_torch(embed: Any, more: Any, backend: str) -> None:
    """∇θ, ∂J/∂x and gh of each layer, in float64, against `torch.nn.functional.embedding`."""
    torch = pytest.importorskip("torch")
    net = network(backend, embed=embed, **more)
    x, y = examples(9, embed, seed=4)
    p = {k: torch.tensor(v, requires_grad=True) for k, v in net.tensors().items()}
    of_x = torch.tensor(x, requires_grad=True)
    h = outputs_in_torch(net, p, input_in_torch(net, p, of_x))
    for each in h:
        each.retain_grad()
    J = torch.nn.functional.cross_entropy(h[-1], torch.tensor(y))
    J.backward()
    ours, grads = net.cost_and_gradients(x, y)
    np.testing.assert_allclose(ours, J.item(), rtol=1e-12)
    np.testing.assert_allclose(net.forward(x), h[-1].detach().numpy(), 1e-10, 1e-12)
    pairs = [(grads.x, of_x.grad)] + [(gh, each.grad) for gh, each in zip(grads.h, h[1:])]  # noqa: B905
    pairs += [(each, p[name].grad) for name, each in grads.named.items()]
    assert len(pairs) == 1 + net.L + len(p)
    for got, want in pairs:
        scale = max(1e-3, float(want.abs().max()))
        np.testing.assert_allclose(np.asarray(got), want.numpy(), rtol=0, atol=1e-10 * scale)
    assert (np.asarray(grads.x)[:, sorted(embed)] == 0).all()
    without = net.cost_and_gradients(x, y, intermediate=False)[1].named
    for name, each in grads.named.items():
        np.testing.assert_allclose(without[name], each, 1e-12, 1e-15)


def test_gradients_equal_differences() -> None:
    """Along one random direction of all parameters."""
    net, rng = network(regularizer=gpumlp.L2(0.1)), np.random.default_rng(2)
    tensors = net.tensors()
    way = {name: rng.normal(size=a.shape) for name, a in tensors.items()}
    _, grads = net.cost_and_gradients(X, LABELS)
    slope = sum(float(np.sum(np.asarray(g) * way[name])) for name, g in grads.named.items())
    costs = []
    for step in (1e-6, -1e-6):
        net.assign({name: a + step * way[name] for name, a in tensors.items()})
        costs.append(net.cost(X, LABELS))
    np.testing.assert_allclose(slope, (costs[0] - costs[1]) / 2e-6, rtol=1e-6)


# ---- trainings -----------------------------------------------------------------------------------


def test_a_training_equals_that_of_torch() -> None:
    """AdamW with weight decay, of the tables too, as `torch.optim.AdamW` by default."""
    torch = pytest.importorskip("torch")
    net = network()
    p = {k: torch.tensor(v, requires_grad=True) for k, v in net.tensors().items()}
    adamw = gpumlp.OPTIMIZERS["adamw"].set(weight_decay=0.5)
    trained(net, 20, adamw, batch_size=len(X))
    theirs = torch.optim.AdamW(p.values(), lr=0.01, weight_decay=0.5)
    x, y = torch.tensor(X), torch.tensor(LABELS)
    for _ in range(20):
        theirs.zero_grad()
        y_hat = outputs_in_torch(net, p, input_in_torch(net, p, x))[-1]
        torch.nn.functional.cross_entropy(y_hat, y).backward()
        theirs.step()
    for name, got in net.tensors().items():
        np.testing.assert_allclose(got, p[name].detach().numpy(), 1e-9, 1e-9, err_msg=name)


@needs_library
@pytest.mark.parametrize("more", [{}, {"norm": "batch"}], ids=["plain", "batch norm"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "momentum", "muon", "lion"])
def test_backends_train_to_the_same_parameters(optimizer: str, more: Any) -> None:
    nets = [trained(network(name, **more), 7, optimizer) for name in ("numpy", "cpu")]
    assert_near(*nets)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_training_repeats_bit_for_bit(backend: str) -> None:
    nets = [trained(network(backend, "float32")) for _ in range(2)]
    assert np.array_equal(nets[0].theta.flat, nets[1].theta.flat)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "settings",
    [{"accumulate": 4}, {"shards": 2}, {"shards": 4}, {"memory": "low", "accumulate": 2}],
    ids=lambda each: "-".join(each),
)  # fmt: skip
def test_parts_of_a_minibatch_are_the_same(settings: dict[str, Any], backend: str) -> None:
    assert_near(trained(network(backend), **settings), trained(network(backend)))


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_a_folded_update_is_the_same(optimizer: str) -> None:
    folded, apart = (trained(network(), optimizer=optimizer, fold=f) for f in (None, False))
    assert_near(folded, apart)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_sgd_changes_the_rows_of_codes_alone(precision: str, backend: str) -> None:
    """The step has no gradient of the tables; with a penalty, or groups, it has."""
    near = 1e-12 if precision == "float64" else 1e-5
    folded, apart = (network(backend, precision, seed=2) for _ in range(2))
    start = folded.tensors()["embed.4.weight"]
    x = X.copy()
    x[:, 4] %= 9  # the codes 9 and 10 do not occur
    for net, fold in ((folded, None), (apart, False)):
        trainer = Trainer(net, "sgd", lr=0.1, batch_size=32, seed=3, fold=fold, ema=0.9)
        trainer.fit(x, LABELS, 3, progress=False)
    assert_near(folded, apart, near)
    assert np.array_equal(folded.tensors()["embed.4.weight"][9:], start[9:])
    for more, sparse in (({}, True), ({"regularizer": "l2"}, False)):
        net = network(backend, precision, **more)
        ops, layout = _program(net, "sgd"), net.theta.layout
        assert [op["factors"] is not None for op in ops if op.name == "embed_gradient"] == [sparse]
        sizes = [op["theta"].size for op in ops if op.name == "update"]
        assert sizes == [(layout.tables if sparse else layout.size) - layout.split]
    groups = {"embeddings": gpumlp.Group(lr=0.0)}
    frozen = trained(network(backend, precision), optimizer="sgd", groups=groups)
    assert np.array_equal(frozen.theta.E[0], network(backend, precision).theta.E[0])


def test_clipping_measures_the_tables_too() -> None:
    """One step of SGD with a norm of at most 0.01 moves θ by lr · 0.01."""
    net = network()
    before = net.theta.flat.copy()
    trained(net, 1, "sgd", clip_norm=0.01, batch_size=len(X), lr=1.0)
    np.testing.assert_allclose(np.linalg.norm(net.theta.flat - before), 0.01, rtol=1e-9)
    moved = net.theta.flat - before
    assert np.linalg.norm(moved[net.theta.layout.tables :]) > 1e-4


def test_groups_of_embeddings() -> None:
    before = network().tensors()
    frozen = trained(network(), groups={"embeddings": gpumlp.Group(lr=0)}).tensors()
    others = {name: gpumlp.Group(lr=0) for name in ("weights", "biases")}
    alone = trained(network(), groups=others).tensors()
    for name, a in before.items():
        embedded = name.startswith("embed.")
        assert np.array_equal(a, frozen[name]) == embedded
        assert np.array_equal(a, alone[name]) != embedded


def test_weight_decay_of_tables_can_be_left_out() -> None:
    """Adam's step of a row without gradient is 0, so its decay alone shrinks it."""
    x = X.copy()
    x[:, 1] %= 6  # the code 6 does not occur
    adamw = gpumlp.OPTIMIZERS["adamw"].set(weight_decay=0.5)
    for groups, factor in ((None, 1 - 0.01 * 0.5), ({"embeddings": gpumlp.Group(decay=0)}, 1.0)):
        net = network()
        before = net.tensors()["embed.1.weight"]
        trainer = Trainer(net, adamw, lr=0.01, batch_size=70, groups=groups)
        trainer.fit(x, LABELS, 3, progress=False)
        after = net.tensors()["embed.1.weight"]
        np.testing.assert_allclose(after[6], factor**3 * before[6], 1e-12)
        assert not np.allclose(after[:6], before[:6], rtol=1e-3)


def test_the_mean_of_parameters_has_the_tables() -> None:
    trainer = Trainer(network(), lr=0.01, batch_size=32, seed=3, ema=0.5)
    trainer.fit(X, LABELS, 3, progress=False)
    mean = trained(network(), ema=0.5).tensors()
    assert not np.array_equal(
        mean["embed.1.weight"], trained(network()).tensors()["embed.1.weight"]
    )


def test_members_of_an_ensemble_equal_their_own_trainings() -> None:
    ensemble = Ensemble(3, WIDTHS, "gelu", backend="numpy", precision="float64", embed=EMBED)
    trainer = EnsembleTrainer(ensemble, "adamw", lr=[0.01, 0.02, 0.03], batch_size=32, seed=3)
    trainer.fit(X, LABELS, 3)
    for i, net in enumerate(ensemble):
        alone = MLP(WIDTHS, "gelu", backend="numpy", precision="float64", seed=i, embed=EMBED)
        trained(alone, lr=0.01 * (i + 1), seed=3 + i)
        assert np.array_equal(net.theta.flat, alone.theta.flat)
    refusal(ValueError, lambda: ensemble.predict(X + 0.5), "x[0, 1] is")


def test_a_resumed_training_equals_one_without_a_break(tmp_path: Any) -> None:
    whole = trained(network(), 4)
    for epochs in (2, 4):
        net = network()
        Trainer(net, lr=0.01, batch_size=32, seed=3).fit(
            X, LABELS, epochs, progress=False, checkpoint=tmp_path / "c", resume=epochs > 2
        )
    assert np.array_equal(net.theta.flat, whole.theta.flat)


def test_lbfgs_trains_the_tables() -> None:
    net = network(regularizer=gpumlp.L2(1e-3))
    before = net.cost(X, LABELS)
    gpumlp.fit_lbfgs(net, X, LABELS, max_iter=60)
    assert net.cost(X, LABELS) < 0.3 * before
    assert np.abs(net.theta.E[0] - network().theta.E[0]).max() > 0.1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_table_of_many_categories_learns_what_each_means(backend: str) -> None:
    """y is a function of the code alone, which a network without embeddings cannot fit."""
    rng = np.random.default_rng(0)
    value, codes = rng.normal(size=200), rng.integers(0, 200, 4000)
    x = np.column_stack([codes, rng.normal(size=4000)])
    costs = {}
    for name, embed in (("embedded", {0: (200, 4)}), ("a number", None)):
        net = MLP([2, 32, 1], loss="squared_error", backend=backend, embed=embed)
        trainer = Trainer(net, "adamw", lr=1e-2, batch_size=100)
        costs[name] = trainer.fit(x, value[codes], 15, progress=False)["cost"][-1]
    assert costs["embedded"] < 0.01
    assert costs["a number"] > 0.1


# ---- data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_kinds_of_data_give_the_same_training(backend: str, tmp_path: Any) -> None:
    """Arrays of other types, lists, tensors, streams and mapped files; float32 holds the values."""
    x = X.astype(np.float32).astype(np.float64)
    np.save(tmp_path / "x.npy", x)
    kinds = {
        "float64": (x, {}), "list": (x.tolist(), {}), "columns": (np.asfortranarray(x), {}),
        "stream": (x, {"data": "stream"}), "mapped": (np.load(tmp_path / "x.npy", "r"), {}),
        "float32": (x.astype(np.float32), {"data": "stream"}),
    }  # fmt: skip
    torch = pytest.importorskip("torch")
    kinds["tensor"] = torch.tensor(x), {}
    whole = None
    for name, (given, placement) in kinds.items():
        net = network(backend, "float32")
        trainer = Trainer(net, lr=0.01, batch_size=32, accumulate=2, seed=3)
        trainer.fit(given, LABELS, 2, progress=False, **placement)
        whole = net if whole is None else whole
        assert np.array_equal(net.theta.flat, whole.theta.flat), name
        np.testing.assert_array_equal(np.asarray(net.predict(given)), whole.predict(x))


@pytest.mark.parametrize("value", [0.5, -1.0, 7.0, np.nan, np.inf, 6.9999995])
def test_values_that_are_no_codes_raise(value: float) -> None:
    net, x = network(precision="float32"), X.copy()
    x[[40, 60], 1] = value
    said = f"x[40, 1] is {value:.15g}", "codes 0 … 6"
    refusal(ValueError, lambda: net.predict(x), *said)
    refusal(ValueError, lambda: net.cost(x, LABELS), *said)
    refusal(ValueError, lambda: net.cost_and_gradients(x, LABELS), *said)
    trainer = Trainer(net, batch_size=32)
    refusal(ValueError, lambda: trainer.fit(x, LABELS, 1, progress=False), *said)
    validation = {"validation": (x, LABELS), "progress": False}
    refusal(ValueError, lambda: trainer.fit(X, LABELS, 1, **validation), "x_val[40, 1] is")
    refusal(ValueError, lambda: gpumlp.fit_lbfgs(net, x, LABELS, max_iter=1), *said)


@pytest.mark.parametrize(
    ("embed", "error", "said"),
    [
        ([(7, 3)], TypeError, "mapping"), ({6: (7, 3)}, ValueError, "columns 0 … 5"),
        ({-1: (7, 3)}, ValueError, "columns 0 … 5"), ({"a": (7, 3)}, ValueError, "'a'"),
        ({1: 7}, ValueError, "embed[1]"), ({1: (7, 0)}, ValueError, "embed[1]"),
        ({1: (7, 3, 2)}, ValueError, "embed[1]"), ({1: (7.0, 3)}, ValueError, "embed[1]"),
        ({1: (2**24 + 1, 3)}, ValueError, "16,777,216"),
        ({1: (2, 3), "1": (2, 3)}, ValueError, "twice"), ({True: (2, 3)}, ValueError, "True"),
    ],
)  # fmt: skip
def test_invalid_embeddings_raise(embed: Any, error: type[Exception], said: str) -> None:
    refusal(error, lambda: network(embed=embed), said)


# ---- the network ---------------------------------------------------------------------------------


def test_names_and_shapes_of_parameters() -> None:
    net = network()
    shapes = {name: a.shape for name, a in net.tensors().items()}
    assert shapes["0.weight"] == (9, 4 + 3 + 5)
    assert shapes["embed.1.weight"], shapes["embed.4.weight"] == ((7, 3), (11, 5))
    assert list(shapes)[-2:] == ["embed.1.weight", "embed.4.weight"]
    assert "embeddings 7 × 3, 11 × 5" in repr(net)
    assert (
        repr(net).split(" parameters")[0].endswith(f" {sum(map(np.size, net.tensors().values()))}")
    )


def test_a_network_without_embeddings_is_as_before() -> None:
    """The same first weights, program and place of each parameter."""
    plain, empty = (
        MLP(WIDTHS, "gelu", backend="numpy", seed=1, **more) for more in ({}, {"embed": {}})
    )
    assert np.array_equal(plain.theta.flat, empty.theta.flat)
    assert empty.config() == plain.config()
    names = [op.name for op in _program(plain)]
    assert "embed" not in names
    assert [op.name for op in _program(network())] == [
        *names[:3], "embed", *names[3:11], "input_gradient", "embed_gradient", *names[11:]
    ]  # fmt: skip


def _program(net: MLP, optimizer: str = "adamw") -> Any:
    trainer = Trainer(net, optimizer, batch_size=32)
    tables = trainer.tables(Data.of(net, 70, None, False, "auto", 32))
    ways = TrainingStep(trainer.step_settings()).plans(tables, 32)
    return ways["sequential"].program


def test_first_rows_have_a_length_of_about_a_tenth() -> None:
    net = MLP([1, 4, 2], embed={0: (4000, 8)}, backend="numpy")
    squares = (net.theta.E[0] ** 2).sum(axis=1)
    assert abs(np.sqrt(squares.mean()) - 0.1) < 0.003


def test_copies_files_and_settings_have_the_embeddings(tmp_path: Any) -> None:
    net = trained(network())
    net.save(tmp_path / "net.safetensors")
    others = [
        copy.deepcopy(net), pickle.loads(pickle.dumps(net)),
        MLP.load(tmp_path / "net.safetensors", backend="numpy"),
    ]  # fmt: skip
    for other in others:
        assert np.array_equal(other.theta.flat, net.theta.flat)
        assert np.array_equal(other.predict(X), net.predict(X))
        assert other.embed == net.embed
    built = MLP(**json.loads(json.dumps(net.config())), backend="numpy")
    assert built.embed == net.embed
    assert built.config() == net.config()
    Ensemble(2, WIDTHS, embed=EMBED, backend="numpy").save(tmp_path / "e.safetensors")
    assert Ensemble.load(tmp_path / "e.safetensors", backend="numpy")[1].embed == net.embed


def test_penalties_count_tables_as_biases() -> None:
    of_all = [np.sum(a**2) for a in network().tensors().values()]
    of_weights = [
        np.sum(a**2) for n, a in network().tensors().items() if n[0] != "e" and a.ndim == 2
    ]
    for biases, squares in ((True, of_all), (False, of_weights)):
        net = network(regularizer=gpumlp.L2(2.0, biases=biases))
        assert net.penalty() == pytest.approx(sum(squares), rel=1e-12)


def test_memory_and_explanation_count_the_tables() -> None:
    large = MLP([6, 9, 3], embed={1: (100_000, 16)}, backend="numpy")
    trainer = Trainer(large, "adamw", batch_size=32)
    assert trainer.memory(1000).total > 4 * 4 * 1_600_000
    text = str(trainer.explain(1000))
    assert "embed_gradient" in text
    assert "∇J E" in text
