"""Estimators that embed columns: against scikit-learn's encoder and a network on its codes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pandas")

import pandas as pd
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder

import gpumlp
from gpumlp.estimators import MLPClassifier, MLPRegressor
from gpumlp.search import GridSearch
from tests.support.refusal import refusal

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
RNG = np.random.default_rng(2)
M = 120
CITY = RNG.choice([f"c{i}" for i in range(9)], M)
ZONE = RNG.choice([501, 7, 2**25 + 1, 2**25 + 2, 90210], M)
A = RNG.normal(size=(M, 2))
EFFECT = {city: RNG.normal() for city in np.unique(CITY)}
Y = np.array([EFFECT[c] for c in CITY]) + 0.1 * A[:, 0]
LABELS = np.digitize(Y, np.quantile(Y, [0.5, 0.8]))
FRAME = pd.DataFrame({"a": A[:, 0], "city": CITY, "zone": ZONE, "b": A[:, 1]})
FIT: dict[str, Any] = {
    "hidden_layer_sizes": (8,), "activation": "tanh", "max_iter": 4, "random_state": 3,
    "backend": "numpy", "precision": "float64", "batch_size": 32, "alpha": 0.0,
}  # fmt: skip
BOTH = {"city": 5, "zone": 2}


def coded(frame: Any) -> Any:
    """The columns of the frame, with the codes of scikit-learn's encoder."""
    encoder = OrdinalEncoder().fit(FRAME[["city", "zone"]])
    codes = encoder.transform(frame[["city", "zone"]])
    return np.column_stack([frame["a"], codes[:, 0], codes[:, 1], frame["b"]])


def fitted(kind: Any = MLPRegressor, X: Any = FRAME, y: Any = None, **more: Any) -> Any:
    y = (Y if kind is MLPRegressor else LABELS) if y is None else y
    return kind(**{**FIT, "embed": BOTH, **more}).fit(X, y)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_a_fit_is_that_of_the_network_on_codes(kind: Any) -> None:
    e = fitted(kind, solver="adamw")
    start = fitted(kind, solver="adamw", max_iter=1, learning_rate_init=1e-300)
    net = copy.deepcopy(start.net_)
    assert gpumlp.MLP(**net.config()).embed == net.embed
    unit = 1.0 if kind is MLPClassifier else 0.5  # of scikit-learn's squared error
    rule = gpumlp.OPTIMIZERS["adamw"].set(eps=max(1e-8 / unit, 1e-37))
    trainer = gpumlp.Trainer(net, rule, 1e-3, 32, seed=e._seed)
    trainer.fit(coded(FRAME), LABELS if kind is MLPClassifier else Y, 4, progress=False)
    for name, tensor in e.net_.tensors().items():
        np.testing.assert_allclose(net.tensors()[name], tensor, 1e-9, 1e-11, err_msg=name)
    p = net.predict(coded(FRAME))
    found = e.predict_proba(FRAME) if kind is MLPClassifier else e.predict(FRAME)[:, None]
    np.testing.assert_allclose(found, p, rtol=1e-8)
    assert e.net_.tensors()["embed.1.weight"].shape == (11, 5)
    assert e.net_.tensors()["embed.2.weight"].shape == (7, 2)
    assert {j: c.tolist() for j, c in e.categories_.items()} == {
        1: [f"c{i}" for i in range(9)], 2: np.unique(ZONE).tolist()
    }  # fmt: skip
    assert e.feature_names_in_.tolist() == ["a", "city", "zone", "b"]
    assert e.n_features_in_ == e.net_.widths[0] == 4


def other_kinds() -> dict[str, Any]:
    polars, pa = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    numbers = coded(FRAME)
    return {
        "polars": polars.from_pandas(FRAME),
        "categorical": FRAME.astype({"city": "category"}),
        "polars categorical": polars.from_pandas(FRAME.astype({"city": "category"})),
        "arrow": pa.Table.from_pandas(FRAME),
        "arrow dictionary": pa.Table.from_pandas(FRAME.astype({"city": "category"})),
        "string": FRAME.astype({"city": "string"}),
        "object": FRAME.to_numpy(object),
        "list": FRAME.to_numpy(object).tolist(),
        "codes": numbers,
    }


def test_all_kinds_of_data_give_one_result() -> None:
    e = fitted()
    for name, X in other_kinds().items():
        own = fitted(X=X, embed={1: 5, 2: 2})
        np.testing.assert_array_equal(own.predict(X), e.predict(FRAME), err_msg=name)
        if name not in ("codes", "object", "list"):
            named = fitted(X=X)
            np.testing.assert_array_equal(named.predict(X), e.predict(FRAME), err_msg=name)
            assert fitted(X=X, embed=5)._codes.columns.keys() == {1}, name
    torch = pytest.importorskip("torch")
    X = torch.from_numpy(coded(FRAME))
    own = fitted(X=X, embed={1: 5, 2: 2})
    assert isinstance(own.predict(X), torch.Tensor)
    np.testing.assert_array_equal(own.predict(X).numpy(), e.predict(FRAME))


@pytest.mark.parametrize("dtype", ["i1", "u1", "i8", "f4", "f8", object])
def test_codes_of_any_dtype(dtype: Any) -> None:
    """127 categories: with the two more codes they exceed int8."""
    X = np.column_stack([RNG.permutation(M) % 127, np.arange(M) % 3]).astype(dtype)
    e = fitted(X=X, embed={0: 3})
    assert e.net_.embed.each[0].c == len(np.unique(X[:, 0])) + 2
    same = fitted(X=X.astype(float), embed={0: 3})
    np.testing.assert_allclose(e.predict(X), same.predict(X), 1e-6)
    new = np.array([[126, 0], [100, 1]]).astype(dtype)
    new[0, 0] = 125 if 125 not in X[:, 0] else 126
    np.testing.assert_allclose(e.predict(new), same.predict(new), 1e-6)


def test_large_numbers_are_different_categories_in_float32() -> None:
    """The network is in float32, which does not tell 2**25 + 1 and 2**25 + 2 apart."""
    X = FRAME.drop(columns="city")
    e = fitted(X=X, embed={"zone": 4}, precision="float32")
    assert e.net_.embed.each[0].c == 7
    one, two = X[ZONE == 2**25 + 1][:1], X[ZONE == 2**25 + 1][:1].assign(zone=2**25 + 2)
    assert e.predict(one) != e.predict(two)


def test_unknown_values_add_nothing_and_missing_ones_are_learned() -> None:
    X = FRAME.assign(city=np.where(np.arange(M) % 10 == 0, None, CITY))
    e = fitted(X=X)
    tables = e.net_.tensors()
    city, zone = tables["embed.1.weight"], tables["embed.2.weight"]
    assert (city[9] == 0).all()  # unknown
    assert (zone[5:] == 0).all()  # unknown and missing
    assert (city[10] != 0).any()
    new = X[:3].assign(city=["x", None, np.nan], zone=[1, 2, 3])
    W, b = e.coefs_, e.intercepts_
    h = np.column_stack([new["a"], new["b"], city[[9, 10, 10]], np.zeros((3, 2))])
    expected = (np.tanh(h @ W[0] + b[0]) @ W[1] + b[1])[:, 0]
    np.testing.assert_allclose(e.predict(new), expected, rtol=1e-10)


@pytest.mark.parametrize("dtype", ["str", "category", "object", "string"])
def test_numbers_are_not_taken_for_unknown_texts(dtype: str) -> None:
    """And the other way round; a missing value is of any type."""
    zones = FRAME.assign(zone=FRAME["zone"].astype(str).astype(dtype))
    for X, new, had in ((zones, FRAME, "texts"), (FRAME, zones, "numbers")):
        e = fitted(X=X, embed={"zone": 2, "city": 2})
        refusal(TypeError, lambda e=e, new=new: e.predict(new), f"in the first fit it had {had}")
        assert len(e.predict(new[:2].assign(zone=None))) == 2


@pytest.mark.parametrize("none", [None, np.nan, pd.NA, pd.NaT])
def test_what_is_missing(none: Any) -> None:
    X = FRAME.assign(city=pd.Series([none, *CITY[1:]], dtype=object))
    e = fitted(X=X)
    assert e.categories_[1].tolist() == sorted({*CITY[1:]})
    assert e._codes.columns[1].missing
    numbers = np.column_stack([A, np.where(np.arange(M) == 0, np.nan, ZONE)])
    e = fitted(X=numbers, embed={2: 3})
    assert e._codes.columns[2].missing
    with pytest.raises(ValueError, match="NaN"):
        fitted(X=numbers[:, ::-1], embed={2: 3})  # missing numbers are refused, as before


def test_a_number_is_for_columns_of_words() -> None:
    X = FRAME.assign(day=pd.Categorical(np.arange(M) % 3), flag=CITY == "c1")
    e = fitted(X=X, embed=6)
    assert [(one.column, one.c, one.d) for one in e.net_.embed.each] == [(1, 11, 6), (4, 5, 3)]
    e = fitted(X=X.to_numpy(object), embed=6)
    assert [(one.column, one.d) for one in e.net_.embed.each] == [(1, 6)]
    constant = fitted(X=FRAME.assign(city="one"), embed=4)
    assert [(one.c, one.d) for one in constant.net_.embed.each] == [(3, 1)]


def test_scikit_learn_uses_it_as_any_parameter() -> None:
    e = fitted(MLPClassifier, FRAME.assign(zone=0), embed=4)
    X = FRAME.assign(zone=0)
    again = clone(e)
    assert again.embed == 4
    assert not hasattr(again, "categories_")
    for same in (pickle.loads(pickle.dumps(e)), copy.deepcopy(e), clone(e).fit(X, LABELS)):
        np.testing.assert_array_equal(same.predict_proba(X), e.predict_proba(X))
    grid = {"embed": [{"city": 2}, 4], "alpha": [0.0, 1e-3]}
    search = GridSearchCV(clone(e), grid, cv=3, error_score="raise").fit(X, LABELS)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    piped = make_pipeline(FunctionTransformer(), clone(e)).fit(X, LABELS)
    np.testing.assert_array_equal(piped.predict_proba(X), e.predict_proba(X))


def test_together_from_gpumlp_search() -> None:
    X = FRAME.assign(zone=0)
    e = MLPRegressor(**FIT, embed={"city": 2})
    grid = {"embed": [{"city": 2}, {"city": 4}], "learning_rate_init": [0.001, 0.01]}
    ours = GridSearch(e, grid, cv=3, error_score="raise").fit(X, Y)
    theirs = GridSearchCV(e, grid, cv=3).fit(X, Y)
    for name in ("mean_test_score", "split0_test_score"):
        np.testing.assert_allclose(ours.cv_results_[name], theirs.cv_results_[name], 1e-6)


@pytest.mark.parametrize("scoring", [None, "r2", lambda e, X, y: -float(abs(e.predict(X)[0]))])
def test_early_stopping_validates_on_codes(scoring: Any) -> None:
    e = fitted(early_stopping=True, scoring=scoring, max_iter=6)
    assert len(e.validation_scores_) == e.n_iter_
    held = FRAME[:30], Y[:30]
    e = MLPRegressor(**FIT, embed=BOTH, scoring=scoring).fit(FRAME[30:], Y[30:], None, *held)
    if scoring != "r2":
        return
    assert e.validation_scores_[-1] == pytest.approx(e.score(*held), abs=1e-12)


def test_several_models_are_as_one_each() -> None:
    several = fitted(n_models=3)
    seeds = np.random.RandomState(3).randint(2**31 - 1, size=3).tolist()
    each = [fitted(random_state=seed) for seed in seeds]
    mean = np.mean([e.predict(FRAME) for e in each], axis=0)
    np.testing.assert_allclose(several.predict(FRAME), mean, rtol=1e-12)
    for model, own in zip(several.models_, each, strict=True):
        np.testing.assert_array_equal(model.predict(FRAME.to_numpy(object)), own.predict(FRAME))
    assert several.categories_.keys() == {1, 2}


def test_partial_fit_keeps_the_categories_of_the_first_call() -> None:
    e = MLPRegressor(**FIT, embed=BOTH)
    known = FRAME[(CITY != "c8").tolist()]
    for _ in range(2):
        e.partial_fit(known, Y[CITY != "c8"])
    before = e.net_.tensors()["embed.1.weight"]
    assert before.shape == (10, 5)
    assert (before[8:] == 0).all()
    e.partial_fit(FRAME, Y)  # c8 is unknown, and its vector begins to learn
    after = e.net_.tensors()["embed.1.weight"]
    assert (after[8] != 0).any()
    assert (after[9] == 0).all()
    assert len(e.categories_[1]) == 8


def test_a_warm_start_needs_the_same_columns() -> None:
    e = fitted(warm_start=True)
    before = e.predict(FRAME)
    e.fit(FRAME, Y)
    assert (e.predict(FRAME) != before).any()
    e.set_params(embed={"city": 5})
    refusal(ValueError, lambda: e.fit(FRAME, Y), "embed was changed since the network was built")
    e.set_params(warm_start=False).fit(FRAME.drop(columns="zone"), Y)
    assert e.categories_.keys() == {1}
    e.set_params(embed=None).fit(A, Y)
    assert not hasattr(e, "categories_")


def test_a_frame_with_other_columns_raises() -> None:
    e = fitted()
    with pytest.raises(ValueError, match="feature names"):
        e.predict(FRAME[["city", "a", "zone", "b"]])
    with pytest.raises(ValueError, match="features"):
        fitted(X=FRAME.to_numpy(object), embed={1: 2}).predict(FRAME.to_numpy(object)[:, :1])


@pytest.mark.parametrize(
    ("embed", "X", "error", "said"),
    [
        ({"town": 4}, FRAME, ValueError, "'town', but X has no such column; it has: a, city"),
        ({"citty": 4}, FRAME, ValueError, "did you mean 'city'?"),
        ({4: 4}, FRAME, ValueError, "embed has the column 4, but X has the columns 0 … 3"),
        ({-1: 4}, FRAME, ValueError, "embed has the column -1, but X has the columns 0 … 3"),
        ({"city": 4, 1: 2}, FRAME, ValueError, "the column 1 twice, by name and by position"),
        ({"city": 4}, FRAME.to_numpy(object), ValueError, "X is no data frame; pass positions"),
        ({"city": 0}, FRAME, ValueError, "embed['city'] must be at least 1, got 0"),
        ({"city": "x"}, FRAME, TypeError, "embed['city'] must be a whole number"),
        ({1.5: 2}, FRAME, TypeError, "embed must be a mapping from names or positions of columns"),
        (0, FRAME, ValueError, "embed must be at least 1, got 0"),
        (-16, FRAME, ValueError, "embed must be at least 1, got -16"),
        ("16", FRAME, TypeError, "embed must be a whole number of 1 or more, got '16'"),
        (16, A, ValueError, "embed=16 is for columns of words, and X has none; name the columns"),
        ({0: 2}, sp.csr_matrix(A), TypeError, "X is sparse; pass X.toarray()"),
    ],
)
def test_wrong_values_raise(embed: Any, X: Any, error: type[Exception], said: str) -> None:
    refusal(error, lambda: MLPRegressor(**FIT, embed=embed).fit(X, Y), said)


@pytest.mark.parametrize("of", ["category", "str", "object"])
def test_words_without_embed_are_refused_with_what_to_do(of):
    frame = pd.DataFrame({"a": np.arange(40.0), "city": [*"abcd"] * 10}).astype({"city": of})
    y = np.arange(40) % 2
    refusal(
        ValueError, lambda: MLPClassifier(max_iter=2).fit(frame, y), "columns of words: city; ",
        "a vector for each word, embed=16,",
    )  # fmt: skip
    MLPClassifier(max_iter=2, embed=16, tol=1.0).fit(frame, y)


def test_words_of_several_types() -> None:
    X = np.empty((M, 2), object)
    X[:, 0], X[:, 1] = A[:, 0], [["b", 7, "a", 3.5][i % 4] for i in range(M)]
    e = MLPRegressor(**FIT, embed={1: 2}).fit(X, Y)
    assert list(e.categories_[1]) == [3.5, 7, "a", "b"]
    np.testing.assert_allclose(e.predict(X[:4]), e.predict(X)[:4], rtol=1e-12)
