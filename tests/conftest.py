"""What every test shares: a seeded generator, and property tests that repeat run for run."""

import os
import secrets
import shutil

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
def no_waiting_for_the_disk(monkeypatch):
    """An fsync takes up to 40 ms; processes that get killed do it, and so does one test."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def path(tmp_path):
    """Of a checkpoint."""
    return tmp_path / "run.safetensors"


@pytest.fixture
def flowers(tmp_path):
    """A table of flowers as CSV."""
    from tests.support.cli_cases import write_flowers

    return write_flowers(tmp_path / "flowers.csv")


@pytest.fixture(scope="session")
def _trained_on_flowers(tmp_path_factory):
    """The folder of a run of `gpumlp train`, which is trained once for all tests."""
    from tests.support.cli_cases import train_flowers, write_flowers

    folder = tmp_path_factory.mktemp("trained")
    return train_flowers(write_flowers(folder / "flowers.csv"), folder / "m").parent


@pytest.fixture
def model(_trained_on_flowers, tmp_path):
    """A model that `gpumlp train` trained on the flowers, in a copy of its folder."""
    return shutil.copytree(_trained_on_flowers, tmp_path / "m") / "model.safetensors"
