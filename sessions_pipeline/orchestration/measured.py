"""What is measured at night, apart from the refresh: what each session used on a day, and what judges have spent.

`daily_cost_by_project` is measured while the API still tells it, `judge_cost_by_experiment` by asking for the runs that
evaluators made. What judges cost is worth some requests, never a failed run: what the API refuses is one warning and
not measured.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import uuid4

import dagster as dg
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.days import days_between, is_day_over, utc_day
from sessions_pipeline.errors import ApiError, ParameterError, RefusedError
from sessions_pipeline.lake.commits import NewContent, commit
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.lake.parquet import Stored
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.lists import REACH, is_within_reach, read_judges, read_usage
from sessions_pipeline.langsmith.redaction import parse_paths
from sessions_pipeline.langsmith.source import Source
from sessions_pipeline.orchestration.assets import spec
from sessions_pipeline.orchestration.one_file import KEYS_OWN
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.outputs.formatting import exact, plural
from sessions_pipeline.outputs.read import judge_readings, judge_rows
from sessions_pipeline.outputs.spending import JUDGES_FILE, JudgeReading, JudgeReadings, Row, load_judge_readings
from sessions_pipeline.tables import DAILY_COST_BY_PROJECT as PROJECTS
from sessions_pipeline.tables import JUDGE_COST_BY_EXPERIMENT as JUDGES
from sessions_pipeline.tables import SESSIONS
from sessions_pipeline.tables.aggregate import EXACT, total
from sessions_pipeline.tables.column import MEASURES
from sessions_pipeline.tables.daily_cost_by_project import NEEDED as USED
from sessions_pipeline.tables.daily_cost_by_project import daily_cost_by_project
from sessions_pipeline.tables.judge_cost_by_experiment import NAME_PROBLEMS, NEEDED, due, merge_judges
from sessions_pipeline.validation.records import Record
from sessions_pipeline.validation.validate import validate

IS_FINAL = "day_was_over"
ADD_UP = "judges_add_up"


@dg.multi_asset(
    description="Cuts a day out of every active session's totals by three readings of its stats.",
    specs=[spec(PROJECTS, deps=[]).merge_attributes(kinds={"langsmith"})],
)
def measure_projects(
    context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> dg.MaterializeResult[None]:
    """`daily_cost_by_project`: no partitions, so that one materialization measures whatever still can be."""
    lake, time = pipeline.open_lake(), pipeline.clock()
    reachable = [day for day in days_between(pipeline.settings.start_date, utc_day(time)) if is_within_reach(day, time)]
    earliest = min(reachable, default=pipeline.settings.start_date)
    context.log.info("days before %s can't be measured any more: the stats reach 31 days back", earliest)
    there = set(lake.days(PROJECTS))
    days = [day for day in reachable if day not in there or lake.metadata(PROJECTS, day).get(IS_FINAL) != str(True)]
    with pipeline.sources() as (client, sources):
        for day in days:
            _measure_day(pipeline, lake, client, sources, day)
    measured = {"measured_days": ", ".join(map(str, days)), "measurable_from": str(earliest)}
    return dg.MaterializeResult(metadata=measured)


def _measure_day(pipeline: Pipeline, lake: Lake, client: SessionsClient, sources: Iterable[Source], day: date) -> None:
    """Measure a day in every workspace, and write it; rows of workspaces that were not read are kept."""
    read_at = pipeline.clock()
    is_over = is_day_over(day, read_at)
    rows, tenants = [PROJECTS.schema.empty_table()], set[str]()
    for source in sources:
        tenants |= {source.workspace} if source.workspace else set()
        with source.named():
            for usage in read_usage(client, pipeline.query, workspace=source.workspace, day=day):
                end, start, end_again = map(_validated, usage)
                tenants |= set(start.column("tenant_id").to_pylist())
                rows.append(daily_cost_by_project(end, start, end_again, day_is_over=is_over, read_at=read_at))

    def make(stored: Stored | None) -> NewContent:
        is_read = stored and pc.is_in(stored.rows.column("tenant_id"), pa.array(sorted(tenants), pa.string()))
        kept = [stored.rows.filter(pc.invert(is_read))] if stored else []
        return pa.concat_tables([*rows, *kept]), {IS_FINAL: str(is_over)}

    commit(lake, PROJECTS, day, make)


def _validated(records: Sequence[Record]) -> pa.Table:
    return validate([record.payload for record in records]).sessions.select(list(USED))


@dg.multi_asset(
    description="Asks the judge project's stats for the runs that name an experiment, one request for each.",
    specs=[spec(JUDGES, deps=[SESSIONS.name]).merge_attributes(kinds={"langsmith"})],
    check_specs=[
        dg.AssetCheckSpec(
            ADD_UP,
            asset=JUDGES.name,
            description="Judges of experiments have spent no more than the project that they are traced to.",
        )
    ],
)
def measure_judges(
    context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> Iterator[dg.MaterializeResult[None]]:
    """`judge_cost_by_experiment`: no partitions, so that one materialization measures whatever is due."""
    facts, night = measure(pipeline, pipeline.warner(context.log))
    below = [tenant for tenant, one in night.readings.items() if (one.unattributed_cost or 0) < 0]
    said = "Costs with judges are too high, own costs hold; was SESSIONS_PIPELINE_JUDGE_PROJECT changed?"
    said, which = said if below else "They add up.", {"which": ", ".join(below)}
    check = dg.AssetCheckResult(passed=not below, check_name=ADD_UP, description=said, metadata=which)
    yield dg.MaterializeResult(metadata={**facts, **msgspec.to_builtins(night)}, check_results=[check])


def measure(pipeline: Pipeline, warn: Callable[[str], object]) -> tuple[dict[str, int], JudgeReadings]:
    """Measure the experiments that are due in every workspace, and keep what is unattributed beside the tables.

    How many experiments and requests that were, and what came of it.

    Raises:
        LakeError: a file could not be read or written; the former one is intact.
    """
    lake, settings, night = pipeline.open_lake(), pipeline.settings, JudgeReadings()
    experiments, left = _experiments(lake), settings.judge_requests
    with pipeline.sources() as (client, sources):
        # Each night another workspace is the first: a large one may use up what may be measured.
        turn = pipeline.clock().toordinal() % len(sources)
        tried = {source.workspace or KEYS_OWN: source for source in sources[turn:] + sources[:turn]}
        for name, source in tried.items():
            read = partial(read_judges, client, settings.judge_project, workspace=source.workspace)
            try:
                tenant, reading, count = _measure_workspace(pipeline, lake, experiments, read, left)
                night.readings[tenant] = reading
                left -= count
                for reason in filter(reading.skipped.get, NAME_PROBLEMS):
                    number = plural(reading.skipped[reason], "experiment")
                    warn(f"Judges of {number} are not measured (workspace: {name}): {reason}")
            except ApiError as error:
                said = str(error)
                if isinstance(error, ParameterError):  # none of them comes from a setting
                    said = f"{said.rpartition(';')[0]}; this API does not tell what judges spent, no setting helps"
                night.problems[name] = said
                warn(f"Judges are not measured (workspace: {name}): {said}")

    def noted(stored: bytes | None) -> bytes:
        before = load_judge_readings(stored)
        others = {name: problem for name, problem in before.problems.items() if name not in tried}
        return msgspec.json.encode(JudgeReadings(before.readings | night.readings, others | night.problems))

    lake.update_file(JUDGES_FILE, noted)
    return {"measured_experiments": settings.judge_requests - left, "requests": client.requests}, night


def _measure_workspace(
    pipeline: Pipeline, lake: Lake, experiments: pa.Table, read: Callable[..., Mapping[str, Any] | None], most: int
) -> tuple[str, JudgeReading, int]:
    """Measure a workspace: its id, its reading, and how many experiments that were.

    Raises:
        ApiError: it can't be measured, the text says why; what was read before is kept.
    """
    project = pipeline.settings.judge_project
    if ("name",) in parse_paths(pipeline.settings.redact):
        raise RefusedError("SESSIONS_PIPELINE_REDACT removes the names that they are found by")
    if (before := read()) is None:
        raise RefusedError(f"no project is named {project}, so no judges were traced to it")
    if (nobodys := read(experiment=uuid4().hex)) is None or nobodys["run_count"] != 0:
        raise RefusedError("the API ignores stats_filter: for a name that nobody has it does not say 0 runs")
    tenant = before["tenant_id"]
    mine = experiments.filter(pc.equal(experiments.column("tenant_id"), tenant))
    measured = {row["id"]: row["read_at"] for row in _measured(lake, tenant)}
    chosen = due(mine, measured, now=pipeline.clock(), most=most, young=pipeline.judge_reach)
    _each(pipeline, lake, chosen.rows, read)
    after, read_at = read(), pipeline.clock()
    spent = (after or before)["total_cost"]
    is_exact = after == before and spent is not None
    known = judge_readings(lake).readings.get(tenant)
    if known is not None and known.project == project:
        # Retention empties the total, too: then it is what was known of it, and what was spent since.
        since = read(since=known.read_at) if read_at - known.read_at < REACH else None
        kept = total((known.total_cost, since["total_cost"] if since else None))
        if kept is not None and (spent is None or spent < kept):
            spent, is_exact = kept, False
    # One whose start time has changed may stand on two days.
    costs = {row["id"]: row["total_cost"] for row in _measured(lake, tenant)}
    # As amounts stand in all our JSON: `0`, not `0E-18`.
    claimed = Decimal(exact(total(costs.values()) or Decimal(0)))
    rest = None if spent is None else EXACT.subtract(spent, claimed)
    spent, rest = (None if amount is None else Decimal(exact(amount)) for amount in (spent, rest))
    reading = JudgeReading(project, spent, claimed, rest, is_exact, read_at, dict(chosen.skipped))
    return tenant, reading, len(chosen.rows)


def _each(pipeline: Pipeline, lake: Lake, experiments: Sequence[Row], read: Callable[..., Any]) -> None:
    """Measure the experiments and write their days, also where the API fails in between.

    Raises:
        ApiError: no usable answer.
    """
    read_at, days = pipeline.clock(), defaultdict[Day, list[Row]](list)
    try:
        with ThreadPoolExecutor(pipeline.settings.concurrency, thread_name_prefix="judges") as executor:
            found = executor.map(lambda row: read(experiment=row["name"]), experiments)
            for row, spent in zip(experiments, found, strict=True):
                measures = {name: spent[name] if spent else None for name in MEASURES}
                measured = {**row, **measures, "stats_as_of": read_at, "read_at": read_at}
                days[row["start_date"]].append(measured)
    finally:
        for day, rows in days.items():
            commit(lake, JUDGES, day, partial(_merged, rows))


def _merged(read: Sequence[Row], stored: Stored | None) -> NewContent:
    return merge_judges(stored and stored.rows, read), {}


def _experiments(lake: Lake) -> pa.Table:
    """All experiments that the lake knows, with the day of each."""
    undated: list[Day] = [UNDATED] if lake.has(SESSIONS, UNDATED) else []
    parts = [lake.read_days(SESSIONS, [], NEEDED)]
    for day in [*lake.days(SESSIONS), *undated]:
        rows = lake.read_days(SESSIONS, [day], NEEDED)
        parts.append(rows.filter(rows.column("reference_dataset_id").is_valid()))
    return pa.concat_tables(parts)


def _measured(lake: Lake, tenant: str) -> list[Row]:
    """The rows of a workspace."""
    return [row for row in judge_rows(lake, [*lake.days(JUDGES), UNDATED]) if row["tenant_id"] == tenant]
