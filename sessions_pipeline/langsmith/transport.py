"""One exchange over HTTP: timeouts, connections, and every way in which it can break.

The only module that imports httpx. Errors never carry httpx's exceptions along, since those hold the request and
with it the key.
"""

import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from weakref import WeakSet

import httpx

from sessions_pipeline import __version__
from sessions_pipeline.errors import ApiError, BadBodyError, SettingError, TimedOutError, UnreachableError
from sessions_pipeline.langsmith.auth import Access

CONNECT_SECONDS = 10.0
# Stats of a hundred large sessions take the API tens of seconds.
READ_SECONDS = 60.0
# An error's body is read for its reasons only.
MOST_ERROR_BYTES = 65_536


class Reply(NamedTuple):
    """An answer of any status; `headers` are looked up in any case, `size` counts the body's bytes on the wire."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    size: int

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - HTTP's successes


class Transport:
    """Sends GET requests to one endpoint over at most `most_connections` kept-alive connections. Thread-safe.

    Redirects are answers like others: they are never followed.
    """

    def __init__(self, access: Access, *, most_connections: int, read_seconds: float = READ_SECONDS) -> None:
        """Open nothing yet.

        Raises:
            SettingError: the environment's proxy or certificates can't be used.
        """
        self.bytes_received = 0
        self._access = access
        self._read_seconds = read_seconds
        self._lock = threading.Lock()
        self._streams: WeakSet[Any] = WeakSet()
        self._interrupted = False
        self._http = _http_client(access, most_connections)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def interrupt(self) -> None:
        """End the waits of threads that are reading, or about to; their requests fail."""
        with self._lock:
            self._interrupted = True
            streams = list(self._streams)
        for stream in streams:
            _shut_down(stream)

    def get(
        self, path: str, parameters: Sequence[tuple[str, str]], *, workspace: str | None, most_seconds: float
    ) -> Reply:
        """One exchange; an error's body may be cut after 64 kB. `most_seconds` bounds the wait for the whole.

        Raises:
            ApiError: no connection, no answer in time, or one that broke or can't be unpacked.
        """
        read = max(min(self._read_seconds, most_seconds), 0.001)
        request = self._http.build_request(
            "GET",
            f"{self._access.base}{path}",
            params=httpx.QueryParams(list(parameters)),
            headers={"X-Tenant-Id": workspace} if workspace else None,
            timeout=httpx.Timeout(read, connect=min(CONNECT_SECONDS, read), pool=read),
            extensions={"trace": self._note_stream},
        )
        try:
            response = self._http.send(request, stream=True)
            try:
                return self._receive(response, time.monotonic() + most_seconds)
            finally:
                response.close()
        except httpx.HTTPError as error:
            problem = self._broken(error, f"{self._access.host}{path}")
        raise problem  # outside the except block, so that httpx's exception is not its context

    def _note_stream(self, event: str, info: Mapping[str, Any]) -> None:
        if event not in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            return
        stream = info["return_value"]
        with self._lock:
            self._streams.add(stream)
        if self._interrupted:
            _shut_down(stream)

    def _receive(self, response: httpx.Response, end: float) -> Reply:
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if time.monotonic() > end:
                # A server that drips bytes never runs into the timeout of a read.
                raise httpx.ReadTimeout("")
            if not response.is_success and len(body) > MOST_ERROR_BYTES:
                break
        size = response.num_bytes_downloaded
        with self._lock:
            self.bytes_received += size
        return Reply(response.status_code, response.headers, bytes(body), size)

    def _broken(self, error: httpx.HTTPError, where: str) -> ApiError:
        said = self._access.clean(str(error)) or type(error).__name__
        if isinstance(error, httpx.ConnectTimeout):
            return TimedOutError(f"{where} can't be reached in time; check LANGSMITH_ENDPOINT, network and proxy")
        if isinstance(error, httpx.TimeoutException):
            return TimedOutError(
                f"{where} did not answer in time; try again later or lower SESSIONS_PIPELINE_PAGE_SIZE"
            )
        if isinstance(error, httpx.DecodingError):
            return BadBodyError(f"{where} answered with a body that can't be unpacked; try again later")
        if isinstance(error, httpx.ConnectError | httpx.ProxyError):
            return UnreachableError(f"{where} can't be reached ({said}); check LANGSMITH_ENDPOINT, network and proxy")
        return UnreachableError(f"{where} broke the connection ({said}); try again later")


def _shut_down(stream: Any) -> None:
    # A closed socket would let its reader wait on; one that is shut down wakes it.
    with suppress(OSError):
        stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


def _http_client(access: Access, most_connections: int) -> httpx.Client:
    host = urlsplit(access.base).hostname or ""
    bracketed = f"[{host}]" if ":" in host else host
    try:
        return httpx.Client(
            headers={
                **access.headers,
                "User-Agent": f"sessions-pipeline/{__version__}",
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
            },
            limits=httpx.Limits(max_connections=most_connections, max_keepalive_connections=most_connections),
            follow_redirects=False,
            # Proxies are the environment's, but not for the sandbox on this machine.
            mounts={f"all://{bracketed}": None} if access.is_loopback else None,
        )
    except (ValueError, ImportError, httpx.InvalidURL):
        raise SettingError("HTTPS_PROXY", "this proxy, or HTTP_PROXY or ALL_PROXY, can't be used") from None
    except OSError:
        raise SettingError("SSL_CERT_FILE", "this file of certificates can't be read") from None
