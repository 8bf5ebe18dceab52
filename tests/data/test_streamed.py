"""Data read in pieces equals data in memory to the last bit; its temporary files disappear."""

import shutil
import tracemalloc
import zipfile
from collections import namedtuple

import numpy as np
import pytest

from tests.support.data_cases import write_csv

pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")

import pyarrow as pa
import pyarrow.parquet as pq

from gpumlp.data import Preparation, Scratch, load, pieces, split

KINDS = ["csv", "parquet", "npy", "columns.npy", "npz", "packed.npz"]
M = 700


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    """Pieces of a few rows, so that small files have many."""
    monkeypatch.setattr("gpumlp.io.chunks.CHUNK_BYTES", 1000)
    monkeypatch.setattr("gpumlp.data.loading.CHUNK_BYTES", 1000)
    monkeypatch.setattr("gpumlp.data.csv_files.BLOCK", 1500)
    monkeypatch.setattr("gpumlp.data.parquet_files.PIECE", 2000)


def columns(classes=True):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(M, 3)) * [1, 50, 0.1] + [0, 7, 3]
    x[rng.random((M, 3)) < [0.2, 0, 0]] = np.nan
    y = (x[:, 1] > 7).astype(int) + (x[:, 2] > 3) if classes else x[:, 1] + 3 * x[:, 2]
    return {"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": y}


def write(path, classes=True, words=True):
    """Write a file of that kind; return the target to request."""
    table, kind = columns(classes), path.name.partition(".")[2]
    if kind in ("csv", "parquet"):
        towns = np.random.default_rng(4).choice(["Ulm", "Bonn", "Trier", "Ahlen"], M)
        table = {"town": towns, **table} if words else table
        if classes:
            table["y"] = np.array(["low", "mid", "high"])[table["y"]]
    if kind == "csv":
        table["a"] = np.where(np.isnan(table["a"]), "", table["a"].astype(str))
        write_csv(path, table)
    elif kind == "parquet":
        pq.write_table(pa.table(table), path, row_group_size=300)
    elif kind.endswith("npy"):
        rows = np.column_stack(list(table.values()))
        np.save(path, np.asfortranarray(rows) if kind == "columns.npy" else rows)
    else:
        save = np.savez if kind == "npz" else np.savez_compressed
        save(path, x=np.column_stack([table[n] for n in "abc"]), y=table["y"])
    return "y" if kind in ("csv", "parquet") else None


def prepared(path, target, stream, folder):
    """The inputs and targets of both parts, and the preparation."""
    scratch = Scratch(folder, stream)
    data = load(path, target, scratch=scratch)
    parts = split(data)
    known = Preparation.of(parts[0], x=True, y=data.task == "regression", impute="median")
    x = [known.prepared(part.x, np.float32, scratch, part.categories) for part in parts]
    return x, [known.targets(part.y) for part in parts], known


@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_streamed_data_equals_data_in_memory(tmp_path, kind, classes):
    path, folder = tmp_path / f"t.{kind}", tmp_path / "scratch"
    folder.mkdir()
    target = write(path, classes)
    on_disk = prepared(path, target, True, folder)
    in_memory = prepared(path, target, False, folder)
    for (disk, memory), rows in zip(
        zip(on_disk[0], in_memory[0], strict=True), (560, 140), strict=True
    ):
        assert isinstance(disk, np.memmap)
        assert not isinstance(memory, np.memmap)
        assert len(disk) == rows
        np.testing.assert_array_equal(disk, memory)
    for disk, memory in zip(on_disk[1], in_memory[1], strict=True):
        np.testing.assert_array_equal(disk, memory)
    assert on_disk[2] == in_memory[2]
    assert list(folder.iterdir()) == []  # even while the files are in use


@pytest.mark.parametrize("kind", KINDS)
def test_streamed_data_is_what_was_written(tmp_path, kind):
    path = tmp_path / f"t.{kind}"
    target = write(path, classes=False)
    data = load(path, target, scratch=Scratch(tmp_path, True))
    x = np.asarray(data.x)
    np.testing.assert_array_equal(x[5:9], data.x[5:9])
    at = [data.features.index(n) for n in "abc"] if target else [0, 1, 2]
    np.testing.assert_array_equal(x[:, at], np.column_stack([columns(False)[n] for n in "abc"]))
    np.testing.assert_array_equal(data.y, columns(False)["y"])
    if target:
        towns = np.array(data.categories["town"])[x[:, 0].astype(int)]
        expected = np.random.default_rng(4).choice(["Ulm", "Bonn", "Trier", "Ahlen"], M)
        np.testing.assert_array_equal(towns, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_together_equal_the_whole(tmp_path, kind):
    path = tmp_path / f"t.{kind}"
    target = write(path)
    data = load(path, target, task="classification")
    known = Preparation.of(data, x=True, y=False)
    parts = list(pieces(path, known))
    assert len(parts) > 5
    seen = np.vstack([known.inputs(part.x) for part in parts])
    np.testing.assert_array_equal(seen, known.inputs(data.x, data.categories))
    np.testing.assert_array_equal(np.concatenate([part.y for part in parts]), data.y)
    bare = np.vstack([part.x for part in pieces(path, known, labelled=False)])
    np.testing.assert_array_equal(bare, np.vstack([part.x for part in parts]))


class TestBlocks:
    """The types of a .csv file are inferred block by block."""

    def test_column_with_words_in_later_blocks(self, tmp_path):
        codes = np.array(["1", "2", "3"])[np.arange(M) % 3].astype(object)
        codes[-400:] = "x"
        path = write_csv(tmp_path / "t.csv", {"code": codes, "y": np.arange(M) * 0.5})
        data = load(path, "y")
        names = np.array(data.categories["code"])[data.x[:, 0].astype(int)]
        np.testing.assert_array_equal(names, codes)

    def test_target_with_fraction_or_word_in_last_row(self, tmp_path):
        y = (np.arange(M) % 30).astype(object)
        y[-1] = 0.5
        path = write_csv(tmp_path / "t.csv", {"a": np.arange(M), "y": y})
        np.testing.assert_array_equal(load(path, "y").y, y.astype(float))
        y[-1] = "none"
        data = load(write_csv(path, {"a": np.arange(M), "y": y}), "y", "classification")
        np.testing.assert_array_equal(np.array(data.classes)[data.y], y.astype(str))

    def test_target_with_words_in_some_blocks(self, tmp_path):
        y = np.where(np.arange(M) < 300, "1", np.where(np.arange(M) < 500, "x", "2"))
        path = write_csv(tmp_path / "t.csv", {"a": np.arange(M), "y": y})
        data = load(path, "y", "classification")
        assert data.classes == ("1", "2", "x")
        known = Preparation.of(data, x=True, y=False)
        labels = np.concatenate([part.y for part in pieces(path, known)])
        np.testing.assert_array_equal(labels, data.y)

    def test_texts_among_numbers_at_the_end_raise(self, tmp_path):
        a = np.arange(M).astype(object)
        a[-2:] = "?"
        path = write_csv(tmp_path / "t.csv", {"a": a, "y": np.arange(M)})
        with pytest.raises(
            ValueError, match=r"hold numbers except for some texts \('\?'\): a: corr"
        ):
            load(path, "y")

    def test_line_breaks_within_quotes(self, tmp_path):
        words = ['"one\nline"', '"two, ""and""\n\nmore"', "plain"]
        path = write_csv(tmp_path / "t.csv", {'"w\nord"': np.resize(words, M), "y": np.arange(M)})
        data = load(path, "y")
        assert data.features == ("w\nord",)
        assert data.categories["w\nord"] == ("one\nline", 'two, "and"\n\nmore', "plain")
        np.testing.assert_array_equal(data.x[:, 0], np.resize([0, 1, 2], M))

    def test_blank_lines(self, tmp_path):
        path = tmp_path / "t.csv"
        path.write_text("\n\r\na;y\n" + "1;2\n\n3;4\n" * M + "\n\n")
        data = load(path, "y")
        assert data.features == ("a",)
        np.testing.assert_array_equal(data.x[:, 0], np.resize([1, 3], 2 * M))

    def test_no_line_break_at_the_end(self, tmp_path):
        path = tmp_path / "t.csv"
        path.write_text("a,y\n" + "\n".join(f"{i},{i % 2}" for i in range(M)))
        np.testing.assert_array_equal(load(path, "y").x[:, 0], np.arange(M))
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
        np.testing.assert_array_equal(load(path, "y").x[:, 0], np.arange(M))

    def test_bad_row_in_a_later_block(self, tmp_path):
        path = tmp_path / "t.csv"
        path.write_text("a,y\n" + "1,2\n" * M + "3\n")
        with pytest.raises(ValueError, match="a row has 1 values, but the first line names 2"):
            load(path, "y")


class TestDisk:
    def test_full_disk_raises_before_writing(self, tmp_path, monkeypatch):
        write(tmp_path / "t.npz")
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1e9, 9e8, 6.5e7))
        message = r"has 0.07 GB free, but temporary files need 0.\d\d GB; name .*--scratch DIR"
        with pytest.raises(OSError, match=message):
            load(tmp_path / "t.npz", scratch=Scratch(tmp_path, True))
        with pytest.raises(OSError, match="the environment variable TMPDIR$"):
            load(tmp_path / "t.npz", scratch=Scratch(stream=True))
        assert len(load(tmp_path / "t.npz", scratch=Scratch(tmp_path))) == M  # in memory

    def test_large_arrays_go_into_files(self, tmp_path, monkeypatch):
        target = write(tmp_path / "t.parquet")
        nbytes = M * 4 * 8
        for limit, kind in ((nbytes, np.ndarray), (nbytes - 1, object)):
            monkeypatch.setattr("gpumlp.data.scratch.LARGE", limit)
            data = load(tmp_path / "t.parquet", target, scratch=Scratch(tmp_path))
            assert isinstance(data.x, np.ndarray) == (kind is np.ndarray)

    @pytest.mark.parametrize("kind", ["npy", "packed.npz"])
    def test_damaged_files_raise(self, tmp_path, kind):
        path = tmp_path / f"t.{kind}"
        write(path)
        whole = bytearray(path.read_bytes())
        path.write_bytes(whole[: len(whole) * 2 // 3])
        with pytest.raises(ValueError, match="cannot be read: it is not a .*not complete"):
            load(path, scratch=Scratch(tmp_path, True))
        if kind == "packed.npz":
            with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
                archive.writestr("x.npy", b"not one")
                archive.writestr("y.npy", b"nor this")
            with pytest.raises(ValueError, match="cannot be read: it is not a .*not complete"):
                load(tmp_path / "t.npz", scratch=Scratch(tmp_path, True))

    def test_memory_holds_a_few_pieces(self, tmp_path, monkeypatch):
        monkeypatch.setattr("gpumlp.io.chunks.CHUNK_BYTES", 1 << 18)
        rows = np.lib.format.open_memmap(tmp_path / "t.npy", "w+", np.float32, (200_000, 50))
        rows[:] = np.random.default_rng(0).normal(size=50)
        rows[::2] += 1
        del rows
        prepared(tmp_path / "t.npy", None, True, tmp_path)  # imports
        tracemalloc.start()
        try:
            x, _, _ = prepared(tmp_path / "t.npy", None, True, tmp_path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert x[0].nbytes == 160_000 * 49 * 4  # 31 MB
        assert peak < 15e6, f"{peak:,}"  # the targets and the split's rows are 1.6 MB an array
