"""Load data sets: the whole, only its features, or piece by piece."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from gpumlp.data.arrays import read_npy, read_npz
from gpumlp.data.dataset import Dataset, Raw, listed
from gpumlp.data.dates import ORDERS
from gpumlp.data.embedded import EMBEDDED
from gpumlp.data.labels import numbers_of, read_target
from gpumlp.data.names import quoted
from gpumlp.data.preparation import Preparation
from gpumlp.data.rows import check_no_totals, check_varies
from gpumlp.data.scratch import Scratch, select_rows
from gpumlp.data.sources import TABLES, Files, find, suffix, why_not
from gpumlp.data.tables import EVERYTHING, Choice, Table
from gpumlp.errors import did_you_mean
from gpumlp.io.chunks import CHUNK_BYTES, chunks
from gpumlp.io.types import HostArray

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

TASKS = ("classification", "regression")
ARRAYS: Mapping[str, Callable[..., Raw]] = MappingProxyType({".npz": read_npz, ".npy": read_npy})


def load(
    source: Source = "mnist5k",
    target: str | None = None,
    task: str | None = None,
    like: Preparation | None = None,
    *,
    categorical: Collection[str] = (),
    drop: Collection[str] = (),
    keep: Collection[str] = (),
    drop_missing_target: bool = False,
    date_order: str | None = None,
    embed: Collection[str] = (),
    scratch: Scratch | None = None,
) -> Dataset:
    """Load a data set with targets.

    Args:
        source: "mnist5k", "digits", "breast_cancer", "diabetes", or a file:
            .csv, .csv.gz, .tsv, .parquet: named columns of numbers, truth values or words; a .csv
            file is UTF-8, its columns are separated by comma, semicolon, tab or |;
            .npz: arrays x (or X) and y (or Y);
            .npy: one table of numbers.
            Several .csv or several .parquet files with the same columns are one table: a sequence
            of files, a folder, or a pattern such as ``"data/*.parquet"``. A sequence keeps its
            order; the files of a folder or pattern are in the order of their names, part-2 before
            part-10.
            Subfolders called key=value give columns.
        target: the column to predict, required for .csv and .parquet; for .npz the name of the
            array (default: y), for .npy the number of the column (default: the last).
        task: "classification" or "regression"; None to decide by the target: words, truth values
            and up to 20 distinct whole numbers are classes, everything else is a value.
        like: the preparation of a trained model. Its features are read, by name from .csv and
            .parquet files and by position from arrays, and its labels are used for the classes.
        categorical: columns of .csv and .parquet files that hold categories although they look like
            numbers, or although they have many different words. Each is a name, or a list of names
            with commas, in which a name with a comma is in quotation marks.
        drop: columns of .csv and .parquet files to leave out.
        keep: columns of these files to keep although they look like row numbers or identifiers,
            which are left out: whole numbers that count the rows, a different word in each row.
        drop_missing_target: leave out the rows without a target, which are an error otherwise.
        date_order: how to read dates such as 03/04/2020: "dmy", "mdy" or "ymd"; None to raise an
            error if no other date of the column decides.
        embed: columns of categories of which `Preparation.of` makes codes. They are kept, also if
            they have very many different words.
        scratch: where large arrays are stored; None for memory.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError, TypeError: the data cannot be used; the message says why and what to do.
        ImportError: a library is missing; the message says what to install.
        OSError: the disk is full.
    """
    if task not in (None, *TASKS):
        raise ValueError(f"unknown task {task!r}; known: {', '.join(TASKS)}")
    if like is not None:
        task, target = like.task, target or like.target
    scratch = scratch or Scratch(stream=False)
    if date_order not in (None, *ORDERS):
        raise ValueError(f"unknown date_order {date_order!r}; known: {', '.join(ORDERS)}")
    choice = Choice(categorical, drop, keep, drop_missing_target, task, date_order, embed)
    name, raw = _read(source, target, like, True, choice, scratch)
    if drop_missing_target:
        raw = _with_target(raw)
        if not len(raw.x):
            raise ValueError(_nothing(name, True))
    dataset = _dataset(name, raw, target, task, like)
    if like is None:
        check_varies(dataset)
        check_no_totals(dataset)
    return dataset


def load_inputs(source: Source, like: Preparation) -> HostArray:
    """Load the features (m, n) that a model takes, from a source as in `load`, without a target.

    Categories are positions in the model's list; unknown ones have the position after the last.
    """
    return _read(source, like.target, like, False, EVERYTHING, Scratch(stream=False))[1].x[:]


def pieces(
    source: Source, like: Preparation, target: str | None = None, *, labelled: bool = True,
    drop_missing_target: bool = False,
) -> Iterator[Dataset]:  # fmt: skip
    """The data set of `load` with a model's preparation, some rows at a time.

    y is empty unless the data is `labelled`. Raises as `load`, when the piece is reached.
    """
    choice = Choice(drop_missing_target=drop_missing_target)
    target = target or like.target
    parts: Iterable[Raw]
    files = _files(source)
    if isinstance(files, Files):
        name, parts = files.name, Table(files, target, like, labelled, choice).pieces()
    else:
        name, raw = _read(source, target, like, labelled, choice, Scratch())
        parts = (
            raw._replace(
                x=raw.x[rows],
                y=None if raw.y is None else raw.y[rows],
                unlabelled=None if raw.unlabelled is None else raw.unlabelled[rows],
            )
            for rows in chunks(raw.x)
        )
    empty = True
    for dataset in _evenly(
        _dataset(name, kept, target, like.task, like)
        for part in parts
        if len((kept := _with_target(part) if drop_missing_target else part).x)
    ):
        empty = False
        yield dataset
    if empty:
        raise ValueError(_nothing(files, drop_missing_target))


def _evenly(parts: Iterable[Dataset]) -> Iterator[Dataset]:
    """The rows of all parts in chunks, wherever the files and their blocks end.

    The last bit of a product may depend on the number of its rows.
    """
    held: list[Dataset] = []
    for part in parts:
        held.append(part)
        if sum(each.x[:].nbytes for each in held) > CHUNK_BYTES:
            whole = _concatenated(held)
            *full, rest = (
                replace(whole, x=whole.x[rows], y=whole.y[rows]) for rows in chunks(whole.x)
            )
            yield from full
            held = [rest]
    if held:
        yield _concatenated(held)


def _concatenated(parts: Sequence[Dataset]) -> Dataset:
    x, y = (np.concatenate(arrays) for arrays in zip(*((p.x[:], p.y) for p in parts), strict=True))
    return replace(parts[0], x=x, y=y)


# ---- reading -------------------------------------------------------------------------------------


def _read(
    source: Source, target: str | None, like: Preparation | None, labelled: bool,
    choice: Choice, scratch: Scratch,
) -> tuple[str, Raw]:  # fmt: skip
    files = _files(source)
    for option in ("categorical", "drop", "keep", "embed"):
        if getattr(choice, option) and not isinstance(files, Files):
            raise ValueError(f"{files} has no columns with names; leave out --{option}")
    name = files.name if isinstance(files, Files) else files
    if files in EMBEDDED:  # and not a file diabetes.csv
        raw = EMBEDDED[name]()
        if target is not None and like is None:
            raise ValueError(f"{name} has a target of its own; leave out --target")
        if like is not None and like.features != raw.features:
            raise ValueError(
                f"{name} has other features than the model takes: {listed(raw.features, 4)}; "
                f"the model's: {listed(like.features, 4)}"
            )
    elif isinstance(files, Files):
        raw = Table(files, target, like, labelled, choice).raw(scratch)
    else:
        features = None if like is None else like.features
        if like is not None and (named := [*like.categories, *like.dates]):
            raise ValueError(
                f"{files} has numbers alone, but the model takes words or dates in "
                f"{listed(map(quoted, named))}; give a .csv or .parquet file"
            )
        raw = ARRAYS[suffix(name)](Path(name), target, features, labelled, scratch)
        name = Path(name).stem
    for count, what in zip(raw.x.shape, ("rows", "feature columns"), strict=True):
        if count == 0:
            raise ValueError(f"{files} has no {what}")
    return name, raw


def _files(source: Source) -> Files | str:
    """The files of a table; or the name of an embedded data set or of a file of arrays."""
    several = isinstance(source, Sequence) and not isinstance(source, str)
    names = [*map(os.fspath, source if several else [source])]  # type: ignore[arg-type]
    if not names:
        raise ValueError("no data is given; give a file, a folder or a pattern")
    name = names[0]
    if len(names) == 1 and (name in EMBEDDED or suffix(name) in ARRAYS):
        if name not in EMBEDDED and not Path(name).is_file():
            raise FileNotFoundError(f"there is no file {name}")
        return name
    for name in names:
        if len(names) > 1 and name in EMBEDDED:
            raise ValueError(f"{name} cannot be one of several files; give it alone")
    if len(names) > 1 or suffix(name) in TABLES or re.search(r"[*?[]", name) or Path(name).is_dir():
        return find(names)
    if name == "-" or Path(name).exists():
        raise ValueError(why_not(name))
    raise ValueError(
        f"unknown data {name!r}; {did_you_mean(name, EMBEDDED)}known: {', '.join(EMBEDDED)}, "
        f"a folder, or a file {', '.join((*TABLES, *ARRAYS))}"
    )


# ---- targets -------------------------------------------------------------------------------------


def _dataset(
    name: str, raw: Raw, target: str | None, task: str | None, like: Preparation | None
) -> Dataset:
    """The contents with labels or values as the target; with none if none were requested."""
    known = None if like is None else like.classes
    task, y, classes = read_target(name, raw, task, known, like is None)
    return Dataset(
        name, task, raw.x, y, raw.features, classes, target, raw.standardize, raw.categories,
        raw.ordered, raw.formats, raw.dates, raw.left_out, raw.zones,
    )  # fmt: skip


def _with_target(raw: Raw) -> Raw:
    """The rows that have a target."""
    if raw.y is None:
        return raw
    there: HostArray = np.ones(len(raw.y), bool)
    if raw.unlabelled is not None:
        there = np.asarray(~raw.unlabelled)
    words, y = raw.words, raw.y
    values = y if words is None or (numbers := numbers_of(words)) is None else numbers[y]
    if values.dtype.kind == "f":  # NaN is not null in a .parquet file
        there = there & np.isfinite(values).reshape(len(y), -1).all(axis=1)
    rows = np.flatnonzero(there)
    y = y[rows]
    if words is not None:
        used, y = np.unique(y, return_inverse=True)
        words = tuple(words[i] for i in used)
    return raw._replace(x=select_rows(raw.x, rows), y=y, words=words)


def _nothing(source: object, drop_missing_target: bool) -> str:
    return f"{source}: no row has a target" if drop_missing_target else f"{source} has no rows"
