"""The tuning cache: one file for each device, invalid files, concurrent writers."""

import json
import os
import subprocess
import sys

import pytest

from gpumlp.backends.cuda.cache import TuningCache
from gpumlp.io.paths import cache_folder

DEVICE = {"device": "Test GPU", "capability": "9.0", "cublasLt": 130100, "driver": 13000}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUMLP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_each_device_and_version_has_its_own_file(folder):
    for change in ({}, {"device": "Other/GPU"}, {"driver": 13010}, {"cublasLt": 130200}):
        cache = TuningCache(DEVICE | change)
        assert cache.get("p") is None
        cache.put("p", {"is": change})
        assert TuningCache(DEVICE | change).get("p") == {"is": change}
    names = sorted(path.name for path in folder.glob("*.json"))
    assert len(names) == 4
    assert "gemm-Other-GPU-9.0-130100-13000.json" in names


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe", b"{", b"[]", b"null", b'{"format": 1}', b"[" * 100_000,
        b'{"format": 2, "device": {}, "plans": {}}',
        json.dumps({"format": 1, "device": {"device": "Another"}, "plans": {"p": 1}}).encode(),
        json.dumps({"format": 1, "device": DEVICE, "plans": ["p"]}).encode(),
    ],
)  # fmt: skip
def test_invalid_file_warns_once(folder, content):
    folder.mkdir()
    path = TuningCache(DEVICE).path
    path.write_bytes(content)
    cache = TuningCache(DEVICE)
    with pytest.warns(UserWarning, match="ignored") as warned:
        found = cache.get("p"), cache.put("p", {"a": 1})
    assert (found, len(warned)) == ((None, None), 1)
    assert TuningCache(DEVICE).get("p") == {"a": 1}


def test_unwritable_folder_warns_once(folder):
    folder.write_text("a file where the folder should be")
    cache = TuningCache(DEVICE)
    with pytest.warns(
        UserWarning, match="cannot be written .*set GPUMLP_CACHE|cannot be read"
    ) as warned:
        cache.put("p", {"a": 1}), cache.put("q", {"a": 2})
    assert len(warned) == 1
    assert cache.get("q") == {"a": 2}


PUT_MANY = """
import json, sys, warnings
from pathlib import Path
from gpumlp.backends.cuda.cache import TuningCache

warnings.simplefilter("error")
folder, who, device = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
cache = TuningCache(device, folder)
for i in range(10):
    cache.put(f"{who} {i}", {"i": i})
"""


def test_concurrent_writers_lose_nothing(folder):
    command = [sys.executable, "-c", PUT_MANY, str(folder)]
    workers = [subprocess.Popen([*command, str(who), json.dumps(DEVICE)]) for who in range(4)]
    assert [worker.wait(100) for worker in workers] == [0] * 4
    cache = TuningCache(DEVICE, folder)
    assert all(cache.get(f"{who} {i}") == {"i": i} for who in range(4) for i in range(10))


def test_cache_folder(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("GPUMLP_CACHE")
    variable = "LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"
    monkeypatch.setenv(variable, str(tmp_path))
    assert cache_folder() == tmp_path / "gpumlp"
    monkeypatch.setenv("GPUMLP_CACHE", "")  # not the folder where the program runs
    assert cache_folder() == tmp_path / "gpumlp"
    monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert os.name == "nt" or cache_folder() == tmp_path / ".cache" / "gpumlp"

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", homeless)
    assert os.name == "nt" or str(os.getuid()) in cache_folder().name
