"""The interface of the lake's storage, local or S3, and the messages for its failures."""

import errno
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from functools import wraps
from typing import Final, NamedTuple, ParamSpec, Protocol, TypeAlias, TypeVar

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

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")
# What a put expects to replace: the object of this version, no object (None), or anything (`ANY`, never a version).
Expected: TypeAlias = str | None
ANY: Final = "*"
# No object has this version, so a store must refuse a put that expects it.
_NO_VERSION = '"0"'
# How often to try to replace a file that other runs keep replacing. A store that refuses every put can't hang a run.
TRIES = 20


class Opened(NamedTuple):
    """An opened object: its bytes for random access, and its version."""

    source: pa.NativeFile
    version: str


class Store(Protocol):
    """Objects under keys such as `sessions/start_date=2025-01-31/sessions.parquet`.

    A missing object raises `FileNotFoundError`, any other failure `LakeError`. A version is a string that differs for
    every object that a key has held.
    """

    def uri(self, key: str) -> str:
        """The address at which other programs can read the object."""

    def open(self, key: str, *, whole: bool) -> Opened:
        """Open the object for reading. `whole`: more than a Parquet file's footer will be read."""

    def put(self, key: str, data: bytes | pa.Buffer, expected: Expected = ANY) -> None:
        """Write or replace the whole object. Readers see either the former object or this one.

        The caller must hold the `lock` that all writers of this key use.

        Raises:
            LakeConflictError: the current version is not the expected one; it stays.
        """

    def versions(self, keys: Sequence[str]) -> dict[str, str | None]:
        """The versions of these keys (at least one, all of the same table); None if there is no object."""

    def listing(self, table: str) -> dict[str, str | None]:
        """The versions of all keys `<table>/<partition>/<table>.parquet`; may include other keys of that folder."""

    def map(self, read: Callable[[Item], T], items: Iterable[Item]) -> Iterator[T]:
        """Yield `read(item)` of each item, in order; several are read at a time if opening an object means waiting."""

    def delete(self, key: str) -> None:
        """Remove the object if it exists."""

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Keep other writers out while the block runs, if conditional puts can't. Re-entrant within a thread.

        Raises:
            LakeBusyError: another writer has held it for too long.
        """


def store_at(root: str) -> Store:
    """The store at an address: a folder or `s3://bucket/prefix`.

    Raises:
        LakeError: it is another kind of address. The message does not repeat it, since it may contain credentials.
    """
    # Imported here because both modules import this one, and because a local lake needs no S3 library.
    if root.startswith("s3://"):
        from sessions_pipeline.lake.s3 import S3Store  # noqa: PLC0415

        return S3Store(root)
    if re.match(r"\s*\w[\w+.-]+:/", root):
        raise LakeError("SESSIONS_PIPELINE_DATA_ROOT: takes a folder or an s3://bucket/prefix address")
    from sessions_pipeline.lake.local import LocalStore  # noqa: PLC0415

    return LocalStore(root)


def lake_error(path: str, error: OSError) -> LakeError:
    """The error for a failed operation on `path`: what happened and what to do."""
    advice = _ADVICE.get(error.errno or 0, f"{error.strerror or error}: fix this")
    return LakeError(f"{path}: {advice}, or point SESSIONS_PIPELINE_DATA_ROOT elsewhere")


def retried(write: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that reads and then replaces files: if another run is quicker, it is called again.

    The function raises LakeConflictError if other runs were quicker `TRIES` times in a row.
    """

    @wraps(write)
    def tried(*args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(TRIES - 1):
            with suppress(LakeConflictError):
                return write(*args, **kwargs)
        return write(*args, **kwargs)

    return tried


def conflict(uri: str) -> LakeConflictError:
    """The error for an object that another run has changed first."""
    return LakeConflictError(f"{uri}: another run has changed it in the meantime; run this one again")


def check_conditions(store: Store, key: str, other: bytes) -> None:
    """Make sure that the store refuses to replace the object at `key` by `other` if a put's condition does not hold.

    Raises:
        LakeError: the store ignores conditions, so two runs could overwrite each other's work.
    """
    for wrong in (None, _NO_VERSION):
        with suppress(LakeConflictError):
            store.put(key, other, wrong)
            raise LakeError(
                f"{store.uri(key)}: this store ignores conditional writes (If-None-Match, If-Match), so two runs"
                " could overwrite each other's work; point SESSIONS_PIPELINE_DATA_ROOT at a store that supports them"
            )
