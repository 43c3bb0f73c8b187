"""The API's pages, with patience: what is transient is asked again, within the run's deadline.

Path, parameters and bodies are the API version's; which version that is, is decided once, at the first request.
"""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Self

import stamina

from sessions_pipeline.errors import ApiError, BadBodyError, RateLimitedError, ServerError
from sessions_pipeline.langsmith.auth import Auth
from sessions_pipeline.langsmith.query import SessionsQuery
from sessions_pipeline.langsmith.rate_limit import RateLimiter
from sessions_pipeline.langsmith.redaction import Path, parse_paths, redact
from sessions_pipeline.langsmith.status_errors import http_date, status_error
from sessions_pipeline.langsmith.throttle import WINDOW_SECONDS, Throttle
from sessions_pipeline.langsmith.transport import Reply, Transport
from sessions_pipeline.langsmith.versions import FIRST, SECOND, Answer, ApiVersion, Endpoint, decide
from sessions_pipeline.settings import Settings
from sessions_pipeline.validation.records import Record

# With waits of 0.5, 1, 2, 4, 5, 5, 5 seconds and jitter this outlasts a restart of the API.
ATTEMPTS = 8
# A server that never gave an answer is rather a wrong address than one in trouble.
ATTEMPTS_BEFORE_FIRST_ANSWER = 3
# Between two attempts, with jitter: who has less time left than this does not begin to wait.
LONGEST_WAIT_SECONDS = 6.0
# The list's length; a number of more digits is none.
TOTAL = re.compile(r"[0-9]{1,15}")

# By default stamina prints each retry on standard output wherever structlog is installed.
stamina.instrumentation.set_on_retry_hooks([])


def now() -> datetime:
    """The current time, UTC."""
    return datetime.now(UTC)


class SessionsClient:
    """Reads pages; one for a run, shared by its threads. A context manager.

    `requests` counts the requests sent, `retries` those of them that repeated one; `warnings` says once what the API
    announces, such as its end, and which version was read if it was not the first. `version` is the API's version
    that is spoken.
    """

    def __init__(
        self,
        auth: Auth,
        throttle: Throttle,
        transport: Transport,
        *,
        version: ApiVersion = FIRST,
        may_move: bool = False,
        private: Sequence[Path] = (),
        clock: Callable[[], datetime] = now,
    ) -> None:
        """`may_move`: the first request decides whether it is another version than `version`.

        What `private` names is taken out of every record as soon as it arrives; `clock` tells this machine's time, UTC.
        """
        self.requests = 0
        self.retries = 0
        self.warnings: list[str] = []
        self._auth = auth
        self._private = private
        self.clock = clock
        self._throttle = throttle
        self._transport = transport
        self.version = version
        self._may_move = may_move
        self._deciding = threading.Lock()
        self._answered = False
        self._ends_noted: set[str] = set()
        self._lock = threading.Lock()
        self._retry = stamina.RetryingCaller(
            attempts=ATTEMPTS, timeout=None, wait_initial=0.5, wait_max=5.0, wait_jitter=1.0
        )
        self.progress = lambda: f"{self.requests} requests"

    @classmethod
    def from_settings(
        cls, settings: Settings, *, clock: Callable[[], datetime] = now, window_seconds: float = WINDOW_SECONDS
    ) -> Self:
        """A client for the settings' endpoint, whose deadline counts from now; sends nothing yet.

        `window_seconds`: in which the API counts requests.

        Raises:
            SettingError: a setting is missing or can't be used; the text names it and never shows a secret.
        """
        auth = Auth.from_settings(settings)
        seconds, limiter = settings.deadline_minutes * 60, RateLimiter.from_settings(settings)
        throttle = Throttle(
            settings.concurrency, deadline_seconds=seconds, limiter=limiter, window_seconds=window_seconds
        )
        transport = Transport(auth, most_connections=settings.concurrency)
        version = SECOND if settings.api_version == SECOND.name else FIRST
        private, may_move = parse_paths(settings.redact), settings.api_version == "auto"
        client = cls(auth, throttle, transport, version=version, may_move=may_move, private=private, clock=clock)
        if version is SECOND:
            client.warn("Version 2 of the API is read, as SESSIONS_PIPELINE_API_VERSION says")
        return client

    def __repr__(self) -> str:
        return f"SessionsClient({self._auth.base}{self.version.path})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warn(self, text: str) -> None:
        """Add to the warnings what is not among them."""
        with self._lock:
            if text not in self.warnings:
                self.warnings.append(text)

    def end_within(self, seconds: float) -> None:
        """Let no request go on, or begin, later than so many seconds from now."""
        self._throttle.end_within(seconds)

    def stop(self) -> None:
        """Wake and stop whoever waits for a slot or an answer; the requests of other threads fail."""
        self._throttle.close()
        self._transport.interrupt()

    def close(self) -> None:
        """Stop, and close the connections."""
        self.stop()
        self._transport.close()

    @property
    def bytes_received(self) -> int:
        """Bytes of all answers' bodies on the wire, errors included."""
        return self._transport.bytes_received

    @property
    def progress(self) -> Callable[[], str]:
        """Says how far the run came, such as "12 of 30 days"; it ends up in the error at the deadline."""
        return self._throttle.progress

    @progress.setter
    def progress(self, value: Callable[[], str]) -> None:
        self._throttle.progress = value

    def fetch(self, query: SessionsQuery, *, workspace: str | None = None, cursor: str | None = None) -> Answer:
        """One page of sessions, of `workspace` or of the one that the key belongs to. Thread-safe.

        `cursor` is the `next_cursor` of the page before, where the version has cursors.

        Raises:
            ApiError: no usable answer, after retries where they could help; the subclass says what kind.
            UsageError: the version does not have what the query asks for.
        """
        if self._may_move:
            with self._deciding:
                if self._may_move:
                    return self._decide(query, workspace)
        return self._page(self.version, query, workspace, cursor)

    def _decide(self, query: SessionsQuery, workspace: str | None) -> Answer:
        self.version, answer, said = decide(lambda version: self._page(version, query, workspace, None))
        self._may_move = False
        if said:
            self.warnings[:] = [said]
        return answer

    def _page(self, version: ApiVersion, query: SessionsQuery, workspace: str | None, cursor: str | None) -> Answer:
        return self.answer(version, version.parameters(query, cursor), workspace)

    def answer(self, endpoint: Endpoint, parameters: Sequence[tuple[str, str]], workspace: str | None) -> Answer:
        """One page of an endpoint's list, without what is private. Thread-safe.

        Raises:
            ApiError: no usable answer, after retries where they could help; the subclass says what kind.
        """
        (records, next_cursor), reply, asked_at = self._get(endpoint, parameters, workspace)
        total = reply.headers.get("x-pagination-total", "")
        return Answer(
            [redact(record, self._private) for record in records] if self._private else records,
            int(total) if TOTAL.fullmatch(total) else None,
            asked_at,
            self.clock(),
            reply.size,
            http_date(reply.headers.get("date", "")),
            next_cursor,
            http_date(reply.headers.get("sunset", "")),
        )

    def _get(
        self, endpoint: Endpoint, parameters: Sequence[tuple[str, str]], workspace: str | None
    ) -> tuple[tuple[list[Record], str | None], Reply, datetime]:
        """A page's records and next cursor, the reply that they came in, and when it was asked for; retried."""
        failures = 0

        def may_retry(error: Exception) -> bool:
            nonlocal failures
            failures += 1
            if not isinstance(error, ApiError) or not error.transient or self._throttle.is_closed:
                return False
            if self._throttle.remaining_seconds < LONGEST_WAIT_SECONDS:
                return False
            is_alive = self._answered or isinstance(error, RateLimitedError | ServerError)
            return is_alive or failures < ATTEMPTS_BEFORE_FIRST_ANSWER

        def attempt() -> tuple[tuple[list[Record], str | None], Reply, datetime]:
            with self._throttle.slot(workspace):
                asked_at = self.clock()
                reply = self._exchange(endpoint.path, parameters, workspace, is_retry=failures > 0)
            return self._read(endpoint, reply), reply, asked_at

        try:
            return self._retry(may_retry, attempt)
        except ApiError as error:
            if not error.transient or self._throttle.remaining_seconds >= LONGEST_WAIT_SECONDS:
                raise
        raise self._throttle.too_late("leaves no time to ask again")

    def _exchange(
        self, path: str, parameters: Sequence[tuple[str, str]], workspace: str | None, *, is_retry: bool
    ) -> Reply:
        with self._lock:
            self.requests += 1
            self.retries += is_retry
        seconds = self._throttle.remaining_seconds
        reply = self._transport.get(path, parameters, workspace=workspace, most_seconds=seconds)
        if not reply.is_success:
            raise status_error(reply.status, reply.headers, reply.body, path=path, auth=self._auth)
        return reply

    def _read(self, endpoint: Endpoint, reply: Reply) -> tuple[list[Record], str | None]:
        try:
            page = endpoint.read(reply.body)
        except ValueError:
            kind = self._auth.clean(reply.headers.get("content-type", "no content type"))
            raise BadBodyError(
                f"{self._auth.host}{endpoint.path} answered with something else than {endpoint.page} "
                f"({len(reply.body)} bytes of {kind}); try again, and check LANGSMITH_ENDPOINT if it stays"
            ) from None
        self._answered = True
        self._note_end(endpoint, reply.headers)
        return page

    def _note_end(self, endpoint: Endpoint, headers: Mapping[str, str]) -> None:
        named = [f"{name}: {headers[name]}" for name in ("Deprecation", "Sunset") if name in headers]
        if named and endpoint.path not in self._ends_noted:
            self._ends_noted.add(endpoint.path)
            said = self._auth.clean(", ".join(named))
            self.warn(f"The API announces the end of {endpoint.path} ({said}); look for a newer version")
