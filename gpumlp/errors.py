"""The errors of gpumlp's own; all others are ValueError or TypeError."""


class DeviceError(RuntimeError):
    """The GPU cannot be used, or failed.  The message says why and what to do."""


class OutOfMemoryError(DeviceError):
    """The GPU has too little memory.  For a fit, the message says which settings would fit."""


class CheckpointError(ValueError):
    """A file is no gpumlp checkpoint, is damaged or does not fit.  Nothing was loaded."""
