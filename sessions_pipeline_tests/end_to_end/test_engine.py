"""A wide backfill on Celery's workers, with Redis: the same lake as one process writes, within the rate budget."""

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
from sessions_pipeline_tests.end_to_end.engine import Engine
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


@dataclass(frozen=True)
class Told:
    """What is left when all runs have ended; `asked` are times in seconds by workspace."""

    runs: list[dict[str, Any]]
    asked: dict[str, list[float]]
    sandbox: Sandbox
    root: Path


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
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
        with Engine(folder, settings, workers=2) as engine:
            runs = engine.finish(engine.backfill(TABLES, list(map(str, days_between(FIRST, LAST)))))
            asked: dict[str, list[float]] = {}
            for time, request in zip(arrivals, sandbox.requests, strict=True):
                asked.setdefault(request["workspace"], []).append(time)
            yield Told(runs, asked, sandbox, folder / "lake")


def test_four_days_are_a_run_and_two_workers_run_them_side_by_side(told: Told) -> None:
    assert len(told.runs) == 2
    first, second, *_ = sorted(told.runs, key=lambda run: run["startTime"])
    assert second["startTime"] < first["endTime"]


def test_the_lake_is_the_one_that_a_single_process_writes(told: Told, tmp_path: Path) -> None:
    read(told.sandbox, tmp_path / "lake", FIRST, LAST, LANGSMITH_WORKSPACE_ID=BOTH)
    undisturbed = contents(tmp_path / "lake")
    assert contents(told.root) == {key: rows for key, rows in undisturbed.items() if key[0] in TABLES}


def test_no_workspace_was_asked_more_often_than_its_budget_allows(told: Told) -> None:
    assert set(told.asked) == {WORKSPACE, OTHER_WORKSPACE}
    for times in told.asked.values():
        # The budget comes in eighths of eight seconds; one arrives later than another.
        most = max(bisect_left(times, time + 7) - number for number, time in enumerate(times))
        assert most <= BUDGET // 8
    assert max(map(len, told.asked.values())) > BUDGET // 8, "too few requests for the budget to matter"
