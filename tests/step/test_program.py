"""Programs: what the book's loops ask for, planned in one arena, and changed by passes."""

from __future__ import annotations

from inspect import isfunction, signature
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.backends.cuda.paper import GPUS, PaperDevice
from gpumlp.parameters import Layout
from gpumlp.step import passes
from gpumlp.step.plan import Plan, plan
from gpumlp.step.program import Buffer, Op, Program
from gpumlp.step.settings import described
from gpumlp.step.training import TrainingStep

FLOAT = np.dtype(np.float32)
BY_ROWS = "affine_activation", "output_gradient", "hidden_gradient"


def planned(
    widths: tuple[int, ...] = (6, 8, 7, 3), f: Any = "gelu", m: int = 12, *,
    precision: str = "float32", on_gpu: bool = False, **settings: Any,
) -> dict[str, Plan]:  # fmt: skip
    """The ways to do a step on m examples; nothing as large as the network is allocated."""
    of_theta = "float64" if precision == "float64" else "float32"
    small = gpumlp.MLP([1] * len(widths), f, backend="numpy", precision=of_theta)
    trainer = gpumlp.Trainer(small, batch_size=m, **settings)
    backend = CudaBackend(PaperDevice(GPUS["h100"]), precision) if on_gpu else small.backend
    net = described(SimpleNamespace(**{**vars(small), "widths": widths}), backend)
    of_trainer = vars(trainer.step_settings()) | {"net": net}
    step = TrainingStep(type(trainer.step_settings())(**of_trainer))
    data = type("Data", (), {
        "x": np.broadcast_to(FLOAT.type(0), (2 * m, widths[0])),
        "y": np.broadcast_to(np.int32(0), (2 * m,)), "target": np.dtype(np.int32),
        "streamed": (False, False), "weights": None,
    })  # fmt: skip
    tables = trainer.tables(data, backend)
    return step.plans(tables, m)


def names(program: Program) -> str:
    """The operations, abbreviated."""
    short = {
        "affine_activation": "F", "output_gradient": "O", "hidden_gradient": "H",
        "weight_gradient": "W", "activation": "R", "update": "U", "gather": "g",
    }  # fmt: skip
    return " ".join(short.get(op.name, op.name) for op in program)


def test_step_is_the_loops_between_begin_and_end() -> None:
    assert names(planned()["sequential"].program) == "begin g g F F F O H W H W W U end"
    accumulated = names(planned(accumulate=2)["sequential"].program)
    part = "g g F F F O H W H W W add"
    assert accumulated == f"begin {part} {part} U end"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"clip_norm": 1.0, "ema": 0.9}, "begin g g F F F O H W H W W clip U average end"),
        ({"optimizer": "sgd"}, "begin g g F F F O H W H W W U end"),
        ({"optimizer": "momentum"}, "begin g g F F F O H W H W W U U end"),
        ({"optimizer": "muon"},
         "begin g g F F F O H W H W W U U orthogonalize orthogonalize U end"),
        ({"memory": "low", "widths": (6, 64, 64, 64, 3)},
         "begin g g F F F F O H W H R W H R W W U end"),
    ],
)  # fmt: skip
def test_passes_of_settings(settings: dict[str, Any], expected: str) -> None:
    found = planned(**settings)["sequential"].program
    assert names(found) == expected


def batches(**settings: Any) -> list[Op]:
    program = planned(optimizer="muon", **settings)["sequential"].program
    return [op for op in program if op.name == "orthogonalize"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_neighbours_of_equal_shape_are_orthogonalized_together_on_a_gpu(precision: str) -> None:
    """The rows of V start where the W of these layers start, also where W has padding."""
    widths = (6, 9, 9, 9, 512, 512, 512, 9, 9, 3)
    found = batches(widths=widths, on_gpu=True, precision=precision)
    assert [op["X"].shape for op in found] == [
        (1, 9, 6), (2, 9, 9), (1, 512, 9), (2, 512, 512), (1, 9, 512), (1, 9, 9),
    ]  # fmt: skip
    layout = Layout(widths, 2 if precision == "bfloat16" else np.dtype(precision).itemsize)
    starts, size = layout.starts, layout.size
    rows = [op["V"].start + i * op["V"].shape[1] for op in found for i in range(len(op["V"]))]
    assert [start % size for start in rows] == starts[:8]
    for op in found:
        assert op["A"].shape == op["P"].shape == (len(op["V"]), *2 * [min(op["X"].shape[1:])])
    one, two = (next(op for op in found if op["X"].shape == (K, 9, 9)) for K in (1, 2))
    assert two.flops == 2 * one.flops == 2 * 5 * 3 * 2 * 9**3


def test_batches_have_bounded_buffers() -> None:
    """Up to 256 MiB of X, A and P; large layers and hosts, and memory="low", have single ones."""
    assert [len(op["V"]) for op in batches(widths=(4, *9 * [2048], 3), on_gpu=True)] == [1, 5, 3]
    assert [len(op["V"]) for op in batches(widths=(4, *4 * [4096], 3), on_gpu=True)] == 4 * [1]
    single = [(1, 9, 6), (1, 9, 9), (1, 9, 9)]
    for settings in ({}, {"on_gpu": True, "memory": "low"}):
        found = batches(widths=(6, 9, 9, 9, 3), **settings)
        assert [op["X"].shape for op in found] == single


def test_weight_gradients_come_last_where_rows_are_done_one_by_one() -> None:
    """Threads are then at different operations: no buffer of these shares its memory."""
    (way,) = planned((6, 40, 40, 40, 3)).values()
    loops = Program(op for op in way.program if op.name in (*BY_ROWS, "weight_gradient"))
    assert passes.weight_gradients_last(loops, flops=1000) is loops
    moved = passes.weight_gradients_last(loops, flops=1 << 28)
    assert names(moved) == "F F F F O H H H W W W W"
    by_rows = [op for op in moved if op.by_rows]
    assert [op.name for op in by_rows] == [op.name for op in loops if op.name in BY_ROWS]
    lying = plan(moved)
    used = {b.root for op in by_rows for b in op.buffers.values()} & lying.places.keys()
    assert len(used) > 8
    for one, other in combinations(used, 2):
        apart = lying.places[one] - lying.places[other]
        assert apart >= other.nbytes or -apart >= one.nbytes


def test_every_pass_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "step.md").read_text(encoding="utf-8")
    found = [
        name for name, each in vars(passes).items()
        if name[0] != "_" and isfunction(each) and each.__module__ == passes.__name__
        and signature(each).return_annotation == "Program"
    ]  # fmt: skip
    assert len(found) > 6
    assert [name for name in found if f"| `{name}` |" not in page] == []


def test_folded_weight_gradients_write_the_weights() -> None:
    program = planned(optimizer="sgd")["sequential"].program
    weights = [op for op in program if op.name == "weight_gradient"]
    assert [op["dW"].root.name for op in weights] == ["θ"] * 3
    (update,) = [op for op in program if op.name == "update"]
    assert update["theta"].start == update["split"] + update["theta"].start  # biases only
    assert update["dtheta"].name == "∇b"


def test_flops_are_those_of_the_products() -> None:
    widths, m = (6, 8, 7, 3), 12
    program = planned(widths, m=m)["sequential"].program
    pairs = list(zip(widths[1:], widths, strict=False))
    forward = sum(2 * m * a * b for a, b in pairs)
    below = sum(2 * m * a * b for a, b in pairs[1:])
    assert sum(op.flops for op in program) == 2 * forward + below


# ---- the plan ------------------------------------------------------------------------------------


CASES: list[dict[str, Any]] = [
    {}, {"f": "relu"}, {"accumulate": 3}, {"optimizer": "muon"}, {"memory": "low"},
    {"optimizer": "muon", "on_gpu": True, "widths": (6, 9, 9, 9, 64, 64, 64, 3)},
    {"widths": (6, 3)}, {"widths": (5, 33, 2, 64, 7, 1, 9, 3), "memory": "low"},
    {"on_gpu": True, "f": "relu", "precision": "float32", "widths": (6, 8, 16, 8)},
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_buffers_that_live_at_the_same_time_do_not_overlap(case: dict[str, Any]) -> None:
    for found in planned(**case).values():
        buffers = list(found.places)
        for b in buffers:
            assert found.places[b] % 256 == 0
            assert found.places[b] + b.nbytes <= found.size
        for i, a in enumerate(buffers):
            for b in buffers[i + 1 :]:
                (first, last), (begin, end) = found.lifetimes[a], found.lifetimes[b]
                apart = (
                    found.places[a] + a.nbytes <= found.places[b]
                    or found.places[b] + b.nbytes <= found.places[a]
                )
                assert apart or last < begin or end < first


def test_inputs_and_kept_buffers_stay() -> None:
    """What is read first is there from the beginning, and what is kept to the end."""
    z, h, out = (Buffer(name, (64,), FLOAT) for name in ("z", "h", "out"))
    program, f = Program(), gpumlp.ACTIVATIONS["silu"]
    program.activation(f, z, h)
    program.activation(f, h, out)
    found = plan(program, [h])
    assert found.lifetimes == {z: (-1, 0), h: (0, 2), out: (1, 1)}
    assert found.size == 512  # out lies where z was
    assert plan(program).size == 512


@pytest.mark.parametrize("memory", ["normal", "low"])
@pytest.mark.parametrize("f", ["relu", "gelu"])
@pytest.mark.parametrize(
    ("widths", "m"), [((784, 1024, 1024, 10), 256), ((8192,) * 9, 4096), ((64, 128, 128, 10), 64)]
)
def test_arena_is_smaller_than_an_array_for_each_name(
    widths: tuple[int, ...], m: int, f: str, memory: str
) -> None:
    """At most 0.95 of x, y, each h and z, and two gz or, for memory="low", three buffers."""
    layers, hidden = widths[1:], widths[1:-1]
    kept = sum(widths) + (sum(hidden) if f == "gelu" else 0) + max(layers[::2]) + max(layers[1::2])
    if f == "gelu" and memory == "low":
        kept += max(hidden) - sum(hidden)
    separate = 4 * m * kept + 4 * m
    assert planned(widths, f, m, memory=memory)["sequential"].size <= 0.95 * separate


# ---- streams -------------------------------------------------------------------------------------


def test_streams_wait_for_what_they_need_and_no_more() -> None:
    found = planned(on_gpu=True, f="tanh")["branched, early update"]
    waiting = [
        (op.name, op.stream, after)
        for op, after in zip(found.program, found.waits(), strict=True)
        if op.stream or after
    ]
    assert waiting == [
        ("weight_gradient", 1, (6,)),  # gz_3 is the output gradient
        ("update", 2, (7, 8)),  # the hidden gradient has read W_3, and ∇W_3 is there
        ("hidden_gradient", 0, (8,)),  # gz_1 lies where gz_3 was
        ("weight_gradient", 1, (7,)),
        ("update", 2, (10, 11)),
        ("weight_gradient", 1, (10,)),
        ("update", 2, (3, 13)),
    ]  # the update of the biases waits for nothing


def test_clipped_step_has_no_early_update() -> None:
    ways = planned((2048,) * 4, m=2048, on_gpu=True, clip_norm=1.0)
    assert list(ways) == ["sequential", "branched"]


@pytest.mark.parametrize(
    ("widths", "m", "default"),
    [
        ((512,) * 5, 256, "branched"),  # 4 × 2 tiles, and 4 × 4 of ∇W, for 132 multiprocessors
        ((784, 256, 256, 10), 8192, "branched"),
        ((1500,) * 4, 1500, "sequential"),  # 12 × 12
        ((8192,) * 3 + (10,), 8192, "sequential"),  # only the output layer is narrow
    ],
)
def test_branches_are_the_default_where_products_leave_multiprocessors_idle(
    widths: tuple[int, ...], m: int, default: str
) -> None:
    ways = planned(widths, m=m, on_gpu=True)
    assert {"branched", "branched, early update", "sequential"} < set(ways)
    assert next(iter(ways)) == default
