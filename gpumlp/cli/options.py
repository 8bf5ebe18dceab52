"""The options that commands share: types, help and what a shell completes.

An option of one command alone stands in its file.  It is added there and in the signature; --config
takes it as a key from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

import gpumlp
from gpumlp.cli import config
from gpumlp.data import EMBEDDED, IMPUTE, TASKS
from gpumlp.training.groups import NAMES as GROUPS


def _one_of(names: Iterable[str]) -> str:
    return ", ".join(names)


def listed(text: str | None) -> list[str]:
    """The parts of "a,b"."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def completing(names: Iterable[str]) -> Callable[[str], list[str]]:
    """What an Option's `autocompletion` takes: the names that go on from what is typed.

    Of a list with commas the last part is completed.
    """
    known = list(names)

    def complete(incomplete: str) -> list[str]:
        done, comma, last = incomplete.rpartition(",")
        return [f"{done}{comma}{name}" for name in known if name.startswith(last)]

    return complete


def named(names: Iterable[str], help: str, *flags: str, **settings: Any) -> Any:
    """An option that takes one of these names."""
    return Option(*flags, help=help, autocompletion=completing(names), **settings)


DATA = f"{_one_of(EMBEDDED)}, or a .csv, .parquet, .npz or .npy file."
DECAYING = [name for name, rule in gpumlp.OPTIMIZERS.items() if "weight_decay" in rule.params]
PRECISIONS = ("float64", "float32", "tf32", "bfloat16", "float16")

Data = Annotated[str, Argument(help=DATA, autocompletion=completing(EMBEDDED))]
DataToUse = Annotated[
    str,
    Argument(
        metavar="DATA",
        help=f"{DATA} Its features must be the model's.",
        autocompletion=completing(EMBEDDED),
    ),
]
Config = Annotated[
    Path | None,
    Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=config.apply,
        help="Options from a TOML file, a key for each, such as batch-size = 128; `data` is DATA.  "
        "What the command line says goes first.  Paths are relative to where the command runs.",
    ),
]
Model = Annotated[Path, Argument(metavar="MODEL", help="A model.safetensors of `gpumlp train`.")]
ModelToTune = Annotated[
    Path | None, Argument(metavar="MODEL", help="A model.safetensors, in place of --widths.")
]
Target = Annotated[
    str | None,
    Option(
        metavar="COLUMN",
        help="What to predict: a column of a .csv or .parquet file; an array of an .npz file "
        "(y if left out); a column's number of an .npy file (the last).",
    ),
]
Task = Annotated[
    str | None, named(TASKS, "classification or regression; if left out, the target decides.")
]
Hidden = Annotated[
    str, Option(metavar="WIDTHS", help="Widths of the hidden layers, or none for a linear model.")
]
Activation = Annotated[
    str, named(gpumlp.ACTIVATIONS, f"Of the hidden layers: {_one_of(gpumlp.ACTIVATIONS)}.")
]
Loss = Annotated[
    str | None,
    named(
        gpumlp.LOSSES,
        f"{_one_of(gpumlp.LOSSES)}.  If left out, softmax_cross_entropy for classes, "
        "squared_error for values.",
    ),
]
LabelSmoothing = Annotated[float | None, Option(help="Of softmax_cross_entropy.  [default: 0.1]")]
Optimizer = Annotated[str, named(gpumlp.OPTIMIZERS, f"{_one_of(gpumlp.OPTIMIZERS)}.")]
BatchSize = Annotated[int, Option(min=1, help="Examples a step.")]
Accumulate = Annotated[
    int,
    Option(
        metavar="PARTS",
        min=1,
        help="Work each minibatch in so many micro-batches, one after the other: the same step "
        "with less memory.",
    ),
]
Shuffle = Annotated[
    bool, Option("--shuffle/--no-shuffle", help="Give each epoch an order of its own.")
]
L1 = Annotated[float, Option(help="Ω(θ) gets this times Σ|θ|, weights and biases.")]
L2 = Annotated[float, Option(help="Ω(θ) gets half of this times Σθ².")]
WeightDecay = Annotated[
    float | None,
    Option(help=f"Of {_one_of(DECAYING)}; the optimizer's usual one if left out."),
]
Group = Annotated[
    list[str] | None,
    Option(
        metavar="NAME:lr=X,decay=Y",
        help="What learning rate and weight decay are multiplied by in a group of parameters: "
        f"{_one_of(GROUPS)}; biases:decay=0, or first:lr=0.1.  May be there several times.",
        autocompletion=completing(f"{name}:" for name in GROUPS),
    ),
]
ClipNorm = Annotated[float | None, Option(help="Longest gradient that a step uses.")]
Precision = Annotated[
    str, named(PRECISIONS, "float64, float32, or on a GPU tf32, bfloat16, float16.")
]
SlotPrecision = Annotated[
    str | None,
    named(["bfloat16"], "Of the optimizer's state: bfloat16, on a GPU; θ's own if left out."),
]
Memory = Annotated[
    str,
    named(
        ["normal", "low"],
        "normal, or low: compute activations again on the way back where that saves.",
    ),
]
BackendName = Annotated[
    str, named(["auto", "numpy", "cupy"], "auto (the GPU where there is one), numpy or cupy.")
]
Seed = Annotated[
    int, Option(min=0, max=2**32 - 1, help="Of the split, the first weights and the shuffles.")
]
Validation = Annotated[
    float, Option(help="Share of the examples to hold out, or from 1 on their number; 0 for none.")
]
Standardize = Annotated[
    bool | None,
    Option(
        "--standardize/--no-standardize",
        help="Bring each feature to mean 0 and standard deviation 1.  A real target is always "
        "brought there.  [default: yes, but for the embedded pictures]",
    ),
]
Categorical = Annotated[
    str | None,
    Option(
        metavar="COLUMNS",
        help="Columns, with commas, that hold categories though they look like numbers or have "
        "very many different words.  Columns of words are always taken for categories.",
    ),
]
MaxCategories = Annotated[
    int,
    Option(min=1, help="Categories of a column with inputs of their own; rarer ones share one."),
]
MinFrequency = Annotated[
    int, Option(min=1, help="Examples that a category must have for an input of its own.")
]
Impute = Annotated[
    str,
    Option(help=f"What stands for missing numbers, beside an input that tells: {_one_of(IMPUTE)}."),
]
Stream = Annotated[
    bool | None,
    Option(
        "--stream/--no-stream",
        help="Keep the data in temporary files and read it piece by piece; the result is the "
        "same.  [default: what is larger than 128 MiB in memory]",
    ),
]
Scratch = Annotated[
    Path | None,
    Option(metavar="DIR", help="Folder for those files.  [default: that of --out, or runs]"),
]
Widths = Annotated[
    str | None, Option(help="Inputs, hidden layers and outputs, such as 784,1024,1024,10.")
]
ActivationToTune = Annotated[
    str | None,
    named(
        gpumlp.ACTIVATIONS, "Of the hidden layers.  [default: relu, or the model's]", "--activation"
    ),
]
PrecisionToTune = Annotated[
    str | None, named(PRECISIONS, "[default: float32, or the model's]", "--precision")
]
Again = Annotated[bool, Option("--again", help="Measure what was measured before, too.")]
AsJson = Annotated[bool, Option("--json", help="Print JSON, and nothing else, on stdout.")]
Predictions = Annotated[
    Path | None,
    Option(
        "--out",
        help=".csv, .parquet: label and probabilities, or values; .npy: without the label.  "
        "[default: CSV on stdout]",
    ),
]
PredictionsAsJson = Annotated[
    bool, Option("--json", help="Print JSON in place of CSV, a line for each example.")
]
Picture = Annotated[
    Path | None,
    Option(
        metavar="FILE",
        help="Draw the confusion matrix, or predicted values and residuals, there, a PNG.",
    ),
]
