"""Estimators with scikit-learn's conventions: `MLPClassifier` and `MLPRegressor`."""

from gpumlp.errors import needs

with needs("gpumlp.estimators needs scikit-learn", "sklearn"):
    import sklearn  # noqa: F401  (raises here, once, for all modules of this folder)

from gpumlp.estimators.classifier import MLPClassifier
from gpumlp.estimators.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
