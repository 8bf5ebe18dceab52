"""The tuning cache: measured products on disk, one JSON file for each device, driver and cublasLt.

The file is only a cache.  If it is damaged or cannot be written, a warning says so.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from gpumlp.io.files import atomic_write, one_writer
from gpumlp.io.paths import cache_folder

FORMAT = 1


class TuningCache:
    """Records of measurements; the key is the description of the product or of the step.

    Args:
        device: the names and versions for which the measurements are valid.
        folder: the folder of the file; None: `cache_folder`.
    """

    def __init__(self, device: Mapping[str, str | int], folder: Path | None = None) -> None:
        self._device = dict(device)
        name = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(map(str, device.values())))
        self.path = (folder or cache_folder()) / f"gemm-{name}.json"
        self._warned = False

    def get(self, product: str) -> Any:
        """The record, or None."""
        return self._records.get(product)

    def put(self, product: str, record: Mapping[str, Any]) -> None:
        """Write a record.  Records that other processes have written meanwhile are kept."""
        self._records[product] = dict(record)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with one_writer(self.path.parent):
                self._records = self._read() | self._records
                content = {"format": FORMAT, "device": self._device, "plans": self._records}
                atomic_write(self.path, json.dumps(content, indent=1).encode())
        except OSError as error:
            self._warn(f"the tuning cache cannot be written ({error}); set GPUMLP_CACHE")

    @cached_property
    def _records(self) -> dict[str, Any]:
        return self._read()

    def _read(self) -> dict[str, Any]:
        """The records of the file; none if it is missing, unreadable or of another device."""
        try:
            content = json.loads(self.path.read_bytes())
            valid = content["format"] == FORMAT and content["device"] == self._device
            plans = content["plans"]
            if valid and isinstance(plans, dict):
                return plans
            self._warn(f"{self.path} is for another device or version and is ignored")
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            self._warn(
                f"{self.path} cannot be read and is ignored ({type(error).__name__}: {error})"
            )
        return {}

    def _warn(self, text: str) -> None:
        if not self._warned:
            warnings.warn(text, stacklevel=2)
        self._warned = True
