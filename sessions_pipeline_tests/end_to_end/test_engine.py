"""A wide backfill on Celery workers writes the same lake as a single process, and keeps to the rate limit in Redis."""

import os
import shutil
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from sessions_pipeline.days import days_between
from sessions_pipeline.sandbox.company import OTHER_WORKSPACE, WORKSPACE
from sessions_pipeline.tables import DERIVED, RAW_SESSIONS, REJECTED_SESSIONS, SESSIONS
from sessions_pipeline.tables.period_costs import PERIODS
from sessions_pipeline_tests.end_to_end.engine import CeleryDeployment
from sessions_pipeline_tests.faulty_server import Sandbox, build_api, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import NOW, contents, read

pytestmark = [
    pytest.mark.long,
    pytest.mark.xdist_group("engine"),
    pytest.mark.skipif(
        shutil.which("redis-server") is None and not os.environ.get("CI"),
        reason="Redis is not installed: apt-get install redis-server",
    ),
]

FIRST, LAST = date(2026, 2, 25), date(2026, 3, 4)
BOTH = f"{WORKSPACE},{OTHER_WORKSPACE}"
BUDGET = 120
TABLES = [table.name for table in (RAW_SESSIONS, SESSIONS, REJECTED_SESSIONS, *DERIVED)]
# The daily step also sums the weeks and months of the days that it has recorded.
WRITTEN = [*TABLES, *(period.table.name for period in PERIODS)]


@dataclass(frozen=True)
class Outcome:
    """A finished backfill. `request_times` are in seconds, by workspace."""

    runs: list[dict[str, Any]]
    request_times: dict[str, list[float]]
    sandbox: Sandbox
    root: Path


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    folder = tmp_path_factory.mktemp("engine")
    api = build_api(now=NOW)
    arrivals: list[float] = []
    api.before_answer = lambda _number: arrivals.append(monotonic())
    with running_sandbox(api) as sandbox:
        settings = {
            "LANGSMITH_API_KEY": sandbox.key,
            "LANGSMITH_ENDPOINT": sandbox.url,
            "LANGSMITH_WORKSPACE_ID": BOTH,
            "SESSIONS_PIPELINE_DATA_ROOT": str(folder / "lake"),
            "SESSIONS_PIPELINE_PAGE_SIZE": "10",
            "SESSIONS_PIPELINE_REQUESTS_PER_MINUTE": str(BUDGET),
            "SESSIONS_PIPELINE_DAYS_PER_RUN": "4",
        }
        with CeleryDeployment(folder, settings, workers=2) as deployment:
            runs = deployment.finish(deployment.backfill(TABLES, list(map(str, days_between(FIRST, LAST)))))
            request_times: dict[str, list[float]] = {}
            for time, request in zip(arrivals, sandbox.requests, strict=True):
                request_times.setdefault(request["workspace"], []).append(time)
            yield Outcome(runs, request_times, sandbox, folder / "lake")


def test_the_backfill_is_split_into_runs_of_four_days_that_two_workers_execute_at_the_same_time(
    outcome: Outcome,
) -> None:
    assert len(outcome.runs) == 2
    first, second, *_ = sorted(outcome.runs, key=lambda run: run["startTime"])
    assert second["startTime"] < first["endTime"]


def test_the_lake_equals_that_of_a_single_process(outcome: Outcome, tmp_path: Path) -> None:
    read(outcome.sandbox, tmp_path / "lake", FIRST, LAST, LANGSMITH_WORKSPACE_ID=BOTH)
    undisturbed = contents(tmp_path / "lake")
    assert contents(outcome.root) == {key: rows for key, rows in undisturbed.items() if key[0] in WRITTEN}


def test_no_workspace_gets_more_requests_than_its_rate_limit_allows(outcome: Outcome) -> None:
    assert set(outcome.request_times) == {WORKSPACE, OTHER_WORKSPACE}
    for times in outcome.request_times.values():
        # An eighth of the limit is allowed in each window of eight seconds. On a busy machine a request may arrive up
        # to four seconds later than another (see `WINDOWS`), so only four seconds of a window are checked.
        most = max(bisect_left(times, time + 4) - number for number, time in enumerate(times))
        assert most <= BUDGET // 8
    most = max(map(len, outcome.request_times.values()))
    assert most > BUDGET // 8, "too few requests for the limit to matter"
