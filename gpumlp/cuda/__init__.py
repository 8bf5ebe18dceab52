"""The metal: the real device behind the GPU room."""

from __future__ import annotations

from typing import Any

from gpumlp.errors import DeviceError

__all__ = ["DeviceError", "open_device"]


def open_device() -> Any:
    raise DeviceError("not yet")
