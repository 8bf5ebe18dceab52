"""The time and memory of `gpumlp.data.load` for a CSV file, beside those of polars.read_csv.

    python -m benchmarks.reading [--gigabytes 1] [--rounds 3] [--folder DIR] [--write]

The file has 20 columns of numbers, 5 of words and a target. Files of a tenth of the size have the
same table as programs write it, or damage it: their times are compared with that of the clean one.
Each reading has a process of its own; its time is without imports. Rounds alternate. --write
stores the figures in results/. Linux only.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.output import write

ROWS = 20_000  # that are written at once
WORDS = np.array(["alpha", "beta", "gamma delta", "x"])
READ = """
import re, sys, time
name, path = sys.argv[1:]
if name == "polars":
    import polars
    read = polars.read_csv
else:
    import pyarrow.compute, pyarrow.csv, pyarrow.parquet
    from gpumlp.data import load
    pyarrow.array([0])  # it imports pandas, if that is there
    read = lambda path: load(path, "y")
start = time.perf_counter()
data = read(path)
seconds = time.perf_counter() - start
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
print(len(data), seconds, int(peak) / 1e3)
"""
KINDS = {  # what is replaced in the rows, one after the other
    "clean": (),
    "doubled marks": ((b",alpha,", b',"alpha",'), (b",beta,", b',"be ""ta""",')),
    "stray marks": ((b",gamma delta,", b',5" gamma,'),),
    "quoted line breaks": ((b",gamma delta,", b',"gamma\ndelta",'),),
    "CR LF": ((b"\n", b"\r\n"),),
    "CR": ((b"\n", b"\r"),),
    "mixed line ends": ((b"1\n", b"1\r\n"), (b"0\n", b"0\r")),
    "blank lines": ((b"1\n", b"1\n\n"),),
    "byte order mark": (),
    "trailing separators": ((b"\n", b",\n"),),
}


def write_file(path: Path, kind: str, size: float) -> None:
    """A file of about `size` bytes: the same rows again and again."""
    rng = np.random.default_rng(0)
    x, words = rng.normal(size=(ROWS, 20)), rng.choice(WORDS, (ROWS, 5))
    names = [*(f"n{j}" for j in range(20)), *(f"w{j}" for j in range(5)), "y"]
    lines = [
        ",".join([*map(repr, x[i].tolist()), *words[i], str(int(x[i, 0] > 0))]) for i in range(ROWS)
    ]
    head, rows = f"{','.join(names)}\n".encode(), ("\n".join(lines) + "\n").encode()
    for old, new in KINDS[kind]:
        rows = rows.replace(old, new)
        head = head.replace(old, new)
    with path.open("wb") as file:
        file.write(b"\xef\xbb\xbf" * (kind == "byte order mark") + head)
        while file.tell() < size:
            file.write(rows)


def read(reader: str, path: Path) -> tuple[int, float, float]:
    """Rows, seconds and the peak memory in MB of a process that reads the file."""
    command = [sys.executable, "-c", READ, reader, str(path)]
    rows, seconds, peak = subprocess.run(
        command, check=True, capture_output=True, text=True
    ).stdout.split()
    return int(rows), float(seconds), float(peak)


def compare(readings: dict[str, tuple[str, Path]], rounds: int) -> dict[str, dict[str, Any]]:
    """The median seconds and the peak memory of each reading, in alternating rounds."""
    found: dict[str, list[tuple[int, float, float]]] = {name: [] for name in readings}
    for _ in range(rounds):
        for name, reading in readings.items():
            found[name].append(read(*reading))
    return {
        name: {
            "rows": runs[0][0],
            "seconds": statistics.median(run[1] for run in runs),
            "resident_mb": max(run[2] for run in runs),
        }
        for name, runs in found.items()
    }


def main() -> None:
    """Write the files, read them, print, and store the figures if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--write", action="store_true", help="store the figures")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        path = Path(name) / "large.csv"
        write_file(path, "clean", asked.gigabytes * 1e9)
        large = compare({who: (who, path) for who in ("polars", "gpumlp")}, asked.rounds)
        path.unlink()
        ratio = large["polars"]["seconds"] / large["gpumlp"]["seconds"]
        print(f"{asked.gigabytes:g} GB: {ratio:.2f} of polars' speed; {large}", flush=True)
        files = {kind: ("gpumlp", Path(name) / f"{i}.csv") for i, kind in enumerate(KINDS)}
        for kind, (_, each) in files.items():
            write_file(each, kind, asked.gigabytes * 1e8)
        kinds = compare(files, asked.rounds)
    for kind, figures in kinds.items():
        figures["times_clean"] = figures["seconds"] / kinds["clean"]["seconds"]
        print(f"{kind}: {figures['rows']:,} rows, {figures['times_clean']:.2f} of the clean file")
    results = {"gigabytes": asked.gigabytes, "of_polars_speed": ratio, **large, "kinds": kinds}
    write("reading", results)


if __name__ == "__main__":
    main()
