"""The formats of predictions: lines of CSV, parquet and npy."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np

from gpumlp.data.numbers import NULLS
from gpumlp.io.types import HostArray
from gpumlp.storage import replacing

Classes = tuple[str, ...] | None
Parts = Iterable[HostArray]
DIGITS = 9  # of float32
FORMATTED = 2000  # numbers at a time


def write(
    out: Path, parts: Parts, names: list[str], classes: Classes, digits: int = DIGITS
) -> None:
    """Write parts of probabilities (m, classes) or values (m, k), whole or not at all.

    digits: so many of each number are in a .csv file.
    """
    with replacing(out) as file:
        FORMATS[out.suffix.lower()](file, parts, names, classes, digits)


def columns(classes: Classes, k: int, std: bool) -> list[str]:
    """The names of the columns of a table of predictions of classes, or of k values."""
    if classes:
        return ["prediction", *(f"probability_{name}" for name in classes)]
    kinds = ("prediction", "std") if std else ("prediction",)
    return [kind if k == 1 else f"{kind}_{j}" for kind in kinds for j in range(k)]


def _write_csv(
    file: BinaryIO, parts: Parts, names: list[str], classes: Classes, digits: int
) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    write_lines(text, parts, names, classes, digits)
    text.detach()


def write_lines(
    text: TextIO, parts: Parts, names: list[str], classes: Classes, digits: int
) -> None:
    """Write a line of names, and one for each row of the parts."""
    labels = [_field(name).replace("%", "%%") + "," for name in classes or ()]
    for i, p in enumerate(parts):
        if i == 0:  # after what the first part may raise
            text.write(",".join(map(_field, names)) + "\n")
        step = max(1, FORMATTED // p.shape[1])
        for rows in (p[start : start + step] for start in range(0, len(p), step)):
            text.write(_form(rows, labels, digits) % tuple(rows.ravel().tolist()))


def _form(p: HostArray, labels: list[str], digits: int) -> str:
    """The lines of rows p with a format in place of each number, and their labels, if any."""
    number = f"%.{digits}g"
    forms = [",".join([number] * p.shape[1]) + "\n"] * len(p)
    if labels:
        # all digits of a probability near 1, so that the order of the rows shows
        near = (p > 0.99) & (p < 1)
        for i in np.flatnonzero(near.any(axis=1)):
            forms[i] = ",".join(["%r" if each else number for each in near[i].tolist()]) + "\n"
        forms = [labels[j] + form for j, form in zip(p.argmax(axis=1), forms, strict=True)]
    return "".join(forms)


def _field(text: str) -> str:
    """A text in a .csv file, in quotation marks where it is needed: NA would be a missing value."""
    needed = text in NULLS or re.search('[",\r\n]', text)
    return '"{}"'.format(text.replace('"', '""')) if needed else text


def _write_parquet(
    file: BinaryIO, parts: Parts, names: list[str], classes: Classes, _digits: int
) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    kinds = [pa.string() if classes and i == 0 else pa.float64() for i in range(len(names))]
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for p in parts:
            arrays = [pa.array(column) for column in p.T.copy()]
            if classes:
                arrays.insert(0, pa.array(classes, pa.string()).take(pa.array(p.argmax(axis=1))))
            table = pa.table(arrays, schema)
            writer.write_table(table)
            del p, arrays, table  # before the next part is computed


def _write_npy(
    file: BinaryIO, parts: Parts, names: list[str], classes: Classes, _digits: int
) -> None:
    def write_header(*shape: int) -> None:
        header = {"descr": "<f8", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)

    rows, width = 0, len(names) - bool(classes)  # no labels
    write_header(0, width)  # it reserves space for the number of rows
    for p in parts:
        file.write(np.ascontiguousarray(p, "<f8").data)
        rows += len(p)
        del p  # before the next part is computed
    file.seek(0)
    write_header(rows, width)


FORMATS = {".csv": _write_csv, ".parquet": _write_parquet, ".npy": _write_npy}
