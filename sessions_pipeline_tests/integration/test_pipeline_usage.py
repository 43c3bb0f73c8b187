"""What each project used on a day equals the sandbox's own runs of that day, over real HTTP."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from sessions_pipeline.cli.run import run_days
from sessions_pipeline.errors import UsageError
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.sandbox.company import DAY_US, WORKSPACE, Run, Session
from sessions_pipeline.sandbox.listing import CompanyData
from sessions_pipeline.tables import DAILY_COST_BY_PROJECT
from sessions_pipeline_tests.faulty_server import Sandbox, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import (
    DataRoot,
    settings_for,
)


def runs_of_day(session: Session, day: date) -> list[Run]:
    number = (day - date(1970, 1, 1)).days
    return [run for run in session.runs if run.start_us // DAY_US == number]


def measure(sandbox: Sandbox, root: DataRoot, first: date, last: date) -> None:
    run_days(settings_for(sandbox.url, root), first, last, select="daily_cost_by_project")


def yesterday() -> date:
    return datetime.now(UTC).date() - timedelta(days=1)


def test_usage_of_a_day_equals_the_runs_of_that_day(data_root: DataRoot) -> None:
    day = yesterday()
    with running_sandbox(broken=False) as sandbox:
        measure(sandbox, data_root, day, day)
        assert isinstance(sandbox.api.data, CompanyData)
        sessions = [session for session in sandbox.api.data.sessions if session.tenant_id == WORKSPACE]
        expected = {session.id: runs for session in sessions if (runs := runs_of_day(session, day))}
        unpriced = {s.id for s in sessions if s.model == "in-house-7b" and s.seed % 2 == 0}
    rows = {row["id"]: row for row in Lake.open(str(data_root), query={}).read(DAILY_COST_BY_PROJECT, day).to_pylist()}
    assert rows.keys() == expected.keys()
    assert all(row["is_exact"] for row in rows.values())
    for session, runs in expected.items():
        assert rows[session]["run_count"] == len(runs)
        assert rows[session]["total_tokens"] == sum(run.prompt_tokens + run.completion_tokens for run in runs)
        cost = Decimal(sum(run.prompt_cost + run.completion_cost for run in runs)) / 10**9
        assert rows[session]["total_cost"] == (None if session in unpriced else cost)
    assert any(row["reference_dataset_id"] is None for row in rows.values()), "tracing projects are there, too"


def test_usage_that_moves_while_it_is_read_is_flagged(data_root: DataRoot) -> None:
    day = yesterday()
    with running_sandbox(broken=False) as sandbox:
        data = sandbox.api.data
        assert isinstance(data, CompanyData)
        project = next(s for s in data.sessions if s.dataset is None and s.tenant_id == WORKSPACE)

        def run_arrives(_number: int) -> None:
            project.runs.append(project.runs[-1])
            data.forget(project)

        sandbox.api.before_answer = run_arrives
        measure(sandbox, data_root, day, day)
    rows = {row["id"]: row for row in Lake.open(str(data_root), query={}).read(DAILY_COST_BY_PROJECT, day).to_pylist()}
    assert not rows[project.id]["is_exact"]
    assert any(row["is_exact"] for row in rows.values())


def test_days_beyond_the_apis_reach_are_refused_alone_and_skipped_among_others(data_root: DataRoot) -> None:
    old = yesterday() - timedelta(days=40)
    with running_sandbox(broken=False) as sandbox:
        with pytest.raises(UsageError, match="31 days back"):
            measure(sandbox, data_root, old, old)
        sandbox.api.data.sessions = []  # type: ignore[attr-defined]
        measure(sandbox, data_root, old, yesterday())
    lake = Lake.open(str(data_root), query={})
    days = lake.days(DAILY_COST_BY_PROJECT)
    assert min(days) > old
    assert max(days) == yesterday()
    assert len(days) == 30
