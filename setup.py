"""Maps the folder kernels/ into the package and compiles the CPU backend's library.

All else is in pyproject.toml.  Without a C++ compiler the library is left out, and gpumlp uses the
NumPy backend in its place.
"""

import os
import platform
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # for gpumlp itself: its tables are the source of the library

from gpumlp.backends.cpu import source  # noqa: E402
from gpumlp.backends.cpu.flags import FLAGS, INSTRUCTION_SETS  # noqa: E402

# A library takes half a minute to compile.  From source, there are two: that of this machine, and
# that of any other to which the installation may be copied.  A wheel has all.
EVERY = os.environ.get("GPUMLP_INSTRUCTION_SETS") == "all"
USABLE = [name for name, each in INSTRUCTION_SETS.items() if EVERY or each.usable()]


class BuildLibraries(build_ext):
    """Compile one library for each instruction set, side by side."""

    def initialize_options(self):
        """Use as many processes as there are cores."""
        super().initialize_options()
        self.parallel = os.cpu_count()

    def build_extensions(self):
        """Write a source file for each library, so that each has an object file, and compile."""
        folder = Path(self.build_temp)
        folder.mkdir(parents=True, exist_ok=True)
        text = source.built_in(HERE / "kernels" / "cpu")
        for extension in self.extensions:
            path = folder / f"{extension.name}.cpp"
            path.write_text(text, encoding="utf-8")
            extension.sources = [str(path)]
        super().build_extensions()

    def get_ext_filename(self, fullname):
        """Name a library without the version of Python: ctypes loads it into any."""
        return f"{Path(*fullname.split('.'))}.so"


class Wheel(bdist_wheel):
    """A wheel for a platform and every version of Python."""

    def get_tag(self):
        """Name the platform if there are libraries for it."""
        return "py3", "none", super().get_tag()[2]


libraries = [
    Extension(
        f"gpumlp.backends.cpu._{name}",
        [],  # see build_extensions
        depends=[str(path) for path in Path("kernels/cpu").iterdir()],
        include_dirs=["kernels/cpu"],
        extra_compile_args=[*FLAGS, "-g0", *each.flags],
        extra_link_args=["-pthread"],
        optional=True,
    )
    for name, each in INSTRUCTION_SETS.items()
    if name in (USABLE if EVERY else (USABLE[0], USABLE[-1]))
    and platform.system() != "Windows"  # its threads and compiler are other ones
]

KERNELS = ["gpumlp.kernels", "gpumlp.kernels.cpu", "gpumlp.kernels.cubins"]

setup(
    packages=[*find_packages(include=["gpumlp", "gpumlp.*"]), *KERNELS],
    package_dir={"gpumlp.kernels": "kernels"},
    package_data={
        "gpumlp": ["py.typed"],
        **{each: ["*.cu", "*.cuh", "*.xz", "*.hpp", "*.cpp"] for each in KERNELS},
    },
    ext_modules=libraries,
    cmdclass={"build_ext": BuildLibraries, "bdist_wheel": Wheel},
)
