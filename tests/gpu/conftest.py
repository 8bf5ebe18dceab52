"""All tests in this folder need a GPU.  Without one, they are skipped with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

import gpumlp
from gpumlp.backends.cuda import open_device


def _reason() -> str:
    try:
        open_device()
    except gpumlp.DeviceError as error:
        return str(error)
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu_tests = [item for item in items if Path(__file__).parent in item.path.parents]
    reason = _reason() if gpu_tests else ""
    for item in gpu_tests:
        item.add_marker("gpu")
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
