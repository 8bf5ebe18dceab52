"""gpumlp predict: a model's predictions on stdout, or in a .csv, .parquet or .npy file.

Evaluate also gets the parts of its data here.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import typer

from gpumlp import data as datasets
from gpumlp.cli import options as shared
from gpumlp.cli import output, streams
from gpumlp.cli.models import Model, load_model, members
from gpumlp.cli.options import option, switch
from gpumlp.cli.predictions import DIGITS, FORMATS, Classes, Parts, columns, write, write_lines
from gpumlp.data import Dataset, Preparation
from gpumlp.data.columns import FEWEST_ROWS
from gpumlp.data.dataset import listed
from gpumlp.data.names import quoted
from gpumlp.ensemble import Ensemble
from gpumlp.io.types import HostArray


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """The options of predict."""

    model: Path = shared.model()
    data: list[str] = shared.new_data()
    out: Path | None = option(
        None, "FILE",
        "File for the predictions: .csv or .parquet, or .npy for the numbers alone.  "
        "[default: CSV on stdout]",
    )  # fmt: skip
    std: bool = switch(
        "--std",
        "Add the standard deviation of the networks' predictions, for numbers and a model of train "
        "--models.",
    )
    backend: str = shared.backend()
    json: bool = switch("--json", "Print a line of JSON for each example, instead of CSV.")


def predict(options: PredictOptions) -> None:
    """Predict every row of a data set.

    For classes, a row holds the predicted label and the probability of each class; for numbers, the
    predicted values.  An ensemble of train --models predicts the mean of its networks.  The data is
    read and the predictions are written in chunks, so files can be larger than memory.
    """
    out = options.out
    if out is not None and out.suffix.lower() not in FORMATS:
        raise ValueError(f"--out must end in .csv, .parquet or .npy, got {out}")
    name, path = ("--out", out) if out is not None else ("stdout", Path("/dev/stdout"))
    read = {"the data": options.data, "the model": options.model}
    output.check_outputs({f"{name} {path}": path}, read)
    output.check_apart(f"{name} {path}", path, options.data)
    net, preparation = load_model(options.model, options.backend)
    classes, examples = preparation.classes, 0
    outputs = outputs_and_spread if options.std else mean_outputs
    if options.std:
        _check_std(net, classes)
    names = columns(classes, net.widths[-1], options.std)

    def predictions() -> Iterator[HostArray]:
        nonlocal examples
        for _, x in prepared_parts(options.data, preparation, net, labelled=False):
            streams.check_stdout()
            with np.errstate(over="ignore", invalid="ignore"):
                p = outputs(net, preparation, x)
            check_outputs(p, examples)
            yield p
            examples += len(x)

    if out is not None:
        write(out, predictions(), names, classes, _digits(preparation))
        if options.json:
            output.print_json({"file": str(out), "examples": examples})
    elif options.json:
        _print_json(predictions(), classes, options.std)
    else:
        encoding = sys.stdout.encoding or "utf-8"
        for name in classes or ():
            if name.encode(encoding, "replace").decode(encoding) != name:  # ? for a letter
                raise ValueError(
                    f"the class {name!r} cannot be written in {encoding}; use --out FILE"
                )
        write_lines(sys.stdout, predictions(), names, classes, _digits(preparation))


def _digits(preparation: Preparation) -> int:
    """As many digits of a predicted number as show all that the network computed."""
    if preparation.y_shift is None or preparation.y_scale is None:
        return DIGITS
    largest = np.max(np.abs(preparation.y_shift) / np.array(preparation.y_scale))
    return min(17, max(DIGITS, DIGITS - 1 + math.ceil(math.log10(max(largest, 1)))))


def _check_std(net: Model, classes: Classes) -> None:
    """Raise ValueError unless --std has numbers of several networks."""
    if classes is not None:
        raise ValueError(
            "--std is for models that predict numbers, and this one predicts classes, whose "
            "probabilities say how sure it is; leave out --std"
        )
    if not isinstance(net, Ensemble) or len(net.whole) == 1:
        raise ValueError(
            "--std needs a model of several networks, and this is a single one; leave out --std, "
            "or train with --models 8"
        )


def mean_outputs(net: Model, preparation: Preparation, x: HostArray) -> HostArray:
    """Probabilities (m, classes) or values (m, k), float64, for the network's inputs x (m, n_0)."""
    if preparation.classes is None:
        return preparation.outputs(net.predict(x))
    p: HostArray = np.exp(net.loss.log_probabilities(net.forward(x)))
    return p


def outputs_and_spread(net: Model, preparation: Preparation, x: HostArray) -> HostArray:
    """`mean_outputs`, and beside them the standard deviation of the members' values, (m, 2 k)."""
    each = [member.predict(x) for member in members(net)]
    p = sum(each[1:], each[0]) / len(each)  # as `Ensemble.predict`
    spread = np.std([preparation.outputs(one) for one in each], axis=0)
    return np.hstack([preparation.outputs(p), spread])


def check_outputs(p: HostArray, start: int) -> None:
    """Raise ValueError if an output p (m, n) is not finite, for row `start` and those after it."""
    bad = np.flatnonzero(~np.isfinite(p).all(axis=1))
    if len(bad):
        raise ValueError(
            f"the model's output for row {start + bad[0] + 1} is not a number: its values are far "
            "from those of the training data; correct or remove the row"
        )


def prepared_parts(
    data: Sequence[str], preparation: Preparation, net: Model, **chosen: Any
) -> Iterator[tuple[Dataset, HostArray]]:
    """The parts of a data set that `data.pieces` yields if `chosen`, with the network's inputs.

    Raises ValueError if an input is beyond the network's dtype, as a training does.
    At the end, print on stderr which columns have values of a kind that the training data did not
    have: the model can only guess what they mean.
    """
    unseen, rows = np.zeros(len(preparation.features), np.int64), 0
    words, n, others = preparation.layout.words
    known = strange = np.zeros(len(words), np.int64)
    for part in datasets.pieces(data, preparation, **chosen):
        unseen += preparation.unseen_counts(part.x[:])
        known = known + (part.x[:][:, words] < n).sum(axis=0)
        strange = strange + (part.x[:][:, words] >= n).sum(axis=0)
        x = preparation.inputs(part.x[:])
        _check_range(x, preparation, net, rows)
        rows += len(x)
        yield part, x
    counts = zip(preparation.features, unseen.tolist(), strict=True)
    columns = [f"{quoted(name)} ({count})" for name, count in counts if count]
    if columns:
        what = "columns with values of a kind that the training data did not have"
        typer.echo(f"{what}: {listed(columns)}", err=True)
    lost = words[(known == 0) & (strange >= FEWEST_ROWS) & (n > 0) & (others > 0)]
    if columns := [quoted(preparation.features[j]) for j in lost.tolist()]:
        what = "columns in which no value is one of the model's categories"
        typer.echo(f"{what}: {listed(columns)}", err=True)


def _check_range(x: HostArray, preparation: Preparation, net: Model, start: int) -> None:
    kind = net.backend.storage if net.backend.storage.kind == "f" else np.dtype(np.float32)
    outside = ~(np.abs(x) <= np.finfo(kind).max)
    outside[:, [*preparation.embed]] = False  # codes are float32 in every network
    bad = np.argwhere(outside)
    if len(bad):
        row, column = bad[0].tolist()
        raise ValueError(
            f"row {start + row + 1} has {x[row, column]:g} as the input "
            f"{preparation.columns[column]!r} ({len(bad)} such values), beyond the network's "
            f"{net.backend.storage}; correct or remove the row"
        )


def _print_json(parts: Parts, classes: Classes, std: bool) -> None:
    for row in chain.from_iterable(p.tolist() for p in parts):
        if classes:
            label = classes[row.index(max(row))]
            probabilities = dict(zip(classes, row, strict=True))
            output.print_json({"prediction": label, "probabilities": probabilities})
            continue
        k = len(row) // (1 + std)
        values = {"prediction": row[:k], **({"std": row[k:]} if std else {})}
        output.print_json({name: each[0] if k == 1 else each for name, each in values.items()})
