"""A search of 32 candidates × 5 folds: gpumlp.search beside GridSearchCV with as many processes.

    python -m benchmarks.search [--write] [--rounds N]

The candidates are classifiers 64-64-10 of scikit-learn's 1,797 digits: 4 penalties, 4 learning
rates and 2 activations, by Adam for 30 epochs of minibatches of 200.  The last fit, on all digits,
counts, too.

- gpumlp: `gpumlp.search.GridSearch`.
- GridSearchCV: scikit-learn's, of the same estimator, with a process for each core.  The processes
  have been started by an earlier search, which takes a second or more: "first search" is with it.
- one after the other: the same without processes.
- steps alone: the steps of the 160 fits, on a thread for each core, with nothing of what a fit does
  besides, and no last fit.  No search that takes these steps can be faster.

Before the timing, all scores in float64 are compared.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, ParameterGrid, StratifiedKFold

import gpumlp
from benchmarks.output import compare_with_gpumlp, write
from gpumlp.backends import host_backend
from gpumlp.bench.timing import interleaved
from gpumlp.estimators import MLPClassifier
from gpumlp.io.threads import cores
from gpumlp.loader.examples import Examples
from gpumlp.search import GridSearch
from gpumlp.training import members

EPOCHS, HIDDEN, BATCH, FOLDS = 30, (64,), 200, 5
GRID = {
    "alpha": [1e-5, 1e-4, 1e-3, 1e-2], "learning_rate_init": [1e-3, 3e-3, 1e-2, 3e-2],
    "activation": ["relu", "tanh"],
}  # fmt: skip
BAR = 0.35  # the most of gpumlp's time over that of GridSearchCV
CLOSE = 1e-6  # of scores in float64


def data() -> tuple[Any, Any]:
    """The digits, (1797, 64) between 0 and 1, and their labels."""
    x, y = load_digits(return_X_y=True)
    return x / 16, y


def estimator(precision: str) -> MLPClassifier:
    """What is searched."""
    return MLPClassifier(
        HIDDEN, max_iter=EPOCHS, batch_size=BATCH, random_state=0, precision=precision,
        n_iter_no_change=np.inf, backend=host_backend(precision).name,
    )  # fmt: skip


def check() -> None:
    """Raise unless all scores in float64 are those of GridSearchCV."""
    x, y = data()
    found = GridSearch(estimator("float64"), GRID).fit(x, y)
    want = GridSearchCV(estimator("float64"), GRID, n_jobs=cores()).fit(x, y)
    for key in (key for key in want.cv_results_ if key.endswith("test_score")):
        off = np.abs(found.cv_results_[key] - want.cv_results_[key]).max()
        if not off <= CLOSE:
            raise RuntimeError(f"{key} differs by {off:.2g} from that of GridSearchCV")


def steps_alone(precision: str) -> Callable[[], None]:
    """The steps of all fits of all folds."""
    x, y = data()
    folds, backend = StratifiedKFold(FOLDS).split(x, y), host_backend(precision)
    runs = []
    for rows, _ in folds:
        examples = None
        for each in ParameterGrid(GRID):
            net = gpumlp.MLP(
                [64, *HIDDEN, 10], each["activation"], backend=backend,
                regularizer=gpumlp.L2(each["alpha"] / BATCH, biases=False),
            )  # fmt: skip
            trainer = gpumlp.Trainer(net, "adam", each["learning_rate_init"], BATCH)
            examples = examples or Examples.checked(net, x[rows], y[rows])
            batches = trainer.batches(examples)
            rates = [trainer.lr] * batches.order.steps
            batches.start(0, trainer.controls(rates, 1), np.zeros(batches.order.steps), 0)
            runs.append(batches)

    def fit(i: int) -> None:
        batches = runs[i]
        for _ in range(EPOCHS):
            batches.seek(0)
            batches.run(batches.alike)
            while batches.order.at:
                batches.run(batches.alike)

    return lambda: members.call(fit, range(len(runs)), members.count(backend))


def competitors(precision: str) -> dict[str, Callable[[], Any]]:
    """Functions that search."""
    (x, y), e = data(), estimator(precision)
    return {
        "gpumlp": lambda: GridSearch(e, GRID).fit(x, y),
        "GridSearchCV": lambda: GridSearchCV(e, GRID, n_jobs=cores()).fit(x, y),
        "one after the other": lambda: GridSearchCV(e, GRID).fit(x, y),
        "steps alone": steps_alone(precision),
    }


def first_search(name: str, precision: str) -> float:
    """The seconds of the first search in a process of Python that has imported all."""
    code = (
        "import time\nfrom benchmarks import search\n"
        f"if __name__ == '__main__':\n    run = search.competitors({precision!r})[{name!r}]\n"
        "    begin = time.perf_counter()\n    run()\n    print(time.perf_counter() - begin)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Time all competitors, and print tables and whether the bar is met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    os.environ["PYTHONWARNINGS"] = "ignore"  # of the processes
    warnings.simplefilter("ignore", ConvergenceWarning)
    check()
    results: dict[str, Any] = {}
    for precision in ("float64", "float32"):
        timed = interleaved(competitors(precision), options.rounds, warmup=1)
        results[precision] = compare_with_gpumlp(f"{precision}, 160 fits of {EPOCHS} epochs", timed)
        pairs = [
            first_search("gpumlp", precision) / first_search("GridSearchCV", precision)
            for _ in range(3)
        ]
        first = float(np.median(pairs))
        ratio = timed["gpumlp"].ratio(timed["GridSearchCV"])
        least = timed["steps alone"].ratio(timed["GridSearchCV"])
        print(f"first search of a process, over GridSearchCV: {first:.2f}")
        print(f"steps alone, over GridSearchCV: {least:.2f}")
        said = "met" if ratio <= BAR else "not met"
        print(f"at most {BAR} of GridSearchCV, {precision}: {ratio:.2f}, {said}\n")
        results[f"{precision}, first search"] = first
        results[f"{precision}, bar"] = {"at_most": BAR, "ratio": ratio, "steps_alone": least}
    write("search", results)


if __name__ == "__main__":
    main()
