"""Searches for hyperparameters that train all candidates and folds together."""

from gpumlp.search.searches import GridSearch, RandomSearch

__all__ = ["GridSearch", "RandomSearch"]
