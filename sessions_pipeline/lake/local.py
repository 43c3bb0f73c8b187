"""The lake in a local folder: whole files, replaced by renaming, durable when `put` returns.

A reader that opens a path once sees the former file or the new one: Arrow, pandas, this package. DuckDB and Polars open
it again for each part, so a query of theirs in the very millisecond of the renaming may fail and has to be run again.

A file is written to `_tmp/` on the same file system, synced, and renamed to its place; then the folder is synced too.
Both syncs together cost 0.8 ms on an SSD, so 365 days of four tables take about a second. A crash leaves at most a
temporary file, which the next run that takes a lock removes.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, unquote
from uuid import uuid4

import pyarrow as pa

from sessions_pipeline.lake.layout import LOCKS
from sessions_pipeline.lake.lock import RunLock
from sessions_pipeline.lake.store import OnWait, problem

TEMPORARY = "_tmp"
# The umask may take more away. Sessions hold private data, so others get nothing.
FILE_MODE = 0o640
FOLDER_MODE = 0o750


class LocalStore:
    """A `Store` in the folder `root`, which is made on the first write."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().absolute()

    def uri(self, key: str) -> str:
        """The file's absolute path."""
        return str(self._path(key))

    def open(self, key: str, *, whole: bool) -> pa.NativeFile:  # noqa: ARG002
        """The file; stays the same one for its reader when it is replaced meanwhile."""
        with self._told(key):
            return pa.OSFile(self.uri(key), "r")

    def read(self, key: str) -> bytes:
        """The file's bytes."""
        with self._told(key):
            return self._path(key).read_bytes()

    def has(self, key: str) -> bool:
        """Whether the file is there."""
        with self._told(key):
            return self._path(key).is_file()

    def keys(self, folder: str) -> list[str]:
        """All files below a folder, hidden ones left out."""
        with self._told(folder):
            walk = os.walk(self._path(folder), onerror=_raise_unless_missing)
            found = [f"{parent}/{name}" for parent, _, names in walk for name in names if not name.startswith(".")]
        return sorted(path.removeprefix(f"{self.root}/") for path in found)

    def delete(self, key: str) -> None:
        """Remove the file, if it is there."""
        with self._told(key):
            self._path(key).unlink(missing_ok=True)

    def put(self, key: str, data: bytes | pa.Buffer) -> None:
        """Write the file beside its place, make it durable, then rename it; on failure nothing is left behind."""
        with self._told(key, writing=True):
            for last in (False, False, True):
                try:
                    self._put(key, data)
                except FileNotFoundError:
                    # Just before it was claimed, another run took the file for one that a crash left behind.
                    if last:
                        raise
                else:
                    break

    def _put(self, key: str, data: bytes | pa.Buffer) -> None:
        target, made = self._path(key), list[Path]()
        temporary = self.root / TEMPORARY / f"{quote(key, safe='')}.{uuid4().hex}"
        _make_folders(temporary.parent, [])
        fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE)
        try:
            _claim(fd)
            _write(fd, data)
            os.fsync(fd)
            _make_folders(target.parent, made)
            os.replace(temporary, target)  # noqa: PTH105
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            _remove_empty(made)
            raise
        finally:
            os.close(fd)
        for folder in {target.parent, *(folder.parent for folder in made)}:
            _sync_folder(folder)

    @contextmanager
    def lock(self, name: str, on_wait: OnWait | None, timeout: float | None) -> Iterator[None]:
        """Hold a file in `_locks/`, freed by the system when the process dies. Removes what crashed runs left."""
        key = f"{LOCKS}/{name}.lock"
        with self._told(key, writing=True):
            _make_folders(self._path(LOCKS), [])
        with RunLock(self._path(key), str(self.root)).held(on_wait, timeout) as is_outermost:
            if is_outermost:
                with self._told(TEMPORARY, writing=True):
                    self._tidy()
            yield

    def _tidy(self) -> None:
        folder = self.root / TEMPORARY
        for stray in folder.iterdir() if folder.is_dir() else ():
            with suppress(FileNotFoundError):
                self._remove_stray(stray)

    def _remove_stray(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY)
        try:
            # Other months are written at the same time: a file that its writer still holds is not stray.
            if not _claim(fd):
                return
            path.unlink(missing_ok=True)
            target = self._path(unquote(path.name.rpartition(".")[0]))
            _remove_empty([parent for parent in reversed(target.parents) if self.root in parent.parents])
        finally:
            os.close(fd)

    def _path(self, key: str) -> Path:
        return self.root / key

    @contextmanager
    def _told(self, key: str, *, writing: bool = False) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not writing:
                raise
            raise problem(self.uri(key), error) from error


def _raise_unless_missing(error: OSError) -> None:
    # os.walk would pass over a folder that can't be read, and a failed read is never an empty one.
    if not isinstance(error, FileNotFoundError):
        raise error


def _write(fd: int, data: bytes | pa.Buffer) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _claim(fd: int) -> bool:
    """Mark an open temporary file as somebody's; False if it already is. The mark goes with the process."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES}
    return True


def _make_folders(path: Path, made: list[Path]) -> None:
    """Make the folder and those above it, and note the ones made, outermost first."""
    if path.is_dir():
        return
    _make_folders(path.parent, made)
    try:
        path.mkdir(FOLDER_MODE)
    except FileExistsError:
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
    else:
        made.append(path)


def _remove_empty(folders: list[Path]) -> None:
    for folder in reversed(folders):
        with suppress(OSError):
            folder.rmdir()


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some network file systems cannot sync a folder, and say so.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(fd)
