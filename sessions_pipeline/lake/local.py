"""The lake in a local folder: whole files, replaced by renaming, durable when `put` returns.

A program that opens a path once (Arrow, pandas, this package) reads either the former file or the new one. DuckDB and
Polars open it several times per query, so a query that runs at the moment of the renaming may fail; run it again.

A file is written to `_tmp/` on the same file system, synced, and renamed to its place; then the folder is synced too.
Both syncs together take 0.8 ms on an SSD, so 365 days of four tables take about a second. A crash leaves at most a
temporary file. It is named after its key, and writers of a key hold a lock, so the key's next write replaces it.
"""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
from filelock import FileLock, Timeout

from sessions_pipeline.errors import LakeBusyError, LakeError
from sessions_pipeline.lake.store import ANY, Expected, Item, Opened, T, conflict, lake_error

LOCKS = "_locks"
TEMPORARY = "_tmp"
# No access for others, because sessions contain private data. The umask may restrict this further.
FILE_MODE, FOLDER_MODE = 0o640, 0o750
# Seconds. A day is usually merged and written in well under one second; the largest we know takes ten.
LOCK_TIMEOUT = 600.0


class LocalStore:
    """A `Store` in the folder `root`, which is created on the first write.

    `lock_timeout`: how many seconds to wait for a lock.
    """

    def __init__(self, root: str | Path, *, lock_timeout: float = LOCK_TIMEOUT) -> None:
        # Unlike pathlib's, it leaves the name of an unknown user as it is.
        self.root = Path(os.path.expanduser(root)).absolute()  # noqa: PTH111
        self._lock_timeout = lock_timeout
        self._locks: dict[str, FileLock] = {}

    def uri(self, key: str) -> str:
        """The file's absolute path."""
        return str(self.root / key)

    def open(self, key: str, *, whole: bool) -> Opened:  # noqa: ARG002
        """The file. The reader keeps this file even if it is replaced meanwhile."""
        with self._as_lake_error(key):
            while True:
                version = _version(self.root / key)
                source = pa.OSFile(self.uri(key), "r")
                if version == _version(self.root / key):
                    return Opened(source, version)
                source.close()

    def versions(self, keys: Sequence[str]) -> dict[str, str | None]:
        """Each file's modification time, inode and size as text; None if there is no file."""
        found: dict[str, str | None] = dict.fromkeys(keys)
        for key in keys:
            with self._as_lake_error(key), suppress(FileNotFoundError):
                found[key] = _version(self.root / key)
        return found

    def listing(self, table: str) -> dict[str, str | None]:
        """The files `<table>/<partition>/<table>.parquet`. Symbolic links to folders are followed."""
        keys = list[str]()
        with self._as_lake_error(table), suppress(FileNotFoundError), os.scandir(self.root / table) as folders:
            keys = [f"{table}/{folder.name}/{table}.parquet" for folder in folders if _is_folder(folder)]
        return {key: version for key, version in self.versions(keys).items() if version is not None}

    def map(self, read: Callable[[Item], T], items: Iterable[Item]) -> Iterator[T]:
        """One at a time: with threads, decoding small files takes longer."""
        return map(read, items)

    def delete(self, key: str) -> None:
        """Remove the file if it exists."""
        with self._as_lake_error(key):
            (self.root / key).unlink(missing_ok=True)

    def put(self, key: str, data: bytes | pa.Buffer, expected: Expected = ANY) -> None:
        """Write a temporary file, make it durable, then rename it. If this fails, nothing is left behind.

        Raises:
            LakeConflictError: the current version is not the expected one.
        """
        if expected != ANY and self.versions([key])[key] != expected:
            raise conflict(self.uri(key))
        target, created = self.root / key, list[Path]()
        temporary = self.root / f"{TEMPORARY}/{quote(key, safe='')}"
        with self._as_lake_error(key, writing=True):
            _make_folders(temporary.parent, [])
            try:
                _write(temporary, data)
                _make_folders(target.parent, created)
                os.replace(temporary, target)  # noqa: PTH105
            except BaseException:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                for folder in reversed(created):
                    with suppress(OSError):
                        folder.rmdir()
                raise
            for folder in {target.parent, *(folder.parent for folder in created)}:
                _sync_folder(folder)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a lock on the file `_locks/<name>.lock`. The system releases it if the process dies.

        Raises:
            LakeBusyError: another process has held it for `lock_timeout`.
        """
        path = self.root / f"{LOCKS}/{name}.lock"
        # One lock object per path and process (a singleton), so that a second Lake on the same root can re-enter it.
        # Kept in a dict, because looking up the singleton takes 0.3 ms and processing a day takes the lock 30 times.
        lock = self._locks.get(name) or FileLock(path, mode=FILE_MODE, is_singleton=True)
        self._locks[name] = lock
        with self._as_lake_error(f"{LOCKS}/{name}.lock", writing=True):
            if not lock.is_locked:
                _make_folders(path.parent, [])
            try:
                lock.acquire(timeout=self._lock_timeout)
            except Timeout:
                raise LakeBusyError(
                    f"{path}: another run has been writing for over {self._lock_timeout:g} s; check whether it is still"
                    " working, stop it if not, and run this one again"
                ) from None
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _as_lake_error(self, key: str, *, writing: bool = False) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not writing:
                raise
            raise lake_error(self.uri(key), error) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # If a broken link were skipped, sums would silently lack the days behind it.
    if entry.is_symlink() and not Path(entry.path).exists():
        raise LakeError(f"{entry.path}: a broken symbolic link; mount its target, or remove the link")
    return entry.is_dir()


def _version(path: Path) -> str:
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        # Opening a pipe would block until another process writes to it.
        raise OSError(errno.EINVAL, "a pipe or a device is where a file should be", str(path))
    return f"{status.st_mtime_ns}-{status.st_ino}-{status.st_size}"


def _write(path: Path, data: bytes | pa.Buffer) -> None:
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        # The kernel's timestamps advance in steps of up to 4 ms, so two versions could get the same one.
        os.utime(fd, ns=(now := time.time_ns(), now))
        os.fsync(fd)
    finally:
        os.close(fd)


def _make_folders(path: Path, created: list[Path]) -> None:
    """Create the folder and its missing parents; append those created to `created`, outermost first."""
    if not path.is_dir():
        _make_folders(path.parent, created)
        path.mkdir(FOLDER_MODE, exist_ok=True)
        created.append(path)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some network file systems can't sync a folder and report one of these errors.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(fd)
