"""MLPClassifier: one class per example, or any number of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from sklearn.base import ClassifierMixin
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from gpumlp.arrays import as_kind_of
from gpumlp.estimators import inputs, several
from gpumlp.estimators.base import BaseMLP
from gpumlp.estimators.inputs import FitData, accuracy, numbered
from gpumlp.estimators.settings import has_partial_fit
from gpumlp.functions import LOSSES, Activation, Loss
from gpumlp.functions.entry import lookup
from gpumlp.io.types import HostArray
from gpumlp.weights import positive_weights


@dataclass(eq=False, repr=False)
class MLPClassifier(ClassifierMixin, BaseMLP):  # type: ignore[misc]
    """A multilayer perceptron that predicts classes, or several labels per example.

    Parameters have the names and defaults of scikit-learn's MLPClassifier where they mean the same.
    The differences: there are many more solvers and activations; learning_rate applies to every
    solver, not to sgd alone, and momentum slows down with it; `initializer` draws the first
    weights, and the first biases are 0; a smaller last minibatch has the same λ as the others.

    Args:
        hidden_layer_sizes: widths of the hidden layers.
        activation: activation of the hidden layers: a name of `gpumlp.ACTIVATIONS` or "logistic",
            an entry, or a list with one for each layer.
        solver: a name or an entry of `gpumlp.OPTIMIZERS`, or "lbfgs".  "sgd" has momentum.
        alpha: ½·alpha·Σ‖W‖² is added to the sum of a minibatch's losses; biases are not included.
            Sample weights that are all below 1 count relative to the largest of them.
        batch_size: "auto" is 200, or all examples where there are fewer.
        learning_rate: "constant"; "invscaling"; "adaptive", which divides it by 5 where training
            would stop, down to 1e-6; or a name or an entry of `gpumlp.SCHEDULES`.
        learning_rate_init: the base learning rate of every solver except lbfgs.
        power_t: exponent of "invscaling": 1 / (examples seen + 1)^power_t after each epoch.
        max_iter: the largest number of epochs, or of iterations of lbfgs.
        shuffle: whether each epoch has its own order of the examples.
        random_state: seed of the first weights, the orders and the validation share.
        tol: training stops after more than n_iter_no_change epochs in which the loss or, with
            early_stopping, the validation score has not improved on its best value by `tol`.  With
            lbfgs: it has converged when no entry of the gradient is larger.
        verbose: whether to print each epoch's numbers.
        warm_start: whether `fit` continues from the parameters of the last fit.  Parameters that
            describe the network cannot have changed since.
        momentum, nesterovs_momentum: momentum of sgd; 0 is plain gradient descent.
        early_stopping, validation_fraction: whether to validate on this share of the data, unless
            `fit` got X_val, and to end with the parameters of the epoch with the best score.
        beta_1, beta_2, epsilon: constants of adam and adamw.  adam adds epsilon to √v before the
            correction of v, as scikit-learn's, adamw after it, as torch's.
        n_iter_no_change: see tol.
        max_fun: the largest number of evaluations of loss and gradient by lbfgs.
        output_activation: activation of the last layer; "auto" is the identity, or softmax for a
            loss of probabilities.
        regularizer: a name or an entry of `gpumlp.REGULARIZERS`, which replaces alpha.
        initializer: as in `gpumlp.MLP`, or "auto": the small weights of "fan_in", with those of
            "glorot" in a classifier's last layer.  In long trainings they overfit less than those
            of None, and in short ones they learn more slowly.  For a deep network pass None.
        norm, dropout, residual, gated: the blocks of the layers, as in `gpumlp.MLP`: "layer", "rms"
            or "batch"; the probability with which training sets an output of a hidden layer to 0;
            True or how many layers each skip spans; the activation of a gate, such as "silu".  A
            list has one entry for each layer.  For scores and predictions nothing is dropped, but
            loss_ is that of the training, with dropout.  alpha is for the weights W alone.
        embed: columns of categories, words or numbers. For each category the network learns a
            vector in place of the column: {"city": 16} for a data frame's column, or {3: 16} for a
            position, has vectors of 16 entries; 16 alone is for all columns of words, whose vectors
            have no more entries than the column has categories. The first fit determines the
            categories. All other values share a vector, and so do missing ones; these begin at 0
            where the first fit has no such value, and then add nothing.
        clip_norm: the largest norm of the gradient that a step uses.
        scoring: the validation score: the name of a scorer, or ``scorer(estimator, X, y)``; None is
            the share of examples with all labels right.
        callbacks: `gpumlp.Callback` objects.  Pass scikit-learn's own to `set_callbacks`.
        backend: "auto", "cupy", "cpu", "numpy", or a backend.
        precision: as in `gpumlp.MLP`.  With "float64" all of scikit-learn's checks pass, with
            "float32" all but two, which ask for more digits.  "auto" is float32 for X of that type
            and on a GPU, else float64, as scikit-learn's own.
        n_models: the number of models, which are fitted together: each as an estimator of its own,
            with a random state that random_state draws.  Predictions are the mean of their
            probabilities or values.  The attributes are then models_, ensemble_, classes_,
            n_features_in_, feature_names_in_, n_iter_ (the most), loss_ (the mean), n_layers_,
            n_outputs_ and out_activation_; all others are those of each model.
        loss: "auto" is binary cross-entropy for two classes and for several labels, else softmax
            cross-entropy; or a name or an entry of `gpumlp.LOSSES` for classes.  With more than two
            classes, binary_cross_entropy is one class against the rest.
        class_weight: a weight for each class, or "balanced", which gives all classes the same share
            of the total weight.  A mapping may have classes that y lacks if it has all of y's.

    Attributes:
        classes_: (n_classes,) the classes, or the column numbers of the labels.
        categories_: with `embed`, the categories of each embedded column, by position.
        models_, ensemble_: with n_models above 1, the fitted estimators, but for those that
            diverged; and their networks, a `gpumlp.Ensemble`.
        net_: the `gpumlp.MLP`; its `save` writes it to a file.
        coefs_, intercepts_: its parameters, weights as (n_in, n_out): read-only copies on the host.
            Assign a list, or to an entry of the list, to change the network.
        n_features_in_, feature_names_in_: the number of features, and their names if X had names.
        n_iter_, t_: the epochs of the last fit, and the examples seen since the first.
        loss_, best_loss_, loss_curve_: the training loss of the last, best and each epoch, with
            what alpha adds: of classes the sum over an example's outputs, of values their mean.
            best_loss_ is None with early_stopping.
        validation_loss_curve_, validation_scores_, best_validation_score_: the same of the
            validation data; None if there was none.
        n_layers_, n_outputs_, out_activation_: the number of layers, with the input; the width and
            the activation of the last one.
        stopped_: as `gpumlp.History.stopped`: "early"; "finished" after max_iter epochs;
            "interrupted" by Ctrl-C; or "converged", for lbfgs.

    Examples:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> e = MLPClassifier((32, 32), "gelu", solver="lbfgs", random_state=0)
        >>> e.fit(X, y).score(X, y) > 0.95
        True
    """

    hidden_layer_sizes: int | Sequence[int] = (100,)
    activation: str | Activation | Sequence[str | Activation] = "relu"
    _: KW_ONLY
    loss: str | Loss = "auto"
    class_weight: Mapping[Any, float] | str | None = None

    _usual_score = staticmethod(accuracy)
    score = BaseMLP.score

    @available_if(has_partial_fit)  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None, X_val: Any = None,
        y_val: Any = None, sample_weight_val: Any = None,
    ) -> Self:  # fmt: skip
        """Train for one epoch on these examples, with the optimizer's state of the last call.

        With early_stopping, each call computes the score of X_val, or of a share of its examples
        that is not trained on; it is the same share for the same examples.  After more than
        n_iter_no_change calls without a better score, the parameters of the best call are restored,
        `stopped_` is "early", and later calls change nothing.

        The first call needs all `classes`.  The other arguments are as in `fit`.
        """
        begun = hasattr(self, "net_") or hasattr(self, "models_")
        if classes is None and not begun:
            raise ValueError("classes must be passed to the first call of partial_fit: all of them")
        if classes is not None:
            given, classes = classes, inputs.host(classes, "classes")
            if isinstance(given, (Set, str)) or np.ndim(classes) != 1 or not len(classes):
                raise TypeError(f"classes must be a list of all classes, got {given!r}")
            inputs.check_labels(classes, "classes")
        unique = None if classes is None else np.unique(classes)
        if begun and unique is not None and list(unique) != list(self.classes_):
            raise ValueError(
                f"classes were {self.classes_.tolist()} in the first call of partial_fit and "
                "cannot change; leave them out, or use a new estimator"
            )
        validation = (X_val, y_val, sample_weight_val)
        return self._fit((X, y, sample_weight), validation, unique, incremental=True)

    def predict_proba(self, X: Any) -> Any:
        """Return the probabilities of the classes, or of each label, (m, n_classes), like X.

        They are float64, so that large logits keep their order; each row adds up to 1, except of
        several labels.
        """
        return as_kind_of(np.exp(self._log_probabilities(X)), X)

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithm of `predict_proba`, which is finite."""
        return as_kind_of(self._log_probabilities(X), X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    # ---- what depends on y --------------------------------------------------------------------

    def _inspect_targets(self, y: HostArray, classes: Any) -> None:
        known = np.unique(y) if numbered(y) else None
        if known is None or 2 * len(known) > len(y):  # scikit-learn warns of so many classes
            check_classification_targets(y)
        self._multilabel = known is None and type_of_target(y).startswith("multilabel")
        if self._multilabel:
            self.classes_ = np.arange(y.shape[1])
        else:
            known = np.unique(column_or_1d(y, warn=True)) if known is None else known
            self.classes_ = known if classes is None else classes

    def _encode_targets(self, y: Any) -> tuple[HostArray, HostArray]:
        if self._multilabel:
            y = y.toarray() if sp.issparse(y) else y
            return y, y.astype(np.int8)
        if numbered(y) and numbered(self.classes_):
            codes = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1)
            if (self.classes_[codes] == y).all():
                return y, self._targets(codes)
        y, encoder = column_or_1d(y), LabelEncoder()
        encoder.classes_ = self.classes_
        try:
            codes = encoder.transform(y)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{error}; the classes are {', '.join(map(repr, self.classes_.tolist()))}: leave "
                "out such rows, call fit with warm_start=False, or name all of them in the first "
                "partial_fit"
            ) from error
        return y, self._targets(codes)

    def _targets(self, codes: HostArray) -> HostArray:
        loss = self._loss_entry()
        if self._output_width(loss) == 1 or loss.target == "class":
            return codes
        return np.eye(len(self.classes_), dtype=np.int8)[codes]

    def _loss_entry(self) -> Loss:
        name = self.loss
        if name == "auto":
            binary = self._multilabel or len(self.classes_) <= 2
            name = "binary_cross_entropy" if binary else "softmax_cross_entropy"
        loss: Loss = lookup(LOSSES, "loss", name)
        if loss.target != "binary" and (self._multilabel or loss.target != "class"):
            task = "several labels per example" if self._multilabel else "classification"
            raise ValueError(
                f"loss {loss.name!r} does not support {task}; pass loss='auto', or use MLPRegressor"
            )
        return loss

    def _output_width(self, loss: Loss) -> int:
        one = loss.target == "binary" and not self._multilabel and len(self.classes_) <= 2
        return 1 if one else len(self.classes_)

    def _class_weights(self, data: FitData, incremental: bool) -> HostArray | None:
        by_class, known = self.class_weight, self.classes_.tolist()
        if by_class is None:
            return None
        if self._multilabel:
            raise ValueError("class_weight needs one class per example; pass sample_weight instead")
        if isinstance(by_class, Mapping):
            unknown = [c for c in by_class if c not in known]
            # as in scikit-learn: a fold may lack a class, but a name that is misspelt is an error
            if unknown and any(c not in by_class for c in known):
                raise ValueError(
                    f"class_weight has the class {unknown[0]!r}, which is not in y; the classes are"
                    f" {', '.join(map(repr, known))}: correct it, or give each of them a weight"
                )
            weights = [by_class.get(c, 1.0) for c in known]
            return positive_weights(weights, len(known), "class_weight", "class")
        if not isinstance(by_class, str) or by_class != "balanced":
            raise ValueError(
                f'class_weight must be "balanced" or a dict by class, got {by_class!r}'
            )
        if incremental:
            raise ValueError(
                'class_weight="balanced" needs all examples at once; for partial_fit, set it to a '
                'dict: dict(zip(classes, sklearn.utils.class_weight.compute_class_weight("balanced"'
                ", classes=numpy.array(classes), y=y)))"
            )
        codes = np.searchsorted(self.classes_, data.y)
        count = np.bincount(codes, data.weights, minlength=len(known))
        even = count.sum() / len(known)
        balanced: HostArray = np.divide(even, count, out=np.zeros(len(known)), where=count > 0)
        return balanced

    def _each_predicted(self, X: Any) -> list[HostArray]:
        outputs, link = several.outputs(self, X), several.networks(self)[0].loss.link
        return [link.f(y_hat.astype(np.float64), **link.params) for y_hat in outputs]

    def _log_probabilities(self, X: Any) -> HostArray:
        outputs, loss = several.outputs(self, X), several.networks(self)[0].loss
        each = [loss.log_probabilities(y_hat, self._multilabel) for y_hat in outputs]
        log_p, *others = each
        if others:  # of the mean of the models
            log_p = np.logaddexp.reduce(each, axis=0) - np.log(len(each))
        one = len(self.classes_) == 1 and not self._multilabel
        return np.zeros_like(log_p[:, :1]) if one else log_p

    def _decide(self, p: HostArray) -> HostArray:
        if self._multilabel:
            return (p > 0.5).astype(int)
        one = p.shape[1] == 1
        codes = (p[:, 0] > 0.5) * (len(self.classes_) - 1) if one else p.argmax(axis=1)
        labels: HostArray = self.classes_[codes]
        return labels
