"""The definitions load as Dagster's own commands load them: no warning, no network, and what the schedule asks for."""

import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest

from sessions_pipeline.orchestration.build import build_definitions
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.tables import TABLES
from sessions_pipeline_tests.integration.pipeline_runs import settings_for

REPOSITORY = Path(__file__).parents[2]
# Connecting is an error in the process that loads the definitions.
LOAD = """
import socket
def refuse(*_): raise AssertionError("the definitions opened a connection")
socket.socket.connect = refuse
from sessions_pipeline.definitions import defs
defs().get_repository_def().load_all_definitions()
"""


def _run(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LANG", "SESSIONS_"))}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment | {"DAGSTER_HOME": str(folder)},
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


def test_dagster_finds_the_workspace_valid(tmp_path: Path) -> None:
    workspace = str(REPOSITORY / "workspace.yaml")
    validated = _run(tmp_path, "-m", "dagster", "definitions", "validate", "-w", workspace)
    assert validated.returncode == 0, validated.stderr


@pytest.mark.parametrize(("lookback", "first"), [(3, date(2026, 3, 17)), (0, date(2026, 3, 20))])
def test_a_tick_of_the_hourly_schedule_asks_for_the_lookback_days_and_today_as_one_run(
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
