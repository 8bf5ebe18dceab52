"""Files that are replaced whole or not at all: several writers, links, modes, full disks."""

# A block of `replacing`, `together` or `deferred` has several lines, within pytest.raises (PT012).

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gpumlp.io import files
from gpumlp.io.files import atomic_write, check_place, replacing, together

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- several writers -----------------------------------------------------------------------------


def test_processes_that_are_killed_disturb_no_other(tmp_path):
    command = [sys.executable, "-m", "tests.support.saving_worker", str(tmp_path), "4", "8", "2"]
    seen = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert set(seen["ended"]) <= {0, -signal.SIGKILL}
    assert seen["ended"].count(0) >= 2
    assert (seen["whole"], seen["owners"]) == (True, 1)
    assert seen["files"] == ["checkpoint", "model", "run.toml"]


def test_a_writer_leaves_the_temporary_file_of_another(path):
    with replacing(path) as first:
        first.write(b"first")
        atomic_write(path, b"second")
        assert path.read_bytes() == b"second"
        assert len(names(path.parent)) == 2
    assert path.read_bytes() == b"first"
    assert names(path.parent) == [path.name]


def test_threads_write_one_path(path):
    failed = []

    def write(letter):
        try:
            for _ in range(20):
                atomic_write(path, letter * 5000)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert path.read_bytes() in (b"a" * 5000, b"b" * 5000, b"c" * 5000)
    assert names(path.parent) == [path.name]


def test_a_writer_whose_file_was_taken_for_an_orphan_makes_another(path, monkeypatch):
    """The file is removed between its creation and its lock."""
    lock, taken = files.fcntl.flock, []

    def flock(file, how):
        if not taken:
            taken.extend(path.parent.glob("*.tmp"))
            taken[0].unlink()
        lock(file, how)

    monkeypatch.setattr(files.fcntl, "flock", flock)
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert len(taken) == 1


def test_without_locks_nothing_is_removed(path, monkeypatch):
    orphan = path.with_name(f"{path.name}.0123abcd.tmp")
    orphan.touch()
    monkeypatch.setattr(files, "fcntl", None)
    atomic_write(path, b"new")
    assert names(path.parent) == sorted([path.name, orphan.name])


def test_a_long_name_is_written(tmp_path):
    for name in ("x" * 255, "é" * 127):
        atomic_write(tmp_path / name, b"new")
    assert names(tmp_path) == ["x" * 255, "é" * 127]


# ---- links, modes and places ---------------------------------------------------------------------


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("through", ["link", "link to a link", "folder"])
def test_a_link_stays_and_its_target_is_written(tmp_path, exists, through):
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "file", tmp_path / "link"
    if exists:
        target.write_bytes(b"old")
    if through == "folder":
        (tmp_path / "way").symlink_to("disk")
        link = tmp_path / "way" / "file"
    elif through == "link":
        link.symlink_to("disk/file")
    else:
        (tmp_path / "middle").symlink_to("disk/file")
        link.symlink_to(tmp_path / "middle")
    links = {path: path.readlink() for path in tmp_path.iterdir() if path.is_symlink()}
    atomic_write(link, b"new")
    assert {path: path.readlink() for path in links} == links
    assert target.read_bytes() == b"new"
    assert not target.is_symlink()
    assert names(tmp_path / "disk") == ["file"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444])
def test_the_mode_stays(path, mode):
    path.write_bytes(b"old")
    path.chmod(mode)
    if not os.access(path, os.W_OK):
        pytest.skip("this user cannot write the file")
    before = os.umask(0o077)
    try:
        with replacing(path) as file:
            file.write(b"new")
            [temporary] = path.parent.glob("*.tmp")
            assert stat.S_IMODE(temporary.stat().st_mode) == 0o600  # nobody reads it early
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_has_the_mode_of_the_umask(path):
    before = os.umask(0o027)
    try:
        atomic_write(path, b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_owner_and_group_stay_where_they_may(path, monkeypatch):
    path.write_bytes(b"old")
    path.chmod(0o664)
    old, asked = path.stat(), []
    changed = os.stat_result([*old[:4], 1234, 5678, *old[6:]])

    def chown(file, *owner):
        asked.append(owner)
        raise PermissionError

    monkeypatch.setattr(os, "chown", chown)
    files._keep_owner_and_mode(path, changed)
    assert asked == [(1234, 5678), (-1, 5678)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # another group may not write


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_root_keeps_the_owner(path):
    path.write_bytes(b"old")
    os.chown(path, 1234, 5678)
    atomic_write(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 5678)


def test_another_hard_link_keeps_the_old_contents(path):
    path.write_bytes(b"old")
    other = path.with_name("snapshot")
    os.link(path, other)
    atomic_write(path, b"new")
    assert (path.read_bytes(), other.read_bytes()) == (b"new", b"old")


@pytest.mark.parametrize("step", ["open", "replace"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EBUSY])
def test_a_file_that_cannot_be_replaced_is_written_in_place(path, monkeypatch, step, number):
    """As in a read-only folder, or where the file is mounted by itself."""
    path.write_bytes(b"an old file that is longer")
    inode = path.stat().st_ino

    def fail(*_):
        raise OSError(number, os.strerror(number), "x")

    target, name = (files, "_temporary") if step == "open" else (type(path), "replace")
    monkeypatch.setattr(target, name, fail)
    with pytest.raises(ZeroDivisionError), replacing(path) as file:  # noqa: PT012
        file.write(b"new")
        raise ZeroDivisionError
    assert path.read_bytes() == b"an old file that is longer"
    atomic_write(path, b"new")
    assert (path.read_bytes(), path.stat().st_ino) == (b"new", inode)
    assert names(path.parent) == [path.name]


def test_a_full_disk_leaves_a_file_that_is_written_in_place(path, monkeypatch):
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def read_only(*_):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files, "_temporary", read_only)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        atomic_write(path, b"newer")
    assert path.read_bytes() == b"old"


def test_a_pipe_stays_a_pipe(path):
    os.mkfifo(path)
    read = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    with replacing(path) as file:
        file.seek(3)
        file.write(b"new")
    reader.join()
    assert read == [b"\0\0\0new"]
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="no /dev/fd")
def test_a_link_to_a_pipe_is_written_to():
    reading, writing = os.pipe()
    atomic_write(f"/dev/fd/{writing}", b"new")  # as /dev/stdout, and as the shell's >(gzip)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"new"


def test_a_link_to_a_device_is_written_to(tmp_path):
    link = tmp_path / "nothing"
    link.symlink_to(os.devnull)
    atomic_write(link, b"new")
    assert link.is_symlink()
    assert stat.S_ISCHR(link.stat().st_mode)


def test_a_place_where_nothing_can_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "to_folder").symlink_to("folder")
    (tmp_path / "lost").symlink_to("nowhere/file")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").touch()
    for name, message in [
        ("folder", "it is a folder"),
        ("to_folder", "it is a folder"),
        ("none/file", f"the folder {tmp_path / 'none'} does not exist"),
        ("lost", f"a link to {tmp_path / 'nowhere/file'}, but the folder"),
        ("circle", "a link that leads to itself"),
    ]:
        for refuse in (check_place, lambda path: atomic_write(path, b"")):
            with pytest.raises(OSError, match=f"^cannot write {tmp_path / name}: ") as caught:
                refuse(tmp_path / name)
            assert message in str(caught.value)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="the file is read-only"):
        check_place(tmp_path / "file")
    with pytest.raises(PermissionError, match=r"the folder .* is read-only"):
        check_place(tmp_path / "new")


# ---- together ------------------------------------------------------------------------------------


def old_files(folder):
    for name in "abc":
        (folder / name).write_bytes(b"old")
    return [folder / name for name in "abc"]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_change_together_at_the_end(tmp_path):
    paths = old_files(tmp_path)
    with together():
        for path in paths:
            atomic_write(path, b"new")
            assert {path.read_bytes() for path in paths} == {b"old"}
    assert contents(tmp_path) == dict.fromkeys("abc", b"new")


def test_a_folder_is_on_the_disk_after_all_renames_and_its_lock(tmp_path, monkeypatch):
    """Other writers of the folder wait for renames, and not for a slow disk."""
    paths, seen = old_files(tmp_path), []

    def sync(folder):
        handle = os.open(folder, os.O_RDONLY)
        try:
            files.fcntl.flock(handle, files.fcntl.LOCK_EX | files.fcntl.LOCK_NB)
        finally:
            os.close(handle)
        seen.append(contents(folder))

    monkeypatch.setattr(files, "_sync_folder", sync)
    with together():
        for path in paths:
            atomic_write(path, b"new")
    assert seen == [dict.fromkeys("abc", b"new")]


def test_a_block_within_another_ends_with_it(tmp_path):
    a, b, _ = old_files(tmp_path)
    with pytest.raises(ZeroDivisionError), together():  # noqa: PT012
        with together():
            atomic_write(a, b"new")
        atomic_write(b, b"new")
        raise ZeroDivisionError
    assert contents(tmp_path) == dict.fromkeys("abc", b"old")
    atomic_write(a, b"alone")
    assert a.read_bytes() == b"alone"


def test_an_error_leaves_all_old_files(tmp_path):
    a, b, c = old_files(tmp_path)
    with pytest.raises(IsADirectoryError), together():  # noqa: PT012
        atomic_write(a, b"new")
        c.unlink()
        c.mkdir()
        atomic_write(c, b"new")
    c.rmdir()
    assert contents(tmp_path) == {"a": b"old", "b": b"old"}
    with pytest.raises(IsADirectoryError), together():  # noqa: PT012
        atomic_write(a, b"new")
        atomic_write(b, b"new")
        b.unlink()
        b.mkdir()  # after it was written
    b.rmdir()
    assert contents(tmp_path) == {"a": b"old"}


def test_a_full_disk_leaves_all_old_files_and_is_named(tmp_path):
    a, b, _ = old_files(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=f"File too large: '{b}'"), together():  # noqa: PT012
            atomic_write(a, b"new")
            atomic_write(b, b"new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(tmp_path) == dict.fromkeys("abc", b"old")


def test_ctrl_c_waits_until_all_have_their_names(tmp_path, monkeypatch):
    paths, replace = old_files(tmp_path), type(tmp_path).replace

    def pressed(*names):
        replace(*names)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(type(tmp_path), "replace", pressed)
    with pytest.raises(KeyboardInterrupt), together():  # noqa: PT012
        for path in paths[:1]:
            atomic_write(path, b"new")
    monkeypatch.undo()
    assert contents(tmp_path) == {"a": b"new", "b": b"old", "c": b"old"}
    pressed_once = []

    def pressed_first(*names):
        replace(*names)
        if not pressed_once:
            pressed_once.append(signal.raise_signal(signal.SIGINT))

    monkeypatch.setattr(type(tmp_path), "replace", pressed_first)
    with pytest.raises(KeyboardInterrupt), together():  # noqa: PT012
        for path in paths:
            atomic_write(path, b"newer")
    assert contents(tmp_path) == dict.fromkeys("abc", b"newer")


def test_a_folder_that_another_program_locked_is_written_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WAIT", 0.02)
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        files.fcntl.flock(handle, files.fcntl.LOCK_EX)
        with together():
            atomic_write(tmp_path / "a", b"new")
    finally:
        os.close(handle)
    assert contents(tmp_path) == {"a": b"new"}
