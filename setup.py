"""Maps the folder kernels/ into the package as gpumlp.kernels; all else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["gpumlp", "gpumlp.*"]), "gpumlp.kernels"],
    package_dir={"gpumlp.kernels": "kernels"},
    package_data={"gpumlp": ["py.typed"], "gpumlp.kernels": ["*.cu", "*.cuh"]},
)
