"""The sensor requests each late change once and never skips one, even if it restarts."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_pipeline.activity import OVERLAP, Cursor, Look, Stopped, next_look
from sessions_pipeline.days import ranges
from sessions_pipeline.langsmith.lists import Activity, Place
from sessions_pipeline.orchestration import dump_cursor, load_cursor
from sessions_pipeline.settings import Settings

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
OLD = date(2026, 3, 1)
OLDER = date(2026, 2, 20)
# Over 31 days old.
OLDEST = date(2026, 2, 1)
RECENT = date(2026, 3, 19)
SETTINGS = Settings(_env_file=None, SESSIONS_PIPELINE_START_DATE=date(2026, 1, 1), SESSIONS_PIPELINE_LOOKBACK_DAYS=3)


def active(day: date | None, at: datetime, session: str = "a") -> Activity:
    start = None if day is None else (day - date(1970, 1, 1)).days * 86_400_000_000 + 5
    return Activity(session, start, at)


def loaded(text: str | None, now: datetime) -> Cursor:
    return load_cursor(text, Cursor, print) or Cursor(now, now)


def look(
    text: str | None,
    time: datetime,
    listed: list[Activity],
    being_read: set[date] | None = None,
    failed: set[date] | None = None,
    *,
    whole: bool = True,
) -> tuple[str, list[date]]:
    """One look of the sensor, with the cursor as text, as Dagster stores it."""
    before = loaded(text, time)
    cursor, days = next_look(
        before,
        Look(
            [activity for activity in listed if activity.last_active >= before.since - OVERLAP],
            None if whole else (None, Place(len(listed))),
        ),
        time=time,
        settings=SETTINGS,
        being_read=being_read or set(),
        failed=failed or set(),
    )
    return dump_cursor(cursor), sorted(days)


def test_the_first_look_requests_no_earlier_activity_except_the_overlap() -> None:
    listed = [active(OLD, NOW - timedelta(hours=1)), active(OLDER, NOW - timedelta(hours=3), "b")]
    assert look(None, NOW, listed)[1] == [OLD]


def test_activity_is_requested_once() -> None:
    listed = [active(OLD, NOW)]
    text, days = look(None, NOW, listed)
    assert days == [OLD]
    assert look(text, NOW + timedelta(hours=1), listed)[1] == []


def test_new_activity_of_the_same_session_is_requested_again() -> None:
    text, _ = look(None, NOW, [active(OLD, NOW)])
    assert look(text, NOW + timedelta(hours=1), [active(OLD, NOW + timedelta(minutes=30))])[1] == [OLD]


def test_a_run_that_arrives_late_under_an_earlier_time_is_not_skipped() -> None:
    text, _ = look(None, NOW, [active(OLD, NOW)])
    late = active(OLDER, NOW - OVERLAP + timedelta(minutes=1), "late")
    assert look(text, NOW + timedelta(hours=1), [active(OLD, NOW), late])[1] == [OLDER]


def test_a_run_with_a_time_in_the_future_hides_no_other_activity() -> None:
    future = active(OLD, NOW + timedelta(days=300), "future")
    text, days = look(None, NOW, [future])
    assert days == [OLD]
    later = NOW + timedelta(hours=1)
    assert look(text, later, [future, active(OLDER, later)])[1] == [OLDER]


@pytest.mark.parametrize(
    "day", [RECENT, NOW.date(), date(2025, 12, 31), None], ids=["lookback", "today", "before the first", "unknown"]
)
def test_days_that_the_schedule_reads_or_that_are_not_partitions_are_not_requested(day: date | None) -> None:
    assert look(None, NOW, [active(day, NOW)])[1] == []


def test_a_day_stays_pending_while_it_is_being_read() -> None:
    listed = [active(OLD, NOW)]
    text, days = look(None, NOW, listed, being_read={OLD})
    assert days == []
    text, days = look(text, NOW + timedelta(hours=5), [], being_read={OLD})
    assert days == []
    text, days = look(text, NOW + timedelta(hours=6), [])
    assert days == [OLD]
    assert look(text, NOW + timedelta(hours=7), [])[1] == []


def test_a_day_whose_run_failed_is_requested_again_when_it_is_not_being_read() -> None:
    text, _ = look(None, NOW, [active(OLD, NOW)])
    text, days = look(text, NOW + timedelta(hours=1), [], failed={OLD})
    assert days == [OLD]
    text, days = look(text, NOW + timedelta(hours=2), [], failed={OLD}, being_read={OLD})
    assert days == []
    assert look(text, NOW + timedelta(hours=3), [])[1] == [OLD]


def test_a_look_that_was_cut_off_requests_what_it_found_and_the_next_one_requests_the_rest_once() -> None:
    text, _ = look(None, NOW, [])
    later = NOW + timedelta(hours=5)
    found, rest = active(OLD, later), active(OLDER, NOW + timedelta(hours=1), "rest")
    text, days = look(text, later, [found], whole=False)
    assert days == [OLD]
    text, days = look(text, later + timedelta(hours=1), [found, rest])
    assert days == [OLDER]
    assert look(text, later + timedelta(hours=2), [found, rest])[1] == []


def test_a_look_over_several_ticks_hides_nothing_that_came_behind_it() -> None:
    """The second tick lists another workspace only; meanwhile the first one had a run, which the next look finds."""
    text, _ = look(None, NOW, [active(OLD, NOW)], whole=False)
    text, _ = look(text, NOW + timedelta(hours=6), [active(OLD, NOW + timedelta(hours=6), "other")])
    assert look(text, NOW + timedelta(hours=7), [active(OLDER, NOW + timedelta(hours=1), "behind")])[1] == [OLDER]


def test_a_look_that_found_nothing_in_time_still_requests_pending_and_failed_days() -> None:
    text, _ = look(None, NOW, [active(OLD, NOW)], being_read={OLD})
    text, days = look(text, NOW + timedelta(hours=1), [], failed={OLDER}, whole=False)
    assert days == [OLDER, OLD]
    assert loaded(text, NOW).since == NOW


def test_a_day_that_grows_too_old_for_the_schedule_is_requested_by_the_sensor() -> None:
    """The activity came after the schedule's last reading of the day, and before the sensor's first look at it."""
    boundary, midnight = NOW.date() - timedelta(days=3), datetime(2026, 3, 21, tzinfo=UTC)
    late = active(boundary, midnight - timedelta(minutes=20))
    text, _ = look(None, midnight - timedelta(hours=1), [])
    text, days = look(text, midnight - timedelta(minutes=1), [late])
    assert days == [], "until midnight it is the schedule's"
    text, days = look(text, midnight + timedelta(minutes=59), [late])
    assert days == [boundary]
    assert look(text, midnight + timedelta(minutes=119), [late])[1] == []


def test_a_day_over_a_month_old_is_requested_at_once_and_then_once_a_day_even_if_it_always_changes() -> None:
    """Hourly looks over ten days, at a project that always has new runs."""
    text, asked = look(None, NOW, [])[0], list[datetime]()
    for hours in range(1, 241):
        time = NOW + timedelta(hours=hours)
        text, days = look(text, time, [active(OLDEST, time)])
        asked += [time for day in days if day == OLDEST]
    assert asked[0] == NOW + timedelta(hours=1)
    assert {later - earlier for earlier, later in pairwise(asked)} == {timedelta(days=1)}
    assert len(asked) == 10


def test_a_day_of_31_days_ago_is_requested_at_every_change() -> None:
    text, day = None, NOW.date() - timedelta(days=31)
    for hours in range(3):
        time = NOW + timedelta(hours=hours)
        text, days = look(text, time, [active(day, time)])
        assert days == [day]


def test_the_last_change_of_a_day_over_a_month_old_is_requested_too() -> None:
    text, days = look(None, NOW, [active(OLDEST, NOW)])
    assert days == [OLDEST]
    text, days = look(text, NOW + timedelta(hours=1), [active(OLDEST, NOW + timedelta(minutes=50))])
    assert days == []
    text, days = look(text, NOW + timedelta(hours=23), [], being_read={OLDEST})
    assert days == []
    text, days = look(text, NOW + timedelta(hours=24), [])
    assert days == [OLDEST]
    assert look(text, NOW + timedelta(hours=48), [])[1] == []


def test_a_request_from_when_the_clock_was_ahead_holds_no_day_back() -> None:
    text, days = look(look(None, NOW, [])[0], NOW + timedelta(days=60), [active(OLDEST, NOW)])
    assert days == [OLDEST]
    assert look(text, NOW, [active(OLDEST, NOW + timedelta(minutes=5))])[1] == [OLDEST]


def test_a_day_over_a_month_old_whose_run_failed_is_requested_again_at_the_next_look() -> None:
    text, days = look(None, NOW, [active(OLDEST, NOW)])
    assert days == [OLDEST]
    assert look(text, NOW + timedelta(hours=1), [], failed={OLDEST})[1] == [OLDEST]


def test_a_quiet_workspace_and_a_server_clock_behind_ours_skip_nothing() -> None:
    text, _ = look(None, NOW, [])
    for hours in range(1, 30):
        text, days = look(text, NOW + timedelta(hours=hours), [])
        assert days == []
    assert look(text, NOW + timedelta(hours=30), [active(OLD, NOW + timedelta(minutes=1))])[1] == [OLD]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abcd"), st.integers(0, 100)), max_size=25))
def test_every_change_is_requested_after_it_arrived(changes: list[tuple[int, str, int]]) -> None:
    """A change is the hour at which a run arrives, its session, and how many minutes earlier it ran (up to 100)."""
    latest: dict[str, tuple[int, datetime]] = {}
    text: str | None = look(None, NOW, [])[0]
    owed: set[date] = set()
    days_of = {name: OLDER + timedelta(days=index) for index, name in enumerate("abcd")}
    for hour in range(42):
        time = NOW + timedelta(hours=hour)
        for arrives, session, late in changes:
            if arrives == hour:
                run = time - timedelta(minutes=late)
                if session not in latest or latest[session][1] < run:
                    latest[session] = (hour, run)
                    owed.add(days_of[session])
        text, days = look(text, time, [active(days_of[name], run, name) for name, (_, run) in latest.items()])
        owed -= set(days)
        assert not owed


def test_a_cursor_survives_being_kept_as_text() -> None:
    stopped = Stopped("a", Place(99, NOW, "next", all_stats=True), NOW)
    cursor = Cursor(NOW, NOW, {"a": NOW.isoformat()}, (OLD, OLDER), stopped, {OLDEST: NOW})
    assert loaded(dump_cursor(cursor), NOW) == cursor
    assert loaded('{"since":"2026-03-20T12:00:00Z","looked":"2026-03-20T12:00:00Z"}', NOW) == Cursor(NOW, NOW)


def test_adjoining_days_are_one_range() -> None:
    days = [date(2026, 3, 3), date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 7)]
    assert list(ranges(days)) == [(days[1], days[0]), (days[3], days[3])]
    assert list(ranges(days, timedelta(days=4))) == [(days[1], days[3])]
    assert list(ranges([])) == []
