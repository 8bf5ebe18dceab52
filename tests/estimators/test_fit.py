"""What the estimators add to scikit-learn's: losses, weights, validation, partial_fit, stopping."""

from __future__ import annotations

import copy
import pickle
import signal

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, r2_score, roc_auc_score

import gpumlp
from gpumlp.estimators import MLPClassifier, MLPRegressor
from tests.support.training_cases import Hook

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(5)
X, CLASSES = make_classification(
    200, 6, n_informative=4, n_classes=3, n_clusters_per_class=1, random_state=1
)
NAMES = np.array(["ash", "birch", "cedar"])[CLASSES]
VALUES = np.sin(X[:, 0]) + X[:, 1] * X[:, 2]
SMALL = {"hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0, "backend": "numpy"}
SMALL |= {"precision": "auto"}  # that of X: float64


def same(a, b):
    for p, q in zip([*a.coefs_, *a.intercepts_], [*b.coefs_, *b.intercepts_], strict=True):
        np.testing.assert_array_equal(p, q)


# ---- outputs -------------------------------------------------------------------------------------


def test_predictions_equal_numpy():
    e = MLPClassifier(**SMALL, activation=["gelu"]).fit(X, NAMES)
    h = gpumlp.ACTIVATIONS["gelu"].f(X @ e.coefs_[0] + e.intercepts_[0])
    p = softmax(h @ e.coefs_[1] + e.intercepts_[1], axis=1)
    np.testing.assert_allclose(e.predict_proba(X), p, rtol=1e-12)
    np.testing.assert_allclose(e.predict_log_proba(X), np.log(p), rtol=1e-9)
    assert list(e.predict(X)) == [("ash", "birch", "cedar")[i] for i in p.argmax(axis=1)]


@pytest.mark.parametrize(
    ("loss", "units", "out"),
    [
        ("auto", 3, "softmax"), ("softmax_cross_entropy", 3, "softmax"),
        (gpumlp.LOSSES["softmax_cross_entropy"].set(smoothing=0.1), 3, "softmax"),
        ("negative_log_likelihood", 3, "softmax"), ("binary_cross_entropy", 3, "logistic"),
    ],
)  # fmt: skip
def test_every_loss_learns_three_classes(loss, units, out):
    e = MLPClassifier((16,), loss=loss, max_iter=60, learning_rate_init=0.02, random_state=0)
    e.set_params(precision="float64").fit(X, NAMES)
    assert (e.n_outputs_, e.out_activation_) == (units, out)
    assert e.score(X, NAMES) > 0.85
    np.testing.assert_allclose(e.predict_proba(X).sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize(("loss", "units"), [("auto", 1), ("softmax_cross_entropy", 2)])
def test_two_classes_have_one_logit_or_two(loss, units):
    y = NAMES == "birch"
    e = MLPClassifier((16,), loss=loss, max_iter=60, learning_rate_init=0.02, random_state=0)
    p = e.set_params(precision="float64").fit(X, y).predict_proba(X)
    z = np.maximum(X @ e.coefs_[0] + e.intercepts_[0], 0) @ e.coefs_[1] + e.intercepts_[1]
    expected = expit(z[:, 0]) if units == 1 else softmax(z, axis=1)[:, 1]
    np.testing.assert_allclose(p[:, 1], expected, rtol=1e-9)
    assert e.n_outputs_ == units
    assert (e.predict(X) == (p[:, 1] > 0.5)).all()
    assert e.score(X, y) > 0.9


def test_several_labels_are_predicted_independently():
    y = np.stack([CLASSES == 0, CLASSES != 1, X[:, 0] > 0], axis=1).astype(int)
    e = MLPClassifier((32,), max_iter=100, learning_rate_init=0.02, random_state=0).fit(X, y)
    p = e.predict_proba(X)
    assert p.shape == y.shape
    assert not np.allclose(p.sum(axis=1), 1)
    np.testing.assert_array_equal(e.predict(X), (p > 0.5).astype(int))
    assert e.score(X, y) > 0.9
    np.testing.assert_array_equal(e.classes_, [0, 1, 2])


@pytest.mark.parametrize("settings", [{}, {"hidden_layer_sizes": (), "backend": "numpy"}])
def test_first_weights_are_small_but_for_the_last_layer_of_classifiers(settings):
    """Some epochs of the default settings would else be behind scikit-learn's."""
    settings = {**SMALL, "max_iter": 1, "learning_rate_init": 1e-12, **settings}
    e, small = (
        MLPClassifier(**settings, initializer=name).fit(X, NAMES) for name in ("auto", "fan_in")
    )
    for W, other in zip(e.coefs_[:-1], small.coefs_[:-1], strict=True):
        np.testing.assert_allclose(W, other, atol=1e-9)
    n, k = e.coefs_[-1].shape
    assert 0.6 < np.abs(e.coefs_[-1]).max() / np.sqrt(6 / (n + k)) <= 1 + 1e-9
    assert np.abs(small.coefs_[-1]).max() <= np.sqrt(1 / n) + 1e-9
    r, small = (
        MLPRegressor(**settings, initializer=name).fit(X, VALUES) for name in ("auto", "fan_in")
    )
    same(r, small)


@pytest.mark.parametrize("q", [0.1, 0.9])
def test_quantile_loss_learns_the_quantile(q):
    x = RNG.uniform(-1, 1, (600, 1))
    y = x[:, 0] + RNG.exponential(size=600)
    loss = gpumlp.LOSSES["quantile"].set(q=q)
    e = MLPRegressor(loss, (16,), max_iter=150, learning_rate_init=0.01, random_state=0)
    assert np.mean(y <= e.fit(x, y).predict(x)) == pytest.approx(q, abs=0.04)


def test_output_activation_bounds_predictions():
    e = MLPRegressor(output_activation="softplus", **SMALL).fit(X, np.abs(VALUES))
    assert e.predict(100 * X).min() >= 0
    assert e.out_activation_ == "softplus"


@pytest.mark.parametrize("solver", [*gpumlp.OPTIMIZERS, gpumlp.OPTIMIZERS["adam"].set(beta1=0.5)])
def test_every_optimizer_is_a_solver(solver):
    e = MLPClassifier((16,), solver=solver, max_iter=120, random_state=0, learning_rate_init=0.005)
    if solver in ("sgd", "momentum", "nesterov", "muon"):
        e.set_params(learning_rate_init=0.05)
    assert e.fit(X, NAMES).loss_ < 0.5 * e.loss_curve_[0]


# ---- coefs_ --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["coefs_", "intercepts_"])
def test_assigned_parameters_are_those_of_the_network(name):
    """For example federated averaging and pruning assign them."""
    e, other = (MLPClassifier(**{**SMALL, "random_state": i}).fit(X, NAMES) for i in (0, 1))
    before = e.predict_proba(X)
    both = zip(getattr(e, name), getattr(other, name), strict=True)
    setattr(e, name, [(a + b) / 2 for a, b in both])
    assert not np.array_equal(e.predict_proba(X), before)
    arrays = getattr(e, name)
    arrays[-1] = np.zeros_like(arrays[-1])
    arrays[:1] = [2 * arrays[0]]
    assert not getattr(e, name)[-1].any()
    for held, shown in zip(getattr(e, name), arrays, strict=True):
        np.testing.assert_array_equal(held, shown)


def test_writing_into_a_copy_of_the_parameters_raises():
    e = MLPRegressor(**SMALL).fit(X, VALUES)
    W, b = e.coefs_[0], e.intercepts_[0]
    for write in (
        lambda: W.__setitem__(..., 0), lambda: b.__setitem__(0, 1), lambda: W[0].__setitem__(0, 1),
        lambda: np.multiply(W, 0, out=W),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"e\.coefs_\[0\] = W$"):
            write()
    W = e.coefs_[0].copy()  # the correction
    W[...] = 0
    e.coefs_[0] = W
    assert not e.net_.layers[0].W.any()
    for change in (lambda: e.coefs_.append(W), lambda: e.coefs_.__delitem__(0), e.coefs_.reverse):
        with pytest.raises(TypeError, match="one array for each layer of the network; assign to"):
            change()
    assert type(W + 1) is type(X @ W) is np.ndarray
    assert type(pickle.loads(pickle.dumps(e.coefs_))) is list
    assert type(pickle.loads(pickle.dumps(e.coefs_))[0]) is np.ndarray


BAD_PARAMETERS = [
    (lambda e: [np.zeros((6, 8))], ValueError, "coefs_ must be a list of 2 arrays"),
    (lambda e: np.zeros(2), ValueError, "coefs_ must be a list of 2 arrays"),
    (lambda e: [W.T for W in e.coefs_], ValueError, r"coefs_\[0\] has shape \(8, 6\).*is \(6, 8\)"),
    (lambda e: [W * np.nan for W in e.coefs_], ValueError, r"coefs_\[0\] has values that are not"),
    (lambda e: [e.coefs_[0], "abc"], TypeError, r"coefs_\[1\] has dtype <U3, with .abc"),
]


@pytest.mark.parametrize(("values", "error", "message"), BAD_PARAMETERS)
def test_invalid_parameters_change_nothing(values, error, message):
    e = MLPRegressor(**SMALL).fit(X, VALUES)
    before = e.predict(X)
    with pytest.raises(error, match=message):
        e.coefs_ = values(e)
    np.testing.assert_array_equal(e.predict(X), before)
    with pytest.raises(ValueError, match="not fitted yet"):
        MLPRegressor().coefs_ = []


def enlarge_logits(net):
    """The largest becomes 30: float32 holds no probability between that of 17 and 1."""
    last = net.layers[-1]
    factor = 30 / np.abs(net.forward(X)).max()
    last.W[...] *= factor
    last.b[...] *= factor


@pytest.mark.parametrize("loss", ["auto", "binary_cross_entropy", "negative_log_likelihood"])
@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_of_large_logits_keep_order_and_logarithm(loss, classes):
    settings = {**SMALL, "precision": "float32", "alpha": 0}
    e = MLPClassifier(loss=loss, **settings).fit(X, CLASSES % classes)
    enlarge_logits(e.net_)
    p, log_p = e.predict_proba(X), e.predict_log_proba(X)
    assert p.dtype == log_p.dtype == np.float64
    assert np.isfinite(log_p).all()
    np.testing.assert_allclose(np.exp(log_p), p, rtol=1e-12)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(e.predict(X), e.classes_[p.argmax(axis=1)])
    if e.net_.widths[-1] == 1:
        z = e.net_.forward(X)[:, 0].astype(float)
        assert (np.abs(z) > 17).any()
        np.testing.assert_array_equal(np.argsort(p[:, 1]), np.argsort(z))
        np.testing.assert_allclose(log_p[:, 0], -np.logaddexp(0, z), rtol=1e-12)


def test_probabilities_of_several_labels_keep_their_logarithm():
    y = np.column_stack([CLASSES == 0, X[:, 0] > 0]).astype(int)
    e = MLPClassifier(**{**SMALL, "precision": "float32"}).fit(X, y)
    e.net_.layers[1].W[...] *= 100
    log_p, z = e.predict_log_proba(X), e.net_.forward(X).astype(float)
    assert np.isfinite(log_p).all()
    np.testing.assert_allclose(log_p, -np.logaddexp(0, -z), rtol=1e-12)
    np.testing.assert_array_equal(e.predict(X), z > 0)


def test_a_validation_score_sees_the_order_of_large_logits():
    e = MLPClassifier(scoring="roc_auc", warm_start=True, early_stopping=True, **SMALL)
    e.set_params(precision="float32", learning_rate_init=1e-30, solver="sgd", momentum=0)
    e.fit(X, CLASSES % 2)
    net = e.net_
    enlarge_logits(net)
    history = gpumlp.Trainer(net, "sgd", 1e-30).fit(
        X, CLASSES % 2, 1, validation=(X, CLASSES % 2), metric="roc_auc"
    )
    assert history["val_metric"][-1] == roc_auc_score(CLASSES % 2, net.forward(X)[:, 0])


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_no_prediction_of_values_beyond_the_precision(activation):
    far = X.copy()
    far[3, 1] = 1e300
    settings = {**SMALL, "precision": "float32", "activation": activation}
    classifier = MLPClassifier(**settings).fit(X, NAMES)
    regressor = MLPRegressor(**settings).fit(X, VALUES)
    calls = [regressor.predict, classifier.predict, classifier.predict_proba]
    calls += [classifier.predict_log_proba, lambda x: classifier.score(x, NAMES)]
    for call in [*calls, lambda x: regressor.score(x, VALUES)]:
        with pytest.raises(ValueError, match=r"X has values up to 1e\+300.*float32; rescale it"):
            call(far)
        with pytest.raises(ValueError, match=r"X has values up to 1e\+300.*float32; rescale it"):
            call(sp.csr_matrix(far))


def test_no_prediction_of_outputs_that_are_not_finite():
    far = X.copy()
    far[3] = 1e38
    settings = {**SMALL, "precision": "float32"}
    classifier = MLPClassifier(**settings).fit(X, NAMES)
    regressor = MLPRegressor(**settings).fit(X, VALUES)
    poisson = MLPRegressor("poisson", **settings).fit(X, np.abs(VALUES))
    poisson.net_.layers[1].b[...] = 100
    for e in (classifier, regressor):
        e.net_.layers[0].W[...] *= 1e3
    for call in (classifier.predict, classifier.predict_proba, regressor.predict):
        with pytest.raises(ValueError, match="output for row 3 of X is .* remove rows"):
            call(far)
    with pytest.raises(ValueError, match="output for row 0 of X is "):
        poisson.predict(X)  # e¹⁰⁰ is beyond float32


# ---- weights -------------------------------------------------------------------------------------


def test_class_weight_multiplies_sample_weight():
    by_name = {"ash": 0.5, "cedar": 3.0}
    weights = np.select([NAMES == "ash", NAMES == "cedar"], [0.5, 3.0], 1.0)
    own = RNG.uniform(size=200)
    a = MLPClassifier(class_weight=by_name, **SMALL).fit(X, NAMES, own)
    b = MLPClassifier(**SMALL).fit(X, NAMES, weights * own)
    same(a, b)


def test_balanced_gives_every_class_the_same_share():
    own = RNG.uniform(size=200)
    total = np.array([own[np.equal(NAMES, c)].sum() for c in ("ash", "birch", "cedar")])
    weights = (own.sum() / 3 / total)[CLASSES] * own
    a = MLPClassifier(class_weight="balanced", **SMALL).fit(X, NAMES, own)
    b = MLPClassifier(**SMALL).fit(X, NAMES, weights)
    for p, q in zip(a.coefs_, b.coefs_, strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("scale", [1e-60, 1e-5, 1e-320])
def test_the_scale_of_small_weights_does_not_matter(scale):
    ones = np.ones(200)
    for e, y in ((MLPClassifier(**SMALL), NAMES), (MLPRegressor(**SMALL), VALUES)):
        for settings in ({}, {"early_stopping": True}):
            plain, tiny = clone(e).set_params(**settings), clone(e).set_params(**settings)
            same(plain.fit(X, y, ones), tiny.fit(X, y, scale * ones))
    by_class = dict.fromkeys(("ash", "birch", "cedar"), scale)
    same(
        MLPClassifier(class_weight=by_class, **SMALL).fit(X, NAMES, scale * ones),
        MLPClassifier(**SMALL).fit(X, NAMES),
    )


def test_large_weights_leave_the_penalty_out():
    e = MLPRegressor(early_stopping=True, **SMALL).fit(X, VALUES, np.full(200, 1e307))
    assert e.net_.regularizer.name == "none"
    assert np.isfinite(e.validation_scores_).all()


def test_class_weights_apply_after_label_smoothing():
    loss = gpumlp.LOSSES["softmax_cross_entropy"].set(smoothing=0.3)
    settings = {**SMALL, "max_iter": 1, "alpha": 0, "batch_size": 200}
    own, by_class = RNG.uniform(size=200), {"ash": 0.0, "birch": 1.0, "cedar": 4.0}
    e = MLPClassifier(loss=loss, class_weight=by_class, solver="sgd", momentum=0, **settings)
    e.fit(X, NAMES, own)
    # the network of the seed, before its one step
    first = MLPClassifier(loss=loss, learning_rate_init=1e-30, solver="sgd", momentum=0, **settings)
    first.fit(X, NAMES)
    want = first.net_.cost(X, CLASSES, own, list(by_class.values()))
    assert e.loss_ == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize(
    ("by_class", "said"),
    [({"ash": -1}, "class_weight has values that are negative"),
     ({"ash": np.nan}, "class_weight has values that are negative or not finite"),
     ({"ash": "heavy"}, "class_weight has dtype"),
     ({"ash": 0, "birch": 0, "cedar": 0}, "^class_weight give every example the weight 0")],
)  # fmt: skip
@pytest.mark.parametrize("loss", ["auto", "binary_cross_entropy"])
def test_errors_of_class_weight_name_it(by_class, said, loss):
    with pytest.raises((ValueError, TypeError), match=said):
        MLPClassifier(class_weight=by_class, loss=loss, **SMALL).fit(X, NAMES)


def test_penalty_is_alpha_over_the_weight_of_a_minibatch():
    weights = RNG.uniform(0, 4, 200)
    e = MLPRegressor(alpha=0.3, batch_size=50, **SMALL).fit(X, VALUES, weights)
    lam = 0.3 / (50 * weights.mean()) / 0.5  # our mean of (ŷ − y)² is twice scikit-learn's
    assert e.net_.regularizer.name == "l2"
    assert dict(e.net_.regularizer.params) == pytest.approx({"lam": lam, "biases": 0}, rel=1e-12)
    given = MLPRegressor(regularizer=gpumlp.L1(0.01), **SMALL).fit(X, VALUES)
    assert given.net_.regularizer == gpumlp.L1(0.01)


# ---- validation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classes", "values"])
def test_validation_data_is_scored_after_every_epoch(kind):
    y = NAMES if kind == "classes" else VALUES
    est = (MLPClassifier if kind == "classes" else MLPRegressor)(**SMALL, alpha=0.0)
    weights = RNG.uniform(size=80)
    scores, losses = [], []
    for epochs in (1, 2, 3):
        est.set_params(max_iter=epochs).fit(X[80:], y[80:], None, X[:80], y[:80], weights)
        p, metric = est.predict(X[:80]), accuracy_score if kind == "classes" else r2_score
        scores.append(metric(y[:80], p, sample_weight=weights))
        if kind == "classes":
            right = est.predict_proba(X[:80])[np.arange(80), CLASSES[:80]]
            losses.append(np.average(-np.log(right), weights=weights))
        else:
            losses.append(np.average(0.5 * np.square(p - y[:80]), weights=weights))
    np.testing.assert_allclose(est.validation_scores_, scores, rtol=1e-12)
    np.testing.assert_allclose(est.validation_loss_curve_, losses, rtol=1e-9)
    assert est.best_validation_score_ == max(est.validation_scores_)
    plain = type(est)(**{**SMALL, "max_iter": 3}, alpha=0.0).fit(X[80:], y[80:])
    same(est, plain)  # validation does not change the training
    assert plain.validation_scores_ is plain.best_validation_score_ is None


class Scripted:
    """A scorer that returns given scores and records θ."""

    def __init__(self, scores):
        self.scores, self.seen = list(scores), []

    def __call__(self, estimator, x, y):
        self.seen.append((estimator.coefs_, x, y))
        return self.scores[len(self.seen) - 1]


@pytest.mark.parametrize(
    ("scores", "epochs", "best"),
    [
        (
            [0.5, 0.6, 0.6, 0.6, 0.6, 0.9],
            5,
            1,
        ),  # three without improvement: one more than allowed
        ([0.5, 0.505, 0.51, 0.515, 0.9], 4, 3),  # better by less than tol, and still the best
        ([0.5, 0.4, 0.4, 0.6, 0.5, 0.5, 0.5, 0.9], 7, 3),
    ],
)
def test_early_stopping_restores_the_best_score(scores, epochs, best):
    scoring = Scripted(scores)
    settings = {**SMALL, "max_iter": 20, "tol": 0.05, "n_iter_no_change": 2}
    e = MLPClassifier(**settings, early_stopping=True, scoring=scoring).fit(X, NAMES)
    assert (e.n_iter_, e.stopped_) == (epochs, "early")
    assert e.validation_scores_ == scores[:epochs]
    for expected, found in zip(scoring.seen[best][0], e.coefs_, strict=True):
        np.testing.assert_array_equal(expected, found)
    assert np.array_equal(scoring.seen[-1][0][0], e.coefs_[0]) == (best == epochs - 1)
    assert set(scoring.seen[0][2]) == set(NAMES)  # labels as the user passed them
    assert len(scoring.seen[0][1]) == 20


@pytest.mark.parametrize("name", ["neg_log_loss", "f1_macro", "accuracy"])
def test_scorer_by_name(name):
    from sklearn.metrics import get_scorer

    e = MLPClassifier(scoring=name, **SMALL).fit(X, NAMES, X_val=X[:50], y_val=NAMES[:50])
    assert e.validation_scores_[-1] == pytest.approx(get_scorer(name)(e, X[:50], NAMES[:50]))


@pytest.mark.parametrize("scoring", [None, "f1_macro"])
def test_callbacks_see_the_validation_score(scoring):
    seen = []
    hook = Hook(epoch=lambda trainer, row: seen.append(row["val_metric"]))
    e = MLPClassifier(**SMALL, scoring=scoring, callbacks=[hook])
    e.fit(X, NAMES, X_val=X[:50], y_val=NAMES[:50])
    assert seen == e.validation_scores_
    assert len(seen) == 5


def test_validation_share_has_every_class_and_is_not_trained_on():
    seen = Scripted([1.0] * 5)
    rare = np.where(np.arange(200) < 6, "rare", "common")
    e = MLPClassifier(**SMALL, early_stopping=True, scoring=seen, validation_fraction=0.2)
    e.fit(X, rare)
    x, y = seen.seen[0][1:]
    assert len(x) == 40
    assert (y == "rare").sum() in (1, 2)
    assert e.t_ == 5 * 160


# ---- warm_start and partial_fit ------------------------------------------------------------------


def test_warm_start_continues_from_the_parameters():
    e = MLPRegressor(**SMALL, warm_start=True, solver="sgd", momentum=0.0).fit(X, VALUES)
    e.fit(X, VALUES)
    once = MLPRegressor(**{**SMALL, "max_iter": 10}, solver="sgd", momentum=0.0).fit(X, VALUES)
    same(e, once)
    assert e.loss_curve_ == once.loss_curve_
    assert (e.n_iter_, once.n_iter_, e.t_, once.t_) == (5, 10, 2000, 2000)
    with pytest.raises(ValueError, match="activation was changed since the network was built"):
        e.set_params(activation="tanh").fit(X, VALUES)
    with pytest.raises(ValueError, match="previously unseen labels"):
        MLPClassifier(**SMALL, warm_start=True).fit(X, NAMES).fit(X, CLASSES.astype(str))


CHANGED = [
    ({"precision": "float32"}, "precision"), ({"initializer": None}, "initializer"),
    ({"backend": gpumlp.get_backend("numpy", "float32")}, "precision"),
    ({"hidden_layer_sizes": (8, 8)}, "hidden_layer_sizes"), ({"loss": "huber"}, "loss"),
    ({"output_activation": "tanh"}, "output_activation"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "name"), CHANGED)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_parameter_that_no_longer_describes_the_network_raises(settings, name, method):
    e = MLPRegressor(**SMALL, warm_start=True).fit(X, VALUES)
    before = e.coefs_
    with pytest.raises(ValueError, match=f"^{name} was changed since the network was built; set"):
        getattr(e.set_params(**settings), method)(X, VALUES)
    same_after = e.coefs_
    for p, q in zip(before, same_after, strict=True):
        np.testing.assert_array_equal(p, q)
    e.set_params(warm_start=False).fit(X, VALUES)  # the correction
    assert e.get_params()[name] == settings.get(name, "auto")


def test_the_loss_is_named_where_it_changes_the_width():
    e = MLPClassifier(**SMALL, warm_start=True).fit(X, CLASSES > 0)
    with pytest.raises(ValueError, match="^loss was changed"):
        e.set_params(loss="softmax_cross_entropy").fit(X, CLASSES > 0)


@pytest.mark.parametrize("settings", [{"precision": "float64"}, {"backend": "auto"}])
def test_the_same_in_other_words_is_no_change(settings):
    e = MLPRegressor(**SMALL, warm_start=True).fit(X, VALUES)
    if settings.get("backend") == "auto" and gpumlp.get_backend("auto").name != "numpy":
        pytest.skip("there is a GPU here")
    e.set_params(**settings).fit(X, VALUES)
    assert len(e.loss_curve_) == 10


def test_another_seed_of_a_warm_start_is_used():
    e = MLPClassifier(**SMALL, warm_start=True, batch_size=20).fit(X, NAMES)
    other = copy.deepcopy(e).set_params(random_state=1).fit(X, NAMES)
    assert not np.array_equal(e.fit(X, NAMES).coefs_[0], other.coefs_[0])


def test_scores_of_another_scorer_are_not_compared():
    e = MLPClassifier(**SMALL, early_stopping=True, warm_start=True).fit(X, NAMES)
    e.set_params(scoring="neg_log_loss").fit(X, NAMES)  # its scores are below every accuracy
    assert e.best_validation_score_ == max(e.validation_scores_[-e.n_iter_ :]) < 0


def test_partial_fit_takes_another_learning_rate():
    e = MLPRegressor(**SMALL).partial_fit(X, VALUES)
    before = e.coefs_[0]
    e.set_params(learning_rate_init=1e-300).partial_fit(X, VALUES)
    np.testing.assert_array_equal(before, e.coefs_[0])


def test_partial_fit_keeps_its_moments_with_other_constants():
    e, other = (MLPRegressor(**SMALL).partial_fit(X, VALUES) for _ in range(2))
    other.set_params(beta_1=0.9 + 1e-12)
    for each in (e, other):
        each.partial_fit(X, VALUES)
    np.testing.assert_allclose(e.coefs_[0], other.coefs_[0], rtol=1e-6)


@pytest.mark.parametrize("solver", ["adam", "sgd", "rmsprop", "lion"])
def test_partial_fit_epochs_equal_fit_epochs(solver):
    e, once = (MLPClassifier(**SMALL, solver=solver, batch_size=64) for _ in range(2))
    for i in range(5):
        e.partial_fit(X, NAMES, classes=["cedar", "ash", "birch"] if i == 0 else None)
    same(e, once.fit(X, NAMES))
    assert e.loss_curve_ == once.loss_curve_
    assert (e.n_iter_, e.t_) == (1, 1000)
    assert list(e.classes_) == ["ash", "birch", "cedar"]


def test_partial_fit_accepts_parts_without_some_classes():
    e = MLPClassifier((16,), random_state=0, learning_rate_init=0.01)
    for _ in range(60):
        for i in range(3):
            part = np.equal(CLASSES, i)
            e.partial_fit(X[part], NAMES[part], classes=np.unique(NAMES))
    assert e.score(X, NAMES) > 0.8
    with pytest.raises(ValueError, match="name all of them in the first partial_fit"):
        e.partial_fit(X, np.where(NAMES == "ash", "oak", NAMES))
    with pytest.raises(ValueError, match="cannot change; leave them out"):
        e.partial_fit(X, NAMES, classes=["ash", "oak"])
    with pytest.raises(ValueError, match="classes must be passed to the first call"):
        MLPClassifier().partial_fit(X, NAMES)
    with pytest.raises(ValueError, match="needs all examples at once"):
        MLPClassifier(class_weight="balanced").partial_fit(X, NAMES, np.unique(NAMES))


def test_early_stopping_works_with_partial_fit():
    scoring = Scripted([0.5, 0.7, 0.6, 0.6, 0.6])
    e = MLPClassifier(**SMALL, early_stopping=True, n_iter_no_change=2, scoring=scoring)
    ends = [e.partial_fit(X, NAMES, np.unique(NAMES)).stopped_ for _ in range(5)]
    assert ends == ["finished"] * 4 + ["early"]
    for expected, found in zip(scoring.seen[1][0], e.coefs_, strict=True):
        np.testing.assert_array_equal(expected, found)
    for x, y in zip(scoring.seen[0][1:], scoring.seen[4][1:], strict=True):
        np.testing.assert_array_equal(x, y)  # the same examples in each call
    before = e.coefs_[0]
    with pytest.warns(UserWarning, match="early stopping has ended this training"):
        e.partial_fit(X, NAMES)
    np.testing.assert_array_equal(before, e.coefs_[0])
    e.set_params(early_stopping=False).partial_fit(X, NAMES)
    assert not np.array_equal(before, e.coefs_[0])


def test_partial_fit_is_scored_on_given_validation_data():
    e = MLPRegressor(**SMALL, early_stopping=True)
    for _ in range(3):
        e.partial_fit(X[50:], VALUES[50:], X_val=X[:50], y_val=VALUES[:50])
    assert e.validation_scores_[-1] == pytest.approx(e.score(X[:50], VALUES[:50]))
    assert (len(e.validation_scores_), e.t_) == (3, 450)


def test_partial_fit_with_a_schedule_over_the_whole_fit_raises():
    e = MLPRegressor(learning_rate="one_cycle")
    with pytest.raises(ValueError, match="spans a whole fit"):
        e.partial_fit(X, VALUES)
    assert not hasattr(MLPRegressor(solver="lbfgs"), "partial_fit")


# ---- the end of a fit ----------------------------------------------------------------------------


def test_ctrl_c_leaves_a_usable_estimator():
    def interrupt(trainer):
        if trainer.steps == 7:
            signal.raise_signal(signal.SIGINT)

    e = MLPClassifier(**SMALL, batch_size=50, callbacks=[Hook(interrupt)])
    with pytest.warns(UserWarning, match="interrupted after 1 epochs"):
        e.fit(X, NAMES)
    assert (e.stopped_, e.n_iter_, len(e.loss_curve_)) == ("interrupted", 1, 1)
    assert e.predict(X).shape == (200,)


def test_too_few_epochs_warn():
    with pytest.warns(ConvergenceWarning, match="raise max_iter=5 or tol=0.0001"):
        MLPClassifier(**SMALL).fit(X, NAMES)


@pytest.mark.parametrize("name", ["dropout", "clip_norm"])
def test_what_lbfgs_does_not_do_warns(name):
    e = MLPClassifier(**SMALL, solver="lbfgs", **{name: 0.5})
    with pytest.warns(UserWarning, match=f'{name}=0.5 has no effect with solver="lbfgs"'):
        e.fit(X, NAMES)


def test_diverged_training_raises_and_leaves_no_model():
    e = MLPRegressor(solver="sgd", learning_rate_init=1e9, **SMALL)
    with pytest.raises(FloatingPointError, match=r"learning_rate_init=1e\+09; lower it, pass"):
        e.fit(X, VALUES)
    assert not hasattr(e, "net_")
    with pytest.raises(
        FloatingPointError, match=r"=0.001 and alpha=1e\+30; lower one of them, pass"
    ):
        e.set_params(learning_rate_init=1e-3, alpha=1e30).fit(X, VALUES)
    with pytest.raises(
        FloatingPointError, match=r", with alpha=1e\+300; lower it, or scale X and y"
    ):
        e.set_params(solver="lbfgs", alpha=1e300, precision="float32").fit(X, VALUES)
    e = MLPRegressor(**SMALL)
    with pytest.raises(FloatingPointError, match="before the first update; scale X and y"):
        e.fit(1e200 * X, VALUES)
    e.fit(X, VALUES)
    for given in (1e200 * X, X):
        with pytest.raises(FloatingPointError, match="update; fit anew with warm_start=False, or"):
            e.partial_fit(given, VALUES)


@pytest.mark.parametrize("size", [50, 200])
@pytest.mark.parametrize(
    ("scoring", "y"),
    [(None, NAMES), ("neg_log_loss", NAMES), ("roc_auc_ovr", NAMES), ("f1", CLASSES == 0)],
)  # for two classes an infinite logit is a probability of 0 or 1
@pytest.mark.parametrize("validation", ["share", "given"])
def test_divergence_is_seen_before_a_scorer_reads_its_predictions(size, scoring, y, validation):
    e = MLPClassifier(
        (8,), "identity", solver="sgd", batch_size=size, learning_rate_init=1e152, scoring=scoring
    )
    e.set_params(**{**SMALL, "early_stopping": validation == "share"})
    given = {"X_val": X, "y_val": y} if validation == "given" else {}
    said = r"training diverged: .* in epoch [12] of 5, with learning_rate_init=1e\+152; lower it"
    with pytest.raises(FloatingPointError, match=said):
        e.fit(X, y, **given)


def test_a_score_that_is_never_a_number_is_said():
    settings = {**SMALL, "early_stopping": True, "n_iter_no_change": 2}
    e = MLPClassifier(scoring=lambda *_: np.nan, **settings)
    with pytest.raises(ValueError, match="early_stopping .* NaN .* pass another scoring"):
        e.fit(X, NAMES)
    with pytest.warns(RuntimeWarning, match="the validation score was NaN"):
        e.set_params(max_iter=2).fit(X, NAMES)
    assert e.stopped_ == "finished"


def test_verbose_prints_every_epoch(capsys):
    settings = {**SMALL, "max_iter": 3, "verbose": True}
    MLPRegressor(**settings).fit(X, VALUES, X_val=X, y_val=VALUES)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("Epoch 3: loss ")
    assert "score" in lines[2]


def test_precision_auto_is_that_of_the_data():
    assert MLPRegressor(max_iter=5).fit(X, VALUES).predict(X).dtype == np.float32
    e = MLPRegressor(**SMALL)
    assert e.fit(X.astype(np.float32), VALUES).predict(X).dtype == np.float32
    assert e.fit(X, VALUES).predict(X).dtype == np.float64
    assert e.set_params(precision="float32").fit(X, VALUES).net_.precision == "float32"
    assert e.fit((100 * X).astype(np.int16), VALUES).net_.precision == "float32"
