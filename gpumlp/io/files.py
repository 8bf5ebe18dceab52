"""Files that are replaced whole or not at all, also where several writers have the same path.

A writer fills a temporary file in the folder of its target, and renames it.  The last one wins, and
none fails because of another.  While it writes, it holds a lock (flock) on the temporary file: the
system releases a lock however its owner ends, also by SIGKILL, so a temporary file that nobody has
locked is an orphan, and the next writer of the path removes it.  A process number means nothing in
another container.  Where files cannot be locked (Windows, some network disks), orphans are left.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO, cast

from gpumlp.io.paths import PathLike, checked_path
from gpumlp.io.signals import deferred

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

WAIT = 1.0  # seconds for other writers of a folder, whose renames take less than a millisecond
LONGEST = 240  # bytes; file systems allow 255
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# a file that can be written, but not replaced: in a folder that is read-only, or where files of
# others stay, such as /tmp; mounted by itself, as in a container
NOT_REPLACED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY)

_group: ContextVar[list[_Pending] | None] = ContextVar("_group", default=None)  # see `together`


def atomic_write(path: PathLike, data: bytes) -> None:
    """Write `data` to `path` completely or not at all: see `replacing`."""
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[BinaryIO]:
    """Yield a temporary file that replaces `path` when the block ends without an error.

    A crash at any moment leaves either the old file or the new one, complete.  If `path` is a link,
    it stays, and the file that it points to is replaced.  A new file has the mode and, if allowed,
    the owner and the group of the old one; other hard links keep the old one.  The temporary file
    is in the same folder, "NAME.HEX.tmp".  Such files of earlier, killed processes are removed.

    A file that cannot be replaced (a device or pipe, or a file in a read-only folder) is written in
    place, at the end: an error in the block leaves it as it was, but a crash at the end does not.

    Within `together`, the file is replaced at the end of that block.
    """
    check_place(path)
    pending = _Pending(Path(path))
    group = _group.get()
    try:
        yield pending.file
        pending.complete()
        if group is None:
            pending.replace()
            _sync_folder(pending.target.parent)
    except BaseException as error:
        pending.discard()
        if isinstance(error, OSError) and error.errno in FULL and error.filename is None:
            error.filename = os.fspath(path)
        raise
    if group is not None:
        group.append(pending)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Files that the block writes change together, when it ends without an error, or not at all.

    All new files are complete and on the disk before the first of them gets its name, so an error,
    such as a full disk, leaves all old files, and signals wait until the last has its name.  Only a
    crash (SIGKILL, loss of power) between these renames, a millisecond, can leave new and old ones.
    Writers with the same folder rename one after the other: their files are not mixed.  The files
    that are written in place, see `replacing`, come last.
    """
    if _group.get() is not None:  # the outer block decides
        yield
        return
    group: list[_Pending] = []
    token = _group.set(group)
    try:
        try:
            yield
        finally:
            _group.reset(token)
        for pending in group:
            check_place(pending.path)
        group.sort(key=lambda pending: pending.temporary is None)
        folders = sorted({pending.target.parent for pending in group})
        with deferred():
            with contextlib.ExitStack() as locks:
                for folder in folders:
                    locks.enter_context(one_writer(folder))
                for pending in group:
                    pending.replace()
            for folder in folders:  # other writers do not wait for the disk
                _sync_folder(folder)
    except BaseException:
        for pending in group:
            pending.discard()
        raise


def check_place(path: PathLike) -> None:
    """Raise OSError if no file can be written at `path`; the message says why."""
    path = Path(checked_path(path))
    target = target_of(path)
    if target.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; pass the path of a file")
    if target.is_symlink() and not target.exists():
        raise OSError(f"cannot write {path}: it is a link that leads to itself; remove the link")
    if not target.parent.is_dir():
        link = f"it is a link to {target}, but " if path.is_symlink() else ""
        raise FileNotFoundError(
            f"cannot write {path}: {link}the folder {target.parent} does not exist"
        )
    if target.exists():
        if not os.access(target, os.W_OK):
            raise PermissionError(
                f"cannot write {path}: the file is read-only; pass the path of another file"
            )
    elif not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(
            f"cannot write {path}: the folder {target.parent} is read-only; pass another path"
        )


def target_of(path: PathLike) -> Path:
    """The file that is written at `path`: where it points to, if it is a link."""
    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
        return Path(path)  # a link such as /dev/stdout may point to a pipe, which has no path
    return Path(os.path.realpath(path))


class _Pending:
    """A file to be, complete or not, that replaces the file `target` later.

    `temporary` is its path; None if it has none, because `target` will be written in place.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.target = path, target_of(path)
        self.temporary: Path | None = None
        exists = self.target.exists()
        if not exists or self.target.is_file():
            _remove_orphans(self.target)
            try:
                # nobody else may read it before it has the mode of the old file
                self.temporary, self.file = _temporary(self.target, 0o600 if exists else 0o666)
                return
            except OSError as error:
                if error.errno not in NOT_REPLACED or not exists:
                    error.filename = os.fspath(path)
                    raise
        self.file = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115  (see `discard`)

    def complete(self) -> None:
        """Bring all that was written to the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def replace(self) -> None:
        """Let the file take the place of the target, and close it."""
        if self.temporary is None:
            _overwrite(self.file, self.target)
            self.file.close()
            return
        if self.target.exists():
            _keep_owner_and_mode(self.temporary, self.target.stat())
        if fcntl is None:  # Windows renames no open file; elsewhere the lock is held until the end
            self.file.close()
        try:
            self.temporary.replace(self.target)
        except OSError as error:
            if error.errno not in NOT_REPLACED or not self.target.is_file():
                raise
            with self.temporary.open("rb") as file:
                _overwrite(file, self.target)
            self.temporary.unlink()
        self.file.close()

    def discard(self) -> None:
        """Close the file, and remove it unless it has replaced the target."""
        with contextlib.suppress(OSError):  # of a buffer that cannot be written to a full disk
            self.file.close()
        if self.temporary is not None:
            with contextlib.suppress(OSError):
                self.temporary.unlink()


def _stem(target: Path) -> str:
    """The name of the target, cut where the names of temporary files would be too long."""
    return os.fsdecode(os.fsencode(target.name)[:LONGEST])


def _temporary(target: Path, mode: int) -> tuple[Path, BinaryIO]:
    """A new file beside the target, with the lock that keeps it from being removed."""
    while True:
        path = target.with_name(f"{_stem(target)}.{secrets.token_hex(4)}.tmp")
        file = open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():
            return path, file
        file.close()  # another writer took it for an orphan before it was locked


def _remove_orphans(target: Path) -> None:
    """Remove the temporary files of dead writers of this target: those that nobody has locked."""
    if fcntl is None:
        return
    for orphan in target.parent.glob(f"{glob.escape(_stem(target))}.{'[0-9a-f]' * 8}.tmp"):
        with contextlib.suppress(OSError):  # it is locked, or gone, or another user's
            handle = os.open(orphan, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                orphan.unlink()
            finally:
                os.close(handle)


def _keep_owner_and_mode(file: Path, old: os.stat_result) -> None:
    """Give the file the mode, owner and group of an old one, as far as the system allows."""
    mode, new = stat.S_IMODE(old.st_mode) & 0o777, file.stat()
    if hasattr(os, "chown") and (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        for user in (old.st_uid, -1):
            with contextlib.suppress(OSError):
                os.chown(file, user, old.st_gid)
                break
        else:  # what the group was allowed is not for another group
            mode = mode & ~0o070 | (mode & 0o007) << 3
    with contextlib.suppress(OSError):  # a file system without modes
        file.chmod(mode)


def _overwrite(source: BinaryIO, target: Path) -> None:
    """Copy a complete file into the target itself."""
    regular = target.is_file()
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    with target.open("r+b" if regular else "wb") as file:
        if regular and size and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk leaves the old contents
            except OSError as error:
                if error.errno in FULL:
                    raise
        shutil.copyfileobj(source, file)
        if regular:
            file.truncate()
        file.flush()
        with contextlib.suppress(OSError):  # a pipe
            os.fsync(file.fileno())


@contextlib.contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Keep others that do the same out of a folder, where that is possible."""
    handle = None
    if fcntl is not None:
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            until = time.monotonic() + WAIT  # another program may hold such a lock for hours
            while time.monotonic() < until:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(0.005)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Make the rename durable, if the file system supports that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
