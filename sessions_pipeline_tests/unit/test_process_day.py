"""Processing a day several times keeps earlier readings and costs, and writes a table only if it changes."""

import gc
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sessions_pipeline.errors import LakeError, NotReadError, SumOverflowError
from sessions_pipeline.lake.layout import UNDATED
from sessions_pipeline.langsmith.records import RAW_SCHEMA, read_page, records_table
from sessions_pipeline.process_day import DayResult
from sessions_pipeline.tables import (
    DAILY_COST_BY_ATTRIBUTE,
    DAILY_COST_BY_REFERENCE_DATASET,
    RAW_SESSIONS,
    REJECTED_SESSIONS,
    SESSION_FEEDBACK,
    SESSIONS,
)
from sessions_pipeline.tables.day_metadata import open_days
from sessions_pipeline.tables.readings import RawDay, Reading, load_readings
from sessions_pipeline.tables.rows import Rows
from sessions_pipeline_tests.builders import OTHER_TENANT, TENANT, dataset, payload, uuid
from sessions_pipeline_tests.days import DAILY, DAY, HOUR, READ, ProcessedDay, fetched

EXPERIMENT = {"reference_dataset_id": dataset(1), "total_cost": "1.5", "run_count": 10, "total_tokens": 5}


@pytest.fixture(name="day")
def _day(tmp_path: Path) -> ProcessedDay:
    return ProcessedDay(tmp_path)


def learned(result: DayResult) -> bool:
    """Whether the readings brought anything new, so that the raw file was replaced."""
    return RAW_SESSIONS.name in result.written


def test_a_first_reading_makes_all_tables_of_the_day(day: ProcessedDay) -> None:
    result = day.read(fetched(payload(1, **EXPERIMENT), payload(2, run_count="x")))
    assert set(result.written) == set(DAILY)
    assert result.exceeded is None
    assert [row["id"] for row in day.rows(SESSIONS)] == [uuid(1)]
    assert day.row(REJECTED_SESSIONS)["session_id"] == uuid(2)
    assert day.row(DAILY_COST_BY_REFERENCE_DATASET)["total_cost"] == Decimal("1.5")
    assert result.metadata["raw_sessions"]["new_or_changed"] == 2
    assert result.metadata["sessions"]["total_cost"] == "1.5"


def test_the_cost_in_dagsters_metadata_is_exact_and_not_counted_once_for_each_attribute(day: ProcessedDay) -> None:
    metadata = day.read(
        fetched(payload(1, **{**EXPERIMENT, "total_cost": "12345678901234567890.123456789012345678"}))
    ).metadata
    assert metadata["sessions"]["total_cost"] == "12345678901234567890.123456789012345678"
    assert "total_cost" not in metadata["daily_cost_by_attribute"]


def test_a_day_without_sessions_has_tables_without_rows(day: ProcessedDay) -> None:
    assert set(day.read(fetched()).written) == set(DAILY)
    assert day.rows(SESSIONS) == day.rows(RAW_SESSIONS) == []


def test_a_days_rows_are_freed_without_the_garbage_collector(day: ProcessedDay) -> None:
    day.read(fetched())
    gc.collect()
    gc.disable()
    try:
        before = pa.total_allocated_bytes()
        day.read(fetched(*(payload(number, **EXPERIMENT) for number in range(50)), at=READ + HOUR))
        assert pa.total_allocated_bytes() == before
    finally:
        gc.enable()


def test_a_refresh_without_changes_rewrites_no_table_and_stores_when_the_day_was_read(day: ProcessedDay) -> None:
    day.read(fetched(payload(1)))
    before = day.versions()
    result = day.read(fetched(payload(1), at=READ + HOUR))
    assert result.written == {}
    assert day.versions() == before
    noted = json.loads(day.lake.read_file("_readings/start_date=2025-03-03.json"))
    assert [(datetime.fromisoformat(one["fetched_at"]), one["received"]) for one in noted] == [(READ + HOUR, 1)]
    assert day.check("recent_days_are_fresh", READ + 4 * HOUR).passed
    assert not day.check("recent_days_are_fresh", READ + 4 * HOUR + timedelta(seconds=1)).passed


@pytest.mark.parametrize(
    "second",
    [
        [payload(1, name="other")],
        [payload(1), payload(2)],
        [],
        [payload(1, run_count=None)],
    ],
    ids=["changed", "new", "gone", "spelt otherwise"],
)
def test_a_refresh_with_changes_rewrites_all_tables(day: ProcessedDay, second: list[str]) -> None:
    day.read(fetched(payload(1)))
    before = day.versions()
    assert set(day.read(fetched(*second, at=READ + HOUR)).written) == set(DAILY)
    assert all(version != before[name] for name, version in day.versions().items())
    assert not day.broken_checks()


def test_checks_pass_when_a_day_is_read_twice_with_and_without_changes(day: ProcessedDay) -> None:
    for hour, texts in enumerate(([payload(1, **EXPERIMENT)], [payload(1, **EXPERIMENT)], [payload(2), "{}"], ["{}"])):
        day.read(fetched(*texts, at=READ + hour * HOUR), max_rejected_ratio=1.0)
        assert set(day.broken_checks(READ + hour * HOUR)) <= {"rejected_share_is_low"}


def test_a_row_has_the_time_of_the_reading_that_first_had_its_values(day: ProcessedDay) -> None:
    day.read(fetched(payload(1), payload(2)))
    day.read(fetched(payload(1), payload(2, name="new"), at=READ + HOUR))
    assert day.row(SESSIONS, id=uuid(1))["fetched_at"] == READ
    assert day.row(SESSIONS, id=uuid(2))["fetched_at"] == day.row(SESSIONS, id=uuid(2))["stats_as_of"] == READ + HOUR
    assert Counter(row["reading"] for row in day.rows(RAW_SESSIONS)) == {1: 2, 2: 1}


def test_a_session_that_is_gone_stays_with_the_time_of_its_loss_until_it_is_back(day: ProcessedDay) -> None:
    day.read(fetched(payload(1, **EXPERIMENT), payload(2)))
    day.read(fetched(payload(2), at=READ + HOUR))
    assert not learned(day.read(fetched(payload(2), at=READ + 2 * HOUR)))
    assert day.row(SESSIONS, id=uuid(1))["missing_since"] == READ + HOUR
    assert day.row(DAILY_COST_BY_REFERENCE_DATASET)["total_cost"] == Decimal("1.5")
    assert learned(day.read(fetched(payload(1, **EXPERIMENT), payload(2), at=READ + 3 * HOUR)))
    assert day.row(SESSIONS, id=uuid(1))["missing_since"] is None
    day.again(as_of=READ + 2 * HOUR)
    assert day.row(SESSIONS, id=uuid(1))["missing_since"] == READ + HOUR


def test_the_first_reading_after_the_end_of_a_day_marks_it_as_over(day: ProcessedDay) -> None:
    noon, midnight = datetime(2025, 3, 3, 12, tzinfo=UTC), datetime(2025, 3, 4, tzinfo=UTC)
    day.read(fetched(payload(1, **EXPERIMENT), at=noon))
    assert day.row(DAILY_COST_BY_REFERENCE_DATASET)["is_day_over"] is False
    assert not learned(day.read(fetched(payload(1, **EXPERIMENT), at=midnight - timedelta(microseconds=1))))
    assert learned(day.read(fetched(payload(1, **EXPERIMENT), at=midnight)))
    assert day.row(DAILY_COST_BY_REFERENCE_DATASET)["is_day_over"] is True
    assert not learned(day.read(fetched(payload(1, **EXPERIMENT), at=midnight + HOUR)))


def test_a_day_without_sessions_is_over_only_when_it_was_read_after_its_end(day: ProcessedDay) -> None:
    for at, is_over in ((READ - 18 * HOUR, False), (READ - 17 * HOUR, False), (READ, True)):
        day.read(fetched(at=at))
        assert open_days(*day.lake.load_days(DAILY_COST_BY_REFERENCE_DATASET, [DAY])) == (set() if is_over else {DAY})


def test_a_day_is_over_once_each_workspace_was_read_after_its_end_also_one_without_sessions(day: ProcessedDay) -> None:
    """Exports, weeks and months take it from the file, since a workspace without experiments has no row."""
    found = []
    for workspace, at in ((OTHER_TENANT, READ - 12 * HOUR), (TENANT, READ), (OTHER_TENANT, READ + HOUR)):
        texts = [payload(1, **EXPERIMENT)] if workspace == TENANT else []
        day.read(fetched(*texts, workspace=workspace, at=at))
        found.append(open_days(*day.lake.load_days(DAILY_COST_BY_REFERENCE_DATASET, [DAY])))
    assert found == [{DAY}, {DAY}, set()]


def test_a_day_is_over_once_the_keys_own_workspace_was_read_after_its_end(day: ProcessedDay) -> None:
    """Also if no session is left that names it."""
    for number, texts in enumerate(([], [payload(1, **EXPERIMENT)], [])):
        day.read(fetched(*texts, at=READ + (number - 2) * 9 * HOUR))
    assert day.row(DAILY_COST_BY_REFERENCE_DATASET)["is_day_over"] is True
    assert day.lake.metadata(DAILY_COST_BY_REFERENCE_DATASET, day.day)["is_day_over"] == "true"


def test_a_first_reading_of_a_workspace_rewrites_the_tables_even_if_it_has_no_sessions(day: ProcessedDay) -> None:
    day.read(fetched(payload(1), workspace=TENANT))
    assert learned(day.read(fetched(workspace=OTHER_TENANT, at=READ + HOUR)))
    assert not learned(day.read(fetched(workspace=OTHER_TENANT, at=READ + 2 * HOUR)))
    assert day.row(SESSIONS)["missing_since"] is None


def test_a_first_reading_by_id_is_stored_although_one_without_an_id_saw_nothing(day: ProcessedDay) -> None:
    """Else weeks and months would not be summed again, and would stay incomplete."""
    day.read(fetched())
    for hour, workspace in enumerate((OTHER_TENANT, TENANT), start=1):
        assert learned(day.read(fetched(workspace=workspace, at=READ + hour * HOUR)))
        assert not learned(day.read(fetched(workspace=workspace, at=READ + hour * HOUR)))


def test_a_reading_of_one_workspace_changes_nothing_of_another(day: ProcessedDay) -> None:
    day.read(fetched(payload(1), workspace=TENANT))
    day.read(fetched(payload(2, tenant_id=OTHER_TENANT), workspace=OTHER_TENANT, at=READ + HOUR))
    assert {row["id"]: row["missing_since"] for row in day.rows(SESSIONS)} == {uuid(1): None, uuid(2): None}
    assert not day.broken_checks(READ + HOUR)


def test_a_reading_of_the_keys_own_workspace_changes_nothing_of_one_that_was_read_by_its_id(day: ProcessedDay) -> None:
    day.read(fetched(payload(1), workspace=TENANT))
    day.read(fetched(payload(2, tenant_id=OTHER_TENANT), at=READ + HOUR))
    assert [row["missing_since"] for row in day.rows(SESSIONS)] == [None, None]


def test_a_record_of_another_workspace_than_asked_is_rejected_with_that_reason(day: ProcessedDay) -> None:
    foreign = payload(2, tenant_id=OTHER_TENANT)
    day.read(fetched(payload(1), foreign, workspace=TENANT), fetched(foreign, workspace=OTHER_TENANT))
    assert day.row(REJECTED_SESSIONS)["reasons"] == [f"tenant_id: is not the workspace asked for ({TENANT})"]
    assert {row["id"] for row in day.rows(SESSIONS)} == {uuid(1), uuid(2)}
    assert day.check("every_record_is_accounted_for").passed
    day.read(fetched(payload(1), workspace=TENANT, at=READ + HOUR))
    assert day.check("every_record_is_accounted_for").passed


@pytest.mark.parametrize("text", ['{"x": 1}', payload(2, tenant_id=None), payload(2, tenant_id=dataset(1)), "null"])
def test_two_workspaces_that_send_the_same_text_are_two_records(day: ProcessedDay, text: str) -> None:
    """Such a record does not name its workspace, or a third one."""
    both = [(TENANT, [payload(1), text]), (OTHER_TENANT, [text])]
    for hour in range(3):
        result = day.read(*(fetched(*texts, workspace=one, at=READ + hour * HOUR) for one, texts in both))
        assert learned(result) is (hour == 0)
        assert [row["payload"] for row in day.rows(REJECTED_SESSIONS)] == [text, text]
        assert "every_record_is_accounted_for" not in day.broken_checks(READ + hour * HOUR)
    for hour, number, workspace in ((3, 1, TENANT), (4, 0, OTHER_TENANT)):
        for is_news in (True, False):
            result = day.read(fetched(*[payload(1)] * number, workspace=workspace, at=READ + hour * HOUR))
            assert learned(result) is is_news
            assert day.check("every_record_is_accounted_for").passed
    assert day.row(SESSIONS)["missing_since"] is None


@pytest.mark.parametrize("tenant_id", ["x", None, 7, OTHER_TENANT])
@pytest.mark.parametrize("asked", [TENANT, None])
def test_a_session_whose_tenant_id_turns_wrong_moves_to_rejected_and_back(
    day: ProcessedDay, tenant_id: Any, asked: str | None
) -> None:
    is_valid = asked is None and tenant_id == OTHER_TENANT
    for hour, sent in enumerate((TENANT, tenant_id, TENANT, tenant_id)):
        texts = payload(1, tenant_id=sent), payload(2)
        for is_news in (True, False):
            assert learned(day.read(fetched(*texts, workspace=asked, at=READ + hour * HOUR))) is is_news
        valid = [uuid(1)] * (sent == TENANT or is_valid) + [uuid(2)]
        assert [row["id"] for row in day.rows(SESSIONS)] == valid
        assert len(day.rows(REJECTED_SESSIONS)) == 2 - len(valid)
        assert set(day.broken_checks(READ + hour * HOUR)) <= {"rejected_share_is_low"}


def test_a_copy_of_a_session_from_another_workspace_never_replaces_it(day: ProcessedDay) -> None:
    """Also if the copy names no workspace."""
    own = fetched(payload(1), workspace=TENANT)
    for hour, tenant_id in enumerate((None, "x", TENANT)):
        copy = fetched(payload(1, tenant_id=tenant_id, name="copy"), workspace=OTHER_TENANT, at=READ + hour * HOUR)
        day.read(own, copy)
        assert (day.row(SESSIONS)["name"], len(day.rows(REJECTED_SESSIONS))) == ("session 1", 1)
        assert day.check("every_record_is_accounted_for").passed
    day.read(fetched(workspace=TENANT, at=READ + 3 * HOUR))
    assert day.row(SESSIONS)["missing_since"] == READ + 3 * HOUR
    assert day.check("every_record_is_accounted_for").counts["rejected"] == 1


def test_a_session_that_two_workspaces_send_under_the_name_of_one_is_valid_there_alone(day: ProcessedDay) -> None:
    """Also if the other one once sent it under its own name."""
    moved = payload(1, tenant_id=OTHER_TENANT)
    for hour, (one, other) in enumerate((([payload(1)], []), ([moved], [moved]), ([], [moved]))):
        at = READ + hour * HOUR
        both = fetched(*one, workspace=TENANT, at=at), fetched(*other, workspace=OTHER_TENANT, at=at)
        assert [learned(day.read(*both)) for _ in range(2)] == [True, False]
        assert day.row(SESSIONS)["tenant_id"] == (OTHER_TENANT if hour else TENANT)
        assert len(day.rows(REJECTED_SESSIONS)) == min(hour, 1)
        assert day.check("every_record_is_accounted_for").passed


def test_a_day_that_is_empty_in_the_keys_own_workspace_is_fresh_after_the_ids_are_unset(day: ProcessedDay) -> None:
    """The empty reading does not say which workspace it is from, so those by id stay the latest of theirs."""
    day.read(fetched(workspace=TENANT), fetched(payload(2, tenant_id=OTHER_TENANT), workspace=OTHER_TENANT))
    day.read(fetched(at=READ + 6 * HOUR))
    assert day.check("recent_days_are_fresh", READ + 9 * HOUR).passed
    assert not day.check("recent_days_are_fresh", READ + 10 * HOUR).passed


@pytest.mark.parametrize("is_deleted", [False, True])
@pytest.mark.parametrize("text", ["null", payload(3, tenant_id="x"), payload(3, tenant_id=None)])
def test_setting_the_workspace_ids_later_counts_no_record_twice_that_names_no_workspace(
    day: ProcessedDay, text: str, is_deleted: bool
) -> None:
    """Also if it is deleted meanwhile, or the ids are unset again."""
    own, other = payload(1), payload(2, tenant_id=OTHER_TENANT)
    for hour, is_one_key in enumerate((True, False, True, False)):
        texts = [own] if is_deleted and hour else [own, text]
        for is_news in (True, False):
            at = READ + hour * HOUR
            by_id = fetched(*texts, workspace=TENANT, at=at), fetched(other, workspace=OTHER_TENANT, at=at)
            result = day.read(*((fetched(*texts, other, at=at),) if is_one_key else by_id), max_rejected_ratio=1.0)
            assert learned(result) is (is_news and (hour < 2 or not is_deleted))
            assert day.check("every_record_is_accounted_for", at).passed


def test_a_record_that_came_after_the_ids_were_unset_is_not_missing_once_only_another_workspace_is_read(
    day: ProcessedDay,
) -> None:
    own, other = payload(1), payload(2, tenant_id=OTHER_TENANT)
    day.read(fetched(own, workspace=TENANT))
    day.read(fetched(own, other, payload(3, tenant_id=None), at=READ + HOUR), max_rejected_ratio=1.0)
    day.read(fetched(other, workspace=OTHER_TENANT, at=READ + 2 * HOUR), max_rejected_ratio=1.0)
    readings = load_readings(day.lake.metadata(RAW_SESSIONS, DAY)["readings"])
    assert [reading.gone for reading in readings if reading.gone] == []


def test_setting_the_workspace_ids_later_counts_no_reading_twice(day: ProcessedDay) -> None:
    """The key has seen two workspaces, or two keys one each."""
    own, other = payload(1), payload(2, tenant_id=OTHER_TENANT)
    day.read(fetched(own, other))
    day.read(fetched(own, workspace=TENANT), fetched(other, workspace=OTHER_TENANT))
    assert day.check("every_record_is_accounted_for").counts["received"] == 2
    assert day.check("every_record_is_accounted_for").passed


def test_reading_only_one_of_a_keys_workspaces_from_now_on_leaves_no_check_red(day: ProcessedDay) -> None:
    """The reading of all workspaces stays the latest of the others, and counts the one's records, too."""
    own, other, new = payload(1), payload(2, tenant_id=OTHER_TENANT), payload(3)
    day.read(fetched(own, other))
    for hour, texts in enumerate(([own], [own, new], [], [new]), start=1):
        day.read(fetched(*texts, workspace=TENANT, at=READ + hour * HOUR))
        assert day.check("every_record_is_accounted_for").passed
    day.lake.replace(SESSIONS, DAY, day.lake.read(SESSIONS, DAY).slice(0, 0), day.lake.metadata(SESSIONS, DAY))
    assert not day.check("every_record_is_accounted_for").passed


@pytest.mark.parametrize("sent", [("x", "", TENANT, TENANT), (TENANT, "x", "", "y"), (TENANT, "", "x", TENANT)])
def test_a_record_that_names_its_workspace_only_now_and_then_is_counted_once(
    day: ProcessedDay, sent: tuple[str, ...]
) -> None:
    """Until it first does, it has another key, under which it may be noted as missing."""
    for hour, tenant_id in enumerate(sent):
        texts = [payload(1, tenant_id=tenant_id, run_count=str(hour))] if tenant_id else []
        for is_news in (True, False):
            one = fetched(*texts, workspace=TENANT, at=READ + hour * HOUR)
            result = day.read(one, kept_from=READ + (hour - 1) * HOUR)
            assert learned(result) is is_news
        assert len(day.rows(SESSIONS)) + len(day.rows(REJECTED_SESSIONS)) == 1
        assert day.check("every_record_is_accounted_for").passed


def test_a_malformed_tenant_id_names_no_workspace(day: ProcessedDay) -> None:
    """Otherwise all other days would count as unread in it, and no week, month or export would be complete."""
    for hour, texts in enumerate(([payload(1), payload(2, tenant_id="x")], [payload(1)], [payload(1)])):
        day.read(fetched(*texts, at=READ + hour * HOUR), max_rejected_ratio=1.0)
        assert day.check("every_record_is_accounted_for").passed
    readings = load_readings(day.lake.metadata(RAW_SESSIONS, day.day)["readings"])
    assert [one.workspaces for one in readings] == [("", TENANT)] * 2
    assert readings[1].gone == (uuid(2),)


def test_setting_the_workspace_id_later_duplicates_no_session(day: ProcessedDay) -> None:
    day.read(fetched(payload(1)))
    assert not learned(day.read(fetched(payload(1), workspace=TENANT, at=READ + HOUR)))
    assert len(day.rows(RAW_SESSIONS)) == len(day.rows(SESSIONS)) == 1
    assert day.check("every_record_is_accounted_for").counts["received"] == 1


@pytest.mark.parametrize("text", ["null", payload(2, tenant_id="x"), payload(2, tenant_id=None)])
def test_setting_the_workspace_id_later_duplicates_no_record_that_names_no_workspace(
    day: ProcessedDay, text: str
) -> None:
    day.read(fetched(payload(1, **EXPERIMENT), text, at=READ - 12 * HOUR))
    for hour in range(3):
        texts = payload(1, **EXPERIMENT), *([] if hour == 2 else [text])
        assert learned(day.read(fetched(*texts, workspace=TENANT, at=READ + hour * HOUR))) is (hour != 1)
        assert len(day.rows(SESSIONS)) == len(day.rows(REJECTED_SESSIONS)) == 1
        assert day.check("every_record_is_accounted_for").passed
        assert day.row(DAILY_COST_BY_REFERENCE_DATASET)["is_day_over"] is True
        assert day.lake.metadata(DAILY_COST_BY_REFERENCE_DATASET, day.day)["is_day_over"] == "true"


def test_an_id_in_capitals_is_the_same_session_even_when_retention_empties_it(day: ProcessedDay) -> None:
    id_ = "abcdefab-0000-4000-8000-000000000001"
    for number, (spelt, runs, cost) in enumerate(((id_, 5, "1.5"), (id_.upper(), 0, None), (id_.upper(), 0, None))):
        day.read(fetched(payload(1, id=spelt, run_count=runs, total_cost=cost), at=READ + number * timedelta(days=30)))
    row = day.row(SESSIONS)
    assert (row["id"], row["run_count"], row["total_cost"]) == (id_, 5, Decimal("1.5"))
    assert (row["stats_as_of"], row["fetched_at"]) == (READ, READ + timedelta(days=30))


@pytest.mark.parametrize("ahead", [timedelta(days=365), timedelta(hours=1)])
def test_later_readings_count_after_one_with_a_clock_that_was_ahead(day: ProcessedDay, ahead: timedelta) -> None:
    """The session costs 1, then 2 under a clock that is ahead, then 3, 4, 5 and 5 again."""
    for cost, at in ((1, READ), (2, READ + ahead), (3, READ), (4, READ + HOUR / 2), (5, READ + HOUR), (5, READ)):
        day.read(fetched(payload(1, total_cost=str(cost), run_count=cost), at=at))
        assert day.row(SESSIONS)["total_cost"] == cost
    assert [row["reading"] for row in day.rows(RAW_SESSIONS)] == [1, 2, 3, 4, 5]
    assert not day.broken_checks(READ + HOUR)


def test_a_clock_that_was_ahead_beyond_retention_fails_no_run(day: ProcessedDay) -> None:
    late = READ + timedelta(days=30)
    for runs, at in ((5, late), (5, late + HOUR), (4, late), (0, late + 2 * HOUR), (0, late + HOUR), (6, late)):
        day.read(fetched(payload(1, total_cost=str(runs), run_count=runs), at=at))
    assert day.row(SESSIONS)["total_cost"] == 6


def test_a_record_that_is_repaired_moves_from_rejected_to_valid_and_back(day: ProcessedDay) -> None:
    for hour, (runs, valid) in enumerate((("x", 0), (1, 1), ("x", 0))):
        day.read(fetched(payload(1, run_count=runs), at=READ + hour * HOUR), max_rejected_ratio=1.0)
        assert (len(day.rows(SESSIONS)), len(day.rows(REJECTED_SESSIONS))) == (valid, 1 - valid)


@pytest.mark.parametrize("id_", ["", "abc"])
def test_records_whose_id_is_no_uuid_are_all_kept_and_count_towards_the_rejection_threshold(
    day: ProcessedDay, id_: str
) -> None:
    broken = [payload(number, id=id_) for number in range(3)]
    day.read(fetched(*broken, broken[0]), max_rejected_ratio=1.0)
    assert {row["payload"] for row in day.rows(REJECTED_SESSIONS)} == {*broken}
    assert {row["payload"] for row in day.rows(RAW_SESSIONS)} == {*broken}
    assert day.check("every_record_is_accounted_for").passed
    assert day.read(fetched(*(payload(number, id=id_) for number in range(20)), at=READ + HOUR)).exceeded


@pytest.mark.parametrize("broken", [{"id": "abc"}, {"id": None}])
def test_a_record_without_a_usable_id_that_changes_each_hour_does_not_fail_the_day(
    day: ProcessedDay, broken: dict[str, Any]
) -> None:
    valid = [payload(number) for number in range(1, 4)]
    for hours in range(25):
        result = day.read(fetched(*valid, payload(9, **broken, run_count=hours), at=READ + hours * HOUR))
        assert result.exceeded is None
    assert len(day.rows(REJECTED_SESSIONS)) == 25, "nothing is lost"
    assert day.check("every_record_is_accounted_for").passed


def test_as_of_an_earlier_time_the_day_is_what_was_read_by_then(day: ProcessedDay) -> None:
    day.read(fetched(payload(1, total_cost="1")))
    day.read(fetched(payload(1, total_cost="2"), at=READ + HOUR))
    day.again(as_of=READ)
    assert day.row(SESSIONS)["total_cost"] == 1
    # Tables built as of another time are outdated, and the next run rebuilds them.
    assert set(day.read(fetched(payload(1, total_cost="2"), at=READ + 2 * HOUR)).written) == {*DAILY} - {"raw_sessions"}
    assert day.row(SESSIONS)["total_cost"] == 2
    with pytest.raises(NotReadError, match="not read yet for 2025-03-03 at 2025-03-04 05:00:00"):
        day.again(as_of=READ - HOUR)


def test_tables_are_rebuilt_from_stored_raw_sessions_without_a_reading(day: ProcessedDay) -> None:
    with pytest.raises(NotReadError):
        day.again()
    day.read(fetched(payload(1, **EXPERIMENT)), tables=("raw_sessions",))
    assert not day.lake.has(SESSIONS, day.day)
    result = day.again(tables=("sessions", "daily_cost_by_reference_dataset"))
    assert set(result.written) == {"sessions", "daily_cost_by_reference_dataset"}
    assert day.row(DAILY_COST_BY_REFERENCE_DATASET)["total_cost"] == Decimal("1.5")


def test_an_outdated_table_is_rebuilt_and_the_others_are_left_alone(day: ProcessedDay) -> None:
    day.read(fetched(payload(1, **EXPERIMENT)))
    day.read(fetched(payload(1, **EXPERIMENT, name="new"), at=READ + HOUR), tables=("raw_sessions", "sessions"))
    assert set(day.check("tables_of_a_day_agree").broken) == {f"{name} of 2025-03-03" for name in DAILY[2:]}
    result = day.read(fetched(payload(1, **EXPERIMENT, name="new"), at=READ + 2 * HOUR))
    assert set(result.written) == set(DAILY[2:])
    assert day.check("tables_of_a_day_agree").passed


def test_a_change_of_the_configured_attributes_rebuilds_only_the_table_of_attributes(day: ProcessedDay) -> None:
    said = payload(1, **EXPERIMENT, extra={"metadata": {"models": ["b", "a"], "lang": "de"}})
    day.read(fetched(said))
    assert {row["attribute"]: row["value"] for row in day.rows(DAILY_COST_BY_ATTRIBUTE)} == {
        "models": "a, b",
        "git.branch": None,
    }
    assert set(day.read(fetched(said, at=READ + HOUR), attributes=("lang",)).written) == {"daily_cost_by_attribute"}
    assert day.row(DAILY_COST_BY_ATTRIBUTE)["value"] == "de"
    assert day.check("attributes_add_up").passed


def test_a_table_that_another_program_wrote_counts_as_outdated(day: ProcessedDay) -> None:
    day.read(fetched(payload(1)))
    day.lake.replace(SESSION_FEEDBACK, day.day, SESSION_FEEDBACK.schema.empty_table(), {})
    assert set(day.read(fetched(payload(1), at=READ + HOUR)).written) == {"session_feedback"}


@pytest.mark.parametrize("content", [b"", b"no Parquet"])
def test_a_broken_derived_table_is_rebuilt_by_a_refresh_without_changes(day: ProcessedDay, content: bytes) -> None:
    day.read(fetched(payload(1, **EXPERIMENT)))
    day.lake.write_file(f"sessions/start_date={day.day}/sessions.parquet", content)
    assert set(day.read(fetched(payload(1, **EXPERIMENT), at=READ + HOUR)).written) == {"sessions"}
    assert day.row(SESSIONS)["id"] == uuid(1)


def test_a_table_from_before_a_column_was_added_is_rebuilt_by_a_refresh_without_changes(
    day: ProcessedDay, tmp_path: Path
) -> None:
    day.read(fetched(payload(1)))
    key = f"sessions/start_date={day.day}/sessions.parquet"
    old = pq.read_table(pa.BufferReader(day.lake.read_file(key))).drop_columns(["trace_tier"])
    pq.write_table(old, tmp_path / "old.parquet")
    day.lake.write_file(key, (tmp_path / "old.parquet").read_bytes())
    with pytest.raises(LakeError, match=r"without trace_tier.*materialize sessions again, from stored data"):
        day.lake.read(SESSIONS, day.day)
    assert set(day.read(fetched(payload(1), at=READ + HOUR)).written) == {"sessions"}
    assert day.row(SESSIONS)["id"] == uuid(1)


@pytest.mark.parametrize("note", [b"", b"[1]", b"{}", b"\xff", b'["a"]', b'[{"number": 1}]', b"null"])
def test_a_broken_file_of_readings_is_replaced(day: ProcessedDay, note: bytes) -> None:
    key = f"_readings/start_date={day.day}.json"
    day.read(fetched(payload(1)))
    day.lake.write_file(key, note)
    assert day.read(fetched(payload(1), at=READ + HOUR)).written == {}
    assert [reading.fetched_at for reading in load_readings(day.lake.read_file(key))] == [READ + HOUR]


def test_a_derived_table_never_replaces_one_of_a_later_commit(
    day: ProcessedDay, monkeypatch: pytest.MonkeyPatch
) -> None:
    day.read(fetched(payload(1, name="old")))
    load, calls = day.lake.load, [0]

    def overtaken(*args: Any, **kwargs: Any) -> Any:
        found = load(*args, **kwargs)
        calls[0] += 1
        if calls[0] == 1:
            day.read(fetched(payload(1, name="new"), at=READ + HOUR))
        return found

    monkeypatch.setattr(day.lake, "load", overtaken)
    assert day.again().written == {}
    assert day.row(SESSIONS)["name"] == "new"


# Two runs read the day at the same time. The first to commit wins; the other's reading is merged as an older one.


def test_a_late_reading_adds_sessions_and_changes_no_value(day: ProcessedDay) -> None:
    day.read(fetched(payload(1, name="old"), payload(3)))
    base = day.base
    day.read(fetched(payload(1, name="newer"), payload(3), at=READ + HOUR), base=base)
    result = day.read(fetched(payload(1, name="late"), payload(2), at=READ + 2 * HOUR), base=base)
    assert learned(result)
    assert day.row(SESSIONS, id=uuid(1))["name"] == "newer"
    assert day.row(SESSIONS, id=uuid(2))["missing_since"] is None
    assert day.row(SESSIONS, id=uuid(3))["missing_since"] is None
    raw = sorted((row["reading"], json.loads(row["payload"])["name"]) for row in day.rows(RAW_SESSIONS))
    assert raw == [(1, "old"), (1, "session 3"), (2, "late"), (2, "session 2"), (3, "newer")]
    readings = load_readings(day.lake.metadata(RAW_SESSIONS, day.day)["readings"])
    assert [(reading.number, reading.fetched_at) for reading in readings] == [
        (1, READ),
        (2, READ + 2 * HOUR),
        (3, READ + HOUR),
    ]


def test_a_late_reading_changes_no_value_when_the_reading_that_overtook_it_was_dropped(day: ProcessedDay) -> None:
    day.read(fetched(payload(1, name="old")))
    base = day.base
    for hour in range(1, 5):
        day.read(fetched(payload(1, name=f"newer {hour}"), at=READ + hour * HOUR), kept_from=READ + 3 * HOUR)
    readings = load_readings(day.lake.metadata(RAW_SESSIONS, day.day)["readings"])
    assert base not in [reading.replaced for reading in readings]
    day.read(fetched(payload(1, name="late"), at=READ + 5 * HOUR), base=base)
    assert day.row(SESSIONS)["name"] == "newer 4"
    day.read(fetched(payload(1, name="now"), at=READ + 6 * HOUR))
    assert (day.row(SESSIONS)["name"], day.broken_checks()) == ("now", {})


def test_a_late_reading_changes_no_value_that_the_reading_that_overtook_it_has_found_unchanged(
    day: ProcessedDay,
) -> None:
    day.read(fetched(payload(1, total_cost="1"), payload(3)))
    base = day.base
    day.read(fetched(payload(1, total_cost="1"), payload(2), at=READ + HOUR), base=base)
    before = day.row(SESSIONS, id=uuid(1))
    day.read(fetched(payload(1, total_cost="9"), payload(4), at=READ + 2 * HOUR), base=base)
    assert day.row(SESSIONS, id=uuid(1)) == before
    assert day.row(SESSIONS, id=uuid(4))["missing_since"] is None
    assert not day.broken_checks(READ + 2 * HOUR)


def test_what_only_a_late_reading_says_of_a_session_that_is_missing_since_stays_spent(day: ProcessedDay) -> None:
    """It was read after the state that is stored, and no later reading can say it again."""
    day.read(fetched(payload(1, total_cost="1")))
    base = day.base
    day.read(fetched(at=READ + HOUR), base=base)
    day.read(fetched(payload(1, total_cost="9"), at=READ + 2 * HOUR), base=base)
    row = day.row(SESSIONS)
    assert (row["total_cost"], row["missing_since"]) == (Decimal(9), READ + HOUR)
    assert not day.broken_checks(READ + 2 * HOUR)


@pytest.mark.parametrize("is_there", [True, False])
def test_sessions_that_only_a_late_reading_has_seen_are_accounted_for_until_the_next_reading(
    day: ProcessedDay, is_there: bool
) -> None:
    day.read(fetched(payload(1)))
    base = day.base
    day.read(fetched(payload(1, name="newer"), at=READ + HOUR), base=base)
    day.read(fetched(payload(1), payload(2), '{"id": 7}', at=READ + 2 * HOUR), base=base)
    assert day.check("every_record_is_accounted_for").passed
    assert day.check("every_record_is_accounted_for").counts["seen_late"] == 2
    later = [payload(1, name="newer"), *([payload(2), '{"id": 7}'] if is_there else [])]
    for hour, is_news in ((3, True), (4, False)):
        assert learned(day.read(fetched(*later, at=READ + hour * HOUR))) is is_news
        assert day.check("every_record_is_accounted_for").passed
        assert day.row(SESSIONS, id=uuid(2))["missing_since"] == (None if is_there else READ + 3 * HOUR)
        assert "seen_late" not in day.check("every_record_is_accounted_for").counts


def test_a_late_reading_without_changes_writes_nothing(day: ProcessedDay) -> None:
    day.read(fetched(payload(1, name="old")))
    base = day.base
    day.read(fetched(payload(1, name="new"), at=READ + HOUR), base=base)
    before = day.versions()
    for late in (fetched(payload(1, name="new"), at=READ), fetched(payload(1, name="old")), fetched()):
        assert not learned(day.read(late, base=base))
    assert day.versions() == before
    assert not day.broken_checks()


def test_a_late_first_reading_counts_as_older_than_the_one_that_was_stored_before_it(day: ProcessedDay) -> None:
    day.read(fetched(payload(1, name="quick")), base=None)
    day.read(fetched(payload(1, name="late"), at=READ + HOUR), base=None)
    assert day.row(SESSIONS)["name"] == "quick"


def test_runs_of_different_workspaces_can_overtake_each_other(day: ProcessedDay) -> None:
    other = [payload(number, tenant_id=OTHER_TENANT) for number in (2, 3)]
    day.read(fetched(payload(1), workspace=TENANT), fetched(*other, workspace=OTHER_TENANT))
    base = day.base
    day.read(fetched(payload(1, name="new"), workspace=TENANT, at=READ + HOUR), base=base)
    day.read(fetched(other[0], workspace=OTHER_TENANT, at=READ + HOUR), base=base)
    assert day.row(SESSIONS, id=uuid(3))["missing_since"] == READ + HOUR
    assert day.row(SESSIONS, id=uuid(1))["name"] == "new"


def test_a_run_that_is_overtaken_while_it_writes_merges_again(
    day: ProcessedDay, monkeypatch: pytest.MonkeyPatch
) -> None:
    day.read(fetched(payload(1, name="old")))
    replace, calls = day.lake.replace, [0]

    def overtaken(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == 1:
            day.read(fetched(payload(1, name="quick"), at=READ + HOUR))
        return replace(*args, **kwargs)

    monkeypatch.setattr(day.lake, "replace", overtaken)
    day.read(fetched(payload(1, name="slow"), at=READ + HOUR))
    assert day.row(SESSIONS)["name"] == "quick"
    assert len(day.rows(RAW_SESSIONS)) == 3


def lose_two_readings(day: ProcessedDay, root: Path) -> None:
    """Read the day as `old` and, one and two hours later, as `lost …`; then put a backup of the first raw file back."""
    file = root / f"raw_sessions/start_date={DAY}/raw_sessions.parquet"
    day.read(fetched(payload(1, name="old")))
    backup = file.read_bytes()
    for hour in (1, 2):
        day.read(fetched(payload(1, name=f"lost {hour}"), at=READ + hour * HOUR), now=READ + hour * HOUR)
    file.write_bytes(backup)


def test_tables_that_are_ahead_of_a_raw_file_put_back_from_a_backup_are_made_again(
    day: ProcessedDay, tmp_path: Path
) -> None:
    lose_two_readings(day, tmp_path)
    assert set(day.read(fetched(payload(1, name="old"), at=READ + 3 * HOUR)).written) == {*DAILY} - {"raw_sessions"}
    assert day.row(SESSIONS)["name"] == "old"
    day.read(fetched(payload(1, name="newest"), at=READ + 4 * HOUR))
    assert day.row(SESSIONS)["name"] == "newest"


def test_tables_made_from_a_lost_raw_file_are_not_taken_for_those_of_its_successor(
    day: ProcessedDay, tmp_path: Path
) -> None:
    """After a backup was put back, the next run may write raw sessions alone: it was asked to, or it was killed."""
    lose_two_readings(day, tmp_path)
    for hour in (3, 4):
        reading = fetched(payload(1, name=f"new {hour}"), at=READ + hour * HOUR)
        day.read(reading, now=READ + hour * HOUR, tables=(RAW_SESSIONS.name,))
    assert day.row(SESSIONS)["name"] == "lost 2"
    assert "tables_of_a_day_agree" in day.broken_checks()
    day.read(fetched(payload(1, name="new 4"), at=READ + 5 * HOUR), now=READ + 5 * HOUR)
    assert day.row(SESSIONS)["name"] == "new 4"


def test_after_a_backup_was_put_back_the_next_reading_is_the_latest(day: ProcessedDay, tmp_path: Path) -> None:
    file = tmp_path / f"raw_sessions/start_date={DAY}/raw_sessions.parquet"
    day.read(fetched(payload(1)))
    backup = file.read_bytes()
    for hour in (1, 2):
        day.read(fetched(payload(1, name=f"lost {hour}"), payload(2), at=READ + hour * HOUR))
    file.write_bytes(backup)
    day.read(fetched(payload(1), at=READ + 5 * HOUR))
    assert [(one.fetched_at, one.received) for one in day.lake.last_readings(DAY)] == [(READ + 5 * HOUR, 1)]
    assert day.broken_checks(READ + 5 * HOUR) == {}


# The rejection threshold.


def _records(rejected: int, valid: int) -> list[str]:
    return [payload(number, run_count="x" if number < rejected else 1) for number in range(rejected + valid)]


@pytest.mark.parametrize(
    ("rejected", "valid", "exceeded"),
    [(20, 80, False), (21, 79, True), (20, 79, True), (19, 1, False), (20, 1, True)],
    ids=["exactly the ratio", "more", "more than the ratio by one", "nineteen", "twenty"],
)
def test_a_day_with_at_least_twenty_rejected_records_beyond_the_allowed_share_is_not_replaced(
    day: ProcessedDay, rejected: int, valid: int, exceeded: bool
) -> None:
    day.read(fetched(payload(0)))
    before = day.versions()
    texts = [payload(number, run_count="x" if number >= valid else 1) for number in range(rejected + valid)]
    # The run may have received many more records on other days.
    result = day.read(fetched(*texts, at=READ + HOUR), received=10_000)
    assert (day.versions() == before) is exceeded
    assert (result.written == {}) is exceeded
    reason = "run_count: must be an integer, not a string"
    reason_given = f"2025-03-03: {rejected} of {rejected + valid} records are rejected ({reason})"
    assert result.exceeded == (reason_given if exceeded else None)


def test_rejected_records_without_a_day_are_compared_with_all_records_of_the_run(tmp_path: Path) -> None:
    undated = ProcessedDay(tmp_path, UNDATED)
    broken = [payload(number, start_time="soon") for number in range(20)]
    assert undated.read(fetched(*broken, day=None), received=100).exceeded is None
    assert len(undated.rows(REJECTED_SESSIONS)) == 20
    again = ProcessedDay(tmp_path / "b", UNDATED).read(fetched(*broken, day=None), received=99)
    assert again.exceeded is not None
    assert again.exceeded.startswith("rows without a day: 20 of 99 records are rejected")


def test_sessions_without_a_start_are_kept_and_refreshed_like_a_day(tmp_path: Path) -> None:
    undated = ProcessedDay(tmp_path, UNDATED)
    text = payload(1, **EXPERIMENT).replace("start_time", "started")
    undated.read(fetched(text, day=None))
    assert undated.row(SESSIONS)["start_time"] is None
    assert not learned(undated.read(fetched(text, day=None, at=READ + HOUR)))
    assert not undated.broken_checks()


def test_superseded_readings_are_dropped_when_a_day_is_written_after_the_time_to_keep_them(day: ProcessedDay) -> None:
    for hour in range(4):
        day.read(fetched(payload(1, run_count=hour), at=READ + hour * HOUR))
    day.read(fetched(payload(1, run_count=9), at=READ + 9 * HOUR), kept_from=READ + 2 * HOUR)
    assert [json.loads(row["payload"])["run_count"] for row in day.rows(RAW_SESSIONS)] == [2, 3, 9]


def test_building_a_table_as_of_an_earlier_time_drops_no_reading(day: ProcessedDay) -> None:
    for hour in range(3):
        day.read(fetched(payload(1, run_count=hour), at=READ + hour * HOUR))
    day.read(fetched(payload(1, run_count=9), payload(2), at=READ + 3 * HOUR), kept_from=READ + HOUR, as_of=READ + HOUR)
    assert len(day.rows(RAW_SESSIONS)) == 5
    assert day.row(SESSIONS)["run_count"] == 1


def test_a_sum_that_does_not_fit_does_not_stop_the_other_tables_from_being_written(day: ProcessedDay) -> None:
    day.read(fetched(payload(1)))
    before = day.versions()
    many = [payload(number, **{**EXPERIMENT, "total_tokens": 2**63 - 1}) for number in (1, 2)]
    message = r"^daily_cost_by_reference_dataset of 2025-03-03: total_tokens of tenant_id .* to 18446744073709551614"
    with pytest.raises(SumOverflowError, match=message):
        day.read(fetched(*many, at=READ + HOUR))
    changed = {name for name, version in day.versions().items() if version != before[name]}
    assert changed == set(DAILY) - {"daily_cost_by_reference_dataset", "daily_cost_by_attribute"}
    assert day.broken_checks().keys() == {"tables_of_a_day_agree", "costs_add_up"}
    # The error is repeated while the sum does not fit. It is not raised if that table is not selected, and it ends when
    # the wrong number is corrected.
    with pytest.raises(SumOverflowError, match=message):
        day.read(fetched(*many, at=READ + 2 * HOUR))
    assert not day.read(fetched(*many, at=READ + 2 * HOUR), tables=DAILY[:3]).written
    day.read(fetched(many[0], payload(2), at=READ + 3 * HOUR))
    assert not day.broken_checks()


@pytest.mark.long
def test_a_day_may_have_more_text_than_fits_into_one_piece_of_arrow(day: ProcessedDay) -> None:
    rows, count = Rows(RAW_SCHEMA), 2_300
    for first in range(0, count, 100):
        texts = [payload(number, description="x" * (1024 * 1024)) for number in range(first, first + 100)]
        rows.add(records_table(read_page(f"[{','.join(texts)}]".encode())))
    assert day.read(RawDay(DAY, rows, [Reading(0, READ, received=count)])).metadata["sessions"]["rows"] == count
    sizes = pc.binary_length(day.lake.read(SESSIONS, DAY, ("description",))["description"])
    assert pc.sum(sizes.cast(pa.int64())).as_py() == count * 1024 * 1024
    assert day.again().metadata["sessions"]["rows"] == count
