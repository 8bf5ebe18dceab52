"""Gradients of whole networks in float64 against autograd of torch."""

import numpy as np
import pytest

from gpumlp import ACTIVATIONS, LOSSES, ElasticNet
from tests.support import networks

torch = pytest.importorskip("torch")
from tests.support import in_torch  # noqa: E402  (needs torch)

BAR = 1e-10


def torchs(net, x, y, weights):
    """Return J, and ∇W, ∇b, ∂J/∂x, gz, gh by autograd, for θ, f, loss and λΩ of the network."""
    W = [torch.tensor(layer.W, requires_grad=True) for layer in net.layers]
    b = [torch.tensor(layer.b, requires_grad=True) for layer in net.layers]
    x = torch.tensor(x, requires_grad=True)
    z, h = [], [x]
    for k, layer in enumerate(net.layers):
        z.append(h[-1] @ W[k].T + b[k])
        h.append(in_torch.activation(layer.f)(z[-1]))
    for a in (*z, *h[1:]):
        a.retain_grad()
    examples = in_torch.loss(net.loss)(h[-1], torch.tensor(y))
    weights = torch.ones(len(x)) if weights is None else torch.tensor(weights)
    J = (weights * examples).sum() / weights.sum()
    p = net.regularizer.params
    l1, l2 = p.get("l1", 0.0), p.get("l2", 0.0)
    for tensors, strength in ((W, 1.0), (b, p.get("biases", 1.0))):
        for a in tensors:
            J = J + strength * (l1 * a.abs().sum() + l2 / 2 * (a**2).sum())
    J.backward()
    return J.item(), *([a.grad.numpy() for a in part] for part in (W, b, [x], z, h[1:]))


def errors(net, x, y, weights):
    """Yield the relative error of J and of every gradient: the largest deviation in an array,
    divided by its largest entry, or by 1e-6 if all entries are smaller.
    """
    J, gradients = net.cost_and_gradients(x, y, sample_weight=weights)
    J_torch, *parts_torch = torchs(net, x, y, weights)
    yield "J", abs(J - J_torch) / abs(J_torch)
    names, parts = ("dW", "db", "dx", "gz", "gh"), networks.parts(gradients)
    for name, ours, theirs in zip(names, parts, parts_torch, strict=True):
        for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            yield f"{name}[{k}]", np.abs(a - b).max() / max(np.abs(b).max(), 1e-6)


@pytest.mark.parametrize("f", ACTIVATIONS)
def test_every_loss_and_depth(f, rng):
    worst, checked = (0.0, ""), 0
    for loss, depth, output in networks.every(f):
        # the four depths: with and without Ω, each with and without sample weights
        regularizer = ElasticNet(l1=0.01, l2=0.1, biases=0.5) if depth in (1, 3) else None
        net = networks.network(f, loss, depth, output, regularizer=regularizer)
        x, y, weights = networks.batch(loss, rng)
        for name, error in errors(net, x, y, weights if depth in (2, 3) else None):
            worst = max(worst, (float(error), f"{name} of {net}"))
            checked += 1
    assert checked > 400
    assert worst[0] < BAR, worst


@pytest.mark.parametrize("f", ["softmax", "gelu_erf", "relu"])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "negative_log_likelihood"])
def test_labels(f, loss, rng):
    plain = LOSSES[loss]
    output = "softmax" if loss == "negative_log_likelihood" else "identity"
    for entry in [plain, plain.set(smoothing=0.1)] if plain.params else [plain]:
        net = networks.network(f, entry, 3, output)
        x, _, weights = networks.batch(loss, rng)
        labels = rng.integers(0, networks.OUTPUTS, len(x))
        assert max(error for _, error in errors(net, x, labels, weights)) < BAR


@pytest.mark.parametrize("loss", [LOSSES["huber"].set(delta=0.3), LOSSES["quantile"].set(q=0.9)])
def test_other_parameters(loss, rng):
    f = [ACTIVATIONS["leaky_relu"].set(slope=0.3), ACTIVATIONS["elu"].set(alpha=0.6), "selu"]
    net = networks.network(f, loss, 4)
    x, y, weights = networks.batch(loss.name, rng)
    assert max(error for _, error in errors(net, x, y, weights)) < BAR


def test_many_examples_in_many_blocks(monkeypatch, rng):
    monkeypatch.setattr("gpumlp.io.threads.BLOCK_BYTES", 1000)
    for f in ("mish", "softmax"):
        net = networks.network(f, "softmax_cross_entropy", 4)
        x, y, weights = networks.batch("softmax_cross_entropy", rng, m=257)
        assert max(error for _, error in errors(net, x, y, weights)) < BAR
