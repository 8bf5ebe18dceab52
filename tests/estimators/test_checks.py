"""scikit-learn's own checks of an estimator: all in float64, all but two in float32."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpumlp.estimators import MLPClassifier, MLPRegressor

# the checks' settings leave no time to converge
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SHORT: dict[str, Any] = {"backend": "numpy", "max_iter": 50}
DOUBLE = [
    MLPClassifier(precision="auto", **SHORT),
    MLPRegressor(precision="float64", **SHORT),
    MLPClassifier(precision="auto", n_models=2, **SHORT),
    MLPRegressor(precision="float64", n_models=2, **SHORT),
]
SINGLE = [MLPClassifier(**SHORT), MLPRegressor(**SHORT)]


@parametrize_with_checks(DOUBLE, expected_failed_checks=lambda e: {}, xfail_strict=True)
def test_float64(estimator, check):
    check(estimator)


# A weight and a repeated row give results that differ by rounding; the check allows 1e-7.  How much
# they differ depends on the processor, so the checks may pass.
ROUNDED = {
    f"check_sample_weight_equivalence_on_{kind}_data": "asks float32 for a relative 1e-7"
    for kind in ("dense", "sparse")
}


@parametrize_with_checks(SINGLE, expected_failed_checks=lambda e: ROUNDED, xfail_strict=False)
def test_float32(estimator, check):
    check(estimator)
