"""Predictions, written as they come: to stdout, or into a .csv, .parquet or .npy file."""

from __future__ import annotations

import contextlib
import csv
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpumlp.io.types import HostArray
from gpumlp.storage import replacing

Classes = tuple[str, ...] | None
Write = Callable[[HostArray], None]
ENDINGS = (".csv", ".parquet", ".npy")


def check(out: Path | None) -> None:
    """Raise where the file's ending says of no format."""
    if out is not None and out.suffix.lower() not in ENDINGS:
        raise ValueError(f"--out must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}, got {out}")


@contextlib.contextmanager
def writer(out: Path | None, classes: Classes) -> Iterator[Write]:
    """What takes rows of probabilities (m, classes), or values (m, k), and writes them.

    A file is whole at the end, or as it was before; stdout has what was written so far.
    """
    if out is None:
        _check_encoding(classes)
        yield _lines(sys.stdout, classes)
        return
    kinds = {".csv": _csv, ".parquet": _parquet, ".npy": _npy}
    with replacing(out) as file, kinds[out.suffix.lower()](file, classes) as write:
        yield write


def columns(classes: Classes, width: int) -> list[str]:
    """The names of the columns of a table of predictions."""
    if classes:
        return ["prediction", *(f"probability_{name}" for name in classes)]
    return ["prediction"] if width == 1 else [f"prediction_{j}" for j in range(width)]


@contextlib.contextmanager
def _csv(file: BinaryIO, classes: Classes) -> Iterator[Write]:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    yield _lines(text, classes)
    text.flush()
    text.detach()


def _lines(text: Any, classes: Classes) -> Write:
    """One line an example: its label and each class's probability, or its value (or values)."""
    rows = csv.writer(text, lineterminator="\n")
    begun = False

    def write(p: HostArray) -> None:
        nonlocal begun
        if not begun:
            rows.writerow(columns(classes, p.shape[1]))
            begun = True
        labels = [[classes[label]] for label in p.argmax(axis=1)] if classes else [[]] * len(p)
        rows.writerows(
            [*label, *(f"{value:.9g}" for value in row)]
            for label, row in zip(labels, p.tolist(), strict=True)
        )

    return write


@contextlib.contextmanager
def _parquet(file: BinaryIO, classes: Classes) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet

    with contextlib.ExitStack() as stack:
        table: Any = None

        def write(p: HostArray) -> None:
            nonlocal table
            arrays = [pa.array(column) for column in p.T.copy()]
            if classes:
                names = pa.array(classes, pa.string())
                arrays.insert(0, names.take(pa.array(p.argmax(axis=1))))
            rows = pa.table(arrays, columns(classes, p.shape[1]))
            if table is None:
                made = pyarrow.parquet.ParquetWriter(file, rows.schema)
                table = stack.enter_context(made)
            table.write_table(rows)

        yield write


@contextlib.contextmanager
def _npy(file: BinaryIO, classes: Classes) -> Iterator[Write]:
    """The header leaves space for the number of rows, which is known at the end."""
    shape: list[int] = []

    def header() -> None:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": tuple(shape)}
        )

    def write(p: HostArray) -> None:
        if not shape:
            shape[:] = [0, p.shape[1]]
            header()
        file.write(np.ascontiguousarray(p, "<f8").data)
        shape[0] += len(p)

    yield write
    file.seek(0)
    header()


def _check_encoding(classes: Classes) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    for name in classes or ():
        if name.encode(encoding, "replace").decode(encoding) != name:  # a ? would stand for another
            raise ValueError(f"the class {name!r} cannot be written in {encoding}; use --out FILE")
