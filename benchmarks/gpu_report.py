"""What needs a GPU, in parts of at most 8 minutes: tests, sanitizers, kernels, benchmarks.

    python -m benchmarks.gpu_report FOLDER [STAGE ...]      # or: make gpu

What decides most comes first, so that a GPU that is lent for half an hour gives an answer. A stage
that fails does not stop the others, and each can run alone: FOLDER keeps what earlier runs found.
It gets a log of each stage, its outcome and figures as JSON, gpu.json with all of them (to be kept
in benchmarks/results/), and summary.md, whose first table has every bar, its figure, and whether it
is met. The exit status is 1 if a stage failed. It runs in any Python that has gpumlp with the
extras test and cuda13 (or cuda12), and torch, jax and optax for the comparison.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bars import AMP, BF16, FLOOR, GRAPH, KERNELS, PRODUCTS, SANITIZED
from benchmarks.stages import FAILED, ROOT, Stage, run_all

PYTHON = sys.executable
LIMIT = 8 * 60.0  # seconds of a stage, because a command on a lent GPU often has 10 minutes
MINUTES = 7  # of a benchmark, which then ends by itself

# Each array has its own allocation, so that the sanitizer knows where it ends. The pool of CuPy
# would place it in a larger allocation.
UNPOOLED = (
    "import sys, cupy, pytest; cupy.cuda.set_allocator(None); sys.exit(pytest.main(sys.argv[1:]))"
)
# a warning of a newer NumPy or Python is no failure
PYTEST = [PYTHON, "-m", "pytest", "-q", "-ra", "-W", "default", "-p", "no:benchmark"]
UPDATE = "float32 and (update or gradient or shapes or column_total)"
WIDE, SMALL = ",".join(9 * ["8192"]), ",".join(5 * ["512"])


def stages(out: Path) -> list[Stage]:
    """All stages, in the order in which they run."""
    half = ["--precision", "bfloat16"]
    return [
        # half an hour: does it run, is it right, and how fast is it?
        Stage("info", [PYTHON, "-m", "gpumlp", "info"], 120),
        Stage("smoke", [*PYTEST, "-x", "tests/gpu/test_products.py"], 180),
        on_gpu("step", "step", "networks", "rates", "memory"),
        *(
            tune(f"tune-{activation}-{m}", WIDE, m, activation, *half)
            for activation, m in (("gelu", 4096), ("relu", 4096), ("gelu", 1024))
        ),
        tune("tune-small", SMALL, 256, "relu"),
        *(printed(f"names-{f}", "kernel_names", f) for f in ("relu", "gelu")),
        kernels(out, "kernels", "update or activation", MB=512),
        # the same in arrays that a cache holds: few columns, and many
        kernels(out, "kernels-narrow", "activation", MB=4, COLS=256),
        kernels(out, "kernels-square", "activation", MB=128, COLS=8192),
        bench(out, "bench-4096", "wide", 9, FLOOR, AMP, BF16, m=4096, cold=False),
        bench(out, "bench-launch", "launch", 15, FLOOR, AMP, GRAPH),
        sanitizer("memcheck", "update", ["activation", "loss", "theta"], UPDATE),
        # the other bars
        bench(out, "bench-1024", "wide", 9, FLOOR, AMP, BF16, m=1024, cold=False),
        bench(out, "bench-8192", "wide", 9, FLOOR, AMP, BF16, m=8192, cold=False),
        bench(out, "bench-sgd", "wide", 9, FLOOR, AMP, m=1024, cold=False, optimizer="sgd"),
        bench(out, "bench-products", "wide", 9, FLOOR, PRODUCTS, m=2048, cold=False),
        bench(out, "bench-first-step", "wide", 2, FLOOR, m=1024),
        kernels(out, "other-kernels", "not (update or activation)", MB=512),
        on_gpu("rest", "torch", "streaming", "ensembles"),
        on_gpu("distributed", "distributed"),
        Stage(
            "ensembles",
            [PYTHON, "-m", "benchmarks.ensembles", "--gpu", "--save", f"{out / 'ensembles'}.json"],
            LIMIT,
        ),
        *(on_gpu(part, f"kernels.py::test_kernels[{part}]") for part in KERNELS),
        *(sanitizer(*each.split("-"), [each.split("-")[1]], "float32") for each in SANITIZED),
        printed("accuracy", "half_precision"),
        # suspicions: tuning with a cold cache misleads small networks; the update is slower in
        # bfloat16 than in float32; and, above, gelu's derivative has no kernel for sm_90
        printed("cold-cache", "cold_cache"),
        kernels(out, "float32-kernels", "update or activation", PRECISION="float32", MB=512),
        kernels(out, "products", "", file="products", WIDTH=8192, ROWS=4096, TUNE=1),
        # the remaining peers
        bench(out, "bench-launch-peers", "launch", 9),
        bench(out, "bench-4096-peers", "wide", 5, "torch.compile flashoptim", "jax", m=4096),
    ]  # fmt: skip


def on_gpu(name: str, *words: str) -> Stage:
    """Files of tests/gpu, or one test of a file."""
    paths = [f"tests/gpu/test_{word}" + ".py" * ("::" not in word) for word in words]
    return Stage(f"tests-{name}", [*PYTEST, *paths], LIMIT)


def tune(name: str, widths: str, m: int, activation: str, *more: str) -> Stage:
    """Each product with its epilogue and without: which epilogues have kernels of their own?"""
    command = [PYTHON, "-m", "gpumlp", "tune", "--json", "--again", "--widths", widths]
    command += ["--batch-size", str(m), "--activation", activation, "--optimizer", "adamw", *more]
    return Stage(name, command, LIMIT, prints_json=True)


def printed(name: str, module: str, *arguments: str) -> Stage:
    """A program of this folder that prints JSON."""
    command = [PYTHON, "-m", f"benchmarks.{module}", *arguments]
    return Stage(name, command, LIMIT, prints_json=True)


def kernels(
    out: Path, name: str, only: str, *, file: str = "kernels", **settings: str | int
) -> Stage:
    """A suite of pytest-benchmark in bfloat16. settings: of `benchmarks.suite`, and GPUMLP_TUNE."""
    chosen = ["-k", only] if only else []
    command = [PYTHON, "-m", "pytest", "-q", "-ra", "-W", "default", *chosen]
    command += [f"benchmarks/test_{file}.py", f"--benchmark-json={out / name}.json"]
    tuned = {"GPUMLP_TUNE": "1"} if settings.pop("TUNE", 0) else {}
    given = {"BACKEND": "cupy", "PRECISION": "bfloat16"} | settings
    environment = {f"GPUMLP_BENCH_{key}": str(value) for key, value in given.items()}
    return Stage(name, command, LIMIT, environment | tuned)


def bench(
    out: Path, name: str, case: str, rounds: int, *peers: str, m: int = 0, cold: bool = True,
    optimizer: str = "",
) -> Stage:  # fmt: skip
    """A part of `gpumlp bench` with these peers, or with all. It continues where it stopped."""
    command = [PYTHON, "-m", "gpumlp", "bench", "--backend", "cupy", "--case", case]
    command += ["--minutes", str(MINUTES), "--rounds", str(rounds)]
    for option, value in (("batch-size", m), ("optimizer", optimizer), ("peers", ",".join(peers))):
        command += [f"--{option}", str(value)] if value else []
    command += [] if cold else ["--no-cold"]
    files = ["--out", f"{out / name}", "--resume", "--save", f"{out / name}.json"]
    return Stage(name, [*command, *files, "--plot", f"{out / name}.png"], LIMIT)


def sanitizer(tool: str, part: str, files: Sequence[str], only: str) -> Stage:
    """compute-sanitizer over tests of kernels, on the GPU, without products."""
    return Stage(
        f"{tool}-{part}",
        [
            find_sanitizer(), *f"--tool {tool} --error-exitcode 86".split(),
            *(PYTHON, "-c", UNPOOLED),
            *["-q", "-W", "default", "-p", "no:benchmark", "-p", "no:xdist", "-k", only],
            *[f"tests/kernels/test_{file}.py" for file in files],
        ],
        LIMIT,
        # one function of each kind and one order: this checks the loops, not the mathematics
        {"GPUMLP_KERNELS": "device", "GPUMLP_SANITIZE": "thread"},
        "compute-sanitizer: it is part of the CUDA toolkit; put it on the PATH or set CUDA_PATH",
    )  # fmt: skip


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
