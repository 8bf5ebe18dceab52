"""gpumlp predict: a model's predictions on stdout, or in a .csv, .parquet or .npy file."""

from __future__ import annotations

import contextlib
import csv
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpumlp import data as datasets
from gpumlp.cli import models, output
from gpumlp.cli import options as shared
from gpumlp.cli.options import option, switch
from gpumlp.io.types import HostArray
from gpumlp.storage import replacing

Classes = tuple[str, ...] | None
Write = Callable[[HostArray], None]
ENDINGS = (".csv", ".parquet", ".npy")


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """The options of predict."""

    model: Path = shared.model()
    data: str = shared.new_data()
    out: Path | None = option(
        None, "FILE",
        "File for the predictions: .csv or .parquet, or .npy for the numbers alone.  "
        "[default: CSV on stdout]",
    )  # fmt: skip
    backend: str = shared.backend()
    json: bool = switch("Print a line of JSON for each example, instead of CSV.")


def predict(options: PredictOptions) -> None:
    """Predict every row of a data set.

    For classes, a row holds the predicted label and the probability of each class; for numbers, the
    predicted values.  The data is read and the predictions are written in chunks, so files can be
    larger than memory.
    """
    out = options.out
    if out is not None and out.suffix.lower() not in ENDINGS:
        raise ValueError(f"--out must end in .csv, .parquet or .npy, got {out}")
    net, preparation = models.load(options.model, options.backend)
    unseen, examples = models.UnseenValues(preparation), 0
    as_lines = options.json and out is None
    with writer(out, preparation.classes, as_lines) as write:
        for part in datasets.pieces(options.data, preparation, labelled=False):
            unseen.add(part)
            p = preparation.outputs(net.predict(preparation.inputs(part.x[:])))
            write(p)
            examples += len(p)
    unseen.print()
    if options.json and out is not None:
        output.print_json({"file": str(out), "examples": examples})


@contextlib.contextmanager
def writer(out: Path | None, classes: Classes, as_json: bool = False) -> Iterator[Write]:
    """A function that writes rows of probabilities (m, classes) or values (m, k).

    A file is complete at the end, or unchanged after an error. stdout gets the rows immediately.
    """
    if as_json:
        yield lambda p: _print_json(p, classes)
    elif out is None:
        _check_encoding(classes)
        yield _csv_lines(sys.stdout, classes)
    else:
        kinds = {".csv": _csv, ".parquet": _parquet, ".npy": _npy}
        with replacing(out) as file, kinds[out.suffix.lower()](file, classes) as write:
            yield write


def columns(classes: Classes, width: int) -> list[str]:
    """The names of the columns of a table of predictions."""
    if classes:
        return ["prediction", *(f"probability_{name}" for name in classes)]
    return ["prediction"] if width == 1 else [f"prediction_{j}" for j in range(width)]


def _print_json(p: HostArray, classes: Classes) -> None:
    """Print a line for each example: its label and the probabilities, or its value or values."""
    for row in p.tolist():
        if classes:
            label = classes[row.index(max(row))]
            probabilities = dict(zip(classes, row, strict=True))
            output.print_json({"prediction": label, "probabilities": probabilities})
        else:
            output.print_json({"prediction": row[0] if len(row) == 1 else row})


@contextlib.contextmanager
def _csv(file: BinaryIO, classes: Classes) -> Iterator[Write]:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    yield _csv_lines(text, classes)
    text.flush()
    text.detach()


def _csv_lines(text: Any, classes: Classes) -> Write:
    """Write a line for each example: its label and the probabilities, or its value or values."""
    rows = csv.writer(text, lineterminator="\n")
    begun = False  # whether the head of the table was written

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
    """The header reserves space for the number of rows, which is known only at the end."""
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
        if name.encode(encoding, "replace").decode(encoding) != name:  # ? would replace a letter
            raise ValueError(f"the class {name!r} cannot be written in {encoding}; use --out FILE")
