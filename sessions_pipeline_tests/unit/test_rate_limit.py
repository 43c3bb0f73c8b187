"""The rate limit, with a fake clock: it is used up and never exceeded, for any number of requests."""

import math
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_pipeline.errors import DeadlineExceededError, SettingError
from sessions_pipeline.langsmith.throttle import SECONDS_PER_WINDOW, WINDOWS, RateLimiter, Throttle, acquire_for
from sessions_pipeline.settings import Settings
from sessions_pipeline_tests.clock import Clock

START = 1_700_000_000.0


@contextmanager
def wall_clock() -> Iterator[list[float]]:
    """The time that the library `limits` sees, in a list with one element that tests change."""
    now = [START]
    with patch("time.time", lambda: now[0]):
        yield now


def most_in_a_minute(times: list[float]) -> int:
    ordered = sorted(times)
    return max(bisect_left(ordered, time + 60) - number for number, time in enumerate(ordered))


@settings(max_examples=25)
@given(
    budget=st.integers(8, 200),
    latencies=st.lists(st.floats(0, 3.9), min_size=1, max_size=7),
    idle=st.lists(st.floats(0, 40), max_size=3),
)
def test_no_minute_at_the_server_has_more_requests_than_the_limit_and_the_limit_is_used_up(
    budget: int, latencies: list[float], idle: list[float]
) -> None:
    arrivals: list[float] = []
    with wall_clock() as now:
        places = RateLimiter(budget)
        pauses = iter(idle)
        while now[0] < START + 180:
            wait = places.acquire("workspace")
            if wait == 0:
                arrivals.append(now[0] + latencies[len(arrivals) % len(latencies)])
            else:
                now[0] += wait + next(pauses, 0)
    assert most_in_a_minute(arrivals) <= budget
    windows = (180 - sum(idle)) / (SECONDS_PER_WINDOW + 0.1)
    assert len(arrivals) >= math.floor(windows) * (budget // WINDOWS) - budget


def test_each_workspace_has_its_own_rate_limit() -> None:
    with wall_clock():
        places = RateLimiter(16)
        assert [places.acquire("one") for _ in range(2)] == [0, 0]
        assert places.acquire("one") == pytest.approx(SECONDS_PER_WINDOW)
        assert places.acquire("other") == 0
        assert places.acquire(None) == 0


def test_an_unusable_rate_store_is_named_without_its_address() -> None:
    with pytest.raises(
        SettingError, match=r"^SESSIONS_PIPELINE_RATE_STORE: can't be opened \(\w+\); write redis"
    ) as caught:
        RateLimiter(60, "carrier-pigeon://secret@nowhere")
    assert "secret" not in str(caught.value)
    with pytest.raises(
        SettingError, match=r"^SESSIONS_PIPELINE_RATE_STORE: can't be opened \(\w+\); write redis"
    ) as caught:
        RateLimiter(60, "redis+cluster://:secret@127.0.0.1:1")
    assert "secret" not in str(caught.value)
    with pytest.raises(SettingError, match=r"does not answer \(\w+\); start it, or mend its address$") as caught:
        RateLimiter(60, "redis://:secret@127.0.0.1:1/0").acquire("workspace")
    assert "secret" not in str(caught.value)


def test_without_a_rate_limit_nothing_is_counted() -> None:
    acquire = acquire_for(Settings(_env_file=None))
    assert {acquire("workspace") for _ in range(1000)} == {0}


class Scripted:
    """A rate limiter that returns these waits one after the other, and records the workspaces."""

    def __init__(self, *waits: float) -> None:
        self.waits = list(waits)
        self.asked: list[str | None] = []

    def acquire(self, workspace: str | None) -> float:
        self.asked.append(workspace)
        return self.waits.pop(0)


def test_a_request_waits_for_the_rate_limit_of_its_workspace() -> None:
    clock, budget = Clock(), Scripted(7.5, 0.5, 0)
    before = clock()
    with Throttle(8, deadline_seconds=60, acquire=budget.acquire, clock=clock, wait=clock.wait).slot("workspace"):
        assert clock() - before == 8
    assert budget.asked == ["workspace"] * 3


def test_the_deadline_ends_the_wait_for_the_rate_limit() -> None:
    clock, budget = Clock(), Scripted(8, 8)
    limits = Throttle(8, deadline_seconds=10, acquire=budget.acquire, clock=clock, wait=clock.wait)
    with pytest.raises(DeadlineExceededError, match="has passed"), limits.slot():
        pytest.fail("nobody may ask")
    assert not budget.waits


def test_a_request_that_waits_for_a_slot_or_the_server_does_not_count_against_the_limit_yet() -> None:
    clock, budget = Clock(), Scripted(0)
    limits = Throttle(1, deadline_seconds=10, acquire=budget.acquire, clock=clock, wait=clock.wait)
    with limits.slot(), pytest.raises(DeadlineExceededError), limits.slot():
        pytest.fail("there is one slot")
    assert budget.asked == [None]
