"""A day is read again and again: what was said is kept, what was spent stays spent."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_pipeline.tables import REJECTED_SESSIONS, SESSIONS
from sessions_pipeline.tables.history import DayVerdict, judge_day
from sessions_pipeline.tables.readings import Reading, dump_readings, load_readings, merge_reading
from sessions_pipeline.validation.records import Columns, read_page

T0 = datetime(2026, 1, 10, 12, tzinfo=UTC)
TENANT = str(UUID(int=1))
OTHER = str(UUID(int=2))


def session(number: int, **values: Any) -> dict[str, Any]:
    return {
        "id": str(UUID(int=1000 + number)),
        "tenant_id": TENANT,
        "name": f"s{number}",
        "start_time": "2026-01-10T08:00:00",
        "trace_tier": "longlived",
        "run_count": 10,
        "total_tokens": 100,
        "total_cost": "1.50",
        **values,
    }


class Day:
    """A day's raw rows and readings, grown by one reading after another."""

    def __init__(self) -> None:
        self.raw: pa.Table | None = None
        self.readings: list[Reading] = []

    def read(self, *sessions: Any, at: timedelta = timedelta(0), asked: str | None = None) -> "Day":
        records = Columns.of(read_page(json.dumps(sessions).encode()))
        self.raw, self.readings = merge_reading(
            self.raw, self.readings, records, asked=asked, fetched_at=T0 + at, received=len(sessions), requests=1
        )
        return self

    def verdict(self, as_of: datetime | None = None) -> DayVerdict:
        assert self.raw is not None
        return judge_day(self.raw, self.readings, as_of=as_of)

    def row(self, number: int, as_of: datetime | None = None) -> dict[str, Any]:
        rows = self.verdict(as_of).sessions.to_pylist()
        return next(row for row in rows if row["id"] == str(UUID(int=1000 + number)))


HOUR = timedelta(hours=1)


def test_an_unchanged_session_costs_no_row_and_is_seen_again() -> None:
    day = Day().read(session(1)).read(session(1), at=HOUR)
    assert day.raw is not None
    assert day.raw.num_rows == 1
    row = day.row(1)
    assert row["fetched_at"] == row["stats_as_of"] == T0 + HOUR
    assert row["missing_since"] is None


def test_a_changed_session_keeps_its_earlier_readings_and_shows_the_newest() -> None:
    day = Day().read(session(1)).read(session(1, total_cost="2.25", run_count=11), at=HOUR)
    assert day.raw is not None
    assert day.raw.num_rows == 2
    assert day.row(1)["total_cost"] == Decimal("2.25")
    assert day.row(1, as_of=T0)["total_cost"] == Decimal("1.50")


def test_a_session_that_is_gone_stays_with_the_time_since_when() -> None:
    day = Day().read(session(1), session(2)).read(session(2), at=HOUR).read(session(2), at=2 * HOUR)
    row = day.row(1)
    assert row["missing_since"] == T0 + HOUR
    assert row["fetched_at"] == row["stats_as_of"] == T0
    assert row["total_cost"] == Decimal("1.50")
    assert day.row(1, as_of=T0)["missing_since"] is None


def test_a_session_that_comes_back_is_no_longer_missing() -> None:
    day = Day().read(session(1)).read(at=HOUR).read(session(1), at=2 * HOUR)
    assert day.row(1)["missing_since"] is None
    assert day.row(1)["fetched_at"] == T0 + 2 * HOUR
    assert day.row(1, as_of=T0 + HOUR)["missing_since"] == T0 + HOUR


@pytest.mark.parametrize("emptied", [{"run_count": 0, "total_cost": "0"}, {"run_count": None, "total_cost": None}])
def test_stats_that_retention_has_emptied_never_replace_those_read_before(emptied: dict[str, Any]) -> None:
    late = timedelta(days=401)
    day = Day().read(session(1)).read(session(1), at=HOUR).read(session(1, name="new", **emptied), at=late)
    row = day.row(1)
    assert row["total_cost"] == Decimal("1.50")
    assert row["run_count"] == 10
    assert row["name"] == "new"
    assert row["stats_as_of"] == T0 + HOUR
    assert row["fetched_at"] == T0 + late


@pytest.mark.parametrize(("tier", "days"), [("longlived", 400), ("shortlived", 14), (None, 14), ("LONG_LIVED", 400)])
def test_a_partly_emptied_session_keeps_its_stats_from_its_retention_on(tier: str | None, days: int) -> None:
    less = {"run_count": 4, "total_cost": "0.60", "trace_tier": tier}
    before, after = timedelta(days=days - 1), timedelta(days=days + 1)
    young = Day().read(session(1, trace_tier=tier)).read(session(1, **less), at=before)
    assert young.row(1)["total_cost"] == Decimal("0.60")
    assert young.verdict().shrunk == (str(UUID(int=1001)),)
    old = Day().read(session(1, trace_tier=tier)).read(session(1, **less), at=after)
    assert old.row(1)["total_cost"] == Decimal("1.50")
    assert old.verdict().shrunk == ()


def test_the_fullest_of_several_emptied_readings_counts() -> None:
    day = Day().read(session(1, run_count=20, total_cost="3"))
    day.read(session(1, run_count=12, total_cost="2"), at=timedelta(days=410))
    day.read(session(1, run_count=0, total_cost=None), at=timedelta(days=420))
    assert day.row(1)["total_cost"] == Decimal(3)
    assert day.row(1)["stats_as_of"] == T0


def test_a_record_of_another_workspace_than_asked_is_rejected_with_that_reason() -> None:
    day = Day().read(session(1), session(2, tenant_id=OTHER), asked=TENANT)
    verdict = day.verdict()
    assert verdict.sessions.num_rows == 1
    assert verdict.rejected.column("reasons").to_pylist() == [[f"tenant_id: is not the workspace asked for ({TENANT})"]]


def test_a_reading_of_one_workspace_says_nothing_of_another() -> None:
    day = Day().read(session(1), asked=TENANT).read(session(2, tenant_id=OTHER), at=HOUR, asked=OTHER)
    assert day.row(1)["missing_since"] is None
    assert day.row(1)["fetched_at"] == T0
    assert day.row(2)["fetched_at"] == T0 + HOUR


def test_naming_the_workspace_later_doubles_nothing() -> None:
    day = Day().read(session(1)).read(session(1), at=HOUR, asked=TENANT)
    assert day.raw is not None
    assert day.raw.num_rows == 1
    assert day.verdict().sessions.num_rows == 1


def test_a_record_that_is_repaired_moves_from_rejected_to_valid_and_back() -> None:
    day = Day().read(session(1, run_count="abc")).read(session(1), at=HOUR)
    assert (day.verdict().sessions.num_rows, day.verdict().rejected.num_rows) == (1, 0)
    day.read(session(1, run_count=1.5), at=2 * HOUR)
    assert (day.verdict().sessions.num_rows, day.verdict().rejected.num_rows) == (0, 1)


def test_a_day_that_had_nothing_has_tables_with_no_rows() -> None:
    verdict = Day().read().verdict()
    assert verdict.sessions.schema.equals(SESSIONS.schema)
    assert verdict.rejected.schema.equals(REJECTED_SESSIONS.schema)
    assert verdict.sessions.num_rows == verdict.rejected.num_rows == 0


def test_readings_of_a_settled_day_do_not_pile_up() -> None:
    day = Day()
    for hour in range(50):
        day.read(session(1), at=hour * HOUR)
    assert len(day.readings) <= 3
    assert load_readings(dump_readings(day.readings)) == day.readings
    assert day.row(1)["fetched_at"] == T0 + 49 * HOUR


@given(st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=6), min_size=1, max_size=8))
def test_any_history_holds_every_session_ever_read_once(history: list[list[tuple[int, int]]]) -> None:
    day, known, costs = Day(), set[int](), dict[int, int]()
    for hour, reading in enumerate(history):
        latest = dict(reading)
        day.read(*(session(n, total_cost=str(c), run_count=10 + c) for n, c in latest.items()), at=hour * HOUR)
        known |= latest.keys()
        costs |= latest
        rows = {row["name"]: row for row in day.verdict().sessions.to_pylist()}
        assert sorted(rows) == sorted(f"s{n}" for n in known)
        assert day.verdict().sessions.num_rows == len(known)
        for n in known:
            assert rows[f"s{n}"]["total_cost"] == costs[n]
            assert (rows[f"s{n}"]["missing_since"] is None) == (n in latest)
        # Earlier states can still be told.
        for earlier in range(hour):
            then = day.verdict(as_of=T0 + earlier * HOUR).sessions.num_rows
            assert then == len({n for reading in history[: earlier + 1] for n, _ in reading})


def test_new_and_vanished_properties_are_counted_by_name() -> None:
    day = Day().read(*(session(number, longlived_ttl_days=400, trace_tier="eternal") for number in range(3)))
    drift = day.verdict().drift
    assert drift["longlived_ttl_days"] == drift["trace_tier=eternal"] == 3
    assert drift["without latency_p50"] == 3
    assert "without total_cost" not in drift
