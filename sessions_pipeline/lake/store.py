"""What the lake needs of the place that holds its objects, and what its failures mean to a person."""

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Final, NamedTuple, Protocol, TypeAlias

import pyarrow as pa

from sessions_pipeline.errors import LakeConflictError, LakeError

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EFBIG: "the file is larger than this system allows: raise the limit",
    errno.EACCES: "permission denied: give this user access",
    errno.EPERM: "not permitted: give this user access",
    errno.EROFS: "the file system is read-only: mount it for writing",
    errno.EIO: "the disk reports an I/O error: check it",
    errno.ENOTDIR: "a file is where a folder should be: move it away",
    errno.EEXIST: "a file is where a folder should be: move it away",
    errno.EISDIR: "a folder is where a file should be: move it away",
    errno.ENAMETOOLONG: "the path is too long: choose a shorter one",
    errno.EXDEV: "its folder is a link to another file system: move it back",
}


# What must be there for a put: an object of this version, no object (None), or whatever is there: no version is `*`.
Expected: TypeAlias = str | None
ANY: Final = "*"
# So often others may replace a file while this run looks at it; a store that refuses each put hangs nobody.
TRIES = 20


class Opened(NamedTuple):
    """An object opened once: its bytes for random access, and its version."""

    source: pa.NativeFile
    version: str


class Store(Protocol):
    """Objects under keys such as `sessions/start_date=2025-01-31/sessions.parquet`.

    A missing object raises `FileNotFoundError`; whatever else goes wrong raises `LakeError`. A version is a text that
    differs from that of every other object that the key has held.
    """

    def uri(self, key: str) -> str:
        """The address that other programs read the object at."""

    def open(self, key: str, *, whole: bool) -> Opened:
        """The object for reading; `whole` says that more of it will be read than a Parquet file's footer."""

    def put(self, key: str, data: bytes | pa.Buffer, expected: Expected = ANY) -> None:
        """Write the whole object, or replace it: a reader sees the former one or this one.

        Hold the `lock` under which all write this key.

        Raises:
            LakeConflictError: something else than `expected` is there; it stays.
        """

    def versions(self, keys: Sequence[str]) -> dict[str, str | None]:
        """The version of each of these keys, one at least and all of one table; None where there is no object."""

    def partitions(self, table: str) -> list[str]:
        """The keys `<table>/<partition>/<table>.parquet` that there are, and perhaps others in the table's folder."""

    def delete(self, key: str) -> None:
        """Remove the object, if it is there."""

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Keep other writers of what `name` stands for out where a put can't do so itself. Re-entrant in a thread.

        Raises:
            LakeBusyError: another writer did not come to an end.
        """


def store_at(root: str) -> Store:
    """The place that an address leads to.

    Raises:
        LakeError: it is of another kind, which is not repeated, since it may hold credentials.
    """
    # Imported here because either needs nothing of the other, and both need this module.
    if root.startswith("s3://"):
        from sessions_pipeline.lake.s3 import open_bucket  # noqa: PLC0415

        return open_bucket(root)
    if re.match(r"\w[\w+.-]+:/", root):
        raise LakeError("SESSIONS_PIPELINE_DATA_ROOT: takes a folder or an s3://bucket/prefix address")
    from sessions_pipeline.lake.local import LocalStore  # noqa: PLC0415

    return LocalStore(root)


def problem(path: str, error: OSError) -> LakeError:
    """One line about a failed operation on `path`: what happened and what to do."""
    advice = _ADVICE.get(error.errno or 0, f"{error.strerror or error}: see to that")
    return LakeError(f"{path}: {advice}, or point SESSIONS_PIPELINE_DATA_ROOT elsewhere")


def tries() -> Iterator[AbstractContextManager[None]]:
    """A block for each try of a put over what was seen: a conflict ends it, and in the last one it is raised."""
    for left in reversed(range(TRIES)):
        yield suppress(LakeConflictError) if left else nullcontext()


def conflict(uri: str) -> LakeConflictError:
    """One line about an object that another run replaced first."""
    return LakeConflictError(f"{uri}: another run has written it since this one looked; run it again")
