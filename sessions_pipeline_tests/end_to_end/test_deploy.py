"""The real processes with `deploy/dagster.yaml` and `deploy/workspace.yaml` survive a code server that is killed."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sessions_pipeline.tables.period_costs import PERIODS
from sessions_pipeline_tests.end_to_end import postgres_server
from sessions_pipeline_tests.end_to_end.dagster_processes import launch_backfill, stop_schedules
from sessions_pipeline_tests.end_to_end.deployment import Deployment, wait_until
from sessions_pipeline_tests.faulty_server import Fault, Sandbox, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import contents, read

pytestmark = [
    pytest.mark.xdist_group("deploy"),
    pytest.mark.skipif(
        postgres_server.binaries() is None and not os.environ.get("CI"),
        reason="PostgreSQL is not installed: apt-get install postgresql",
    ),
]

# Long past, so that the sensor never asks for these days. (The test stops the schedules.)
NOW = datetime(2026, 3, 20, 15, tzinfo=UTC)
DAYS = [NOW.date() - timedelta(days=back) for back in range(6, 0, -1)]
TABLES = ("raw_sessions", "sessions", "rejected_sessions", "daily_cost_by_reference_dataset")

BACKFILL = """
query Backfill($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } }
  runsOrError(filter: {tags: [{key: "dagster/backfill", value: $id}]}) {
    ... on Runs { results { runId parentRunId status tags { key value } } }
  }
}
"""


@dataclass(frozen=True)
class Backfill:
    """A backfill that was launched at the webserver, and the lake that it wrote."""

    deployment: Deployment
    sandbox: Sandbox
    root: Path
    id: str

    @property
    def status(self) -> str:
        answer: str = self.deployment.ask(BACKFILL, id=self.id)["partitionBackfillOrError"]["status"]
        return answer

    @property
    def runs(self) -> list[dict[str, Any]]:
        """Its runs, oldest first."""
        return self.deployment.ask(BACKFILL, id=self.id)["runsOrError"]["results"][::-1]

    def completed(self) -> bool:
        status = self.status
        assert status in ("REQUESTED", "COMPLETED_SUCCESS"), (status, self.runs)
        return status == "COMPLETED_SUCCESS"


@pytest.fixture(scope="module")
def backfill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backfill]:
    """A finished backfill, during which the code server was killed, and started again after a while."""
    folder = tmp_path_factory.mktemp("deploy")
    root = folder / "lake"
    with running_sandbox(now=NOW) as sandbox:
        settings = {
            "LANGSMITH_API_KEY": sandbox.key,
            "LANGSMITH_ENDPOINT": sandbox.url,
            "SESSIONS_PIPELINE_DATA_ROOT": str(root),
            "SESSIONS_PIPELINE_CONCURRENCY": "1",
            "SESSIONS_PIPELINE_PAGE_SIZE": "10",
        }
        # Slow pages, so that the code server can be killed halfway.
        sandbox.faults.add(Fault("latency", 0.3, times=None))
        with Deployment(folder, settings) as deployment:
            stop_schedules(deployment.ask)
            asked = Backfill(deployment, sandbox, root, launch_backfill(deployment.ask, TABLES, list(map(str, DAYS))))
            deployment.start_daemon()
            newest = root / "raw_sessions" / f"start_date={DAYS[-1]}"
            wait_until(newest.exists, "the first of the days is written", deployment.output)
            deployment.kill_code_server()
            sandbox.faults.clear()
            assert not (root / "raw_sessions" / f"start_date={DAYS[0]}").exists(), "killed too late"
            # The code server stays away until the daemon has looked at the backfill.
            wait_until(
                lambda: deployment.daemon_logged("was unable to continue"), "a look at the backfill", deployment.output
            )
            deployment.start_code_server()
            wait_until(asked.completed, "the backfill has ended", deployment.output)
            yield asked


def test_a_run_that_dies_with_the_code_server_fails_and_is_retried_successfully(backfill: Backfill) -> None:
    first, second = backfill.runs
    assert [first["status"], second["status"]] == ["FAILURE", "SUCCESS"]
    assert second["parentRunId"] == first["runId"]
    assert {"key": "dagster/retry_number", "value": "1"} in second["tags"]


def test_the_backfill_writes_the_same_lake_as_an_undisturbed_run(backfill: Backfill, tmp_path: Path) -> None:
    for table in ("raw_sessions", "sessions", "daily_cost_by_reference_dataset"):
        files = f"{backfill.root}/{table}/*/*.parquet"
        days = duckdb.sql(
            "select distinct start_date from read_parquet(?, hive_partitioning = true) where start_date is not null",
            params=[files],
        ).fetchall()
        assert sorted(day for (day,) in days) == DAYS, table
    read(backfill.sandbox, tmp_path / "lake", DAYS[0], DAYS[-1])
    undisturbed, written = contents(tmp_path / "lake"), contents(backfill.root)
    # Weeks and months are summed with the days, although they were not asked for.
    expected = {*TABLES, *(period.table.name for period in PERIODS)}
    assert {key for key in undisturbed if key[0] in expected} == set(written)
    assert written == {key: undisturbed[key] for key in written}


def test_the_output_of_runs_is_in_s3(backfill: Backfill) -> None:
    listing = backfill.deployment.logs.request("GET", "/bucket?list-type=2&prefix=compute-logs/").decode()
    assert backfill.runs[-1]["runId"] in listing
