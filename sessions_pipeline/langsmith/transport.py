"""One exchange over HTTP: timeouts, connections, and every way in which it can break.

The only module that imports httpx, of which it uses the transport alone: no redirects, no cookies, nothing from the
environment. Errors never carry httpx's exceptions along, since those hold the request and with it the key.
"""

import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from typing import Any
from urllib.parse import urlencode
from weakref import WeakSet

import httpx

from sessions_pipeline import __version__, errors
from sessions_pipeline.langsmith.auth import Auth, add_certificates, proxy_for
from sessions_pipeline.langsmith.query import Parameters
from sessions_pipeline.langsmith.status_errors import PROXY_ADVICE, status_error

HEADERS = {"User-Agent": f"sessions-pipeline/{__version__}", "Accept": "application/json", "Accept-Encoding": "gzip"}
CONNECT_SECONDS = 10.0
# For each wait for bytes: stats of a hundred large sessions take the API tens of seconds.
READ_SECONDS = 60.0
# For the whole of an answer, since one that drips, byte by byte, never keeps a read waiting.
REQUEST_SECONDS = 180.0
# Of a body, unpacked: a hundred sessions of a megabyte each are beyond anything seen.
MOST_BYTES = 128 * 2**20
# An error's body is read for its reasons only.
MOST_ERROR_BYTES = 65_536


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
        """Open nothing yet; `clock` is in seconds.

        Raises:
            SettingError: the environment's proxy or certificates can't be used.
        """
        self._auth = auth
        self._read_seconds = read_seconds
        self._most_bytes = most_bytes
        self._clock = clock
        self._headers = {**auth.headers, **HEADERS}
        self._current = threading.local()  # `end`: when the answer that this thread waits for has to be complete
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
        """End the waits of threads that are reading, or about to; their requests fail."""
        with self._lock:
            self._interrupted = True
            streams = list(self._streams)
        for stream in streams:
            _shut_down(stream)

    def get(
        self, path: str, parameters: Parameters, *, workspace: str | None, most_seconds: float
    ) -> tuple[Mapping[str, str], bytes]:
        """One exchange: headers, which are looked up in any case, and body. `most_seconds` bounds the wait for all.

        Raises:
            errors.ApiError: no connection, no answer in time, one that broke or can't be unpacked, or its status is not
                2xx.
        """
        most_seconds = max(min(most_seconds, REQUEST_SECONDS), 0.001)
        read = min(self._read_seconds, most_seconds)
        self._current.end = self._clock() + most_seconds
        timeout = {"connect": min(CONNECT_SECONDS, read), "read": read, "write": read, "pool": read}
        request = httpx.Request(
            "GET",
            f"{self._auth.base}{path}?{urlencode(parameters)}",
            headers={**self._headers, "X-Tenant-Id": workspace} if workspace else self._headers,
            extensions={"timeout": timeout, "trace": self._note_stream},
        )
        try:
            with closing(self._http.handle_request(request)) as response:
                body = self._receive(response)
        except httpx.HTTPError as error:
            problem = self._broken(error, f"{self._auth.host}{path}")
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
        """What is left for one read. A server that drips bytes, of headers or of a body, never keeps one waiting."""
        left: float = self._current.end - self._clock()
        if left <= 0:
            raise httpx.ReadTimeout("")
        return min(timeout, left)

    def _receive(self, response: httpx.Response) -> bytes:
        """The body, unpacked in one piece, for which httpx would take three; an error's may be cut after 64 kB."""
        most = self._most_bytes if response.is_success else MOST_ERROR_BYTES
        chunks, received = list[bytes](), 0
        for chunk in response.iter_raw():
            chunks.append(chunk)
            received += len(chunk)
            if received > most:
                break
        encoding = response.headers.get("content-encoding", "identity").lower()
        if encoding not in ("identity", "gzip", ""):
            raise httpx.DecodingError("")
        body = b"".join(chunks)
        if encoding == "gzip":
            gzip = zlib.decompressobj(wbits=zlib.MAX_WBITS + 16)
            try:
                body = gzip.decompress(body, most + 1)
            except zlib.error:
                raise httpx.DecodingError("") from None
            if response.is_success and not gzip.eof and len(body) <= most:
                raise httpx.DecodingError("")
        if response.is_success and len(body) > most:
            size, advice = most / 2**20, "lower SESSIONS_PIPELINE_PAGE_SIZE"
            raise errors.RefusedError(f"{self._auth.host} gave more than {size:.0f} MB in one page; {advice}")
        return body

    def _broken(self, error: httpx.HTTPError, where: str) -> errors.ApiError:
        said = self._auth.clean(str(error)) or type(error).__name__
        kind: type[errors.ApiError] = errors.UnreachableError
        match error:
            case httpx.ConnectTimeout():
                kind, says = errors.TimedOutError, f"can't be reached in time; {self._advice}"
            case httpx.TimeoutException():
                kind, advice = errors.TimedOutError, "try later or lower SESSIONS_PIPELINE_PAGE_SIZE"
                says = f"did not answer in time; {advice}"
            case httpx.DecodingError():
                kind, says = errors.BadBodyError, "answered with a body that can't be unpacked; try again later"
            case _ if "CERTIFICATE_VERIFY_FAILED" in str(error):
                kind, advice = errors.RefusedError, "set SSL_CERT_FILE to the file with your company's certificates"
                says = f"has a certificate that is not trusted here ({said}); {advice}"
            case httpx.ProxyError() if "407" in said:
                kind, says = errors.RefusedError, f"can't be reached: the proxy refused ({said}); {PROXY_ADVICE}"
            case httpx.ConnectError() | httpx.ProxyError():
                says = f"can't be reached ({said}); {self._advice}"
            case _:
                says = f"broke the connection ({said}); try again later"
        return kind(f"{where} {says}")


def _shut_down(stream: Any) -> None:
    # A closed socket would let its reader wait on; one that is shut down wakes it.
    with suppress(OSError):
        stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


def _http_transport(auth: Auth, most_connections: int, proxy: tuple[str, str] | None) -> httpx.HTTPTransport:
    variable, address = proxy or ("HTTPS_PROXY", None)
    # Without TLS nobody needs certificates, and loading them takes 20 ms.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if auth.base.startswith("https:"):
        context = add_certificates(httpx.create_ssl_context(trust_env=False))
    limits = httpx.Limits(max_connections=most_connections, max_keepalive_connections=most_connections)
    try:
        # What the environment says is read by `auth`: httpx fails on entries of NO_PROXY that others pass over.
        return httpx.HTTPTransport(verify=context, trust_env=False, limits=limits, proxy=address)
    except ImportError:
        raise errors.SettingError(variable, "needs the package socksio; install it, or set an HTTP proxy") from None
    except (ValueError, httpx.InvalidURL):
        raise errors.SettingError(variable, "this proxy can't be used") from None
