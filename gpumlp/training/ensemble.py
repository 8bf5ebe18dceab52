"""EnsembleTrainer: the members of an ensemble are trained together, each by its own fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp import checks
from gpumlp.ensemble import Ensemble
from gpumlp.errors import is_one_of
from gpumlp.functions import Optimizer
from gpumlp.io.types import Array
from gpumlp.loader.batches import Minibatches
from gpumlp.loader.examples import Examples
from gpumlp.network import check_kind
from gpumlp.storage import PathLike
from gpumlp.training import arguments, fit, lockstep, members
from gpumlp.training import callbacks as hooks
from gpumlp.training import checkpoint as files
from gpumlp.training import folds as parts_of
from gpumlp.training.callbacks import EarlyStopping
from gpumlp.training.events import Callback
from gpumlp.training.folds import Folds
from gpumlp.training.history import Histories
from gpumlp.training.lockstep import Member, State
from gpumlp.training.memory import Memory, plan
from gpumlp.training.metrics import Metrics
from gpumlp.weights import ClassWeight

if TYPE_CHECKING:
    from gpumlp.step.explain import Explanation

Data = tuple[Examples, Examples | None]
"""Training and validation examples."""
PER_MEMBER = ("theta", "rounded", "remainder", "gradient", "slots", "average")  # of `Memory`
PER_FIT = ("best", "tables", "step", "evaluation")  # of the members that are trained at a time


class EnsembleTrainer:
    """Trains the members of an `Ensemble`: ``Trainer(ensemble, …)`` returns one.

    Each member is trained as a `Trainer` of this network alone would train it.  On the compiled CPU
    backend as many members at a time as there are threads, each on one.  On NumPy and on a GPU one
    program does a step of all members, if their rules have the same state and no rule is folded
    into a product or has products of its own, as muon; else they are trained one after the other.
    On a CPU the results have the same bits as those of the network alone; on a GPU all sums of a
    batch of products may be in another order.

    Args:
        ensemble: the networks, which are trained in place.
        optimizer: as in `Trainer`, or a list with one for each member.
        lr: as in `Trainer`, or a list with one for each member.
        batch_size: as in `Trainer`, of all members.
        settings: the further arguments of `Trainer`, of all members.

    Attributes:
        ensemble: the networks.
        trainers: for each member the optimizer's state and the settings, with the attributes of
            `Trainer`.
        seed: of the members' orders: see `fit`.
        histories: those of the last fit; None before.

    Raises:
        ValueError, TypeError: an argument is not as described.
    """

    def __init__(
        self, ensemble: Ensemble,
        optimizer: str | Optimizer | Sequence[str | Optimizer] = "adamw",
        lr: float | Sequence[float] | None = None, batch_size: int = 256, **settings: Any,
    ) -> None:  # fmt: skip
        check_kind(ensemble, "ensemble", Ensemble)
        if getattr(settings.get("world"), "size", 1) > 1:
            raise ValueError(
                "world does not go with an ensemble, whose members are independent; leave it out, "
                "and train some of the members in each process"
            )
        K = len(ensemble)
        several = isinstance(optimizer, (list, tuple))
        rules = checks.one_each(optimizer if several else [optimizer] * K, K, "optimizer")
        shared = lr is None or np.ndim(lr) == 0
        rates = checks.one_each([lr] * K if shared else lr, K, "lr")
        self.ensemble = ensemble  # before the trainers: a pickle builds it first, with all θ
        if not ensemble.backend.on_host and settings.get("fold") is None and K > 1:
            settings["fold"] = False  # so that one program can do the steps of all
        state = State(K)
        self.trainers = [
            Member(state, i, net, rule, rate, batch_size, **settings)
            for i, (net, rule, rate) in enumerate(zip(ensemble, rules, rates, strict=True))
        ]
        self.seed = self.trainers[0].seed
        self.histories: Histories | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, unless it is one of the members' trainers: AttributeError."""
        if name != "seed" and name in {*arguments.FIXED, *arguments.ASSIGNED}:
            raise AttributeError(
                f"{name} is an attribute of each member's trainer: for t in trainer.trainers: "
                f"t.{name} = …"
            )
        super().__setattr__(name, arguments.ASSIGNED[name](value) if name == "seed" else value)

    def fit(
        self, x: Array, y: Array, epochs: int = 10, *, validation: Sequence[Array] | None = None,
        sample_weight: Array | None = None, class_weight: ClassWeight = None,
        early_stopping: int | EarlyStopping | None = None, metric: Metrics = "auto",
        train_metric: bool = False, orders: str = "own", folds: Folds | None = None,
        callbacks: Callable[[int], Sequence[Callback]] | None = None, progress: bool | None = None,
        checkpoint: PathLike | None = None, checkpoint_every: int | None = None,
        resume: bool = False, data: str = "auto",
    ) -> Histories:  # fmt: skip
        """Train all members for some epochs; x and y are in memory once.

        A member whose training diverges ends there, and harms no other: its `History.stopped` is
        "diverged".  Ctrl-C ends all members between two steps, also those that had not begun.

        Args:
            x: (m, n_0), finite.
            y: (m, n_L), or integer labels (m,) for classification.
            epochs: passes over the data.
            validation: as in `Trainer.fit`, of all members.
            sample_weight: (m,), 0 or more.
            class_weight: as in `Trainer.fit`.
            early_stopping: as in `Trainer.fit`.  Each member stops by itself, with its best θ.
            metric: as in `Trainer.fit`; several threads call a function at the same time.
            train_metric: whether to evaluate the training data, too, after each epoch.
            orders: "own": member i draws its orders as a trainer of this network alone with the
                seed ``trainer.seed + net.seed`` does; "same": all with ``trainer.seed``.
            folds: None: all members train on all rows.  A number n: the rows are dealt out to n
                parts (`gpumlp.training.k_folds`), and member i trains without part i modulo n and
                is validated on it.  Or a list of pairs of row numbers, (train, validation), of
                which member i has the pair i modulo their number.  The rows of each are copied.
            callbacks: a function of a member's number that returns its callbacks; they are called
                in several threads.
            progress: True: a line on stderr when a member ends.
            checkpoint: a folder, with one file for each member: see `Trainer.fit`.
            checkpoint_every: as in `Trainer.fit`.
            resume: as in `Trainer.fit`; a member without a file begins anew.
            data: as in `Trainer.fit`.

        Raises:
            ValueError, TypeError: an argument is not as described; nothing was trained.
            CheckpointError: a checkpoint is damaged or of another run.
            FloatingPointError: the trainings of all members diverged.
        """
        if not is_one_of(orders, ("own", "same")):
            raise ValueError(f'orders must be "own" or "same", got {orders!r}')
        shown = progress is not None and checks.boolean(progress, "progress")
        if callbacks is not None and not callable(callbacks):
            raise TypeError(
                "callbacks of an ensemble must be a function of a member's number that returns "
                f"the callbacks of this member, got {type(callbacks).__name__}; pass "
                "callbacks=lambda member: [...]"
            )
        moved = [
            i for i, net in enumerate(self.ensemble) if net.theta is not self.ensemble.views[i]
        ]
        if moved:
            raise ValueError(
                f"member {moved[0]} is in another Ensemble now, with its parameters; train that "
                "one, or pass it copy.deepcopy of the members"
            )
        epochs = checks.positive_int(epochs, "epochs")
        files.check_is_no_data(checkpoint, x, y, sample_weight, validation)
        each = self._data(x, y, sample_weight, class_weight, validation, folds, data)
        rules: dict[str, Any] = {
            "early_stopping": early_stopping, "metric": metric, "train_metric": train_metric,
        }  # fmt: skip
        for examples, validated in each:
            fit.rules(self.ensemble[0], examples, validated, **rules)
        folder = members.folder(checkpoint, checkpoint_every, resume)
        used: dict[int, tuple[int, Callback]] = {}

        def opened(i: int, batches: Minibatches, examples: Examples) -> Any:
            """The fit of member i."""
            file = None if folder is None else folder / f"member-{i}.safetensors"
            own = [] if callbacks is None else hooks.checked(callbacks(i))
            for each_one in own:
                member = used.setdefault(id(each_one), (i, each_one))[0]
                if member != i and type(each_one).__module__.startswith("gpumlp."):
                    raise ValueError(
                        f"callbacks({member}) and callbacks({i}) return the same "
                        f"{type(each_one).__name__}, which is for one fit; make one in each call"
                    )
            return fit.opened(
                self.trainers[i], batches, examples, each[i % len(each)][1], epochs, own, False,
                (file, checkpoint_every, resume), **rules,
            )  # fmt: skip

        for trainer in self.trainers:
            trainer.seed = self.seed + (trainer.net.seed if orders == "own" else 0)
        ends = members.Ends(self.ensemble, self.trainers, shown)
        numbers = [i for i in range(len(self.ensemble)) if i not in ends.lost]
        parts = [examples for examples, _ in each]
        joint = lockstep.possible(self.trainers) and not any(any(part.streamed) for part in parts)
        train = lockstep.train if joint else members.train
        train(self.ensemble, self.trainers, numbers, parts, opened, ends.ended)
        self.histories = ends.histories()
        return self.histories

    def explain(self, x: Array | int, y: Array = None, **arguments: Any) -> Explanation:
        """The operations of a step of one member, as `Trainer.explain` shows them."""
        from gpumlp.training.explaining import explained  # only here, for a fast `import gpumlp`

        checks.known_arguments(explained, arguments)
        return explained(self.trainers[0], x, y, **arguments)

    def memory(
        self, x: Array | int, y: Array = None, *, validation: Sequence[Array] | int | None = None,
        sample_weight: Array = None, early_stopping: int | EarlyStopping | None = None,
        metric: Metrics = "auto", train_metric: bool = False, data: str = "auto",
    ) -> Memory:  # fmt: skip
        """The bytes that `fit` needs with these arguments; nothing is allocated.

        The parameters and the optimizer's state are those of all members, a step's arrays those of
        the members that are trained at a time.  The copies of `folds`, and those of members that
        are left when half have ended, are not counted.
        """
        weighted = sample_weight is not None
        one = plan(
            self.trainers[0], x, y, validation, weighted, early_stopping, metric, train_metric, data
        )
        K, backend = len(self.ensemble), self.ensemble.backend
        joint = lockstep.possible(self.trainers)
        at_a_time = min(K, lockstep.at_a_time(self.trainers) if joint else members.count(backend))
        counts = dict.fromkeys(PER_MEMBER, K) | dict.fromkeys(PER_FIT, at_a_time)
        counts |= {"scratch": 1 if joint else at_a_time}
        several = {name: getattr(one, name) * count for name, count in counts.items()}
        return replace(one, **several, held=K * one.held - (K - 1) * backend.own_memory(0))

    def _data(
        self, x: Array, y: Array, sample_weight: Any, class_weight: Any, validation: Any,
        folds: Folds | None, data: str,
    ) -> Sequence[Data]:  # fmt: skip
        """The examples of the members: those of member i are at i modulo their number."""
        net = self.ensemble[0]
        placement: dict[str, Any] = {"data": data, "rows": self.trainers[0].at_a_time}
        if folds is None:
            examples = Examples.checked(net, x, y, sample_weight, class_weight, **placement)
            return [(examples, Examples.of_validation(net, validation, **placement))]
        if validation is not None:
            raise ValueError(
                "folds leaves out rows for validation, so it does not go with validation; pass "
                "folds=None, or leave out validation"
            )
        return parts_of.parts(net, x, y, sample_weight, class_weight, folds, self.seed, **placement)
