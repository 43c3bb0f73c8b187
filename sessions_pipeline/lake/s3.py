"""The lake in an S3 bucket, or in an S3-compatible store such as MinIO or R2.

Differences from a local folder:

- An object is written by a single put under its final key, never streamed or in parts. If a put fails, the former
  object stays. Readers get one whole object.
- There are no locks. A put says which object it expects to replace (If-Match, If-None-Match), and the store refuses it
  if another one is there. Versions are the store's ETags.
- Keys, region and endpoint come from the usual AWS variables, or from a role.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore.store
import pyarrow as pa
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PreconditionError

from sessions_pipeline.errors import LakeError
from sessions_pipeline.lake.store import ANY, Expected, Item, Opened, T, conflict

# Bytes to read for a Parquet file's footer, which is at its end. Our widest table needs less than half of this, but raw
# sessions need more after some 300 readings of their day.
FOOTER = 64 * 1024
# Objects to read at the same time. Each is in memory as a whole, and most take a round trip of some 20 ms.
READS = 8
RETRIES = 6
# Seconds; each wait is twice the one before.
FIRST_WAIT = 0.1

# Parts of errors that the services which issue credentials cause: STS, ECS, EKS and EC2.
_NO_CREDENTIALS = r"performing POST|/latest/(api/token|meta-data)|/v[12]/credentials|token file|CredentialProvider"
_WRONG_KEY = "the store does not accept the key; correct or renew AWS_ACCESS_KEY_ID and what belongs to it"
_ELSEWHERE = "the bucket is elsewhere; set AWS_REGION to its region"
# Parts of errors after which the library does not repeat a request, although it would help.
_NOT_REPEATED = r"(?s)list response body|performing PUT.*(HTTP error|<Code>RequestTimeout<)"
# By the store's error code, or else by the status.
_ADVICE = {
    **dict.fromkeys(("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"), _WRONG_KEY),
    **dict.fromkeys(("AuthorizationHeaderMalformed", "301", "307"), _ELSEWHERE),
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
    "NoSuchBucket": "there is no such bucket; create it, or correct SESSIONS_PIPELINE_DATA_ROOT",
    "InvalidObjectState": "the file was archived; restore it, and exempt the data from archiving",
    **dict.fromkeys(("401", "403"), "access denied; the key needs to list, read, write and delete below this address"),
    **dict.fromkeys(("429", "503"), "the store is overloaded; try again later"),
    "501": "the store lacks conditional writes (If-None-Match, If-Match); choose one that has them",
}

# On any other address or key the library panics: it prints its stack, and no `except Exception` catches that.
_ADDRESS = re.compile(r"https?://([\w.-]+|\[[\dA-Fa-f:]+])(:[1-6]?\d{1,4})?(/[\w.~%/-]*)?", re.ASCII)


class S3Store:
    """A `Store` at `s3://bucket/prefix`; the bucket must exist. A failed request is repeated up to `retries` times."""

    def __init__(self, root: str, *, retries: int = RETRIES) -> None:
        """Send no request yet.

        Raises:
            LakeError: the address names no bucket, or an AWS variable is wrong. The message repeats nothing secret.
        """
        address = re.fullmatch(r"s3://([\w.-]+)(?:/([^?]*))?", root)
        if address is None:
            raise LakeError(
                "SESSIONS_PIPELINE_DATA_ROOT: write s3://bucket/prefix, without credentials or options in the address; "
                "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL for those"
            )
        bucket, prefix = address[1], (address[2] or "").strip("/")
        self._root = f"s3://{bucket}/{prefix}".rstrip("/")
        self._client = _connect(bucket, prefix, retries)
        self._retries = retries

    def uri(self, key: str) -> str:
        """The object's `s3://` address."""
        return f"{self._root}/{key}"

    def open(self, key: str, *, whole: bool) -> Opened:
        """The object, or only its last `FOOTER` bytes unless `whole`.

        Each answer is one whole object or its end. A footer that is too long takes a second request, for all of it.
        """
        options: Any = None if whole else {"range": {"suffix": FOOTER}}
        with self._as_lake_error(key):
            try:
                response = self._client.get(key, options=options)
            except GenericError as error:
                # Stores refuse a range of an empty object.
                if whole or not any(code in str(error) for code in ("NotPartial", "InvalidRange")):
                    raise
                response = self._client.get(key)
            # Not copied: with several large days read at a time, that would be a third of the memory.
            content = memoryview(response.bytes())
        # The last eight bytes of a Parquet file begin with the footer's length.
        if not whole and len(content) < int.from_bytes(content[-8:-4], "little") + 8:
            return self.open(key, whole=True)
        return Opened(pa.BufferReader(content), str(response.meta["e_tag"]))

    def versions(self, keys: Sequence[str]) -> dict[str, str | None]:
        """The objects' ETags, from one listing of a single key's partition, or of the table from the first key on."""
        folder = min(keys).rpartition("/")[0]
        listed = self.listing(folder) if len(keys) == 1 else self.listing(folder.partition("/")[0], after=folder)
        return {key: listed.get(key) for key in keys}

    def listing(self, table: str, *, after: str | None = None) -> dict[str, str | None]:
        """The ETags of all objects in a folder, of a table or of one partition; with `after`, of those after it."""
        with self._as_lake_error(table):
            pages = self._repeated(lambda: list(self._client.list(table, offset=after)))
            return {meta["path"]: meta["e_tag"] for page in pages for meta in page}

    def map(self, read: Callable[[Item], T], items: Iterable[Item]) -> Iterator[T]:
        """In batches of `READS` at a time."""
        remaining = iter(items)
        with ThreadPoolExecutor(READS, thread_name_prefix="reads") as executor:
            while batch := list(islice(remaining, READS)):
                yield from executor.map(read, batch)

    def delete(self, key: str) -> None:
        """Remove the object if it exists."""
        with self._as_lake_error(key):
            self._client.delete(key)

    def put(self, key: str, data: bytes | pa.Buffer, expected: Expected = ANY) -> None:
        """Put the whole object under its key, in one request.

        A refused put counts as done if the stored bytes are the same: if an answer is lost the client sends the put
        again, and then finds what its own first try has written.

        Raises:
            LakeConflictError: the current version is not the expected one.
        """
        mode: Any = "overwrite" if expected == ANY else "create" if expected is None else {"e_tag": expected}
        content = memoryview(data).cast("B")
        with self._as_lake_error(key):
            try:
                self._repeated(lambda: self._client.put(key, content, mode=mode, use_multipart=False))
            except (AlreadyExistsError, PreconditionError):
                with suppress(FileNotFoundError):
                    if self.open(key, whole=True).source.read() == content:
                        return
                raise conflict(self.uri(key)) from None

    def lock(self, name: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """Does nothing: conditional puts keep writers apart."""
        return nullcontext()

    def _repeated(self, request: Callable[[], T]) -> T:
        """The answer to a request, repeated where the library itself does not.

        That is for a listing that breaks off, a conditional put whose connection was reset, and a put that was too slow
        for the store.
        """
        for tried in range(self._retries):
            try:
                return request()
            except GenericError as error:
                text, gave_up = str(error), f"after {self._retries} retries"
                if not re.search(_NOT_REPEATED, text) or gave_up in text:
                    raise
                time.sleep(FIRST_WAIT * 2**tried)
        return request()

    @contextmanager
    def _as_lake_error(self, key: str) -> Iterator[None]:
        # The library's errors contain URLs and the store's answers, which may hold secrets: never pass them on.
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            # Any other 404 is about the bucket, or was not sent by a store.
            if isinstance(error, FileNotFoundError) and "<Code>NoSuchKey<" in str(error):
                raise FileNotFoundError(self.uri(key)) from None
            raise LakeError(f"{self.uri(key)}: {reason(str(error))}") from None


def _connect(bucket: str, prefix: str, retries: int) -> obstore.store.S3Store:
    # AWS variables are not among the package's settings, so they are read here. Docker Compose passes unset variables
    # on as empty strings, which the library would use as values.
    for name in [name for name, value in os.environ.items() if name.startswith("AWS_") and not value]:
        del os.environ[name]
    for name, value in os.environ.items():
        if name in {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"} and not _ADDRESS.fullmatch(value):
            raise LakeError(f"{name}: write an address such as https://minio.example.com:9000")
        if re.fullmatch(r"AWS_\w*(REGION|_ID|_KEY|_TOKEN)", name) and not re.fullmatch(r"[!-~]+", value):
            raise LakeError(f"{name}: holds a space or another wrong character; copy it again")
    http: Any = {"allow_http": True, "connect_timeout": "5s", "read_timeout": "60s", "timeout": timedelta(minutes=10)}
    backoff: Any = {"init_backoff": timedelta(seconds=FIRST_WAIT), "max_backoff": timedelta(seconds=5), "base": 2}
    credentials, endpoint = _profile() if os.environ.get("AWS_PROFILE") else (None, {})
    config: Any = {"disable_bulk_delete": True} | endpoint
    try:
        if bundle := os.environ.get("AWS_CA_BUNDLE"):
            http["root_certificate"] = Path(bundle).read_bytes()
        return obstore.store.S3Store(
            bucket,
            prefix=prefix or None,
            client_options=http,
            retry_config={"max_retries": retries, "backoff": backoff, "retry_timeout": timedelta(minutes=3)},
            credential_provider=credentials,
            config=config,
        )
    except OSError as error:
        raise LakeError(f"AWS_CA_BUNDLE: {error.strerror}; name a file of certificates") from None
    except (BaseError, ValueError) as error:
        # No request was sent yet: the first line repeats no more than the address or a flag.
        raise LakeError(f"SESSIONS_PIPELINE_DATA_ROOT or AWS_*: {str(error).splitlines()[0]}; correct it") from None


def _profile() -> tuple[Any, dict[str, str]]:
    """The credentials of AWS_PROFILE in `~/.aws`, and the endpoint if the profile sets one."""
    try:
        boto3 = import_module("boto3")
        from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415
    except ImportError:
        raise LakeError("AWS_PROFILE: needs boto3; install it, or set AWS_ACCESS_KEY_ID instead") from None
    try:
        endpoint = boto3.Session().client("s3").meta.endpoint_url
        named = {} if str(urlsplit(endpoint).hostname).endswith(".amazonaws.com") else {"endpoint": endpoint}
        return Boto3CredentialProvider(), named
    except Exception as error:  # noqa: BLE001
        raise LakeError(f"AWS_PROFILE: {' '.join(str(error).split())[:200]}") from None


def reason(text: str) -> str:
    """The message for a failed request, from the text of the library's error.

    Only its status and error code are used, since the rest may contain secrets.
    """
    if re.search(_NO_CREDENTIALS, text):
        return "no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or use a role"
    if "Received redirect" in text:
        return f"redirected: {_ELSEWHERE}"
    patterns = r"status code: (\d{3})", r"<Code>([\w.]{1,60})</Code>"
    status, code = (next(iter(re.findall(pattern, text)), "") for pattern in patterns)
    if not status:
        return "no answer, or a broken one; check AWS_ENDPOINT_URL, AWS_REGION and the network"
    advice = _ADVICE.get(code) or _ADVICE.get(status) or "the store failed; check the bucket, AWS_* and the endpoint"
    return f"{f'{status} {code}'.strip()}: {advice}"
