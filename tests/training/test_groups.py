"""Learning rates and weight decays of groups of parameters, against torch's groups."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import OPTIMIZERS, Group
from gpumlp.parameters import Layout, Parameters
from gpumlp.step.groups import Region, regions
from tests.support import networks
from tests.support.cuda_networks import (
    EPS,
    classifier,
    device,
    moved,
    on_cuda_backend,
    on_host,
    problem,
    relative,
)
from tests.support.harness.catalogue import PULL
from tests.support.refusal import refusal
from tests.support.training_cases import FOLDABLE

ALL = {
    "weights": Group(lr=0.5, decay=2.0), "biases": Group(lr=3.0, decay=0.0),
    "first": Group(lr=0.1), "last": Group(lr=2.0, decay=0.5),
}  # fmt: skip
DECAYING = ("adamw", "lion")


def rates_alone(groups: dict[str, Group]) -> dict[str, Group]:
    """The groups for optimizers without weight decay."""
    return {name: Group(group.lr) for name, group in groups.items()}


def fitted(
    net: gpumlp.MLP, groups: Any, optimizer: Any = "adam", **settings: Any
) -> gpumlp.Trainer:
    """The trainer after three epochs of five steps."""
    x, y, weights = problem(70)
    settings = {"lr": 0.01, "batch_size": 16} | settings
    trainer = gpumlp.Trainer(net, optimizer, groups=groups, **settings)
    trainer.fit(x, y, 3, sample_weight=weights, progress=False)
    return trainer


def factors(net: gpumlp.MLP, groups: dict[str, Group]) -> tuple[Any, Any]:
    """The factors of lr and decay at each entry of the flat θ."""
    found = []
    for name in ("lr", "decay"):
        here = Parameters(net.theta.layout, np.ones(net.theta.layout.size))
        for kind, of in (("weights", here.W[1:]), ("biases", here.b[1:])):
            for k, view in enumerate(of, start=1):
                for group in [kind] + ["first"] * (k == 1) + ["last"] * (k == net.L):
                    view *= getattr(groups.get(group, Group()), name)
        found.append(here.flat)
    return found[0], found[1]


# ---- regions of θ --------------------------------------------------------------------------------


def test_there_are_at_most_six_regions() -> None:
    """Neighbours with equal factors are joined; the regions cover θ without gaps."""
    layout = Layout((5, 9, 8, 7, 3), 8)
    s = layout.starts
    found = regions(layout, ALL)
    assert found == [
        Region(0, s[1], 0.05, 2.0), Region(s[1], s[3], 0.5, 2.0), Region(s[3], s[4], 1.0, 1.0),
        Region(s[4], s[5], 3.0 * 0.1, 0.0), Region(s[5], s[7], 3.0, 0.0),
        Region(s[7], s[8], 6.0, 0.0),
    ]  # fmt: skip
    assert regions(layout, {}) == [Region(0, layout.size, 1.0, 1.0)]
    assert len(regions(layout, {"biases": Group(2.0)})) == 2
    assert len(regions(layout, {"last": Group(2.0)})) == 4
    one = Layout((5, 3), 8)
    assert regions(one, ALL)[0] == Region(0, one.split, 0.5 * 0.1 * 2, 1.0)


# ---- the backends --------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize(
    ("name", "penalty"),
    [("adamw", None), ("momentum", None), *((name, PULL) for name in OPTIMIZERS)],
)
def test_step_applies_the_factors_to_the_rule(
    name: str, penalty: Any, depth: int, rng: np.random.Generator
) -> None:
    """For each entry of θ, with the gradient of `cost_and_gradients`."""
    groups = ALL if name in DECAYING else rates_alone(ALL)
    x, y = rng.normal(size=(9, 3)), rng.integers(0, 7, 9)
    for backend in ("numpy", "harness"):
        net = networks.network("tanh", "softmax_cross_entropy", depth, regularizer=penalty)
        start, optimizer = net.tensors(), OPTIMIZERS[name]
        _, gradients = net.cost_and_gradients(x, y)
        lr, decay = (Parameters(net.theta.layout, each).named() for each in factors(net, groups))
        grads = {}
        for i in range(net.L):
            grads |= {f"{2 * i}.weight": gradients.W[i], f"{2 * i}.bias": gradients.b[i]}
        if backend == "harness":
            net = on_cuda_backend(net)
        alone = copy.deepcopy(net)
        gpumlp.Trainer(net, name, lr=0.01, groups=groups).fit(x, y, 1, progress=False)
        gpumlp.Trainer(alone, name, lr=0.01).fit(x, y, 1, progress=False)
        matrices = [f"{2 * i}.weight" for i in range(net.L - 1)] if optimizer.orthogonal else []
        for tensor, got in net.tensors().items():
            if tensor in matrices:  # what their direction is, test_muon says
                W, kept = start[tensor], optimizer.params["weight_decay"]
                turned = (W - alone.tensors()[tensor]) / 0.01 - kept * W
                want = W - 0.01 * lr[tensor] * (turned + kept * decay[tensor] * W)
                np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)
                continue
            params = dict(optimizer.params)
            if "weight_decay" in params:
                params["weight_decay"] = params["weight_decay"] * decay[tensor]
            want, slots = start[tensor].copy(), np.zeros((len(optimizer.slots), *got.shape))
            scalars = optimizer.scalars(1, **optimizer.params)
            optimizer.rule(
                want, grads[tensor].copy(), 0.01 * lr[tensor],
                **dict(zip(optimizer.slots, slots, strict=True)), **scalars, **params,
            )  # fmt: skip
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("slots", [None, "bfloat16"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_each_layer_updated_at_once(precision: str, slots: str | None, late: bool) -> None:
    """Part by part: the same bits."""
    found = []
    for way in ("", "branched, early update"):
        gpu = on_cuda_backend(classifier("relu", precision="float32"), precision=precision)
        device(gpu).variant, device(gpu).late_branches = way, late
        trainer = fitted(gpu, ALL, "adamw", slot_precision=slots)
        found.append((gpu.theta.flat.values.tobytes(), trainer.slots.values.tobytes()))
    assert found[0] == found[1]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("slots", [None, "bfloat16"])
def test_groups_in_low_precision(precision: str, slots: str | None) -> None:
    net = classifier("tanh", precision="float32")
    gpu, start = on_cuda_backend(net, precision=precision), net.tensors()
    fitted(net, ALL, "adamw")
    fitted(gpu, ALL, "adamw", slot_precision=slots)
    limit = 0.06 if slots else 12 * EPS[precision]
    assert relative(moved(gpu, start), moved(net, start)) < limit


@pytest.mark.parametrize("backend", ["numpy", "harness"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_lr_of_zero_freezes_a_group(name: str, backend: str) -> None:
    net = classifier("tanh", regularizer=None)
    net = on_cuda_backend(net) if backend == "harness" else net
    start = net.tensors()
    fitted(net, {"first": Group(lr=0.0)}, name)
    for tensor, value in net.tensors().items():
        assert np.array_equal(value, start[tensor]) == tensor.startswith("0.")


@pytest.mark.parametrize("groups", [None, {}, {"first": Group()}, {"weights": Group(1, 1)}])
def test_groups_of_ones_change_no_bit(groups: Any) -> None:
    for backend in ("numpy", "harness"):
        nets = [classifier("tanh") for _ in range(2)]
        nets = [on_cuda_backend(net) for net in nets] if backend == "harness" else nets
        for net, each in zip(nets, (groups, None), strict=True):
            fitted(net, each, "adamw")
        assert on_host(nets[0].theta.flat).tobytes() == on_host(nets[1].theta.flat).tobytes()


def test_groups_add_no_launch() -> None:
    counts = []
    for groups in (None, ALL):
        gpu = on_cuda_backend(classifier("relu", precision="float32"))
        fitted(gpu, groups, "adamw")
        counts.append([" ".join(call.split()[:4]) for call in device(gpu).launches])
    assert counts[0] == counts[1]


# ---- against torch -------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numpy", "harness"])
@pytest.mark.parametrize(
    ("name", "params", "kind", "torchs"),
    [
        ("sgd", {}, "SGD", {}), ("momentum", {}, "SGD", {"momentum": 0.9}),
        ("adam", {}, "Adam", {}), ("adamw", {"weight_decay": 0.3}, "AdamW", {"weight_decay": 0.3}),
    ],
)  # fmt: skip
def test_theta_equals_torchs(name: str, params: Any, kind: str, torchs: Any, backend: str) -> None:
    torch = pytest.importorskip("torch")
    from tests.support import in_torch

    rng, lr, steps = np.random.default_rng(3), 0.02, 20
    groups = ALL if name == "adamw" else rates_alone(ALL)
    net = networks.network("tanh", "softmax_cross_entropy", 4)
    x, y = rng.normal(size=(16, 3)), rng.integers(0, 7, 16)
    tensors = {n: torch.tensor(t, requires_grad=True) for n, t in net.tensors().items()}
    own = [Parameters(net.theta.layout, each).named() for each in factors(net, groups)]
    param_groups = [
        {"params": [tensor], "lr": lr * own[0][n].flat[0]}
        | ({"weight_decay": 0.3 * own[1][n].flat[0]} if name == "adamw" else {})
        for n, tensor in tensors.items()
    ]
    optimizer = getattr(torch.optim, kind)(param_groups, lr=lr, **torchs)
    for _ in range(steps):
        h = torch.tensor(x)
        for i, layer in enumerate(net.layers):
            z = h @ tensors[f"{2 * i}.weight"].T + tensors[f"{2 * i}.bias"]
            h = in_torch.activation(layer.f)(z)
        optimizer.zero_grad()
        in_torch.loss(net.loss)(h, torch.tensor(y)).mean().backward()
        optimizer.step()
    net = on_cuda_backend(net) if backend == "harness" else net
    trainer = gpumlp.Trainer(net, OPTIMIZERS[name].set(**params), lr=lr, groups=groups)
    trainer.fit(x, y, steps, progress=False)
    for n, tensor in net.tensors().items():
        np.testing.assert_allclose(tensor, tensors[n].detach().numpy(), rtol=0, atol=1e-10)


# ---- folded updates ------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numpy", "harness"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize(("name", "params", "omega"), FOLDABLE)
def test_folded_steps_with_groups(
    name: str, params: Any, omega: Any, precision: str, backend: str
) -> None:
    """SGD with one rate for all weights and another for biases; momentum with any."""
    groups = rates_alone(ALL) if name == "momentum" else {"weights": Group(0.5), "biases": Group(2)}
    runs = []
    for fold in (False, True):
        net = classifier("tanh", precision=precision, regularizer=omega)
        net = on_cuda_backend(net) if backend == "harness" else net
        runs.append(fitted(net, groups, OPTIMIZERS[name].set(**params), lr=0.1, fold=fold))
    apart, folded = runs
    assert (apart.folds, folded.folds) == (False, True)
    want, tolerance = on_host(apart.net.theta.flat), {"float64": 1e-12, "float32": 2e-5}[precision]
    np.testing.assert_allclose(
        on_host(folded.net.theta.flat), want, rtol=0, atol=tolerance * np.abs(want).max()
    )


def test_sgd_folds_only_with_one_learning_rate() -> None:
    net = classifier(regularizer=None)
    assert gpumlp.Trainer(net, "sgd", groups={"biases": Group(0.1)}).folds
    assert gpumlp.Trainer(net, "momentum", groups={"first": Group(0.1)}).folds
    assert not gpumlp.Trainer(net, "sgd", groups={"first": Group(0.1)}).folds
    refusal(
        ValueError, lambda: gpumlp.Trainer(net, "sgd", groups={"last": Group(0.1)}, fold=True),
        "fold=True is not possible: groups give weights different learning rates; pass fold=None",
    )  # fmt: skip


# ---- memory and settings -------------------------------------------------------------------------


def test_resume_with_other_groups_raises(tmp_path: Any) -> None:
    path = tmp_path / "run.safetensors"

    def run(epochs: int, groups: Any = ALL, **fit: Any) -> None:
        trainer = gpumlp.Trainer(classifier(), "adamw", batch_size=16, groups=groups)
        trainer.fit(*problem(70)[:2], epochs, progress=False, **fit)

    run(2, checkpoint=path)
    for other in (None, ALL | {"first": Group(lr=0.2)}):
        with pytest.raises(gpumlp.CheckpointError, match="is of a run with other groups: "):
            run(5, other, checkpoint=path, resume=True)
    # in another order, and with one that says nothing
    reordered = dict(reversed(ALL.items()))
    run(5, reordered, checkpoint=path, resume=True)


def test_invalid_groups_raise() -> None:
    net = classifier()
    for error, groups, said in (
        (ValueError, {"bias": Group()}, "unknown group 'bias'; did you mean 'biases'? known: "
         "weights, biases, embeddings, first, last"),
        (ValueError, {7: Group()}, "unknown group 7; known: weights, biases, embeddings, first"),
        (ValueError, {"embeddings": Group()}, "this network has no embeddings; leave out groups"),
        (TypeError, [Group()], "groups must be a mapping, e.g. groups={\"biases\": gpumlp.Group("),
        (TypeError, {"first": 0.1}, "groups['first'] must be a gpumlp.Group, got float; pass "),
        (ValueError, {"biases": Group(decay=0)}, "groups['biases'] multiplies weight_decay, which "
         "sgd does not have; use one of adamw, lion, muon, or the network's regularizer"),
    ):  # fmt: skip
        refusal(error, lambda groups=groups: gpumlp.Trainer(net, "sgd", groups=groups), said)
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="lr must"):
            Group(lr=wrong)
        with pytest.raises(ValueError, match="decay must"):
            Group(decay=wrong)
    with pytest.raises(TypeError, match="decay must"):
        Group(decay="0")  # type: ignore[arg-type]
