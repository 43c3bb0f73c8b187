"""The cost of evaluators, measured over HTTP night by night: exact, never guessed, and never counted twice."""

import contextlib
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

import sessions_pipeline
from sessions_pipeline.cli.summary import print_summary
from sessions_pipeline.days import days_between, midnight
from sessions_pipeline.definitions import build_definitions
from sessions_pipeline.errors import BrokenError
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.layout import UNDATED
from sessions_pipeline.langsmith.client import OWN_WORKSPACE
from sessions_pipeline.measurements import measure_judge_costs
from sessions_pipeline.outputs.budget_file import Budget
from sessions_pipeline.outputs.budgets import budget_statuses
from sessions_pipeline.outputs.formatting import exact
from sessions_pipeline.outputs.read import judge_rows
from sessions_pipeline.outputs.report import read_report_data
from sessions_pipeline.outputs.spending import (
    JUDGES_FILE,
    JudgeReading,
    JudgeReadings,
    Row,
    Totals,
    load_judge_readings,
    totals_by,
    with_judges,
)
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.process_day import DayResult
from sessions_pipeline.sandbox import SessionsQuery
from sessions_pipeline.sandbox.company import OTHER_WORKSPACE, WORKSPACE, Run, Session
from sessions_pipeline.sandbox.listing import CompanyData
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET as DAILY
from sessions_pipeline.tables import DERIVED, EXPERIMENT_SUMMARY, RAW_SESSIONS, REJECTED_SESSIONS, SESSIONS
from sessions_pipeline.tables import JUDGE_COST_BY_EXPERIMENT as JUDGES
from sessions_pipeline_tests.builders import table_of, uuid
from sessions_pipeline_tests.faulty_server import Fault, FaultyApi, Sandbox, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import NOW, TODAY, lake_at, run_days, settings_for
from sessions_pipeline_tests.integration.test_reading import lake_sql

# A workspace with two datasets and about 6 experiments a day.
SMALL = {"LANGSMITH_WORKSPACE_ID": OTHER_WORKSPACE}
YESTERDAY = TODAY - timedelta(days=1)
# The requests that measure no experiment: the judge project's total, a name that no experiment has, the total again.
FIXED_REQUESTS = 3
COSTS = ("prompt_cost", "completion_cost", "total_cost")
COSTS_OF_AN_EXPERIMENT = ("total_cost", "judge_cost", "whole_cost")


@pytest.fixture
def whole() -> Iterator[Sandbox]:
    with running_sandbox(now=NOW) as running:
        yield running


@pytest.fixture
def sandbox(whole: Sandbox) -> Sandbox:
    """A company with only three weeks of sessions, which are quick to read."""
    young = NOW - timedelta(days=21)
    data = whole.api.data
    assert isinstance(data, CompanyData)
    data.sessions = [one for one in data.sessions if one.start > young or one.name == "evaluators"]
    for one in data.sessions:
        one.judged = tuple(judged for judged in one.judged if judged.start > young)
    return whole


def pipeline_at(sandbox: Sandbox, root: Path, at: datetime = NOW, **values: Any) -> Pipeline:
    return Pipeline(settings_for(sandbox.url, root, **{**SMALL, **values}), clock=lambda: at, processes=1)


def read_days(pipeline: Pipeline, first: Any = YESTERDAY, last: Any = TODAY) -> None:
    """Read the sessions of the days, without Dagster."""
    tables = [RAW_SESSIONS, SESSIONS, REJECTED_SESSIONS, *DERIVED]
    results = list[DayResult]()
    pipeline.process(days_between(first, last), tables, print, results.append)
    assert len(results) == (last - first).days + 2


def measured(pipeline: Pipeline) -> tuple[JudgeReadings, list[str]]:
    """Measure one night. Returns the readings and the warnings."""
    said: list[str] = []
    return measure_judge_costs(pipeline, said.append)[1], said


def rows(lake: Lake) -> dict[str, dict[str, Any]]:
    days = [*lake.days(JUDGES), *([UNDATED] if lake.has(JUDGES, UNDATED) else [])]
    return {row["id"]: row for row in lake.read_days(JUDGES, days).to_pylist()}


def whole_of(lake: Lake, days: list[date]) -> dict[str, Row]:
    """The rows with judge cost and whole cost, by experiment."""
    experiments = lake.read_days(EXPERIMENT_SUMMARY, days).to_pylist()
    return {row["id"]: row for row in with_judges(experiments, judge_rows(lake, days))}


def sessions(sandbox: Sandbox, workspace: str = OTHER_WORKSPACE) -> list[Session]:
    data = sandbox.api.data
    assert isinstance(data, CompanyData)
    return [one for one in data.sessions if one.tenant_id == workspace]


def judge_project(sandbox: Sandbox, workspace: str = OTHER_WORKSPACE) -> Session:
    return next(one for one in sessions(sandbox, workspace) if one.name == "evaluators")


def set_time(at: datetime, sandbox: Sandbox, company: list[Session], workspace: str) -> None:
    """Set the company's time: remove the experiments that start later, and later runs of judges."""
    sandbox.api.data.sessions = [one for one in company if one.start <= at]  # type: ignore[attr-defined]
    judges = judge_project(sandbox, workspace)
    sandbox.api.now = judges.until = at
    for known in ("runs", "runs_by_experiment"):
        judges.__dict__.pop(known, None)
    sandbox.api.data.records.pop(judges.id, None)  # type: ignore[attr-defined]


def recent(sandbox: Sandbox) -> list[Session]:
    """The experiments of the two days whose records are not broken."""
    found = [one for one in sessions(sandbox) if one.dataset and one.start.date() >= YESTERDAY]
    return [one for one in found if not one.broken and not one.undated]


def dollars(runs: list[Run]) -> Decimal:
    return Decimal(sum(run.prompt_cost + run.completion_cost for run in runs)).scaleb(-9)


def asked_for_judges(sandbox: Sandbox) -> list[dict[str, str]]:
    requests = [dict(one["parameters"]) for one in sandbox.requests]
    return [one for one in requests if one.get("name") == "evaluators"]


@pytest.mark.parametrize("workspace", [OTHER_WORKSPACE, pytest.param(WORKSPACE, marks=pytest.mark.long)])
def test_over_the_whole_history_attributed_and_unattributed_cost_equal_the_judge_projects_to_the_last_digit(
    workspace: str, whole: Sandbox, tmp_path: Path
) -> None:
    sandbox, first, known_later = whole, TODAY - timedelta(days=59), sessions(whole, workspace)
    for back in (46, 33, 20, 10, 0):
        # Nights are in the evening, when no experiment runs. The last one is now.
        night = TODAY - timedelta(days=back)
        at = min(NOW, midnight(night + timedelta(days=1)) - timedelta(minutes=5))
        set_time(at, sandbox, known_later, workspace)
        pipeline = pipeline_at(sandbox, tmp_path, at, LANGSMITH_WORKSPACE_ID=workspace)
        read_days(pipeline, first, night)
        reading = measured(pipeline)[0].readings[workspace]
        first = night + timedelta(days=1)
    lake = lake_at(tmp_path)
    assert load_judge_readings(lake.read_file(JUDGES_FILE)).readings == {workspace: reading}
    days = [*lake.days(SESSIONS), UNDATED]
    known = lake.read_days(SESSIONS, days, ("id", "name", "reference_dataset_id")).to_pylist()
    names = {one["name"] for one in known if one["reference_dataset_id"]}
    # Compute the costs independently, from the runs of the made-up company.
    judges, found, by_name = judge_project(sandbox, workspace), rows(lake), defaultdict(list)
    for run in judges.runs:
        by_name[run.experiment].append(run)
    assert found.keys() == {one["id"] for one in known if one["reference_dataset_id"]}
    for session in sessions(sandbox, workspace):
        if session.id in found:
            own, row = by_name[session.name], found[session.id]
            assert (row["run_count"], row["total_cost"]) == (len(own), dollars(own))
            assert row["total_tokens"] == sum(run.prompt_tokens + run.completion_tokens for run in own)
            assert (row["total_cost"], row["read_at"]) == (
                row["prompt_cost"] + row["completion_cost"],
                row["stats_as_of"],
            )
    unclaimed = [run for run in judges.runs if run.experiment not in names]
    assert len({run.experiment for run in unclaimed}) > 1, "by hand, and of experiments that were rejected"
    assert reading.is_exact
    assert reading.total_cost == dollars(judges.runs)
    assert reading.unattributed_cost == dollars(unclaimed) > 0
    assert reading.attributed_cost == sum(row["total_cost"] for row in found.values())
    costs = [tuple(row[name] for name in COSTS_OF_AN_EXPERIMENT) for row in whole_of(lake, days).values()]
    shares = [judges / whole for own, judges, whole in costs if own and judges]
    assert len(shares) > 200
    assert Decimal("0.2") < min(shares) < max(shares) < Decimal("0.65")


def test_both_versions_of_the_api_give_the_same_judge_costs(sandbox: Sandbox, tmp_path: Path) -> None:
    nights = []
    for version in ("v1", "v2"):
        pipeline = pipeline_at(sandbox, tmp_path / version, SESSIONS_PIPELINE_API_VERSION=version)
        read_days(pipeline)
        nights.append((measured(pipeline)[0].readings, rows(lake_at(tmp_path / version))))
    assert nights[0] == nights[1]
    assert len(nights[0][1]) > 5
    assert {one["path"] for one in sandbox.requests} >= {"/api/v1/sessions", "/api/v2/sessions"}


def test_a_night_requests_each_experiment_once_oldest_first_up_to_the_limit(sandbox: Sandbox, tmp_path: Path) -> None:
    project = replace(judge_project(sandbox), id=uuid(1), name="no experiment", start=midnight(YESTERDAY), judged=())
    sandbox.api.data.sessions.append(project)  # type: ignore[attr-defined]
    read_days(pipeline_at(sandbox, tmp_path))
    sandbox.requests.clear()
    said: list[str] = []
    pipeline = pipeline_at(sandbox, tmp_path, SESSIONS_PIPELINE_JUDGE_REQUESTS=4)
    facts, night = measure_judge_costs(pipeline, said.append)
    known = recent(sandbox)
    oldest = sorted(known, key=lambda one: one.start)
    assert rows(lake_at(tmp_path)).keys() == {one.id for one in oldest[:4]}
    asked = asked_for_judges(sandbox)
    assert facts == {"measured_experiments": 4, "requests": 4 + FIXED_REQUESTS}
    assert len(asked) == facts["requests"]
    assert {one["stats_select"] for one in asked} == {"total_cost"}, "the last of five that are asked for"
    (left,) = night.readings[OTHER_WORKSPACE].skipped.items()
    assert left[0] == "more than SESSIONS_PIPELINE_JUDGE_REQUESTS"
    assert left[1] >= len(known) - 4
    assert said == [], "the others get their turn, so there is nothing to do"


def test_in_some_nights_each_experiment_gets_its_turn_whatever_the_limit(sandbox: Sandbox, tmp_path: Path) -> None:
    read_days(pipeline_at(sandbox, tmp_path))
    wanted = {one.id for one in recent(sandbox)}
    for night in range(-(-len(wanted) // 4) + 1):
        at = NOW + timedelta(minutes=night)
        measure_judge_costs(pipeline_at(sandbox, tmp_path, at, SESSIONS_PIPELINE_JUDGE_REQUESTS=4), print)
    assert wanted <= rows(lake_at(tmp_path)).keys()


def test_each_workspace_gets_its_turn_however_many_experiments_another_has(sandbox: Sandbox, tmp_path: Path) -> None:
    values = {"LANGSMITH_WORKSPACE_ID": f"{WORKSPACE},{OTHER_WORKSPACE}", "SESSIONS_PIPELINE_JUDGE_REQUESTS": 2}
    read_days(pipeline_at(sandbox, tmp_path, **values))
    nights = [measured(pipeline_at(sandbox, tmp_path, NOW + timedelta(days=night), **values)) for night in range(2)]
    assert [sorted(night.readings) for night, _ in nights] == [sorted([WORKSPACE, OTHER_WORKSPACE])] * 2
    costs = defaultdict[str, list[Decimal]](list)
    for row in rows(lake_at(tmp_path)).values():
        costs[row["tenant_id"]].append(row["total_cost"])
    assert {tenant: len(found) for tenant, found in costs.items()} == {WORKSPACE: 2, OTHER_WORKSPACE: 2}
    attributed = {tenant: reading.attributed_cost for tenant, reading in nights[-1][0].readings.items()}
    assert attributed == {tenant: sum(found) for tenant, found in costs.items()}


def test_if_no_experiment_may_be_measured_the_whole_cost_is_unattributed(sandbox: Sandbox, tmp_path: Path) -> None:
    pipeline = pipeline_at(sandbox, tmp_path, SESSIONS_PIPELINE_JUDGE_REQUESTS=0)
    read_days(pipeline)
    reading = measured(pipeline)[0].readings[OTHER_WORKSPACE]
    assert (reading.attributed_cost, rows(lake_at(tmp_path))) == (0, {})
    assert reading.unattributed_cost == reading.total_cost == dollars(judge_project(sandbox).runs)


def test_only_recent_experiments_and_young_unmeasured_ones_are_measured_again(sandbox: Sandbox, tmp_path: Path) -> None:
    first = TODAY - timedelta(days=20)
    read_days(pipeline_at(sandbox, tmp_path), first)
    measured(pipeline_at(sandbox, tmp_path))
    starts = {row["start_date"] for row in rows(lake_at(tmp_path)).values()} - {None}
    assert (min(starts), max(starts)) == (NOW.date() - timedelta(days=14), TODAY)
    measured(replace(pipeline_at(sandbox, tmp_path), judge_reach=timedelta(days=21)))
    assert min(row["start_date"] for row in rows(lake_at(tmp_path)).values() if row["start_date"]) == first
    sandbox.requests.clear()
    tomorrow = NOW + timedelta(days=1)
    measured(pipeline_at(sandbox, tmp_path, tomorrow))
    again = [row for row in rows(lake_at(tmp_path)).values() if row["read_at"] == tomorrow]
    assert {row["start_date"] for row in again} - {None} == {YESTERDAY, TODAY}
    assert len(asked_for_judges(sandbox)) == len(again) + FIXED_REQUESTS + 1, "and what was spent since the last night"


def test_experiments_with_odd_names_are_found_and_control_characters_are_never_sent(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    odd = ['say "hi"', "back\\slash", '\\"', "ends in \\", "契約 🎉", "🎉" * 500, "'", "%00&name=x"]
    unusable = ["a\x01b", "two\nlines", "\x7f", "x" * 501]
    for session, name in zip(recent(sandbox), [*odd, *unusable], strict=False):
        session.name = name
    pipeline = pipeline_at(sandbox, tmp_path)
    read_days(pipeline)
    night, said = measured(pipeline)
    found = {name: [one.id for one in recent(sandbox) if one.name == name] for name in (*odd, *unusable)}
    judges = judge_project(sandbox).runs_by_experiment
    for name in odd:
        (key,) = found[name]
        assert rows(lake_at(tmp_path))[key]["total_cost"] == dollars(judges[name]) > 0
    assert not rows(lake_at(tmp_path)).keys() & {key for name in unusable for key in found[name]}
    long, others = "the name has over 500 characters", "the name is empty or has control characters"
    assert night.readings[OTHER_WORKSPACE].skipped == {others: len(unusable) - 1, long: 1}
    assert sorted(said) == [
        f"Judges of 1 experiment are not measured (workspace: {OTHER_WORKSPACE}): {long}",
        f"Judges of 3 experiments are not measured (workspace: {OTHER_WORKSPACE}): {others}",
    ]


def test_experiments_that_share_a_name_are_not_measured_and_their_judges_are_unattributed(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    one, two, *_ = recent(sandbox)
    one.name = two.name = "the same"
    pipeline = pipeline_at(sandbox, tmp_path)
    read_days(pipeline)
    reading = measured(pipeline)[0].readings[OTHER_WORKSPACE]
    assert not rows(lake_at(tmp_path)).keys() & {one.id, two.id}
    assert reading.skipped == {"another experiment has the same name": 2}
    measured_ids = rows(lake_at(tmp_path)).keys()
    names = {session.name for session in sessions(sandbox) if session.id in measured_ids}
    unclaimed = [run for run in judge_project(sandbox).runs if run.experiment not in names]
    assert reading.unattributed_cost == dollars(unclaimed)
    assert "the same" in {run.experiment for run in unclaimed}


def test_an_experiment_with_the_judge_projects_name_is_not_taken_for_the_project(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    judges, namesake = judge_project(sandbox), recent(sandbox)[-1]
    namesake.name = judges.name
    pipeline = pipeline_at(sandbox, tmp_path)
    read_days(pipeline)
    assert measured(pipeline)[0].readings[OTHER_WORKSPACE].total_cost == dollars(judges.runs)
    assert rows(lake_at(tmp_path))[namesake.id]["total_cost"] == dollars(judges.runs_by_experiment[judges.name])


def test_a_total_emptied_by_retention_never_replaces_an_earlier_one_and_is_marked_inexact(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    read_days(pipeline_at(sandbox, tmp_path))
    first = measured(pipeline_at(sandbox, tmp_path))[0].readings[OTHER_WORKSPACE]
    before = rows(lake_at(tmp_path))
    judges, later = judge_project(sandbox), NOW + timedelta(hours=9)
    # All earlier runs are gone, and there is one new run, started by hand.
    new = judges.runs[-1]._replace(start_us=int((NOW + timedelta(hours=3)).timestamp() * 1e6), experiment=None)
    judges.runs[:] = [new]
    judges.__dict__.pop("runs_by_experiment")
    sandbox.api.data.records.pop(judges.id, None)  # type: ignore[attr-defined]
    reading = measured(pipeline_at(sandbox, tmp_path, later))[0].readings[OTHER_WORKSPACE]
    unchanged = {key: {**row, "read_at": later} for key, row in before.items()}
    assert rows(lake_at(tmp_path)) == unchanged
    assert {row["stats_as_of"] for row in unchanged.values()} == {NOW}
    assert first.is_exact
    assert first.total_cost is not None
    assert not reading.is_exact
    assert reading.total_cost == first.total_cost + dollars([new])
    assert reading.attributed_cost == first.attributed_cost


def test_a_total_that_has_become_unknown_is_kept_even_if_what_was_spent_since_is_out_of_the_apis_reach(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    first = measured(pipeline_at(sandbox, tmp_path))[0].readings[OTHER_WORKSPACE]
    unpriced, later = judge_project(sandbox), NOW + timedelta(days=32)
    unpriced.model, unpriced.seed, sandbox.api.now = "in-house-7b", 8, later
    sandbox.api.data.records.pop(unpriced.id, None)  # type: ignore[attr-defined]
    night, said = measured(pipeline_at(sandbox, tmp_path, later))
    reading = night.readings[OTHER_WORKSPACE]
    assert (reading.total_cost, reading.is_exact, said) == (first.total_cost, False, [])


@pytest.mark.parametrize(("model", "total"), [("gpt-5.2", Decimal(0)), ("in-house-7b", None)])
def test_a_judge_project_without_runs_has_cost_nothing_and_one_without_prices_an_unknown_amount(
    model: str, total: Decimal | None, sandbox: Sandbox, tmp_path: Path
) -> None:
    judges = judge_project(sandbox)
    judges.model, judges.seed = model, 8
    judges.runs.clear()
    reading = measured(pipeline_at(sandbox, tmp_path))[0].readings[OTHER_WORKSPACE]
    assert (reading.total_cost, reading.attributed_cost, reading.unattributed_cost) == (total, 0, total)
    assert reading.is_exact == (total is not None)


def test_later_measurements_count_after_one_with_a_clock_that_was_ahead(sandbox: Sandbox, tmp_path: Path) -> None:
    read_days(pipeline_at(sandbox, tmp_path))
    sandbox.faults.add(Fault("date", times=None))
    measured(pipeline_at(sandbox, tmp_path, NOW + timedelta(hours=20)))
    early, names = rows(lake_at(tmp_path)), {one.id: one.name for one in recent(sandbox)}
    judges = judge_project(sandbox)
    # Each judge has run once more since.
    judges.runs += [run for run in judges.runs if run.experiment in {*names.values()}]
    judges.runs.sort()
    judges.__dict__.pop("runs_by_experiment", None)
    sandbox.api.data.records.pop(judges.id)  # type: ignore[attr-defined]
    sandbox.api.now = NOW + timedelta(minutes=30)
    measured(pipeline_at(sandbox, tmp_path, sandbox.api.now))
    later = rows(lake_at(tmp_path))
    assert {row["read_at"] for row in early.values()} == {NOW}
    assert all(later[id_]["run_count"] == 2 * early[id_]["run_count"] > 0 for id_ in names)


def test_an_experiment_on_which_no_judge_has_run_has_cost_nothing_even_if_the_api_gives_no_sum_of_nothing(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    # All costs of the judge project are null, as those of models without a price are.
    judges = judge_project(sandbox)
    judges.model, judges.seed = "in-house-7b", 8
    read_days(pipeline_at(sandbox, tmp_path))
    unjudged = next(one.name for one in recent(sandbox) if one.name in judges.runs_by_experiment)
    judges.runs[:] = [run for run in judges.runs if run.experiment != unjudged]
    judges.__dict__.pop("runs_by_experiment")
    measured(pipeline_at(sandbox, tmp_path))
    names = {session.id: session.name for session in sessions(sandbox)}
    costs = {names[id_]: [row[name] for name in COSTS] for id_, row in rows(lake_at(tmp_path)).items()}
    assert costs.pop(unjudged) == [Decimal(0)] * 3
    assert list(costs.values()) == [[None] * 3] * len(costs) != []


def test_the_total_of_another_judge_project_is_not_added_to_that_of_the_former_one(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    former = measured(pipeline_at(sandbox, tmp_path))[0].readings[OTHER_WORKSPACE]
    other = replace(judge_project(sandbox), id=uuid(1), name="judges", judged=())
    sandbox.api.data.sessions.append(other)  # type: ignore[attr-defined]
    at_other = pipeline_at(sandbox, tmp_path, SESSIONS_PIPELINE_JUDGE_PROJECT="judges")
    reading = measured(at_other)[0].readings[OTHER_WORKSPACE]
    assert former.total_cost is not None
    assert reading.total_cost == dollars(other.runs) < former.total_cost
    assert reading.is_exact


def test_a_judge_project_that_is_deleted_during_the_measurement_leaves_costs_unknown_and_never_zero(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    values = {"SESSIONS_PIPELINE_JUDGE_REQUESTS": 2, "SESSIONS_PIPELINE_CONCURRENCY": 1}
    read_days(pipeline_at(sandbox, tmp_path))
    judges = judge_project(sandbox)

    def is_deleted(_number: int) -> None:
        if any("stats_filter" in one for one in asked_for_judges(sandbox)[2:]):
            sandbox.api.data.sessions = sessions(sandbox)[:0]  # type: ignore[attr-defined]

    sandbox.api.before_answer = is_deleted
    reading = measured(pipeline_at(sandbox, tmp_path, **values))[0].readings[OTHER_WORKSPACE]
    assert [(row["run_count"], row["total_cost"]) for row in rows(lake_at(tmp_path)).values()] == [(None, None)] * 2
    assert (reading.total_cost, reading.attributed_cost, reading.is_exact) == (dollars(judges.runs), 0, False)


def test_a_total_that_changes_during_the_measurement_makes_the_reading_inexact(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    pipeline, judges = pipeline_at(sandbox, tmp_path), judge_project(sandbox)
    read_days(pipeline)

    def run_arrives(_number: int) -> None:
        judges.runs.append(judges.runs[-1])
        sandbox.api.data.records.pop(judges.id, None)  # type: ignore[attr-defined]

    sandbox.api.before_answer = run_arrives
    reading = measured(pipeline)[0].readings[OTHER_WORKSPACE]
    assert not reading.is_exact
    assert reading.total_cost == dollars(judges.runs)


class Ignoring(CompanyData):
    """An API that ignores `stats_filter`."""

    def page(self, asked: SessionsQuery, workspace: str) -> tuple[list[str], int]:
        return super().page(asked.model_copy(update={"stats_filter": None}), workspace)


class Refusing(CompanyData):
    """An API that refuses `stats_filter`."""

    def page(self, asked: SessionsQuery, workspace: str) -> tuple[list[str], int]:
        if asked.stats_filter is not None:
            SessionsQuery.read([("stats_filter", "x")], NOW)  # raises
        return super().page(asked, workspace)


class Uncounted(CompanyData):
    """An API that returns no stats for the runs that the filter finds."""

    def page(self, asked: SessionsQuery, workspace: str) -> tuple[list[str], int]:
        return super().page(asked.model_copy(update={"include_stats": asked.stats_filter is None}), workspace)


class Omitting(CompanyData):
    """An API that returns only sessions with runs that the filter finds."""

    def page(self, asked: SessionsQuery, workspace: str) -> tuple[list[str], int]:
        return super().page(asked, workspace) if asked.stats_filter is None else ([], 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(Ignoring, "ignores"), (Refusing, "refuses a parameter"), (Uncounted, "ignores"), (Omitting, "ignores")],
)
def test_an_ignored_or_refused_filter_is_one_warning_and_never_a_number(
    data: type[CompanyData], reason: str, tmp_path: Path
) -> None:
    with running_sandbox(FaultyApi(data(NOW), NOW)) as sandbox:
        pipeline = pipeline_at(sandbox, tmp_path)
        read_days(pipeline)
        night, (said,) = measured(pipeline)
        assert said.startswith(f"Judges are not measured (workspace: {OTHER_WORKSPACE}): ")
        assert reason in said
        assert "SESSIONS_PIPELINE_QUERY" not in said, "which has no part in it"
        assert "\n" not in said
        assert len(asked_for_judges(sandbox)) == 2
        assert (night.readings, rows(lake_at(tmp_path))) == ({}, {})
        assert load_judge_readings(lake_at(tmp_path).read_file(JUDGES_FILE)).problems.keys() == {OTHER_WORKSPACE}
        result = run_days(pipeline.settings, TODAY, TODAY, select=JUDGES.name, clock=lambda: NOW)
    assert result.success
    (event,) = result.get_asset_materialization_events()
    assert reason in str(event.step_materialization_data.materialization.metadata["problems"].value)
    assert "attributed_cost_usd" not in event.step_materialization_data.materialization.metadata


def test_a_missing_judge_project_is_one_warning(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.api.workspaces = (OTHER_WORKSPACE,)
    pipeline = pipeline_at(sandbox, tmp_path, SESSIONS_PIPELINE_JUDGE_PROJECT="judges", LANGSMITH_WORKSPACE_ID="")
    read_days(pipeline)
    night, said = measured(pipeline)
    line = "no project is named judges, so no judges were traced to it"
    assert said == [f"Judges are not measured (workspace: {OWN_WORKSPACE}): {line}"]
    assert night.problems == {OWN_WORKSPACE: line}
    assert (night.readings, rows(lake_at(tmp_path))) == ({}, {})


def test_nothing_is_measured_if_names_are_redacted(sandbox: Sandbox, tmp_path: Path) -> None:
    read_days(pipeline_at(sandbox, tmp_path))
    sandbox.requests.clear()
    night, (said,) = measured(pipeline_at(sandbox, tmp_path, SESSIONS_PIPELINE_REDACT="name"))
    assert "SESSIONS_PIPELINE_REDACT removes the names" in said
    assert (night.readings, sandbox.requests) == ({}, [])


def test_a_workspace_that_can_not_be_measured_does_not_affect_the_other_and_its_warning_ends_when_it_can(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    both = pipeline_at(sandbox, tmp_path, LANGSMITH_WORKSPACE_ID=f"{WORKSPACE},{OTHER_WORKSPACE}")
    read_days(both)
    sandbox.api.data.sessions.remove(gone := judge_project(sandbox))  # type: ignore[attr-defined]
    assert measured(both)[0].readings.keys() == {WORKSPACE}
    assert load_judge_readings(lake_at(tmp_path).read_file(JUDGES_FILE)).problems.keys() == {OTHER_WORKSPACE}
    measured(pipeline_at(sandbox, tmp_path, LANGSMITH_WORKSPACE_ID=WORKSPACE, SESSIONS_PIPELINE_JUDGE_REQUESTS=0))
    assert load_judge_readings(lake_at(tmp_path).read_file(JUDGES_FILE)).problems.keys() == {OTHER_WORKSPACE}
    result = run_days(both.settings, TODAY, TODAY, select=JUDGES.name, clock=lambda: NOW)
    assert all(one.passed for one in result.get_asset_check_evaluations()), "nothing was measured there before"
    sandbox.api.data.sessions.append(gone)  # type: ignore[attr-defined]
    assert measured(pipeline_at(sandbox, tmp_path))[0].readings.keys() == {OTHER_WORKSPACE}
    kept = load_judge_readings(lake_at(tmp_path).read_file(JUDGES_FILE))
    assert (kept.readings.keys(), kept.problems) == ({WORKSPACE, OTHER_WORKSPACE}, {})


def test_costs_measured_before_the_api_fails_are_kept(sandbox: Sandbox, tmp_path: Path) -> None:
    pipeline = pipeline_at(sandbox, tmp_path, SESSIONS_PIPELINE_CONCURRENCY=1)
    read_days(pipeline)
    sandbox.faults.add(Fault("status", 404, times=None, after=6))
    night, (said,) = measured(pipeline)
    assert "404" in said
    assert (night.readings, len(rows(lake_at(tmp_path)))) == ({}, 6 - 2)


@pytest.mark.parametrize(("was_measured", "nights", "passed"), [(True, 1, False), (True, 15, False), (False, 1, True)])
def test_a_night_that_fails_is_not_reported_as_adding_up_and_a_warning_where_judges_were_measured_before(
    sandbox: Sandbox, tmp_path: Path, *, was_measured: bool, nights: int, passed: bool
) -> None:
    sandbox.api.workspaces = (OTHER_WORKSPACE,)
    pipeline = pipeline_at(sandbox, tmp_path, LANGSMITH_WORKSPACE_ID="")
    read_days(pipeline)
    if was_measured:
        measured(pipeline)
    sandbox.faults.add(Fault("status", 401, times=None))
    later = NOW + timedelta(days=nights)
    result = run_days(pipeline.settings, TODAY, TODAY, select=JUDGES.name, clock=lambda: later)
    (check,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "judges_add_up"]
    assert (check.passed, check.severity) == (passed, dg.AssetCheckSeverity.WARN)
    assert ("which" in check.metadata) != passed
    assert check.description is not None
    assert check.description.startswith("Not measured: ")
    assert "401" in check.description


def test_a_negative_unattributed_cost_is_an_error_and_never_cut_off_at_zero(sandbox: Sandbox, tmp_path: Path) -> None:
    pipeline = pipeline_at(sandbox, tmp_path)
    read_days(pipeline)
    too_much = {
        **dict.fromkeys(JUDGES.schema.names),
        "id": uuid(1),
        "tenant_id": OTHER_WORKSPACE,
        "reference_dataset_id": uuid(2),
        "total_cost": "1000000",
        "stats_as_of": NOW,
        "read_at": NOW,
    }
    Lake.open(str(tmp_path), query={}).replace(JUDGES, TODAY, table_of(JUDGES.name, [too_much]), {})
    result = run_days(pipeline.settings, TODAY, TODAY, select=JUDGES.name, clock=lambda: NOW)
    (reading,) = load_judge_readings(lake_at(tmp_path).read_file(JUDGES_FILE)).readings.values()
    assert reading.unattributed_cost is not None
    assert reading.unattributed_cost < -900_000
    (broken,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "judges_add_up"]
    assert (broken.passed, broken.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert broken.metadata["which"].value == OTHER_WORKSPACE
    assert broken.description is not None
    assert "own costs are right" in broken.description


def test_the_job_records_the_unattributed_cost_in_dagsters_metadata(sandbox: Sandbox, tmp_path: Path) -> None:
    pipeline = pipeline_at(sandbox, tmp_path)
    read_days(pipeline)
    job = build_definitions(pipeline).get_repository_def().get_job("measure_judge_costs")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance)
        event = instance.get_latest_materialization_event(dg.AssetKey(JUDGES.name))
    assert result.success
    passed = {one.check_name for one in result.get_asset_check_evaluations() if one.passed}
    assert passed == {"judges_add_up", "judges_have_experiments"}
    (reading,) = load_judge_readings(lake_at(tmp_path).read_file(JUDGES_FILE)).readings.values()
    assert event is not None
    assert event.asset_materialization is not None
    facts = event.asset_materialization.metadata
    measured_rows = rows(lake_at(tmp_path)).values()
    assert facts["measured_experiments"].value == len(measured_rows)
    # As a number, which Dagster plots.
    assert facts["attributed_cost_usd"].value == pytest.approx(float(sum(row["total_cost"] for row in measured_rows)))
    assert facts["readings"].value[OTHER_WORKSPACE]["unattributed_cost"] == str(reading.unattributed_cost)  # type: ignore[index, call-overload]


def test_the_file_beside_the_tables_is_json_with_amounts_as_text(sandbox: Sandbox, tmp_path: Path) -> None:
    pipeline = pipeline_at(sandbox, tmp_path)
    read_days(pipeline)
    night, _ = measured(pipeline)
    assert load_judge_readings(lake_at(tmp_path).read_file(JUDGES_FILE)).readings == night.readings
    row = json.loads(lake_at(tmp_path).read_file(JUDGES_FILE))["readings"][OTHER_WORKSPACE]
    assert row.keys() == set(JudgeReading.__struct_fields__)
    amounts = [row[name] for name in ("total_cost", "attributed_cost", "unattributed_cost")]
    assert [exact(Decimal(text)) for text in amounts] == amounts, "no exponents, no closing zeros"
    assert Decimal(amounts[0]) == Decimal(amounts[1]) + Decimal(amounts[2])


def test_sql_python_and_sums_agree_on_own_judge_and_whole_cost(sandbox: Sandbox, tmp_path: Path) -> None:
    pipeline = pipeline_at(sandbox, tmp_path, SESSIONS_PIPELINE_JUDGE_REQUESTS=5)
    run_days(pipeline.settings, YESTERDAY, TODAY, clock=lambda: NOW)
    lake, days = lake_at(tmp_path), [YESTERDAY, TODAY]
    statement = (
        "SELECT id, own_cost, judge_cost, whole_cost, is_measured FROM experiment_costs WHERE start_date NOT NULL"
    )

    def by_sql() -> list[tuple[Any, ...]]:
        with duckdb.connect() as connection:
            connection.execute(f"SET VARIABLE data_root = '{tmp_path}'")
            connection.execute(files("sessions_pipeline.outputs").joinpath("lake.sql").read_text())
            return sorted(connection.execute(statement).fetchall())

    def by_python() -> list[tuple[Any, ...]]:
        names = ("id", *COSTS_OF_AN_EXPERIMENT, "is_measured")
        return sorted(tuple(row[name] for name in names) for row in whole_of(lake, days).values())

    assert {(judges, whole, is_measured) for *_, judges, whole, is_measured in by_sql()} == {(None, None, False)}
    assert by_sql() == by_python()
    measured(pipeline)
    assert by_sql() == by_python()
    assert sum(is_measured for *_, is_measured in by_python()) == 5
    daily = lake.read_days(DAILY, days).to_pylist()
    totals = Totals.of(daily, judge_rows(lake, days))
    assert (totals.judges_measured, totals.judges_not_measured) == (5, len(by_python()) - 5)
    assert totals.judge_cost == sum(judges for _, _, judges, *_ in by_python() if judges is not None)
    by_dataset = totals_by(daily, judge_rows(lake, days), lambda row: row["reference_dataset_id"])
    assert sum(one.whole_cost or 0 for one in by_dataset.values()) == totals.whole_cost


@pytest.mark.parametrize(("old", "new"), [(YESTERDAY, TODAY), (TODAY, YESTERDAY)])
def test_an_experiment_whose_start_time_has_changed_has_its_judges_beside_its_own_cost_everywhere_alike(
    old: date, new: date, sandbox: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read_days(pipeline_at(sandbox, tmp_path))
    measured(pipeline_at(sandbox, tmp_path))
    moved = min((one for one in recent(sandbox) if one.start.date() == old), key=lambda one: one.start)
    judges = judge_project(sandbox)
    former = dollars(judges.runs_by_experiment[moved.name])
    judges.runs.append(judges.runs_by_experiment[moved.name][0])
    judges.__dict__.pop("runs_by_experiment")
    moved.start += new - old
    for session in (moved, judges):
        sandbox.api.data.records.pop(session.id, None)  # type: ignore[attr-defined]
    pipeline = pipeline_at(sandbox, tmp_path, NOW + timedelta(hours=1))
    read_days(pipeline)
    reading = measured(pipeline)[0].readings[OTHER_WORKSPACE]
    lake, days, spent = lake_at(tmp_path), [YESTERDAY, TODAY], dollars(judges.runs_by_experiment[moved.name])
    stored = lake.read_days(JUDGES, days).to_pylist()
    assert {row["start_date"]: row["total_cost"] for row in stored if row["id"] == moved.id} == {
        new: spent,
        old: former,
    }
    assert reading.attributed_cost == sum(row["total_cost"] for row in stored) - former
    # Its own cost, too, is on both days, each time with what it was by then.
    statement = (
        "SELECT start_date, id, own_cost, judge_cost, whole_cost FROM experiment_costs WHERE start_date NOT NULL"
    )
    with lake_sql(tmp_path) as connection:
        by_sql = sorted(connection.execute(statement).fetchall())
    names = ("start_date", "id", *COSTS_OF_AN_EXPERIMENT)
    by_read = sessions_pipeline.read("experiment_summary", YESTERDAY, TODAY, root=tmp_path).to_pylist()
    assert sorted(tuple(row[name] for name in names) for row in by_read) == by_sql
    by_day = [
        row for day in days for row in sessions_pipeline.read("experiment_summary", day, day, root=tmp_path).to_pylist()
    ]
    assert sorted(tuple(row[name] for name in names) for row in by_day) == by_sql
    own, judged = (sum(row[place] for row in by_sql if row[place] is not None) for place in (2, 3))
    assert judged == reading.attributed_cost + former
    of_report = read_report_data(lake, YESTERDAY, TODAY).now
    assert (of_report.cost, of_report.judge_cost, of_report.judges_not_measured) == (own, judged, 0)
    budget = Budget(name="all", limit=Decimal(1), period="month", include_judges=True)
    (status,) = budget_statuses(lake, [budget], NOW)
    assert (status.used, status.unjudged) == (own + judged, of_report.unjudged)
    print_summary(pipeline.settings, {DAILY.name: days}, *days, as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert (Decimal(facts["total_cost"]), Decimal(facts["judge_cost"])) == (own, judged)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_command_that_measures_judges_can_be_copied_from_a_narrow_terminal(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = pipeline_at(sandbox, tmp_path)
    read_days(pipeline)
    monkeypatch.setenv("COLUMNS", "40")
    with contextlib.redirect_stdout(Terminal()) as shown:
        print_summary(pipeline.settings, {DAILY.name: [TODAY]}, TODAY, TODAY)
    command = shown.getvalue().partition("to count them: ")[2].replace("\\\n", "")
    assert re.match(r"sessions-pipeline materialize +--from (\S+) --to \1 --select judge_cost_by_experiment\n", command)


def test_the_summary_counts_measured_judges_and_reports_unmeasured_ones(
    sandbox: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline, days = pipeline_at(sandbox, tmp_path, SESSIONS_PIPELINE_JUDGE_REQUESTS=5), [YESTERDAY, TODAY]
    read_days(pipeline)

    def summary(**more: Any) -> str:
        print_summary(pipeline.settings, {DAILY.name: days}, *days, **more)
        return capsys.readouterr().out

    lines = summary().splitlines()
    place = lines.index("Judges   to count them: sessions-pipeline materialize \\")
    assert lines[place - 1].endswith(" US dollars; judge calls not counted")
    assert re.fullmatch(r" +--from (\S+) --to \1 --select judge_cost_by_experiment", lines[place + 1])
    assert len(lines[place + 1]) <= 80
    facts = json.loads(summary(as_json=True))
    assert (facts["judge_cost"], facts["judges_measured"]) == (None, 0)
    assert facts["judges_not_measured"] == facts["experiments"] > 5
    measured(pipeline)
    cost = Totals.of([], judge_rows(lake_at(tmp_path), days)).judge_cost
    others = facts["experiments"] - 5
    assert f"\nJudges, exactly: {exact(cost)} US dollars; those of {others} experiments not counted\n" in summary()
    assert "judge calls" not in summary()
    facts = json.loads(summary(as_json=True))
    assert (facts["judge_cost"], facts["judges_measured"], facts["judges_unknown"]) == (exact(cost), 5, 0)
    assert sum(Decimal(line["judge_cost"] or 0) for line in facts["lines"]) == cost
    assert sum(line["judges_not_measured"] for line in facts["lines"]) == facts["judges_not_measured"]
    # A measured judge cost that is unknown is not counted either.
    lake = Lake.open(str(tmp_path), query={})
    day = lake.days(JUDGES)[-1]
    one, *others = lake.read(JUDGES, day).to_pylist()
    lake.replace(JUDGES, day, table_of(JUDGES.name, [{**one, "total_cost": None}, *others]), {})
    assert f"; those of {facts['experiments'] - 4} experiments not counted\n" in summary()
    assert json.loads(summary(as_json=True))["judges_unknown"] == 1


def test_the_costs_are_printed_before_the_error_of_a_file_of_judges_that_can_not_be_read(
    sandbox: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline, days = pipeline_at(sandbox, tmp_path), [YESTERDAY, TODAY]
    read_days(pipeline)
    made = {DAILY.name: days, "sessions": days, "rejected_sessions": days}
    print_summary(pipeline.settings, made, *days)
    whole, _, _ = capsys.readouterr().out.partition("Known cost, exactly: ")
    assert re.search(r"\n *Total .* \$\d+\.\d\d.*\n2 days, .* 1 rejected record\n$", whole, re.DOTALL)
    file = tmp_path / JUDGES.name / f"start_date={TODAY}" / f"{JUDGES.name}.parquet"
    file.parent.mkdir(parents=True)
    file.write_text("broken")
    with pytest.raises(BrokenError, match=f"^{re.escape(str(file))}: not a readable Parquet file"):
        print_summary(pipeline.settings, made, *days)
    assert capsys.readouterr().out == whole
