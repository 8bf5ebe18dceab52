"""Mapped files are read without filling the memory, and without losing changes."""

from __future__ import annotations

import mmap
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpumlp.backends.cpu.loading import installed
from gpumlp.data.scratch import Store
from gpumlp.io import mapped
from gpumlp.io.chunks import chunks, extent
from gpumlp.io.mapped import FileRows, can_unmap, rows_of, unmap_pages
from tests.support.streaming_cases import network, problem, trained

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
READ_ROWS = getattr(installed(), "read_rows", None)  # None where there is no library
VALUES = np.random.default_rng(0).integers(0, 200, (5000, 40)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", VALUES)
    return tmp_path / "x.npy"


@pytest.fixture
def _all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "LARGE_MAP", 0)


def resident(a: Any) -> int:
    """Return the kB of the map of `a` that are in the memory of the process."""
    address = np.lib.array_utils.byte_bounds(a)[0]
    found = inside = 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if span := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(span[1], 16) <= address < int(span[2], 16)
        elif inside and line.startswith("Rss:"):
            found = int(line.split()[1])
    return found


# ---- reading in order ----------------------------------------------------------------------------


@on_linux
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_pages_are_unmapped_after_reading(path: Path, mode: Any) -> None:
    a = np.load(path, mmap_mode=mode)
    for view in (a, np.asarray(a), a[7:], a.reshape(-1)[40:]):
        assert view.max() == VALUES.max()
        assert resident(a) > 700
        extent(view, "x")
        assert resident(a) < 100
    np.testing.assert_array_equal(a, VALUES)


@on_linux
def test_chunks_unmap_each_slice(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpumlp.io.chunks.CHUNK_BYTES", 100_000)
    a, y = np.load(path, mmap_mode="r"), np.zeros(len(VALUES))
    assert a.max() == VALUES.max()  # all pages are mapped
    assert resident(a) > 700
    for i, rows in enumerate(chunks(a, y)):
        assert i == 0 or resident(a) < 100
        np.testing.assert_array_equal(a[rows], VALUES[rows])
    assert i == 7


def test_private_changes_are_not_lost(path: Path) -> None:
    a = np.load(path, mmap_mode="c")
    a[::3] = -1
    expected = np.array(a)
    frozen = np.asarray(a).view()
    frozen.flags.writeable = False  # the array is read-only, the map is not
    for view in (a, frozen, a[1:]):
        extent(view, "x")
        assert not can_unmap(view)
        assert rows_of(view) is view
    np.testing.assert_array_equal(a, expected)
    np.testing.assert_array_equal(np.load(path), VALUES)


def test_shared_changes_reach_the_file(path: Path) -> None:
    a = np.load(path, mmap_mode="r+")
    a[::3] = -1
    expected = np.array(a)
    assert can_unmap(a)
    unmap_pages(a)
    np.testing.assert_array_equal(a, expected)
    np.testing.assert_array_equal(np.load(path), expected)


def test_maps_without_memmap(path: Path) -> None:
    with path.open("r+b") as file:
        maps = {
            access: np.frombuffer(mmap.mmap(file.fileno(), 0, access=access), np.uint8)
            for access in (mmap.ACCESS_READ, mmap.ACCESS_WRITE, mmap.ACCESS_COPY)
        }
    assert [can_unmap(a) for a in maps.values()] == [True, False, False]
    for a in maps.values():
        extent(a, "x")
        assert a.tobytes() == path.read_bytes()
    assert not can_unmap(VALUES)
    assert not can_unmap(None)


# ---- reading in any order ------------------------------------------------------------------------


@pytest.mark.usefixtures("_all_large")
class TestRows:
    @on_linux
    @pytest.mark.parametrize("compiled", [None, READ_ROWS], ids=["Python", "compiled"])
    @pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
    def test_match_the_array(self, path: Path, dtype: str, compiled: Any) -> None:
        a = np.load(path, mmap_mode="r")
        index = np.random.default_rng(1).integers(0, 4000, 300)
        for view in (a, np.asarray(a), a[1000:], a[17:4500].reshape(-1, 20), a.reshape(-1)):
            rows = rows_of(view, compiled)
            assert isinstance(rows, FileRows)
            out = np.full((300, *view.shape[1:]), 7, dtype)
            rows.read(index, out)
            np.testing.assert_array_equal(out, view[index].astype(dtype))
            odd = np.full((300, *view.shape[1:], 2), 7, dtype)[..., 0]
            rows.read(index, odd)
            np.testing.assert_array_equal(odd, out)
        assert rows_of(a[:, 3:]) is not a
        for gaps in (a[:, 3:], a[::2], a[::-1], a.T):
            assert rows_of(gaps) is gaps

    @pytest.mark.skipif(not hasattr(os, "preadv"), reason="reads by preadv")
    def test_of_a_temporary_file(self, tmp_path: Path) -> None:
        with (tmp_path / "t").open("w+b") as file:
            store = Store(40, np.float32, file)
            store.append(VALUES)
            a = store.array()
            del store
            rows, out = rows_of(a[2:]), np.empty((3, 40), np.float32)
            assert isinstance(rows, FileRows)
            del a
            rows.read(np.array([0, 4997, 5]), out)
            np.testing.assert_array_equal(out, VALUES[[2, 4999, 7]])

    @on_linux
    def test_include_recent_changes(self, path: Path) -> None:
        a = np.load(path, mmap_mode="r+")
        rows, out = rows_of(a), np.empty((2, 40), np.float32)
        a[4999] = np.arange(40)
        assert not isinstance(rows, np.ndarray)
        rows.read(np.array([4999, 0]), out)
        np.testing.assert_array_equal(out, [np.arange(40), VALUES[0]])

    def test_are_not_read_from_another_file_of_that_name(self, path: Path) -> None:
        a = np.load(path, mmap_mode="r")
        np.save(path.with_name("y.npy"), VALUES + 1)
        path.with_name("y.npy").replace(path)
        assert rows_of(a) is a
        path.unlink()
        assert rows_of(a) is a

    @on_linux
    def test_of_a_file_whose_name_is_no_text(self, path: Path) -> None:
        a = np.load(path.rename(path.with_name(os.fsdecode(b"\xff.npy"))), mmap_mode="r")
        rows, out = rows_of(a), np.empty((1, 40), np.float32)
        assert isinstance(rows, FileRows)
        rows.read(np.array([4999]), out)
        np.testing.assert_array_equal(out, VALUES[[4999]])

    @on_linux
    @pytest.mark.parametrize("compiled", [None, READ_ROWS], ids=["Python", "compiled"])
    def test_of_a_truncated_file_raise(self, path: Path, compiled: Any) -> None:
        rows = rows_of(np.load(path, mmap_mode="r"), compiled)
        os.truncate(path, 1000)
        with pytest.raises(OSError, match="rows are beyond the end of the file: it was truncated"):
            rows.read(np.array([3, 4000]), np.empty((2, 40), np.float32))

    @pytest.mark.parametrize("late", ["", "both"])
    @pytest.mark.parametrize("dtype", ["float32", "uint8", "bfloat16"])
    def test_give_a_bit_identical_training(self, tmp_path: Path, dtype: str, late: str) -> None:
        files, (x, y) = [], problem(dtype, "squared_error")
        for name, a in (("x", x), ("y", y)):
            a.tofile(tmp_path / name)
            files.append(np.memmap(tmp_path / name, a.dtype, "r", shape=a.shape))
        nets = [network("squared_error", "float32", late) for _ in range(3)]
        expected = trained(nets[0], x, y, "device")
        for net, data in zip(nets[1:], ("auto", "stream"), strict=True):
            assert trained(net, *files, data) == expected


def test_small_files_stay_mapped(path: Path) -> None:
    a = np.load(path, mmap_mode="r")
    assert rows_of(a) is a


# ---- a whole fit ---------------------------------------------------------------------------------

FIT = """
import resource, sys, numpy as np, gpumlp
x = np.load(sys.argv[1], mmap_mode="r")
y = np.arange(len(x)) % 3
net = gpumlp.MLP([x.shape[1], 4, 3], backend="numpy")
trainer = gpumlp.Trainer(net, "sgd", lr=1e-3, batch_size=512)
trainer.fit(x[:1000], y[:1000], 1, progress=False)  # threads and buffers
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
trainer.fit(x, y, 1, validation=(x[:9000], y[:9000]), checkpoint=sys.argv[2], progress=False)
net.cost(x, y)
net.predict(x)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@on_linux
def test_a_fit_keeps_little_of_a_file_in_memory(tmp_path: Path) -> None:
    """A fit on 300 MB checks, hashes, gathers, evaluates and predicts."""
    shape = (75_000, 1000)
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, shape)  # a hole: all zero
    done = subprocess.run(
        [sys.executable, "-c", FIT, tmp_path / "x.npy", tmp_path / "c.safetensors"],
        check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert int(done.stdout) < 120_000, done.stdout  # kB; the whole map has 300,000
