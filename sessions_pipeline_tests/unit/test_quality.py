"""What the promises' examinations find, on small tables."""

from collections import Counter
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from sessions_pipeline.tables import REJECTED_SESSIONS, quality
from sessions_pipeline.tables.readings import Reading
from sessions_pipeline_tests.builders import (
    NOON,
    TENANT,
    dataset,
    experiment,
    on_day,
    session,
    sessions_table,
    table_of,
    uuid,
)

DAY = NOON.date()
READ = NOON + timedelta(days=1)


def sessions(*rows: dict[str, Any]) -> pa.Table:
    return on_day(DAY, sessions_table(*rows))


def daily(**columns: Any) -> pa.Table:
    row = {
        "tenant_id": TENANT,
        "reference_dataset_id": dataset(1),
        "session_count": 2,
        "priced_session_count": 1,
        "unpriced_session_count": 1,
        "zero_cost_with_tokens_count": 0,
        "total_cost": "1.5",
        **columns,
    }
    return on_day(DAY, table_of("daily_cost_by_reference_dataset", [row]))


def reading(received: int, repeated: int = 0, *, at: timedelta = timedelta(0)) -> Reading:
    return Reading(READ + at, None, (TENANT,), received, repeated, 1, received)


def rejected(count: int) -> pa.Table:
    row = {**dict.fromkeys(REJECTED_SESSIONS.schema.names), "payload": "{}", "reasons": ["x"], "fetched_at": READ}
    return pa.Table.from_pylist([row] * count, REJECTED_SESSIONS.schema)


def test_a_session_that_is_there_twice_is_named() -> None:
    assert quality.session_ids_are_unique(sessions(session(1), session(2))).passed
    found = quality.session_ids_are_unique(sessions(session(1), session(2), session(1)))
    assert not found.passed
    assert found.numbers == {"sessions": 3, "broken": 1, "which": uuid(1)}


def test_no_sessions_break_no_promise() -> None:
    nothing = sessions()
    assert quality.session_ids_are_unique(nothing).passed
    assert quality.sessions_start_on_their_day(nothing).passed
    assert quality.costs_add_up(daily().slice(1), nothing).passed
    assert quality.no_cost_is_invented(daily().slice(1)).passed


@pytest.mark.parametrize(
    ("start", "is_there"),
    [
        (NOON.replace(hour=0, minute=0), True),
        (NOON.replace(hour=23, minute=59, second=59, microsecond=999_999), True),
        (NOON.replace(hour=0) - timedelta(microseconds=1), False),
        (NOON.replace(hour=0) + timedelta(days=1), False),
        (None, False),
    ],
)
def test_a_session_belongs_to_the_utc_day_it_started(start: Any, is_there: bool) -> None:
    assert quality.sessions_start_on_their_day(sessions(session(1, start_time=start))).passed is is_there


def test_what_was_received_is_valid_rejected_or_repeated() -> None:
    held = sessions(session(1, fetched_at=READ), session(2, fetched_at=READ))
    assert quality.every_record_is_accounted_for([reading(6, 1)], held, rejected(3)) == (6, 2, 3, 1)


def test_sessions_of_earlier_readings_and_missing_ones_are_not_in_the_latest_account() -> None:
    held = sessions(
        session(1, fetched_at=READ),
        session(2, fetched_at=READ - timedelta(days=1), missing_since=READ),
        session(3, fetched_at=READ - timedelta(days=1)),
    )
    before = reading(9, at=-timedelta(days=1))
    assert quality.every_record_is_accounted_for([before, reading(1)], held, rejected(0)) == (1, 1, 0, 0)


def test_the_workspaces_of_one_run_are_one_account() -> None:
    later = timedelta(microseconds=1)
    held = sessions(session(1, fetched_at=READ), session(2, fetched_at=READ + later))
    readings = [reading(1), reading(2, 1, at=later)]
    assert quality.every_record_is_accounted_for(readings, held, rejected(0)) == (3, 2, 0, 1)


def test_sums_are_made_again_to_the_last_digit() -> None:
    held = sessions(experiment(1, total_cost="1.5"), experiment(2), session(3, total_cost="99"))
    assert quality.costs_add_up(daily(), held).passed
    assert quality.costs_add_up(daily(), held).numbers["total_cost"] == str(
        Decimal("1.5").quantize(Decimal(1).scaleb(-18))
    )
    assert not quality.costs_add_up(daily(total_cost="1.500000000000000001"), held).passed
    assert not quality.costs_add_up(daily(session_count=3), held).passed
    assert not quality.costs_add_up(daily(reference_dataset_id=dataset(2)), held).passed


@pytest.mark.parametrize(
    ("columns", "kept"),
    [
        ({}, True),
        ({"priced_session_count": 0, "unpriced_session_count": 2, "total_cost": None}, True),
        ({"priced_session_count": 0, "unpriced_session_count": 2, "total_cost": "0"}, False),
        ({"total_cost": None}, False),
        ({"session_count": 3}, False),
    ],
)
def test_a_cost_is_unknown_exactly_where_nothing_is_priced(columns: dict[str, Any], kept: bool) -> None:
    assert quality.no_cost_is_invented(daily(**columns)).passed is kept


def test_a_day_that_was_not_read_lately_or_never_is_not_fresh() -> None:
    allowed = timedelta(hours=3)
    fresh = {DAY: READ - timedelta(hours=3)}
    assert quality.recent_days_are_fresh(fresh, READ, allowed).passed
    assert not quality.recent_days_are_fresh(fresh, READ + timedelta(seconds=1), allowed).passed
    never = quality.recent_days_are_fresh({**fresh, date(2025, 3, 4): None}, READ, allowed)
    assert never.numbers["which"] == "2025-03-04"


def test_drift_is_named_with_its_count_and_first_day() -> None:
    assert quality.schema_has_not_drifted({}).passed
    found = quality.schema_has_not_drifted({"colour": (3, DAY)})
    assert (found.passed, found.numbers) == (False, {"drift": {"colour": f"3 records, first on {DAY}"}})


@pytest.mark.parametrize(("count", "passed"), [(5, True), (6, False)])
def test_a_share_of_rejected_records_beyond_the_limit_is_told_with_its_reasons(count: int, passed: bool) -> None:
    found = quality.rejected_share_is_low(100 - count, count, Counter({"x": count}), 0.05)
    assert (found.passed, found.numbers["reasons"]) == (passed, {"x": count})
    assert quality.rejected_share_is_low(0, 0, Counter(), 0.05).passed


def test_at_most_twenty_broken_things_are_named() -> None:
    twice = [session(number % 30) for number in range(60)]
    found = quality.session_ids_are_unique(sessions(*twice))
    assert found.numbers["broken"] == 30
    assert found.numbers["which"].count(",") == 19
