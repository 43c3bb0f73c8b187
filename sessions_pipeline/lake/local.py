"""The lake in a local folder: whole files, replaced by renaming, durable when `put` returns.

A reader that opens a path once sees the former file or the new one: Arrow, pandas, this package. DuckDB and Polars open
it again for each part, so a query of theirs in the very millisecond of the renaming may fail and has to be run again.

A file is written to `_tmp/` on the same file system, synced, and renamed to its place; then the folder is synced too.
Both syncs together cost 0.8 ms on an SSD, so 365 days of four tables take about a second. A crash leaves at most a
temporary file, which the next write of the same file replaces: it has the key's name, and all hold a lock who write it.
"""

import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
from filelock import FileLock, Timeout

from sessions_pipeline.errors import LakeBusyError, LakeError
from sessions_pipeline.lake.store import ANY, Expected, Opened, conflict, problem

LOCKS = "_locks"
TEMPORARY = "_tmp"
# The umask may take more away. Sessions hold private data, so others get nothing.
FILE_MODE, FOLDER_MODE = 0o640, 0o750
# Seconds. A day is merged and written in well under one, the largest we know in ten.
PATIENCE = 600.0


class LocalStore:
    """A `Store` in the folder `root`, which is made on the first write.

    `patience`: seconds to wait for a lock.
    """

    def __init__(self, root: str | Path, *, patience: float = PATIENCE) -> None:
        self.root = Path(root).expanduser().absolute()
        self._patience = patience
        self._locks: dict[str, FileLock] = {}

    def uri(self, key: str) -> str:
        """The file's absolute path."""
        return str(self._path(key))

    def open(self, key: str, *, whole: bool) -> Opened:  # noqa: ARG002
        """The file; stays the same one for its reader when it is replaced meanwhile."""
        with self._as_lake_error(key):
            while True:
                version = _version(self._path(key))
                source = pa.OSFile(self.uri(key), "r")
                if version == _version(self._path(key)):
                    return Opened(source, version)
                source.close()

    def versions(self, keys: Sequence[str]) -> dict[str, str | None]:
        """When each file was written, its number and its size; None where there is none."""
        found: dict[str, str | None] = dict.fromkeys(keys)
        for key in keys:
            with self._as_lake_error(key), suppress(FileNotFoundError):
                found[key] = _version(self._path(key))
        return found

    def partitions(self, table: str) -> list[str]:
        """The files `<table>/<partition>/<table>.parquet`; links to folders are followed."""
        found = []
        with self._as_lake_error(table), suppress(FileNotFoundError), os.scandir(self._path(table)) as folders:
            found = [folder.name for folder in folders if _is_folder(folder)]
        keys = [f"{table}/{name}/{table}.parquet" for name in found]
        return [key for key, version in self.versions(keys).items() if version is not None]

    def delete(self, key: str) -> None:
        """Remove the file, if it is there."""
        with self._as_lake_error(key):
            self._path(key).unlink(missing_ok=True)

    def put(self, key: str, data: bytes | pa.Buffer, expected: Expected = ANY) -> None:
        """Write the file beside its place, make it durable, then rename it; on failure nothing is left behind.

        Raises:
            LakeConflictError: something else than `expected` is there.
        """
        if expected != ANY and self.versions([key])[key] != expected:
            raise conflict(self.uri(key))
        target, made = self._path(key), list[Path]()
        temporary = self._path(f"{TEMPORARY}/{quote(key, safe='')}")
        with self._as_lake_error(key, writing=True):
            _make_folders(temporary.parent, [])
            try:
                _write(temporary, data)
                _make_folders(target.parent, made)
                os.replace(temporary, target)  # noqa: PTH105
            except BaseException:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                for folder in reversed(made):
                    with suppress(OSError):
                        folder.rmdir()
                raise
            for folder in {target.parent, *(folder.parent for folder in made)}:
                _sync_folder(folder)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the file `_locks/<name>.lock`, freed by the system when the process dies.

        Raises:
            LakeBusyError: another process holds it for longer than one writes.
        """
        path = self._path(f"{LOCKS}/{name}.lock")
        # One lock object for each path and process, so that a second Lake on the same root re-enters it. Kept, since
        # looking one up takes 0.3 ms, and a day takes its lock thirty times.
        lock = self._locks.get(name) or FileLock(path, mode=FILE_MODE, is_singleton=True)
        self._locks[name] = lock
        with self._as_lake_error(f"{LOCKS}/{name}.lock", writing=True):
            if not lock.is_locked:
                _make_folders(path.parent, [])
            try:
                lock.acquire(timeout=self._patience)
            except Timeout:
                raise LakeBusyError(
                    f"{path}: another run has been writing for over {self._patience:g} s; see whether it still does"
                    " anything, end it if not, and run this one again"
                ) from None
        try:
            yield
        finally:
            lock.release()

    def _path(self, key: str) -> Path:
        return self.root / key

    @contextmanager
    def _as_lake_error(self, key: str, *, writing: bool = False) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not writing:
                raise
            raise problem(self.uri(key), error) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # The days of a link that leads nowhere would be missing from sums without a word.
    if entry.is_symlink() and not Path(entry.path).exists():
        raise LakeError(f"{entry.path}: a link that leads nowhere; mount what it leads to, or remove it")
    return entry.is_dir()


def _version(path: Path) -> str:
    found = path.stat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        # Opening a pipe would wait for whoever writes to it.
        raise OSError(errno.EINVAL, "is no file but a pipe or a device", str(path))
    return f"{found.st_mtime_ns}-{found.st_ino}-{found.st_size}"


def _write(path: Path, data: bytes | pa.Buffer) -> None:
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        # The system's own stamps are up to 4 ms apart, and two files of one tick could pass for each other.
        os.utime(fd, ns=(now := time.time_ns(), now))
        os.fsync(fd)
    finally:
        os.close(fd)


def _make_folders(path: Path, made: list[Path]) -> None:
    """Make the folder and those above it, and note the ones made, outermost first."""
    if not path.is_dir():
        _make_folders(path.parent, made)
        path.mkdir(FOLDER_MODE, exist_ok=True)
        made.append(path)


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
