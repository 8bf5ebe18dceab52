"""The metal: the device behind the CUDA backend."""

from gpumlp.backends.cuda.opening import open_device

__all__ = ["open_device"]
