"""The program of a trainer's step, explained; also for a GPU that is not there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from gpumlp.backends import Backend
from gpumlp.errors import is_one_of
from gpumlp.step.explain import Explanation, Work, explain
from gpumlp.step.plan import Plan
from gpumlp.step.program import Op
from gpumlp.step.settings import described
from gpumlp.step.training import TrainingStep
from gpumlp.training.memory import Data
from gpumlp.training.stepping import Stepping

if TYPE_CHECKING:
    from gpumlp.backends.cuda.paper import Gpu


def explained(
    trainer: Stepping, x: Any, y: Any, data: str = "auto", device: str | None = None,
    precision: str | None = None, way: str | None = None,
) -> Explanation:  # fmt: skip
    """The explanation that `Trainer.explain` returns."""
    net, settings, gpu = trainer.net, trainer.step_settings(), None
    examples = Data.of(net, x, y, False, data, trainer.at_a_time)
    target = examples.target
    if device is not None:
        precision = precision or net.precision
        gpu, backend = backend_on_paper(device, precision)
        own_type = settings.slot_type != net.backend.dtype
        settings = replace(
            settings,
            net=described(net, backend),
            slot_type=settings.slot_type if own_type else backend.dtype,
            remainder=settings.remainder and backend.keeps_remainder,
        )  # fmt: skip
        target = target if target.kind == "i" else backend.dtype
    elif precision is not None:
        raise ValueError("precision is for a device on paper; pass device, or leave it out")
    tables = trainer.tables(examples, settings.net.backend, target)
    ways = TrainingStep(settings).plans(tables, tables.size, 0 if tables.streams else None)
    if way is not None and not is_one_of(way, ways):
        raise ValueError(f"way must be one of {', '.join(ways)}, got {way!r}")
    planned = ways[way or next(iter(ways))]
    return explain(planned) if gpu is None else on_paper(planned, gpu, str(precision))


def backend_on_paper(device: str, precision: str) -> tuple[Gpu, Backend]:
    """The GPU of that name, see `gpu_named`, and a backend that plans for it and cannot compute."""
    # only here: they take a tenth of the time of `import gpumlp`
    from gpumlp.backends.cuda.backend import CudaBackend
    from gpumlp.backends.cuda.paper import PaperDevice, gpu_named

    gpu = gpu_named(device)
    return gpu, CudaBackend(cast(Any, PaperDevice(gpu)), precision)


def on_paper(planned: Plan, gpu: Gpu, precision: str) -> Explanation:
    """The program with the least times of a GPU in this precision."""

    def cost(op: Op) -> Work:
        updates = op.name == "weight_update"
        return gpu.work(op.products, op.bytes, precision, updates, op.multiprocessors)

    return explain(planned, gpu.name, cost, gpu.gap)
