"""Types of X and y: data frames, sparse matrices, other libraries' arrays; invalid arguments."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp

import gpumlp
from gpumlp.estimators import MLPClassifier, MLPRegressor, inputs
from tests.support.training_cases import Hook

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(8)
X = RNG.normal(size=(90, 4))
LABELS = np.where(X[:, 0] > 0, "up", "down")
VALUES = X[:, 0] - X[:, 1]
SMALL = {"hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0, "backend": "numpy"}
SMALL |= {"precision": "auto"}  # that of X: float64
COLUMNS = ["a", "b", "c", "d"]


# ---- data frames ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
def test_data_frames_equal_arrays_and_set_feature_names(kind):
    make = {
        "pandas": lambda table: pd.DataFrame(table),
        "polars": lambda table: pl.DataFrame(table),
        "pyarrow": lambda table: pa.table(table),
    }[kind]
    frame = make({name: X[:, i] for i, name in enumerate(COLUMNS)})
    y = {"pandas": pd.Series, "polars": pl.Series, "pyarrow": pa.array}[kind](LABELS.tolist())
    e, plain = MLPClassifier(**SMALL).fit(frame, y), MLPClassifier(**SMALL).fit(X, LABELS)
    assert list(e.feature_names_in_) == COLUMNS
    assert not hasattr(plain, "feature_names_in_")
    np.testing.assert_array_equal(e.predict_proba(frame), plain.predict_proba(X))
    assert set(e.predict(frame)) <= {"up", "down"}
    other = make({name: X[:, i] for i, name in enumerate("abdc")})
    with pytest.raises(ValueError, match="feature names"):
        e.predict(other)


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
def test_dates_in_data_frames_are_no_numbers(kind):
    """polars makes whole numbers of them, in the unit that the column happens to have."""
    convert = {"pandas": pd.DataFrame, "polars": pl.from_pandas, "pyarrow": pa.Table.from_pandas}
    frame = pd.DataFrame(X, columns=COLUMNS)
    model = MLPClassifier(**SMALL).fit(convert[kind](frame), LABELS)
    for dates in (pd.date_range("2020", periods=len(X)), pd.to_timedelta(range(len(X)), "h")):
        dated = convert[kind](frame.assign(d=dates))
        for call in (lambda X: model.fit(X, LABELS), model.predict):
            with pytest.raises(TypeError, match="X has columns of dates or times: d; pass numbers"):
                call(dated)
        with pytest.raises(TypeError, match="y has columns of dates or times: d; pass numbers"):
            MLPRegressor(**SMALL).fit(X, dated)


def test_frames_that_are_lazy_or_have_structures_raise():
    with pytest.raises(TypeError, match=r"X is a LazyFrame; pass X\.collect"):
        MLPClassifier(**SMALL).fit(pl.LazyFrame(X), LABELS)
    frame = pl.DataFrame(X, COLUMNS).with_columns(pl.struct("a").alias("a"))
    with pytest.raises(TypeError, match="X has dtype object; pass real numbers"):  # no words
        MLPClassifier(**SMALL).fit(frame, LABELS)


def test_validation_and_scorers_accept_frames_without_a_warning():
    frame = pd.DataFrame(X, columns=COLUMNS)
    e = MLPClassifier(**SMALL, scoring="neg_log_loss", early_stopping=True)
    e.fit(frame, pd.Series(LABELS, dtype="category"), X_val=frame[:30], y_val=LABELS[:30])
    assert len(e.validation_scores_) == 5


# ---- sparse matrices -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [sp.csr_array, sp.csc_matrix, sp.coo_array])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_sparse_rows_equal_dense_rows(kind, precision, monkeypatch):
    monkeypatch.setattr(inputs, "CHUNK", 32)  # so that prediction has several parts
    x = np.where(RNG.uniform(size=X.shape) < 0.3, X, 0)
    seen = []
    dense = inputs.dense
    monkeypatch.setattr(inputs, "dense", lambda *a: seen.append(dense(*a)) or seen[-1])
    settings = {**SMALL, "precision": precision}
    e, plain = (
        MLPRegressor(**settings).fit(kind(x), VALUES),
        MLPRegressor(**settings).fit(x, VALUES),
    )
    assert seen[0].dtype == precision  # no wider array in between
    np.testing.assert_allclose(e.predict(kind(x)), plain.predict(x), rtol=1e-5, atol=1e-6)


def test_sparse_rows_larger_than_memory_raise():
    x = sp.random_array((10**6, 10**8), density=1e-14, format="csr", rng=0)
    with pytest.raises(ValueError, match=r"as a dense array it takes 800,000\.0 GB.*partial_fit"):
        MLPRegressor(**SMALL).fit(x, np.zeros(10**6))


def test_masked_values_raise():
    """scikit-learn would read what is under the mask."""
    masked = np.ma.masked_less(X, 0)
    with pytest.raises(ValueError, match=r"X has masked values; fill or .* with X\.filled\(0\)"):
        MLPClassifier(**SMALL).fit(masked, LABELS)
    with pytest.raises(ValueError, match="y has masked values"):
        MLPRegressor(**SMALL).fit(X, np.ma.masked_less(VALUES, 0))
    e = MLPClassifier(**SMALL).fit(masked.filled(0), LABELS)
    with pytest.raises(ValueError, match="sample_weight has masked values"):
        e.score(X, LABELS, np.ma.masked_less(X[:, 0], 0))
    with pytest.raises(ValueError, match="y has masked values"):
        MLPRegressor(**SMALL).fit(X, VALUES).score(X, np.ma.masked_less(VALUES, 0))


def test_dates_to_predict_from_raise():
    e, times = MLPRegressor(**SMALL).fit(X, VALUES), np.zeros(X.shape, "m8[D]")
    with pytest.raises(TypeError, match="X has dtype timedelta64.*e.g. seconds: X / "):
        e.predict(times)


def test_sparse_labels_equal_dense_labels():
    y = np.stack([X[:, 0] > 0, X[:, 1] > 0], axis=1).astype(int)
    e, plain = MLPClassifier(**SMALL).fit(X, sp.csr_array(y)), MLPClassifier(**SMALL).fit(X, y)
    np.testing.assert_array_equal(e.predict_proba(X), plain.predict_proba(X))


# ---- other libraries' arrays ---------------------------------------------------------------------


def test_sparse_values_equal_dense_values():
    y = np.stack([VALUES, -VALUES], axis=1)
    dense, sparse = (
        MLPRegressor(**SMALL).fit(X, each).predict(X) for each in (y, sp.csr_matrix(y))
    )
    np.testing.assert_array_equal(dense, sparse)


@pytest.mark.parametrize("classes", [{"up", "down"}, "up", [], [["up", "down"]]])
def test_classes_that_are_no_list_raise(classes):
    with pytest.raises(TypeError, match="classes must be a list of all classes, got "):
        MLPClassifier(**SMALL).partial_fit(X, LABELS, classes=classes)


def test_torch_tensors_return_torch_tensors():
    torch = pytest.importorskip("torch")
    x, y = torch.tensor(X, dtype=torch.float32), torch.tensor(VALUES, dtype=torch.float32)
    e = MLPRegressor(**SMALL).fit(x, y, sample_weight=torch.ones(90))
    out = e.predict(x.requires_grad_())
    assert isinstance(out, torch.Tensor)
    assert out.dtype == torch.float32
    plain = MLPRegressor(**SMALL).fit(x.detach().numpy(), y.numpy(), np.ones(90))
    np.testing.assert_array_equal(out.numpy(), plain.predict(x.detach().numpy()))
    codes = torch.tensor(LABELS == "up").long()
    c = MLPClassifier(**SMALL).fit(x, codes)
    assert isinstance(c.predict(x), torch.Tensor)
    assert isinstance(c.predict_proba(x), torch.Tensor)
    assert c.score(x.detach(), codes) == (c.predict(x) == codes).double().mean()
    names = MLPClassifier(**SMALL).fit(x, LABELS).predict(x)
    assert isinstance(names, np.ndarray)  # torch has no strings


def test_jax_arrays_return_jax_arrays():
    jax = pytest.importorskip("jax")
    x = jax.numpy.asarray(X, dtype="float32")
    e = MLPRegressor(**SMALL).fit(x, jax.numpy.asarray(VALUES, dtype="float32"))
    out = e.predict(x)
    assert isinstance(out, jax.Array)
    np.testing.assert_array_equal(np.asarray(out), e.predict(np.asarray(x)))


def test_device_arrays_stay_on_the_device():
    from gpumlp.backends.cuda.backend import CudaBackend
    from tests.support.harness.host_device import HostDevice

    backend = CudaBackend(HostDevice(), "float32")
    x, rows = X.astype(np.float32), LABELS == "up"
    e = MLPClassifier(**{**SMALL, "backend": backend, "max_iter": 2}, early_stopping=True)
    e.fit(backend.asarray(x), rows)
    plain = MLPClassifier(**{**SMALL, "max_iter": 2}, early_stopping=True).fit(x, rows)
    np.testing.assert_allclose(e.predict_proba(x), plain.predict_proba(x), rtol=1e-4)
    assert e.n_features_in_ == 4
    with pytest.raises(ValueError, match="5 features"):
        e.predict(backend.asarray(np.ones((3, 5))))


# ---- invalid arguments ---------------------------------------------------------------------------

BAD = [
    ({"hidden_layer_sizes": (8, 0)}, ValueError, r"hidden_layer_sizes\[1\] must be at least 1"),
    ({"hidden_layer_sizes": 2.5}, TypeError, r"hidden_layer_sizes\[0\] must be a whole number"),
    ({"hidden_layer_sizes": b"ad"}, TypeError, r"hidden_layer_sizes\[0\] must be a whole number"),
    ({"hidden_layer_sizes": {}}, TypeError, r"hidden_layer_sizes\[0\] must be a whole number"),
    ({"callbacks": 1}, TypeError, "callbacks must be a list of Callback objects, got 1"),
    ({"callbacks": False}, TypeError, "callbacks must be a list of Callback objects, got False"),
    ({"output_activation": "rleu"}, ValueError, "unknown output_activation 'rleu'; did you mean"),
    ({"activation": "rleu"}, ValueError, "unknown activation 'rleu'; did you mean 'relu'"),
    ({"activation": ["relu", "tanh"]}, ValueError, "2 entries but there are 1 hidden layers"),
    ({"solver": "adm"}, ValueError, "unknown solver 'adm'; did you mean 'adam'.*lbfgs"),
    ({"alpha": -1}, ValueError, "alpha must be finite and 0 or more"),
    ({"regularizer": "l2", "alpha": 10**400}, ValueError, "alpha must be finite and 0 or more"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
    ({"learning_rate": "cosine"}, ValueError, "unknown learning_rate.*invscaling, adaptive"),
    ({"learning_rate": "cosine", "solver": "lbfgs"}, ValueError, "unknown learning_rate"),
    ({"learning_rate_init": 0}, ValueError, "learning_rate_init must be finite and more than 0"),
    ({"max_iter": 0}, ValueError, "max_iter must be at least 1"),
    ({"tol": "small"}, TypeError, "tol must be a number"),
    ({"n_iter_no_change": 0}, ValueError, "n_iter_no_change must be at least 1"),
    ({"early_stopping": True, "validation_fraction": 1.0}, ValueError, "validation_fraction"),
    ({"early_stopping": True, "validation_fraction": 1e-3}, ValueError, "leaves 1 to validate on"),
    ({"loss": "huber"}, ValueError, "'huber' does not support classification.*MLPRegressor"),
    ({"class_weight": {"up": 1, "dwon": 2}}, ValueError, "the class 'dwon'.*give each of them a w"),
    ({"class_weight": {"up": "2"}}, TypeError, "class_weight has dtype"),
    ({"class_weight": {"up": -1}}, ValueError, "class_weight has values that are negative"),
    ({"class_weight": [1.0, 2.0]}, ValueError, 'class_weight must be "balanced" or a dict'),
    ({"class_weight": np.ones(2)}, ValueError, 'class_weight must be "balanced" or a dict'),
    ({"class_weight": {"left": 2}}, ValueError, "class_weight has the class 'left'.*'down', 'up'"),
    ({"class_weight": "even"}, ValueError, 'class_weight must be "balanced" or a dict'),
    ({"scoring": "acuracy"}, ValueError, "acuracy"),
    ({"shuffle": 3}, TypeError, "shuffle must be True or False"),
    ({"callbacks": [print]}, TypeError, "callbacks must be Callback objects"),
    ({"backend": "gpu"}, ValueError, "unknown backend 'gpu'"),
    ({"precision": "float16"}, ValueError, 'backend "numpy" has precision'),
    ({"clip_norm": -1}, ValueError, "clip_norm must be finite"),
    ({"random_state": True}, TypeError, "random_state must be a whole number or None"),
    (
        {"random_state": -1},
        ValueError,
        r"random_state must be a whole number from 0 to 2\*\*32 - 1",
    ),
    ({"random_state": "a"}, ValueError, "random_state must be a whole number from 0"),
    ({"scoring": []}, TypeError, "scoring must be the name of a scorer"),
    ({"scoring": ["accuracy", "f1"]}, TypeError, "scoring must be the name of a scorer"),
    *[
        ({name: np.array([1, 2])}, TypeError, f"{name} ")
        for name in sorted(MLPClassifier().get_params().keys() - {"hidden_layer_sizes", "dropout"})
        if name not in ("embed", "residual", "class_weight", "norm", "gated", "random_state")
    ],
    ({"verbose": "yes"}, TypeError, "verbose must be a whole number"),
    ({"verbose": None}, TypeError, "verbose must be a whole number"),
    ({"verbose": -1}, ValueError, "verbose must be at least 0"),
    ({"batch_size": True}, TypeError, "batch_size must be a whole number"),
    ({"batch_size": "20"}, TypeError, "batch_size must be a whole number"),
    ({"n_iter_no_change": "5"}, TypeError, "n_iter_no_change must be a whole number"),
    ({"beta_1": 1.0, "solver": "sgd"}, ValueError, "beta_1 must be less than 1"),
    ({"epsilon": 0}, ValueError, "epsilon must be finite and more than 0"),
    ({"validation_fraction": -0.1}, ValueError, "validation_fraction must be finite and 0 or"),
    ({"momentum": 1.5, "solver": "sgd"}, ValueError, "momentum must be at most 1"),
]


@pytest.mark.parametrize(("settings", "error", "message"), BAD)
def test_invalid_parameter_raises(settings, error, message):
    with pytest.raises(error, match=message):
        MLPClassifier(**{**SMALL, **settings}).fit(X, LABELS)


@pytest.mark.parametrize("name", ["shuffle", "warm_start", "nesterovs_momentum", "early_stopping"])
@pytest.mark.parametrize("value", ["False", "no", 0, 1, None, 1.0])
def test_only_truth_values_are_truth_values(name, value):
    with pytest.raises(TypeError, match=f"{name} must be True or False"):
        MLPRegressor(**{**SMALL, name: value}).fit(X, VALUES)
    MLPRegressor(**{**SMALL, "max_iter": 1, name: np.False_}).fit(X, VALUES)


NUMBERS = [
    "alpha", "power_t", "momentum", "validation_fraction", "beta_1", "beta_2", "tol", "epsilon",
    "learning_rate_init", "max_iter", "max_fun", "n_iter_no_change", "hidden_layer_sizes",
    "clip_norm",
]  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [True, "0.5", np.True_])
def test_numbers_are_no_texts_and_no_truth_values(name, value):
    with pytest.raises(TypeError, match=f"{name}.* must be a "):
        MLPRegressor(**{**SMALL, "solver": "lbfgs", name: value}).fit(X, VALUES)


EDGES = [
    {"momentum": 1.0, "solver": "sgd"},
    {"momentum": 1, "nesterovs_momentum": False, "solver": "sgd"},
    {"alpha": 0}, {"tol": 0}, {"tol": np.inf}, {"tol": np.inf, "solver": "lbfgs"},
    {"power_t": 0, "learning_rate": "invscaling"},
    {"beta_1": 0.0, "beta_2": 0.0}, {"validation_fraction": 0}, {"n_iter_no_change": np.inf},
    {"batch_size": np.int64(1000)}, {"verbose": 0}, {"random_state": np.random.RandomState(0)},
    {"alpha": Fraction(1, 3)}, {"hidden_layer_sizes": ()}, {"epsilon": 1e-300},
    {"epsilon": 1e300},
    {"hidden_layer_sizes": np.array([3, 4])}, {"learning_rate_init": 1e-300},
]  # fmt: skip


@pytest.mark.parametrize("settings", EDGES, ids=lambda settings: next(iter(settings)))
def test_ends_of_scikit_learns_ranges_are_accepted(settings):
    e = MLPRegressor(**{**SMALL, "max_iter": 2, "precision": "float32", **settings})
    assert np.isfinite(e.fit(X, VALUES).predict(X)).all()


@pytest.mark.parametrize("dtype", ["U1", "complex", "M8[D]", "m8[s]"])
def test_weights_that_are_no_numbers_are_named(dtype):
    """Days and seconds were taken for weights."""
    with pytest.raises(TypeError, match="sample_weight has dtype .*; pass numbers, 0 or more"):
        MLPClassifier(**SMALL).fit(X, LABELS, sample_weight=np.ones(len(X), int).astype(dtype))


def test_a_weight_for_a_class_that_is_absent_is_accepted():
    """As in a fold without the rarest class."""
    weights = {"down": 1, "up": 2, "left": 5}
    e, plain = (
        MLPClassifier(**SMALL, class_weight=w).fit(X, LABELS)
        for w in (weights, {"down": 1, "up": 2})
    )
    np.testing.assert_array_equal(e.predict_proba(X), plain.predict_proba(X))


def test_regression_with_unsuitable_loss_raises():
    with pytest.raises(ValueError, match="'softmax_cross_entropy' does not support regression"):
        MLPRegressor("softmax_cross_entropy").fit(X, VALUES)
    with pytest.raises(ValueError, match="poisson takes counts"):
        MLPRegressor("poisson").fit(X, VALUES)


def test_incomplete_validation_data_raises():
    with pytest.raises(ValueError, match="X_val and y_val belong together"):
        MLPRegressor(**SMALL).fit(X, VALUES, X_val=X)
    with pytest.raises(ValueError, match="validation data, X_val and y_val: .* 3 features"):
        MLPRegressor(**SMALL).fit(X, VALUES, X_val=X[:, :3], y_val=VALUES)
    with pytest.raises(ValueError, match="validation data, X_val and y_val: Found .* samples"):
        MLPRegressor(**SMALL, n_models=2).fit(X, VALUES, X_val=X, y_val=VALUES[1:])


def test_classes_of_the_validation_data_alone_raise_and_can_be_left_out():
    y, known = np.where(LABELS[0] == LABELS, "a", "b"), np.arange(len(X)) > 2
    e, y_val = MLPClassifier(**SMALL), np.where(known, y, "c")
    with pytest.raises(ValueError, match="labels: .*'c'.*leave out such rows"):
        e.fit(X, y, X_val=X, y_val=y_val)
    e.fit(X, y, X_val=X[known], y_val=y_val[known])


def fail(*_):
    raise ZeroDivisionError


OTHER = np.hstack([X, X]), np.where(X[:, 1] > 0, "high", "low")
FAILING = [  # also where the names of the classes and the number of features have been read
    ({}, {"X_val": X}), ({}, {"X_val": OTHER[0], "y_val": LABELS}),
    ({}, {"sample_weight": -np.ones(len(X))}), ({"activation": "no"}, {}), ({"solver": "no"}, {}),
    ({"class_weight": {"no": 1}}, {}), ({"callbacks": [3]}, {}),
    ({"callbacks": [Hook(epoch=fail)]}, {}), ({"early_stopping": True, "scoring": fail}, {}),
]  # fmt: skip


@pytest.mark.parametrize("n_models", [1, 2])
def test_model_remains_after_a_fit_that_fails(n_models):
    e = MLPClassifier(**SMALL, n_models=n_models).fit(X, LABELS)
    before = e.predict_proba(X)
    with pytest.raises(ValueError, match="NaN"):
        e.fit(np.where(X > 2, np.nan, X), LABELS)
    for settings, named in FAILING:
        kept = {name: e.get_params()[name] for name in settings}
        with pytest.raises((ValueError, TypeError, ZeroDivisionError)):
            e.set_params(**settings).fit(*OTHER, **named)
        e.set_params(**kept)
        np.testing.assert_array_equal(e.predict_proba(X), before)
        assert list(e.classes_) == ["down", "up"]


def test_a_warm_start_that_fails_counts_the_epochs_that_it_has_done():
    e = MLPClassifier(**SMALL, warm_start=True).fit(X, LABELS)
    stop = Hook(epoch=lambda trainer, row: fail() if len(trainer.history["cost"]) > 1 else None)
    with pytest.raises(ZeroDivisionError):
        e.set_params(callbacks=[stop]).fit(X, LABELS)
    assert (e.n_iter_, len(e.loss_curve_)) == (2, 7)
    e.set_params(callbacks=None, solver="no")
    with pytest.raises(ValueError, match="unknown solver"):
        e.fit(X, LABELS)
    assert (e.n_iter_, len(e.loss_curve_), e.loss_) == (2, 7, e.loss_curve_[-1])


def test_network_is_saved_and_loaded(tmp_path):
    e = MLPClassifier(**SMALL).fit(X, LABELS)
    e.net_.save(tmp_path / "m.safetensors")
    net = gpumlp.MLP.load(tmp_path / "m.safetensors", backend="numpy")
    np.testing.assert_allclose(net.predict(X)[:, 0], e.predict_proba(X)[:, 1], rtol=1e-15)


@pytest.mark.parametrize(
    ("labels", "error", "said"),
    [
        (
            ["a", 1, "b", 2],
            TypeError,
            "y has labels of several types, number and str.*array.y",
        ),
        (["a", None, "b", "c"], ValueError, "y has no label in row 1; leave out such rows"),
        (["a", "b", float("nan"), "c"], ValueError, "y has no label in row 2"),
        (["a", "b", pd.NA, "c"], ValueError, "y has no label in row 2"),
    ],
)
def test_labels_that_cannot_be_sorted_raise(labels, error, said):
    y = np.array(labels, object)
    with pytest.raises(error, match=said):
        MLPClassifier(**SMALL).fit(X[:4], y)
    with pytest.raises(
        error, match=said.replace("y has", "classes has").replace("array.y", "array")
    ):
        MLPClassifier(**SMALL).partial_fit(X[:3], y[[0, 0, 0]], classes=y)
