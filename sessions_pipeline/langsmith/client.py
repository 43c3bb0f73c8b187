"""The API's pages, with patience: what is transient is asked again, within the run's deadline.

Path, parameters and bodies are the API version's; which version that is, is decided once, at the first request.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import stamina

from sessions_pipeline.errors import ApiError, BadBodyError, RateLimitedError, ServerError
from sessions_pipeline.langsmith.auth import Access
from sessions_pipeline.langsmith.query import SessionsQuery
from sessions_pipeline.langsmith.rate_limit import Budget
from sessions_pipeline.langsmith.status_errors import failure, http_date
from sessions_pipeline.langsmith.throttle import Throttle
from sessions_pipeline.langsmith.transport import Reply, Transport
from sessions_pipeline.langsmith.versions import FIRST, SECOND, Answer, ApiVersion, decide
from sessions_pipeline.settings import Settings
from sessions_pipeline.validation.records import Record

# With waits of 0.5, 1, 2, 4, 5, 5, 5 seconds and jitter this outlasts a restart of the API.
ATTEMPTS = 8
# A server that never gave an answer is rather a wrong address than one in trouble.
ATTEMPTS_BEFORE_FIRST_ANSWER = 3

# By default stamina prints each retry on standard output wherever structlog is installed, as it is beside Dagster.
stamina.instrumentation.set_on_retry_hooks([])


class SessionsClient:
    """Reads pages of sessions; one for a run, shared by its threads. A context manager.

    `requests` counts the requests sent, `retries` those of them that repeated one; `warnings` says once what the API
    announces, such as its end, and which version was read if it was not the first. `version` is the API's version
    that is spoken.
    """

    def __init__(
        self,
        access: Access,
        throttle: Throttle,
        transport: Transport,
        *,
        version: ApiVersion = FIRST,
        may_move: bool = False,
    ) -> None:
        """`may_move`: the first request decides whether it is another version than `version`."""
        self.requests = 0
        self.retries = 0
        self.warnings: list[str] = []
        self._access = access
        self._throttle = throttle
        self._transport = transport
        self.version = version
        self._may_move = may_move
        self._deciding = threading.Lock()
        self._answered = False
        self._is_end_noted = False
        self._lock = threading.Lock()
        self._retry = stamina.RetryingCaller(
            attempts=ATTEMPTS, timeout=None, wait_initial=0.5, wait_max=5.0, wait_jitter=1.0
        )
        self.progress = lambda: f"{self.requests} requests"

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """A client for the settings' endpoint, whose deadline counts from now; sends nothing yet.

        Raises:
            SettingError: a setting is missing or can't be used; the text names it and never shows a secret.
        """
        access = Access.from_settings(settings)
        throttle = Throttle(
            settings.concurrency,
            deadline_seconds=settings.deadline_minutes * 60,
            budget=Budget.from_settings(settings),
        )
        transport = Transport(access, most_connections=settings.concurrency)
        version = SECOND if settings.api_version == SECOND.name else FIRST
        client = cls(access, throttle, transport, version=version, may_move=settings.api_version == "auto")
        if version is SECOND:
            client.warnings.append("Version 2 of the API is read, as SESSIONS_PIPELINE_API_VERSION says")
        return client

    def __repr__(self) -> str:
        return f"SessionsClient({self._access.base}{self.version.path})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

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
        (records, next_cursor), reply = self._get(version, version.parameters(query, cursor), workspace)
        total = reply.headers.get("x-pagination-total", "")
        return Answer(
            records,
            int(total) if total.isascii() and total.isdigit() else None,
            datetime.now(UTC),
            reply.size,
            http_date(reply.headers.get("date", "")),
            next_cursor,
            http_date(reply.headers.get("sunset", "")),
        )

    def _get(
        self, version: ApiVersion, parameters: Sequence[tuple[str, str]], workspace: str | None
    ) -> tuple[tuple[list[Record], str | None], Reply]:
        """A page's records and next cursor, and the reply that they came in; retried."""
        failures = 0

        def may_retry(error: Exception) -> bool:
            nonlocal failures
            failures += 1
            if not isinstance(error, ApiError) or not error.transient or self._throttle.is_closed:
                return False
            is_alive = self._answered or isinstance(error, RateLimitedError | ServerError)
            return is_alive or failures < ATTEMPTS_BEFORE_FIRST_ANSWER

        def attempt() -> tuple[tuple[list[Record], str | None], Reply]:
            with self._throttle.slot(workspace):
                reply = self._exchange(version.path, parameters, workspace, is_retry=failures > 0)
            return self._read(version, reply), reply

        return self._retry(may_retry, attempt)

    def _exchange(
        self, path: str, parameters: Sequence[tuple[str, str]], workspace: str | None, *, is_retry: bool
    ) -> Reply:
        with self._lock:
            self.requests += 1
            self.retries += is_retry
        seconds = self._throttle.remaining_seconds
        reply = self._transport.get(path, parameters, workspace=workspace, most_seconds=seconds)
        if not reply.is_success:
            raise failure(reply.status, reply.headers, reply.body, path=path, access=self._access)
        return reply

    def _read(self, version: ApiVersion, reply: Reply) -> tuple[list[Record], str | None]:
        try:
            page = version.read(reply.body)
        except ValueError:
            kind = self._access.clean(reply.headers.get("content-type", "no content type"))
            raise BadBodyError(
                f"{self._access.host}{version.path} answered with something else than {version.page} "
                f"({len(reply.body)} bytes of {kind}); try again, and check LANGSMITH_ENDPOINT if it stays"
            ) from None
        self._answered = True
        self._note_end(version, reply.headers)
        return page

    def _note_end(self, version: ApiVersion, headers: Mapping[str, str]) -> None:
        named = [f"{name}: {headers[name]}" for name in ("Deprecation", "Sunset") if name in headers]
        if not named:
            return
        with self._lock:
            if not self._is_end_noted:
                self._is_end_noted = True
                said = self._access.clean(", ".join(named))
                self.warnings.append(f"The API announces the end of {version.path} ({said}); look for a newer version")
