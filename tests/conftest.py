"""Fixtures of all tests, and the settings of property tests, which repeat run for run."""

import gc
import os
import secrets
import shutil
import signal
import sys

import hypothesis
import numpy as np
import pytest

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")

# For pytest-xdist's processes and those that tests start.  Where each has a BLAS thread for every
# core, the threads spin while they wait for each other: a test can take 15 times as long.
for library in "OPENBLAS", "MKL", "OMP":
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

# They keep compiled modules: a run starts some hundred processes, and the tests compile slowly.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Collecting the tests makes millions of objects that stay: garbage is sought among them neither
# meanwhile nor later, when a search would take a second.
gc.disable()


def pytest_collection_modifyitems(items):
    """Start the longest tests first: one that starts last keeps one processor from its work."""
    items.sort(key=lambda item: item.path.name != "test_sanitized.py")


def pytest_collection_finish():
    gc.enable()
    gc.freeze()
    for name, module in list(sys.modules.items()):
        if name.startswith("tests."):
            for each in vars(module).values():
                if type(each) is np.random.Generator:
                    GENERATORS[each.bit_generator] = each.bit_generator.state


# Those that the modules of tests share among their tests, and their states before the first one.
GENERATORS = {}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """A test draws the same numbers alone, after any others, and in any process of xdist."""
    for bits, state in GENERATORS.items():
        bits.state = state


@pytest.fixture
def rng():
    return np.random.default_rng(20_16)


@pytest.fixture(autouse=True)
def _seeded_torch():
    """Modules of torch have the same parameters in every run, whatever tests ran before."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(20_16)


@pytest.fixture(autouse=True, scope="session")
def _default_signals():
    """Let signals act where they are ignored on entry: SIGINT in the background, SIGHUP by nohup.

    Child processes do not inherit a handler of Python's: in them they are not ignored either.
    """
    handlers = {signal.SIGINT: signal.default_int_handler}
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = signal.SIG_DFL
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _own_signals(_default_signals):
    """No test leaves handlers of signals to the next one."""
    numbers = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    before = {number: signal.getsignal(number) for number in numbers if number is not None}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Each test has its own cache, so that none reads or fills the user's."""
    monkeypatch.setenv("GPUMLP_CACHE", str(tmp_path_factory.getbasetemp() / secrets.token_hex(8)))
    monkeypatch.delenv("GPUMLP_TUNE", raising=False)


@pytest.fixture(autouse=True, scope="session")
def _shared_compiled_entries():
    """An activation of a test's own takes seconds to compile: it is kept for all tests and runs."""
    with pytest.MonkeyPatch.context() as patch:
        if shutil.which("g++"):  # as the harness needs it
            from tests.support.harness.host_module import CACHE

            patch.setattr("gpumlp.backends.cpu.loading.cache_folder", lambda: CACHE)
        yield


@pytest.fixture
def no_waiting_for_the_disk(monkeypatch):
    """Skip fsync, which takes up to 40 ms.  Tests of killed processes and one more test use it."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def path(tmp_path):
    """The path of a checkpoint."""
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


@pytest.fixture
def tensor():
    """A function that makes random torch tensors."""
    from tests.support.torch_cases import tensor_maker

    return tensor_maker()
