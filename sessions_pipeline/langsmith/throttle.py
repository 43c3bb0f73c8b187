"""How many requests may be in flight, and when nobody may ask: shared by all workers of a run; and all runs' budget.

A budget of requests a minute for one workspace is counted in a store that all runs share: before a request is sent, in
one step of the store, and it is not sent while its window is full. So the sum over all processes can't exceed the
budget, whoever they are: runs on other machines, sensors, the command line. There is nothing to divide among runs, and
a run that is alone has the whole budget.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sessions_pipeline.errors import (
    ApiError,
    DeadlineExceededError,
    RateLimitedError,
    ServerError,
    SettingError,
    TimedOutError,
)
from sessions_pipeline.settings import Settings

DEADLINE = "SESSIONS_PIPELINE_DEADLINE_MINUTES"
# The API counts requests in windows of this length.
WINDOW_SECONDS = 60.0
# A window that should be over, yet answers 429: the clocks differ by a little.
SHORTEST_PAUSE_SECONDS = 1.0


class Throttle:
    """Slots for requests in flight, fewer while the server is overloaded, none while it asked everyone to wait.

    A sign of overload (429, 5xx, timeout) halves the slots, once for all the requests that were in flight together;
    as many successes as there are slots bring one back. Thread-safe; `close` wakes and refuses whoever waits.
    """

    def __init__(
        self,
        most: int,
        *,
        deadline_seconds: float,
        acquire: Callable[[str | None], float] = lambda _workspace: 0.0,
        window_seconds: float = WINDOW_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Condition, float | None], object] = threading.Condition.wait,
    ) -> None:
        """At most `most` slots, none later than `deadline_seconds` from now.

        Before each request `acquire` is asked for a place: 0 where there is one, else the seconds after which to try
        again (see `RateLimiter`). A 429 without Retry-After lasts until the window of `window_seconds` ends; `clock` is
        in seconds.
        """
        self.progress: Callable[[], str] = str
        self._most = most
        self._acquire = acquire
        self._clock = clock
        self._wait = wait
        self._deadline_name = f"The run's deadline of {deadline_seconds / 60:g} minutes ({DEADLINE})"
        self._advice = "days already written stay, run the others again"
        self._deadline = clock() + deadline_seconds
        self._changed = threading.Condition()
        self._slots = float(most)
        self._in_flight = 0
        self._cuts = 0
        self._paused_until = 0.0
        self._window_seconds = window_seconds
        self._window_start = -window_seconds
        self.is_closed = False

    @property
    def slots(self) -> int:
        """How many requests may be in flight now, 1 or more."""
        return int(self._slots)

    @property
    def remaining_seconds(self) -> float:
        """Until the deadline; negative after it."""
        return self._deadline - self._clock()

    def end_within(self, seconds: float) -> None:
        """Bring the deadline nearer: this many seconds from now, where it is later."""
        with self._changed:
            end = self._clock() + seconds
            if end < self._deadline:
                self._deadline = end
                self._deadline_name = f"The {seconds:g} seconds that this may take"
                self._advice = "look again later"

    def close(self) -> None:
        """Let nobody in any more."""
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()

    @contextmanager
    def slot(self, workspace: str | None = None) -> Iterator[None]:
        """Wait for a slot to ask `workspace`, and hold it; learns from the error that the body ends with, if any.

        Raises:
            DeadlineExceededError: the deadline has passed, or will before the server wants to be asked again.
            ApiError: the throttle was closed.
        """
        cuts = self._enter(workspace)
        try:
            yield
        except (RateLimitedError, ServerError, TimedOutError) as error:
            self._slow_down(error, cuts)
            raise
        else:
            with self._changed:
                self._slots = min(float(self._most), self._slots + 1 / self._slots)
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()

    def _enter(self, workspace: str | None) -> int:
        with self._changed:
            while True:
                if self.is_closed:
                    raise ApiError("The reading was stopped before it was complete; run it again")
                now = self._clock()
                if now >= self._deadline:
                    raise self.too_late("has passed")
                if self._paused_until > self._deadline:
                    raise self.too_late("would pass before the API answers again, as it limits the rate of requests")
                if self._paused_until > now:
                    self._wait(self._changed, self._paused_until - now)
                elif self._in_flight >= self.slots:
                    self._wait(self._changed, self._deadline - now)
                elif (pause := self._acquire(workspace)) > 0:
                    self._wait(self._changed, min(pause, self._deadline - now))
                else:
                    break
            self._in_flight += 1
            if now >= self._window_start + self._window_seconds:
                self._window_start = now
            return self._cuts

    def _slow_down(self, error: ApiError, cuts: int) -> None:
        with self._changed:
            if cuts == self._cuts:
                self._cuts += 1
                self._slots = max(1.0, self._slots / 2)
            until = self._clock() + (error.retry_after or 0.0)
            if error.retry_after is None and isinstance(error, RateLimitedError):
                until = max(self._window_start + self._window_seconds, until + SHORTEST_PAUSE_SECONDS)
            self._paused_until = max(self._paused_until, until)

    def too_late(self, what: str) -> DeadlineExceededError:
        """The error that says so, and how far the run came."""
        reached = self.progress()
        return DeadlineExceededError(
            f"{self._deadline_name} {what}{f', after {reached}' if reached else ''}; {self._advice}"
        )


# The budget of a minute, given out in eighths so that it does not come as one burst. Eight windows are 64 seconds:
# one request may be on its way for 4 s longer than another, and still no 60 s of the server's see more than the budget.
WINDOWS = 8
BUDGET_SECONDS = 8
# Many may wait for the same place: who finds it taken looks again after this, at the earliest.
SHORTEST_WAIT_SECONDS = 0.02
STORE_PATIENCE_SECONDS = 5
THIS_PROCESS = "memory://"
STORE = "SESSIONS_PIPELINE_RATE_STORE"


class RateLimiter:
    """Places for requests, per workspace. Thread-safe."""

    def __init__(self, requests_per_minute: int, store: str = THIS_PROCESS) -> None:
        """`requests_per_minute` is 8 or more; `store` an address of the library `limits`, such as `redis://host:6379`.

        Raises:
            SettingError: there is no such kind of store, or its client is not installed.
        """
        # A quarter of a second, which a run without a budget should not pay.
        from limits import RateLimitItemPerSecond  # noqa: PLC0415
        from limits.errors import ConfigurationError, StorageError  # noqa: PLC0415
        from limits.storage import storage_from_string  # noqa: PLC0415
        from limits.strategies import MovingWindowRateLimiter  # noqa: PLC0415

        patience = {"socket_timeout": STORE_PATIENCE_SECONDS, "socket_connect_timeout": STORE_PATIENCE_SECONDS}
        try:
            storage = storage_from_string(
                store, wrap_exceptions=True, **(patience if store.startswith("redis") else {})
            )
        except (ConfigurationError, ValueError):
            known = "write redis://host:6379, or another store of the library `limits` whose client is installed"
            raise SettingError(STORE, known) from None
        self._windows = MovingWindowRateLimiter(storage)
        self._window = RateLimitItemPerSecond(requests_per_minute // WINDOWS, BUDGET_SECONDS, namespace="sessions")
        self._unreachable = StorageError

    def acquire(self, workspace: str | None) -> float:
        """Take the place of one request, to be sent at once, to a workspace or (None) to the key's own.

        Returns 0 where it is taken, else the seconds after which to try again.

        Raises:
            SettingError: the store does not answer, so nobody knows what others have sent.
        """
        name = workspace or "own"
        try:
            if self._windows.hit(self._window, name):
                return 0.0
            free_at = self._windows.get_window_stats(self._window, name).reset_time
        except self._unreachable as error:
            raise SettingError(STORE, f"the store does not answer ({type(error.storage_error).__name__})") from None
        return min(max(free_at - time.time(), SHORTEST_WAIT_SECONDS), BUDGET_SECONDS)


def acquire_for(settings: Settings) -> Callable[[str | None], float]:
    """`RateLimiter.acquire` as the settings have it; where they set no limit, there is always a place.

    Raises:
        SettingError: the store of the settings can't be used.
    """
    if settings.requests_per_minute is None:
        return lambda _workspace: 0.0
    store = settings.rate_store
    return RateLimiter(settings.requests_per_minute, store.get_secret_value() if store else THIS_PROCESS).acquire
