"""Everything that needs a GPU, in one command: tests, sanitizers, kernels and a short benchmark.

    python -m benchmarks.gpu_report FOLDER [STAGE ...]      # or: make gpu

A stage that fails does not stop the others. FOLDER gets a log of each stage, the JSON files and
plots of the benchmarks, report.json with the outcome of each stage, and summary.md to read. The
exit status is 1 if a stage failed. It runs in any Python that has gpumlp with the extras test and
cuda13 (or cuda12).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.stages import FAILED, ROOT, Stage, run_all

PYTHON = sys.executable
MINUTES = 8  # for each stage of the benchmark, because GPUs are often lent for 10 minutes

KERNELS = [f"tests/kernels/test_{n}.py" for n in ("activation", "loss", "theta", "gather", "empty")]
# Each array has its own allocation, so that the sanitizer knows where it ends. The pool of CuPy
# would place it in a larger allocation.
UNPOOLED = (
    "import sys, cupy, pytest; cupy.cuda.set_allocator(None); sys.exit(pytest.main(sys.argv[1:]))"
)


def stages(out: Path) -> list[Stage]:
    """All stages. Those that fail soonest come first."""
    pytest = [PYTHON, "-m", "pytest", "-q", "-ra"]
    bench = [PYTHON, "-m", "gpumlp", "bench", "--backend", "cupy", "--minutes", str(MINUTES)]
    limit = 60.0 * (MINUTES + 2)

    def short(name: str, *options: str) -> Stage:
        files = [
            "--out", f"{out / name}", "--resume", "--save", f"{out / name}.json",
            "--plot", f"{out / name}.png",
        ]  # fmt: skip
        return Stage(name, [*bench, *options, *files], limit)

    timings = ["benchmarks/test_kernels.py", "benchmarks/test_products.py"]
    return [
        Stage("info", [PYTHON, "-m", "gpumlp", "info"], 120),
        Stage("tests", [*pytest, "-p", "no:benchmark", "tests/gpu"], 1800),
        sanitizer("memcheck"),
        sanitizer("racecheck"),
        Stage(
            "kernels",
            [*pytest, *timings, f"--benchmark-json={out / 'kernels.json'}"],
            limit,
            {"GPUMLP_BENCH_BACKEND": "cupy"},
        ),
        short("bench-short", "--case", "small,launch"),
        short("bench-wide", "--case", "wide", "--no-cold"),
        short(
            *("bench-sgd", "--case", "wide", "--batch-size", "1024", "--optimizer", "sgd"),
            *("--peers", "floor,torch.compile", "--no-cold"),
        ),
    ]


def sanitizer(tool: str) -> Stage:
    """compute-sanitizer over the tests of the kernels in float32, on the GPU, without products."""
    program = find_sanitizer()
    return Stage(
        tool,
        [
            program,
            *f"--tool {tool} --error-exitcode 86".split(),
            *(PYTHON, "-c", UNPOOLED),
            *["-q", "-p", "no:benchmark", "-p", "no:xdist", "-k", "float32"],
            *KERNELS,
        ],
        1200,
        # one function of each kind and one order: this checks the loops, not the mathematics
        {"GPUMLP_KERNELS": "device", "GPUMLP_SANITIZE": "thread"},
        "compute-sanitizer: it is part of the CUDA toolkit; put it on the PATH or set CUDA_PATH",
    )


def find_sanitizer() -> str:
    """Path of compute-sanitizer, from the PATH or the folder of CUDA; "" if it is not found."""
    roots = [os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    places = [Path(r) / f for r in roots if r for f in ("bin", "compute-sanitizer")]
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, places)])
    return shutil.which("compute-sanitizer", path=path) or ""


def no_gpu() -> str:
    """Why no stage can run, in one line; "" if there is a GPU."""
    program = (
        "import gpumlp, gpumlp.backends.cuda\n"
        "try: gpumlp.backends.cuda.open_device()\n"
        "except gpumlp.DeviceError as error: print(error); raise SystemExit(3)"
    )
    done = subprocess.run(
        [PYTHON, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return ""
    lines = (done.stdout if done.returncode == 3 else done.stderr).strip().splitlines()
    return lines[-1] if lines else f"opening the GPU ended with status {done.returncode}"


def main(arguments: Sequence[str]) -> int:
    """Run all stages, or those that are named; returns the exit status."""
    if not arguments or arguments[0].startswith("-"):
        print("usage: python -m benchmarks.gpu_report FOLDER [STAGE ...]", file=sys.stderr)
        return 2
    out, names = Path(arguments[0]).absolute(), list(arguments[1:])
    all_stages = {stage.name: stage for stage in stages(out)}
    unknown = [name for name in names if name not in all_stages]
    if unknown:
        print(f"no stage {unknown[0]!r}; there are: {', '.join(all_stages)}", file=sys.stderr)
        return 2
    reason = no_gpu()
    if reason:
        print(f"make gpu: nothing was run: {reason}", file=sys.stderr)
        return 1
    chosen = [all_stages[name] for name in names or all_stages]
    outcomes = run_all(chosen, out, lambda line: print(line, flush=True))
    print(f"{out / 'summary.md'}")
    return int(any(outcome.status == FAILED for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
