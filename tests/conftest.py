"""What every test shares: a seeded generator, and property tests that repeat run for run."""

import secrets

import hypothesis
import numpy as np
import pytest

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture
def rng():
    return np.random.default_rng(20_16)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("GPUMLP_CACHE", str(tmp_path_factory.getbasetemp() / secrets.token_hex(8)))
    monkeypatch.delenv("GPUMLP_TUNE", raising=False)


@pytest.fixture
def flowers(tmp_path):
    """A table of flowers as CSV."""
    from cli_cases import write_flowers

    return write_flowers(tmp_path / "flowers.csv")


@pytest.fixture
def model(flowers, tmp_path):
    """A network that the command line has trained on it."""
    from cli_cases import train_flowers

    return train_flowers(flowers, tmp_path / "m")
