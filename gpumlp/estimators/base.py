"""BaseMLP: what the classifier and the regressor share, a thin layer over `gpumlp.Trainer`."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from gpumlp.arrays import as_kind_of
from gpumlp.backends import Backend
from gpumlp.estimators import inputs, settings
from gpumlp.estimators.callbacks import CallbackSupportMixin, with_callbacks
from gpumlp.estimators.fitting import Given, train
from gpumlp.estimators.inputs import Examples
from gpumlp.functions import Loss
from gpumlp.io.types import Array, HostArray
from gpumlp.network import MLP
from gpumlp.training import History


class BaseMLP(CallbackSupportMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """A multilayer perceptron with scikit-learn's methods.

    A subclass knows what y may hold: `_learn` notes it, `_targets` turns it into the network's
    targets, `_entry` gives the loss and `_units` its width, `_weights` the examples' weights in it,
    `_decided` what is predicted, and `_measure` how good that is.
    """

    _numeric: bool  # whether y holds numbers, or labels of any kind
    n_outputs_: int
    net_: MLP

    @with_callbacks  # type: ignore[untyped-decorator]
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Train from new parameters or, with warm_start, from those of the last fit.

        Ctrl-C ends it with a warning and an estimator that can be used.

        Args:
            X: (m, n_0): an array of NumPy, CuPy, torch or JAX, a data frame, or a sparse matrix,
                which is made dense.
            y: (m,) or (m, k): labels, rows of 0 and 1, or values.
            sample_weight: (m,), 0 and up: a minibatch's loss is the weighted mean.
            X_val: what the training is validated on, in place of a share of X.
            y_val: its y.
            sample_weight_val: its weights.

        Raises:
            ValueError, TypeError: an argument or a parameter is not as said; nothing was trained.
            FloatingPointError: the training diverged.
        """
        return self._fit((X, y, sample_weight), (X_val, y_val, sample_weight_val))

    def _partial_fit(self, given: Given, held: Given, classes: Any = None) -> Self:
        """An epoch on these examples, unless early stopping has ended the training."""
        if getattr(self, "_over", False) and self.early_stopping:
            warnings.warn(
                "early stopping has ended this training, and partial_fit changes nothing any more:"
                " look at stopped_, or pass early_stopping=False", stacklevel=3,
            )  # fmt: skip
            return self
        return self._fit(given, held, classes, incremental=True)

    def predict(self, X: Any) -> Any:
        """ŷ of X (m, n_0), as the kind of array that X is where that can hold it."""
        return as_kind_of(self._decided(self._linked(X)), X)

    @property
    def coefs_(self) -> list[HostArray]:
        """Each layer's weights as scikit-learn has them, (n_in, n_out): copies on the host."""
        return [self.net_.backend.to_host(layer.W).T for layer in self.net_.layers]

    @property
    def intercepts_(self) -> list[HostArray]:
        """Each layer's biases, (n_out,): copies on the host."""
        return [self.net_.backend.to_host(layer.b) for layer in self.net_.layers]

    def __getstate__(self) -> dict[str, Any]:
        """What pickle keeps: all, the optimizer's state on the host."""
        state = dict(super().__getstate__())
        if self.__dict__.get("net_") is not None:
            backend = self.net_.backend
            state["_optimizer"] = {
                name: backend.to_host(value) if backend.owns(value) else value
                for name, value in self._optimizer.items()
            }
            state["_best"] = backend.to_host(self._best) if backend.owns(self._best) else self._best
        return state

    def __sklearn_tags__(self) -> Any:
        """Sparse X and y of several columns are taken."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # ---- what a subclass knows of y -----------------------------------------------------------

    @abstractmethod
    def _learn(self, y: HostArray, classes: Any) -> None:
        """Note what y holds, at the first fit."""

    @abstractmethod
    def _targets(self, y: Any) -> tuple[HostArray, HostArray]:
        """(y, t): as scorers and as the network take it."""

    @abstractmethod
    def _entry(self) -> Loss:
        """The loss."""

    @abstractmethod
    def _units(self, loss: Loss) -> int:
        """n_L, the width of the output layer."""

    def _weights(self, data: Examples, incremental: bool) -> HostArray | None:
        """The examples' weights in the training loss."""
        return data.weights

    @abstractmethod
    def _decided(self, p: HostArray) -> HostArray:
        """What `predict` returns for the network's output."""

    @abstractmethod
    def _measure(self, y: HostArray, p: HostArray, weights: HostArray | None) -> float:
        """The score of the network's output."""

    # ---- one fit ------------------------------------------------------------------------------

    def _fit(
        self, given: Given, held: Given, classes: Any = None, incremental: bool = False
    ) -> Self:
        """`fit`, or with `incremental` an epoch of `partial_fit`."""
        settings.check(self)
        first = not hasattr(self, "net_") or not (incremental or self.warm_start)
        backend = settings.backend(self) if first else self.net_.backend
        X, y = inputs.supervised(self, *given[:2], backend, reset=first, numeric=self._numeric)
        if first:
            self._learn(y, classes)
            backend = settings.backend(self, inputs.precision_of(X))
            self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        data = self._examples(X, y, given[2], backend)
        data, validation = self._validation(data, held, backend)
        net = self._network(backend, first)
        self._start(first, incremental, validation)
        history = train(self, net, data, validation, given, incremental)
        self.net_ = net
        self._end(history, len(data), incremental)
        return self

    def _examples(self, X: Any, y: Any, sample_weight: Any, backend: Backend) -> Examples:
        y, t = self._targets(y)
        if sample_weight is not None:
            sample_weight = inputs.host(sample_weight, "sample_weight")
            sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        return Examples(inputs.dense(X, backend.dtype), y, t, sample_weight)

    def _validation(
        self, data: Examples, held: Given, backend: Backend
    ) -> tuple[Examples, Examples | None]:
        """What is trained on, and what validates: what was given, or a share held out."""
        X, y, sample_weight = held
        if X is not None and y is not None:
            X, y = inputs.supervised(self, X, y, backend, reset=False, numeric=self._numeric)
            return data, self._examples(X, y, sample_weight, backend)
        if any(part is not None for part in held):
            raise ValueError("X_val and y_val belong together; pass both, or none")
        if not self.early_stopping:
            return data, None
        return data.split(self.validation_fraction, self._seed, self._strata(data))

    def _strata(self, data: Examples) -> HostArray | None:
        """The classes of which a held-out share should have all."""
        return None

    def _network(self, backend: Backend, first: bool) -> MLP:
        """A new network, or the one that is there if it is still what was asked for."""
        loss = self._entry()
        asked = settings.network(self, loss, self._units(loss))
        if first:
            return MLP(**asked, initializer=self.initializer, backend=backend, seed=self._seed)
        net = self.net_
        there = {
            "hidden_layer_sizes": list(net.widths), "activation": net.f[1:-1],
            "output_activation": net.f[-1], "loss": net.loss,
        }  # fmt: skip
        for (name, found), wanted in zip(there.items(), asked.values(), strict=True):
            if found != wanted:
                raise ValueError(
                    f"{name} was changed since the network was built; set it back, or call fit "
                    "with warm_start=False for a new network"
                )
        return net

    def _start(self, first: bool, incremental: bool, validation: Examples | None) -> None:
        """The attributes of a fit as it begins."""
        if first:
            self.__dict__.pop("net_", None)  # is of other data now
            self.loss_curve_: list[float] = []
            self.best_loss_, self._waited, self.t_ = math.inf, 0, 0
            self.validation_loss_curve_: list[float] | None = None
            self.validation_scores_: list[float] | None = None
            self.best_validation_score_: float | None = None
            self._best: Array = None
        if first or not incremental:
            self._optimizer: dict[str, Any] = {}
            self._slowed = self.learning_rate_init
        if validation is not None and self.validation_scores_ is None:
            self.validation_loss_curve_, self.validation_scores_ = [], []
            self.best_validation_score_ = -math.inf
        self.n_iter_, self.loss_ = 0, self.loss_curve_[-1] if self.loss_curve_ else math.nan

    def _end(self, history: History, rows: int, incremental: bool) -> None:
        """The attributes of a fit as it ends, and what its user should know."""
        net = self.net_
        self.t_ += rows * self.n_iter_
        self.n_layers_, self.n_outputs_ = len(net.widths), net.widths[-1]
        self.out_activation_ = settings.out_activation(net.loss, net.f[-1])
        self.stopped_ = history.stopped
        self._over = incremental and history.stopped == "early"
        if history.stopped == "interrupted":
            warnings.warn(
                f"Training was interrupted after {self.n_iter_} epochs; the estimator can be used",
                stacklevel=4,
            )
        elif history.stopped == "finished" and not incremental:
            warnings.warn(
                f"Training ended after {self.n_iter_} epochs and had not converged; raise max_iter"
                f"={self.max_iter} or tol={self.tol:g}",
                ConvergenceWarning,
                stacklevel=4,
            )

    def _linked(self, X: Any) -> HostArray:
        """The network's predictions of X, (m, n_L), on the host."""
        check_is_fitted(self, "net_")
        net, backend = self.net_, self.net_.backend
        X = inputs.features(self, X, backend)
        parts = [net.predict(part) for part in inputs.dense_parts(X, backend.dtype)]
        hosts = [p if isinstance(p, np.ndarray) else backend.to_host(p) for p in parts]
        return hosts[0] if len(hosts) == 1 else np.concatenate(hosts)
