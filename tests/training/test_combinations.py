"""Combinations of the settings of a training: every two of them together, in both backends.

Each case is a row of a table in which every pair of settings occurs.  In each row a run that died
goes on bit for bit, both backends agree, memory is planned to the byte, and micro-batches and
streams change nothing.  The constructor refuses settings that exclude each other.
"""

from __future__ import annotations

import copy
import signal
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import Group
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.callbacks import LearningRateLogger, ReduceOnPlateau
from tests.support.cuda_networks import on_host
from tests.support.harness.catalogue import PULL
from tests.support.harness.host_device import HostDevice
from tests.support.training_cases import Die, Hook, die_at

Case = dict[str, Any]
RNG = np.random.default_rng(11)
M = 31
X = RNG.normal(size=(M, 5))
TARGETS = {
    "softmax_cross_entropy": (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5),
    "huber": np.stack([np.sin(X[:, 0]), X[:, 1] * X[:, 2], X[:, 3]], axis=1),
}
WEIGHTS = RNG.integers(0, 4, M).astype(float)
CODED = X.copy()  # with codes in two columns
CODED[:, 4], CODED[:, 0] = RNG.integers(0, 5, M), RNG.integers(0, 300, M)
LR = {"sgd": 0.1, "momentum": 0.05, "nesterov": 0.05, "muon": 0.02}
GROUPS = {"biases": Group(lr=2.0), "first": Group(lr=0.5), "last": Group(lr=1.5)}
EPOCHS = 3

# settings of a network, a trainer and a fit; the first of each is its default in these tests
FACTORS: dict[str, list[Any]] = {
    "optimizer": list(gpumlp.OPTIMIZERS),
    "precision": ["float64", "float32", "tf32", "bfloat16", "float16"],
    "batch_size": [16, 7, 31, 64, 5],
    "accumulate": [1, 3, 5],
    "schedule": ["constant", "one_cycle", "warmup_cosine"],
    "regularizer": [PULL, gpumlp.L2(0.01), None],
    "hidden": [(6, 8), (), (9,)],
    "activation": ["gelu", "relu", "tanh"],
    "early_stopping": [None, 1, gpumlp.EarlyStopping(2, monitor="cost", restore_best=False)],
    "weights": [None, "sample_weight", "class_weight"],
    "loss": list(TARGETS),
    "groups": [None, GROUPS],
    "ema": [None, 0.9],
    "clip_norm": [None, 0.3],
    "memory": ["normal", "low"],
    "fold": [None, False, True],
    "slot_precision": [None, "bfloat16"],
    "remainder": [False, True],
    "data": ["device", "stream"],
    "dtype": ["float64", "float16"],
    "shuffle": [True, False],
    "plateau": [False, True],
    "metric": ["auto", None],
    "train_metric": [False, True],
    "checkpoint_every": [None, 1, 3],
    "fits before": [0, 1],
    "died": ["in a step", "at an epoch", "by Ctrl-C"],
    "embed": [None, {4: (5, 3), 0: (300, 2)}],
}
OF_TRAINER = (
    "optimizer", "batch_size", "accumulate", "schedule", "groups", "ema", "clip_norm", "memory",
    "fold", "slot_precision", "remainder", "shuffle",
)  # fmt: skip


def pairwise() -> list[Case]:
    """Rows in which every two settings of two factors occur together, found greedily.

    A row begins with a missing pair.  Each further factor takes the setting that adds the most
    missing pairs to the row.  The rows are the same in each run.
    """
    sizes = [len(values) for values in FACTORS.values()]
    n, rng = len(sizes), np.random.default_rng(0)
    missing = {
        ((i, a), (j, b))
        for i, j in combinations(range(n), 2)
        for a, b in product(range(sizes[i]), range(sizes[j]))
    }
    rows = []
    while missing:
        row = dict(min(missing))
        for i in [int(i) for i in rng.permutation(n) if i not in row]:
            gains = [
                sum(tuple(sorted([(i, a), other])) in missing for other in row.items())
                for a in range(sizes[i])
            ]
            best = [a for a, gain in enumerate(gains) if gain == max(gains)]
            row[i] = best[int(rng.integers(len(best)))]
        missing -= set(combinations(sorted(row.items()), 2))
        rows.append({
            name: values[row[i]] for i, (name, values) in enumerate(FACTORS.items())
        })  # fmt: skip
    return rows


def network(case: Case, backend: Any) -> gpumlp.MLP:
    widths = [5, *case["hidden"], 3]
    names = "activation", "loss", "regularizer", "precision", "embed"
    settings = {name: case[name] for name in names}
    return gpumlp.MLP(widths, **settings, backend=backend, seed=1)


def trainer_of(case: Case, net: gpumlp.MLP) -> gpumlp.Trainer:
    settings = {name: case[name] for name in OF_TRAINER}
    decays = "weight_decay" in gpumlp.OPTIMIZERS[case["optimizer"]].params
    if decays and case["groups"]:
        settings["groups"] = {**GROUPS, "weights": Group(0.8, decay=2.0)}
    return gpumlp.Trainer(net, lr=LR.get(case["optimizer"], 0.01), seed=3, **settings)


def allowed(case: Case, backend: Any) -> Case:
    """The case, changed as the constructor's errors say."""
    case = dict(case)
    for _ in range(5):
        try:
            trainer_of(case, network(case, backend))
        except ValueError as error:
            said = str(error)
            assert "\n" not in said
            if "pass fold=None" in said:
                case["fold"] = None
            elif "slot_precision=None" in said:
                case["slot_precision"] = None
            elif "remainder=False" in said:
                case["remainder"] = False
            else:
                assert "accumulate" in said
                assert "pass at most as many" in said
                case["accumulate"] = case["batch_size"]
        else:
            break
    return case


def asked(case: Case) -> dict[str, Any]:
    """Arguments of `fit` and of `memory`."""
    x, y = (CODED if case["embed"] else X).astype(case["dtype"]), TARGETS[case["loss"]]
    y = y if y.ndim == 1 else y.astype(case["dtype"])
    found = {
        "x": x, "y": y, "data": case["data"], "early_stopping": case["early_stopping"],
        "validation": (x[:13], y[:13], WEIGHTS[:13]), "metric": case["metric"],
        "train_metric": case["train_metric"] and case["metric"] is not None,
    }  # fmt: skip
    if case["weights"] == "class_weight" and y.ndim == 1:
        return found | {"class_weight": "balanced"}
    return found | ({"sample_weight": WEIGHTS} if case["weights"] else {})


def state(trainer: gpumlp.Trainer) -> list[bytes]:
    """All arrays that further steps depend on."""
    trainer.net.backend.synchronize()
    arrays = [trainer.net.theta.flat, trainer.slots, trainer.scaling]
    arrays += [] if trainer.average is None else trainer.average.both(trainer.net)
    return [on_host(a).tobytes() for a in arrays]


def fitted(case: Case, backend: Any, **fit: Any) -> Any:
    """The trainer, and the result of a fit without the seconds."""
    trainer = trainer_of(case, network(case, backend))
    for _ in range(case["fits before"]):
        trainer.fit(**asked(case), epochs=1, progress=False)
    log = LearningRateLogger()
    hooks = [
        log,
        *([ReduceOnPlateau(factor=0.5, patience=1, min_delta=9)] if case["plateau"] else []),
    ]
    hooks += fit.pop("callbacks", [])
    history = trainer.fit(**asked(case), epochs=EPOCHS, callbacks=hooks, progress=False, **fit)
    ended = history.to_dict()
    del ended["columns"]["seconds"]
    numbers = trainer.steps, trainer.epochs, trainer.lr_factor, trainer.last_lr, log.lr.tolist()
    return trainer, (state(trainer), ended, numbers)


def close(got: gpumlp.Trainer, want: gpumlp.Trainer, tolerance: float) -> None:
    """Assert that θ, slots and history agree but for rounding."""
    pairs = [(got.net.theta.flat, want.net.theta.flat), (got.slots, want.slots)]
    pairs += [(got.history[name], want.history[name]) for name in want.history if name != "seconds"]
    for one, other in pairs:
        a, b = np.asarray(on_host(one)), np.asarray(on_host(other))
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max(initial=0))


# no row of `pairwise` meets all conditions of a folded update; these do
FOLDED = [
    {**{name: values[0] for name, values in FACTORS.items()}, **change}
    for change in (
        {"optimizer": "sgd", "activation": "relu", "checkpoint_every": 3, "regularizer": None},
        {"optimizer": "momentum", "accumulate": 3, "ema": 0.9, "regularizer": None},
    )
]
# and few rows keep a remainder, which only bfloat16 has; of these all do
SPLIT = [{**row, "precision": "bfloat16", "remainder": True} for row in pairwise()[::7]]
ROWS = [*pairwise(), *FOLDED, *SPLIT]
BACKENDS = ("numpy", "harness")


def opened(case: Case, backend: str) -> Any:
    return "numpy" if backend == "numpy" else CudaBackend(HostDevice(), case["precision"])


def on_backend(case: Case, backend: str) -> Case:
    """The case for the backend: NumPy's has two precisions, and θ and slots only of these."""
    case = dict(case)
    if backend == "numpy":
        if case["precision"] != "float64":
            case["precision"] = "float32"
        case["slot_precision"], case["remainder"] = None, False
    return allowed(case, opened(case, backend))


pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


def dying(case: Case) -> gpumlp.Callback:
    """A callback that ends the run in its third and last epoch."""
    steps, before = -(-M // min(case["batch_size"], M)), case["fits before"]
    last = (2 + before) * steps + (steps + 1) // 2
    if case["died"] == "at an epoch":
        return die_at(epoch=3 + before)
    if case["died"] == "in a step":
        return die_at(step=last)

    def press(trainer: gpumlp.Trainer) -> None:
        if trainer.steps == last:
            signal.raise_signal(signal.SIGINT)

    return Hook(press)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("row", range(len(ROWS)))
def test_streamed_and_interrupted_runs_have_the_same_bits(
    row: int, backend: str, tmp_path: Any
) -> None:
    case = on_backend(ROWS[row], backend)
    saved = {"checkpoint": tmp_path / "c.safetensors", "checkpoint_every": case["checkpoint_every"]}
    _, whole = fitted(case, opened(case, backend))
    other = {**case, "data": "device" if case["data"] == "stream" else "stream"}
    assert fitted(other, opened(case, backend))[1] == whole
    try:
        stopped, end = fitted(case, opened(case, backend), callbacks=[dying(case)], **saved)
        # early stopping may come before, and Ctrl-C may come in the very last step
        assert stopped.history.stopped == "interrupted" or end == whole
    except Die:
        assert case["died"] != "by Ctrl-C"
    assert fitted(case, opened(case, backend), resume=True, **saved)[1] == whole
    if backend == "numpy":  # a finished run does not change
        assert fitted(case, backend, resume=True, **saved)[1] == whole


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_backends_and_micro_batches_agree(row: int) -> None:
    """The row in the CUDA backend, and in NumPy's with another number of micro-batches."""
    case = on_backend({**ROWS[row], "precision": "float64"}, "numpy")
    want, _ = fitted(case, "numpy")
    got, _ = fitted(case, opened(case, "harness"))
    close(got, want, 1e-8)
    parts = min(3, case["batch_size"]) if case["accumulate"] == 1 else 1
    got, _ = fitted(allowed({**case, "accumulate": parts}, "numpy"), "numpy")
    close(got, want, 1e-8)


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_planned_memory_is_exact(row: int) -> None:
    case = on_backend(ROWS[row], "harness")
    backend = opened(case, "harness")
    device = backend._device
    trainer = trainer_of(case, network(case, backend))
    planned = trainer.memory(**asked(case))
    assert device.live == planned.held
    device.peak = 0
    trainer.fit(**asked(case), epochs=1, progress=False)
    assert device.peak == planned.total
    assert device.live == planned.held


def test_rows_with_a_remainder_keep_it() -> None:
    for row in SPLIT:
        assert on_backend(row, "harness")["remainder"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_folded_rows_fold(backend: str) -> None:
    for row in FOLDED:
        case = on_backend(row, backend)
        assert trainer_of(case, network(case, opened(case, backend))).folds


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_copies_and_range_tests_do_not_change_the_trainer(row: int) -> None:
    """The copy goes on as the trainer does."""
    backend = BACKENDS[row % 2]
    case = on_backend(ROWS[row], backend)
    trainer = trainer_of(case, network(case, opened(case, backend)))
    fit = {**asked(case), "epochs": 1, "progress": False}
    trainer.fit(**fit)
    before, second = state(trainer), copy.deepcopy(trainer)
    tested = {name: fit[name] for name in ("x", "y", "data")}
    curve = trainer.find_lr(**tested, start=1e-6, end=1e-3, steps=10)
    again = second.find_lr(**tested, start=1e-6, end=1e-3, steps=10)
    assert curve.loss.tolist() == again.loss.tolist()
    assert state(trainer) == before == state(second)
    for each in (trainer, second):
        each.fit(**fit)
    assert before != state(trainer) == state(second)
