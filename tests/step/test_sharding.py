"""The program of a step of several processes: when buckets are sent, and what waits for them."""

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.distributed import World
from gpumlp.distributed.transport import offsets
from gpumlp.step import sharding
from gpumlp.training.memory import Data
from tests.support.harness.host_device import HostDevice
from tests.support.memory_cases import LABELS, X, check, on_harness

MAIN, PRODUCTS, SIDE = 0, 1, 2  # streams


class OneOfTwo:
    """Rank 0 of two processes, of which the other sends the same; its transfers are complete."""

    rank, size, local_rank, broken = 0, 2, 0, ()

    def exchange(self, source, counts, received):
        received[:] = source[: counts[0]]
        return self

    def gather(self, whole, counts):
        own, other = (whole[piece] for piece in offsets(counts))
        other[:] = own if own.size == other.size else 0
        return self

    def broadcast(self, array):
        return self

    def done(self):
        return True


@pytest.fixture
def planned(monkeypatch):
    """The first way to do a step with a bucket for each W, of one shard or two a process."""
    monkeypatch.setattr(sharding, "BUCKET", 64)

    def first_way(count, **settings):
        backend = CudaBackend(HostDevice(), "float32")
        net = gpumlp.MLP([7, 33, 40, 33, 3], "gelu", precision="float32", backend=backend, seed=0)
        world = World(OneOfTwo())
        trainer = gpumlp.Trainer(net, batch_size=16, world=world, shards=count, **settings)
        tables = trainer.tables(Data.of(net, 100, None, False, "auto", trainer.at_a_time))
        return next(iter(trainer._step.plans(tables, 16).values()))

    return first_way


def gradients_of(program, send):
    """The positions of the operations that write what an exchange sends."""
    source = send["source"]
    return [
        i for i, each in enumerate(program) for b in each.writes
        if each.name == "weight_gradient" and b.root is source.root
        and source.start <= b.start < source.start + source.size
    ]  # fmt: skip


def test_a_bucket_is_sent_when_its_gradients_are_there(planned):
    program = planned(2).program
    sent = {i: each for i, each in enumerate(program) if each.name == "exchange"}
    of_weights = [(i, gradients_of(program, each)) for i, each in sent.items()][:-1]
    assert [len(written) for _, written in of_weights] == [1, 1, 1, 1]
    assert all(i == written[0] + 1 for i, written in of_weights)


@pytest.mark.parametrize("settings", [{}, {"ema": 0.9}, {"clip_norm": 1.0}])
def test_the_backward_pass_does_not_wait_for_what_is_sent(planned, settings):
    plan = planned(2, **settings)
    for each, waits in zip(plan.program, plan.waits(), strict=True):
        if each.name in ("hidden_gradient", "weight_gradient", "add"):
            assert all(plan.program[i].stream != SIDE for i in waits), each
        if each.name == "exchange":
            assert each.stream == SIDE
            after = [i for i in waits if plan.program[i].stream == PRODUCTS]
            assert after == gradients_of(plan.program, each)


def test_what_is_sent_has_the_memory_of_one_bucket(planned):
    plan = planned(4)
    (received,) = [b for b in plan.places if b.name == "received"]
    sizes = [each["received"].size for each in plan.program if each.name == "exchange"]
    assert received.size == max(sizes)


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize(
    "settings", [{}, {"ema": 0.9, "clip_norm": 1.0, "accumulate": 2}, {"optimizer": "muon"}]
)
def test_planned_memory_of_one_process_equals_the_allocated_bytes(settings, count, precision):
    device, net = on_harness(precision)
    trainer = gpumlp.Trainer(
        net, **{"optimizer": "adamw"} | settings, batch_size=32, world=World(OneOfTwo()),
        shards=count,
    )  # fmt: skip
    asked = {"x": X, "y": LABELS, "validation": (X[:33], LABELS[:33]), "early_stopping": 2}
    check(device, trainer, asked | {"train_metric": True})


def test_the_norm_of_a_gradient_does_not_depend_on_the_threads_of_blas():
    """Processes and members of an ensemble have other numbers of threads than a training alone."""
    limits = pytest.importorskip("threadpoolctl").threadpool_limits
    backend, found = gpumlp.get_backend("numpy", "float64"), set()
    for seed in range(8):
        g, total = np.random.default_rng(seed).standard_normal(60_000), np.zeros(1)
        for count in (1, 2, 3):
            with limits(count):
                none = gpumlp.REGULARIZERS["none"]
                backend.square_sum(none, np.zeros_like(g), g, len(g), np.ones(4), total)
            found.add((seed, total[0]))
    assert len(found) == 8
