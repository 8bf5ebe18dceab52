"""One call of `Trainer.fit`: what comes before and after its loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any

from gpumlp import checks
from gpumlp.distributed.world import ALONE, World
from gpumlp.io.types import Array
from gpumlp.loader.batches import Minibatches
from gpumlp.loader.examples import Examples
from gpumlp.network import MLP
from gpumlp.training import callbacks as hooks
from gpumlp.training import checkpoint as files
from gpumlp.training import saving, together
from gpumlp.training.arguments import running
from gpumlp.training.callbacks import Watch
from gpumlp.training.events import Callback
from gpumlp.training.history import History
from gpumlp.training.loop import Fit
from gpumlp.training.metrics import Evaluation, columns, evaluations, measures
from gpumlp.training.stepping import Stepping


def fit(
    trainer: Stepping, x: Array, y: Array, epochs: int, callbacks: Sequence[Callback],
    progress: bool | None, checkpoint: tuple[Any, int | None, bool], *, validation: Any,
    sample_weight: Any, class_weight: Any, early_stopping: Any, metric: Any, train_metric: bool,
    data: str,
) -> History:  # fmt: skip
    """Check the arguments of `Trainer.fit`, which documents them, and train.

    checkpoint: the arguments `checkpoint`, `checkpoint_every` and `resume`.
    """
    files.check_is_no_data(checkpoint[0], x, y, sample_weight, validation)
    net = trainer.net
    placement: dict[str, Any] = {"data": data, "rows": trainer.at_a_time}
    examples = Examples.checked(net, x, y, sample_weight, class_weight, **placement)
    validated = Examples.of_validation(net, validation, **placement)
    batches = trainer.batches(examples)
    with opened(
        trainer, batches, examples, validated, epochs, callbacks, progress, checkpoint,
        early_stopping=early_stopping, metric=metric, train_metric=train_metric,
    ) as run:  # fmt: skip
        run.train(batches)
    trainer.shards.world.doing = ""
    return trainer.history


@contextmanager
def alone(net: MLP) -> Iterator[None]:
    """No other thread trains the network meanwhile; a callback of this one may.

    ValueError: another thread does.
    """
    thread, free = get_ident(), id(net) not in running
    if running.setdefault(id(net), thread) != thread:
        raise ValueError(
            "this network is in a fit of another thread, which must end first; to train at the "
            "same time, train copy.deepcopy(net)"
        )
    try:
        yield
    finally:
        if free:
            del running[id(net)]


@contextmanager
def opened(
    trainer: Stepping, batches: Minibatches, examples: Examples, validated: Examples | None,
    epochs: int, callbacks: Sequence[Callback], progress: bool | None,
    checkpoint: tuple[Any, int | None, bool], *, early_stopping: Any, metric: Any,
    train_metric: bool,
) -> Iterator[Fit]:  # fmt: skip
    """A fit that is ready to begin, or to go on from its checkpoint; at the end it is closed."""
    if id(trainer) in running:
        raise ValueError(
            "this trainer is in a fit, which must end first; to train from a callback or another "
            "thread, fit copy.deepcopy(trainer)"
        )
    net, epochs = trainer.net, checks.positive_int(epochs, "epochs")
    parts, world = (examples, validated), trainer.shards.world
    together.doing(trainer, "start of a fit")
    measured, watch = rules(net, *parts, early_stopping, metric, train_metric, world)
    run = Fit(trainer, batches, epochs, watch, measured)
    running[id(trainer)] = get_ident()
    try:
        display = hooks.progress_display(progress, run.total, lambda: run.done)
        run.callbacks = [*hooks.checked(callbacks), *display]
        if world.size > 1:
            facts = together.facts_of(trainer, examples, validated)
            facts |= {"epochs": epochs, "columns": list(run.history)}
            together.check_alike(world, facts | {"early_stopping": str(early_stopping)})
            run.callbacks = run.callbacks if world.rank == 0 else []
            checkpoint = together.on_first(world, lambda: checkpoint)  # which writes it for all
        run.checkpoint = saving.opened(run, *checkpoint, examples, validated)
        run.save = saving.save
        with alone(net):
            trainer.stop, trainer.lr_factor = False, 1.0
            if checkpoint[-1] and run.checkpoint is not None:
                saving.resume(run, run.checkpoint)
            trainer.history = run.history
            yield run
    finally:
        del running[id(trainer)]
        net.backend.synchronize()  # the caller may free the data now
        run.close()


def rules(
    net: MLP, examples: Examples, validated: Examples | None, early_stopping: Any, metric: Any,
    train_metric: bool, world: World = ALONE,
) -> tuple[dict[str, Evaluation], Watch | None]:  # fmt: skip
    """What is evaluated after each epoch, by the prefix of its columns; and early stopping."""
    names = together.on_first(world, lambda: [*measures(net.loss, metric)])
    if world.rank > 0:  # rank 0 computes its own
        metric = dict.fromkeys(names, "auto") or None
    measured = evaluations(net, examples, validated, metric, train_metric, world)

    def validate() -> None:
        for evaluation in measured.values():
            evaluation.validate()

    together.on_first(world, validate)
    rule = hooks.stopping_rule(early_stopping, columns(measured))
    return measured, None if rule is None else Watch(rule, net)
