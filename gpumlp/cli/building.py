"""From the options that train and find-lr share to data, network and trainer.

`gpumlp train --l2 0.1`: `TrainingOptions.l2` → `build` → `MLP(regularizer=…)` → `Trainer`.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from gpumlp import data as datasets
from gpumlp.backends import Backend
from gpumlp.cli import options as shared
from gpumlp.cli.data_options import DataOptions, load, of_columns, print_reading
from gpumlp.cli.layers import ends, layer_blocks, widths
from gpumlp.cli.models import Model, member_seeds, members
from gpumlp.cli.options import option, parse_embed, parse_groups
from gpumlp.cli.output import describe
from gpumlp.data import Dataset, Preparation, Scratch, check_impute
from gpumlp.ensemble import Ensemble
from gpumlp.functions import ACTIVATIONS, LOSSES, OPTIMIZERS, ElasticNet
from gpumlp.functions.entry import lookup
from gpumlp.functions.stages import GATES, NORMS
from gpumlp.network import MLP
from gpumlp.step.groups import NAMES as GROUPS
from gpumlp.training import Trainer

DECAYING = [name for name, entry in OPTIMIZERS.items() if "weight_decay" in entry.params]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(DataOptions):
    """The options of the data, the network and the training step.

    A field with the name of an argument of `Trainer` is passed to it, also one of a subclass.
    """

    standardize: bool | None = option(
        None, None,
        "Scale each feature to mean 0 and standard deviation 1.  Numeric targets are scaled in any "
        "case, except for counts.  [default: standardize, except for mnist5k and digits]",
    )  # fmt: skip
    validation: float = option(
        0.2, "SHARE",
        "Validation data: the share of the examples, or their number if it is 1 or more; 0 for "
        "none.",
    )  # fmt: skip
    stream: bool | None = option(
        None, None,
        "Keep the data in temporary files and read it in chunks.  The result is the same.  "
        "[default: stream data larger than 128 MiB]",
    )  # fmt: skip
    scratch: Path | None = option(
        None, "DIR", "Folder of the temporary files.  [default: the folder of --out, or runs]"
    )
    seed: int = option(
        0, "N", "Random seed of the split, the initial weights and the shuffles.", min=0,
        max=2**32 - 1,
    )  # fmt: skip
    hidden: str = option(
        "256,256", "WIDTHS", "Widths of the hidden layers, or none for a linear model."
    )
    activation: str = shared.activation("relu")
    norm: str | None = option(
        None, "NAME", "Normalise the input of every layer but the first: {names}.",
        [*NORMS, "none"],
    )  # fmt: skip
    dropout: float = option(
        0.0, "P", "Set each output of a hidden layer to 0 with this probability in a training step."
    )
    residual: int = option(
        0, "N",
        "Skips: 1 adds to the output of each hidden layer but the first its input, 2 does so for "
        "every two layers; 0 for none.", min=0,
    )  # fmt: skip
    gated: str | None = option(
        None, "NAME",
        "Gate of the hidden layers in place of --activation: each computes u ⊙ f(v) of two linear "
        "layers u and v, where f is one of {names}.", [*GATES, "none"],
    )  # fmt: skip
    loss: str | None = option(
        None, "NAME",
        "Loss: {names}.  [default: softmax_cross_entropy for classes, squared_error for numbers]",
        LOSSES,
    )  # fmt: skip
    label_smoothing: float | None = option(
        None, "SHARE", "Label smoothing of softmax_cross_entropy.  [default: 0.1]"
    )
    l1: float = option(
        0.0, "X", "L1 regularization: adds X·Σ|θ| to the cost, for weights and biases."
    )
    l2: float = option(
        0.0, "X", "L2 regularization: adds X/2·Σθ² to the cost, for weights and biases."
    )
    precision: str = option(
        "float32", "NAME",
        "Precision: float64 or float32; on a GPU also tf32, bfloat16 or float16; bfloat16 also on "
        "a CPU with AVX512_BF16.",
        shared.PRECISIONS,
    )  # fmt: skip
    backend: str = shared.backend()
    optimizer: str = shared.optimizer("adamw")
    batch_size: int = shared.batch_size(64)
    accumulate: int = option(
        1, "PARTS",
        "Compute each minibatch in this many micro-batches, one after the other.  The step stays "
        "the same and needs less memory.", min=1,
    )  # fmt: skip
    shuffle: bool = option(True, None, "Shuffle the training data before each epoch.")
    weight_decay: float | None = option(
        None, "X", f"Weight decay of {', '.join(DECAYING)}.  [default: the optimizer's own]"
    )
    group: list[str] | None = option(
        None, "NAME:lr=X,decay=Y",
        "Multiply the learning rate by X and the weight decay by Y for a group of parameters: "
        f"{', '.join(GROUPS)}.  Examples: biases:decay=0, first:lr=0.1.  This option can be "
        "repeated.",
        autocompletion=shared.completing([f"{name}:" for name in GROUPS]),
    )  # fmt: skip
    clip_norm: float | None = option(
        None, "X", "Scale a gradient with a norm above X down to norm X."
    )
    slot_precision: str | None = option(
        None, "NAME",
        "Precision of the optimizer's state: bfloat16, on a GPU.  [default: as the parameters]",
        ["bfloat16"],
    )  # fmt: skip
    remainder: bool = shared.switch(
        "--remainder",
        "Update the parameters as 16-bit weights and a 16-bit remainder, in bfloat16 on a GPU, "
        "which moves fewer bytes.",
    )
    memory: str = option(
        "normal", "NAME",
        "Memory use: normal, or low, which computes activations twice instead of storing them.",
        ["normal", "low"],
    )  # fmt: skip


@dataclass(frozen=True)
class Built:
    """What a training consists of; `scratch` is the place of the temporary files of large data."""

    dataset: Dataset
    train: Dataset
    validation: Dataset | None
    preparation: Preparation  # fitted to `train`
    net: Model
    trainer: Trainer  # of an ensemble an EnsembleTrainer
    scratch: Scratch
    decision: str = ""  # what the target's numbers were taken for, if nobody said it

    def prepared(self, *parts: Dataset) -> list[tuple[Any, Any]]:
        """The inputs x and targets y of each part, prepared for the network."""
        dtype, known = self.net.backend.dtype, self.preparation
        prepared = [
            (known.prepared(part.x, dtype, self.scratch, part.categories), known.targets(part.y))
            for part in parts
        ]
        if self.scratch.used:
            size, folder = self.scratch.used / 1e9, self.scratch.folder
            typer.echo(f"{size:.2f} GB of temporary files in {folder}", err=True)
        return prepared

    def describe(self) -> dict[str, Any]:
        """The data and the network for JSON."""
        return describe(self.dataset.name, len(self.dataset), self.dataset, self.net)

    def print(self, quiet: bool) -> None:
        """Print data and network unless quiet; on stderr, how target and columns were read."""
        if not quiet:
            train, validation = len(self.train), len(self.validation or ())
            parts = f"{train:,} for training, {validation:,} for validation"
            typer.echo(f"{self.dataset!r}; {parts}\n{self.net!r}")
        print_reading(self.dataset, self.preparation, self.decision)


def build(
    options: TrainingOptions, out: Path, models: int = 1, backend: Backend | None = None,
    **arguments: Any,
) -> Built:  # fmt: skip
    """Load the data, and make the network, or an ensemble of several models, and the trainer.

    Options that do not depend on the data are checked before it is read.  Without --scratch, the
    temporary files are in the folder `out`, or in the nearest of its parents that exists.
    backend: None for that of the options; arguments: of `Trainer`, in addition to the options.
    """
    check(options, backend, **arguments)
    scratch = scratch_of(options, out)
    dataset, decision = load(options, scratch, options.loss)
    parts = datasets.split(dataset, options.validation, options.seed)
    return assembled(
        options, dataset, *parts, scratch, decision, models, backend=backend, **arguments
    )


def assembled(
    options: TrainingOptions, dataset: Dataset, train: Dataset, validation: Dataset | None,
    scratch: Scratch, decision: str = "", models: int = 1, preparation: Preparation | None = None,
    backend: Backend | None = None, **arguments: Any,
) -> Built:  # fmt: skip
    """The network and the trainer for data that is loaded and split.

    preparation: None to learn it from `train`; backend: None for that of the options.
    """
    loss, n = ends(dataset, options.loss, options.label_smoothing)
    if preparation is None:
        preparation = Preparation.of(train, **preparing(options, dataset))
    network: dict[str, Any] = {
        "widths": [len(preparation.columns), *widths(options), n],
        "activation": options.activation,
        "output_activation": "softmax" if loss.name == "negative_log_likelihood" else "identity",
        "loss": loss,
        "regularizer": ElasticNet(options.l1, options.l2) if options.l1 or options.l2 else None,
        "precision": options.precision,
        "backend": backend or options.backend,
        **layer_blocks(options),
        **({"embed": preparation.embed} if preparation.embedded else {}),
    }
    settings = trainer_settings(options) | arguments
    net: Any
    if models == 1:
        net = MLP(seed=options.seed, **network)
    else:  # each draws its orders with the seed of its weights, as a network alone does
        net = Ensemble(models, seeds=member_seeds(options.seed, models), **network)
        settings["seed"] = 0
    for member in members(net):
        preparation.begin(member)
    trainer = Trainer(net, **settings)
    return Built(dataset, train, validation, preparation, net, trainer, scratch, decision)


def preparing(options: TrainingOptions, dataset: Dataset) -> dict[str, Any]:
    """The arguments of `Preparation.of`."""
    loss, _ = ends(dataset, options.loss, options.label_smoothing)
    x = dataset.standardize if options.standardize is None else options.standardize
    # counts and classes stay as they are
    return {"x": x, "y": loss.target == "real", **of_columns(options)}


def check(
    options: TrainingOptions, backend: Backend | None = None, **arguments: Any
) -> None:  # fmt: skip
    """Raise if an option that does not depend on the data is invalid; arguments as in `build`."""
    check_impute(options.impute)
    parse_embed(options.embed or ())
    settings = trainer_settings(options) | arguments
    layer_blocks(options)
    lookup(ACTIVATIONS, "activation", options.activation)
    if options.loss is not None:
        lookup(LOSSES, "loss", options.loss)
    net = MLP([1, 1], precision=options.precision, backend=backend or options.backend)
    Trainer(net, **settings)


def scratch_of(options: TrainingOptions, out: Path) -> Scratch:
    """The place of temporary files: --scratch, or the folder `out`, or its next that exists."""
    nearest = next(each for each in (out, *out.absolute().parents) if each.is_dir())
    return Scratch(options.scratch or nearest, options.stream)


def trainer_settings(options: TrainingOptions) -> dict[str, Any]:
    """The arguments of `Trainer`: the options that have their names, and the two made here."""
    chosen = inspect.signature(Trainer).parameters.keys() & vars(options).keys()
    rule = lookup(OPTIMIZERS, "optimizer", options.optimizer)
    groups = parse_groups(options.group or ())
    flags = ["--weight-decay"] if options.weight_decay is not None else []
    decays = {name: group.decay for name, group in groups.items() if group.decay != 1}
    flags += [f"--group {name}:decay={decay:g}" for name, decay in decays.items()]
    if flags and "weight_decay" not in rule.params:
        raise ValueError(
            f"{flags[0]}: {rule.name} has no weight decay; leave it out, or use --optimizer "
            f"{' or '.join(DECAYING)}"
        )
    if options.weight_decay is not None:
        rule = rule.set(weight_decay=options.weight_decay)
    return {name: getattr(options, name) for name in chosen} | {"optimizer": rule, "groups": groups}
