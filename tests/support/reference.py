"""Formulas of the textbook in plain NumPy, for tests to compare with, and data for them."""

import math

import numpy as np

import gpumlp

EPS32 = float(np.finfo(np.float32).eps)
ELEMENTWISE = [name for name, f in gpumlp.ACTIVATIONS.items() if f.elementwise]
# points where f' or its slope jumps, so that difference quotients are inaccurate
KINKS = {
    "relu": [0], "leaky_relu": [0], "elu": [0], "selu": [0], "softsign": [0], "hard_swish": [-3, 3],
}  # fmt: skip


def erf(z):
    return np.vectorize(math.erf, otypes=[z.dtype])(z)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


ALPHA, SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
SLOPE = math.sqrt(2 / math.pi)

# f as textbooks write it: accurate in float64, and acceptable in float32, for |z| ≤ 50
ACTIVATIONS = {
    "identity": lambda z: z + 0,
    "relu": lambda z: np.where(z > 0, z, 0),
    "leaky_relu": lambda z, slope=0.01: np.where(z > 0, z, slope * z),
    "elu": lambda z, alpha=1.0: np.where(z > 0, z, alpha * (np.exp(np.minimum(z, 0)) - 1)),
    "selu": lambda z, alpha=ALPHA, scale=SCALE: (
        scale * np.where(z > 0, z, alpha * (np.exp(np.minimum(z, 0)) - 1))
    ),
    "sigmoid": sigmoid,
    "tanh": lambda z: (np.exp(z) - np.exp(-z)) / (np.exp(z) + np.exp(-z)),
    "softplus": lambda z: np.log(1 + np.exp(z)),
    "softsign": lambda z: z / (1 + np.abs(z)),
    "silu": lambda z: z * sigmoid(z),
    "gelu": lambda z: z / 2 * (1 + np.tanh(SLOPE * (z + 0.044715 * z**3))),
    "gelu_erf": lambda z: z / 2 * (1 + erf(z / math.sqrt(2))),
    "mish": lambda z: z * np.tanh(np.log(1 + np.exp(z))),
    "hard_swish": lambda z: z * np.minimum(np.maximum(z + 3, 0), 6) / 6,
    "exponential": lambda z: np.exp(z),
    "softmax": lambda z: np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True),
}


def grid(name, dtype="float64"):
    """Return z from −50 to 50 with small values and signed zeros, without the KINKS of f."""
    small = np.geomspace(1e-3, 1, 13)
    z = np.concatenate([np.linspace(-12, 12, 241), small, -small, [-50, -20, 20, 50, 0.0, -0.0]])
    for kink in KINKS.get(name, []):
        z = z[np.abs(z - kink) > 1e-4]
    return z.astype(dtype)


# losses of one output, as textbooks write them
LOSSES = {
    "squared_error": lambda y_hat, y: (y_hat - y) ** 2,
    "absolute_error": lambda y_hat, y: np.abs(y_hat - y),
    "huber": lambda y_hat, y, delta=1.0: np.where(
        np.abs(y_hat - y) <= delta,
        (y_hat - y) ** 2 / 2,
        delta * np.abs(y_hat - y) - delta**2 / 2,
    ),
    "log_cosh": lambda y_hat, y: np.log(np.cosh(y_hat - y)),
    "quantile": lambda y_hat, y, q=0.5: np.maximum(q * (y - y_hat), (q - 1) * (y - y_hat)),
    "poisson": lambda y_hat, y: np.exp(y_hat) - y * y_hat,
    "binary_cross_entropy": lambda y_hat, y: (
        -y * np.log(sigmoid(y_hat)) - (1 - y) * np.log(1 - sigmoid(y_hat))
    ),
    "negative_log_likelihood": lambda y_hat, y: -y * np.log(y_hat),
}


def cross_entropy(y_hat, y, smoothing=0.0):
    p = np.exp(y_hat) / np.exp(y_hat).sum(axis=1, keepdims=True)
    return -(((1 - smoothing) * y + smoothing / y.shape[1]) * np.log(p)).sum(axis=1)


def examples(name, y_hat, y, **params):
    """Return the loss of each example (m,), from ŷ and y (m, n)."""
    if name == "softmax_cross_entropy":
        return cross_entropy(y_hat, y, **params)
    each = LOSSES[name](y_hat, y, **params)
    return each.sum(axis=1) if name == "negative_log_likelihood" else each.mean(axis=1)


def targets(name, rng, m, n):
    """Return valid targets (m, n) for the loss, away from its kinks."""
    kind = gpumlp.LOSSES[name].target
    if kind == "binary":
        return rng.integers(0, 2, (m, n)).astype(float)
    if kind == "count":
        return rng.poisson(2.0, (m, n)).astype(float)
    if kind == "class":
        p = rng.random((m, n)) + 0.1
        return p / p.sum(axis=1, keepdims=True)
    return rng.normal(size=(m, n))


def outputs(name, rng, m, n):
    """Return valid ŷ (m, n) for the loss: logits or probabilities."""
    y_hat = rng.normal(size=(m, n))
    return ACTIVATIONS["softmax"](y_hat) if name == "negative_log_likelihood" else y_hat
