"""Every asset check passes after a run, and fails when the lake's files break its condition."""

import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import sessions_pipeline
from sessions_pipeline.definitions import build_definitions
from sessions_pipeline.lake import Lake
from sessions_pipeline.orchestration import range_tags
from sessions_pipeline.orchestration.checks import weeks_and_months_add_up
from sessions_pipeline.orchestration.run import QUIET
from sessions_pipeline.outputs.read import outdated_periods
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.tables import (
    CHECKS,
    DAILY_COST_BY_ATTRIBUTE,
    DAILY_COST_BY_REFERENCE_DATASET,
    JUDGE_COST_BY_EXPERIMENT,
    RAW_SESSIONS,
    REJECTED_SESSIONS,
    SESSIONS,
    Table,
)
from sessions_pipeline.tables.period_costs import PERIODS
from sessions_pipeline.tables.table import COMMIT
from sessions_pipeline_tests.builders import OTHER_TENANT, table_of
from sessions_pipeline_tests.faulty_server import Sandbox, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import (
    DAYS,
    FIRST,
    NOW,
    TODAY,
    read,
    recent_experiments,
    record,
    run_days,
    settings_for,
)

YESTERDAY = DAYS[1]
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}"
WARNINGS = {name for name, check in CHECKS.items() if check.severity == "warn"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Sandbox]]:
    """A lake of three days that were just read, and its API."""
    root = tmp_path_factory.mktemp("whole")
    with running_sandbox(texts=recent_experiments(), now=NOW) as sandbox:
        read(sandbox, root, clock=lambda: NOW)
        yield root, sandbox


@pytest.fixture
def root(whole: tuple[Path, Sandbox], tmp_path: Path) -> Path:
    return shutil.copytree(whole[0], tmp_path / "lake")


@pytest.fixture
def lake(root: Path) -> Lake:
    return Lake.open(str(root), query={})


def examine(root: Path, *names: str, later: timedelta = timedelta(0)) -> dict[str, dg.AssetCheckEvaluation]:
    """Run asset checks in Dagster, `later` than the readings. Without names, run all of them."""
    settings = settings_for("http://127.0.0.1:9", root, SESSIONS_PIPELINE_LOOKBACK_DAYS=2)
    pipeline = Pipeline(settings, clock=lambda: NOW + later)
    job = build_definitions(pipeline).get_repository_def().get_implicit_global_asset_job_def()
    keys = {
        dg.AssetCheckKey(dg.AssetKey(check.table.name), name)
        for name, check in CHECKS.items()
        if not names or name in names
    }
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.get_subset(asset_selection=set(), asset_check_selection=keys).execute_in_process(
            instance=instance, run_config=QUIET, tags=range_tags(FIRST, TODAY)
        )
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def change(lake: Lake, table: Table, column: str, value: Callable[[Any], Any], **metadata: str) -> None:
    """Break yesterday's file: change a value in its first row, or its metadata."""
    rows = lake.read(table, YESTERDAY).to_pylist()
    rows[0][column] = value(rows[0][column])
    replace(lake, table, pa.Table.from_pylist(rows, table.schema), **metadata)


def replace(lake: Lake, table: Table, rows: pa.Table, **metadata: str) -> None:
    lake.replace(table, YESTERDAY, rows, {**lake.metadata(table, YESTERDAY), **metadata})


def lose_a_session(lake: Lake) -> None:
    replace(lake, SESSIONS, lake.read(SESSIONS, YESTERDAY).slice(1))


def double_a_session(lake: Lake) -> None:
    rows = lake.read(SESSIONS, YESTERDAY)
    replace(lake, SESSIONS, pa.concat_tables([rows, rows.slice(0, 1)]))


def move_a_session(lake: Lake) -> None:
    change(lake, SESSIONS, "start_time", lambda time: time + timedelta(days=1))


def leave_a_table_behind(lake: Lake) -> None:
    rows = lake.read(DAILY_COST_BY_REFERENCE_DATASET, YESTERDAY)
    replace(lake, DAILY_COST_BY_REFERENCE_DATASET, rows, **{COMMIT: "0"})


def add_to_a_sum(lake: Lake) -> None:
    change(lake, DAILY_COST_BY_REFERENCE_DATASET, "total_cost", lambda cost: cost + Decimal("0.000000000000000001"))


def invent_a_cost(lake: Lake) -> None:
    change(lake, DAILY_COST_BY_REFERENCE_DATASET, "priced_session_count", lambda _: 0)


def add_to_an_attribute(lake: Lake) -> None:
    change(lake, DAILY_COST_BY_ATTRIBUTE, "session_count", lambda count: count + 1)


def refuse_a_cost(lake: Lake) -> None:
    change(lake, SESSIONS, "problems", lambda _: ["total_cost: is negative (-1)"])


def shrink(lake: Lake) -> None:
    replace(lake, SESSIONS, lake.read(SESSIONS, YESTERDAY), shrunk='["some-session"]')


def drift(lake: Lake) -> None:
    replace(lake, SESSIONS, lake.read(SESSIONS, YESTERDAY), drift='{"colour": 3}')


def reject_many(lake: Lake) -> None:
    row = {"session_id": "x", "reasons": ["total_cost: is no decimal"], "payload": "{}", "fetched_at": NOW}
    rows = [{**dict.fromkeys(REJECTED_SESSIONS.schema.names), **row}] * 40
    replace(lake, REJECTED_SESSIONS, pa.Table.from_pylist(rows, REJECTED_SESSIONS.schema))


def lose_a_reading(lake: Lake) -> None:
    Path(lake.uri(SESSIONS, YESTERDAY)).parents[2].joinpath(f"_readings/start_date={YESTERDAY}.json").unlink()
    Path(lake.uri(RAW_SESSIONS, YESTERDAY)).unlink()


def judge_nobody(lake: Lake) -> None:
    row = {"id": "nobody", "tenant_id": "x", "reference_dataset_id": "x", "stats_as_of": NOW, "read_at": NOW}
    lake.replace(JUDGE_COST_BY_EXPERIMENT, YESTERDAY, table_of(JUDGE_COST_BY_EXPERIMENT.name, [row]), {})


BREAKS: dict[str, tuple[Callable[[Lake], None], str]] = {
    "every_record_is_accounted_for": (
        lose_a_session,
        rf"{YESTERDAY}: received \d+, valid \d+, rejected 0, repeated \d+",
    ),
    "session_ids_are_unique": (double_a_session, UUID),
    "sessions_start_on_their_day": (move_a_session, UUID),
    "tables_of_a_day_agree": (leave_a_table_behind, f"daily_cost_by_reference_dataset of {YESTERDAY}"),
    "costs_add_up": (add_to_a_sum, UUID),
    "no_cost_is_invented": (invent_a_cost, UUID),
    "no_reading_shrinks": (shrink, "some-session"),
    "schema_has_not_drifted": (drift, f"colour .records on {YESTERDAY}: 3"),
    "rejected_share_is_low": (reject_many, "total_cost: is no decimal"),
    "recent_days_are_fresh": (lose_a_reading, str(YESTERDAY)),
    "attributes_add_up": (add_to_an_attribute, UUID),
    "judges_have_experiments": (judge_nobody, "nobody"),
    "costs_are_usable": (refuse_a_cost, "is negative"),
}


def test_every_check_passes_after_a_run_and_reports_numbers(root: Path) -> None:
    found = examine(root)
    assert set(found) == set(CHECKS)
    assert {name for name, evaluation in found.items() if not evaluation.passed} == set()
    assert all(len(evaluation.metadata) >= 2 for evaluation in found.values())
    assert {evaluation.description for evaluation in found.values()} == {"True of all 3 days."}
    accounted = {name: value.value for name, value in found["every_record_is_accounted_for"].metadata.items()}
    assert accounted["received"] == accounted["valid"] + accounted["rejected"] + accounted["repeated"] >= 30
    assert {name for name, found_ in found.items() if found_.severity is dg.AssetCheckSeverity.WARN} == WARNINGS


def test_this_file_breaks_every_check() -> None:
    assert set(BREAKS) == set(CHECKS)


@pytest.mark.parametrize("name", BREAKS)
def test_a_check_that_fails_names_what_is_broken(name: str, lake: Lake, root: Path) -> None:
    breaking, says = BREAKS[name]
    breaking(lake)
    evaluation = examine(root, name)[name]
    assert not evaluation.passed
    assert re.search(says, str(evaluation.metadata)), evaluation.metadata
    broken = evaluation.metadata["broken"].value
    cases = "case" if broken == 1 else "cases"
    assert evaluation.description == f"Not true in {broken} {cases} within 3 days. {CHECKS[name].consequence}"


@pytest.mark.parametrize(("minutes", "fresh"), [(179, True), (181, False)])
def test_readings_older_than_three_hours_are_not_fresh(root: Path, minutes: int, fresh: bool) -> None:
    found = examine(root, "recent_days_are_fresh", later=timedelta(minutes=minutes))
    assert found["recent_days_are_fresh"].passed is fresh


def test_checks_without_a_run_examine_all_days_and_read_only_the_needed_columns_of_each_file_once(
    root: Path,
) -> None:
    loaded: list[tuple[str, Any, Any]] = []

    class Watched(Lake):
        def load(self, table: Table, day: Any, columns: Any = None) -> Any:
            loaded.append((table.name, day, columns))
            return super().load(table, day, columns)

    class Watching(Pipeline):
        def open_lake(self, *, read_only: bool = False) -> Lake:
            return Watched.open(str(root), query={}, read_only=read_only)

    pipeline = Watching(settings_for("http://127.0.0.1:9", root), clock=lambda: NOW)
    results = pipeline.examine([CHECKS["session_ids_are_unique"], CHECKS["rejected_share_is_low"]], None)
    assert all(result.passed for result in results.values())
    assert len(loaded) == len({(table, day) for table, day, _ in loaded})
    assert {(table, columns) for table, _, columns in loaded} - {("raw_sessions", ())} == {
        ("sessions", ("id", "missing_since")),
        ("rejected_sessions", ("reasons",)),
    }
    assert {day for _, day, _ in loaded} == set(DAYS)


def test_tables_that_a_crash_left_inconsistent_are_reported_and_the_next_run_repairs_them(
    lake: Lake, root: Path, whole: tuple[Path, Sandbox]
) -> None:
    leave_a_table_behind(lake)
    assert not examine(root, "tables_of_a_day_agree")["tables_of_a_day_agree"].passed
    read(whole[1], root)
    assert examine(root, "tables_of_a_day_agree")["tables_of_a_day_agree"].passed


def test_a_run_of_raw_sessions_alone_is_not_counted_against_tables_that_it_has_not_made(tmp_path: Path) -> None:
    with running_sandbox(texts=[record(1, NOW)], now=NOW) as sandbox:
        settings = read(sandbox, tmp_path, TODAY, clock=lambda: NOW)
        sandbox.api.data.texts = [record(1, NOW), record(2, NOW)]  # type: ignore[attr-defined]
        alone = run_days(settings, TODAY, TODAY, select='key:"raw_sessions"', clock=lambda: NOW)
        passed = {one.check_name: one.passed for one in alone.get_asset_check_evaluations()}
        assert passed["every_record_is_accounted_for"]
        assert not examine(tmp_path, "tables_of_a_day_agree")["tables_of_a_day_agree"].passed
        read(sandbox, tmp_path, TODAY, clock=lambda: NOW)
    found = examine(tmp_path)
    accounted = found["every_record_is_accounted_for"]
    assert (accounted.passed, accounted.metadata["valid"].value) == (True, 2)
    assert found["tables_of_a_day_agree"].passed


def test_a_session_that_shrinks_is_reported_after_a_reading_over_http(tmp_path: Path) -> None:
    start = datetime.now(UTC) - timedelta(hours=1)
    with running_sandbox(texts=[record(1, start, run_count=10)], now=start) as sandbox:
        read(sandbox, tmp_path, start.date(), start.date())
        sandbox.api.data.texts = [record(1, start, run_count=4)]  # type: ignore[attr-defined]
        read(sandbox, tmp_path, start.date(), start.date())
    stored = Lake.open(str(tmp_path), query={})
    assert "00000000-0000-4000-8000-000000000001" in stored.metadata(SESSIONS, start.date())["shrunk"]
    assert pc.sum(stored.read(SESSIONS, start.date()).column("run_count")).as_py() == 4


@pytest.mark.parametrize("days", [1, -1])
def test_a_session_that_moves_counts_on_both_days_and_the_check_says_what_to_subtract(
    tmp_path: Path, days: int
) -> None:
    then, now = sorted([YESTERDAY - timedelta(days=1), YESTERDAY], reverse=days < 0)
    before, after = (datetime(day.year, day.month, day.day, 12, tzinfo=UTC) for day in (then, now))
    with running_sandbox(texts=[record(1, before)], now=NOW) as sandbox:
        read(sandbox, tmp_path, clock=lambda: NOW)
        sandbox.api.data.texts = [record(1, after)]  # type: ignore[attr-defined]
        for _ in range(2):
            read(sandbox, tmp_path, clock=lambda: NOW)
            evaluation = examine(tmp_path, "session_ids_are_unique")["session_ids_are_unique"]
            assert not evaluation.passed
            assert "subtract the rows that have a missing_since" in str(evaluation.description)
            lake = Lake.open(str(tmp_path), query={})
            kept = {day: lake.read(SESSIONS, day).column("missing_since").to_pylist() for day in (then, now)}
            assert kept == {then: [NOW], now: [None]}


def test_drift_is_counted_by_name_and_its_properties_survive(tmp_path: Path) -> None:
    texts = [record(number, NOW, colour="red", trace_tier="eternal") for number in range(3)]
    with running_sandbox(texts=texts, now=NOW) as sandbox:
        read(sandbox, tmp_path, TODAY)
    stored = Lake.open(str(tmp_path), query={})
    drift_text = stored.metadata(SESSIONS, TODAY)["drift"]
    assert '"colour": 3' in drift_text
    assert "eternal" in drift_text or "trace_tier" in drift_text
    assert stored.read(SESSIONS, TODAY).column("unknown_fields").to_pylist() == ['{"colour":"red"}'] * 3


def test_what_the_api_is_known_to_send_besides_its_schema_is_reported_without_a_warning(tmp_path: Path) -> None:
    texts = [text.replace("{", '{"type":"AGENT",', 1) for text in recent_experiments()]
    with running_sandbox(texts=texts, now=NOW) as sandbox:
        read(sandbox, tmp_path, TODAY)
    stored = Lake.open(str(tmp_path), query={}).read(SESSIONS, TODAY).column("unknown_fields").to_pylist()
    assert {*stored} == {'{"longlived_ttl_days":null,"type":"AGENT"}'}
    evaluation = examine(tmp_path, "schema_has_not_drifted")["schema_has_not_drifted"]
    assert evaluation.passed
    counts = [evaluation.metadata[name].value for name in ("longlived_ttl_days", "type")]
    assert counts == [len(stored)] * 2


def weeks_and_months(result: dg.ExecuteInProcessResult) -> tuple[bool, str]:
    """Whether the weeks and months add up, and which do not."""
    (found,) = (one for one in result.get_asset_check_evaluations() if one.check_name == "weeks_and_months_add_up")
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert found.description == "True of all weeks and months."
    return found.passed, str(found.metadata["which"].value) if "which" in found.metadata else ""


def test_weeks_and_months_that_a_run_left_behind_are_reported_until_any_refresh_sums_them(tmp_path: Path) -> None:
    """As after a run that was killed between its days and its weeks: the files of weeks and months are older."""
    old = TODAY - timedelta(days=45)
    root, before = tmp_path / "lake", datetime(old.year, old.month, old.day, 12, tzinfo=UTC)

    def known(root: Path = root) -> list[str]:
        return outdated_periods(Lake.open(str(root), query={}, read_only=True))

    with running_sandbox(texts=[record(1, NOW), record(2, before)], now=NOW) as sandbox:
        settings = settings_for(sandbox.url, root)
        assert known() == []
        assert weeks_and_months(run_days(settings, old, old)) == (True, "")
        files = {file: file.read_bytes() for one in PERIODS for file in (root / one.table.name).glob("*.parquet")}
        sandbox.api.data.texts = [record(1, NOW), record(2, before), record(3, before)]  # type: ignore[attr-defined]
        read(sandbox, root, old, old)
        for file, content in files.items():
            file.write_bytes(content)
        left = ["week of 2026-02-02", "month of 2026-02-01"]
        assert known() == left
        found = weeks_and_months_add_up(pipeline=Pipeline(settings))
        assert isinstance(found, dg.AssetCheckResult)
        assert (found.passed, found.metadata["which"]) == (False, dg.MetadataValue.text(", ".join(left)))
        assert found.description == "Not true; `which` says of which."
        with pytest.warns(UserWarning, match="^weekly_cost.* is not the sum of its days: week of 2026-02-02; mater"):
            sessions_pipeline.read("weekly_cost_by_reference_dataset", root=root)
        assert weeks_and_months(run_days(settings, TODAY, TODAY)) == (True, "")
    assert known() == []
    weeks = sessions_pipeline.read("weekly_cost_by_reference_dataset", root=root)
    assert weeks.column("session_count").to_pylist() == [2, 1]
    assert known(shutil.copytree(root, tmp_path / "copy")) == [], "although a copy's files have other versions"


def test_a_run_of_daily_tables_alone_leaves_no_week_behind_nor_a_broken_file_of_weeks(tmp_path: Path) -> None:
    """Dagster splits a backfill of all tables into such a run and a later one of weeks and months."""
    daily = " or ".join(f'key:"{one.name}"' for one in (RAW_SESSIONS, SESSIONS, DAILY_COST_BY_REFERENCE_DATASET))
    with running_sandbox(texts=[record(1, NOW)], now=NOW) as sandbox:
        settings = read(sandbox, tmp_path / "lake", TODAY)
        sandbox.api.data.texts = [record(1, NOW), record(2, NOW)]  # type: ignore[attr-defined]
        (weeks,) = (tmp_path / "lake" / PERIODS[0].table.name).glob("*.parquet")
        for content in (weeks.read_bytes(), b"broken"):
            weeks.write_bytes(content)
            assert weeks_and_months(run_days(settings, TODAY, TODAY, select=daily)) == (True, "")
            found = sessions_pipeline.read("weekly_cost_by_reference_dataset", root=tmp_path / "lake")
            assert found.column("session_count").to_pylist() == [2]
        weeks.write_bytes(b"broken")
        found = weeks_and_months_add_up(pipeline=Pipeline(settings))
        assert isinstance(found, dg.AssetCheckResult)
        assert f"materialize {PERIODS[0].table.name} again" in str(found.metadata["which"].value)


@pytest.mark.parametrize("column", ["total_cost", "session_count", "day_count"])
def test_a_week_is_outdated_if_any_figure_of_any_workspace_is_not_that_of_its_days(lake: Lake, column: str) -> None:
    (days, *_), week = lake.days(DAILY_COST_BY_REFERENCE_DATASET), PERIODS[0]
    stored = lake.load(week.table, None)
    assert stored is not None
    rows = stored.rows.to_pylist()
    other = [{**row, "tenant_id": OTHER_TENANT} for row in rows if row["week_start"] == week.start_of(days)]
    assert other
    lake.replace(week.table, None, pa.Table.from_pylist(rows, week.table.schema), {})
    assert outdated_periods(lake) == [], "made by another program, but the sums are right"
    rows[-1][column] += 1
    lake.replace(week.table, None, pa.Table.from_pylist(rows, week.table.schema), {})
    assert outdated_periods(lake) == [f"week of {rows[-1]['week_start']}"]
    lake.replace(week.table, None, pa.Table.from_pylist([*rows[:-1], *other], week.table.schema), {})
    assert f"week of {other[0]['week_start']}" in outdated_periods(lake)
