"""Limits a run's requests in flight, pauses all of them when the server asks for it, and keeps to a shared rate limit.

`Throttle` is shared by the threads of a run. `RateLimiter` limits the requests a minute to one workspace. It counts
them in a store that all processes share (runs on other machines, sensors, the command line): each request is counted in
one atomic step before it is sent, and waits while its window is full. So all processes together can't exceed the limit,
and a run that is alone has all of it.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sessions_pipeline import errors
from sessions_pipeline.settings import Settings

DEADLINE = "SESSIONS_PIPELINE_DEADLINE_MINUTES"
# The API counts requests in windows of this length.
WINDOW_SECONDS = 60.0
# The shortest pause after a 429. Our clock may put the window's end a little too early.
SHORTEST_PAUSE_SECONDS = 1.0


class Throttle:
    """Slots for requests in flight: fewer while the server is overloaded, none while it has asked clients to wait.

    A sign of overload (429, 5xx, timeout) halves the slots, once for all requests that were in flight together; as many
    successes as there are slots add one again. Thread-safe. `close` makes all waiting and later calls fail.
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
        """At most `most` slots, none of them given out later than `deadline_seconds` from now.

        `acquire` is called before each request; it returns 0 if the request may be sent, else the seconds after which
        to call it again (see `RateLimiter`). A 429 without Retry-After lasts until the current window of
        `window_seconds` ends. `clock` returns seconds.
        """
        self.progress: Callable[[], str] = str
        self._most = most
        self._acquire = acquire
        self._clock = clock
        self._wait = wait
        self._deadline_name = f"The run's deadline ({DEADLINE}={deadline_seconds / 60:g})"
        self._advice = "days already written stay, run the others again"
        self._deadline = clock() + deadline_seconds
        self._changed = threading.Condition()
        self._slots = float(most)
        self._in_flight = 0
        self._cuts = 0  # how often slots were halved; errors of requests begun before the latest cut do not cut again
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
        """Seconds until the deadline; negative after it."""
        return self._deadline - self._clock()

    def end_within(self, seconds: float) -> None:
        """Move the deadline to this many seconds from now, unless it is earlier already."""
        with self._changed:
            end = self._clock() + seconds
            if end < self._deadline:
                self._deadline = end
                self._deadline_name = f"The time limit of {seconds:g} seconds"
                self._advice = "try again later"

    def close(self) -> None:
        """Give out no more slots; waiting and later calls of `slot` raise `ApiError`."""
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()

    @contextmanager
    def slot(self, workspace: str | None = None) -> Iterator[None]:
        """Wait for a slot for a request to `workspace` and hold it; an error of the body may reduce the slots.

        Raises:
            DeadlineExceededError: the deadline has passed, or will pass before the server accepts requests again.
            ApiError: the throttle was closed.
        """
        cuts = self._enter(workspace)
        try:
            yield
        except (errors.RateLimitedError, errors.ServerError, errors.TimedOutError) as error:
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
                    raise errors.ApiError("The reading was stopped before it was complete; run it again")
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

    def _slow_down(self, error: errors.ApiError, cuts: int) -> None:
        with self._changed:
            if cuts == self._cuts:
                self._cuts += 1
                self._slots = max(1.0, self._slots / 2)
            until = self._clock() + (error.retry_after or 0.0)
            if error.retry_after is None and isinstance(error, errors.RateLimitedError):
                until = max(self._window_start + self._window_seconds, until + SHORTEST_PAUSE_SECONDS)
            self._paused_until = max(self._paused_until, until)

    def too_late(self, what: str) -> errors.DeadlineExceededError:
        """The error to raise: the deadline, `what` about it, how far the run came, and what to do."""
        reached = self.progress()
        return errors.DeadlineExceededError(
            f"{self._deadline_name} {what}{f', after {reached}' if reached else ''}; {self._advice}"
        )


# The requests of a minute are allowed in eighths, one per window, so that they do not come in one burst. Eight windows
# take 64 seconds: even if one request takes 4 s longer to arrive than another, the server never sees more than the
# limit within 60 s.
WINDOWS = 8
SECONDS_PER_WINDOW = 8
# Many threads may wait for the same free place. Those that find it taken try again after this time at the earliest.
SHORTEST_WAIT_SECONDS = 0.02
STORE_TIMEOUT_SECONDS = 5
THIS_PROCESS = "memory://"
STORE = "SESSIONS_PIPELINE_RATE_STORE"


class RateLimiter:
    """Limits the requests a minute to each workspace. Thread-safe."""

    def __init__(self, requests_per_minute: int, store: str = THIS_PROCESS) -> None:
        """Count in `store`, a storage address of the library `limits`, such as `redis://host:6379`.

        `requests_per_minute` is 8 or more.

        Raises:
            SettingError: there is no such kind of store, or its client is not installed.
        """
        # Importing these takes a quarter of a second, which a run without a rate limit should not pay.
        from limits import RateLimitItemPerSecond  # noqa: PLC0415
        from limits.errors import StorageError  # noqa: PLC0415
        from limits.storage import storage_from_string  # noqa: PLC0415
        from limits.strategies import MovingWindowRateLimiter  # noqa: PLC0415

        timeouts = dict.fromkeys(["socket_timeout", "socket_connect_timeout"], STORE_TIMEOUT_SECONDS)
        options = timeouts if store.startswith("redis") else {}
        try:
            storage = storage_from_string(store, wrap_exceptions=True, **options)
        except Exception as error:  # noqa: BLE001 - each store's client has its own errors, some with the address
            advice = "write redis://host:6379, or another store of the library `limits` whose client is installed"
            raise errors.SettingError(STORE, f"can't be opened ({type(error).__name__}); {advice}") from None
        self._windows = MovingWindowRateLimiter(storage)
        self._window = RateLimitItemPerSecond(requests_per_minute // WINDOWS, SECONDS_PER_WINDOW, namespace="sessions")
        self._unreachable = StorageError

    def acquire(self, workspace: str | None) -> float:
        """Count one request to a workspace, or to the key's own (None), which must then be sent at once.

        Returns 0 if it was counted, else the seconds after which to try again.

        Raises:
            SettingError: the store does not answer, so it is unknown what other processes have sent.
        """
        name = workspace or "own"
        try:
            if self._windows.hit(self._window, name):
                return 0.0
            free_at = self._windows.get_window_stats(self._window, name).reset_time
        except self._unreachable as error:
            problem = f"the store does not answer ({type(error.storage_error).__name__}); start it, or mend its address"
            raise errors.SettingError(STORE, problem) from None
        return min(max(free_at - time.time(), SHORTEST_WAIT_SECONDS), SECONDS_PER_WINDOW)


def acquire_for(settings: Settings) -> Callable[[str | None], float]:
    """`RateLimiter.acquire` for the rate limit in the settings; without one, a function that never waits.

    Raises:
        SettingError: the store in the settings can't be used.
    """
    if settings.requests_per_minute is None:
        return lambda _workspace: 0.0
    store = settings.rate_store
    return RateLimiter(settings.requests_per_minute, store.get_secret_value() if store else THIS_PROCESS).acquire
