"""Fetches pages of the API and retries transient errors within the run's deadline.

The API version determines paths, parameters and bodies. It is chosen once, at the first request.
"""

import re
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count
from typing import Self

import stamina

from sessions_pipeline.days import now
from sessions_pipeline.errors import BadBodyError, RateLimitedError, ServerError, TransientError
from sessions_pipeline.langsmith import Parameters, SessionsQuery
from sessions_pipeline.langsmith.api_versions import V1, V2, VERSIONS, Endpoint, choose_version
from sessions_pipeline.langsmith.auth import Auth
from sessions_pipeline.langsmith.page import Page
from sessions_pipeline.langsmith.redaction import parse_paths, redact
from sessions_pipeline.langsmith.throttle import Throttle, acquire_for
from sessions_pipeline.langsmith.transport import Transport
from sessions_pipeline.settings import Settings

# With waits of 0.5, 1, 2, 4, 5, 5, 5 seconds and jitter, this outlasts a restart of the API.
ATTEMPTS = 8
# A server that has never answered is more likely a wrong address than a server in trouble.
ATTEMPTS_BEFORE_FIRST_ANSWER = 3
# The longest wait between two attempts, with jitter. If less time is left before the deadline, there is no retry.
LONGEST_WAIT_SECONDS = 6.0
# The warning about `Deprecation` and `Sunset` headers, by which notifications find it among all warnings of a run.
ANNOUNCED_END = re.compile(r"The API announces the end of \S+ \((.*?)\); look for a newer version")
# Stands for the workspace's id in metadata and warnings if the settings name no workspace, and the key determines it.
OWN_WORKSPACE = "the key's own"
CLOCK_TOLERANCE = timedelta(seconds=60)  # makes no difference to timestamps or daily partitions

# By default stamina prints each retry on standard output if structlog is installed.
stamina.instrumentation.set_on_retry_hooks([])


class SessionsClient:
    """Fetches pages. A run has one client, which its threads share. A context manager.

    `requests` counts the requests sent, retries included. `warnings` holds each warning once, such as the API's
    announced end, or the version used if it is not the first. `api_version` is None until the first request has chosen
    it. `throttle` has the run's deadline and progress. `clock` returns this machine's time, UTC, and `ahead` is how far
    it was ahead of the API's at the latest answer with a time; 0 if the two differ by at most `CLOCK_TOLERANCE`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], datetime] = now,
        throttle: Throttle | None = None,
        transport: Transport | None = None,
    ) -> None:
        """Create a client for the endpoint in the settings; its deadline counts from now. Sends nothing yet.

        `throttle` and `transport` are those of the settings, unless a test gives others.

        Raises:
            SettingError: a setting is missing or can't be used; the text names it and never shows a secret.
        """
        self._auth = Auth(settings)
        self._private = parse_paths(settings.redact)
        self.throttle = throttle or Throttle(
            settings.concurrency, deadline_seconds=settings.deadline_minutes * 60, acquire=acquire_for(settings)
        )
        self.throttle.progress = lambda: f"{self.requests} request{'' if self.requests == 1 else 's'}"
        self._transport = transport or Transport(self._auth, most_connections=settings.concurrency)
        self.api_version = VERSIONS.get(settings.api_version)
        self.clock = clock
        self.requests = 0
        self.warnings: list[str] = []
        self._has_answered = False
        self.ahead = timedelta(0)
        self._version_lock = threading.Lock()
        self._lock = threading.Lock()
        self._retry = stamina.RetryingCaller(
            attempts=ATTEMPTS, timeout=None, wait_initial=0.5, wait_max=5.0, wait_jitter=1.0
        )
        if self.api_version is V2:
            self.warn("Version 2 of the API is read, as SESSIONS_PIPELINE_API_VERSION says")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._transport.close()

    def stop(self) -> None:
        """End the waits of all threads for slots and answers; their requests fail."""
        self.throttle.close()
        self._transport.interrupt()

    def warn(self, text: str) -> None:
        """Add a warning, unless it is already there."""
        with self._lock:
            if text not in self.warnings:
                self.warnings.append(text)

    def now(self, at: datetime | None = None) -> datetime:
        """The current time, or a time `at` of this machine's clock; by the API's clock if the two differ too much.

        The latest answer that has a time says how much they differ; there is a warning. Until then, that is unknown.
        """
        if ahead := self.ahead:
            # In minutes, because answers differ by seconds, and each text is a warning of its own.
            self.warn(f"The clock here is {ahead.total_seconds() / 60:+.0f} min off. The API's is used; set it right")
        return (at or self.clock()) - ahead

    def fetch(
        self,
        query: SessionsQuery,
        *,
        workspace: str | None = None,
        cursor: str | None = None,
        endpoint: Endpoint | None = None,
    ) -> Page:
        """Fetch one page of sessions, or of another `endpoint`'s list. Thread-safe.

        `workspace` None means the one that the key belongs to. `cursor` is the `next_cursor` of the page before, if the
        version has cursors.

        Raises:
            ApiError: no usable answer, after retries where they could help; the subclass says why.
            UsageError: the API version does not support what the query asks for.
        """
        if self.api_version is None and endpoint is None:
            with self._version_lock:
                if self.api_version is None:
                    self.api_version, page, warning = choose_version(
                        lambda version: self.fetch(query, workspace=workspace, cursor=cursor, endpoint=version)
                    )
                    # If version 1 was given up, its own warnings no longer matter.
                    self.warnings[:] = [warning] if warning else self.warnings
                    return page
        endpoint, failures = endpoint or self.api_version or V1, count(1)
        pairs = endpoint.parameters(query, cursor)
        return self._retry(
            lambda error: self._may_retry(error, next(failures)), self._attempt, endpoint, pairs, workspace
        )

    def _may_retry(self, error: Exception, failures: int) -> bool:
        if not isinstance(error, TransientError) or self.throttle.is_closed:
            return False
        if self.throttle.remaining_seconds < LONGEST_WAIT_SECONDS:
            raise self.throttle.too_late("leaves no time to retry")
        is_alive = self._has_answered or isinstance(error, RateLimitedError | ServerError)
        return is_alive or failures < ATTEMPTS_BEFORE_FIRST_ANSWER

    def _attempt(self, endpoint: Endpoint, parameters: Parameters, workspace: str | None) -> Page:
        with self.throttle.slot(workspace):
            with self._lock:
                self.requests += 1
            seconds, began = self.throttle.remaining_seconds, self.clock()
            headers, body = self._transport.get(endpoint.path, parameters, workspace=workspace, most_seconds=seconds)
        try:
            records, next_cursor = endpoint.read(body)
        except (ValueError, RecursionError):
            kind = self._auth.clean(headers.get("content-type", "no content type"))
            raise BadBodyError(
                f"{self._auth.host}{endpoint.path} answered with something other than a complete JSON page "
                f"({len(body)} bytes of {kind}); try again, and check LANGSMITH_ENDPOINT if this persists"
            ) from None
        self._has_answered = True
        if ends := [f"{name}: {headers[name]}" for name in ("Deprecation", "Sunset") if name in headers]:
            announced = self._auth.clean(", ".join(ends))
            self.warn(f"The API announces the end of {endpoint.path} ({announced}); look for a newer version")
        redacted = [redact(record, self._private) for record in records] if self._private else records
        page = Page(redacted, next_cursor, headers)
        ahead = began - (page.server_time or began - self.ahead)
        self.ahead = ahead if max(ahead, began - ahead - self.clock()) > CLOCK_TOLERANCE else timedelta(0)
        return page
