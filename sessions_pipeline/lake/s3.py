"""The lake in an S3 bucket, or in a store that speaks S3 such as MinIO and R2.

What differs from a local folder:

- An object is written by one put under its final key, and one of 10 MiB or more by a copy within the store. Nothing is
  streamed into place: a put that breaks leaves the former object, and a reader gets one whole object.
- Keys and region come from the usual AWS variables and files (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `~/.aws/config`, an
  instance's role), which Arrow reads itself, and the endpoint from `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, which
  it does not.
- The lock holds on this machine only: Arrow has no conditional put. Runs on several machines must be kept apart by
  Dagster's pool.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote, urlsplit

import pyarrow as pa
from pyarrow import fs

from sessions_pipeline.errors import LakeError
from sessions_pipeline.lake.lock import RunLock
from sessions_pipeline.lake.store import OnWait, problem

ATTEMPTS = 5
TEMPORARY = "_tmp"
# From this size on, in bytes, Arrow sends an object in parts, and when one of them fails it still completes the object
# from the parts before. So these go to a temporary key first.
ONE_PUT = 10 * 1024 * 1024


class S3Store:
    """A `Store` under `s3://bucket/prefix`; the bucket must exist."""

    def __init__(self, root: str) -> None:
        self._root = root.removeprefix("s3://").strip("/")
        if not self._root:
            raise LakeError(f"{root}: SESSIONS_PIPELINE_DATA_ROOT names no bucket; write s3://bucket/prefix")
        with self._told(""):
            self._files = _connect()

    def uri(self, key: str) -> str:
        """The object's `s3://` address."""
        return f"s3://{self._path(key)}"

    def open(self, key: str, *, whole: bool) -> pa.NativeFile:
        """The object: fetched by one request if `whole`, otherwise read range by range as the reader asks for them."""
        if not whole:
            with self._told(key):
                return self._files.open_input_file(self._path(key))
        for _ in range(ATTEMPTS):
            # Arrow asks for the size first. If a larger object takes its place before the bytes are asked for, they
            # are cut short: then the magic number at the end of a Parquet file is missing.
            content = self.read(key)
            if content.endswith(b"PAR1"):
                break
        return pa.BufferReader(content)

    def read(self, key: str) -> bytes:
        """The object's bytes."""
        with self._told(key), self._files.open_input_file(self._path(key)) as source:
            content: bytes = source.read()
            return content

    def has(self, key: str) -> bool:
        """Whether the object is there."""
        with self._told(key):
            return bool(self._files.get_file_info(self._path(key)).type == fs.FileType.File)

    def keys(self, folder: str) -> list[str]:
        """All objects below a prefix."""
        with self._told(folder):
            selector = fs.FileSelector(self._path(folder), allow_not_found=True, recursive=True)
            found = [info.path for info in self._files.get_file_info(selector) if info.is_file]
        return sorted(path.removeprefix(f"{self._root}/") for path in found)

    def delete(self, key: str) -> None:
        """Remove the object, if it is there."""
        if self.has(key):
            with self._told(key):
                self._files.delete_file(self._path(key))

    def put(self, key: str, data: bytes | pa.Buffer) -> None:
        """Put the whole object under its final key; a large one elsewhere first, and then the store copies it."""
        is_small = memoryview(data).nbytes < ONE_PUT
        sent = key if is_small else f"{TEMPORARY}/{quote(key, safe='')}"
        with self._told(key):
            try:
                self._send(sent, data)
                if sent != key:
                    self._files.copy_file(self._path(sent), self._path(key))
                    self._files.delete_file(self._path(sent))
            except FileNotFoundError:
                raise LakeError(f"{self.uri(key)}: there is no such bucket; make it first") from None

    def _send(self, key: str, data: bytes | pa.Buffer) -> None:
        # Not `with`: leaving it after an error would commit what was sent so far.
        target = self._files.open_output_stream(self._path(key))
        target.write(data)
        target.close()

    @contextmanager
    def lock(self, name: str, on_wait: OnWait | None, timeout: float | None) -> Iterator[None]:
        """Keep other runs on this machine out; those on other machines are not seen."""
        folder = Path(tempfile.gettempdir()) / f"sessions-pipeline-{os.getuid()}"
        file = sha256(f"{self._root}/{name}".encode()).hexdigest()[:32]
        try:
            folder.mkdir(0o700, exist_ok=True)
        except OSError as error:
            raise problem(str(folder), error) from error
        with RunLock(folder / f"{file}.lock", f"s3://{self._root}").held(on_wait, timeout) as is_outermost:
            for stray in self.keys(TEMPORARY) if is_outermost else ():
                self.delete(stray)
            yield

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:300]
            raise LakeError(
                f"{self.uri(key)}: {reason}; check the bucket, the AWS variables and the endpoint"
            ) from error


def _connect() -> fs.S3FileSystem:
    # These are AWS's own variables, like those that Arrow reads: they stand beside the package's settings.
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "")
    return fs.S3FileSystem(
        endpoint_override=endpoint.netloc or None,
        scheme="http" if endpoint.scheme == "http" else "https",
        background_writes=False,
        # Arrow's own 1 and 3 s are short for a store that is busy.
        connect_timeout=10,
        request_timeout=30,
        # Spares a request for each object, and writes small ones by a single put.
        allow_delayed_open=True,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )
