"""The usage of each project on a day, measured over real HTTP, equals the sandbox's own runs of that day."""

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from sessions_pipeline.days import DAY_US, day_start_us, days_between, midnight
from sessions_pipeline.errors import BrokenError, RefusedError
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.layout import key_of
from sessions_pipeline.lake.store import store_at
from sessions_pipeline.langsmith import SessionsQuery
from sessions_pipeline.measurements import measurable_days, measure_usage
from sessions_pipeline.outputs.formatting import day_ranges
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.sandbox.company import OTHER_WORKSPACE, WORKSPACE, Run, Session
from sessions_pipeline.sandbox.listing import CompanyData
from sessions_pipeline.tables import DAILY_COST_BY_PROJECT
from sessions_pipeline_tests.faulty_server import Fault, FaultyApi, Sandbox, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import (
    NOW,
    TODAY,
    DataRoot,
    PipelineWithShortWindow,
    failing_in_one_line,
    lake_at,
    run_days,
    settings_for,
)

YESTERDAY = TODAY - timedelta(days=1)


def runs_of_day(session: Session, day: date) -> list[Run]:
    number = (day - date(1970, 1, 1)).days
    return [run for run in session.runs if run.start_us // DAY_US == number]


def facts_of(sandbox: Sandbox, root: DataRoot, first: date, **values: Any) -> dict[str, str]:
    """Measure all days since `first` that are within reach. Returns what Dagster records."""
    settings = settings_for(sandbox.url, root, SESSIONS_PIPELINE_START_DATE=first, **values)
    result = run_days(settings, first, first, select="daily_cost_by_project", clock=lambda: NOW)
    [event] = result.get_asset_materialization_events()
    metadata = event.step_materialization_data.materialization.metadata
    return {name: str(value.value) for name, value in metadata.items()}


def measure(sandbox: Sandbox, root: DataRoot, first: date, **values: Any) -> list[date]:
    """Measure the same days without Dagster. Returns them."""
    settings = settings_for(sandbox.url, root, SESSIONS_PIPELINE_START_DATE=first, **values)
    pipeline = PipelineWithShortWindow(settings, clock=lambda: NOW)
    return measure_usage(pipeline, measurable_days(pipeline))


def test_usage_of_a_day_equals_the_runs_of_that_day(data_root: DataRoot) -> None:
    day = YESTERDAY
    with running_sandbox(broken=False, now=NOW, is_drawn=True) as sandbox:
        measure(sandbox, data_root, day)
        assert isinstance(sandbox.api.data, CompanyData)
        sessions = [session for session in sandbox.api.data.sessions if session.tenant_id == WORKSPACE]
        expected = {session.id: runs for session in sessions if (runs := runs_of_day(session, day))}
        unpriced = {s.id for s in sessions if s.model == "in-house-7b" and s.seed % 2 == 0}
    rows = {row["id"]: row for row in lake_at(data_root).read(DAILY_COST_BY_PROJECT, day).to_pylist()}
    assert rows.keys() == expected.keys()
    assert all(row["is_exact"] for row in rows.values())
    for session, runs in expected.items():
        assert rows[session]["run_count"] == len(runs)
        assert rows[session]["total_tokens"] == sum(run.prompt_tokens + run.completion_tokens for run in runs)
        cost = Decimal(sum(run.prompt_cost + run.completion_cost for run in runs)) / 10**9
        assert rows[session]["total_cost"] == (None if session in unpriced else cost)
    assert any(row["reference_dataset_id"] is None for row in rows.values()), "tracing projects are there, too"
    today = lake_at(data_root).read(DAILY_COST_BY_PROJECT, day + timedelta(days=1))
    assert not any(today.column("is_exact").to_pylist()), "more may be used today"


def test_no_page_of_sessions_is_larger_than_the_settings_say(tmp_path: Path) -> None:
    with running_sandbox(broken=False, now=NOW, is_drawn=True) as sandbox:
        measure(sandbox, tmp_path, YESTERDAY, SESSIONS_PIPELINE_PAGE_SIZE=20)
        assert {dict(one["parameters"])["limit"] for one in sandbox.requests} == {"20"}
    assert lake_at(tmp_path).read(DAILY_COST_BY_PROJECT, YESTERDAY).num_rows > 20


class Ignoring(CompanyData):
    """An API that ignores `stats_start_time`."""

    def page(self, asked: SessionsQuery, workspace: str) -> tuple[list[str], int]:
        return super().page(asked.model_copy(update={"stats_start_time": None}), workspace)


def test_an_api_that_ignores_the_day_is_an_error_and_never_a_day_without_costs(tmp_path: Path) -> None:
    with (
        running_sandbox(FaultyApi(Ignoring(NOW), NOW)) as sandbox,
        failing_in_one_line(RefusedError, f"Workspace {WORKSPACE}: .* ignores stats_start_time"),
    ):
        measure(sandbox, tmp_path, YESTERDAY, LANGSMITH_WORKSPACE_ID=WORKSPACE)
    assert not lake_at(tmp_path).days(DAILY_COST_BY_PROJECT)


def test_usage_that_changes_while_it_is_read_is_not_exact(data_root: DataRoot) -> None:
    day = YESTERDAY
    with running_sandbox(broken=False, now=NOW, is_drawn=True) as sandbox:
        data = sandbox.api.data
        assert isinstance(data, CompanyData)
        project = next(s for s in data.sessions if s.dataset is None and s.tenant_id == WORKSPACE)
        # In the first hours of a day, the latest run may belong to the day before.
        last = max(project.runs[-1].start_us, day_start_us(day + timedelta(days=1)))

        def run_arrives(_number: int) -> None:
            project.runs.append(project.runs[-1]._replace(start_us=last))
            data.records.pop(project.id, None)

        sandbox.api.before_answer = run_arrives
        measure(sandbox, data_root, day)
    rows = {row["id"]: row for row in lake_at(data_root).read(DAILY_COST_BY_PROJECT, day).to_pylist()}
    assert not rows[project.id]["is_exact"]
    assert any(row["is_exact"] for row in rows.values())


def test_days_within_reach_are_measured_once_and_again_only_if_they_were_not_over(data_root: DataRoot) -> None:
    old = TODAY - timedelta(days=41)
    with running_sandbox(texts=[], now=NOW) as sandbox:
        reachable = days_between(TODAY - timedelta(days=30), TODAY)
        facts = facts_of(sandbox, data_root, old)
        assert facts["measured_days"] == day_ranges(reachable)
        assert facts["measurable_from"] == str(reachable[0])
        store_at(str(data_root)).delete(key_of(DAILY_COST_BY_PROJECT, reachable[5]))
        assert measure(sandbox, data_root, old) == [reachable[5], TODAY]
    assert lake_at(data_root).days(DAILY_COST_BY_PROJECT) == reachable


def test_a_day_that_only_a_clock_that_is_ahead_says_is_over_is_measured_again_after_its_end(tmp_path: Path) -> None:
    """The pipeline's clock says that it is tomorrow; the second time, it is right."""
    tomorrow = NOW + timedelta(days=1)
    with running_sandbox(broken=False, now=NOW, is_drawn=True) as sandbox:
        sandbox.faults.add(Fault("date", times=None))
        pipeline = PipelineWithShortWindow(settings_for(sandbox.url, tmp_path), clock=lambda: tomorrow)
        assert measure_usage(pipeline, [TODAY]) == [TODAY]
        early = lake_at(tmp_path).read(DAILY_COST_BY_PROJECT, TODAY).to_pylist()
        sandbox.api.now = tomorrow
        assert measure_usage(pipeline, [TODAY]) == [TODAY]
        final = lake_at(tmp_path).read(DAILY_COST_BY_PROJECT, TODAY).to_pylist()
        assert measure_usage(pipeline, [TODAY]) == []
    assert {(row["read_at"], row["is_exact"]) for row in early} == {(NOW, False)}
    assert {(row["read_at"], row["is_exact"]) for row in final} == {(tomorrow, True)}


def test_a_clock_that_was_set_back_to_before_the_first_partition_fails_no_run(tmp_path: Path) -> None:
    with running_sandbox(texts=[], now=NOW) as sandbox:
        settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=TODAY)
        early = Pipeline(settings, clock=lambda: midnight(TODAY) - timedelta(minutes=5))
        assert measure_usage(early, measurable_days(early)) == [TODAY]
        assert measure(sandbox, tmp_path, TODAY) == [TODAY], "as it was not over"


def test_a_broken_day_is_left_as_it_is_and_named_and_all_others_are_measured(data_root: DataRoot) -> None:
    """Else they would soon be out of the API's reach. The broken file may hold what the API no longer has."""
    first = TODAY - timedelta(days=4)
    days, broken = days_between(first, TODAY), (first, TODAY - timedelta(days=2))
    store, keys = store_at(str(data_root)), {day: key_of(DAILY_COST_BY_PROJECT, day) for day in days}
    with running_sandbox(texts=[], now=NOW) as sandbox:
        for day in broken:
            Lake.open(str(data_root), query={}).write_file(keys[day], b"broken")
        for _ in range(2):
            with failing_in_one_line(BrokenError, f"{keys[first]}: not a readable .*; restore it from a backup, or "):
                measure(sandbox, data_root, first)
        measured = {day for day in days if store.open(keys[day], whole=True).source.read() != b"broken"}
        assert measured == {*days}.difference(broken)
        for day in broken:
            store.delete(keys[day])
        assert measure(sandbox, data_root, first) == [*broken, TODAY], "as the advice says"


def test_rows_of_workspaces_that_are_not_read_are_kept(data_root: DataRoot) -> None:
    with running_sandbox(broken=False, now=NOW, is_drawn=True) as sandbox:
        measure(sandbox, data_root, TODAY, LANGSMITH_WORKSPACE_ID=f"{WORKSPACE},{OTHER_WORKSPACE}")
        before = lake_at(data_root).read(DAILY_COST_BY_PROJECT, TODAY)
        measure(sandbox, data_root, TODAY, LANGSMITH_WORKSPACE_ID=WORKSPACE)
        after = lake_at(data_root).read(DAILY_COST_BY_PROJECT, TODAY)
        sandbox.api.data.sessions.clear()  # type: ignore[attr-defined]
        measure(sandbox, data_root, TODAY, LANGSMITH_WORKSPACE_ID=WORKSPACE)
    others = {row["id"] for row in before.to_pylist() if row["tenant_id"] == OTHER_WORKSPACE}
    assert others
    assert {row["id"] for row in after.to_pylist() if row["tenant_id"] == OTHER_WORKSPACE} == others
    assert {*lake_at(data_root).read(DAILY_COST_BY_PROJECT, TODAY).column("id").to_pylist()} == others


def test_a_session_that_is_measured_again_replaces_its_row(data_root: DataRoot) -> None:
    with running_sandbox(broken=False, now=NOW, is_drawn=True) as sandbox:
        for _ in range(2):
            measure(sandbox, data_root, TODAY)
    ids = lake_at(data_root).read(DAILY_COST_BY_PROJECT, TODAY).column("id").to_pylist()
    assert len(ids) == len({*ids})


def test_a_day_that_another_scheduler_has_measured_in_its_workspace_is_measured_in_ours(data_root: DataRoot) -> None:
    day = YESTERDAY
    with running_sandbox(broken=False, now=NOW, is_drawn=True) as sandbox:
        measured = [
            measure(sandbox, data_root, day, LANGSMITH_WORKSPACE_ID=workspace)
            for workspace in (WORKSPACE, OTHER_WORKSPACE, WORKSPACE, OTHER_WORKSPACE)
        ]
        measure(sandbox, data_root / "one", day, LANGSMITH_WORKSPACE_ID=f"{WORKSPACE},{OTHER_WORKSPACE}")
    assert measured == [[day, TODAY], [day, TODAY], [TODAY], [TODAY]]
    apart, together = (lake_at(root).read(DAILY_COST_BY_PROJECT, day) for root in (data_root, data_root / "one"))
    assert apart.drop_columns(["read_at"]).equals(together.drop_columns(["read_at"]))


def test_a_workspace_whose_id_is_set_later_is_not_measured_again(data_root: DataRoot) -> None:
    """By then, the API may have deleted some of what it was measured from."""
    day = YESTERDAY
    with running_sandbox(broken=False, now=NOW, is_drawn=True) as sandbox:
        measure(sandbox, data_root, day)
        assert measure(sandbox, data_root, day, LANGSMITH_WORKSPACE_ID=WORKSPACE) == [day + timedelta(days=1)]


def test_names_that_are_redacted_are_not_written(data_root: DataRoot) -> None:
    day = YESTERDAY
    with running_sandbox(broken=False, now=NOW, is_drawn=True) as sandbox:
        measure(sandbox, data_root, day, SESSIONS_PIPELINE_REDACT="name")
    names = lake_at(data_root).read(DAILY_COST_BY_PROJECT, day).column("name")
    assert len(names) == names.null_count > 0
