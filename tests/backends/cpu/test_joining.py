"""Operations that the CPU backend does together have the bits that they have alone."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cpu import backend as cpu_backend
from gpumlp.backends.cpu import joining
from gpumlp.backends.cpu.works import RowWise, Scratch, Work
from gpumlp.loader import recipes
from gpumlp.step import chunked
from tests.support.compiled import needs_library

pytestmark = needs_library
RNG = np.random.default_rng(0)


def numbers(net: gpumlp.MLP, m: int) -> tuple[Any, Any]:
    """Examples: labels if there are several outputs, else 0 or 1, which every loss accepts."""
    x, n = RNG.normal(size=(m, net.widths[0])), net.widths[-1]
    return x, RNG.integers(0, n, m) if n > 1 else RNG.integers(0, 2, (m, 1)).astype(float)


def theta(net: gpumlp.MLP, x: Any, y: Any, size: int, **settings: Any) -> bytes:
    recipes._shared.clear()  # programs that are compiled already
    copied = copy.deepcopy(net)
    trainer = gpumlp.Trainer(copied, batch_size=size, **settings)
    history = trainer.fit(x, y, epochs=2, progress=False)
    return bytes(copied.theta.flat) + np.array(history["cost"]).tobytes()


def alone(works: Any, by_rows: int) -> list[Work]:
    return list(works)


def bits(
    monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, ...], *fit: Any, **settings: Any
) -> set[bytes]:
    """θ after a fit on each of these numbers of threads, with operations together and alone."""
    found = set()
    for threads in numbers:
        monkeypatch.setattr(cpu_backend, "CORES", threads)
        for way in (joining.joined, alone):
            monkeypatch.setattr(cpu_backend, "joined", way)
            found.add(theta(*fit, **settings))
    return found


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The calls of each program that is compiled, with what is done together and alone."""
    counts: list[int] = []

    def noted(works: Any, by_rows: int) -> list[Work]:
        found = joining.joined(works, by_rows)
        counts.append(len(found))
        return found

    monkeypatch.setattr(cpu_backend, "joined", noted)
    return counts


CASES: dict[str, tuple[list[int], int, dict[str, Any]]] = {
    "narrow": ([3, 8, 2], 7, {}),
    "wide": ([20, 300, 300, 5], 96, {}),
    "many rows": ([6, 40, 3], 600, {}),
    "folded": ([20, 300, 300, 5], 96, {"optimizer": "sgd"}),
    "momentum": ([20, 300, 170, 5], 96, {"optimizer": "momentum"}),
    "muon": ([20, 300, 300, 5], 96, {"optimizer": "muon"}),
    "clipped": ([20, 300, 300, 5], 96, {"clip_norm": 0.1}),
    "average": ([20, 300, 300, 5], 96, {"ema": 0.9}),
    "groups": ([20, 300, 300, 5], 96, {"groups": {"last": gpumlp.Group(2.0, 0.5)}}),
    "accumulated": ([20, 300, 300, 5], 96, {"accumulate": 3}),
    "low memory": ([20, 300, 300, 5], 96, {"memory": "low"}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
def test_same_bits(case: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cpu_backend.EMULATE, "1")
    widths, size, settings = CASES[case]
    net = gpumlp.MLP(widths, "gelu", precision=precision, backend="cpu", seed=0)
    x, y = numbers(net, 2 * size + 5)
    assert len(bits(monkeypatch, (1, 3), net, x, y, size, **settings)) == 1


@pytest.mark.parametrize("loss", gpumlp.LOSSES)
@pytest.mark.parametrize("activation", ["relu", "softmax"])
def test_same_bits_with_each_loss(
    loss: str, activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 7 if loss in ("softmax_cross_entropy", "negative_log_likelihood") else 1
    last = "softmax" if loss == "negative_log_likelihood" else "identity"
    net = gpumlp.MLP([9, 260, n], activation, last, loss=loss, backend="cpu", seed=0)
    x, y = numbers(net, 130)
    assert len(bits(monkeypatch, (2,), net, x, y, 64)) == 1


BLOCKS: dict[str, dict[str, Any]] = {
    "layer norm, dropout": {"norm": "layer", "dropout": 0.2, "residual": True},
    "projected skips": {"norm": "rms", "dropout": 0.2, "residual": 2},
    "gated": {"norm": "rms", "gated": "silu", "residual": True},
    "batch norm": {"norm": "batch", "dropout": 0.2, "residual": True},
}


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
def test_same_bits_of_blocks(blocks: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cpu_backend.EMULATE, "1")
    widths, size = [20, 130, 130, 70, 5], 96
    net = gpumlp.MLP(widths, "gelu", precision=precision, backend="cpu", seed=0, **BLOCKS[blocks])
    x, y = numbers(net, 2 * size + 5)
    assert len(bits(monkeypatch, (1, 3), net, x, y, size)) == 1


@pytest.mark.parametrize(
    ("widths", "blocks"),
    [
        ([20, 48, 40, 5], {}),
        ([32, 32, 32, 5], {}),  # W has as many rows as the minibatch
        ([20, 32, 40, 5], BLOCKS["layer norm, dropout"]),
        ([20, 32, 32, 5], BLOCKS["gated"]),
        ([20, 48, 40, 40, 5], BLOCKS["projected skips"]),
    ],
)
def test_a_step_is_few_calls(widths: list[int], blocks: dict[str, Any], counted: list[int]) -> None:
    """The begin, what is done row by row, the products with the update, the end."""
    recipes._shared.clear()
    net = gpumlp.MLP(widths, backend="cpu", **blocks)
    gpumlp.Trainer(net, "adamw", batch_size=32).fit(*numbers(net, 64), epochs=1, progress=False)
    assert counted[0] == 4


def matrix(memory: Any, start: int, columns: int) -> Any:
    return memory[start : start + 4 * columns].reshape(4, columns)


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ((0, 8), (32, 8), True),  # apart
        ((0, 8), (0, 8), True),  # the same rows
        ((0, 8), (0, 4), False),  # a row of one is in other rows of the other one
        ((0, 8), (16, 8), False),
    ],
)
def test_rows_that_share_memory_with_other_rows(
    first: tuple[int, int], second: tuple[int, int], together: bool
) -> None:
    """What one thread writes, another may still have to read."""
    memory = np.zeros(64)

    def work(at: tuple[int, int]) -> Work:
        arguments = matrix(memory, *at), Scratch(100)
        return Work(1, arguments, (RowWise(1, 0, arguments, 4, at[1]),))

    found = joining.joined([work(first), work(second)], 7)
    assert len(found) == (1 if together else 2)
    if together:
        inner = [each for each in found[0].arguments if isinstance(each, Work)]
        assert [each.arguments[1].start for each in inner] == [0, 128]


def test_predictions_in_memory_that_layers_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradients, h of one layer lies where that of the last but one was."""
    net = gpumlp.MLP([9, 200, 90, 200, 3], backend="cpu", seed=0)
    x = RNG.normal(size=(300, 9)).astype(np.float32)
    found = set()
    for threads in (1, 3):
        monkeypatch.setattr(cpu_backend, "CORES", threads)
        for way in (joining.joined, alone):
            monkeypatch.setattr(cpu_backend, "joined", way)
            chunked._shared.clear()
            found.add(copy.deepcopy(net).predict(x).tobytes())
    assert len(found) == 1
