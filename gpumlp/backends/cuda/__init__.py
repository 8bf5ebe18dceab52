"""The CUDA backend and the GPU device that it runs on."""

from gpumlp.backends.cuda.opening import open_device

__all__ = ["open_device"]
