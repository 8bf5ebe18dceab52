"""MLPClassifier: one class an example, or any number of labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from gpumlp.arrays import as_kind_of
from gpumlp.backends import Backend
from gpumlp.estimators import inputs
from gpumlp.estimators.base import BaseMLP
from gpumlp.estimators.inputs import Examples
from gpumlp.estimators.labels import encoded, of_classes
from gpumlp.estimators.settings import goes_on, stored
from gpumlp.functions import (
    LOSSES,
    Activation,
    Initializer,
    Loss,
    Optimizer,
    Regularizer,
    Schedule,
)  # fmt: skip
from gpumlp.functions.entry import lookup
from gpumlp.io.types import HostArray
from gpumlp.training import Callback


class MLPClassifier(ClassifierMixin, BaseMLP):  # type: ignore[misc]
    """A multilayer perceptron that predicts classes, or labels that do not exclude each other.

    Parameters have scikit-learn's names and defaults where they mean what they mean for its own
    MLPClassifier.  Where it differs: solvers and activations are many more; learning_rate is of
    every solver, not of sgd alone, and slows momentum down with it; the first weights are drawn by
    `initializer` and the first biases are 0; a last, smaller minibatch has the λ of the others.

    Args:
        hidden_layer_sizes: the hidden layers' widths.
        activation: of the hidden layers: a name of `gpumlp.ACTIVATIONS` or "logistic", an entry,
            or a list with one for each.
        solver: a name or an entry of `gpumlp.OPTIMIZERS`, or "lbfgs".  "sgd" has momentum.
        alpha: ½·alpha·Σ‖W‖² is added to the sum of a minibatch's losses; biases are left out.
        batch_size: "auto" for 200; all examples where there are fewer.
        learning_rate: "constant"; "invscaling"; "adaptive", which divides it by 5 where training
            would stop, down to 1e-6; or a name or an entry of `gpumlp.SCHEDULES`.
        learning_rate_init: the base learning rate, of every solver but lbfgs.
        power_t: of "invscaling": 1 / (examples seen + 1)^power_t after each epoch.
        max_iter: epochs at most; iterations of lbfgs.
        shuffle: whether each epoch has an order of its own.
        random_state: of the first weights, the orders and the held-out share.
        tol: training stops where the loss, or with early_stopping the validation score, was no
            better by `tol` than its best for more than n_iter_no_change epochs.  For lbfgs, the
            largest entry of the gradient with which it has converged.
        verbose: whether to print each epoch's numbers.
        warm_start: whether `fit` goes on from the parameters of the last one.
        momentum, nesterovs_momentum: of sgd; momentum 0 is plain gradient descent.
        early_stopping: hold out a share unless `fit` got X_val, and end with the parameters of the
            best epoch by its score.
        validation_fraction: that share.
        beta_1, beta_2, epsilon: of adam and adamw.
        n_iter_no_change: see tol.
        max_fun: lbfgs looks at the data at most so many times.
        loss: "auto": binary cross-entropy for two classes and for labels, else softmax's; or a name
            or an entry of `gpumlp.LOSSES` of classes.  Of more classes binary_cross_entropy is one
            against the rest.
        class_weight: weights by class, or "balanced": all classes get the same share of the whole.
        output_activation: of the last layer; "auto": none, or softmax for a loss of probabilities.
        regularizer: a name or an entry of `gpumlp.REGULARIZERS`, as it is, in place of alpha.
        initializer: of the weights, as in `gpumlp.MLP`.  The default starts small, which on small
            data sets generalises better than what None picks; for a deep network pass None.
        clip_norm: the largest norm of the gradient that a step uses.
        scoring: the validation score, by a scorer's name or as ``scorer(estimator, X, y)``; None
            for the share of examples with all labels right.
        callbacks: `gpumlp.Callback` objects.  scikit-learn's own go by `set_callbacks`.
        backend: "auto", "numpy", "cupy", or a backend.
        precision: as in `gpumlp.MLP`; with "float64" all of scikit-learn's checks pass, in float32
            all but two, which ask for more digits.  "auto": float32 for X of that type and on a
            GPU, else float64, as scikit-learn's own.

    Attributes:
        classes_: (n_classes,), or the numbers of the labels' columns.
        net_: the `gpumlp.MLP`, whose `save` writes it to a file.
        coefs_, intercepts_: its parameters, weights as (n_in, n_out): copies on the host.
        n_features_in_, feature_names_in_: of X; the names where X had some.
        n_iter_, t_: epochs of the last fit, and the examples seen since the first.
        loss_, best_loss_, loss_curve_: the training loss of the last, best and each epoch: the sum
            over an example's outputs, with what alpha adds.
        validation_loss_curve_, validation_scores_, best_validation_score_: likewise; None where
            nothing validated.
        n_layers_, n_outputs_, out_activation_: layers with the input's, and the last one's.
        stopped_: as `gpumlp.History.stopped`: "early", "finished" where max_iter epochs were done,
            "interrupted" by Ctrl-C, or "converged", lbfgs.

    Examples:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> e = MLPClassifier((32, 32), "gelu", solver="lbfgs", random_state=0)
        >>> e.fit(X, y).score(X, y) > 0.95
        True
    """

    _numeric = False

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str | Activation | Sequence[str | Activation] = "relu",
        *,
        solver: str | Optimizer = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str | Schedule = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        loss: str | Loss = "auto",
        class_weight: Mapping[Any, float] | str | None = None,
        output_activation: str | Activation = "auto",
        regularizer: str | Regularizer | None = None,
        initializer: str | Initializer | None = "fan_in",
        clip_norm: float | None = None,
        scoring: str | Callable[..., float] | None = None,
        callbacks: Sequence[Callback] | None = None,
        backend: str | Backend = "auto",
        precision: str = "float32",
    ) -> None:
        stored(self, locals())

    @available_if(goes_on)  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None, X_val: Any = None,
        y_val: Any = None, sample_weight_val: Any = None,
    ) -> Self:  # fmt: skip
        """One epoch on these examples, with the optimizer's state from the call before.

        With early_stopping each call is scored on X_val, or on a share of its examples held out,
        the same share each time for the same examples.  Where the score was no better for more than
        n_iter_no_change calls, the best call's parameters are restored, `stopped_` is "early", and
        later calls change nothing.

        `classes` are all there are, for the first call; all else is as in `fit`.
        """
        if classes is None and not hasattr(self, "net_"):
            raise ValueError("classes must be passed to the first call of partial_fit: all of them")
        asked = None if classes is None else np.unique(inputs.host(classes, "classes"))
        if hasattr(self, "net_") and asked is not None and list(asked) != list(self.classes_):
            raise ValueError(
                f"classes were {self.classes_.tolist()} in the first call of partial_fit and "
                "cannot change; leave them out, or take a new estimator"
            )
        held = (X_val, y_val, sample_weight_val)
        return self._partial_fit((X, y, sample_weight), held, asked)

    def predict_proba(self, X: Any) -> Any:
        """The classes' probabilities, (m, n_classes), or each label's, as X's kind of array."""
        return as_kind_of(self._probabilities(self._linked(X)), X)

    def predict_log_proba(self, X: Any) -> Any:
        """log p, as `predict_proba`."""
        with np.errstate(divide="ignore"):
            return as_kind_of(np.log(self._probabilities(self._linked(X))), X)

    def __sklearn_tags__(self) -> Any:
        """Several labels an example are taken."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    # ---- what y holds -------------------------------------------------------------------------

    def _learn(self, y: HostArray, classes: Any) -> None:
        check_classification_targets(y)
        self._multilabel = type_of_target(y).startswith("multilabel")
        if self._multilabel:
            self.classes_ = np.arange(y.shape[1])
        else:
            self.classes_ = np.unique(column_or_1d(y, warn=True)) if classes is None else classes

    def _targets(self, y: Any) -> tuple[HostArray, HostArray]:
        if self._multilabel:
            y = y.toarray() if sp.issparse(y) else y
            return y, y.astype(np.int8)
        y = column_or_1d(y)
        codes = encoded(y, self.classes_)
        if self._units(self._entry()) == 1 or self._entry().target == "class":
            return y, codes
        return y, np.eye(len(self.classes_), dtype=np.int8)[codes]

    def _entry(self) -> Loss:
        """The loss; "auto": of one logit a label or for two classes, else of softmax's."""
        name = self.loss
        if name == "auto":
            one_logit = self._multilabel or len(self.classes_) <= 2
            name = "binary_cross_entropy" if one_logit else "softmax_cross_entropy"
        loss: Loss = lookup(LOSSES, "loss", name)
        takes = ("binary",) if self._multilabel else ("binary", "class")
        if loss.target not in takes:
            what = "labels that do not exclude each other" if self._multilabel else "classes"
            raise ValueError(
                f"{loss.name} is no loss of {what}; pass loss='auto', or use MLPRegressor"
            )
        return loss

    def _units(self, loss: Loss) -> int:
        one = loss.target == "binary" and not self._multilabel and len(self.classes_) <= 2
        return 1 if one else len(self.classes_)

    def _strata(self, data: Examples) -> HostArray | None:
        return None if self._multilabel else data.y

    def _weights(self, data: Examples, incremental: bool) -> HostArray | None:
        """The sample weights times the class weights."""
        if self.class_weight is None:
            return data.weights
        if self._multilabel:
            raise ValueError("class_weight needs one class an example; pass sample_weight instead")
        codes = np.searchsorted(self.classes_, data.y)
        if incremental and self.class_weight == "balanced":
            raise ValueError(
                'class_weight="balanced" needs all examples at once; pass partial_fit a dict, by '
                "sklearn.utils.class_weight.compute_class_weight say"
            )
        weights = of_classes(self.class_weight, self.classes_, codes, data.weights)[codes]
        return weights if data.weights is None else weights * data.weights

    def _probabilities(self, p: HostArray) -> HostArray:
        """(m, number of classes), each row adding up to 1; of labels each for itself."""
        if self._multilabel:
            return p
        if p.shape[1] == 1:
            return np.hstack([1 - p, p]) if len(self.classes_) == 2 else np.ones_like(p)
        total = p.sum(axis=1, keepdims=True)
        even = np.full_like(p, 1 / p.shape[1])
        return (
            p
            if self.net_.loss.target == "class"
            else np.divide(p, total, out=even, where=total > 0)
        )

    def _decided(self, p: HostArray) -> HostArray:
        if self._multilabel:
            return (p > 0.5).astype(int)
        one = p.shape[1] == 1
        codes = (p[:, 0] > 0.5) * (len(self.classes_) - 1) if one else p.argmax(axis=1)
        labels: HostArray = self.classes_[codes]
        return labels

    def _measure(self, y: HostArray, p: HostArray, weights: HostArray | None) -> float:
        """The share of examples with all labels right."""
        return float(accuracy_score(y, self._decided(p), sample_weight=weights))
