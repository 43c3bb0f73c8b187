"""The lake in an S3 bucket, or in a store that speaks S3 such as MinIO and R2.

What differs from a local folder:

- An object is written by one put under its final key. Nothing is streamed into place or sent in parts: a put that
  breaks leaves the former object, and a reader gets one whole object.
- Keys, region and endpoint come from the usual AWS variables, or from a role.
- The lock is a small object, changed by conditional puts (`lease.py`).
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore.store
import pyarrow as pa
from obstore.exceptions import BaseError

from sessions_pipeline.errors import LakeError
from sessions_pipeline.lake.layout import LOCKS
from sessions_pipeline.lake.lease import check_leases, is_conditional, leased
from sessions_pipeline.lake.lock import RunLock
from sessions_pipeline.lake.s3_errors import reason
from sessions_pipeline.lake.store import OnWait, problem

# Waits between them double from 0.1 s on.
RETRIES = 6
# Parquet keeps what describes a file at its end; even our widest table needs less than half of this, in bytes.
FOOTER = 64 * 1024

_CONDITIONAL: dict[str, bool] = {}
"""Which lakes' stores have conditional puts, as far as this process has tried."""


class S3Store:
    """A `Store` under `s3://bucket/prefix`; the bucket must exist."""

    def __init__(self, root: str) -> None:
        bucket, _, prefix = root.removeprefix("s3://").strip("/").partition("/")
        if not bucket:
            raise LakeError(f"{root}: SESSIONS_PIPELINE_DATA_ROOT names no bucket; write s3://bucket/prefix")
        self._root = f"s3://{bucket}/{prefix}".rstrip("/")
        self._files = _connect(bucket, prefix, timeout=timedelta(minutes=10), retries=RETRIES)
        # A request that hangs must not outlast the lock.
        self._lock_files = _connect(bucket, prefix, timeout=timedelta(seconds=5), retries=2)

    def uri(self, key: str) -> str:
        """The object's `s3://` address."""
        return f"{self._root}/{key}"

    def open(self, key: str, *, whole: bool) -> pa.NativeFile:
        """The object, or only its end unless `whole`, by one request: no replacement can come between two of them."""
        if whole:
            return pa.BufferReader(self.read(key))
        with self._told(key):
            end = self._files.get(key, options={"range": {"suffix": FOOTER}}).bytes()
            return pa.BufferReader(bytes(end))

    def read(self, key: str) -> bytes:
        """The object's bytes."""
        with self._told(key):
            return bytes(self._files.get(key).bytes())

    def has(self, key: str) -> bool:
        """Whether the object is there."""
        with self._told(key):
            try:
                self._files.head(key)
            except FileNotFoundError:
                return False
            return True

    def keys(self, folder: str) -> list[str]:
        """All objects below a prefix."""
        with self._told(folder):
            return sorted(found["path"] for some in self._files.list(folder) for found in some)

    def delete(self, key: str) -> None:
        """Remove the object, if it is there."""
        with self._told(key):
            self._files.delete(key)

    def put(self, key: str, data: bytes | pa.Buffer) -> None:
        """Put the whole object under its key, by one request.

        Raises:
            LakeBusyError: this process has lost a lock of the lake, so another run may be writing.
        """
        check_leases(self._root)
        with self._told(key, writing=True):
            self._files.put(key, memoryview(data).cast("B"), use_multipart=False)

    @contextmanager
    def lock(self, name: str, on_wait: OnWait | None, timeout: float | None) -> Iterator[None]:
        """Hold an object in `_locks/`; where the store has no conditional puts, a file of this machine, and say so."""
        key = f"{LOCKS}/{name}.json"
        with ExitStack() as held:
            if self._is_conditional(on_wait):
                with self._told(key, writing=True):
                    held.enter_context(leased(self._lock_files, key, self._root, on_wait, timeout))
            else:
                held.enter_context(self._file_lock(name).held(on_wait, timeout))
            yield

    def _is_conditional(self, on_wait: OnWait | None) -> bool:
        if self._root not in _CONDITIONAL:
            probe = f"{LOCKS}/probe"
            with self._told(probe, writing=True):
                _CONDITIONAL[self._root] = is_conditional(self._lock_files, probe)
            if not _CONDITIONAL[self._root] and on_wait is not None:
                on_wait(f"{self._root}: this store has no conditional puts, so write to it from one machine only")
        return _CONDITIONAL[self._root]

    def _file_lock(self, name: str) -> RunLock:
        folder = Path(tempfile.gettempdir()) / f"sessions-pipeline-{os.getuid()}"
        file = sha256(f"{self._root}/{name}".encode()).hexdigest()[:32]
        try:
            folder.mkdir(0o700, exist_ok=True)
        except OSError as error:
            raise problem(str(folder), error) from error
        return RunLock(folder / f"{file}.lock", self._root)

    @contextmanager
    def _told(self, key: str, *, writing: bool = False) -> Iterator[None]:
        # The library's errors hold addresses and what the store said, so they go no further than here.
        try:
            yield
        except FileNotFoundError as error:
            if writing or "NoSuchBucket" in str(error):
                raise LakeError(
                    f"{self.uri(key)}: there is no such bucket; make it, or correct SESSIONS_PIPELINE_DATA_ROOT"
                ) from None
            raise FileNotFoundError(self.uri(key)) from None
        except BaseError as error:
            raise LakeError(f"{self.uri(key)}: {reason(str(error))}") from None


def _connect(bucket: str, prefix: str, *, timeout: timedelta, retries: int) -> obstore.store.S3Store:
    # These are AWS's own variables, which the library reads itself: they stand beside the package's settings. Compose
    # hands unset ones on as empty ones, and it would take them at their word.
    for name in [name for name, value in os.environ.items() if name.startswith("AWS_") and not value]:
        del os.environ[name]
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        endpoint = urlsplit(os.environ.get(name, ""))
        if name in os.environ and not (endpoint.scheme in {"http", "https"} and endpoint.hostname):
            raise LakeError(f"{name}: write an address such as https://minio.example.com:9000")
    client: Any = {"allow_http": True, "connect_timeout": "5s", "read_timeout": "60s", "timeout": timeout}
    if bundle := os.environ.get("AWS_CA_BUNDLE"):
        client["root_certificate"] = _certificates(bundle)
    backoff: Any = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2}
    return obstore.store.S3Store(
        bucket,
        prefix=prefix or None,
        client_options=client,
        retry_config={"max_retries": retries, "backoff": backoff, "retry_timeout": timedelta(minutes=3)},
        credential_provider=_profile(),
        config={"disable_bulk_delete": True},
    )


def _certificates(bundle: str) -> bytes:
    try:
        return Path(bundle).read_bytes()
    except OSError as error:
        raise LakeError(f"AWS_CA_BUNDLE: {error.strerror}; name a file of certificates") from None


def _profile() -> Any:
    """What reads `~/.aws` for AWS_PROFILE; None without one: variables and roles need no help."""
    if not os.environ.get("AWS_PROFILE"):
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415
    except ImportError:
        raise LakeError("AWS_PROFILE: needs boto3; install it, or set AWS_ACCESS_KEY_ID instead") from None
    try:
        return Boto3CredentialProvider()
    except Exception as error:  # noqa: BLE001
        raise LakeError(f"AWS_PROFILE: {' '.join(str(error).split())[:200]}") from None
