"""`deploy/dagster.yaml` and `deploy/workspace.yaml` with the real processes, and a code server that is killed."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sessions_pipeline.sandbox.faults import Fault
from sessions_pipeline.sandbox.server import Sandbox, running_sandbox
from sessions_pipeline_tests.end_to_end import postgres_server
from sessions_pipeline_tests.end_to_end.deployment import Deployment, until
from sessions_pipeline_tests.integration.pipeline_runs import contents, read

pytestmark = [
    pytest.mark.xdist_group("deploy"),
    pytest.mark.skipif(
        postgres_server.binaries() is None and not os.environ.get("CI"),
        reason="PostgreSQL is not installed: apt-get install postgresql",
    ),
]

# Long past, so that neither the hourly schedule nor the sensor has anything to do with these days.
NOW = datetime(2026, 3, 20, 15, tzinfo=UTC)
DAYS = [NOW.date() - timedelta(days=back) for back in range(9, 0, -1)]
CALM, KILLED = DAYS[:3], DAYS[3:]
TABLES = (
    "raw_sessions",
    "sessions",
    "rejected_sessions",
    "daily_cost_by_reference_dataset",
    "session_feedback",
    "experiment_summary",
)

LAUNCH = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
BACKFILL = """
query Backfill($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } }
  runsOrError(filter: {tags: [{key: "dagster/backfill", value: $id}]}) {
    ... on Runs { results { runId parentRunId status tags { key value } } }
  }
}
"""
FAILURE = """
query Failure($run: ID!) {
  logsForRun(runId: $run) {
    ... on EventConnection { events { ... on RunFailureEvent { message } } }
  }
}
"""


@dataclass(frozen=True)
class Backfill:
    """A backfill that the webserver was asked for."""

    deployment: Deployment
    id: str

    @classmethod
    def launch(cls, deployment: Deployment, days: list[Any]) -> "Backfill":
        launched = deployment.ask(
            LAUNCH,
            params={
                "assetSelection": [{"path": [table]} for table in TABLES],
                "partitionNames": [str(day) for day in days],
                "fromFailure": False,
                "tags": [],
            },
        )["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return cls(deployment, launched["backfillId"])

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


@dataclass(frozen=True)
class Told:
    """What is left when both backfills have ended."""

    deployment: Deployment
    sandbox: Sandbox
    root: Path
    calm: Backfill
    killed: Backfill


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """A backfill, and one in whose middle the code server is killed and started again."""
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
        with Deployment(folder, settings) as deployment:
            calm = Backfill.launch(deployment, CALM)
            killed = Backfill.launch(deployment, KILLED)
            deployment.start_daemon()
            until(lambda: [run["status"] for run in calm.runs] == ["SUCCESS"], "the first run", deployment.told)
            # The pool lets the second in only now; its pages come slowly, so that there is a middle.
            sandbox.faults.add(Fault("latency", 0.3, times=None))
            newest = root / "raw_sessions" / f"start_date={KILLED[-1]}"
            until(newest.exists, "the first of the days is written", deployment.told)
            deployment.kill_code_server()
            sandbox.faults.clear()
            assert not (root / "raw_sessions" / f"start_date={KILLED[0]}").exists(), "killed too late"
            deployment.start_code_server()
            until(lambda: calm.completed() and killed.completed(), "the backfills have ended", deployment.told)
            yield Told(deployment, sandbox, root, calm, killed)


def test_a_backfill_through_graphql_is_one_run_in_the_code_server_that_fills_the_lake(told: Told) -> None:
    [run] = told.calm.runs
    assert run["status"] == "SUCCESS"
    for table in TABLES:
        rows = duckdb.sql(
            "select start_date, count(*) from read_parquet(?, hive_partitioning = true) "
            "where start_date between ? and ? group by 1 order by 1",
            params=[f"{told.root}/{table}/*/*.parquet", CALM[0], CALM[-1]],
        ).fetchall()
        assert table == "rejected_sessions" or [day for day, _ in rows] == CALM, table


def test_a_run_that_dies_with_the_code_server_is_missed_and_a_second_run_takes_it_up(told: Told) -> None:
    first, second = told.killed.runs
    assert [first["status"], second["status"]] == ["FAILURE", "SUCCESS"]
    assert second["parentRunId"] == first["runId"]
    events = told.deployment.ask(FAILURE, run=first["runId"])["logsForRun"]["events"]
    [message] = [event["message"] for event in events if event.get("message")]
    assert "the code server does not have this run" in message
    assert {"key": "dagster/retry_number", "value": "1"} in second["tags"]


def test_the_lake_is_the_same_as_that_of_an_undisturbed_run(told: Told, tmp_path: Path) -> None:
    read(told.sandbox, tmp_path / "lake", DAYS[0], DAYS[-1])
    undisturbed = contents(tmp_path / "lake")
    written = contents(told.root)
    assert {key for key in undisturbed if key[0] in TABLES} == set(written)
    assert written == {key: undisturbed[key] for key in written}


def test_what_the_runs_printed_is_in_s3(told: Told) -> None:
    listing = told.deployment.logs.request("GET", "/bucket?list-type=2&prefix=compute-logs/").decode()
    for run in (*told.calm.runs, told.killed.runs[1]):
        assert run["runId"] in listing
