"""Estimators with scikit-learn's conventions: `MLPClassifier` and `MLPRegressor`."""

try:
    import sklearn  # noqa: F401  (raises here, once, for all modules of this folder)
except ImportError as error:
    raise ImportError(
        'gpumlp.estimators needs scikit-learn: pip install "gpumlp[sklearn]"'
    ) from error

from gpumlp.estimators.classifier import MLPClassifier
from gpumlp.estimators.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
