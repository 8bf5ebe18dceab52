"""Small networks with every activation, loss and regulariser, and data away from kinks."""

import numpy as np

import gpumlp
from gpumlp import LOSSES, ElasticNet
from tests.support import reference

WIDTHS = (3, 13, 7, 1, 5)  # n_0, and the widths of the hidden layers in order
OUTPUTS = 7
# activations whose output has a logarithm, for negative_log_likelihood
POSITIVE = ("sigmoid", "softplus", "exponential", "softmax")
REGULARIZERS = [
    None,
    gpumlp.L1(0.01),
    gpumlp.L2(0.1, biases=0.5),
    ElasticNet(l1=0.01, l2=0.1, biases=2.0),
]


def output_activations(f, loss):
    """Return the output activations to test with f: the usual one of the loss, and f itself."""
    usual, possible = "identity", True
    if loss == "negative_log_likelihood":
        usual, possible = "softmax", f in POSITIVE
    return [usual, f] if possible and f != usual else [usual]


def network(f, loss, depth, output="identity", **settings):
    """Return a network with weights small enough for exp(exp(z)), and with nonzero biases."""
    settings = {"precision": "float64", "backend": "numpy"} | settings
    widths = [*WIDTHS[:depth], OUTPUTS]
    net = gpumlp.MLP(widths, f, output, loss=loss, **settings)
    rng = np.random.default_rng(depth)
    for layer in net.layers:
        layer.W[...] = 0.5 * layer.W
        layer.b[...] = rng.uniform(0.1, 0.4, layer.b.shape) * rng.choice([-1, 1], layer.b.shape)
    return net


def batch(loss, rng, m=9, n=OUTPUTS):
    """Return x, y and sample weights."""
    return rng.normal(size=(m, WIDTHS[0])), reference.targets(loss, rng, m, n), rng.random(m) + 0.1


def every(f):
    """Yield (loss, depth, output activation) for hidden layers of f."""
    for loss in LOSSES:
        for depth in (1, 2, 3, 4):
            for output in output_activations(f, loss):
                yield loss, depth, output


def every_with_regularizer(f):
    """Yield (loss, depth, output activation, Ω); each Ω with every loss and every depth.

    λ∇Ω is added to the gradients of any loss, so not each Ω is needed with each pair of them.
    """
    for number, case in enumerate(every(f)):
        yield *case, REGULARIZERS[(number + number // 4) % len(REGULARIZERS)]


def parts(gradients):
    """Return dW, db, dx, gz and gh, each as a list."""
    return gradients.W, gradients.b, [gradients.x], gradients.z, gradients.h


def plainly(net, x, y, weights, dtype="float64", stored=lambda a: a):
    """Return J, dW, db, dx, gz and gh by Algorithms 6.3 and 6.4 in plain NumPy.

    stored: a function applied to every stored array of activations or gradients, and to θ where
    products read it, such as rounding.
    """
    theta = [[getattr(layer, name).astype(dtype) for layer in net.layers] for name in "Wb"]
    W, b = ([stored(a) for a in part] for part in theta)
    f, L = [layer.f for layer in net.layers], net.L
    share = (weights / weights.sum()).astype(dtype)
    h, z, y = [stored(x.astype(dtype))], [], y.astype(dtype)
    for k in range(L):
        z.append(stored(b[k] + stored(h[k] @ W[k].T)))
        h.append(stored(f[k].f(z[k], **f[k].params)))
    penalty = net.regularizer
    terms, strength = penalty.arguments(), penalty.strengths()
    J = share @ net.loss.examples(h[L], y)
    for part, s in zip(theta, strength, strict=True):
        J = J + sum(s * penalty.omega(a, **terms).sum() for a in part)
    loss_slope = net.loss.gradient(h[L], y, **net.loss.params)
    gh, gz, dW, db = [None] * L, [None] * L, [None] * L, [None] * L
    g = stored(share[:, None] * loss_slope * net.loss.output_scale(y.shape[1]))
    pull = [
        [s * penalty.gradient(a, **terms) for a in part]
        for part, s in zip(theta, strength, strict=True)
    ]
    for k in reversed(range(L)):
        gh[k], p = g, f[k].params
        gz[k] = g * f[k].df(z[k], h[k + 1], **p) if f[k].df else f[k].vjp(z[k], h[k + 1], g, **p)
        gz[k] = stored(gz[k])
        dW[k] = stored(stored(gz[k].T @ h[k]) + pull[0][k])
        db[k] = stored(stored(gz[k].sum(axis=0)) + pull[1][k])
        g = stored(gz[k] @ W[k])
    return float(J), dW, db, [g], gz, gh
