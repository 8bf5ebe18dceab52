"""Tests: the folders mirror gpumlp/; helpers are in `tests.support`."""
