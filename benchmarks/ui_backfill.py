"""Launches a backfill as Dagster's UI does, on processes that `dagster dev` starts.

    python benchmarks/ui_backfill.py FIRST LAST

Runs in the product's environment with its settings and a DAGSTER_HOME. Prints, for each of several launches as a JSON
list, the seconds from the request to the end of the backfill's last run. How long a launch waits depends on its moment,
since Dagster's daemon looks for backfills every 30 seconds: so they are spread evenly over that interval.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

TABLES = (
    "raw_sessions",
    "sessions",
    "rejected_sessions",
    "session_feedback",
    "experiment_summary",
    "session_attributes",
    "daily_cost_by_reference_dataset",
    "daily_cost_by_attribute",
    "weekly_cost_by_reference_dataset",
    "monthly_cost_by_reference_dataset",
)
LAUNCH = """mutation Launch($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
RUNS = """query Runs($id: String!) { runsOrError(filter: {tags: [{key: "dagster/backfill", value: $id}]}) {
  ... on Runs { results { status } } ... on PythonError { message } } }"""
PATIENCE_SECONDS = 180
LAUNCHES, DAEMON_INTERVAL_SECONDS = 4, 30


def ask(address: str, query: str, **variables: Any) -> dict[str, Any]:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{address}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return dict(json.load(answer)["data"])


def backfill(address: str, days: list[str]) -> float:
    begun = time.perf_counter()
    params = {"assetSelection": [{"path": [table]} for table in TABLES], "partitionNames": days, "fromFailure": False}
    launched = ask(address, LAUNCH, params={**params, "tags": []})["launchPartitionBackfill"]
    if "backfillId" not in launched:
        raise SystemExit(f"not launched: {launched}")
    while time.perf_counter() - begun < PATIENCE_SECONDS:
        time.sleep(0.1)
        runs = ask(address, RUNS, id=launched["backfillId"])["runsOrError"]["results"]
        if {run["status"] for run in runs} == {"SUCCESS"}:  # the five days are one run
            return time.perf_counter() - begun
    raise SystemExit(f"the backfill's runs: {runs}")


def main() -> None:
    first, last = map(date.fromisoformat, sys.argv[1:])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    words = [Path(sys.executable).with_name("dagster"), "dev", "-m", "sessions_pipeline.definitions", "-p", str(port)]
    with Path("dagster.log").open("w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
        try:
            for _ in range(10 * PATIENCE_SECONDS):
                time.sleep(0.1)
                with suppress(OSError):
                    ask(address, "{ version }")
                    break
            time.sleep(5)  # the daemon may still be starting; users do not launch backfills in its first seconds
            days = [str(first + timedelta(days=number)) for number in range((last - first).days + 1)]
            begun, waited = time.perf_counter(), []
            for number in range(LAUNCHES):
                moment = number * DAEMON_INTERVAL_SECONDS / LAUNCHES
                time.sleep((moment + begun - time.perf_counter()) % DAEMON_INTERVAL_SECONDS)
                waited.append(backfill(address, days))
            print(json.dumps(waited))
        finally:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
