"""The results of each check on small tables, among them one that fails."""

import json
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from sessions_pipeline.tables import (
    CHECKS,
    DAILY_COST_BY_ATTRIBUTE,
    DAILY_COST_BY_REFERENCE_DATASET,
    JUDGE_COST_BY_EXPERIMENT,
    RAW_SESSIONS,
    REJECTED_SESSIONS,
    SESSION_FEEDBACK,
    SESSIONS,
    TABLES,
    CheckResult,
    Table,
)
from sessions_pipeline.tables.readings import Reading, dump_readings
from sessions_pipeline.tables.table import columns_read
from sessions_pipeline_tests.builders import (
    NOON,
    OTHER_TENANT,
    TENANT,
    dataset,
    experiment,
    session,
    sessions_table,
    table_of,
    uuid,
)
from sessions_pipeline_tests.days import DAY, READ, day_of

NOTHING: dict[Table, pa.Table] = {table: table.schema.empty_table() for table in TABLES}
MIDNIGHT = NOON.replace(hour=0)


def found(name: str, tables: dict[Table, pa.Table], **more: Any) -> CheckResult:
    return CheckResult.merged([CHECKS[name].examine(day_of(tables, **more))])


def sessions(*rows: dict[str, Any]) -> dict[Table, pa.Table]:
    return {SESSIONS: sessions_table(*rows)}


def daily(table: Table = DAILY_COST_BY_REFERENCE_DATASET, **columns: Any) -> dict[Table, pa.Table]:
    row = {
        "tenant_id": TENANT,
        "reference_dataset_id": dataset(1),
        "session_count": 2,
        "priced_session_count": 1,
        "unpriced_session_count": 1,
        "zero_cost_with_tokens_count": 0,
        "total_cost": "1.5",
        "is_day_over": True,
        **columns,
    }
    return {table: table_of(table.name, [{name: row.get(name) for name in table.schema.names}])}


def rejected(*ids: str) -> dict[Table, pa.Table]:
    row = {**dict.fromkeys(REJECTED_SESSIONS.schema.names), "payload": "{}", "reasons": ["x: y"], "fetched_at": READ}
    return {
        REJECTED_SESSIONS: pa.Table.from_pylist([row | {"session_id": id_} for id_ in ids], REJECTED_SESSIONS.schema)
    }


def reading(received: int, repeated: int = 0, **more: Any) -> Reading:
    return Reading(1, READ, more.pop("asked", None), (TENANT,), received, repeated, 1, **more)


def committed(*readings: Reading) -> dict[str, Any]:
    """The metadata of a day whose raw file has these readings, and whose tables were made from them."""
    commit = {"commit": "1"}
    metadata = {
        RAW_SESSIONS: {"readings": dump_readings(readings), **commit},
        **dict.fromkeys((SESSIONS, REJECTED_SESSIONS), commit),
    }
    return {"metadata": metadata, "last_readings": readings}


def raw() -> dict[Table, pa.Table]:
    return {RAW_SESSIONS: NOTHING[RAW_SESSIONS]}


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_passes_on_a_day_without_sessions(name: str) -> None:
    day = committed(reading(0))
    day["metadata"] = {table: {"commit": "1", **day["metadata"].get(table, {})} for table in TABLES}
    assert found(name, NOTHING, **day).passed


@pytest.mark.parametrize("name", [name for name, check in CHECKS.items() if check.days == "run"])
def test_a_check_skips_a_day_without_the_tables_that_it_reads(name: str) -> None:
    assert found(name, {}) == CheckResult()


def test_every_check_has_a_description_and_belongs_to_a_table() -> None:
    for check in CHECKS.values():
        assert check.table in TABLES
        assert check.description.endswith(".")
        assert re.fullmatch(r"(.* )?[Cc]osts? .*; .*\.", check.consequence)
        assert set(check.reads) <= set(TABLES)
        assert all(name in table.schema.names for table, names in check.reads.items() for name in names)


def test_the_columns_that_several_checks_need_of_a_table_are_read_once() -> None:
    columns = columns_read(
        [CHECKS["session_ids_are_unique"], CHECKS["costs_add_up"], CHECKS["sessions_start_on_their_day"]]
    )
    assert columns[SESSIONS] == ("id", "tenant_id", "reference_dataset_id", "total_cost", "start_time")


def test_a_duplicate_session_is_named_even_if_on_two_days() -> None:
    check = CHECKS["session_ids_are_unique"]
    days = [check.examine(day_of(sessions(*rows))) for rows in ([session(1), session(2)], [session(3), session(1)])]
    assert CheckResult.merged(days[:1]).passed
    result = CheckResult.merged(days)
    assert (result.broken, result.counts) == ((uuid(1),), {"sessions": 4})
    assert found("session_ids_are_unique", sessions(session(1), session(1))).broken == (uuid(1),)


@pytest.mark.parametrize(
    ("start", "is_there"),
    [
        (MIDNIGHT, True),
        (MIDNIGHT + timedelta(days=1) - timedelta(microseconds=1), True),
        (MIDNIGHT - timedelta(microseconds=1), False),
        (MIDNIGHT + timedelta(days=1), False),
        (None, False),
    ],
)
def test_a_session_belongs_to_the_utc_day_it_started(start: Any, is_there: bool) -> None:
    rows = sessions(session(1, start_time=start))
    assert found("sessions_start_on_their_day", rows).passed is is_there
    assert found("sessions_start_on_their_day", rows, day=None).passed is (start is None)


def test_every_received_record_is_valid_rejected_or_repeated() -> None:
    tables = {**raw(), **sessions(session(1), session(2)), **rejected("a", "b", "c")}
    result = found("every_record_is_accounted_for", tables, **committed(reading(6, 1)))
    assert (result.passed, dict(result.counts)) == (True, {"received": 6, "valid": 2, "rejected": 3, "repeated": 1})
    for lost in (reading(7, 1), reading(6, 0), reading(5, 1)):
        assert not found("every_record_is_accounted_for", tables, **committed(lost)).passed


def test_a_session_that_is_gone_does_not_count_as_received() -> None:
    tables = {**raw(), **sessions(session(1), session(2, missing_since=READ)), **rejected(uuid(3).upper(), "b")}
    gone = reading(2, gone=(uuid(2), uuid(3)))
    assert found("every_record_is_accounted_for", tables, **committed(gone)).passed


@pytest.mark.parametrize("table", [SESSIONS, REJECTED_SESSIONS])
def test_tables_of_an_earlier_commit_are_not_compared_with_the_latest_reading(table: Table) -> None:
    day = committed(reading(9))
    assert not found("every_record_is_accounted_for", {**NOTHING, **sessions(session(1))}, **day).passed
    day["metadata"][table] = {"commit": "0"}
    assert found("every_record_is_accounted_for", {**NOTHING, **sessions(session(1))}, **day).passed
    assert not found("tables_of_a_day_agree", NOTHING, **day).passed


def test_tables_as_of_an_earlier_time_are_not_compared_with_the_latest_reading() -> None:
    day = committed(reading(9))
    day["metadata"][SESSIONS] = {"commit": "1", "as_of": READ.isoformat()}
    assert found("every_record_is_accounted_for", {**NOTHING, **sessions(session(1))}, **day).passed


def test_a_table_of_another_commit_is_named() -> None:
    tables = {table: NOTHING[table] for table in (RAW_SESSIONS, SESSIONS, SESSION_FEEDBACK)}
    metadata = {table: {"commit": "2"} for table in tables}
    assert found("tables_of_a_day_agree", tables, metadata=metadata).passed
    behind = found("tables_of_a_day_agree", tables, metadata={**metadata, SESSION_FEEDBACK: {"commit": "1"}})
    assert behind.broken == ("session_feedback of 2025-03-03",)
    foreign = found("tables_of_a_day_agree", tables, metadata={**metadata, SESSIONS: {}})
    assert foreign.broken == ("sessions of 2025-03-03",)


def test_a_session_whose_newest_reading_shrank_is_named() -> None:
    day = {"metadata": {SESSIONS: {"shrunk": json.dumps([uuid(1)])}}}
    assert found("no_reading_shrinks", sessions(session(1)), **day).broken == (uuid(1),)


def test_drift_is_named_with_its_count_and_day() -> None:
    day = {"metadata": {SESSIONS: {"drift": json.dumps({"colour": 1})}}}
    result = found("schema_has_not_drifted", sessions(session(1)), **day)
    assert (result.broken, result.counts) == ((f"colour (records on {DAY}: 1)",), {"colour": 1})


@pytest.mark.parametrize("name", ["longlived_ttl_days", "type"])
def test_drift_that_is_known_is_counted_but_no_failure(name: str) -> None:
    day = {"metadata": {SESSIONS: {"drift": json.dumps({name: 3})}}}
    result = found("schema_has_not_drifted", sessions(session(1)), **day)
    assert (result.broken, result.counts) == ((), {name: 3})


@pytest.mark.parametrize("name", ["trace_tier=new", "name=null", "without run_facets", "without total_cost"])
def test_new_values_and_lost_properties_are_a_failure(name: str) -> None:
    day = {"metadata": {SESSIONS: {"drift": json.dumps({name: 3, "type": 1})}}}
    assert found("schema_has_not_drifted", sessions(session(1)), **day).broken == (f"{name} (records on {DAY}: 3)",)


def test_an_unusable_cost_is_named_with_its_reason() -> None:
    rows = sessions(session(1, problems=["total_cost: is negative (-1)"]), session(2))
    result = found("costs_are_usable", rows)
    assert result.broken == (f"{uuid(1)}: total_cost: is negative (-1)",)
    assert result.counts == {"sessions": 2}


@pytest.mark.parametrize(("count", "passed"), [(1, True), (2, False)])
def test_more_than_one_in_twenty_rejected_records_are_reported_with_their_reason(count: int, passed: bool) -> None:
    tables = {**sessions(*(session(number) for number in range(19))), **rejected(*"ab"[:count])}
    result = found("rejected_share_is_low", tables)
    assert (result.passed, result.broken) == (passed, () if passed else ("2025-03-03: 2 of 21 (x: y)",))


def test_a_day_that_was_read_long_ago_or_never_is_not_fresh() -> None:
    last_readings = {"last_readings": (reading(1),), "now": READ + timedelta(hours=3)}
    assert found("recent_days_are_fresh", {}, **last_readings).passed
    late = found("recent_days_are_fresh", {}, **{**last_readings, "now": READ + timedelta(hours=3, seconds=1)})
    assert late.broken == ("2025-03-03: last read at 2025-03-04 06:00 UTC, over three hours ago",)
    never = found("recent_days_are_fresh", {}, day=date(2025, 3, 4))
    assert never.broken == ("2025-03-04: never read, or not in every workspace",)


@pytest.mark.parametrize(("seconds", "passed"), [(1, True), (3 * 3600, True), (3 * 3600 + 1, False)])
def test_a_day_that_began_during_the_run_may_be_unread_for_three_hours(seconds: int, passed: bool) -> None:
    now = datetime(2025, 3, 4, tzinfo=UTC) + timedelta(seconds=seconds)
    assert found("recent_days_are_fresh", {}, day=date(2025, 3, 4), now=now).passed is passed


@pytest.mark.parametrize(
    ("named", "broken"),
    [
        ((), "2025-03-03: last read at 2025-03-04 02:00 UTC, over three hours ago"),
        ((TENANT, OTHER_TENANT), "2025-03-03: last read at 2025-03-04 02:00 UTC, over three hours ago"),
        ((TENANT,), None),
        ((TENANT, uuid(3)), "2025-03-03: never read, or not in every workspace"),
    ],
)
def test_a_day_is_fresh_only_if_every_workspace_in_the_settings_was_read_lately(
    named: tuple[str, ...], broken: str | None
) -> None:
    """Without any in the settings, those that were read on the day count; one that left the settings does not."""
    last = (Reading(1, READ - timedelta(hours=4), OTHER_TENANT, (OTHER_TENANT,)), Reading(2, READ, TENANT, (TENANT,)))
    result = found("recent_days_are_fresh", {}, last_readings=last, workspaces=named)
    assert result.broken == ((broken,) if broken else ())


def test_sums_are_recomputed_to_the_last_digit() -> None:
    held = sessions(experiment(1, total_cost="1.5"), experiment(2), session(3, total_cost="99"))
    assert found("costs_add_up", {**held, **daily()}).passed
    for wrong in (
        daily(total_cost="1.500000000000000001"),
        daily(session_count=3),
        daily(reference_dataset_id=dataset(2)),
    ):
        assert not found("costs_add_up", {**held, **wrong}).passed


def test_sums_of_more_digits_than_pythons_usual_decimals_are_compared_exactly() -> None:
    held = sessions(
        experiment(1, total_cost="12345678901234567890.5"), experiment(2, total_cost="0.000000000000000001")
    )
    exact = "12345678901234567890.500000000000000001"
    assert found("costs_add_up", {**held, **daily(total_cost=exact)}).passed
    assert not found("costs_add_up", {**held, **daily(total_cost=exact[:-1] + "0")}).passed


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
def test_a_cost_must_be_unknown_exactly_if_no_session_is_priced(columns: dict[str, Any], kept: bool) -> None:
    assert found("no_cost_is_invented", daily(**columns)).passed is kept


@pytest.mark.parametrize(
    ("columns", "kept"),
    [
        ({}, True),
        ({"total_cost": "1.6"}, False),
        ({"session_count": 1}, False),
        ({"attribute": "other"}, False),
        ({"run_count": 1}, False),
    ],
)
def test_the_rows_of_an_attribute_must_add_up_to_the_dataset(columns: dict[str, Any], kept: bool) -> None:
    rows = {**daily(), **daily(DAILY_COST_BY_ATTRIBUTE, **{"attribute": "models", **columns})}
    metadata = {DAILY_COST_BY_ATTRIBUTE: {"attributes": '["models"]'}}
    assert found("attributes_add_up", rows, metadata=metadata).passed is kept
    none = {**rows, DAILY_COST_BY_ATTRIBUTE: NOTHING[DAILY_COST_BY_ATTRIBUTE]}
    assert not found("attributes_add_up", none, metadata=metadata).passed


def judges(**columns: Any) -> dict[Table, pa.Table]:
    row = {**dict.fromkeys(JUDGE_COST_BY_EXPERIMENT.schema.names), "id": uuid(1), "tenant_id": TENANT}
    row |= {"reference_dataset_id": dataset(1), "stats_as_of": READ, "read_at": READ, **columns}
    return {JUDGE_COST_BY_EXPERIMENT: table_of(JUDGE_COST_BY_EXPERIMENT.name, [row])}


def test_judges_must_belong_to_the_days_experiments_and_be_counted_once() -> None:
    held = sessions(experiment(1), session(2))
    assert found("judges_have_experiments", {**held, **judges()}).counts == {"experiments": 1}
    assert found("judges_have_experiments", {**held, **judges()}).passed
    for wrong in ({"id": uuid(3)}, {"tenant_id": dataset(9)}, {"reference_dataset_id": dataset(2)}, {"id": uuid(2)}):
        assert not found("judges_have_experiments", {**held, **judges(**wrong)}).passed
    twice = pa.concat_tables([*judges().values(), *judges().values()])
    assert found("judges_have_experiments", {**held, JUDGE_COST_BY_EXPERIMENT: twice}).broken == (uuid(1),)


@pytest.mark.parametrize(("columns", "kept"), [({}, True), ({"total_cost": "-0.1"}, False), ({"run_count": -1}, False)])
def test_judge_costs_must_not_be_negative(columns: dict[str, Any], kept: bool) -> None:
    assert found("judges_have_experiments", {**sessions(experiment(1)), **judges(**columns)}).passed is kept
