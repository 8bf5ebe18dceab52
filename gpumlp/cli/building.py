"""From a command's options to data, network and trainer: what train and find-lr share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpumlp import data as datasets
from gpumlp.cli import models, options
from gpumlp.network import MLP
from gpumlp.training import Group, Trainer

OF_TRAINER = ("lr", "batch_size", "clip_norm", "seed", "slot_precision", "memory", "accumulate",
              "ema", "shuffle")  # fmt: skip
OF_NETWORK = ("precision", "backend", "seed")


@dataclass(frozen=True)
class Built:
    """What a training is made of.

    Attributes:
        dataset: all examples; `part` of them to train on, `held` out, or None.
        preparation: learnt from `part`.
        net, trainer: before the first step.
        scratch: where large data goes.
    """

    dataset: datasets.Dataset
    part: datasets.Dataset
    held: datasets.Dataset | None
    preparation: datasets.Preparation
    net: MLP
    trainer: Trainer
    scratch: datasets.Scratch

    def seen(self, examples: datasets.Dataset) -> tuple[Any, Any]:
        """x and y as the network is trained on them."""
        known, dtype = self.preparation, self.net.backend.dtype
        x = known.prepared(examples.x, dtype, self.scratch, examples.categories)
        return x, known.targets(examples.y)


def build(asked: Mapping[str, Any], near: Path) -> Built:
    """Data, network and trainer, as a command's options say; those of train alone may be missing.

    Args:
        asked: the options' values by the names of the command's parameters.
        near: the folder of temporary files, unless --scratch names one.

    Raises:
        ValueError, TypeError, OSError, ImportError, DeviceError: an option is not as said, which is
            told before the data is read wherever it can be, or the data cannot be used.
    """
    datasets.check_impute(asked["impute"])
    rule = models.optimizer(asked["optimizer"], asked["weight_decay"])
    given = {name: asked[name] for name in OF_TRAINER if name in asked}
    given |= {"schedule": asked.get("schedule", "constant"), "groups": groups(asked["group"])}

    def trainer_of(net: MLP) -> Trainer:
        return Trainer(net, rule, **given)

    settings: Any = {name: asked[name] for name in OF_NETWORK}
    models.check(asked["hidden"], asked["activation"], asked["loss"], trainer_of, **settings)
    scratch = datasets.Scratch(asked["scratch"] or near, asked["stream"])
    columns = options.listed(asked["categorical"])
    dataset = datasets.load(
        asked["data"], asked["target"], asked["task"], categorical=columns, scratch=scratch
    )
    part, held = datasets.split(dataset, asked["validation"], asked["seed"])
    cost = models.loss_for(dataset, asked["loss"], asked["label_smoothing"])
    preparation = models.prepare(
        part, cost, asked["standardize"],
        **{name: asked[name] for name in ("impute", "max_categories", "min_frequency")},
    )  # fmt: skip
    net = models.build(
        dataset, len(preparation.columns), asked["hidden"], asked["activation"], cost,
        l1=asked["l1"], l2=asked["l2"], **settings,
    )  # fmt: skip
    return Built(dataset, part, held, preparation, net, trainer_of(net), scratch)


def groups(asked: Iterable[str]) -> dict[str, Group]:
    """What `Trainer` takes, of texts such as "biases:lr=2,decay=0".

    Raises:
        ValueError: a text is not so written, or a group is there twice.
    """
    found: dict[str, Group] = {}
    for text in asked:
        name, _, settings = (part.strip() for part in text.partition(":"))
        given = dict(_setting(text, part) for part in settings.split(","))
        if name in found or len(given) < settings.count(",") + 1:
            raise ValueError(f"--group {text}: {name} is there twice; write {name}:lr=X,decay=Y")
        try:
            found[name] = Group(**given)
        except ValueError as error:
            raise ValueError(f"--group {text}: {error}") from None
    return found


def _setting(text: str, part: str) -> tuple[str, float]:
    """("lr", 2.0) of "lr=2"."""
    name, _, number = (each.strip() for each in part.partition("="))
    try:
        if name in ("lr", "decay"):
            return name, float(number)
    except ValueError:
        pass
    raise ValueError(f"--group takes NAME:lr=X,decay=Y, such as biases:decay=0, got {text!r}")
