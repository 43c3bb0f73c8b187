"""The lake in an S3 bucket, or in a store that speaks S3 such as MinIO and R2.

What differs from a local folder:

- An object is written by one put under its final key. Nothing is streamed into place or sent in parts: a put that
  breaks leaves the former object, and a reader gets one whole object.
- Nothing is locked: a put says which object it expects to replace (If-Match, If-None-Match), and the store refuses it
  where that is not what is there. Versions are the store's ETags.
- Keys, region and endpoint come from the usual AWS variables, or from a role.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import obstore.store
import pyarrow as pa
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PreconditionError

from sessions_pipeline.errors import LakeError
from sessions_pipeline.lake.s3_errors import NO_BUCKET, reason
from sessions_pipeline.lake.store import ANY, Expected, Opened, conflict

# Parquet keeps what describes a file at its end; even our widest table needs less than half of this, in bytes.
FOOTER = 64 * 1024


class S3Store:
    """A `Store` under `s3://bucket/prefix`; the bucket must exist. `files` is the way to it, see `s3_client`."""

    def __init__(self, root: str, files: obstore.store.S3Store) -> None:
        self._root = root.rstrip("/")
        self._files = files

    def uri(self, key: str) -> str:
        """The object's `s3://` address."""
        return f"{self._root}/{key}"

    def open(self, key: str, *, whole: bool) -> Opened:
        """The object, or only its end unless `whole`, by one request: no replacement can come between two of them."""
        options: Any = None if whole else {"range": {"suffix": FOOTER}}
        with self._as_lake_error(key):
            try:
                got = self._files.get(key, options=options)
            except GenericError as error:
                # An empty object has no end to ask for.
                if whole or not any(sign in str(error) for sign in ("NotPartial", "InvalidRange")):
                    raise
                got = self._files.get(key)
            return Opened(pa.BufferReader(bytes(got.bytes())), str(got.meta["e_tag"]))

    def read(self, key: str) -> bytes:
        """The object's bytes."""
        with self._as_lake_error(key):
            return bytes(self._files.get(key).bytes())

    def versions(self, keys: Sequence[str]) -> dict[str, str | None]:
        """The objects' ETags, by one listing: of the partition of a single one, else from the first on."""
        folder = min(keys).rpartition("/")[0]
        listed = self._list(folder) if len(keys) == 1 else self._list(folder.partition("/")[0], after=folder)
        return {key: listed.get(key) for key in keys}

    def partitions(self, table: str) -> list[str]:
        """All objects in the table's folder."""
        return list(self._list(table))

    def _list(self, folder: str, after: str | None = None) -> dict[str, str | None]:
        with self._as_lake_error(folder):
            return {one["path"]: one["e_tag"] for some in self._files.list(folder, offset=after) for one in some}

    def delete(self, key: str) -> None:
        """Remove the object, if it is there."""
        with self._as_lake_error(key):
            self._files.delete(key)

    def put(self, key: str, data: bytes | pa.Buffer, expected: Expected = ANY) -> None:
        """Put the whole object under its key, by one request.

        The same bytes count as put: a put is sent again when its answer was lost, and then meets its own first try.

        Raises:
            LakeConflictError: something else than `expected` is there.
        """
        mode: Any = "overwrite" if expected is ANY else "create" if expected is None else {"e_tag": expected}
        content = memoryview(data).cast("B")
        with self._as_lake_error(key, writing=True):
            try:
                self._files.put(key, content, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                if not self._holds(key, content):
                    raise conflict(self.uri(key)) from None

    def lock(self, name: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """Nothing: conditional puts keep writers apart."""
        return nullcontext()

    def _holds(self, key: str, content: memoryview) -> bool:
        try:
            return bytes(self._files.get(key).bytes()) == content
        except FileNotFoundError:
            return False

    @contextmanager
    def _as_lake_error(self, key: str, *, writing: bool = False) -> Iterator[None]:
        # The library's errors hold addresses and what the store said, so they go no further than here.
        try:
            yield
        except FileNotFoundError as error:
            if writing or "NoSuchBucket" in str(error):
                raise LakeError(f"{self.uri(key)}: {NO_BUCKET}") from None
            raise FileNotFoundError(self.uri(key)) from None
        except BaseError as error:
            raise LakeError(f"{self.uri(key)}: {reason(str(error))}") from None
