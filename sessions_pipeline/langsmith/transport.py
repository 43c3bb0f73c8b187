"""One exchange over HTTP: timeouts, connections, and every way in which it can break.

The only module that imports httpx. Errors never carry httpx's exceptions along, since those hold the request and
with it the key.
"""

import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from weakref import WeakSet

import httpx

from sessions_pipeline import __version__
from sessions_pipeline.errors import (
    ApiError,
    BadBodyError,
    OversizedError,
    RequestRefusedError,
    SettingError,
    TimedOutError,
    UnreachableError,
    UntrustedCertificateError,
)
from sessions_pipeline.langsmith.auth import Auth
from sessions_pipeline.langsmith.network import add_certificates, proxy_for
from sessions_pipeline.langsmith.status_errors import PROXY_ADVICE

CONNECT_SECONDS = 10.0
# Stats of a hundred large sessions take the API tens of seconds.
READ_SECONDS = 60.0
# For the whole of an answer: one that drips, byte by byte, never keeps a read waiting.
REQUEST_SECONDS = 180.0
# Unpacked: a hundred sessions of a megabyte each are beyond anything seen.
MOST_BYTES = 128 * 2**20
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

    def __init__(
        self,
        auth: Auth,
        *,
        most_connections: int,
        read_seconds: float = READ_SECONDS,
        request_seconds: float = REQUEST_SECONDS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """Open nothing yet. `read_seconds` bound each wait for bytes, `request_seconds` the whole of an answer.

        A body that unpacks to more than `most_bytes` is refused.

        Raises:
            SettingError: the environment's proxy or certificates can't be used.
        """
        self.bytes_received = 0
        self._auth = auth
        self._read_seconds = read_seconds
        self._request_seconds = request_seconds
        self._most_bytes = most_bytes
        self._current = threading.local()  # `end`: when the answer that this thread waits for has to be complete
        self._lock = threading.Lock()
        self._streams: WeakSet[Any] = WeakSet()
        self._interrupted = False
        proxy = proxy_for(auth)
        self._way = f"network and {proxy[0]}" if proxy else "network"
        self._http = _http_client(auth, most_connections, proxy)

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
        """One exchange; an error's body may be cut after 64 kB. `most_seconds` bounds the wait for the whole, too.

        Raises:
            ApiError: no connection, no answer in time, or one that broke or can't be unpacked.
        """
        most_seconds = max(min(most_seconds, self._request_seconds), 0.001)
        read = min(self._read_seconds, most_seconds)
        self._current.end = end = time.monotonic() + most_seconds
        request = self._http.build_request(
            "GET",
            f"{self._auth.base}{path}",
            params=httpx.QueryParams(list(parameters)),
            headers={"X-Tenant-Id": workspace} if workspace else None,
            timeout=httpx.Timeout(read, connect=min(CONNECT_SECONDS, read), pool=read),
            extensions={"trace": self._note_stream},
        )
        try:
            response = self._http.send(request, stream=True)
            try:
                return self._receive(response, end)
            finally:
                response.close()
        except httpx.HTTPError as error:
            problem = self._broken(error, f"{self._auth.host}{path}")
        raise problem  # outside the except block, so that httpx's exception is not its context

    def _note_stream(self, event: str, info: Mapping[str, Any]) -> None:
        if event not in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            return
        stream = info["return_value"]
        read = stream.read
        stream.read = lambda most, timeout=None: read(most, self._remaining(timeout))
        with self._lock:
            self._streams.add(stream)
        if self._interrupted:
            _shut_down(stream)

    def _remaining(self, timeout: float | None) -> float:
        """What is left for one read: headers may drip as well as bodies."""
        left: float = max(self._current.end - time.monotonic(), 0.001)
        return left if timeout is None else min(timeout, left)

    def _receive(self, response: httpx.Response, end: float) -> Reply:
        body = bytearray()
        if response.headers.get("content-encoding", "identity").lower() not in ("identity", "gzip", ""):
            # Packed twice, a few bytes unpack to more than a chunk can bear.
            raise httpx.DecodingError("")
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > self._most_bytes:
                raise OversizedError(
                    f"{self._auth.host} answered with more than {self._most_bytes / 2**20:.0f} MB in one page, "
                    "unpacked; lower SESSIONS_PIPELINE_PAGE_SIZE, and check LANGSMITH_ENDPOINT"
                )
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
        said = self._auth.clean(str(error)) or type(error).__name__
        if isinstance(error, httpx.ConnectTimeout):
            return TimedOutError(f"{where} can't be reached in time; check LANGSMITH_ENDPOINT, {self._way}")
        if isinstance(error, httpx.TimeoutException):
            return TimedOutError(
                f"{where} did not answer in time; try again later or lower SESSIONS_PIPELINE_PAGE_SIZE"
            )
        if isinstance(error, httpx.DecodingError):
            return BadBodyError(f"{where} answered with a body that can't be unpacked; try again later")
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return UntrustedCertificateError(
                f"The certificate of {self._auth.host} is not trusted ({said}); "
                "set SSL_CERT_FILE to the file with your company's certificates"
            )
        if isinstance(error, httpx.ProxyError) and "407" in said:
            return RequestRefusedError(f"The proxy on the way to {where} refused ({said}); {PROXY_ADVICE}")
        if isinstance(error, httpx.ConnectError | httpx.ProxyError):
            return UnreachableError(f"{where} can't be reached ({said}); check LANGSMITH_ENDPOINT, {self._way}")
        return UnreachableError(f"{where} broke the connection ({said}); try again later")


def _shut_down(stream: Any) -> None:
    # A closed socket would let its reader wait on; one that is shut down wakes it.
    with suppress(OSError):
        stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


def _http_client(auth: Auth, most_connections: int, proxy: tuple[str, str] | None) -> httpx.Client:
    is_https = auth.base.startswith("https:")
    try:
        return httpx.Client(
            headers={
                **auth.headers,
                "User-Agent": f"sessions-pipeline/{__version__}",
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
            },
            limits=httpx.Limits(max_connections=most_connections, max_keepalive_connections=most_connections),
            follow_redirects=False,
            # What the environment says is read by `network`: httpx fails on entries of NO_PROXY that others pass over.
            trust_env=False,
            proxy=proxy and proxy[1],
            # Without TLS nobody needs certificates, and loading them takes 20 ms.
            verify=add_certificates(httpx.create_ssl_context(trust_env=False))
            if is_https
            else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        )
    except ImportError:
        raise SettingError(
            proxy[0] if proxy else "ALL_PROXY",
            "a SOCKS proxy needs the package socksio, which is not installed; install it, or set an HTTP proxy",
        ) from None
    except (ValueError, httpx.InvalidURL):
        raise SettingError(proxy[0] if proxy else "HTTPS_PROXY", "this proxy can't be used") from None
