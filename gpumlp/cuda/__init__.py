"""The metal: the device behind the GPU room."""

from gpumlp.cuda.opening import open_device

__all__ = ["open_device"]
