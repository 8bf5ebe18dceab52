"""After 50 steps of a network in float64, θ equals that of torch.optim to 1e-10."""

import numpy as np
import pytest

import gpumlp
from gpumlp import OPTIMIZERS
from gpumlp.io.threads import Threads
from gpumlp.parameters import Parameters
from gpumlp.step.chunked import UNSCALED, Chunked
from tests.support import networks

torch = pytest.importorskip("torch")
from tests.support import in_torch  # noqa: E402  (needs torch)

STEPS, ROWS = 50, 16
SGD, ADAM = torch.optim.SGD, torch.optim.Adam
CASES = [
    ("sgd", {}, 0.1, SGD, {}),
    ("momentum", {"mu": 0.8}, 0.05, SGD, {"momentum": 0.8}),
    ("nesterov", {}, 0.05, SGD, {"momentum": 0.9, "nesterov": True}),
    ("rmsprop", {"rho": 0.9}, 1e-3, torch.optim.RMSprop, {"alpha": 0.9}),
    ("adam", {}, 1e-2, ADAM, {}),
    ("adam", {"beta1": 0.8, "beta2": 0.9}, 1e-2, ADAM, {"betas": (0.8, 0.9)}),
    ("adamw", {}, 1e-2, torch.optim.AdamW, {}),
    ("adamw", {"weight_decay": 0.3}, 1e-2, torch.optim.AdamW, {"weight_decay": 0.3}),
]  # fmt: skip
PENALTIES = [None, gpumlp.L2(0.1), gpumlp.L2(0.1, biases=0.5)]


def our_steps(net, optimizer, lr, batches):
    """Return W and b after a step for each minibatch; the update includes Ω."""
    backend, theta, split = net.backend, net.theta.flat, net.theta.layout.split
    d = Parameters.zeros(backend, net.theta.layout)
    chunked = Chunked(net, ROWS, np.dtype(np.int32), d)
    slots = backend.full((len(optimizer.slots), len(theta)), 0)
    for t, (x, y) in enumerate(batches, start=1):
        assert list(chunked(x, y)) == [slice(0, ROWS)]
        control = np.array([1.0, *optimizer.control(lr, t)])
        backend.update(
            optimizer, net.regularizer, theta, theta, d.flat, slots, split, UNSCALED, control
        )
    return [layer.W for layer in net.layers], [layer.b for layer in net.layers]


def torchs_steps(net, kind, params, lr, batches):
    """Return the same by torch's forward pass, autograd and optimizer, from the same θ."""
    W = [torch.tensor(layer.W, requires_grad=True) for layer in net.layers]
    b = [torch.tensor(layer.b, requires_grad=True) for layer in net.layers]
    lam, biases = (net.regularizer.params.get(key, 0.0) for key in ("lam", "biases"))
    optimizer = kind([*W, *b], lr=lr, **params)
    for x, y in batches:
        h = torch.tensor(x)
        for layer, W_k, b_k in zip(net.layers, W, b, strict=True):
            h = in_torch.activation(layer.f)(h @ W_k.T + b_k)
        omega = sum((a**2).sum() for a in W) + biases * sum((a**2).sum() for a in b)
        J = in_torch.loss(net.loss)(h, torch.tensor(y)).mean() + lam / 2 * omega
        optimizer.zero_grad()
        J.backward()
        optimizer.step()
    return [a.detach().numpy() for a in W], [a.detach().numpy() for a in b]


@pytest.mark.parametrize("penalty", PENALTIES, ids=["none", "l2", "l2 on half the biases"])
@pytest.mark.parametrize(("name", "params", "lr", "kind", "torchs_params"), CASES)
def test_theta_matches_torch_after_50_steps(
    monkeypatch, rng, name, params, lr, kind, torchs_params, penalty
):
    monkeypatch.setattr("gpumlp.io.threads.BLOCK_BYTES", 512)
    net = networks.network("tanh", "softmax_cross_entropy", 4, regularizer=penalty)
    net.backend._threads = Threads(3)
    batches = [
        (rng.normal(size=(ROWS, net.widths[0])), rng.integers(0, net.widths[-1], ROWS))
        for _ in range(STEPS)
    ]
    start = net.theta.flat.copy()
    theirs = torchs_steps(net, kind, torchs_params, lr, batches)
    ours = our_steps(net, OPTIMIZERS[name].set(**params), lr, batches)
    assert np.abs(net.theta.flat - start).max() > 0.01  # θ has moved
    for our_part, their_part in zip(ours, theirs, strict=True):
        for a, b in zip(our_part, their_part, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)
