"""scikit-learn's own tests of its MLP, run on gpumlp's estimators.

The installed module is imported with our classes under the names of scikit-learn's; they compute in
the precision of the data, as scikit-learn's do.  A test that is expected to fail must fail.  Names
that the installed scikit-learn does not have are ignored.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import sklearn.neural_network
from threadpoolctl import threadpool_limits

from gpumlp import estimators

PRIVATE = "reads a private attribute"
WORDING = "expects scikit-learn's wording"
EXPECTED = {
    # private attributes, and wording
    "test_fit": "sets the attributes of a fitted estimator, private ones too, in place of a fit",
    "test_gradient": PRIVATE,
    "test_learning_rate_warmstart": PRIVATE,
    "test_adaptive_learning_rate": PRIVATE,
    "test_n_iter_no_change": PRIVATE,
    "test_verbose_sgd": WORDING,
    "test_early_stopping_stratified": WORDING,
    "test_minimum_input_sample_size": WORDING,
    # documented differences, in docs/guide/sklearn.md
    "test_nonfinite_params": "a training that diverges raises FloatingPointError",
    "test_mlp_diverging_loss": "a training that diverges raises FloatingPointError",
    "test_predict_proba_multilabel": "logarithms differ where the probabilities are both 1",
    "test_warm_start": "y of a warm start may lack a class",
    "test_mlp_partial_fit_after_fit[MLPClassifier]": "partial_fit supports early_stopping",
    "test_mlp_partial_fit_after_fit[MLPRegressor]": "partial_fit supports early_stopping",
}
LEFT_OUT = {
    "test_n_iter_no_change_inf": "3,000 epochs, and then " + PRIVATE,
    "test_partial_fit_classification": "200 calls of partial_fit; test_fit.py compares them, too",
    "test_partial_fit_regression": "100 calls of partial_fit; test_fit.py compares them, too",
    "test_mlp_loading_from_joblib_partial_fit": "400 epochs; test_pipelines.py has copies go on",
}


@dataclass(eq=False, repr=False)
class MLPClassifier(estimators.MLPClassifier):
    backend: Any = "numpy"
    precision: str = "auto"


@dataclass(eq=False, repr=False)
class MLPRegressor(estimators.MLPRegressor):
    backend: Any = "numpy"
    precision: str = "auto"


def suite() -> ModuleType:
    """The module of scikit-learn's tests, which sees our classes also in its parameters."""
    name = "sklearn.neural_network.tests.test_mlp"
    with pytest.MonkeyPatch.context() as patch:
        for kind in (MLPClassifier, MLPRegressor):
            patch.setattr(sklearn.neural_network, kind.__name__, kind)
        patch.delitem(sys.modules, name, raising=False)
        module = importlib.import_module(name)
        del sys.modules[name]  # the others who import it get scikit-learn's classes
        return module


globals().update(
    {
        name: f
        for name, f in vars(suite()).items()
        if name.startswith("test_") and name not in LEFT_OUT
    }
)


@pytest.fixture(autouse=True)
def expected_failure(request: pytest.FixtureRequest) -> Any:
    """Mark what is expected to fail; matrices as small as these are fastest on one thread."""
    if reason := EXPECTED.get(request.node.name):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    with threadpool_limits(1):
        yield


@pytest.fixture
def global_random_seed() -> int:
    """A fixture of scikit-learn's."""
    return 42
