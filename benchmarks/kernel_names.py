"""The kernels of one training step on a GPU, by name, with their times: what cuBLAS really runs.

    python -m benchmarks.kernel_names [activation] [width] [layers] [minibatch] [precision]

It prints JSON. The step runs operation by operation, with epilogues wherever they are possible,
under the profiler of torch, which sees the kernels of the whole process. A product with an epilogue
that has no kernel of its own on Hopper shows as `cutlass_80…`, or with a second kernel
(`globalKernel`) after it.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict

from gpumlp.backends.cuda import open_device
from gpumlp.bench.cases import Case
from gpumlp.bench.peers import Problem
from gpumlp.bench.peers.gpumlp_peer import untuned


def main() -> None:
    """Profile the second eager step, after one that compiles kernels and plans products."""
    import torch

    activation, width, layers, m, precision = (
        sys.argv[1:] + ["relu", "8192", "3", "4096", "bfloat16"][len(sys.argv) - 1 :]
    )
    tuner = open_device().tuner
    tuner.comparing, tuner._fuses = False, lambda gemm: True
    widths = (int(width),) * (int(layers) + 1)
    case = Case("names", widths, int(m), activation, "adamw", precision)
    step = untuned(Problem(case, "cupy"))
    step.run()  # call by call: compiles and plans
    step.synchronize()
    again = untuned(Problem(case, "cupy"))  # its first step is eager, too
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        again.run()
        again.synchronize()
    found: dict[str, list[float]] = defaultdict(list)
    for event in profile.events():
        found[event.name].append(float(event.device_time_total))
    kernels = [
        {"name": name, "launches": len(times), "microseconds": sum(times)}
        for name, times in sorted(found.items(), key=lambda item: -sum(item[1]))
    ]
    print(json.dumps({"case": str(case), "kernels": kernels}, indent=1))


if __name__ == "__main__":
    main()
