"""The window reader: complete under change, few requests, never an endless loop."""

from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_pipeline.errors import PagingError
from sessions_pipeline.langsmith.coverage import Page
from sessions_pipeline.langsmith.days import DayAssembler, DayReading, day_start_us
from sessions_pipeline.langsmith.window import Ask, WindowReader
from sessions_pipeline_tests.unit.simulated_server import SimulatedServer, read_with, record

DAY = 86_400_000_000
FIRST, LAST = date(2026, 1, 10), date(2026, 1, 12)


def read(
    server: SimulatedServer, page_size: int, *, first: date = FIRST, last: date = LAST, eager: bool = True
) -> list[DayReading]:
    reader = WindowReader(
        start_us=day_start_us(first), end_us=day_start_us(last + timedelta(days=1)), page_size=page_size, in_flight=4
    )
    return read_with(server, reader, DayAssembler(first, last), eager=eager)


def by_day(days: list[DayReading]) -> dict[date | None, list[str | None]]:
    return {day.day: sorted(record.session_id or "" for record in day.records) for day in days}


def expected(sessions: dict[str, int | None], first: date = FIRST, last: date = LAST) -> dict[date | None, list[str]]:
    days: dict[date | None, list[str]] = {first + timedelta(days=n): [] for n in range((last - first).days + 1)}
    days[None] = []
    for name, start in sorted(sessions.items()):
        day = None if start is None else date(1970, 1, 1) + timedelta(days=start // DAY)
        if day in days:
            days[day].append(name)
    return days


# Few distinct times around the window's edges, so that ties, empty days and midnights are common.
START = day_start_us(FIRST)
TIMES = st.one_of(
    st.sampled_from(
        [None, START - 1, START, START + 1, START + DAY, START + 3 * DAY - 1, START + 3 * DAY, START + 3 * DAY + 1]
    ),
    st.integers(START - 3 * DAY, START + 6 * DAY),
)
SESSIONS = st.lists(TIMES, max_size=60).map(lambda starts: {f"s{i:03}": start for i, start in enumerate(starts)})
MUTATIONS = st.lists(st.sampled_from(["none", "none", "reorder", "insert", "insert newest", "delete"]), max_size=40)


@given(SESSIONS, st.integers(1, 12), st.sampled_from([1, 2, 3, 5, 100]), st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_still_list_is_read_exactly(
    sessions: dict[str, int | None], page_size: int, cap: int, undated_first: bool
) -> None:
    server = SimulatedServer(dict(sessions), cap=cap, undated_first=undated_first)
    assert by_day(read(server, page_size)) == expected(sessions)


@given(SESSIONS, st.integers(3, 12), MUTATIONS, st.booleans(), st.booleans(), st.integers(0, 2**16))
@settings(max_examples=1000, deadline=None)
def test_every_session_that_existed_during_the_whole_read_is_found_once(
    sessions: dict[str, int | None], page_size: int, schedule: list[str], undated_first: bool, eager: bool, seed: int
) -> None:
    server = SimulatedServer(dict(sessions), undated_first=undated_first, schedule=list(schedule), seed=seed)
    try:
        found = by_day(read(server, page_size, eager=eager))
    except PagingError:
        assert schedule, "a still list must always settle"
        return
    lasting = {name: start for name, start in sessions.items() if name not in server.deleted}
    for day, names in expected(lasting).items():
        assert set(names) <= set(found[day]), f"lost on {day}"
        assert len(set(found[day])) == len(found[day])
