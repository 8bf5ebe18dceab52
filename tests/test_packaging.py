"""The wheel contains everything, and works when it is installed alone."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.compiled import LIBRARY, needs_compiler

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path.name for path in (ROOT / "kernels").iterdir() if path.suffix in (".cu", ".cuh")
)

TRY = """
import sys
import numpy as np
import gpumlp
from gpumlp.backends.cuda.source import KernelSource

text = KernelSource("activation.cu", "float32", gpumlp.ACTIVATIONS["relu"].cuda()).text()
assert "bias_activation" in text and "#include" not in text
assert sys.argv[1] not in gpumlp.__file__, gpumlp.__file__

rng = np.random.default_rng(0)
x = rng.normal(size=(64, 3))
net = gpumlp.MLP([3, 8, 1], activation="tanh", loss="squared_error", backend="auto")
before = net.cost(x, x[:, :1])
gpumlp.Trainer(net, lr=0.01, batch_size=16).fit(x, x[:, :1], epochs=20, progress=False)
assert net.cost(x, x[:, :1]) < before / 5
try:
    net.save("model.safetensors")
except ImportError as error:
    print(error)
"""


def run(*command, **options):
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # a copy, so that the build uses no build folder of the checkout, and leaves none
    for part in ("gpumlp", "kernels"):
        for path in (ROOT / part).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so":
                target = source / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    no_compiler = os.environ | {"CC": "false", "CXX": "false"}
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, source]
    run(*command, env=no_compiler)
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_everything(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    kernels = [Path(name) for name in names if name.startswith("gpumlp/kernels/")]
    assert sorted(path.name for path in kernels if path.suffix in (".cu", ".cuh")) == SOURCES
    cubins = {path.name for path in (ROOT / "kernels" / "cubins").iterdir()}
    assert cubins | {"weight_update.py", "program.cpp"} <= {path.name for path in kernels}
    assert "gpumlp/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "gpumlp").rglob("*.py")}
    assert modules <= set(names)
    assert not any(name.startswith(("tests", "benchmarks")) for name in names)


def test_the_wheel_works_alone(wheel, tmp_path):
    """With NumPy alone, and without a compiler; `save` then says what to install."""
    home = tmp_path / "venv"
    venv.create(home)
    python = home / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", wheel)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    said = run(python, "-W", "error", "-c", TRY, ROOT, cwd=elsewhere, env=environment)
    assert 'pip install "gpumlp[files]"' in said
    assert list(elsewhere.iterdir()) == []


@needs_compiler
def test_the_library_is_compiled_where_there_is_a_compiler():
    assert not isinstance(LIBRARY, str), LIBRARY
