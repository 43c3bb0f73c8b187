"""The events that a run records in Dagster: each day once, and only days that were written."""

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.compute as pc
import pytest

from sessions_pipeline.definitions import build_definitions
from sessions_pipeline.errors import RefusedError, TooManyRejectedError
from sessions_pipeline.orchestration import REFRESH, SHIPPED, range_tags
from sessions_pipeline.orchestration.event_storage import KeptEventLog
from sessions_pipeline.orchestration.run import QUIET
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.tables import (
    CHECKS,
    DAILY_COST_BY_REFERENCE_DATASET,
    DERIVED,
    JUDGE_COST_BY_EXPERIMENT,
    RAW_SESSIONS,
    REJECTED_SESSIONS,
    SESSIONS,
)
from sessions_pipeline.tables.period_costs import PERIODS
from sessions_pipeline_tests.faulty_server import Fault, Sandbox, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import (
    DAYS,
    FIRST,
    NOW,
    TODAY,
    execute,
    files,
    lake_at,
    recent_experiments,
    record,
    settings_for,
    some_records,
)
from sessions_pipeline_tests.snippets import Snippet, each

DAILY = [table.name for table in (RAW_SESSIONS, SESSIONS, REJECTED_SESSIONS, *DERIVED)]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance with its storage in memory, which behaves as on disk and is ten times as fast."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def home(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance with its storage in a folder, as in `DAGSTER_HOME`."""
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        yield instance


def pipeline_for(sandbox: Sandbox, root: Path, **values: object) -> Pipeline:
    """A pipeline whose schedule covers the days of the runs, with the sandbox's time as its clock."""
    return Pipeline(
        settings_for(sandbox.url, root / "lake", SESSIONS_PIPELINE_LOOKBACK_DAYS=2, **values), clock=lambda: NOW
    )


def recorded(instance: dg.DagsterInstance, run_id: str) -> Counter[tuple[str, str | None]]:
    """How often each asset was recorded for each partition in a run."""
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    found = [event.get_dagster_event() for event in events]
    return Counter((one.asset_key.to_user_string(), one.partition) for one in found if one.asset_key)


def materialized(instance: dg.DagsterInstance, table: str) -> list[str]:
    return sorted(instance.get_materialized_partitions(dg.AssetKey(table)))


def test_two_refreshes_in_a_row_record_every_day_once_and_pass_every_check(
    home: dg.DagsterInstance, tmp_path: Path
) -> None:
    with running_sandbox(texts=recent_experiments(), now=NOW) as sandbox:
        pipeline = pipeline_for(sandbox, tmp_path)
        for _ in range(2):
            result = execute(pipeline, FIRST, TODAY, instance=home)
            checked = {one.check_name: one.passed for one in result.get_asset_check_evaluations()}
            # A separate job measures judges.
            names = {name for name, check in CHECKS.items() if check.table != JUDGE_COST_BY_EXPERIMENT}
            assert checked == dict.fromkeys([*names, "weeks_and_months_add_up"], True)
            counted = recorded(home, result.run_id)
            assert set(counted.values()) == {1}
            days = {(table, str(day)) for table in DAILY for day in DAYS}
            assert {key for key in counted if key[1]} == days
    for table in DAILY:
        assert materialized(home, table) == [str(day) for day in DAYS]


def test_all_tables_of_a_day_are_recorded_in_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches, store = list[list[tuple[str, str | None]]](), KeptEventLog.store_event_batch

    def storing(log: KeptEventLog, events: Sequence[dg.EventLogEntry]) -> None:
        found = [one.dagster_event for one in events if one.dagster_event and one.dagster_event.asset_key]
        batches.append([(str(one.asset_key.path[0]), one.partition) for one in found if one.is_step_materialization])
        store(log, events)

    monkeypatch.setattr(KeptEventLog, "store_event_batch", storing)
    shutil.copy(SHIPPED, tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))  # else it would be the folder that `make dev` uses
    with running_sandbox(texts=some_records(20), now=NOW) as sandbox, dg.DagsterInstance.get() as instance:
        execute(pipeline_for(sandbox, tmp_path), FIRST, TODAY, instance=instance)
    of_days = [sorted(batch) for batch in batches if len(batch) > 1]
    assert sorted(of_days) == [sorted((table, str(day)) for table in DAILY) for day in DAYS]


def test_only_written_days_count_as_materialized_and_the_run_says_why_others_were_not(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    bad = [record(number, NOW - timedelta(days=1), name=["no name"]) for number in range(900, 940)]
    texts = sorted([*some_records(20), *bad], key=_start, reverse=True)
    with (
        running_sandbox(texts=texts, now=NOW) as sandbox,
        pytest.raises(TooManyRejectedError, match=f"{DAYS[1]}: 40 of"),
    ):
        execute(pipeline_for(sandbox, tmp_path), FIRST, TODAY, instance=instance)
    written = sorted(str(day) for day in lake_at(tmp_path / "lake").days(SESSIONS))
    assert written == [str(FIRST), str(TODAY)]
    for table in DAILY:
        assert materialized(instance, table) == written


def test_weeks_and_months_are_the_sums_of_their_days_while_another_day_is_refused(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    bad = [record(number, NOW - timedelta(days=1), name=["no name"]) for number in range(900, 940)]
    texts = sorted([*some_records(20), *bad], key=_start, reverse=True)
    with running_sandbox(texts=texts, now=NOW) as sandbox, pytest.raises(TooManyRejectedError):
        execute(pipeline_for(sandbox, tmp_path), FIRST, TODAY, instance=instance)
    assert _sessions_in_weeks_and_months(tmp_path) == [20, 20]


def test_weeks_and_months_are_the_sums_of_the_days_that_were_written_before_the_api_failed(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        sandbox.faults.add(Fault("status", 401, times=None, after=25))
        with pytest.raises(RefusedError):
            execute(pipeline_for(sandbox, tmp_path, SESSIONS_PIPELINE_PAGE_SIZE=10), FIRST, TODAY, instance=instance)
    read = lake_at(tmp_path / "lake").read(DAILY_COST_BY_REFERENCE_DATASET, TODAY)
    count = pc.sum(read.column("session_count")).as_py()
    assert count
    assert _sessions_in_weeks_and_months(tmp_path) == [count, count]


def test_after_a_canceled_run_the_days_that_it_wrote_are_recorded_and_are_in_weeks_and_months(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    finished = list[date]()

    def cancel(day: date) -> None:
        finished.append(day)
        if len(finished) == 1:
            raise KeyboardInterrupt

    with running_sandbox(texts=some_records(), now=NOW) as sandbox, pytest.raises(KeyboardInterrupt):
        execute(replace(pipeline_for(sandbox, tmp_path), on_day=cancel), FIRST, TODAY, instance=instance)
    lake = lake_at(tmp_path / "lake")
    days = lake.days(DAILY_COST_BY_REFERENCE_DATASET)
    assert TODAY in days != list(DAYS), "the rest was canceled"
    assert materialized(instance, DAILY_COST_BY_REFERENCE_DATASET.name) == [str(day) for day in days]
    count = pc.sum(lake.read_days(DAILY_COST_BY_REFERENCE_DATASET, days).column("session_count")).as_py()
    assert _sessions_in_weeks_and_months(tmp_path) == [count, count]


def test_weeks_and_months_are_the_sums_of_their_days_after_a_run_that_was_canceled_between_its_steps(
    home: dg.DagsterInstance, tmp_path: Path
) -> None:
    @dg.success_hook
    def cancel(context: dg.HookContext) -> None:
        if context.op.name == "daily_tables":
            raise KeyboardInterrupt

    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        job = build_definitions(pipeline_for(sandbox, tmp_path)).resolve_job_def(REFRESH).with_hooks({cancel})
        with pytest.raises(KeyboardInterrupt):
            job.execute_in_process(instance=home, tags=range_tags(FIRST, TODAY), run_config=QUIET)
    lake = lake_at(tmp_path / "lake")
    assert lake.days(DAILY_COST_BY_REFERENCE_DATASET) == list(DAYS)
    assert _sessions_in_weeks_and_months(tmp_path) == [_sessions_in_days(tmp_path)] * 2
    assert materialized(home, PERIODS[0].table.name) == []


def test_weeks_and_months_that_can_not_be_summed_after_a_backfill_are_a_warning_and_the_days_are_written(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """Dagster makes weeks and months in another run of a backfill, which then fails with the same reason."""
    warnings = list[str]()
    with running_sandbox(texts=some_records(total_cost="5" + "0" * 17), now=NOW) as sandbox:
        pipeline = replace(pipeline_for(sandbox, tmp_path), on_warning=warnings.append)
        assert execute(pipeline, FIRST, TODAY, instance=instance, select=" or ".join(f"key:{one}" for one in DAILY))
    (warning,) = (one for one in warnings if one.startswith("Weeks and months were not summed: "))
    assert "total_cost of " in warning
    assert lake_at(tmp_path / "lake").days(DAILY_COST_BY_REFERENCE_DATASET) == list(DAYS)


def test_a_failed_run_of_raw_sessions_alone_makes_no_weeks_and_months(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        sandbox.faults.add(Fault("status", 401, times=None, after=25))
        pipeline = pipeline_for(sandbox, tmp_path, SESSIONS_PIPELINE_PAGE_SIZE=10)
        with pytest.raises(RefusedError):
            execute(pipeline, FIRST, TODAY, instance=instance, select='key:"raw_sessions"')
    lake = lake_at(tmp_path / "lake")
    assert lake.has(RAW_SESSIONS, TODAY)
    assert not any(lake.has(period.table, None) for period in PERIODS)


def _sessions_in_days(folder: Path) -> int:
    lake = lake_at(folder / "lake")
    days = lake.read_days(DAILY_COST_BY_REFERENCE_DATASET, lake.days(DAILY_COST_BY_REFERENCE_DATASET))
    return int(pc.sum(days.column("session_count")).as_py())


def _sessions_in_weeks_and_months(folder: Path) -> list[int]:
    lake = lake_at(folder / "lake")
    return [pc.sum(lake.read(period.table, None).column("session_count")).as_py() for period in PERIODS]


def _start(text: str) -> str:
    return text.split('"start_time":"')[1]


def test_the_finished_days_of_a_run_that_dies_stay_recorded(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    finished: list[date] = []

    def die_at_the_second(day: date) -> None:
        finished.append(day)
        if len(finished) == 2:
            raise MemoryError

    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        settings = pipeline_for(sandbox, tmp_path).settings
        with pytest.raises(MemoryError):
            execute(Pipeline(settings, on_day=die_at_the_second), FIRST, TODAY, instance=instance)
    for table in DAILY:
        assert materialized(instance, table) == sorted(map(str, finished))


def test_derived_tables_alone_are_rebuilt_without_a_request_and_with_their_own_checks(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        pipeline = pipeline_for(sandbox, tmp_path)
        execute(pipeline, FIRST, TODAY, instance=instance)
        before = len(sandbox.requests)
        result = execute(
            pipeline, FIRST, TODAY, instance=instance, select="key:sessions or key:daily_cost_by_reference_dataset"
        )
        assert len(sandbox.requests) == before
    assert {table for table, _ in recorded(instance, result.run_id)} == {"sessions", "daily_cost_by_reference_dataset"}
    checked = {one.check_name: one for one in result.get_asset_check_evaluations()}
    tables = ("sessions", "daily_cost_by_reference_dataset")
    of_tables = {name for name, check in CHECKS.items() if check.table.name in tables}
    assert set(checked) == of_tables | {"weeks_and_months_add_up"}
    assert checked["tables_of_a_day_agree"].passed
    assert checked["costs_add_up"].passed


def test_materialize_all_over_an_old_range_succeeds(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """The usage of projects on old days can't be measured any more; days within reach are measured."""
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        pipeline = pipeline_for(sandbox, tmp_path)
        first, last = TODAY - timedelta(days=60), TODAY - timedelta(days=58)
        assert execute(pipeline, first, last, instance=instance, select="*").success
    assert materialized(instance, "daily_cost_by_project") == []
    assert materialized(instance, "sessions") == [str(first), str(first + timedelta(days=1)), str(last)]


def test_a_refresh_that_learns_nothing_rewrites_no_table(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        pipeline = pipeline_for(sandbox, tmp_path)
        execute(pipeline, FIRST, TODAY, instance=instance)
        before, times = files(tmp_path / "lake"), written_at(tmp_path)
        execute(pipeline, FIRST, TODAY, instance=instance)
        after = files(tmp_path / "lake")
    assert {key for key in after if before.get(key) != after[key]} <= {
        key for key in after if key.startswith("_readings/")
    }
    assert written_at(tmp_path) == times, "not even by the same bytes"


def written_at(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in (folder / "lake").rglob("*.parquet")}


def facts(instance: dg.DagsterInstance, run_id: str) -> dict[tuple[str, str | None], dict[str, Any]]:
    """The metadata that a run recorded for each asset and partition, which the UI plots."""
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    found = [one.get_dagster_event().step_materialization_data.materialization for one in events]
    return {
        (one.asset_key.to_user_string(), one.partition): {name: value.value for name, value in one.metadata.items()}
        for one in found
    }


def test_an_unchanged_day_records_the_same_metadata_again(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """Otherwise the UI's plots, which show each partition's latest numbers, would be empty after the next refresh."""
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        pipeline = pipeline_for(sandbox, tmp_path)
        first, again = (facts(instance, execute(pipeline, FIRST, TODAY, instance=instance).run_id) for _ in range(2))
    days = {key: recorded for key, recorded in first.items() if key[0] in DAILY and key[0] != RAW_SESSIONS.name}
    assert len(days) == (len(DAILY) - 1) * len(DAYS)
    for key, recorded in days.items():
        assert again[key].pop("unchanged") is True
        assert again[key] == {name: one for name, one in recorded.items() if name != "bytes"}
        assert recorded["dagster/row_count"] >= 0
    files = {key: Path(one["dagster/uri"]) for key, one in again.items() if key[0] in DAILY}
    assert [key for key, file in files.items() if not file.is_file()] == []


def test_no_name_or_text_of_a_session_is_recorded_beside_the_figures_of_a_day(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        pipeline = pipeline_for(sandbox, tmp_path)
        recorded = str(facts(instance, execute(pipeline, FIRST, TODAY, instance=instance).run_id))
    rows = pipeline.open_lake().read_days(SESSIONS, DAYS, ["name", "extra"])
    texts = {text for column in ("name", "extra") for text in rows.column(column).to_pylist() if text}
    assert texts
    assert [text for text in texts if text in recorded] == []


def latest(instance: dg.DagsterInstance) -> dict[str, Any]:
    """What the UI shows of each table and check: the latest event of each day and of the table, and all results."""
    storage, kind = instance.event_log_storage, dg.DagsterEventType.ASSET_MATERIALIZATION
    checks = [dg.AssetCheckKey(dg.AssetKey(check.table.name), name) for name, check in CHECKS.items()]
    return {
        **{str(key): storage.get_latest_storage_id_by_partition(key, kind) for key in instance.get_asset_keys()},
        **{f"all of {key}": instance.get_latest_materialization_event(key) for key in instance.get_asset_keys()},
        **{str(check): storage.get_asset_check_execution_history(check, limit=100) for check in checks},
    }


@each
def test_deleting_superseded_runs_leaves_the_latest_of_every_day_and_check(
    snippet: Snippet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(SHIPPED, tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    runs = [(FIRST, "raw_sessions*"), (DAYS[1], None), (DAYS[1], None), (FIRST, "session_feedback"), (DAYS[1], None)]
    with running_sandbox(texts=some_records(), now=NOW) as sandbox, dg.DagsterInstance.get() as instance:
        pipeline = pipeline_for(sandbox, tmp_path)
        ids = [execute(pipeline, day, TODAY, instance=instance, select=what).run_id for day, what in runs]
        for table in DAILY:  # as "Report materialization" in the UI does
            instance.report_runless_asset_event(dg.AssetMaterialization(table, partition=str(FIRST)))
        before = latest(instance)
        assert "days=30" in snippet.text
        exec(snippet.text, {})
        assert instance.get_runs_count() == len(runs)
        exec(snippet.text.replace("days=30", "days=0"), {})
        assert [run.run_id for run in instance.get_runs()] == [ids[4], ids[3], ids[0]]
        assert latest(instance) == before


def test_groups_of_assets_are_named_in_the_order_of_the_data(tmp_path: Path) -> None:
    graph = build_definitions(Pipeline(settings_for("http://127.0.0.1:9", tmp_path))).get_repository_def().asset_graph
    before = defaultdict[str | None, set[str | None]](set)
    for node in graph.asset_nodes:
        before[node.group_name] |= {graph.get(key).group_name for key in node.parent_keys} - {node.group_name}
    order = list(TopologicalSorter(before).static_order())  # raises CycleError if there is no order
    assert [name for name in order if name != "usage"] == ["sessions", "experiments", "costs", "report"]


def test_assets_are_the_tables_and_depend_on_what_they_are_made_from(tmp_path: Path) -> None:
    graph = build_definitions(Pipeline(settings_for("http://127.0.0.1:9", tmp_path))).get_repository_def().asset_graph
    for table, derived in DERIVED.items():
        parents = {key.to_user_string() for key in graph.get(dg.AssetKey(table.name)).parent_keys}
        assert parents == {read.name for read in derived.reads}
    for table in DAILY:
        assert graph.get(dg.AssetKey(table)).is_partitioned
    assert not graph.get(dg.AssetKey("daily_cost_by_project")).is_partitioned


@pytest.mark.parametrize(("days_per_run", "expected"), [("", None), ("7", 7)])
def test_a_backfill_is_one_run_or_is_split_as_the_settings_say(
    tmp_path: Path, days_per_run: str, expected: int | None
) -> None:
    values = {"SESSIONS_PIPELINE_DAYS_PER_RUN": days_per_run} if days_per_run else {}
    pipeline = Pipeline(settings_for("http://127.0.0.1:9", tmp_path, **values))
    graph = build_definitions(pipeline).get_repository_def().asset_graph
    policies = {graph.get(dg.AssetKey(table)).backfill_policy for table in DAILY}
    assert {policy and policy.max_partitions_per_run for policy in policies} == {expected}
