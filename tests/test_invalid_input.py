"""Invalid data raise an error of one line that names the argument and what to pass instead."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import numpy.lib.recfunctions
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpumlp import LOSSES, MLP, Trainer
from tests.support.refusal import refusal

X = np.linspace(-1, 1, 12).reshape(4, 3)
LABELS = np.array([0, 1, 1, 0])
ROWS = np.eye(2)[LABELS]


def network(loss="softmax_cross_entropy", n=2, **settings):
    settings = {"precision": "float64", "backend": "numpy"} | settings
    return MLP([3, 5, n], "tanh", loss=loss, **settings)


# ---- x ------------------------------------------------------------------------------------------

NAMES_X = "pass x of shape (m, 3)"
BAD_X = [
    (X[:, :2], ValueError, "x has 2 columns but the first layer has 3 inputs", NAMES_X),
    (X.T, ValueError, "x has 4 columns", NAMES_X),
    (X[:0], ValueError, "x has no rows; pass at least one example"),
    (X[0], ValueError, "x has shape (3,)", "pass x[None, :]"),
    (X[:, 0], ValueError, "x has shape (4,)", NAMES_X),
    (X[None], ValueError, "x has shape (1, 4, 3)", NAMES_X),
    (1.5, ValueError, "x has shape ()", NAMES_X),
    ([], ValueError, "x has shape (0,)", NAMES_X),
    ([[1, 2, 3], [1, 2]], ValueError, "x cannot be read as an array", "rows of equal length"),
    (X.astype(object), TypeError, "x has dtype object", "x.astype('float32')"),
    (X + 1j, TypeError, "x has dtype complex128", "pass real numbers"),
    (X.astype(str), TypeError, "x has dtype <U", "pass real numbers"),
    ([["a", "b", "c"]], TypeError, "x has dtype <U1", "pass real numbers"),
    ([[1, 10**400, 3]], TypeError, "object, with 100000", "...", "pass numbers that float64 holds"),
    (None, TypeError, "x has dtype object", "pass real numbers"),
    ("x", TypeError, "x has dtype <U1", "pass real numbers"),
    (np.zeros((4, 3), "datetime64[s]"), TypeError, "x has dtype datetime64[s]", "pass real"),
    (np.ma.masked_less(X, 0), ValueError, "x has masked values; fill or remove them"),
]
FRAME = pd.DataFrame({"a": ["u", "v", "u", "v"], "b": 1.0, "c": 2.0})
DATES = pd.DataFrame({"a": pd.date_range("2020", periods=4), "b": 1.0, "c": 2.0})
CONTAINERS = [
    (sp.csr_array(X), TypeError, "x is sparse, a csr_array; pass a dense array: x.toarray(), or"),
    (sp.coo_matrix(X), TypeError, "x is sparse, a coo_matrix", "gpumlp.estimators, which read it"),
    (FRAME, TypeError, "x has dtype object, because of 'a' (", "encode such columns or leave"),
    (DATES, TypeError, "because of 'a' (datetime64[", "encode such columns or leave"),
    (pl.DataFrame(FRAME.to_dict("list")), TypeError, "because of 'a' (String)", "encode such"),
    (pl.from_pandas(DATES), TypeError, "x has columns of dates or times: a; pass numbers in their"),
    (np.array([["a", "1", "2"]]), TypeError, "x has dtype <U1, with 'a'; pass real numbers"),
    ([[1, 2, 3], [1, 2]], ValueError, "row 0 has 3 entries, row 1 has 2", "rows of equal"),
    (np.array([[1.0], [1, 2]], dtype=object), TypeError, "row 0 has 1 entries, row 1 has 2"),
    (np.array([[1, pd.NA, 2]]), TypeError, "x has dtype object, with <NA>"),
    ({1, 2}, TypeError, "x has dtype object, since it is a set", "numpy.array(list(x))"),
    (Path("x.npy"), TypeError, "it is a PosixPath", "read the file first, for example"),
]  # fmt: skip
CORRECTIONS = {  # what x is, and the correction that the error ends with
    "sparse": (sp.csr_array(X), "x.toarray()"),
    "masked": (np.ma.masked_less(X, 0), "x.filled(0)"),
    "dates": (
        np.full((4, 3), "2020-01-02", "datetime64[D]"),
        "(x - numpy.datetime64('2000-01-01')) / numpy.timedelta64(1, 'D')",
    ),
    "dates of pandas": (
        pd.DataFrame({c: pd.date_range("2020", periods=4) for c in "abc"}),
        "(x - numpy.datetime64('2000-01-01')) / numpy.timedelta64(1, 'D')",
    ),
    "durations": (np.ones((4, 3), "timedelta64[h]"), "x / numpy.timedelta64(1, 's')"),
    "structured": (
        np.ones(4, [(c, float) for c in "abc"]),
        "numpy.lib.recfunctions.structured_to_unstructured(x)",
    ),
    "complex": (X + 1j, "x.real"),
    "objects": (X.astype(object), "x.astype('float32')"),
    "texts of numbers": (X.astype(str), "x.astype('float32')"),
    "decimals": ([[Decimal(1)] * 3] * 4, "numpy.array(x, 'float32')"),
    "rows": (np.array([None, *X], dtype=object)[1:], "numpy.stack(list(x))"),
    "missing": (
        pd.DataFrame({"a": pd.array([1, None] * 2, dtype="Int64"), "b": 1.0, "c": 2}),
        "x.fillna(0).astype('float32')",
    ),
    "dict": ({c: X[:, i] for i, c in enumerate("abc")}, "numpy.column_stack(list(x.values()))"),
    "lazy": (pl.DataFrame(X).lazy(), "x.collect()"),
    "iterator": (lambda: iter(X.tolist()), "numpy.array(list(x))"),
}


@pytest.mark.parametrize(("x", "error", "said"), [(x, e, m) for x, e, *m in CONTAINERS])
def test_other_containers_raise(x, error, said):
    refusal(error, lambda: Trainer(network()).fit(x, LABELS), *said)
    refusal(error, lambda: network().predict(x), *said)


@pytest.mark.parametrize("kind", CORRECTIONS)
def test_corrections_work(kind):
    x, advice = CORRECTIONS[kind]
    x = x() if kind == "iterator" else x
    with pytest.raises((TypeError, ValueError)) as caught:
        network().predict(x)
    assert str(caught.value).split(", or use")[0].endswith(advice)
    names = {"x": CORRECTIONS[kind][0]() if kind == "iterator" else x, "numpy": np}
    assert np.isfinite(network().predict(eval(advice, names))).all()


def test_sparse_targets_and_weights_raise():
    trainer = Trainer(network())
    refusal(TypeError, lambda: trainer.fit(X, sp.csr_array(ROWS)), "y is sparse", "y.toarray()")
    weights = {"sample_weight": sp.csr_array(X[:, :1])}
    refusal(TypeError, lambda: trainer.fit(X, LABELS, **weights), "sample_weight.toarray()")


OPERATIONS = {
    "forward": lambda net, x, y: net.forward(x),
    "predict": lambda net, x, y: net.predict(x),
    "cost": lambda net, x, y: net.cost(x, y),
    "cost_and_gradients": lambda net, x, y: net.cost_and_gradients(x, y),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("x", "error", "said"), [(x, e, m) for x, e, *m in BAD_X])
def test_invalid_x_raises(operation, x, error, said):
    refusal(error, lambda: OPERATIONS[operation](network(), x, LABELS), *said)


def strided(a):
    wide = np.full((2 * len(a), 3 * a.shape[1]), np.nan)
    wide[::2, ::3] = a
    return wide[::2, ::3]


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


class Table:
    """An object that converts itself to an array, as data frames do."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


SAME = {
    "lists": lambda a: a.tolist(), "tuples": lambda a: tuple(map(tuple, a)), "table": Table,
    "F-ordered": np.asfortranarray, "strided": strided, "backwards": lambda a: a[::-1].copy()[::-1],
    "read-only": read_only, "big-endian": lambda a: a.astype(">f8"),
    "unmasked": np.ma.masked_array, "long double": lambda a: a.astype(np.longdouble),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAME)
def test_any_table_of_the_same_numbers_gives_the_same_result(kind):
    net = network("squared_error")
    weights, y = np.array([1.0, 2.0, 0.5, 1.0]), ROWS * 0.7
    J, gradients = net.cost_and_gradients(X, y, sample_weight=weights)
    x, given_y = SAME[kind](X), SAME[kind](y)
    J_given, given = net.cost_and_gradients(x, given_y, sample_weight=weights.tolist())
    assert (J_given, net.cost(x, given_y, weights)) == (J, net.cost(X, y, weights))
    np.testing.assert_array_equal(given.W[0], gradients.W[0])
    np.testing.assert_array_equal(given.x, gradients.x)
    np.testing.assert_array_equal(net.forward(x), net.forward(X))


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "bool", "float16", ">i4", ">f2"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_any_real_dtype_gives_the_same_result(dtype, precision):
    net, x = network(precision=precision), (X > 0).astype(dtype)
    expected = net.cost_and_gradients(x.astype("float64"), LABELS)
    for y in (LABELS.astype(dtype), ROWS.astype(dtype)):
        J, gradients = net.cost_and_gradients(x, y)
        assert pytest.approx(expected[0], rel=1e-12) == J
        np.testing.assert_allclose(gradients.x, expected[1].x, rtol=1e-5, atol=1e-9)
        assert gradients.x.dtype == precision


def test_pandas_frames_and_series_work():
    pandas = pytest.importorskip("pandas")
    net, frame = network(), pandas.DataFrame(X, columns=list("abc"))
    series = pandas.Series(LABELS, index=[7, 5, 3, 1])  # the index is not used
    assert net.cost(frame, series) == net.cost(X, LABELS)
    np.testing.assert_array_equal(net.forward(frame), net.forward(X))
    frame["c"] = ["low", "low", "high", None]
    refusal(TypeError, lambda: net.forward(frame), "x has dtype object", "x.astype('float32')")


def test_arguments_are_not_changed():
    net, x, y, w = network("squared_error"), X.copy(), ROWS.copy(), np.ones(4)
    net.cost_and_gradients(x, y, sample_weight=w)
    net.forward(x)[...] = np.nan  # the result is no buffer of the network
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, ROWS)
    np.testing.assert_array_equal(w, np.ones(4))
    assert np.isfinite(net.forward(x)).all()


# ---- y ------------------------------------------------------------------------------------------

CE, BCE, MSE = "softmax_cross_entropy", "binary_cross_entropy", "squared_error"
NAN = np.array([[0.5, 0.5], [np.nan, 1], [0, 1], [np.inf, -np.inf]])
BAD_Y = [
    (CE, [0, 1, 2, 0], ValueError, "y has labels from 0 to 2", "has 2 units; pass labels 0 … 1"),
    (CE, [0, 1, -1, 0], ValueError, "y has labels from -1 to 1", "pass labels 0 … 1"),
    (CE, [0, 1, 0.5, 0], ValueError, "y has values that are not whole numbers", "labels 0 … 1"),
    (CE, [0, 1e300, 0, 0], ValueError, "y has labels from 0 to 1e+300", "pass labels 0 … 1"),
    (
        CE,
        np.array([0, 2**64 - 1, 0, 0], "uint64"),
        ValueError,
        "labels from 0 to 1.84467440737096e",
    ),
    (CE, [0, np.nan, 1, 0], ValueError, "y[1] is nan (1 such values)", "remove or impute"),
    (CE, [0, 1, 1, np.inf], ValueError, "y[3] is inf", "remove or impute"),
    (CE, LABELS[:3], ValueError, "y has shape (3,) but x has 4 rows; pass one target per row"),
    (CE, LABELS[:, None], ValueError, "y has shape (4, 1)", "pass y of shape (4, 2) or labels"),
    (CE, ROWS.T, ValueError, "y has shape (2, 4) but x has 4 rows"),
    (CE, 1, ValueError, "y has shape () but x has 4 rows"),
    (CE, ["a", "b", "a", "b"], TypeError, "y has dtype <U1", "encode class names as 0 … 1"),
    (CE, LABELS + 0j, TypeError, "y has dtype complex128; pass numbers"),
    (CE, LABELS.astype(object), TypeError, "y has dtype object; pass numbers"),
    (CE, None, TypeError, "y has dtype object; pass numbers"),
    (CE, [[1, 0], [0]], ValueError, "y cannot be read as an array", "rows of equal length"),
    (CE, ROWS * 0.7, ValueError, "rows of y", "do not all add up to 1; divide each row by its sum"),
    (CE, 2 * ROWS - 0.5, ValueError, "y lies in [-0.5, 1.5]", "takes values from 0 to 1"),
    (BCE, 2 * ROWS - 1, ValueError, "y lies in [-1, 1]", "encode the classes as 0 and 1"),
    (BCE, LABELS, ValueError, "y has shape (4,) but the output layer has 2 units; pass y of shape"),
    ("poisson", -ROWS, ValueError, "y has the value -1", "pass values of 0 or more"),
    (MSE, NAN, ValueError, "y[1, 0] is nan (3 such values)", "remove or impute"),
    (MSE, NAN.astype("float16"), ValueError, "y[1, 0] is nan (3 such values)"),
    (MSE, ROWS[:, :1], ValueError, "y has shape (4, 1)", "pass y of shape (4, 2)"),
    (MSE, ROWS[..., None], ValueError, "y has shape (4, 2, 1)", "pass y of shape (4, 2)"),
    (MSE, np.ma.masked_equal(ROWS, 1), ValueError, "y has masked values; fill or remove them"),
]


@pytest.mark.parametrize("operation", ["cost", "cost_and_gradients"])
@pytest.mark.parametrize(("loss", "y", "error", "said"), [(n, y, e, m) for n, y, e, *m in BAD_Y])
def test_invalid_y_raises(operation, loss, y, error, said):
    refusal(error, lambda: OPERATIONS[operation](network(loss), X, y), *said)


def test_y_beyond_the_precision_raises():
    y = np.array([[1e300, 0]] * 4)
    assert network("absolute_error").cost(X, y) > 1e299
    net = network("absolute_error", precision="float32")
    refusal(ValueError, lambda: net.cost(X, y), "y lies in [0, 1e+300], beyond", "float32; rescale")


def test_one_column_of_targets_may_be_one_dimensional():
    for loss in (MSE, BCE, "poisson"):
        net = network(loss, 1)
        assert net.cost(X, LABELS) == net.cost(X, LABELS[:, None]) == net.cost(X, LABELS > 0)


# ---- weights ------------------------------------------------------------------------------------

BAD_WEIGHTS = [
    ({"sample_weight": [1, 1, 1]}, ValueError, "sample_weight has shape (3,)", "per row, (4,)"),
    ({"sample_weight": np.ones((4, 1))}, ValueError, "sample_weight has shape (4, 1)", "per row"),
    ({"sample_weight": 2.0}, ValueError, "sample_weight has shape ()", "pass one weight per row"),
    ({"sample_weight": [1, -1, 1, 1]}, ValueError, "sample_weight", "pass weights of 0 or more"),
    (
        {"sample_weight": [1, np.nan, 1, 1]},
        ValueError,
        "sample_weight",
        "pass weights of 0 or more",
    ),
    (
        {"sample_weight": [1, np.inf, 1, 1]},
        ValueError,
        "sample_weight",
        "pass weights of 0 or more",
    ),
    ({"sample_weight": [0, 0, 0, 0]}, ValueError, "sample_weight give every", "a positive sum"),
    ({"sample_weight": list("abcd")}, TypeError, "sample_weight has dtype <U1", "pass one number"),
    ({"sample_weight": [1j] * 4}, TypeError, "sample_weight has dtype complex128", "one number"),
    ({"sample_weight": [[1], [1, 2]]}, ValueError, "sample_weight cannot be read as an array"),
    ({"class_weight": [1, 2, 3]}, ValueError, "class_weight has shape (3,)", "per class, (2,)"),
    ({"class_weight": [1, -2]}, ValueError, "class_weight", "pass weights of 0 or more"),
    ({"class_weight": {0: 10**400}}, TypeError, "class_weight has", "pass numbers that float64"),
    ({"sample_weight": [10**400] * 4}, TypeError, "sample_weight has", "numbers that float64"),
    ({"class_weight": {2: 1.0}}, ValueError, "class_weight has the class 2; pass classes 0 … 1"),
    ({"class_weight": {"0": 1.0}}, ValueError, "class_weight has the class '0'; pass classes"),
    ({"class_weight": {0: "a"}}, TypeError, "class_weight has dtype", "pass one number per class"),
    ({"class_weight": {0: 0, 1: 0}}, ValueError, "class_weight give every", "a positive sum"),
    ({"class_weight": "balance"}, ValueError, 'class_weight must be "balanced" or weights'),
]


@pytest.mark.parametrize(("weights", "error", "said"), [(w, e, m) for w, e, *m in BAD_WEIGHTS])
def test_invalid_weights_raise(weights, error, said):
    refusal(error, lambda: network().cost(X, LABELS, **weights), *said)
    refusal(error, lambda: network().cost_and_gradients(X, LABELS, **weights), *said)


@pytest.mark.parametrize("loss", [MSE, "poisson", BCE])
def test_class_weights_without_classes_raise(loss):
    said = ("class_weight needs one class per example", loss, "use sample_weight")
    refusal(ValueError, lambda: network(loss).cost(X, ROWS, class_weight=[1, 2]), *said)


# ---- anything -----------------------------------------------------------------------------------

ANY_DTYPE = st.sampled_from(["f8", ">f4", "f2", "i8", "u1", "?", "O", "c16", "U2", "M8[s]"])
ANY_SHAPE = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
ANY_ARRAY = st.one_of(
    hnp.arrays(ANY_DTYPE, ANY_SHAPE),
    st.lists(st.one_of(st.integers(-1, 2), st.floats(), st.none(), st.text(max_size=2))),
)


def assert_one_line(error, *starts):
    assert str(error).startswith(starts)
    assert "\n" not in str(error)


@settings(max_examples=200)
@given(
    x=st.one_of(
        ANY_ARRAY,
        hnp.arrays(ANY_DTYPE, st.tuples(st.integers(0, 9), st.just(3))),
    )
)
def test_any_x_gives_outputs_or_an_error_of_one_line(x):
    try:
        with np.errstate(all="ignore"):  # values of x are not checked
            y_hat = network().forward(x)
    except (ValueError, TypeError) as error:
        assert_one_line(error, "x ")
    else:
        assert y_hat.shape == (np.shape(x)[0], 2)
        assert np.isfinite(y_hat).any() or not np.isfinite(np.asarray(x, float)).all()


@settings(max_examples=300)
@given(
    y=st.one_of(
        ANY_ARRAY,
        hnp.arrays(st.sampled_from(["i8", "f4", ">f8"]), 4, elements=st.integers(-1, 2)),
        hnp.arrays(st.sampled_from(["f8", "f2"]), (4, 2), elements=st.integers(-1, 2)),
        hnp.arrays("f8", (4, 2), elements=st.floats(width=32)),
    ),
    loss=st.sampled_from(list(LOSSES)),
)
def test_any_y_gives_a_cost_or_an_error_of_one_line(y, loss):
    net = network(loss, output_activation="softmax")
    try:
        with np.errstate(over="ignore"):
            J = net.cost(X, y)
    except (ValueError, TypeError) as error:
        assert_one_line(error, "y ", "y[", "the rows of y ")
    else:
        values = np.asarray(y, float)
        assert not np.isnan(J)
        assert np.isfinite(values).all()
        if LOSSES[loss].target == "class":
            assert values.min() >= 0
            assert values.max() < 2
