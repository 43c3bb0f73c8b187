"""`dagster dev`: a five-day backfill, launched as the UI does it, and what the UI then shows."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from sessions_pipeline.orchestration import SHIPPED
from sessions_pipeline.tables import DERIVED, RAW_SESSIONS, REJECTED_SESSIONS, SESSIONS
from sessions_pipeline_tests.ctrl_c import accepting_ctrl_c
from sessions_pipeline_tests.end_to_end.dagster_processes import Ask, end, launch_backfill
from sessions_pipeline_tests.end_to_end.deployment import REPOSITORY, free_port, wait_until
from sessions_pipeline_tests.faulty_server import running_sandbox

TODAY = datetime.now(UTC).date()
DAYS = [str(TODAY - timedelta(days=back)) for back in range(7, 2, -1)]
TABLES = tuple(table.name for table in (RAW_SESSIONS, SESSIONS, REJECTED_SESSIONS, *DERIVED))
ALL = (
    *TABLES,
    "weekly_cost_by_reference_dataset",
    "monthly_cost_by_reference_dataset",
    "daily_cost_by_project",
    "judge_cost_by_experiment",
    "cost_report",
)

BACKFILL = """
query Backfill($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status error { message } } }
  runsOrError(filter: {tags: [{key: "dagster/backfill", value: $id}]}) {
    ... on Runs { results { runId status tags { key value } } }
  }
}
"""
SHOWN = """
query Shown($asset: AssetKeyInput!, $days: [String!]) {
  assetOrError(assetKey: $asset) {
    ... on Asset {
      assetMaterializations(partitions: $days) {
        partition
        metadataEntries {
          label
          ... on IntMetadataEntry { intValue }
          ... on FloatMetadataEntry { floatValue }
          ... on TextMetadataEntry { text }
          ... on PathMetadataEntry { path }
        }
      }
      definition {
        description
        partitionStats { numMaterialized numFailed }
        groupName
        assetChecksOrError { ... on AssetChecks { checks { name } } }
      }
    }
  }
}
"""
CHECKED = """
query Checked($asset: AssetKeyInput!, $check: String!) {
  assetCheckExecutions(assetKey: $asset, checkName: $check, limit: 100) { status }
}
"""


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ask, Path]]:
    """A function that sends GraphQL queries to a running `dagster dev` with a new instance, and its data root."""
    folder = tmp_path_factory.mktemp("dagster")
    home, root = folder / "home", folder / "lake"
    home.mkdir()
    shutil.copy(SHIPPED, home)
    port = free_port()
    with running_sandbox() as sandbox, (folder / "log").open("w") as log:
        ours = ("LANGSMITH_", "LANGCHAIN_", "SESSIONS_PIPELINE_", "DAGSTER_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {
            "LANGSMITH_API_KEY": sandbox.key,
            "LANGSMITH_ENDPOINT": sandbox.url,
            "SESSIONS_PIPELINE_DATA_ROOT": str(root),
            "DAGSTER_HOME": str(home),
        }
        dev = (sys.executable, "-m", "dagster", "dev", "-w", str(REPOSITORY / "workspace.yaml"))
        process = subprocess.Popen(
            accepting_ctrl_c(*dev, "--host", "127.0.0.1", "--port", str(port)),
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                wait_until(lambda: _is_up(client, process), "the UI", (folder / "log").read_text)

                def ask(query: str, **variables: Any) -> dict[str, Any]:
                    answer = client.post("/graphql", json={"query": query, "variables": variables}).json()
                    assert "errors" not in answer, answer["errors"]
                    data: dict[str, Any] = answer["data"]
                    return data

                yield ask, root
        finally:
            _stop(process)


def _is_up(client: httpx.Client, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, "dagster dev has ended"
    try:
        return client.get("/server_info").status_code == 200
    except httpx.TransportError:
        return False


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Send Ctrl-C to the whole process group, as a terminal does, and kill what remains afterwards."""
    os.killpg(process.pid, signal.SIGINT)
    end(process, patience_seconds=30)


def finish(ask: Ask, backfill: str) -> list[dict[str, Any]]:
    """Wait until a backfill has succeeded, and return its runs."""

    def is_over() -> bool:
        status = ask(BACKFILL, id=backfill)["partitionBackfillOrError"]["status"]
        assert status in ("REQUESTED", "IN_PROGRESS", "COMPLETED_SUCCESS"), ask(BACKFILL, id=backfill)
        return bool(status == "COMPLETED_SUCCESS")

    wait_until(is_over, "the backfill's end")
    runs: list[dict[str, Any]] = ask(BACKFILL, id=backfill)["runsOrError"]["results"]
    return runs


@pytest.fixture(scope="module")
def backfilled(ui: tuple[Ask, Path]) -> tuple[Ask, Path]:
    """The same UI after "Materialize all" for five days, launched as the UI does it."""
    ask, _ = ui
    runs = finish(ask, launch_backfill(ask, ALL, DAYS))
    ranges = [run for run in runs if any(tag["key"] == "dagster/asset_partition_range_start" for tag in run["tags"])]
    assert len(ranges) == 1, "all days are one run"
    return ui


def test_a_backfill_of_one_derived_table_succeeds(backfilled: tuple[Ask, Path]) -> None:
    ask, _ = backfilled
    [run] = finish(ask, launch_backfill(ask, ["session_feedback"], DAYS))
    assert run["status"] == "SUCCESS"


def test_exactly_the_days_with_a_file_count_as_materialized(backfilled: tuple[Ask, Path]) -> None:
    ask, root = backfilled
    for table in TABLES:
        stats = ask(SHOWN, asset={"path": [table]}, days=DAYS)["assetOrError"]["definition"]["partitionStats"]
        assert stats == {"numMaterialized": len(list((root / table).glob("start_date=2*"))), "numFailed": 0}


def test_a_backfill_of_five_days_writes_their_parquet_in_one_run(backfilled: tuple[Ask, Path]) -> None:
    _, root = backfilled
    for table in TABLES:
        # There may be more days, because the sensor is on by default and looks for changes from the first minute.
        assert set(DAYS) <= {path.name.removeprefix("start_date=") for path in (root / table).glob("start_date=2*")}
    rows = sum(pq.read_metadata(path).num_rows for path in root.glob("daily_cost_by_reference_dataset/*/*.parquet"))
    assert rows >= 5 * 4


def test_every_day_shows_its_rows_its_cost_as_text_and_its_file(backfilled: tuple[Ask, Path]) -> None:
    ask, root = backfilled
    asset = ask(SHOWN, asset={"path": ["sessions"]}, days=DAYS)["assetOrError"]
    shown = {one["partition"]: one["metadataEntries"] for one in asset["assetMaterializations"]}
    assert sorted(shown) == DAYS
    for day, entries in shown.items():
        by_label = {entry["label"]: entry for entry in entries}
        [file] = (root / "sessions" / f"start_date={day}").glob("*.parquet")
        table = pq.read_table(file)
        assert by_label["dagster/row_count"]["intValue"] == table.num_rows
        assert file.name in json.dumps(by_label["dagster/uri"])
        known = [cost for cost in table.column("total_cost").to_pylist() if cost is not None]
        assert by_label["total_cost"]["text"] == f"{sum(known).normalize():f}"


def test_every_daily_table_has_a_description_and_the_main_checks_passed(backfilled: tuple[Ask, Path]) -> None:
    ask, _ = backfilled
    found: dict[str, set[str]] = {}
    for table in TABLES:
        asset = {"path": [table]}
        definition = ask(SHOWN, asset=asset, days=DAYS)["assetOrError"]["definition"]
        assert definition["description"]
        for check in definition["assetChecksOrError"].get("checks", []):
            executions = ask(CHECKED, asset=asset, check=check["name"])["assetCheckExecutions"]
            # Not only of the latest materialization, which may be of a sensor's run that began before the backfill. For
            # a run of several days, Dagster plans each check for each day, and calls these skipped.
            found[check["name"]] = {one["status"] for one in executions} - {"IN_PROGRESS", "SKIPPED"}
    promised = {
        "session_ids_are_unique",
        "every_record_is_accounted_for",
        "sessions_start_on_their_day",
        "costs_add_up",
    }
    assert promised <= set(found)
    assert {name: found[name] for name in promised} == {name: {"SUCCEEDED"} for name in promised}
