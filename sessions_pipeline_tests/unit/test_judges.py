"""Pure functions for judges: which experiments are due, how a reading is merged, and the sums."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from sessions_pipeline.outputs.spending import JudgeReading, JudgeReadings, Totals, load_judge_readings, with_judges
from sessions_pipeline.tables import JUDGE_COST_BY_EXPERIMENT as JUDGES
from sessions_pipeline.tables.judge_cost_by_experiment import NEEDED, YOUNG, Due, due, merge_judges
from sessions_pipeline_tests.builders import (
    NOON,
    OTHER_TENANT,
    TENANT,
    dataset,
    experiment,
    sessions_table,
    table_of,
    uuid,
)
from sessions_pipeline_tests.builders_report import daily

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


def chosen(*rows: dict[str, Any], measured: tuple[int, ...] = (), most: int = 100) -> Due:
    """The experiments of these that are due at noon. Those in `measured` were measured before, in this order."""
    known = {uuid(number): NOON - DAY + place * MINUTE for place, number in enumerate(measured)}
    return due(sessions_table(*rows).select(NEEDED), known, now=NOON, most=most, young=YOUNG)


def numbers(found: Due) -> list[int]:
    return [int(row["id"][-12:]) for row in found.rows]


@pytest.mark.parametrize(
    ("started", "last_run", "is_measured", "is_due"),
    [
        (NOON - MINUTE, None, False, True),
        (NOON - MINUTE, None, True, True),
        (NOON - 3 * DAY, None, True, False),
        (NOON - 3 * DAY, None, False, True),
        (NOON - 14 * DAY + MINUTE, None, False, True),
        (NOON - 14 * DAY, None, False, False),
        (NOON - 14 * DAY, NOON - 3 * DAY, False, False),
        (NOON - 99 * DAY, NOON - 2 * DAY, True, True),
        (NOON - 99 * DAY, NOON - 2 * DAY - MINUTE, True, False),
        (None, NOON - DAY, True, True),
        (None, NOON - 13 * DAY, False, True),
        (None, None, False, False),
    ],
)
def test_experiments_are_due_if_they_ran_within_two_days_or_were_never_measured_and_are_under_14_days_old(
    started: datetime | None, last_run: datetime | None, is_measured: bool, is_due: bool
) -> None:
    for name in ("last_run_start_time", "last_run_start_time_live"):
        rows = experiment(1, start_time=started, **{name: last_run})
        found = chosen(rows, measured=(1,) if is_measured else ())
        assert numbers(found) == [1] * is_due
        too_old = not is_measured and not is_due
        assert found.skipped == ({"never measured, and older than 14 days": 1} if too_old else {})


def test_unmeasured_experiments_are_due_first_then_those_measured_longest_ago_and_the_rest_is_counted() -> None:
    rows = [experiment(number, start_time=NOON - number * MINUTE) for number in (3, 1, 4, 2)]
    assert numbers(chosen(*rows)) == [4, 3, 2, 1]
    assert numbers(chosen(*rows, measured=(4, 2))) == [3, 1, 4, 2]
    found = chosen(*rows, most=1)
    assert numbers(found) == [4]
    assert found.skipped == {"more than SESSIONS_PIPELINE_JUDGE_REQUESTS": 3}
    assert numbers(chosen(*rows, most=0)) == []


def test_experiments_that_share_a_name_are_skipped_however_old_the_other_is() -> None:
    one, old = experiment(1, name="x"), experiment(2, name="x", start_time=NOON - 400 * DAY)
    assert chosen(one, old, measured=(2,)).skipped == {"another experiment has the same name": 1}
    # One experiment that is on two days does not share its name with itself.
    assert numbers(chosen(one, {**old, "id": uuid(1)})) == [1]


@pytest.mark.parametrize(
    ("gone", "read", "now"),
    [((None, None), (0, 1), 1), ((None, 2), (0, 1), 0), ((3, None), (1, 0), 1), ((2, 3), (1, 0), 1)],
)
def test_an_experiment_on_two_days_is_measured_once_where_it_stands_now(
    gone: tuple[int | None, ...], read: tuple[int, ...], now: int
) -> None:
    starts = [NOON - DAY, NOON - MINUTE]
    rows = [
        experiment(1, start_time=start, fetched_at=NOON + at * DAY, missing_since=since and NOON + since * DAY)
        for start, at, since in zip(starts, read, gone, strict=True)
    ]
    for found in (chosen(*rows), chosen(*reversed(rows))):
        assert [row["start_time"] for row in found.rows] == [starts[now]]


@pytest.mark.parametrize("name", [None, "", "a\x00b", "\n", "\x1b[31m", "\x7f", "\x9b", "x" * 501])
def test_experiments_whose_names_a_filter_can_not_hold_are_skipped(name: str | None) -> None:
    found = chosen(experiment(1, name=name), experiment(2, name=name))
    reason = (
        "the name has over 500 characters"
        if name and len(name) > 500
        else "the name is empty or has control characters"
    )
    assert (numbers(found), found.skipped) == ([], {reason: 2})


def judged(number: int, runs: int | None, cost: str | None, at: datetime, **more: Any) -> dict[str, Any]:
    row = {**dict.fromkeys(JUDGES.schema.names), "id": uuid(number), "tenant_id": TENANT}
    row |= {"reference_dataset_id": dataset(1), "run_count": runs, "total_cost": cost and Decimal(cost)}
    return {**row, "stats_as_of": at, "read_at": at, **more}


@pytest.mark.parametrize(
    ("runs", "cost", "age", "kept"),
    [
        (11, "1.1", 3, False),
        (10, "1.2", 99, False),
        (0, "0", 3, True),
        (None, None, 3, True),
        (4, "0.4", 3, False),
        (4, "0.4", 14, True),
    ],
)
def test_a_reading_emptied_by_retention_never_replaces_an_earlier_one(
    runs: int | None, cost: str | None, age: int, kept: bool
) -> None:
    held, later = judged(1, 10, "1.0", NOON), NOON + DAY
    new = judged(1, runs, cost, later, start_time=later - age * DAY)
    (row,) = merge_judges(table_of(JUDGES.name, [held]), [new]).to_pylist()
    assert row["run_count"] == (10 if kept else runs)
    assert row["total_cost"] == (Decimal("1.0") if kept else cost and Decimal(cost))
    assert (row["stats_as_of"], row["read_at"]) == (NOON if kept else later, later)


@pytest.mark.parametrize("counted", [0, None])
@pytest.mark.parametrize("runs", [0, None])
def test_a_cost_that_was_read_is_kept_even_if_runs_are_not_counted(runs: int | None, counted: int | None) -> None:
    held, emptied = judged(1, counted, "1.0", NOON), judged(1, runs, None, NOON + DAY, start_time=NOON)
    (row,) = merge_judges(table_of(JUDGES.name, [held]), [{**emptied, "total_tokens": None}]).to_pylist()
    assert (row["total_cost"], row["stats_as_of"]) == (Decimal("1.0"), NOON)


def test_a_later_reading_stored_by_another_run_wins_and_other_rows_stay() -> None:
    stored = [
        judged(1, 10, "1.0", NOON + DAY),
        judged(2, 1, "2", NOON),
        judged(1, 1, "3", NOON, tenant_id=OTHER_TENANT),
    ]
    earlier = judged(1, 9, "0.9", NOON, start_time=NOON)
    assert merge_judges(table_of(JUDGES.name, stored), [earlier]) == table_of(JUDGES.name, stored)


def test_the_whole_cost_is_unknown_if_a_part_is_and_sums_count_the_known_ones() -> None:
    one, two = Decimal("1.000000000000000001"), Decimal(2)
    for own, judges, whole in ((one, two, Decimal("3.000000000000000001")), (one, None, None), (None, two, None)):
        owner = {"start_date": NOON.date(), "tenant_id": TENANT, "id": uuid(1)}
        [row] = with_judges([{**owner, "total_cost": own}], [{**owner, "total_cost": judges}])
        assert (row["total_cost"], row["judge_cost"], row["whole_cost"]) == (own, judges, whole)
    totals = Totals.of([daily(NOON.date(), 1, str(one), session_count=4)], [{"total_cost": two}, {"total_cost": None}])
    assert (totals.cost, totals.judge_cost, totals.whole_cost) == (one, two, Decimal("3.000000000000000001"))
    assert (totals.sessions, totals.judges_measured, totals.judges_unknown, totals.unjudged) == (4, 2, 1, 3)
    nothing = Totals.of([], [])
    assert (nothing.cost, nothing.judge_cost, nothing.whole_cost, nothing.unjudged) == (None, None, None, 0)


def test_a_stored_reading_keeps_every_digit_and_a_broken_one_is_ignored() -> None:
    total = Decimal("12345678901234567890.000000000000000001")
    reading = JudgeReading("evaluators", total, Decimal("0.5"), total - 1, False, NOON, {"a reason": 2})
    for one in (reading, JudgeReading("x", None, Decimal(0), None, True, NOON, {})):
        kept = JudgeReadings({TENANT: one}, {"x": "a problem"})
        assert load_judge_readings(msgspec.json.encode(kept)) == kept
    for broken in (None, b"", b"{", b"[]", b'{"readings": [{}]}', b"1", b'{"problems": {"\xff": ""}}'):
        assert load_judge_readings(broken) == JudgeReadings()
