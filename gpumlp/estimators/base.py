"""BaseMLP: what the classifier and the regressor share, a thin layer over `gpumlp.Trainer`."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from gpumlp.arrays import as_kind_of
from gpumlp.backends import Backend
from gpumlp.estimators import checking, codes, fitting, inputs, parameters, settings, several
from gpumlp.estimators.fitting import CallbackSupportMixin, UserData, with_callbacks
from gpumlp.estimators.inputs import FitData
from gpumlp.functions import Activation, Initializer, Loss, Optimizer, Regularizer, Schedule
from gpumlp.io.types import Array, HostArray
from gpumlp.network import MLP
from gpumlp.training import Callback, History


@dataclass(kw_only=True, eq=False, repr=False)
class BaseMLP(CallbackSupportMixin, settings.Named, ABC):  # type: ignore[misc]
    """A multilayer perceptron with scikit-learn's methods; what depends on y is abstract.

    The fields are the parameters that both estimators have; `MLPClassifier` documents them.
    """

    solver: str | Optimizer = "adam"
    alpha: float = 0.0001
    batch_size: int | str = "auto"
    learning_rate: str | Schedule = "constant"
    learning_rate_init: float = 0.001
    power_t: float = 0.5
    max_iter: int = 200
    shuffle: bool = True
    random_state: Any = None
    tol: float = 1e-4
    verbose: bool = False
    warm_start: bool = False
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    early_stopping: bool = False
    validation_fraction: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    n_iter_no_change: float = 10
    max_fun: int = 15000
    output_activation: str | Activation = "auto"
    regularizer: str | Regularizer | None = None
    initializer: str | Initializer | None = "auto"
    norm: Any = None
    dropout: float | Sequence[float] = 0.0
    residual: bool | int | Sequence[bool] = False
    gated: Any = None
    embed: int | Mapping[Any, int] | None = None
    clip_norm: float | None = None
    scoring: str | Callable[..., float] | None = None
    callbacks: Sequence[Callback] | None = None
    backend: str | Backend = "auto"
    precision: str = "float32"
    n_models: int = 1

    _codes: ClassVar[codes.Codes] = codes.Codes()  # of a fit that is still to come
    _usual_score: ClassVar[Callable[..., float]]  # of y and what `predict` returns

    @with_callbacks  # type: ignore[untyped-decorator]
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, X_val: Any = None, y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:  # fmt: skip
        """Train from new parameters or, with warm_start, from those of the last fit.

        Ctrl-C ends the training with a warning; the estimator can be used.

        Args:
            X: (m, n_0): an array of NumPy, CuPy, torch or JAX, a data frame, or a sparse matrix,
                which is converted to a dense one. Columns of `embed` may hold words.
            y: (m,) or (m, k): labels, rows of 0 and 1, or values.
            sample_weight: (m,), 0 or more; the loss of a minibatch is the weighted mean.
            X_val: data to validate on, instead of a share of X.
            y_val: its y.
            sample_weight_val: its weights.

        Raises:
            ValueError, TypeError: an argument or a parameter is not valid; nothing was trained.
            FloatingPointError: the training diverged.
        """
        return self._fit((X, y, sample_weight), (X_val, y_val, sample_weight_val))

    def predict(self, X: Any) -> Any:
        """Return ŷ of X (m, n_0), as the same kind of array as X if that kind can hold it.

        ValueError: X, or an output of the network for X, is not finite.
        """
        return as_kind_of(self._decide(several.mean(self._each_predicted(X))), X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy of `predict` for X and y, of labels that of whole rows; or R².

        sample_weight: (m,), 0 or more, or None.  ValueError: as in `predict`, or y does not fit.
        """
        weights = None if sample_weight is None else inputs.host(sample_weight, "sample_weight")
        predicted = inputs.host(self.predict(X), "X")
        return float(self._usual_score(inputs.host(y, "y"), predicted, sample_weight=weights))

    @property
    def coefs_(self) -> list[HostArray]:
        """The weights of each layer, (n_in, n_out) as in scikit-learn: copies on the host.

        Assign a list, or to an entry of this one, to change the network.
        """
        return parameters.shown(self, "coefs_")

    @coefs_.setter
    def coefs_(self, values: Sequence[Any]) -> None:
        parameters.assign(self, "coefs_", values)

    @property
    def intercepts_(self) -> list[HostArray]:
        """The biases of each layer, (n_out,): as `coefs_`."""
        return parameters.shown(self, "intercepts_")

    @intercepts_.setter
    def intercepts_(self, values: Sequence[Any]) -> None:
        parameters.assign(self, "intercepts_", values)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickle, with the optimizer's state copied to the host."""
        state = dict(super().__getstate__())
        if "net_" in state:
            backend, (rule, steps, arrays) = self.net_.backend, self._optimizer
            found = [backend.to_host(a) if backend.owns(a) else a for a in (*arrays, self._best)]
            state |= {"_optimizer": (rule, steps, found[:-1]), "_best": found[-1]}
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # ---- what depends on y --------------------------------------------------------------------

    @abstractmethod
    def _inspect_targets(self, y: HostArray, classes: Any) -> None:
        """Note what y holds, at the first fit."""

    @abstractmethod
    def _encode_targets(self, y: Any) -> tuple[HostArray, HostArray]:
        """Return y as scorers take it, and the targets of the network."""

    @abstractmethod
    def _loss_entry(self) -> Loss:
        """Return the loss."""

    @abstractmethod
    def _output_width(self, loss: Loss) -> int:
        """Return n_L, the width of the output layer."""

    def _class_weights(self, data: FitData, incremental: bool) -> HostArray | None:
        """Return the weights of the classes in the training loss, (n_classes,), or None."""
        return None

    @abstractmethod
    def _decide(self, p: HostArray) -> HostArray:
        """Return what `predict` returns, for the network's predictions p (m, n_L)."""

    # ---- one fit ------------------------------------------------------------------------------

    @checking.unchanged_by_errors
    def _fit(
        self, data: UserData, validation: UserData, classes: Any = None, incremental: bool = False
    ) -> Self:
        """Train as `fit` does or, with `incremental`, for an epoch as `partial_fit` does."""
        if incremental and self.early_stopping and getattr(self, "_over", False):
            warnings.warn(
                "early stopping has ended this training, so partial_fit changes nothing:"
                " see stopped_, or pass early_stopping=False", stacklevel=4,
            )  # fmt: skip
            return self
        checking.check(self, goes_on=incremental or self.warm_start)
        if self.n_models > 1:
            several.fit(self, data, validation, classes, incremental)
            return self
        first = not hasattr(self, "net_") or not (incremental or self.warm_start)
        backend = settings.backend(self) if first else self.net_.backend
        X, y = inputs.supervised(self, *data[:2], backend, reset=first)
        if first:
            self._inspect_targets(y, classes)
            precision = "float32" if X.dtype == np.float32 else "float64"  # as in scikit-learn
            backend = settings.backend(self, precision)
            self._placed = self.backend, self.precision
        if first or self._drawn_by != self.random_state:
            self._drawn_by: Any = self.random_state
            self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        train_data = self._fit_data(X, y, data[2], backend)
        train_data, val_data = self._split(train_data, validation, backend)
        net = self._network(backend, first)
        self._begin_fit(first, incremental, val_data is not None)
        history = fitting.train(self, net, train_data, val_data, data, incremental)
        self.net_: MLP = net
        self._end_fit(history, len(train_data.y), incremental)
        return self

    def _fit_data(self, X: Any, y: Any, sample_weight: Any, backend: Backend) -> FitData:
        y, targets = self._encode_targets(y)
        if sample_weight is not None:
            sample_weight = inputs.weights(sample_weight, X)
        return FitData(inputs.dense(X, backend.dtype), y, targets, sample_weight)

    def _split(
        self, data: FitData, validation: UserData, backend: Backend
    ) -> tuple[FitData, FitData | None]:
        """Return the training data, and the validation data: the user's, or a share of `data`."""
        X, y, sample_weight = validation
        if X is not None and y is not None:
            with inputs.of_validation():
                X, y = inputs.supervised(self, X, y, backend, reset=False)
                return data, self._fit_data(X, y, sample_weight, backend)
        if any(part is not None for part in validation):
            raise ValueError("X_val and y_val belong together; pass both, or none")
        if not self.early_stopping:
            return data, None
        classes = data.y if is_classifier(self) and data.y.ndim == 1 else None
        return data.split(self.validation_fraction, self._seed, classes)

    def _network(self, backend: Backend, first: bool) -> MLP:
        """Return a new network, or the existing one if the parameters still describe it."""
        loss = self._loss_entry()
        wanted = settings.network(self, loss, self._output_width(loss))
        if first:
            return settings.new_network(self, wanted, backend)
        if name := settings.changed(self, self.net_, wanted):
            raise ValueError(
                f"{name} was changed since the network was built; set it back, or call fit "
                "with warm_start=False for a new network"
            )
        return self.net_

    def _begin_fit(self, first: bool, incremental: bool, validates: bool) -> None:
        """Set the attributes of a fit that begins."""
        if first:
            for name in ("net_", "models_"):  # they were trained on other data
                self.__dict__.pop(name, None)
            self.loss_curve_: list[float] = []
            self.best_loss_: float | None = None if self.early_stopping else math.inf
            self._waited, self.t_ = 0, 0
            self.validation_loss_curve_: list[float] | None = None
            self.validation_scores_: list[float] | None = None
            self.best_validation_score_: float | None = None
            self._best: Array = None  # θ of the best validation score
        if first or not incremental:
            self._optimizer: tuple[Any, ...] = (None, 0, [])  # rule, steps, `stepping.state`
            self._slowed = 1.0  # the factor of "adaptive"
        if first or self._scored_by != self.scoring:
            self._scored_by: Any = self.scoring
            self._best, self._waited = None, 0
            if not first and self.validation_scores_ is not None:
                self.best_validation_score_ = -math.inf  # the scores so far were others
        if validates and self.validation_scores_ is None:
            self.validation_loss_curve_, self.validation_scores_ = [], []
            self.best_validation_score_ = -math.inf
        self.n_iter_, self.loss_ = 0, self.loss_curve_[-1] if self.loss_curve_ else math.nan

    def _end_fit(self, history: History, rows: int, incremental: bool) -> None:
        """Set the attributes of a fit that has ended, and warn where it ended too soon."""
        net = self.net_
        self.t_ += rows * self.n_iter_
        self.n_layers_, self.n_outputs_ = len(net.widths), net.widths[-1]
        last = net.f[-1] if net.loss.link.name == "identity" else net.loss.link
        self.out_activation_ = settings.SCIKIT_LEARN.get(last.name, last.name)
        self.stopped_ = history.stopped
        self._over = incremental and history.stopped == "early"
        if history.stopped == "interrupted" and fitting.ends_by_error.get():
            raise KeyboardInterrupt
        if history.stopped == "interrupted":
            message = f"interrupted after {self.n_iter_} epochs; the estimator can be used"
            warnings.warn(f"Training was {message}", stacklevel=6)
        elif history.stopped == "finished" and not incremental:
            warnings.warn(
                f"Training ended after {self.n_iter_} epochs and had not converged; raise max_iter"
                f"={self.max_iter} or tol={float(self.tol):g}", ConvergenceWarning, stacklevel=6,
            )  # fmt: skip

    def _each_predicted(self, X: Any) -> list[HostArray]:
        """Return the predictions of each model, which are finite."""
        outputs, link = several.outputs(self, X), several.networks(self)[0].loss.link
        with np.errstate(over="ignore"):
            each = [link.f(y_hat, **link.params) for y_hat in outputs]
        for p in each:
            inputs.check_outputs(p)
        return each
