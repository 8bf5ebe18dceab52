"""scikit-learn's conventions: `MLPClassifier` and `MLPRegressor`, trained by `gpumlp.Trainer`."""

try:
    import sklearn  # noqa: F401  (said here, once, for all that follows)
except ImportError as error:
    raise ImportError(
        'gpumlp.estimators needs scikit-learn: pip install "gpumlp[sklearn]"'
    ) from error

from gpumlp.estimators.classifier import MLPClassifier
from gpumlp.estimators.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
