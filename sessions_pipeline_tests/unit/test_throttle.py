"""The throttle, with a fake clock: how many requests may be in flight, and when they must pause."""

import threading
from contextlib import ExitStack, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_pipeline.errors import (
    ApiError,
    DeadlineExceededError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    TimedOutError,
)
from sessions_pipeline.langsmith.throttle import Throttle
from sessions_pipeline_tests.clock import Clock


def throttle(clock: Clock, most: int = 8, deadline_seconds: float = 3600) -> Throttle:
    return Throttle(most, deadline_seconds=deadline_seconds, clock=clock, wait=clock.wait)


def fail(limits: Throttle, error: ApiError) -> None:
    with suppress(ApiError), limits.slot():
        raise error


@pytest.mark.parametrize("error", [RateLimitedError("", retry_after=0), ServerError(""), TimedOutError("")])
def test_a_sign_of_overload_halves_the_slots_down_to_one(error: ApiError) -> None:
    limits = throttle(Clock())
    seen = []
    for _ in range(5):
        fail(limits, error)
        seen.append(limits.slots)
    assert seen == [4, 2, 1, 1, 1]


def test_an_error_of_the_request_itself_leaves_the_slots_alone() -> None:
    limits = throttle(Clock())
    fail(limits, NotFoundError(""))
    assert limits.slots == 8


def test_requests_that_fail_together_halve_the_slots_once() -> None:
    limits = throttle(Clock())
    together = [limits.slot() for _ in range(8)]
    for slot in together:
        slot.__enter__()
    for slot in together:
        with suppress(ServerError):
            slot.__exit__(ServerError, ServerError(""), None)
    assert limits.slots == 4


def test_successes_restore_one_slot_per_round_up_to_the_most() -> None:
    limits = throttle(Clock())
    fail(limits, ServerError(""))
    for _ in range(5):
        with limits.slot():
            pass
    assert limits.slots == 5
    for _ in range(100):
        with limits.slot():
            pass
    assert limits.slots == 8


def test_everyone_waits_as_long_as_the_server_asked() -> None:
    clock = Clock()
    limits = throttle(clock)
    fail(limits, RateLimitedError("", retry_after=7))
    for _ in range(3):
        with limits.slot():
            pass
    assert clock.waits == [7]


def test_a_shorter_wait_does_not_shorten_a_longer_one() -> None:
    clock = Clock()
    limits = throttle(clock)
    with ExitStack() as stack:
        first, second = limits.slot(), limits.slot()
        first.__enter__()
        second.__enter__()
        for slot, seconds in ((first, 30), (second, 2)):
            with suppress(RateLimitedError):
                slot.__exit__(RateLimitedError, RateLimitedError("", retry_after=seconds), None)
        stack.enter_context(limits.slot())
    assert clock.waits == [30]


def test_a_rate_limit_without_a_time_lasts_until_the_window_of_a_minute_ends() -> None:
    clock = Clock()
    clock.now = 0  # the machine has just started
    limits = throttle(clock)
    with limits.slot():
        pass
    clock.now += 25
    fail(limits, RateLimitedError(""))
    fail(limits, RateLimitedError(""))
    with limits.slot():
        pass
    assert clock.waits == [35, 60]


def test_a_server_error_without_a_time_causes_no_pause() -> None:
    clock = Clock()
    limits = throttle(clock)
    fail(limits, ServerError(""))
    with limits.slot():
        pass
    assert clock.waits == []


def test_a_pause_beyond_the_deadline_fails_at_once() -> None:
    clock = Clock()
    limits = throttle(clock, deadline_seconds=60)
    fail(limits, RateLimitedError("", retry_after=61))
    with pytest.raises(DeadlineExceededError, match=r"DEADLINE_MINUTES=1\) would pass"), limits.slot():
        pass
    assert clock.waits == []


def test_after_the_deadline_no_request_starts_and_the_error_says_how_far_the_run_came() -> None:
    clock = Clock()
    limits = throttle(clock, deadline_seconds=90)
    limits.progress = lambda: "12 of 30 days"
    clock.now += 90
    with (
        pytest.raises(DeadlineExceededError, match=r"DEADLINE_MINUTES=1\.5\) has passed, after 12 of 30 days"),
        limits.slot(),
    ):
        pass


def test_a_worker_without_a_slot_waits_no_longer_than_the_deadline() -> None:
    clock = Clock()
    limits = throttle(clock, most=1, deadline_seconds=60)
    with limits.slot(), pytest.raises(DeadlineExceededError), limits.slot():
        pass
    assert clock.waits == [60]


def test_closing_wakes_all_waiting_requests() -> None:
    waiting = threading.Event()

    def wait(condition: threading.Condition, seconds: float | None) -> None:
        waiting.set()
        condition.wait(seconds)

    limits = Throttle(1, deadline_seconds=60, wait=wait)
    failed: list[ApiError] = []

    def work() -> None:
        try:
            with limits.slot():
                pass
        except ApiError as error:
            failed.append(error)

    with limits.slot():
        worker = threading.Thread(target=work)
        worker.start()
        assert waiting.wait(20)
        limits.close()
        worker.join(20)
    assert len(failed) == 1
    assert limits.is_closed


@given(
    most=st.integers(1, 64),
    events=st.lists(
        st.one_of(
            st.none(),
            st.just(ServerError("")),
            st.just(NotFoundError("")),
            st.floats(0, 30).map(lambda seconds: RateLimitedError("", retry_after=seconds)),
            st.just(RateLimitedError("")),
        ),
        max_size=30,
    ),
)
def test_slots_stay_between_one_and_the_most_and_every_pause_is_kept(most: int, events: list[ApiError | None]) -> None:
    clock = Clock()
    limits = throttle(clock, most, deadline_seconds=1e9)
    closed_until = 0.0
    for event in events:
        with suppress(ApiError), limits.slot():
            assert clock.now >= closed_until
            if event is not None:
                raise event
        if isinstance(event, RateLimitedError) and event.retry_after is not None:
            closed_until = clock.now + event.retry_after
        assert 1 <= limits.slots <= most
    with limits.slot():
        assert clock.now >= closed_until


@given(st.integers(1, 6), st.integers(1, 20))
def test_never_more_in_flight_than_slots(most: int, workers: int) -> None:
    limits = Throttle(most, deadline_seconds=60)
    lock = threading.Lock()
    in_flight, highest = 0, 0

    def work() -> None:
        nonlocal in_flight, highest
        with limits.slot():
            with lock:
                in_flight += 1
                highest = max(highest, in_flight)
            with lock:
                in_flight -= 1

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert highest <= most
