"""The options of one training that train and search share, and the metrics they name."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from gpumlp.checks import MOST_MODELS
from gpumlp.cli import options as shared
from gpumlp.cli.building import TrainingOptions
from gpumlp.cli.options import option
from gpumlp.functions import LOSSES, SCHEDULES
from gpumlp.functions.entry import lookup
from gpumlp.training import scorers
from gpumlp.training.metrics import measures


def complete_metric(incomplete: str) -> list[str]:
    """The metrics that begin with the typed text; only this imports scikit-learn."""
    names = ["auto"]
    with contextlib.suppress(ImportError):
        names += scorers.names()
    return shared.completing(names)(incomplete)


@dataclass(frozen=True, kw_only=True)
class FitOptions(TrainingOptions):
    """The options of a training, from its first to its last epoch."""

    epochs: int = option(20, "N", "Number of passes over the training data.", min=1)
    lr: float | None = option(None, "X", "Base learning rate.  [default: the optimizer's own]")
    schedule: str = option("warmup_cosine", "NAME", "Learning-rate schedule: {names}.", SCHEDULES)
    ema: float | None = option(
        None, "DECAY",
        "Keep an exponential moving average of the weights with this decay, such as 0.999.  The "
        "averaged network is validated and written.",
    )  # fmt: skip
    metric: str | None = option(
        None, "NAMES",
        "Metrics to compute after each epoch: names of scikit-learn's scorers with commas, such as "
        "f1_macro,roc_auc_ovr, or auto (accuracy or R²), in the unit of the target.  The history "
        "gets a column for each on the training data, f1_macro, and on the validation data, "
        "val_f1_macro; the column of auto is metric.  [default: auto]",
        autocompletion=complete_metric,
    )  # fmt: skip
    models: int | None = option(
        None, "K",
        "Train an ensemble of K networks, its members, which differ in their first weights and in "
        "the order of the data.  The model predicts their mean.  [default: 1]",
        min=1, max=MOST_MODELS,
    )  # fmt: skip
    patience: int | None = option(
        None, "EPOCHS",
        "Early stopping: stop when the validation cost has not improved for this many epochs, and "
        "keep the best network.", min=1,
    )  # fmt: skip

    @property
    def several(self) -> bool:
        """Whether an ensemble is trained."""
        return self.models is not None and self.models > 1


def metrics(options: FitOptions) -> list[str]:
    """The argument `metric` of `Trainer.fit`, checked."""
    names = shared.split_commas("auto" if options.metric is None else options.metric)
    if not names:
        raise ValueError(
            f"--metric must be names such as f1_macro,roc_auc_ovr, got {options.metric!r}"
        )
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--metric has {name!r} twice; give it once")
    measures(lookup(LOSSES, "loss", options.loss or "squared_error"), names)  # checks the names
    return names
