"""The least time of a step on a GPU on paper, beside estimates of torch.compile's step there.

    python -m benchmarks.roofline [--write]

Assumptions about the GPU, an H100 whose numbers are stated below and not measured:

- 3.0 TB/s; 700 TFLOP/s in bfloat16, 600 at minibatch 1,024; 1.5 microseconds between operations.
- An operation multiplies while it moves its bytes, and moves each array once. So activations and
  their gradients cost what their products cost, where those are in epilogues.
- Operations on different streams share the two rates without loss. This is what products that leave
  multiprocessors to the update come close to; no GPU has shown it.
- A product that makes the optimizer's step multiplies at 0.95 of the rate of another one. 0.8 and
  0.65 are also printed, because published rates of cuTile's products are 0.52 to 0.79 of cuBLAS's.

torch.compile's steps are estimates for the same GPU: the same products and activations one after
the other, and an update of 40 bytes a parameter (AMP) or 14 bytes (bfloat16 parameters).  --write
writes benchmarks/results/roofline.json.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

import gpumlp
from benchmarks.output import write
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.backends.cuda.paper import Gpu, PaperDevice
from gpumlp.backends.cuda.source import dtype_of
from gpumlp.step.settings import described
from gpumlp.step.training import TrainingStep
from gpumlp.training.explaining import on_paper

WIDTHS = (8192,) * 9
PEERS = {8192: (45.4, 40.8), 4096: (26.3, 21.6), 1024: (12.7, 8.0)}  # ms: AMP, bfloat16 parameters
BARS = {8192: (0.85, 0.97), 4096: (0.80, 0.95), 1024: (0.70, 0.95)}
RATES = (1.0, 0.95, 0.8, 0.65)  # of the products that make the optimizer's step
STATED = 0.95
HALF = {"slot_type": dtype_of("bfloat16")}
KINDS: dict[str, dict[str, Any]] = {  # of the update; its 28, 20 and 18 bytes a parameter
    "": {}, ", 16-bit state": HALF, ", 16-bit state and remainder": HALF | {"remainder": True},
}  # fmt: skip


def stated(m: int, update_rate: float) -> Gpu:
    """The H100 of the assumptions, for minibatches of m examples."""
    peak = {"half": 700e12 if m > 1024 else 600e12}
    return Gpu("H100, stated", "9.0", 132, 3.0e12, peak, gap=1.5e-6, update_rate=update_rate)


def times(m: int) -> dict[str, float]:
    """Milliseconds of each way to do a step on m examples."""
    small = gpumlp.MLP([1] * len(WIDTHS), "gelu", backend="numpy")
    trainer = gpumlp.Trainer(small, "adamw", batch_size=m)
    backend = CudaBackend(cast(Any, PaperDevice(stated(m, 1.0))), "bfloat16")
    net = described(SimpleNamespace(**{**vars(small), "widths": WIDTHS}), backend)
    settings = replace(trainer.step_settings(), net=net)
    data = type("Data", (), {
        "x": np.broadcast_to(np.zeros((), backend.storage), (m, WIDTHS[0])),
        "y": np.broadcast_to(np.int32(0), (m,)), "target": np.dtype(np.int32),
        "streamed": (False, False), "weights": None,
    })  # fmt: skip
    found = {}
    for kind, changes in KINDS.items():
        plans = TrainingStep(replace(settings, **changes)).plans
        for name, planned in plans(trainer.tables(data, backend), m).items():
            within = "products" in name
            for rate in RATES if within else (1.0,):
                seconds = on_paper(planned, stated(m, rate), "bfloat16").seconds
                found[(f"{name}, rate {rate}" if within else name) + kind] = 1e3 * seconds
    return found


def rows() -> list[dict[str, Any]]:
    """The results for each size of a minibatch."""
    found = []
    for m, (amp, half) in PEERS.items():
        ours = times(m)
        best = ours[f"branched, update in products, rate {STATED}"]
        found.append({
            "batch_size": m, "milliseconds": ours, "torch.compile, AMP": amp,
            "torch.compile, bfloat16 parameters": half, "of AMP": best / amp,
            "of bfloat16 parameters": best / half, "bars": BARS[m],
        })  # fmt: skip
    return found


def main() -> None:
    """Print the table; see the module."""
    results = rows()
    for row in results:
        print(f"minibatch {row['batch_size']}:")
        for name, ms in row["milliseconds"].items():
            print(
                f"  {name:52} {ms:6.2f} ms, {ms / row['torch.compile, AMP']:.2f} of AMP, "
                f"{ms / row['torch.compile, bfloat16 parameters']:.2f} of bfloat16 parameters"
            )
    if "--write" in sys.argv:
        write("roofline", {"device": "H100 on paper, no GPU has run it", "rows": results})


if __name__ == "__main__":
    main()
