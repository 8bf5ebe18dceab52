"""What `Trainer.explain` and `gpumlp train --plan` say is what a step does."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.backends.cuda.paper import GPUS
from tests.support.cli_cases import run
from tests.support.harness.host_device import HostDevice
from tests.support.refusal import refusal

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(64, 6)), RNG.integers(0, 3, 64)


def trainer(backend: Any = "numpy", **settings: Any) -> gpumlp.Trainer:
    net = gpumlp.MLP([6, 8, 16, 3], "gelu", backend=backend)
    return gpumlp.Trainer(net, batch_size=16, **settings)


def test_lines_are_the_products_of_a_step() -> None:
    device = HostDevice()
    ours = trainer(CudaBackend(device, "float32"))
    ours.fit(X, Y, 1, progress=False)
    last = max(i for i, call in enumerate(device.calls) if call.startswith("replay"))
    done = [call.split() for call in device.calls[last:] if call.startswith("gemm")]
    flops = [2 * int(m) * int(n) * int(k) for _, _, m, n, k, *_ in done]
    assert [line.flops for line in ours.explain(X, Y).lines if line.flops] == flops


@pytest.mark.parametrize("memory", ["normal", "low"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_arena_is_that_of_the_memory_plan(memory: str, accumulate: int) -> None:
    ours = trainer(memory=memory, accumulate=accumulate)
    explained = ours.explain(64)
    assert explained.arena == ours.memory(64).step
    assert max(at + size for _, at, size, _, _ in explained.buffers) <= explained.arena
    assert explained.device is None
    assert explained.to_dict()["seconds"] is None


def test_table_has_a_row_for_each_operation() -> None:
    explained = trainer().explain(X, Y)
    lines = str(explained).splitlines()
    assert lines[0].split() == ["operation", "result", "shape", "MFLOP", "MB", "memory", "stream"]
    assert [line.split()[0] for line in lines[1:-1]] == [each.operation for each in explained.lines]
    assert lines[-1] == repr(explained).splitlines()[-1] == explained.summary()
    assert "µs" not in str(explained)


def test_least_time_of_a_device_by_hand() -> None:
    """Of each operation, the slower of its bytes and its FLOPs; on one stream, their sum."""
    explained = trainer().explain(64, device="a100", precision="float32", way="sequential")
    gpu = GPUS["a100"]
    want = [
        max(line.bytes / gpu.bandwidth, line.flops / gpu.peak["float32"])
        for line in explained.lines
    ]
    assert [line.seconds for line in explained.lines] == pytest.approx(want)
    assert explained.seconds == pytest.approx(sum(want))
    assert explained.summary().endswith(f"{1e6 * sum(want):,.1f} µs on NVIDIA A100 SXM 80 GB")


@pytest.mark.parametrize("precision", ["float64", "float32", "tf32", "bfloat16", "float16"])
def test_step_of_a_gpu_is_explained_without_it(precision: str) -> None:
    """It is the program that a CUDA backend of this precision has."""
    net = gpumlp.MLP([6, 8, 16, 3], "gelu", backend=CudaBackend(HostDevice(), precision))
    there = gpumlp.Trainer(net, batch_size=16, ema=0.9)
    paper = trainer(ema=0.9).explain(64, device="h100", precision=precision)
    real = there.explain(64)
    assert [(a.operation, a.bytes, a.place) for a in paper.lines] == [
        (b.operation, b.bytes, b.place) for b in real.lines
    ]
    clipped = precision == "float16"  # the loss scale needs the norm
    assert ("clip" in [line.operation for line in paper.lines]) == clipped


def test_shapes_of_a_gpu_are_those_of_the_layers_and_not_of_relus_bits() -> None:
    relu = gpumlp.Trainer(gpumlp.MLP([6, 8, 16, 3], "relu", backend="numpy"), batch_size=16)
    lines = relu.explain(64, device="h100", precision="bfloat16").lines
    shapes = [line.shape for line in lines if line.operation == "affine_activation"]
    assert shapes == [(16, 8), (16, 16), (16, 3)]


def test_branches_take_less_time_where_one_multiplies_and_another_moves_bytes() -> None:
    net = gpumlp.MLP([512, 512, 512, 8], "gelu", backend="numpy")
    wide = gpumlp.Trainer(net, batch_size=4096)
    names = ("sequential", "branched", "branched, early update", "branched, update in products")
    ways = [wide.explain(8192, way=w, device="h100", precision="bfloat16") for w in names]
    seconds = [way.seconds for way in ways]
    assert sorted(seconds, reverse=True) == seconds
    assert seconds[3] < seconds[0]
    assert ways[1].arena == ways[0].arena
    assert [{line.stream for line in way.lines} for way in ways] == [{0}, {0, 1}, {0, 1, 2}, {0, 1}]


def test_invalid_arguments_raise() -> None:
    ours = trainer()
    refusal(
        ValueError, lambda: ours.explain(64, device="h10"),
        "unknown device 'h10'; did you mean 'h100'? known: a100, h100, h200, or a .json file",
    )  # fmt: skip
    refusal(
        ValueError, lambda: ours.explain(64, way="fast"),
        "way must be one of sequential, got 'fast'",
    )  # fmt: skip
    refusal(
        ValueError, lambda: ours.explain(64, precision="bfloat16"),
        "precision is for a device on paper; pass device, or leave it out",
    )  # fmt: skip
    refusal(ValueError, lambda: ours.explain(0), "x must be at least 1, got 0")


def test_figure_has_a_bar_for_each_operation_and_buffer(tmp_path: Any) -> None:
    explained = trainer().explain(64, device="h100", precision="tf32", way="branched")
    figure = explained.plot(tmp_path / "s.png")
    streams, memory = figure.axes
    assert len(streams.collections) == len(explained.lines)
    assert len(memory.collections) == len(explained.buffers)
    assert [label.get_text() for label in streams.get_yticklabels()] == ["stream 0", "stream 1"]
    assert (tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG"
    assert trainer().explain(64).plot().axes[0].get_xlabel() == "operation"


def test_command_line_plans_a_step(tmp_path: Any) -> None:
    arguments = ["train", "digits", "--hidden", "32", "--plan", "--out", tmp_path / "o", "-q"]
    shown = run(*arguments).stdout
    assert "the optimizer's state" in shown
    assert "hidden_gradient" in shown
    more = ["--device", "h100", "--precision", "bfloat16", "--plan-plot", tmp_path / "p.png"]
    found = json.loads(run(*arguments, *more, "--json").stdout)["step"]
    assert found["device"] == "NVIDIA H100 SXM"
    assert found["operations"][0]["operation"] == "begin"
    assert found["seconds"] > 0
    assert (tmp_path / "p.png").exists()
    assert not (tmp_path / "o").exists()
