"""Dagster's own commands load the definitions without a warning or a connection, and run them."""

import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from sessions_pipeline.definitions import build_definitions
from sessions_pipeline.outputs import REPORT_FILE
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET, TABLES, WEEKLY_COST_BY_REFERENCE_DATASET
from sessions_pipeline_tests.faulty_server import running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import NOW, lake_at, settings_for

REPOSITORY = Path(__file__).parents[2]
TODAY = datetime.now(UTC).date()
# A program that loads the definitions, and fails if they open a connection.
LOAD = """
import socket
def refuse(*_): raise AssertionError("the definitions opened a connection")
socket.socket.connect = refuse
from sessions_pipeline.definitions import defs
defs().get_repository_def().load_all_definitions()
"""


def _run(folder: Path, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LANG", "SESSIONS_"))}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment | {"DAGSTER_HOME": str(folder)} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_definitions_load_without_a_warning_or_a_connection(tmp_path: Path) -> None:
    loaded = _run(tmp_path, "-W", "error", "-c", LOAD)
    assert (loaded.returncode, loaded.stderr) == (0, "")


def test_dagster_lists_the_tables_as_assets(tmp_path: Path) -> None:
    listed = _run(tmp_path, "-m", "dagster", "asset", "list", "-m", "sessions_pipeline.definitions")
    assert listed.returncode == 0, listed.stderr
    assert {table.name for table in TABLES} <= set(listed.stdout.split())
    assert "Warning" not in listed.stderr


def test_dagster_validates_the_workspace(tmp_path: Path) -> None:
    workspace = str(REPOSITORY / "workspace.yaml")
    validated = _run(tmp_path, "-m", "dagster", "definitions", "validate", "-w", workspace)
    assert validated.returncode == 0, validated.stderr


def test_dagsters_own_command_materializes_a_range_of_days_and_tables_without_partitions(tmp_path: Path) -> None:
    first, last = TODAY - timedelta(days=1), TODAY
    variables = {"SESSIONS_PIPELINE_START_DATE": str(first), "SESSIONS_PIPELINE_JUDGE_REQUESTS": "5"}
    chosen = ["--select", "*", "--partition-range", f"{first}...{last}"]
    with running_sandbox() as api:
        variables |= {"LANGSMITH_ENDPOINT": api.url, "LANGSMITH_API_KEY": api.key}
        command = ["-m", "dagster", "asset", "materialize", *chosen, "-m", "sessions_pipeline.definitions"]
        made = _run(tmp_path, *command, **variables)
    assert made.returncode == 0, made.stderr
    lake = lake_at(tmp_path / "data")
    assert lake.days(DAILY_COST_BY_REFERENCE_DATASET) == [first, last]
    assert lake.has(WEEKLY_COST_BY_REFERENCE_DATASET, None)
    assert (tmp_path / "data" / REPORT_FILE).exists()


def test_a_refresh_without_given_days_reads_the_days_of_the_hourly_refresh(tmp_path: Path) -> None:
    """`dagster job execute -j refresh_sessions` starts the job without days."""
    first, last = NOW.date() - timedelta(days=1), NOW.date()
    with running_sandbox(now=NOW) as api, dg.DagsterInstance.ephemeral() as instance:
        pipeline = Pipeline(settings_for(api.url, tmp_path, SESSIONS_PIPELINE_LOOKBACK_DAYS=1), clock=lambda: NOW)
        job = build_definitions(pipeline).get_repository_def().get_job("refresh_sessions")
        assert job.execute_in_process(instance=instance).success
        recorded = instance.get_materialized_partitions(dg.AssetKey(DAILY_COST_BY_REFERENCE_DATASET.name))
    assert lake_at(tmp_path).days(DAILY_COST_BY_REFERENCE_DATASET) == [first, last]
    assert recorded == {str(first), str(last)}


@pytest.mark.parametrize(("lookback", "first"), [(3, date(2026, 3, 17)), (0, date(2026, 3, 20))])
def test_a_tick_of_the_hourly_schedule_requests_one_run_for_the_lookback_days_and_today(
    tmp_path: Path, lookback: int, first: date
) -> None:
    settings = settings_for("http://127.0.0.1:1", tmp_path, SESSIONS_PIPELINE_LOOKBACK_DAYS=lookback)
    repository = build_definitions(Pipeline(settings)).get_repository_def()
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=datetime(2026, 3, 20, 15, tzinfo=UTC),
            repository_def=repository,
        )
        tick = repository.get_schedule_def("hourly_refresh").evaluate_tick(context)
    [request] = tick.run_requests or []
    assert request.tags["dagster/asset_partition_range_start"] == first.isoformat()
    assert request.tags["dagster/asset_partition_range_end"] == "2026-03-20"
