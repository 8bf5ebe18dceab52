"""Searches for hyperparameters that train all candidates and folds together."""

from gpumlp.errors import needs

with needs("gpumlp.search needs scikit-learn", "sklearn"):
    import sklearn  # noqa: F401  (raises here, once, for all modules of this folder)

from gpumlp.search.searches import GridSearch, RandomSearch

__all__ = ["GridSearch", "RandomSearch"]
