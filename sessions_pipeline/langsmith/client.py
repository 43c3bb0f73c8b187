"""One request to the API, with patience: authentication, timeouts, typed errors and retries.

The only module that imports httpx. Errors never carry httpx's exceptions along, since those hold the request and
with it the key. Another way of paging needs a path, parameters and a reader of bodies: see `SessionsClient._get`.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

import httpx
import stamina

from sessions_pipeline import __version__
from sessions_pipeline.errors import (
    ApiError,
    BadBodyError,
    RateLimitedError,
    ServerError,
    SettingError,
    TimedOutError,
    UnreachableError,
)
from sessions_pipeline.langsmith.access import Access
from sessions_pipeline.langsmith.failures import failure, http_date
from sessions_pipeline.langsmith.throttle import Throttle
from sessions_pipeline.schema.query import SessionsQuery
from sessions_pipeline.schema.records import Record, read_page
from sessions_pipeline.settings import Settings

CONNECT_SECONDS = 10.0
# Stats of a hundred large sessions take the API tens of seconds.
READ_SECONDS = 60.0
# With waits of 0.5, 1, 2, 4, 5, 5, 5 seconds and jitter this outlasts a restart of the API.
ATTEMPTS = 8
# A server that never gave an answer is rather a wrong address than one in trouble.
ATTEMPTS_BEFORE_FIRST_ANSWER = 3
# An error's body is read for its reasons only.
MOST_ERROR_BYTES = 65_536

T = TypeVar("T")

# By default stamina prints each retry on standard output wherever structlog is installed, as Dagster does.
stamina.instrumentation.set_on_retry_hooks([])


@dataclass(frozen=True, slots=True)
class Answer:
    """One page.

    `total` is what `X-Pagination-Total` says, None where it is absent; `received_at` is this machine's UTC time when
    the body was complete, `server_time` the server's, where it tells; `size` counts the bytes on the wire.
    """

    records: list[Record]
    total: int | None
    received_at: datetime
    size: int
    server_time: datetime | None


class _Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes
    size: int


class SessionsClient:
    """Reads pages of sessions; one for a run, shared by its threads. A context manager.

    `requests` counts the requests sent, `retries` those of them that repeated one, `bytes_received` bytes on the wire;
    `warnings` says once what the API announces, such as its end. Set `progress` to a function that says how far the
    run came, for the error at the deadline, which counts from this object's creation.
    """

    def __init__(
        self, access: Access, throttle: Throttle, *, most_connections: int, path: str, read_seconds: float
    ) -> None:
        self.requests = 0
        self.retries = 0
        self.bytes_received = 0
        self.warnings: list[str] = []
        self._access = access
        self._throttle = throttle
        self._path = path
        self._read_seconds = read_seconds
        self._answered = False
        self._lock = threading.Lock()
        self._retry = stamina.RetryingCaller(
            attempts=ATTEMPTS, timeout=None, wait_initial=0.5, wait_max=5.0, wait_jitter=1.0
        )
        self._http = _http_client(access, most_connections)
        throttle.progress = lambda: f"{self.requests} requests"

    @classmethod
    def from_settings(
        cls, settings: Settings, *, api_version: str = "v1", read_seconds: float = READ_SECONDS
    ) -> "SessionsClient":
        """A client for the settings' endpoint; sends nothing yet.

        Raises:
            SettingError: a setting is missing or can't be used; the text names it and never shows a secret.
        """
        throttle = Throttle(settings.concurrency, deadline_seconds=settings.deadline_minutes * 60)
        return cls(
            Access.from_settings(settings),
            throttle,
            most_connections=settings.concurrency,
            path=f"/api/{api_version}/sessions",
            read_seconds=read_seconds,
        )

    def __repr__(self) -> str:
        return f"SessionsClient({self._access.base}{self._path})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wake and stop whoever waits for a slot, and close the connections."""
        self._throttle.close()
        self._http.close()

    @property
    def progress(self) -> Callable[[], str]:
        """Says how far the run came, such as "12 of 30 days"."""
        return self._throttle.progress

    @progress.setter
    def progress(self, value: Callable[[], str]) -> None:
        self._throttle.progress = value

    def fetch(self, query: SessionsQuery, *, workspace: str | None = None) -> Answer:
        """One page of sessions, of `workspace` or of the one that the key belongs to. Thread-safe.

        Raises:
            ApiError: no usable answer, after retries where they could help; the subclass says what kind.
        """
        records, reply = self._get(self._path, query.to_parameters(), workspace, read_page)
        total = reply.headers.get("x-pagination-total", "")
        return Answer(
            records,
            int(total) if total.isascii() and total.isdigit() else None,
            datetime.now(UTC),
            reply.size,
            http_date(reply.headers.get("date", "")),
        )

    def _get(
        self, path: str, parameters: Sequence[tuple[str, str]], workspace: str | None, read: Callable[[bytes], T]
    ) -> tuple[T, _Reply]:
        """What `read` makes of the body (ValueError: not the API's), retried, and the reply that it came in."""
        request = self._http.build_request(
            "GET",
            f"{self._access.base}{path}",
            params=httpx.QueryParams(list(parameters)),
            headers={"X-Tenant-Id": workspace} if workspace else None,
        )
        failures = 0

        def may_retry(error: Exception) -> bool:
            nonlocal failures
            failures += 1
            if not isinstance(error, ApiError) or not error.transient or self._throttle.is_closed:
                return False
            is_alive = self._answered or isinstance(error, RateLimitedError | ServerError)
            return is_alive or failures < ATTEMPTS_BEFORE_FIRST_ANSWER

        def attempt() -> tuple[T, _Reply]:
            with self._throttle.slot():
                reply = self._send(request, is_retry=failures > 0)
                if not 200 <= reply.status < 300:  # noqa: PLR2004 - HTTP's successes
                    raise failure(reply.status, reply.headers, reply.body, path=path, access=self._access)
            return self._read(read, reply), reply

        return self._retry(may_retry, attempt)

    def _read(self, read: Callable[[bytes], T], reply: _Reply) -> T:
        problem: str
        try:
            value = read(reply.body)
        except ValueError:
            kind = self._access.clean(reply.headers.get("content-type", "no content type"))
            problem = f"{len(reply.body)} bytes of {kind}"
        else:
            self._answered = True
            self._note_warnings(reply.headers)
            return value
        raise BadBodyError(
            f"{self._where} answered with something else than a complete JSON array ({problem}); "
            "try again, and check LANGSMITH_ENDPOINT if it stays"
        )

    def _send(self, request: httpx.Request, *, is_retry: bool) -> _Reply:
        """One exchange; the response's body is whole, or the first part of an error's."""
        with self._lock:
            self.requests += 1
            self.retries += is_retry
        read_seconds = min(self._read_seconds, max(self._throttle.remaining_seconds, 0.001))
        request.extensions["timeout"] = httpx.Timeout(
            read_seconds, connect=min(CONNECT_SECONDS, read_seconds), pool=READ_SECONDS
        ).as_dict()
        try:
            response = self._http.send(request, stream=True)
            try:
                return self._receive(response)
            finally:
                response.close()
        except httpx.HTTPError as error:
            problem = self._broken(error)
        self._throttle.check_deadline()
        raise problem  # outside the except block, so that httpx's exception is not its context

    def _receive(self, response: httpx.Response) -> _Reply:
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            # A server that drips bytes never runs into the read timeout.
            self._throttle.check_deadline()
            if not response.is_success and len(body) > MOST_ERROR_BYTES:
                break
        size = response.num_bytes_downloaded
        with self._lock:
            self.bytes_received += size
        return _Reply(response.status_code, response.headers, bytes(body), size)

    def _broken(self, error: httpx.HTTPError) -> ApiError:
        said = self._access.clean(str(error)) or type(error).__name__
        if isinstance(error, httpx.ConnectTimeout):
            return TimedOutError(f"{self._where} can't be reached in time; check LANGSMITH_ENDPOINT, network and proxy")
        if isinstance(error, httpx.TimeoutException):
            return TimedOutError(
                f"{self._where} did not answer in time; try again later or lower SESSIONS_PIPELINE_PAGE_SIZE"
            )
        if isinstance(error, httpx.DecodingError):
            return BadBodyError(f"{self._where} answered with a body that can't be unpacked; try again later")
        if isinstance(error, httpx.ConnectError | httpx.ProxyError):
            return UnreachableError(
                f"{self._where} can't be reached ({said}); check LANGSMITH_ENDPOINT, network and proxy"
            )
        return UnreachableError(f"{self._where} broke the connection ({said}); try again later")

    @property
    def _where(self) -> str:
        return f"{self._access.host}{self._path}"

    def _note_warnings(self, headers: Mapping[str, str]) -> None:
        named = [f"{name}: {headers[name]}" for name in ("Deprecation", "Sunset") if name in headers]
        if not named:
            return
        with self._lock:
            if not self.warnings:
                said = self._access.clean(", ".join(named))
                self.warnings.append(f"The API announces the end of {self._path} ({said}); look for a newer version")


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
