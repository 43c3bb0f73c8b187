"""The asset `judge_cost_by_experiment`: what evaluators have spent on each experiment, and on none.

What judges cost is worth some requests, never a failed run: what the API refuses is one warning and not measured.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.errors import ApiError
from sessions_pipeline.lake.day_file import Stored
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.langsmith.activity import REACH
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.judges import Spent, can_be_asked_for, each_judged, honours_filter, read_judges
from sessions_pipeline.langsmith.redaction import parse_paths
from sessions_pipeline.orchestration.assets import Made, commit, spec
from sessions_pipeline.orchestration.pipeline import Pipeline, Workspace
from sessions_pipeline.outputs.formatting import exact
from sessions_pipeline.outputs.judges import JUDGES_FILE, JudgeReading, JudgeReadings, judge_readings
from sessions_pipeline.outputs.spending import total
from sessions_pipeline.tables import JUDGE_COST_BY_EXPERIMENT as JUDGES
from sessions_pipeline.tables import SESSIONS, Table
from sessions_pipeline.tables.judge_cost_by_experiment import MEASURES, NEEDED, due, merge_judges

ADD_UP = "judges_add_up"
KEYS_OWN = "the key's own workspace"


def judge_asset() -> dg.AssetsDefinition:
    """`judge_cost_by_experiment`: no partitions, so that one materialization measures whatever is due."""
    promise = "Judges of experiments have spent no more than the project that they are traced to."

    @dg.multi_asset(
        name="measure_judges",
        description="Asks the judge project's stats for the runs that name an experiment, one request for each.",
        specs=[spec(JUDGES, deps=[SESSIONS.name]).merge_attributes(kinds={"langsmith"})],
        check_specs=[dg.AssetCheckSpec(ADD_UP, asset=JUDGES.name, description=promise)],
    )
    def measure_judges(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[None]]:
        night = measure(pipeline, context.log.warning)
        below = [one for one in night.readings.values() if (one.unattributed_cost or 0) < 0]
        which = {"which": "; ".join(map(_in_words, below))} if below else {}
        result = dg.AssetCheckResult(passed=not below, check_name=ADD_UP, metadata={"broken": len(below), **which})
        yield dg.MaterializeResult(metadata=_facts(night), check_results=[result])

    return measure_judges


class Night(NamedTuple):
    """What one measuring came to: readings by workspace, problems by the workspace that was asked for, and counts."""

    readings: Mapping[str, JudgeReading]
    problems: Mapping[str, str]
    measured: int = 0
    requests: int = 0


class _Project(NamedTuple):
    """A workspace's judge project, and what had been spent in it before the measuring."""

    workspace: Workspace
    before: Spent


def measure(pipeline: Pipeline, warn: Callable[[str], object]) -> Night:
    """Measure the experiments that are due in every workspace, and keep what is unattributed beside the tables.

    Raises:
        LakeError: a file could not be read or written; the former one is intact.
    """
    lake = pipeline.open_lake()
    with pipeline.workspaces() as (client, workspaces):
        tried = [workspace.asked or KEYS_OWN for workspace in workspaces]
        if ("name",) in parse_paths(pipeline.settings.redact):
            reason = "SESSIONS_PIPELINE_REDACT removes the names that they are found by"
            night = Night({}, dict.fromkeys(tried, reason))
        else:
            night = _measure(pipeline, lake, client, workspaces)

    def noted(stored: bytes | None) -> bytes:
        before = JudgeReadings.load(stored)
        others = {name: problem for name, problem in before.problems.items() if name not in tried}
        return JudgeReadings({**before.readings, **night.readings}, {**others, **night.problems}).dump()

    lake.update_file(JUDGES_FILE, noted)
    for name, problem in night.problems.items():
        warn(f"Judges of {name} are not measured: {problem}")
    return night


def _measure(pipeline: Pipeline, lake: Lake, client: SessionsClient, workspaces: Sequence[Workspace]) -> Night:
    problems, readings, measured = dict[str, str](), dict[str, JudgeReading](), 0
    projects = list(_found(client, pipeline.settings.judge_project, workspaces, problems))
    chosen = due(
        _experiments(lake, {project.before["tenant_id"] for project in projects}),
        {(row["tenant_id"], row["id"]) for row in _rows(lake, "tenant_id", "id")},
        now=pipeline.clock(),
        most=pipeline.settings.judge_requests,
        young=pipeline.judge_reach,
        can_be_asked_for=can_be_asked_for,
    )
    known = judge_readings(lake).readings
    for project in projects:
        tenant = project.before["tenant_id"]
        mine = [row for row in chosen.rows if row["tenant_id"] == tenant]
        try:
            read = _each(pipeline, lake, client, project, mine)
            reading = _total(pipeline, client, project, known.get(tenant))
        except ApiError as error:
            problems[project.workspace.asked or KEYS_OWN] = str(error)
            continue
        measured += read
        chosen.skipped[tenant, "the API refused the name"] += len(mine) - read
        readings[tenant] = reading
    claimed = defaultdict[str, list[Decimal | None]](list)
    for row in _rows(lake, "tenant_id", "total_cost"):
        claimed[row["tenant_id"]].append(row["total_cost"])
    for tenant, reading in readings.items():
        skipped = {reason: count for (of, reason), count in chosen.skipped.items() if of == tenant and count}
        readings[tenant] = reading._replace(attributed_cost=total(claimed[tenant]) or Decimal(0), skipped=skipped)
    return Night(readings, problems, measured, client.requests)


def _found(
    client: SessionsClient, name: str, workspaces: Sequence[Workspace], problems: dict[str, str]
) -> Iterator[_Project]:
    """The judge projects of workspaces whose API honours the filter; of others a line in `problems`."""
    for workspace in workspaces:
        try:
            before = read_judges(client, name, workspace=workspace.asked)
            if before is None:
                problem = f"no project is named {name}, so no judges were traced to it"
            elif not honours_filter(client, name, workspace=workspace.asked):
                problem = "the API ignores stats_filter, as it found runs, or no count of them, for a name nobody has"
            else:
                yield _Project(workspace, before)
                continue
        except ApiError as error:
            problem = str(error)
        problems[workspace.asked or KEYS_OWN] = problem


def _each(
    pipeline: Pipeline, lake: Lake, client: SessionsClient, project: _Project, experiments: Sequence[Mapping[str, Any]]
) -> int:
    """Measure the experiments and write their days, also when the API fails in between; how many were measured.

    Raises:
        ApiError: no usable answer.
    """
    read_at, settings = pipeline.clock(), pipeline.settings
    days = defaultdict[Day, list[dict[str, Any]]](list)
    spent = each_judged(
        client,
        settings.judge_project,
        [row["name"] for row in experiments],
        workspace=project.workspace.asked,
        in_flight=settings.concurrency,
    )
    try:
        for row, found in zip(experiments, spent, strict=True):
            if found is not None:
                measures = {name: found[name] for name in MEASURES}
                days[row["start_date"] or UNDATED].append(
                    {**row, **measures, "stats_as_of": read_at, "read_at": read_at}
                )
    finally:
        for day, rows in days.items():
            commit(lake, JUDGES, day, partial(_merged, read=rows))
    return sum(map(len, days.values()))


def _merged(stored: Stored | None, read: Sequence[Mapping[str, Any]]) -> Made:
    return merge_judges(stored and stored.rows, read), {}


def _total(pipeline: Pipeline, client: SessionsClient, project: _Project, known: JudgeReading | None) -> JudgeReading:
    """What has been spent in the project by now, whoever claims it.

    Where retention has emptied the project's total, that is what was known of it and what was spent since.

    Raises:
        ApiError: no usable answer.
    """
    name, asked = pipeline.settings.judge_project, project.workspace.asked
    after = read_judges(client, name, workspace=asked)
    read_at, spent = pipeline.clock(), (after or project.before)["total_cost"]
    is_exact = after == project.before and spent is not None
    if known is not None and known.project == name:
        is_told = read_at - known.read_at < REACH
        since = read_judges(client, name, workspace=asked, since=known.read_at) if is_told else None
        kept = total((known.total_cost, since["total_cost"] if since else None))
        if kept is not None and (spent is None or spent < kept):
            spent, is_exact = kept, False
    return JudgeReading(project.before["tenant_id"], name, spent, Decimal(0), is_exact, read_at, {})


def _experiments(lake: Lake, tenants: AbstractSet[str]) -> pa.Table:
    """All experiments of these workspaces that the lake knows, with the day of each."""
    parts, those = [lake.read_days(SESSIONS, [], NEEDED)], pa.array(sorted(tenants), pa.string())
    for day in _days(lake, SESSIONS) if tenants else ():
        rows = lake.read_days(SESSIONS, [day], NEEDED)
        is_one = pc.and_(rows.column("reference_dataset_id").is_valid(), pc.is_in(rows.column("tenant_id"), those))
        parts.append(rows.filter(is_one))
    return pa.concat_tables(parts)


def _rows(lake: Lake, *columns: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = lake.read_days(JUDGES, _days(lake, JUDGES), columns).to_pylist()
    return rows


def _days(lake: Lake, table: Table) -> list[Day]:
    return [*lake.days(table), *([UNDATED] if lake.has(table, UNDATED) else [])]


def _facts(night: Night) -> dict[str, Any]:
    """What Dagster is told of it."""
    reasons = Counter[str]()
    for reading in night.readings.values():
        reasons.update(reading.skipped)
    told = {
        "judged": "; ".join(map(_in_words, night.readings.values())),
        "skipped": "; ".join(f"{count}: {reason}" for reason, count in reasons.items()),
        "not_measured": "; ".join(f"{name}: {problem}" for name, problem in night.problems.items()),
    }
    return {
        "measured_experiments": night.measured,
        "requests": night.requests,
        **{name: text for name, text in told.items() if text},
    }


def _in_words(reading: JudgeReading) -> str:
    about = "" if reading.is_exact else ", inexact"
    return (
        f"{reading.tenant_id}: {exact(reading.total_cost) or 'unknown'} US dollars in all, "
        f"{exact(reading.attributed_cost)} by experiments, "
        f"{exact(reading.unattributed_cost) or 'unknown'} unattributed{about}"
    )
