"""How many requests a minute one workspace may be asked: counted in a store that all runs share.

A request is counted before it is sent, in one step of the store, and is not sent while its window is full. So the sum
over all processes can't exceed the budget, whoever they are: runs on other machines, sensors, the command line. There
is nothing to divide among runs, and a run that is alone has the whole budget.
"""

import time
from collections.abc import Callable

from sessions_pipeline.errors import SettingError
from sessions_pipeline.settings import Settings

# The budget of a minute, given out in eighths so that it does not come as one burst. Eight windows are 64 seconds:
# one request may be on its way for 4 s longer than another, and still no 60 s of the server's see more than the budget.
WINDOWS = 8
WINDOW_SECONDS = 8
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
        self._window = RateLimitItemPerSecond(requests_per_minute // WINDOWS, WINDOW_SECONDS, namespace="sessions")
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
        return min(max(free_at - time.time(), SHORTEST_WAIT_SECONDS), WINDOW_SECONDS)


def acquire_for(settings: Settings) -> Callable[[str | None], float]:
    """`RateLimiter.acquire` as the settings have it; where they set no limit, there is always a place.

    Raises:
        SettingError: the store of the settings can't be used.
    """
    if settings.requests_per_minute is None:
        return lambda _workspace: 0.0
    store = settings.rate_store
    return RateLimiter(settings.requests_per_minute, store.get_secret_value() if store else THIS_PROCESS).acquire
