"""Sends one GET request over HTTP: connections, timeouts, and an error for each way in which it can fail.

The only module that imports httpx. It uses httpx's transport only: no redirects, no cookies, nothing from the
environment. Errors never have an httpx exception as their cause or context, since it holds the request and so the key.
"""

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from typing import Any
from urllib.parse import urlencode
from weakref import WeakSet

import httpx

from sessions_pipeline import __version__, errors
from sessions_pipeline.langsmith import Parameters
from sessions_pipeline.langsmith.auth import Auth, add_certificates, proxy_for
from sessions_pipeline.langsmith.status_errors import PROXY_ADVICE, SMALLER_PAGES, status_error

HEADERS = {"User-Agent": f"sessions-pipeline/{__version__}", "Accept": "application/json", "Accept-Encoding": "gzip"}
CONNECT_SECONDS = 10.0
# The limit of each wait for bytes: computing the stats of a hundred large sessions takes the API tens of seconds.
READ_SECONDS = 60.0
# The limit of a whole answer: one that arrives byte by byte would never exceed the limit of a single read.
REQUEST_SECONDS = 180.0
# Of an uncompressed body: a hundred sessions of a megabyte each are more than was ever seen.
MOST_BYTES = 128 * 2**20
# The body of an error is only read for the reasons that it gives.
MOST_ERROR_BYTES = 65_536

# At debug level it logs the answers' headers, which may hold cookies, or the key if a server repeats it.
logging.getLogger("httpcore.http11").setLevel(logging.INFO)


class Transport:
    """Sends GET requests to one endpoint over at most `most_connections` kept-alive connections. Thread-safe."""

    def __init__(
        self,
        auth: Auth,
        *,
        most_connections: int,
        read_seconds: float = READ_SECONDS,
        most_bytes: int = MOST_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open no connection yet. `clock` returns seconds.

        Raises:
            SettingError: the environment's proxy or certificates can't be used.
        """
        self._auth = auth
        self._read_seconds = read_seconds
        self._most_bytes = most_bytes
        self._clock = clock
        self._headers = {**auth.headers, **HEADERS}
        self._current = threading.local()  # its `end`: when the answer that this thread waits for must be complete
        self._lock = threading.Lock()
        self._streams: WeakSet[Any] = WeakSet()
        self._interrupted = False
        proxy = proxy_for(auth)
        self._advice = f"check LANGSMITH_ENDPOINT, network{f' and {proxy[0]}' if proxy else ''}"
        self._http = _http_transport(auth, most_connections, proxy)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def interrupt(self) -> None:
        """End the waits of all threads that are reading, or about to read; their requests fail."""
        with self._lock:
            self._interrupted = True
            streams = list(self._streams)
        for stream in streams:
            _shut_down(stream)

    def get(
        self, path: str, parameters: Parameters, *, workspace: str | None, most_seconds: float
    ) -> tuple[Mapping[str, str], bytes]:
        """Send a GET request and return the answer's headers, with case-insensitive names, and its body.

        `most_seconds` limits the time for all of it.

        Raises:
            errors.ApiError: no connection, no complete answer in time, a body that can't be decompressed, or a status
                other than 2xx.
        """
        most_seconds = max(min(most_seconds, REQUEST_SECONDS), 0.001)
        read = min(self._read_seconds, most_seconds)
        self._current.end = self._clock() + most_seconds
        timeout = {"connect": min(CONNECT_SECONDS, read), "read": read, "write": read, "pool": read}
        try:
            request = httpx.Request(
                "GET",
                f"{self._auth.base}{path}?{urlencode(parameters)}",
                headers={**self._headers, "X-Tenant-Id": workspace} if workspace else self._headers,
                extensions={"timeout": timeout, "trace": self._note_stream},
            )
            with closing(self._http.handle_request(request)) as response:
                body = self._receive(response)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            problem = self._connection_error(error, f"{self._auth.host}{path}")
        else:
            if response.is_success:
                return response.headers, body
            problem = status_error(response.status_code, response.headers, body, path, parameters, self._auth)
        raise problem  # outside the except block, so that httpx's exception is not its context

    def _note_stream(self, event: str, info: Mapping[str, Any]) -> None:
        if event not in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            return
        stream = info["return_value"]
        read = stream.read
        stream.read = lambda most, timeout: read(most, self._remaining(timeout))
        with self._lock:
            self._streams.add(stream)
        if self._interrupted:
            _shut_down(stream)

    def _remaining(self, timeout: float) -> float:
        """The timeout of one read, in seconds, so that an answer that arrives byte by byte ends in time, too."""
        left: float = self._current.end - self._clock()
        if left <= 0:
            raise httpx.ReadTimeout("")
        return min(timeout, left)

    def _receive(self, response: httpx.Response) -> bytes:
        """The decompressed body; an error's may be cut after 64 kB."""
        if response.headers.get("content-encoding", "identity").lower() not in ("identity", "gzip", ""):
            raise httpx.DecodingError("")  # a body that is compressed twice could fill the memory at once
        most = self._most_bytes if response.is_success else MOST_ERROR_BYTES
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > most:
                break
        if response.is_success and len(body) > most:
            raise errors.RefusedError(f"{self._auth.host} sent more than {most >> 20} MB in one page; {SMALLER_PAGES}")
        return bytes(body)

    def _connection_error(self, error: Exception, where: str) -> errors.ApiError:
        reason = self._auth.clean(str(error)) or type(error).__name__
        kind: type[errors.ApiError] = errors.UnreachableError
        match error:
            case httpx.InvalidURL() | UnicodeError():  # an address is too long, or the name of its host is none
                kind = errors.RefusedError
                problem = f"can't be asked this ({reason}); check LANGSMITH_ENDPOINT, or shorten the query"
            case httpx.ConnectTimeout():
                kind, problem = errors.TimedOutError, f"can't be reached in time; {self._advice}"
            case httpx.TimeoutException():
                kind, problem = errors.TimedOutError, f"did not answer in time; try later or {SMALLER_PAGES}"
            case httpx.DecodingError():
                kind, problem = errors.BadBodyError, "answered with a body that can't be decompressed; try again later"
            case _ if "CERTIFICATE_VERIFY_FAILED" in str(error):
                kind, advice = errors.RefusedError, "set SSL_CERT_FILE to the file with your company's certificates"
                problem = f"has a certificate that is not trusted here ({reason}); {advice}"
            case httpx.ProxyError() if "407" in reason:
                kind, problem = errors.RefusedError, f"can't be reached: the proxy refused ({reason}); {PROXY_ADVICE}"
            case httpx.ConnectError() | httpx.ProxyError():
                problem = f"can't be reached ({reason}); {self._advice}"
            case _:
                problem = f"broke the connection ({reason}); try again later"
        return kind(f"{where} {problem}")


def _shut_down(stream: Any) -> None:
    # Shutting a socket down wakes its reader; closing it would leave the reader waiting.
    with suppress(OSError):
        stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


def _http_transport(auth: Auth, most_connections: int, proxy: tuple[str, str] | None) -> httpx.HTTPTransport:
    variable, address = proxy or ("HTTPS_PROXY", None)
    # Certificates are not loaded for plain HTTP, as that takes 20 ms.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if auth.base.startswith("https:"):
        context = add_certificates(httpx.create_ssl_context(trust_env=False))
    limits = httpx.Limits(max_connections=most_connections, max_keepalive_connections=most_connections)
    try:
        # `auth` reads the environment's proxies, because httpx fails on entries of NO_PROXY that other clients ignore.
        return httpx.HTTPTransport(verify=context, trust_env=False, limits=limits, proxy=address)
    except ImportError:
        raise errors.SettingError(variable, "needs the package socksio; install it, or set an HTTP proxy") from None
    except (ValueError, httpx.InvalidURL):
        raise errors.SettingError(variable, "this proxy can't be used") from None
