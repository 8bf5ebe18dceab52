"""The fastest way of each product, on disk: one JSON file a device, driver and cublasLt.

The file is a cache: one that is damaged, or that cannot be written, costs a warning, no more.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpumlp.storage import atomic_write

FORMAT = 1


class TuningCache:
    """Records of measured products, by the product's description.

    Args:
        device: what the measurements hold for: names and versions.
        folder: where the file is; None: `cache_folder`.
    """

    def __init__(self, device: Mapping[str, str | int], folder: Path | None = None) -> None:
        self._device = dict(device)
        name = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(map(str, device.values())))
        self.path = (folder or cache_folder()) / f"gemm-{name}.json"
        self._records: dict[str, Any] | None = None
        self._warned = False

    def get(self, product: str) -> Any:
        """The record, or None."""
        if self._records is None:
            self._records = self._read()
        return self._records.get(product)

    def put(self, product: str, record: Mapping[str, Any]) -> None:
        """Keep a record, beside those that other processes have written meanwhile."""
        if self._records is None:
            self._records = self._read()
        self._records[product] = dict(record)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _alone(self.path):
                self._records = self._read() | self._records
                content = {"format": FORMAT, "device": self._device, "plans": self._records}
                atomic_write(self.path, json.dumps(content, indent=1).encode())
        except OSError as error:
            self._warn(f"the fastest products cannot be kept ({error}); set GPUMLP_CACHE")

    def _read(self) -> dict[str, Any]:
        """The file's records; none where there is no file, or where it is not ours."""
        try:
            content = json.loads(self.path.read_bytes())
            ours = content["format"] == FORMAT and content["device"] == self._device
            plans = content["plans"]
            if ours and isinstance(plans, dict):
                return plans
            self._warn(f"{self.path} is of another device or version, and is ignored")
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            self._warn(
                f"{self.path} cannot be read, and is ignored ({type(error).__name__}: {error})"
            )
        return {}

    def _warn(self, text: str) -> None:
        if not self._warned:
            warnings.warn(text, stacklevel=2)
        self._warned = True


def cache_folder() -> Path:
    """$GPUMLP_CACHE, or gpumlp's folder in the user's cache folder."""
    if "GPUMLP_CACHE" in os.environ:
        return Path(os.environ["GPUMLP_CACHE"])
    usual = "LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"
    try:
        return Path(os.environ.get(usual) or Path.home() / ".cache") / "gpumlp"
    except RuntimeError:  # a user without a home, in a container
        return Path(tempfile.gettempdir()) / f"gpumlp-{os.getuid()}"


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """No other process is here at the same time; where there is no flock, that is left to luck."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
