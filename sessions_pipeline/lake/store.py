"""What the lake needs of the place that holds its objects, and what its failures mean to a person."""

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import pyarrow as pa

from sessions_pipeline.errors import LakeError

OnWait = Callable[[str], None]

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EFBIG: "the file is larger than this system allows: raise the limit",
    errno.EACCES: "permission denied: give this user access",
    errno.EPERM: "not permitted: give this user access",
    errno.EROFS: "the file system is read-only: mount it for writing",
    errno.EIO: "the disk reports an I/O error: check it",
    errno.ENOTDIR: "a file is where a folder should be: move it away",
    errno.EISDIR: "a folder is where a file should be: move it away",
    errno.ENAMETOOLONG: "the path is too long: choose a shorter one",
}


class Store(Protocol):
    """Objects under keys such as `sessions/start_date=2025-01-31/sessions.parquet`.

    A missing object raises `FileNotFoundError`; whatever else goes wrong raises `LakeError`.
    """

    def uri(self, key: str) -> str:
        """The address that other programs read the object at."""

    def open(self, key: str, *, whole: bool) -> pa.NativeFile:
        """A Parquet file for random access; `whole` says that most of it will be read, not its footer alone."""

    def read(self, key: str) -> bytes:
        """The whole object."""

    def put(self, key: str, data: bytes | pa.Buffer) -> None:
        """Write the whole object, or replace it: a reader sees the former one or this one."""

    def has(self, key: str) -> bool:
        """Whether the object is there."""

    def keys(self, folder: str) -> list[str]:
        """The keys of all objects in a folder and those below it, sorted; none if there is no such folder."""

    def delete(self, key: str) -> None:
        """Remove the object, if it is there."""

    def lock(self, name: str, on_wait: OnWait | None, timeout: float | None) -> AbstractContextManager[None]:
        """Keep other runs out of what `name` stands for; `timeout` in seconds. Re-entrant within a thread.

        Raises:
            LakeBusyError: another run still holds it after `timeout`.
        """


def said_once(on_wait: OnWait | None) -> OnWait:
    """A listener that passes its first line alone on."""
    said: list[str] = []

    def listener(line: str) -> None:
        if on_wait is not None and not said:
            on_wait(line)
        said.append(line)

    return listener


def problem(path: str, error: OSError) -> LakeError:
    """One line about a failed operation on `path`: what happened and what to do."""
    advice = _ADVICE.get(error.errno or 0, f"{error.strerror or error}: mend that")
    return LakeError(f"{path}: {advice}, or point SESSIONS_PIPELINE_DATA_ROOT elsewhere")
