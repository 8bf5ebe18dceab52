"""The memory of `gpumlp train` for files that should not be held in memory.

    python -m benchmarks.large_files [--gigabytes 2] [--columns 120] [--kinds csv,parquet,npy,npz]
        [--folder DIR] [--write]

First it trains on a file of 50 MB of each kind, with --stream and with --no-stream. θ must be the
same, bit for bit. Then it writes a file of 2 GB of each kind, trains on it for an epoch, evaluates
and predicts, and deletes the file. Twenty times a second it reads the memory of the process from
/proc:

    resident: all memory (VmHWM). Pages of mapped files count, though the system can free them.
        `/usr/bin/time -v` calls it the maximum.
    anonymous: memory that only the process itself can free (RssAnon).

Both are also given without the memory of a process that only imports what training imports; the
other commands import less. The resident memory over the imports should stay under 1 GB.

--write stores the figures in results/. Linux only.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

import gpumlp
from benchmarks.output import write

ROWS = 20_000  # rows that are written at once
WORDS = np.array(["red", "green", "blue", "grey"])
IMPORTS = (
    "import gpumlp.cli.app, gpumlp.plots.training, pyarrow.csv, pyarrow.parquet, "
    "safetensors.numpy, tqdm, matplotlib.pyplot, sklearn.model_selection, time; time.sleep(1)"
)
STEPS = ("train", "evaluate", "predict")
COMMAND = Path(sys.executable).with_name("gpumlp")


def pieces(columns: int, seed: int = 0) -> Any:
    """Endless pieces of a table: numbers, words, missing values, and a target to learn."""
    rng = np.random.default_rng(seed)
    slope = rng.normal(size=columns - 2) / np.sqrt(columns)
    while True:
        x = rng.normal(size=(ROWS, columns - 2)).astype(np.float32)
        word = rng.integers(0, len(WORDS), ROWS)
        y = (x @ slope + 0.3 * word + 0.1 * rng.normal(size=ROWS)).astype(np.float32)
        missing = rng.random(ROWS) < 0.01
        yield x, word, y, missing


def table(x: Any, word: Any, y: Any, missing: Any) -> pa.Table:
    """A piece as a table. Its first column has missing values."""
    numbers = {f"x{j}": pa.array(x[:, j].astype(np.float64)) for j in range(1, x.shape[1])}
    first = pa.array(x[:, 0].astype(np.float64), mask=missing)
    return pa.table({"x0": first, **numbers, "word": pa.array(WORDS[word]), "y": pa.array(y)})


def write_npz(path: Path, size: float, columns: int) -> int:
    """An .npz file of about `size` bytes; returns its rows."""
    m = int(size // (4 * columns)) // ROWS * ROWS
    y = np.empty(m, np.float32)
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("x.npy", "w", force_zip64=True) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (m, columns - 2)}
            np.lib.format.write_array_header_1_0(file, header)
            for start, (x, _, target, _) in zip(range(0, m, ROWS), pieces(columns), strict=False):
                file.write(x.data)
                y[start : start + ROWS] = target
        with archive.open("y.npy", "w") as file:
            np.lib.format.write_array(file, y)
    return m


def write_file(path: Path, size: float, columns: int) -> int:
    """A file of about `size` bytes; returns its rows."""
    if path.suffix == ".npz":
        return write_npz(path, size, columns)
    rows = 0
    with path.open("wb") as file:
        writer: Any = None
        for x, word, y, missing in pieces(columns):
            if path.suffix == ".npy":
                if rows == 0:
                    m = int(size // (4 * columns)) // ROWS * ROWS
                    header = {"descr": "<f4", "fortran_order": False, "shape": (m, columns)}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(np.column_stack([x, word, y]).astype("<f4").tobytes())
            else:
                piece = table(x, word, y, missing)
                if writer is None and path.suffix == ".csv":
                    writer = pyarrow.csv.CSVWriter(file, piece.schema)
                elif writer is None:
                    writer = pyarrow.parquet.ParquetWriter(file, piece.schema)
                writer.write_table(piece)
            rows += ROWS
            if path.suffix == ".npy" and rows == m:
                break
            if path.suffix != ".npy" and file.tell() >= size:
                writer.close()
                break
    return rows


def watched(command: list[Any]) -> dict[str, float]:
    """Run a command; returns its seconds and its peak memory in MB."""
    anonymous = resident = 0.0
    start = time.perf_counter()
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL) as process:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            found = dict(re.findall(r"^(\w+):\s+(\d+) kB", status.read_text(), re.MULTILINE))
            anonymous = max(anonymous, float(found.get("RssAnon", 0)))
            resident = max(resident, float(found.get("VmHWM", 0)))
            time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "anonymous_mb": anonymous / 1e3, "resident_mb": resident / 1e3}


def train(path: Path, out: Path, *more: str) -> list[Any]:
    """The command that trains on a file."""
    target = ["--target", "y"] if path.suffix in (".csv", ".parquet") else []
    options = ["--hidden", "32", "--epochs", "1", "--batch-size", "256", "--quiet"]
    return [COMMAND, "train", path, *target, *options, "--backend", "numpy", "--out", out, *more]


def same(folder: Path, kind: str, size: float, columns: int) -> bool:
    """Whether θ is the same when the data is streamed and when it is in memory."""
    path = folder / f"small.{kind}"
    write_file(path, size, columns)
    thetas = []
    for option in ("--stream", "--no-stream"):
        subprocess.run(train(path, folder / option, option), check=True, stdout=subprocess.DEVNULL)
        net = gpumlp.MLP.load(folder / option / "model.safetensors", "numpy")
        thetas.append(net.theta.flat.tobytes())
    path.unlink()
    return thetas[0] == thetas[1]


def measure(
    folder: Path, kind: str, size: float, columns: int, base: dict[str, float]
) -> dict[str, Any]:
    """Memory and seconds of train, evaluate and predict on a large file."""
    path, out = folder / f"large.{kind}", folder / "out"
    rows = write_file(path, size, columns)
    found: dict[str, Any] = {"rows": rows, "columns": columns, "bytes": path.stat().st_size}
    found["train"] = watched(train(path, out))
    for step, more in (("evaluate", []), ("predict", ["--out", out / "p.parquet"])):
        command = [COMMAND, step, out / "model.safetensors", path, *more, "--backend", "numpy"]
        found[step] = watched(command)
    path.unlink()
    for step in STEPS:
        for what in ("resident", "anonymous"):
            found[step][f"{what}_over_imports_mb"] = found[step][f"{what}_mb"] - base[f"{what}_mb"]
    return found


def main() -> None:
    """Compare θ, measure memory, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--columns", type=int, default=120)
    parser.add_argument("--kinds", default="csv,parquet,npy,npz")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--write", action="store_true", help="store the figures")
    asked = parser.parse_args()
    base = watched([sys.executable, "-c", IMPORTS])
    results: dict[str, Any] = {"imports": base, "files": {}}
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        for kind in asked.kinds.split(","):
            equal = same(folder, kind, min(50e6, asked.gigabytes * 1e9), asked.columns)
            if not equal:
                raise RuntimeError(f"{kind}: with --stream, θ differs from θ with --no-stream")
            found = measure(folder, kind, asked.gigabytes * 1e9, asked.columns, base)
            results["files"][kind] = {"same_theta_at_50_mb": equal, **found}
            figures = ", ".join(
                f"{step} {found[step]['resident_over_imports_mb']:.0f} MB over the imports, "
                f"{found[step]['anonymous_over_imports_mb']:.0f} MB of it anonymous, "
                f"{found[step]['seconds']:.0f} s"
                for step in STEPS
            )
            print(
                f"{kind}, {found['bytes'] / 1e9:.2f} GB, {found['rows']:,} rows: {figures}",
                flush=True,
            )
    write("large_files", results)


if __name__ == "__main__":
    main()
