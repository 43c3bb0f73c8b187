"""Helpers for tests of Dagster's real processes: stop schedules and launch backfills as the UI does; end a process."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

Ask = Callable[..., dict[str, Any]]

LAUNCH = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
SCHEDULES = """
query Schedules {
  schedulesOrError(repositorySelector: {
    repositoryName: "__repository__", repositoryLocationName: "sessions_pipeline"
  }) { ... on Schedules { results { scheduleState { id selectorId } } } }
}
"""
STOP = """
mutation Stop($id: String!, $selector: String!) {
  stopRunningSchedule(id: $id, scheduleSelectorId: $selector) {
    ... on ScheduleStateResult { scheduleState { status } }
    ... on PythonError { message }
  }
}
"""


def stop_schedules(ask: Ask) -> None:
    """Stop all schedules. They are on by default, and a test that runs over the full hour would find their days too."""
    schedules = ask(SCHEDULES)["schedulesOrError"]["results"]
    assert schedules
    for schedule in schedules:
        state = schedule["scheduleState"]
        stopped = ask(STOP, id=state["id"], selector=state["selectorId"])["stopRunningSchedule"]
        assert stopped["scheduleState"]["status"] == "STOPPED", stopped


def launch_backfill(ask: Ask, tables: Sequence[str], days: Sequence[str]) -> str:
    """Launch a backfill of these tables and days, and return its id."""
    launched = ask(
        LAUNCH,
        params={
            "assetSelection": [{"path": [table]} for table in tables],
            "partitionNames": list(days),
            "fromFailure": False,
            "tags": [],
        },
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    name: str = launched["backfillId"]
    return name


def end(process: "subprocess.Popen[bytes]", *, patience_seconds: float) -> None:
    """Wait for a process that was asked to stop, then kill what remains of its process group."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience_seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
