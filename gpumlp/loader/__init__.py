"""Minibatches: examples checked and placed, shuffled, gathered or streamed."""
