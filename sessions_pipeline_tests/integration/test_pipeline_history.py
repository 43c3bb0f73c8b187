"""A day that is read repeatedly while the API deletes and empties sessions: costs stay, and nothing is lost."""

import json
import warnings
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import stamina

import sessions_pipeline
from sessions_pipeline.days import days_between, period_of
from sessions_pipeline.errors import ApiError, NotReadError, SettingError
from sessions_pipeline.lake import Lake
from sessions_pipeline.outputs.focus import focus_costs
from sessions_pipeline.outputs.formatting import day_ranges
from sessions_pipeline.outputs.report import read_report_data
from sessions_pipeline.outputs.report.caveats import caveats
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import (
    DAILY_COST_BY_REFERENCE_DATASET,
    MONTHLY_COST_BY_REFERENCE_DATASET,
    RAW_SESSIONS,
    REJECTED_SESSIONS,
    SESSIONS,
)
from sessions_pipeline.tables.readings import load_readings
from sessions_pipeline.tables.table import READINGS
from sessions_pipeline_tests.faulty_server import Fault, Sandbox, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import (
    FIRST,
    NOW,
    TODAY,
    DataRoot,
    contents,
    failing_in_one_line,
    files,
    lake_at,
    read,
    record,
    run_days,
    some_records,
)

DAY = TODAY
MONTH, NEXT = DAY.replace(day=1), DAY.replace(month=DAY.month + 1)


class Clock:
    """A clock that moves on by an hour with every run."""

    def __init__(self, start: datetime) -> None:
        self.time = start

    def __call__(self) -> datetime:
        return self.time

    def read(
        self, sandbox: Sandbox, root: DataRoot, first: date = FIRST, last: date = TODAY, **values: Any
    ) -> Settings:
        """One run of `refresh_sessions`, an hour after the last. Returns its settings."""
        self.time += timedelta(hours=1)
        return read(sandbox, root, first, last, clock=self, **values)


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


def serve(sandbox: Sandbox, *texts: str) -> None:
    sandbox.api.data.texts = list(texts)  # type: ignore[attr-defined]


def daily_cost(root: DataRoot) -> list[tuple[int, Decimal]]:
    rows = lake_at(root).read(DAILY_COST_BY_REFERENCE_DATASET, DAY).to_pylist()
    return [(row["session_count"], row["total_cost"]) for row in rows]


def metadata_of(result: dg.ExecuteInProcessResult, table: str) -> dict[str, Any]:
    """The metadata of the day's materialization."""
    [event] = [
        event.step_materialization_data.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey(table) and event.partition == DAY.isoformat()
    ]
    return {name: value.value for name, value in event.metadata.items()}


def test_what_was_spent_stays_spent_when_the_api_deletes_and_expires(data_root: DataRoot, clock: Clock) -> None:
    kept, deleted, expired = record(1, NOW), record(2, NOW), record(3, NOW)
    emptied = record(3, NOW, run_count=0, total_tokens=0, total_cost=None)
    with running_sandbox(texts=[kept, deleted, expired], now=NOW) as sandbox:
        settings = clock.read(sandbox, data_root, DAY, DAY)
        first = clock.time
        before, month = daily_cost(data_root), contents(data_root)[MONTHLY_COST_BY_REFERENCE_DATASET.name, "None"]
        serve(sandbox, kept, emptied)
        clock.time += timedelta(hours=1)
        second = clock.time
        result = run_days(settings, DAY, DAY, clock=clock)
        facts, raw = metadata_of(result, SESSIONS.name), metadata_of(result, RAW_SESSIONS.name)
    assert before == daily_cost(data_root) == [(3, Decimal("3.75"))]
    assert contents(data_root)[MONTHLY_COST_BY_REFERENCE_DATASET.name, "None"] == month
    rows = {row["id"][-1]: row for row in lake_at(data_root).read(SESSIONS, DAY).to_pylist()}
    assert [(rows[i]["missing_since"], rows[i]["stats_as_of"], rows[i]["fetched_at"]) for i in "123"] == [
        (None, first, first),
        (second, first, first),
        (None, first, second),
    ]
    assert [rows[i]["run_count"] for i in "123"] == [10, 10, 10]
    assert (facts["missing"], facts["rests_on_kept_readings"]) == (1, 2)
    assert facts["total_cost"] == "3.75"
    assert raw["readings_kept"] >= 2


def test_a_day_without_sessions_counts_as_over_once_it_is_read_after_its_end(tmp_path: Path, clock: Clock) -> None:
    month = {*days_between(*period_of("month", DAY))}

    def is_over() -> tuple[bool, bool]:
        stored = lake_at(tmp_path).load(DAILY_COST_BY_REFERENCE_DATASET, DAY)
        assert stored is not None
        missing = focus_costs(lake_at(tmp_path), MONTH, NEXT).missing
        return stored.metadata["is_day_over"] == "true", day_ranges(month - {DAY}) in missing

    with running_sandbox(texts=[]) as sandbox:
        clock.read(sandbox, tmp_path, DAY)
        assert is_over() == (False, False)
        clock.time += timedelta(days=1)
        clock.read(sandbox, tmp_path, DAY)
        assert is_over() == (True, True)
        before = files(tmp_path / "raw_sessions")
        clock.read(sandbox, tmp_path, DAY)
        assert files(tmp_path / "raw_sessions") == before


def test_an_as_of_rebuild_without_the_network_equals_the_tables_of_that_time(data_root: DataRoot, clock: Clock) -> None:
    with running_sandbox(texts=some_records(200), now=NOW) as sandbox:
        settings = clock.read(sandbox, data_root)
        known, then = contents(data_root), clock.time + timedelta(minutes=1)
        times = lake_at(data_root).read(SESSIONS, DAY).column("fetched_at").to_pylist()
        serve(sandbox, *some_records(150, total_cost="9.99"), "7")
        clock.read(sandbox, data_root)
        later = contents(data_root)
    # The server has stopped.
    run_days(settings, FIRST, TODAY, as_of=then)
    rebuilt = contents(data_root)
    derived = {key for key in known if key[0] != RAW_SESSIONS.name}
    assert {key: rebuilt[key] for key in derived} == {key: known[key] for key in derived}
    assert known != later
    assert lake_at(data_root).read(SESSIONS, DAY).column("fetched_at").to_pylist() == times
    run_days(settings, FIRST, TODAY, as_of=clock.time)
    assert contents(data_root) == later


def test_days_rebuilt_as_of_then_are_refused_marked_and_not_compared_until_a_refresh(
    tmp_path: Path, clock: Clock
) -> None:
    week = days_between(*period_of("week", DAY - timedelta(days=7)))
    day, start = week[1], datetime(2026, 3, 10, 12, tzinfo=UTC)

    def found() -> dict[str, Any]:
        lake = lake_at(tmp_path)
        report = read_report_data(lake, week[0], week[-1])
        with warnings.catch_warnings(record=True, action="always") as warned:
            rows = sessions_pipeline.read("experiment_summary", week[0], week[-1], root=tmp_path)
        return {
            "exported": f"{day_ranges([day])}: rebuilt by --as-of" not in focus_costs(lake, MONTH, NEXT).missing,
            "compared": day in report.period.alike,
            "caveats": {one.key for one in caveats(report) if one.key == "rebuilt"},
            "warnings": [str(one.message) for one in warned],
            "costs": [report.now.cost, *map(Decimal, rows.column("total_cost").to_pylist())],
        }

    with running_sandbox(texts=[record(1, start)], now=NOW) as sandbox:
        settings, then = clock.read(sandbox, tmp_path, week[0] - timedelta(days=7), week[-1]), clock.time
        serve(sandbox, record(1, start, total_cost="9"))
        clock.read(sandbox, tmp_path, week[0] - timedelta(days=7), week[-1])
        newest = found()
        run_days(settings, day, day, as_of=then)
        assert found() == {
            "exported": False,
            "compared": False,
            "caveats": {"rebuilt"},
            "warnings": [f"experiment_summary of {day_ranges([day])} is as known earlier, rebuilt by --as-of"],
            "costs": [Decimal("1.25")] * 2,
        }
        clock.read(sandbox, tmp_path, week[0] - timedelta(days=7), week[-1])
    assert (
        found()
        == newest
        == {
            "exported": True,
            "compared": True,
            "caveats": set(),
            "warnings": [],
            "costs": [Decimal(9)] * 2,
        }
    )


def test_as_of_a_time_before_the_first_reading_is_one_line_and_changes_nothing(
    data_root: DataRoot, clock: Clock
) -> None:
    with running_sandbox(texts=some_records(20), now=NOW) as sandbox:
        settings = clock.read(sandbox, data_root)
    before = files(data_root)
    with failing_in_one_line(NotReadError, "was not read yet for .* at .* UTC; choose a later time$"):
        run_days(settings, FIRST, TODAY, as_of=clock.time - timedelta(hours=2))
    assert files(data_root) == before


def test_after_a_change_of_the_rules_records_are_validated_again_without_the_network(tmp_path: Path) -> None:
    with running_sandbox(texts=[record(number, NOW) for number in range(10)], now=NOW) as sandbox:
        settings = read(sandbox, tmp_path, DAY, DAY)
    lake = Lake.open(str(tmp_path), query={})
    # The table as rules that were too strict would have left it.
    strict = lake.read(SESSIONS, DAY).slice(1)
    lake.replace(SESSIONS, DAY, strict, lake.metadata(SESSIONS, DAY))
    # Among all that follows from sessions are judges, which the API does not give: its server has stopped.
    with stamina.set_testing(testing=True, attempts=2):
        run_days(settings, DAY, DAY, select="key:sessions+ or key:rejected_sessions")
    assert lake.read(SESSIONS, DAY).num_rows == 10
    assert lake.read(REJECTED_SESSIONS, DAY).num_rows == 0
    assert daily_cost(tmp_path) == [(10, Decimal("12.50"))]


def test_days_that_were_never_read_cannot_be_derived(data_root: DataRoot) -> None:
    with running_sandbox(texts=[], now=NOW) as sandbox:
        settings = read(sandbox, data_root, FIRST, FIRST)
        with failing_in_one_line(NotReadError, f"raw_sessions was never read for {TODAY}; materialize all tables"):
            run_days(settings, FIRST, TODAY, select="key:sessions or key:rejected_sessions")


def test_superseded_readings_are_dropped_after_the_days_to_keep_them_and_no_number_changes(
    data_root: DataRoot, clock: Clock
) -> None:
    keeping = {"SESSIONS_PIPELINE_KEEP_READINGS_DAYS": 2}
    with running_sandbox(texts=[], now=NOW) as sandbox:
        for runs in (5, 8, 10, 10, 2, 0):
            serve(sandbox, record(1, NOW, run_count=runs, name=f"at {clock.time}"), record(2, NOW))
            clock.read(sandbox, data_root, DAY, DAY, **keeping)
        everything = lake_at(data_root).read(RAW_SESSIONS, DAY).num_rows
        # One run much later: the API's records are unchanged, and only the time differs.
        clock.time += timedelta(days=30)
        settled = [row | {"fetched_at": None} for row in lake_at(data_root).read(SESSIONS, DAY).to_pylist()]
        clock.read(sandbox, data_root, DAY, DAY, **keeping)
    left = lake_at(data_root).read(RAW_SESSIONS, DAY).to_pylist()
    runs_left = sorted(json.loads(row["payload"])["run_count"] for row in left if row["session_id"].endswith("1"))
    assert everything == 7
    assert runs_left == [0, 2, 10]
    after = lake_at(data_root).read(SESSIONS, DAY).to_pylist()
    assert [row["stats_as_of"] for row in after][:1] == [row["stats_as_of"] for row in settled][:1]
    assert [row["run_count"] for row in after] == [row["run_count"] for row in settled]
    readings = load_readings(lake_at(data_root).metadata(RAW_SESSIONS, DAY)[READINGS])
    assert {row["reading"] for row in left} <= {reading.number for reading in readings}
    assert len(readings) < 6


def test_private_fields_are_in_no_file_of_the_lake(tmp_path: Path) -> None:
    extra = {"metadata": {"git": {"author_email": "ana@private.example", "commit": "c0ffee"}}}
    feedback = {"correctness": {"n": 3, "avg": 0.5, "values": {"pr1vate-annotation": 3}}}
    with running_sandbox(
        texts=[
            record(1, NOW, extra=extra, feedback_stats=feedback),
            record(2, NOW, extra=extra, run_count="many"),
            record(3, NOW, extra=extra)[:-1] + ',"latency_p50":NaN}',
            record(4, None, extra=extra),
        ],
        now=NOW,
    ) as sandbox:
        read(sandbox, tmp_path / "plain")
        read(
            sandbox,
            tmp_path / "lake",
            SESSIONS_PIPELINE_REDACT="extra.metadata.git.author_email, $.feedback_stats.*.values",
        )
    for root, is_private in ((tmp_path / "plain", True), (tmp_path / "lake", False)):
        text = repr(contents(root))
        assert ("ana@private.example" in text) is is_private
        assert ("pr1vate-annotation" in text) is is_private
        assert "c0ffee" in text
    redacted = lake_at(tmp_path / "lake")
    assert redacted.read(REJECTED_SESSIONS, DAY).num_rows == 2
    assert all(b"private.example" not in path.read_bytes() for path in (tmp_path / "lake").rglob("*.*"))


def test_a_path_that_cannot_be_redacted_is_refused_before_any_request(data_root: DataRoot) -> None:
    with running_sandbox(texts=[], now=NOW) as sandbox:
        with failing_in_one_line(SettingError, "SESSIONS_PIPELINE_REDACT"):
            read(sandbox, data_root, SESSIONS_PIPELINE_REDACT="id")
        assert sandbox.requests == []


def test_a_failed_reading_stores_nothing(data_root: DataRoot) -> None:
    with running_sandbox(texts=some_records(50), now=NOW) as sandbox:
        read(sandbox, data_root)
        before = contents(data_root)
        sandbox.faults.add(Fault("status", 404, times=None))
        with failing_in_one_line(ApiError, "404"):
            read(sandbox, data_root)
    assert contents(data_root) == before
    assert datetime.now(UTC) > load_readings(lake_at(data_root).metadata(RAW_SESSIONS, DAY)[READINGS])[-1].fetched_at
