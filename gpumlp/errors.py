"""The errors of our own; all others are ValueError and TypeError."""


class DeviceError(RuntimeError):
    """The GPU cannot be used, or failed; the message says why and what to do."""


class OutOfMemoryError(DeviceError):
    """The GPU's memory is too small; the message says for what and, of a fit, what would fit."""


class CheckpointError(ValueError):
    """A file is not a gpumlp checkpoint, is damaged, or does not fit; nothing was loaded."""
