"""Everything in this folder needs a GPU, and is skipped with the reason where there is none."""

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
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    reason = _reason() if ours else ""
    for item in ours:
        item.add_marker("gpu")
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
