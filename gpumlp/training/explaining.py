"""The program of a trainer's step, explained; also for a GPU that is not there."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, cast

from gpumlp.step.explain import Explanation, explain
from gpumlp.step.settings import described
from gpumlp.step.training import TrainingStep
from gpumlp.training.memory import Data
from gpumlp.training.stepping import Stepping


def explained(
    trainer: Stepping, x: Any, y: Any, data: str, device: str | None, precision: str | None,
    way: str | None,
) -> Explanation:  # fmt: skip
    """The explanation that `Trainer.explain` returns."""
    net, settings, name, seconds = trainer.net, trainer.step_settings(), None, None
    examples = Data.of(net, x, y, False, data, trainer.at_a_time)
    target = examples.target
    if device is not None:
        # only here: they take a tenth of the time of `import gpumlp`
        from gpumlp.backends.cuda.backend import CudaBackend
        from gpumlp.backends.cuda.paper import PaperDevice, gpu_named

        gpu, precision = gpu_named(device), precision or net.precision
        backend = CudaBackend(cast(Any, PaperDevice(gpu)), precision)
        own_type = settings.slot_type != net.backend.dtype
        settings = replace(
            settings, net=described(net.widths, net.f, net.loss, net.regularizer, backend),
            slot_type=settings.slot_type if own_type else backend.dtype,
        )  # fmt: skip
        target = target if target.kind == "i" else backend.dtype
        name, seconds = gpu.name, partial(gpu.seconds, precision=precision)
    elif precision is not None:
        raise ValueError("precision is for a device on paper; pass device, or leave it out")
    tables = trainer.tables(examples, settings.net.backend, target)
    parts = range(1) if tables.streams else range(tables.parts(tables.size))
    ways = TrainingStep(settings).plans(tables, tables.size, parts)
    if way is not None and way not in ways:
        raise ValueError(f"way must be one of {', '.join(ways)}, got {way!r}")
    return explain(ways[way or next(iter(ways))], name, seconds)
