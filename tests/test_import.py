"""`import gpumlp` takes little time and memory, and loads no library but NumPy."""

import json
import os
import subprocess
import sys

import pytest

import gpumlp

HEAVY = [
    "cupy", "sklearn", "torch", "tqdm", "typer", "safetensors", "matplotlib", "scipy", "pandas",
    "nvmath", "mlxtend", "rich", "pyarrow", "mlflow", "tensorboardX", "mpi4py",
]  # fmt: skip

# Run in a new interpreter: what the import adds to `import numpy`, in seconds and bytes.
MEASURE = """
import json, os, sys, time
import numpy
page = os.sysconf("SC_PAGE_SIZE") if os.path.exists("/proc/self/statm") else 0
rss = lambda: page and int(open("/proc/self/statm").read().split()[1]) * page
before, start = rss(), time.process_time()
import gpumlp
seconds = time.process_time() - start
print(json.dumps([seconds, rss() - before, sorted({m.partition(".")[0] for m in sys.modules})]))
"""


def fresh_import(**variables):
    return json.loads(python(MEASURE, **variables))


def python(code, **variables):
    """Return what a new interpreter prints."""
    run, env = [sys.executable, "-c", code], {**os.environ, **variables}
    return subprocess.run(run, capture_output=True, text=True, check=True, env=env).stdout


@pytest.fixture(scope="module")
def imports(tmp_path_factory):
    """Measured imports.

    It is processor time, because tests run in parallel.  They disturb even that, so an import that
    is too slow is measured again, up to 15 times.
    """
    # an installed package has .pyc files; the first import writes them
    cached = {
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("pyc")),
    }
    fresh_import(**cached)
    measured = []
    while len(measured) < 15 and not (measured and fast_and_small(measured)):
        measured.append(fresh_import(**cached))
    return measured


def fast_and_small(measured):
    """Whether the best import takes at most 0.1 s and 10 MB."""
    seconds, size, _ = zip(*measured, strict=True)
    return min(seconds) <= 0.1 and min(size) <= 10 << 20


def test_import_adds_at_most_a_tenth_of_a_second_and_10_mb(imports):
    assert fast_and_small(imports), [(seconds, size) for seconds, size, _ in imports]


def test_import_loads_no_heavy_library(imports):
    assert not set(HEAVY) & set(imports[0][2])


def test_the_training_package_is_imported_on_demand():
    code = "import gpumlp; assert gpumlp.Trainer.__name__ == 'Trainer'; print(gpumlp.__version__)"
    assert python(code).strip() == gpumlp.__version__
    with pytest.raises(AttributeError, match="has no attribute 'Trainr'"):
        gpumlp.Trainr  # noqa: B018  (the access is the test)


def test_dir_lists_names_that_are_not_imported_yet():
    names = python("import sys, gpumlp; print(*dir(gpumlp), 'gpumlp.training' in sys.modules)")
    *listed, loaded = names.split()
    assert set(gpumlp.__all__) <= set(listed)
    assert loaded == "False"


def test_callbacks_load_no_heavy_library():
    code = "import sys, gpumlp; gpumlp.callbacks.TensorBoard('t'); gpumlp.callbacks.MLflow(); "
    loaded = python(code + "print(*(m.partition('.')[0] for m in sys.modules))").split()
    assert "numpy" in loaded
    assert not set(HEAVY) & set(loaded)


def test_every_public_name_exists():
    for name in gpumlp.__all__:
        assert getattr(gpumlp, name) is not None


@pytest.mark.parametrize("name", ["callbacks", "data", "estimators", "interop", "plots", "search"])
def test_packages_are_imported_when_they_are_used(name):
    if name in ("estimators", "search"):
        pytest.importorskip("sklearn")
    assert gpumlp.__getattr__(name).__name__ == f"gpumlp.{name}"
