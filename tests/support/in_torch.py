"""Activations and losses by torch's functions, as references for tests."""

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

ACTIVATIONS = {
    "identity": torch.clone,
    "relu": F.relu,
    "leaky_relu": lambda z, slope: F.leaky_relu(z, slope),
    "elu": lambda z, alpha: F.elu(z, alpha),
    "selu": lambda z, alpha, scale: scale * F.elu(z, alpha),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": lambda z: F.softplus(z, threshold=100),  # above it torch's is the identity
    "softsign": F.softsign,
    "silu": F.silu,
    "gelu": lambda z: F.gelu(z, approximate="tanh"),
    "gelu_erf": F.gelu,
    "mish": F.mish,
    "hard_swish": F.hardswish,
    "exponential": torch.exp,
    "softmax": lambda z: F.softmax(z, dim=-1),
}

ELEMENTWISE_LOSSES = {
    "squared_error": lambda y_hat, y: F.mse_loss(y_hat, y, reduction="none"),
    "absolute_error": lambda y_hat, y: F.l1_loss(y_hat, y, reduction="none"),
    "huber": lambda y_hat, y, delta: F.huber_loss(y_hat, y, reduction="none", delta=delta),
    "poisson": lambda y_hat, y: F.poisson_nll_loss(y_hat, y, log_input=True, reduction="none"),
    "binary_cross_entropy": lambda y_hat, y: F.binary_cross_entropy_with_logits(
        y_hat, y, reduction="none"
    ),
    # torch has no function for these two
    "log_cosh": lambda y_hat, y: torch.log(torch.cosh(y_hat - y)),
    "quantile": lambda y_hat, y, q: torch.maximum(q * (y - y_hat), (q - 1) * (y - y_hat)),
}


def activation(entry):
    """h = f(z) for an entry of gpumlp's."""
    return lambda z: ACTIVATIONS[entry.name](z, **entry.params)


def loss(entry):
    """The loss of each example, (m,), for ŷ (m, n) and y: labels (m,) or values (m, n)."""
    if entry.name == "softmax_cross_entropy":
        smoothing = entry.params["smoothing"]
        return lambda y_hat, y: F.cross_entropy(
            y_hat, y, reduction="none", label_smoothing=smoothing
        )
    if entry.name == "negative_log_likelihood":
        return _log_likelihood
    return lambda y_hat, y: ELEMENTWISE_LOSSES[entry.name](y_hat, y, **entry.params).mean(dim=1)


def _log_likelihood(y_hat, y):
    if y.ndim == 1:
        return F.nll_loss(torch.log(y_hat), y, reduction="none")
    return -(y * torch.log(y_hat)).sum(dim=1)
