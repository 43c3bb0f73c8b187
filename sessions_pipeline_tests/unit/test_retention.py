"""Costs stay when retention empties a session, and forgetting superseded readings changes no number."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sessions_pipeline.tables import RAW_SESSIONS, REJECTED_SESSIONS, SESSIONS
from sessions_pipeline.tables.derived_day import DerivedDay
from sessions_pipeline.tables.raw_sessions import merge
from sessions_pipeline.tables.readings import (
    RawDay,
    dump_readings,
    gone_since,
    latest_readings,
    load_readings,
    open_workspaces,
    readings_as_of,
)
from sessions_pipeline.tables.retention import STATS
from sessions_pipeline.tables.rows import Rows
from sessions_pipeline.validation.model import PROPERTIES
from sessions_pipeline.validation.types import MONEY
from sessions_pipeline_tests.builders import NOON, OTHER_TENANT, TENANT, payload, uuid
from sessions_pipeline_tests.days import OPTIONS, fetched

READ = NOON + timedelta(hours=6)
HOUR, YEARS = timedelta(hours=1), timedelta(days=365)
SPENT: dict[str, Any] = {"run_count": 10, "total_cost": "1.50", "trace_tier": "longlived"}
# A session in a reading: its number of runs, None if it is absent, or a text if the number is broken.
SAID = st.one_of(st.none(), st.integers(0, 4), st.just("many"))


class Readings:
    """A day's raw rows and readings in memory, to which `read` adds one reading."""

    def __init__(self) -> None:
        self.raw = RawDay(NOON.date(), Rows(RAW_SESSIONS.schema), [])

    def read(self, *texts: str, at: timedelta = timedelta(0)) -> "Readings":
        self.raw = merge(self.raw, [fetched(*texts, at=READ + at)])
        return self

    def derived(self, as_of: datetime | None = None) -> DerivedDay:
        return DerivedDay(self.raw, replace(OPTIONS, as_of=as_of))

    def row(self, number: int, as_of: datetime | None = None) -> dict[str, Any]:
        rows: list[dict[str, Any]] = self.derived(as_of).sessions.table().to_pylist()
        return next(row for row in rows if row["id"] == uuid(number))

    def forgotten(self, before: datetime) -> "Readings":
        """The raw rows and readings that are left after forgetting those superseded before this time."""
        left = Readings()
        left.raw = DerivedDay(self.raw, replace(OPTIONS, kept_from=before)).raw
        return left


@pytest.mark.parametrize("emptied", [{"run_count": 0, "total_cost": "0"}, {"run_count": None, "total_cost": None}])
def test_stats_that_retention_has_emptied_never_replace_those_read_before(emptied: dict[str, Any]) -> None:
    late = timedelta(days=401)
    day = Readings().read(payload(1, **SPENT)).read(payload(1, name="new", **{**SPENT, **emptied}), at=late)
    row = day.row(1)
    assert (row["total_cost"], row["run_count"], row["name"]) == (Decimal("1.50"), 10, "new")
    assert (row["stats_as_of"], row["fetched_at"]) == (READ, READ + late)


def test_every_number_that_the_api_computes_from_traces_is_kept_when_retention_has_emptied_it() -> None:
    not_computed = {"test_run_number"}
    numbers = {one.name for one in PROPERTIES if one.rule.type in (pa.int64(), pa.float64(), MONEY)}
    assert numbers - not_computed <= {*STATS}


@pytest.mark.parametrize("runs", [None, 0])
@pytest.mark.parametrize("used", [{"total_cost": "1.50"}, {"prompt_tokens": 7}, {"completion_cost": "1e-18"}])
def test_used_amounts_are_kept_even_if_runs_are_not_counted(used: dict[str, Any], runs: int | None) -> None:
    uncounted = {**dict.fromkeys(("total_cost", "prompt_tokens", "completion_cost")), "run_count": runs}
    day = Readings().read(payload(1, **uncounted)).read(payload(1, **{**uncounted, **used}), at=HOUR)
    assert day.row(1)["stats_as_of"] == READ + HOUR
    grown = day.row(1)
    emptied = day.read(payload(1, **uncounted), at=2 * HOUR).row(1)
    assert {name: emptied[name] for name in (*uncounted, "stats_as_of")} == {
        name: grown[name] for name in (*uncounted, "stats_as_of")
    }
    assert emptied["fetched_at"] == READ + 2 * HOUR


def test_a_session_with_unknown_runs_and_a_known_cost_does_not_count_as_emptied() -> None:
    day = Readings().read(payload(1, **SPENT)).read(payload(1, run_count=None, total_cost="1.75"), at=HOUR)
    assert (day.row(1)["run_count"], day.row(1)["total_cost"]) == (None, Decimal("1.75"))


def test_the_problems_of_a_cost_come_from_the_same_reading_as_the_cost() -> None:
    day = Readings().read(payload(1, **SPENT)).read(payload(1, run_count=0, total_cost="-1"), at=YEARS)
    assert (day.row(1)["total_cost"], day.row(1)["problems"]) == (Decimal("1.50"), None)
    assert day.row(1, as_of=READ)["problems"] is None


@pytest.mark.parametrize(("tier", "days"), [("longlived", 400), ("shortlived", 14), (None, 14), ("LONG_LIVED", 400)])
def test_a_partly_emptied_session_keeps_its_stats_from_its_retention_on(tier: str | None, days: int) -> None:
    start = {"start_time": NOON.isoformat(), "trace_tier": tier}
    less = payload(1, **{**SPENT, **start, "run_count": 4, "total_cost": "0.60"})
    bound = NOON + timedelta(days=days) - READ
    young = Readings().read(payload(1, **{**SPENT, **start})).read(less, at=bound - timedelta(microseconds=1))
    assert (young.row(1)["total_cost"], young.derived().shrunk) == (Decimal("0.60"), [uuid(1)])
    old = Readings().read(payload(1, **{**SPENT, **start})).read(less, at=bound)
    assert (old.row(1)["total_cost"], old.derived().shrunk) == (Decimal("1.50"), [])


def test_the_fullest_of_several_emptied_readings_counts() -> None:
    day = Readings().read(payload(1, **{**SPENT, "run_count": 20, "total_cost": "3"}))
    day.read(payload(1, **{**SPENT, "run_count": 12, "total_cost": "2"}), at=timedelta(days=410))
    day.read(payload(1, **{**SPENT, "run_count": 0, "total_cost": None}), at=timedelta(days=420))
    assert (day.row(1)["total_cost"], day.row(1)["stats_as_of"]) == (Decimal(3), READ)


@pytest.mark.parametrize("left", [{"run_count": 0, "total_cost": None}, {"run_count": 2, "total_cost": "0.30"}, {}])
def test_a_corrected_number_stays_corrected_when_retention_has_emptied_the_session(left: dict[str, Any]) -> None:
    corrected = {**SPENT, "start_time": NOON.isoformat(), "run_count": 6, "total_cost": "0.90"}
    day = Readings().read(payload(1, **{**corrected, **SPENT})).read(payload(1, **corrected), at=HOUR)
    assert day.row(1)["total_cost"] == Decimal("0.90")
    row = day.read(payload(1, **{**corrected, "name": "renamed", **left}), at=YEARS + timedelta(days=36)).row(1)
    assert (row["total_cost"], row["run_count"]) == (Decimal("0.90"), 6)


def test_a_number_of_runs_below_zero_never_takes_its_stats_from_a_rejected_state() -> None:
    day = Readings().read(payload(1, run_count="many"))
    less = payload(1, start_time=NOON.isoformat(), run_count=-1, latency_p50=2.5)
    assert day.read(less, at=YEARS).row(1)["latency_p50"] == 2.5


def test_the_newest_of_two_readings_decides_whatever_their_texts_and_times() -> None:
    for first, second in (("a", "b"), ("b", "a")):
        for at in (HOUR, -HOUR, timedelta(0)):
            day = Readings().read(payload(1, name=first)).read(payload(1, name=second), at=at)
            assert day.row(1)["name"] == second


def test_a_day_without_sessions_has_tables_with_schemas_and_no_rows() -> None:
    nothing = Readings().read().derived()
    assert nothing.sessions.num_rows == nothing.rejected.num_rows == 0
    assert nothing.sessions.schema.names == SESSIONS.schema.names
    assert nothing.rejected.schema.names == REJECTED_SESSIONS.schema.names


def test_new_and_vanished_properties_are_counted_by_name() -> None:
    texts = [payload(n, longlived_ttl_days=400, trace_tier="eternal", total_cost="1") for n in range(3)]
    drift = Readings().read(*texts).derived().drift
    assert drift["longlived_ttl_days"] == drift["trace_tier=eternal"] == drift["without latency_p50"] == 3
    assert "without total_cost" not in drift


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=6), min_size=1, max_size=8))
def test_a_history_contains_every_session_ever_read_exactly_once(said: list[list[tuple[int, int]]]) -> None:
    day, known, costs = Readings(), set[int](), dict[int, int]()
    for hour, reading in enumerate(said):
        latest = dict(reading)
        day.read(*(payload(n, total_cost=str(c), run_count=10 + c) for n, c in latest.items()), at=hour * HOUR)
        known |= latest.keys()
        costs |= latest
        rows = {row["id"]: row for row in day.derived().sessions.table().to_pylist()}
        assert sorted(rows) == sorted(map(uuid, known))
        for n in known:
            assert rows[uuid(n)]["total_cost"] == costs[n]
            assert (rows[uuid(n)]["missing_since"] is None) == (n in latest)
    assert load_readings(dump_readings(day.raw.readings)) == day.raw.readings
    for earlier in range(len(said)):
        then = day.derived(as_of=READ + earlier * HOUR).sessions.num_rows
        assert then == len({n for reading in said[: earlier + 1] for n, _ in reading})


def weekly(said: list[list[Any]]) -> Readings:
    """A day that was read once a week. Each reading lists its values for the sessions 0, 1, 2 …"""
    day = Readings()
    for number, runs in enumerate(said):
        texts = [payload(index, run_count=run) for index, run in enumerate(runs) if run is not None]
        day.read(*texts, at=number * timedelta(days=8))
    return day


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(SAID, min_size=2, max_size=2), min_size=1, max_size=7), st.integers(0, 60))
def test_forgetting_changes_neither_the_day_now_nor_as_of_any_later_time(said: list[list[Any]], cut: int) -> None:
    day, before = weekly(said), READ + timedelta(days=cut)
    left = day.forgotten(before)
    times = [reading.fetched_at for reading in day.raw.readings if reading.fetched_at >= before]
    for as_of in [None, before, *times]:
        full, pruned = day.derived(as_of), left.derived(as_of)
        assert pruned.sessions.table().sort_by("id").equals(full.sessions.table().sort_by("id"))
        assert pruned.rejected.num_rows == full.rejected.num_rows
        assert sorted(pruned.shrunk) == sorted(full.shrunk)


def test_unneeded_versions_are_dropped_and_the_fullest_and_the_newest_stay() -> None:
    day = weekly([[1], [2], [5], [3], [4], [0]])
    assert runs_in(day.forgotten(READ + YEARS)) == [5, 0]
    assert runs_in(day.forgotten(READ - HOUR)) == [1, 2, 5, 3, 4, 0]


def test_a_version_that_was_replaced_after_the_cut_stays() -> None:
    assert runs_in(weekly([[1], [2], [3]]).forgotten(READ + timedelta(days=10))) == [2, 3]


def test_forgetting_twice_is_forgetting_once() -> None:
    day = weekly([[1], [2], [5], [3], [4], [0]])
    once = day.forgotten(READ + timedelta(days=30))
    twice = once.forgotten(READ + timedelta(days=30))
    assert twice.raw.rows.table().equals(once.raw.rows.table())
    assert twice.raw.readings == once.raw.readings


def test_forgetting_a_day_without_sessions_does_nothing() -> None:
    assert runs_in(weekly([[None]]).forgotten(READ + YEARS)) == []


@pytest.mark.parametrize("count", [100, pytest.param(500, marks=pytest.mark.long)])
def test_a_session_that_changes_at_each_reading_leaves_three_readings_after_forgetting_them(count: int) -> None:
    """The day's first reading, and that of the state before the cut with its successor."""
    day = weekly([[number] for number in range(count)])
    left = day.forgotten(READ + (count - 2) * timedelta(days=8)).raw.readings
    assert [one.number for one in left] == [1, count - 1, count]


# The workspace asked for, the sessions that it has, and the hour.
READ_OF = st.tuples(st.sampled_from([None, TENANT, OTHER_TENANT]), st.sets(st.integers(0, 2)), st.integers(-30, 60))


@settings(deadline=None, max_examples=60)
@given(st.lists(READ_OF, min_size=1), st.integers(0, 60))
# A reading without an id that saw nothing, then one with an id: the first belongs to that workspace, too.
@example([(TENANT, {0}, 0), (OTHER_TENANT, set(), 0), (None, set(), 0), (OTHER_TENANT, set(), 1), (None, {0}, 0)], 0)
def test_forgetting_readings_changes_neither_which_workspaces_are_open_nor_which_sessions_are_missing(
    said: list[tuple[str | None, set[int], int]], cut: int
) -> None:
    day, before = Readings(), READ + cut * HOUR
    for runs, (workspace, present, hour) in enumerate(said):
        tenants = {n: workspace or (TENANT, OTHER_TENANT)[n % 2] for n in present}
        texts = [payload(n, run_count=runs, tenant_id=tenant) for n, tenant in tenants.items()]
        reading = fetched(*texts, at=READ + hour * HOUR, workspace=workspace)
        day.raw = merge(day.raw, [reading])
    left = day.forgotten(before)
    for as_of in [None, *(one.fetched_at for one in day.raw.readings if one.fetched_at >= before)]:
        full, pruned = (readings_as_of(as_of, NOON.date(), one.raw.readings) for one in (day, left))
        # Of readings without sessions, only the latest matters.
        assert open_workspaces(NOON.date(), pruned) - {""} == open_workspaces(NOON.date(), full) - {""}
        assert gone_since(pruned) == gone_since(full)
        assert latest_readings(pruned) == latest_readings(full)


def runs_in(day: Readings) -> list[int]:
    rows = sorted(day.raw.rows.table().to_pylist(), key=lambda row: row["reading"])
    return [json.loads(row["payload"])["run_count"] for row in rows]
