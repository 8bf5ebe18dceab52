"""NVRTC compiles the 16-bit kernels with the headers that the extras cuda12 and cuda13 bring.

Only types of 16 bits need headers.  They are in the package of CUDA's runtime; CuPy adds its folder
to NVRTC's options.  Neither a CUDA toolkit nor the packages of CCCL and CRT are needed.
"""

import contextlib
import fcntl
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from tests.support.harness import nvrtc
from tests.support.harness.catalogue import cast_source, update_source
from tests.support.harness.host_module import CACHE

ROOT = Path(__file__).parents[3]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
SECONDS = 120  # of a download


def toolkit(extra):
    """The version of the CUDA toolkit that the extra asks for, such as "12.*"."""
    found = [re.fullmatch(r"cuda-toolkit\[(.*)\]==(.*)", each) for each in EXTRAS[extra]]
    [(parts, version)] = [match.groups() for match in found if match]
    assert {"cudart", "nvrtc"} <= set(parts.split(","))
    return version


def of_cuda13(tmp_path):
    """A folder as the wheel of the runtime fills it, and NVRTC, both from this environment."""
    for file in metadata.files("nvidia-cuda-runtime"):
        if file.parts[0] == "nvidia":
            link = tmp_path / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.locate())
    assert toolkit("cuda13").split(".")[0] == metadata.version("nvidia-cuda-runtime").split(".")[0]
    library = nvrtc.open_in(Path(metadata.distribution("nvidia-cuda-nvrtc").locate_file("")))
    return tmp_path, library


def of_cuda12(tmp_path):
    """The wheels themselves, which are downloaded once."""
    version = toolkit("cuda12")
    folder = CACHE / f"toolkit-{version.split('.')[0]}"
    CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
    wanted = [f"nvidia-cuda-{part}-cu12=={version}" for part in ("nvrtc", "runtime")]
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done, said = folder / "complete", ""
        pythons = [] if done.exists() else [sys.executable, sys._base_executable]
        for python in pythons:  # the environment may have no pip of its own
            command = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-compile"]
            command += ["--disable-pip-version-check", "--target", str(folder), *wanted]
            with contextlib.suppress(subprocess.TimeoutExpired):
                ran = subprocess.run(
                    command, capture_output=True, text=True, check=False, timeout=SECONDS
                )
                said = ran.stderr
                if ran.returncode == 0:
                    done.touch()
                    break
        if not done.exists():
            reason = "".join(said.strip().splitlines()[-1:])
            pytest.skip(f"{' '.join(wanted)} cannot be downloaded: {reason or 'no answer'}")
    return folder, nvrtc.open_in(folder)


@pytest.mark.parametrize("packages", [of_cuda12, of_cuda13])
def test_16_bit_kernels_compile_with_the_packages_of_the_extra_alone(packages, tmp_path):
    folder, library = packages(tmp_path)
    include = [path.parent for path in folder.glob("nvidia/*/include/cuda_bf16.h")]
    assert len(include) == 1
    assert not (include[0] / "nv" / "target").exists()
    for source in (
        cast_source("float16", "bfloat16"), update_source("adamw", "bfloat16", "bfloat16"),
    ):  # fmt: skip
        _, ptx = nvrtc.compile_source(library, source, include, "-arch=compute_90")
        assert ".entry" in ptx
