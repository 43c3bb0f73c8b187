"""What is measured at night, apart from the refresh: what sessions used on each day, and what judges cost.

`daily_cost_by_project` can be measured only for the last 31 days. `judge_cost_by_experiment` takes one request for each
experiment, which selects the runs of its evaluators. If the API refuses that, judges are not measured, with a warning
for each workspace, but the run succeeds.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from decimal import Decimal
from functools import partial
from operator import itemgetter
from typing import Any, TypeAlias
from uuid import uuid4

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.days import days_between, is_day_over, midnight, utc_day
from sessions_pipeline.errors import ApiError, BrokenError, ParameterError, RefusedError
from sessions_pipeline.lake import Lake, parquet
from sessions_pipeline.lake.commits import NewContent, update_table
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.langsmith.client import OWN_WORKSPACE, SessionsClient
from sessions_pipeline.langsmith.lists import REACH, read_judges, read_usage
from sessions_pipeline.langsmith.redaction import parse_paths
from sessions_pipeline.langsmith.source import Source
from sessions_pipeline.outputs.formatting import exact, plural
from sessions_pipeline.outputs.read import judge_rows
from sessions_pipeline.outputs.spending import JUDGES_FILE, JudgeReading, JudgeReadings, Row, load_judge_readings
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.tables import DAILY_COST_BY_PROJECT, JUDGE_COST_BY_EXPERIMENT, SESSIONS
from sessions_pipeline.tables.aggregate import EXACT, total
from sessions_pipeline.tables.column import MEASURES
from sessions_pipeline.tables.daily_cost_by_project import daily_cost_by_project, zero_without_runs
from sessions_pipeline.tables.judge_cost_by_experiment import NAME_PROBLEMS, NEEDED, due, merge_judges

# Key in the metadata of `daily_cost_by_project`: whether the day was over when it was measured. The id of a workspace
# follows. Without an id it holds for every workspace: another measurement could lose what retention has deleted since.
DAY_WAS_OVER = "day_was_over"
ReadJudges: TypeAlias = Callable[..., Mapping[str, Any] | None]


def measurable_days(pipeline: Pipeline) -> list[date]:
    """The days whose usage the API can still report, oldest first; the first partition if it is not reached yet."""
    time, first = pipeline.clock(), pipeline.settings.start_date
    return [day for day in days_between(first, max(first, utc_day(time))) if time - midnight(day) <= REACH]


def measure_usage(pipeline: Pipeline, days: Sequence[date]) -> list[date]:
    """Measure what sessions used on days, in the workspaces in which a day was not yet measured after its end.

    Returns the days that were measured.

    Raises:
        ApiError: a workspace could not be read; the days before are measured.
        BrokenError: after all other days, if a day's file is unreadable. It stays: it may have what the API has lost.
        LakeError: a file could not be read or written; the previous one is intact.
    """
    lake, measured, broken = pipeline.open_lake(), list[date](), list[BrokenError]()
    with pipeline.sources() as (client, sources):
        for day in days:
            try:
                known = stored.metadata if (stored := lake.load(DAILY_COST_BY_PROJECT, day, ())) else {}
                own = known.get(DAY_WAS_OVER)
                if missing := [one for one in sources if known.get(_final_key(one), own) != str(True)]:
                    _measure_day(pipeline, lake, client, missing, day)
                    measured.append(day)
            except BrokenError as error:
                broken.append(error)
    if broken:
        raise broken[0]
    return measured


def _measure_day(pipeline: Pipeline, lake: Lake, client: SessionsClient, sources: Sequence[Source], day: date) -> None:
    """Measure a day in these workspaces, and write it. The rows of other workspaces are kept."""
    began = pipeline.clock()
    rows, tenants = list[pa.Table](), {source.workspace for source in sources if source.workspace}
    for source in sources:
        with source.named():
            for end, start, end_again in read_usage(client, pipeline.query, workspace=source.workspace, day=day):
                tenants |= set(start.column("tenant_id").to_pylist())
                rows.append(daily_cost_by_project(end, start, end_again, day=day, read_at=client.now(began)))
    # A day that was over is not measured again: by a clock that is ahead, it would lack its last hours forever.
    is_over = is_day_over(day, client.now(began))

    def make(before: pa.Table, file: Mapping[str, str]) -> NewContent:
        is_read = pc.is_in(before.column("tenant_id"), pa.array(sorted(tenants), pa.string()))
        metadata = {**file, **dict.fromkeys(map(_final_key, sources), str(is_over))}
        return pa.concat_tables([*rows, before.filter(pc.invert(is_read))]), metadata

    update_table(lake, DAILY_COST_BY_PROJECT, day, make)


def _final_key(source: Source) -> str:
    return f"{DAY_WAS_OVER} {source.workspace}" if source.workspace else DAY_WAS_OVER


def measure_judge_costs(pipeline: Pipeline, warn: Callable[[str], object]) -> tuple[dict[str, int], JudgeReadings]:
    """Measure the judges of the experiments that are due in every workspace, and store each workspace's reading.

    Returns how many experiments were measured with how many requests, and the readings and problems of this night.

    Raises:
        LakeError: a file could not be read or written; the previous one is intact.
    """
    lake, settings, night = pipeline.open_lake(), pipeline.settings, JudgeReadings()
    experiments, left = _experiments(lake), settings.judge_requests
    # Read once for all workspaces: the files are as many as the days since judges were first measured.
    measured = sorted(judge_rows(lake, [*lake.days(JUDGE_COST_BY_EXPERIMENT), UNDATED]), key=itemgetter("read_at"))
    with pipeline.sources() as (client, sources):
        # From the first answer on, what is measured is dated by the API's clock if this machine's is off.
        pipeline = replace(pipeline, clock=client.now)
        # Begin with another workspace each night: a large one may use up the night's limit.
        turn = pipeline.clock().toordinal() % len(sources)
        tried = {source.workspace or OWN_WORKSPACE: source for source in sources[turn:] + sources[:turn]}
        for name, source in tried.items():
            read = partial(read_judges, client, settings.judge_project, workspace=source.workspace)
            try:
                tenant, reading, count = _measure_workspace(pipeline, lake, experiments, measured, read, left)
                night.readings[tenant] = reading
                left -= count
                for reason in filter(reading.skipped.get, NAME_PROBLEMS):
                    number = plural(reading.skipped[reason], "experiment")
                    warn(f"Judges of {number} are not measured (workspace: {name}): {reason}")
            except ApiError as error:
                problem = str(error)
                if isinstance(error, ParameterError):  # its advice is about settings, and these parameters are ours
                    problem = f"{problem.rpartition(';')[0]}; this API can't give the cost of judges, no setting helps"
                night.problems[name] = problem
                warn(f"Judges are not measured (workspace: {name}): {problem}")

    def updated(stored: bytes | None) -> bytes:
        before = load_judge_readings(stored)
        others = {name: problem for name, problem in before.problems.items() if name not in tried}
        return msgspec.json.encode(JudgeReadings(before.readings | night.readings, others | night.problems))

    lake.update_file(JUDGES_FILE, updated)
    return {"measured_experiments": settings.judge_requests - left, "requests": client.requests}, night


def _measure_workspace(
    pipeline: Pipeline, lake: Lake, experiments: pa.Table, measured: Sequence[Row], read: ReadJudges, most: int
) -> tuple[str, JudgeReading, int]:
    """Measure the judges of a workspace's experiments, at most `most` of them.

    `measured` are the stored `judge_rows` of all workspaces, oldest reading first; `read` is `read_judges` for this
    workspace. Returns the workspace's id, its reading, and how many experiments were measured.

    Raises:
        ApiError: the workspace can't be measured; the message says why. What was read before is kept.
    """
    project, before = pipeline.settings.judge_project, _judge_project(pipeline, read)
    tenant = before["tenant_id"]
    of_workspace = experiments.filter(pc.equal(experiments.column("tenant_id"), tenant))
    rows = [row for row in measured if row["tenant_id"] == tenant]
    last_read = {row["id"]: row["read_at"] for row in rows}
    chosen = due(of_workspace, last_read, now=pipeline.clock(), most=most, young=pipeline.judge_reach)
    _measure_experiments(pipeline, lake, chosen.rows, read)
    after, read_at = read(), pipeline.clock()
    spent = (after or before)["total_cost"]
    is_exact = after == before and spent is not None
    known = load_judge_readings(lake.read_file(JUDGES_FILE)).readings.get(tenant)
    if known is not None and known.project == project:
        # Retention empties the project's total, too. The last known total plus what was spent since may then be higher.
        since = read(since=known.read_at) if read_at - known.read_at < REACH else None
        kept = total((known.total_cost, since["total_cost"] if since else None))
        if kept is not None and (spent is None or spent < kept):
            spent, is_exact = kept, False
    written = {row["start_date"] for row in chosen.rows}
    rows += [row for row in judge_rows(lake, [*written]) if row["tenant_id"] == tenant]
    # By id, because an experiment whose start time has changed may have rows on two days: the later reading counts.
    costs = {row["id"]: row["total_cost"] for row in sorted(rows, key=itemgetter("read_at"))}
    # Through text, so that the JSON has `0` and not `0E-18`, as everywhere else.
    claimed = Decimal(exact(total(costs.values()) or Decimal(0)))
    rest = None if spent is None else EXACT.subtract(spent, claimed)
    spent, rest = (None if amount is None else Decimal(exact(amount)) for amount in (spent, rest))
    reading = JudgeReading(project, spent, claimed, rest, is_exact, read_at, dict(chosen.skipped))
    return tenant, reading, len(chosen.rows)


def _judge_project(pipeline: Pipeline, read: ReadJudges) -> Mapping[str, Any]:
    """What the judge project has spent so far. `RefusedError`: the judges of single experiments can't be measured."""
    if ("name",) in parse_paths(pipeline.settings.redact):
        raise RefusedError("SESSIONS_PIPELINE_REDACT removes the names that they are found by")
    if (before := read()) is None:
        raise RefusedError(f"no project is named {pipeline.settings.judge_project}, so no judges were traced to it")
    if (unused := read(experiment=uuid4().hex)) is None or unused["run_count"] != 0:
        raise RefusedError("the API ignores stats_filter: it does not report 0 runs for a name that nobody uses")
    return before


def _measure_experiments(pipeline: Pipeline, lake: Lake, experiments: Sequence[Row], read: Callable[..., Any]) -> None:
    """Measure the judges of these experiments, and write their days. If the API fails, what was read is still written.

    Raises:
        ApiError: there was no usable answer.
    """
    read_at, days = pipeline.clock(), defaultdict[Day, list[Row]](list)
    try:
        with ThreadPoolExecutor(pipeline.settings.concurrency, thread_name_prefix="judges") as executor:
            answers = executor.map(lambda row: read(experiment=row["name"]), experiments)
            for row, spent in zip(experiments, answers, strict=True):
                measures = zero_without_runs({name: spent[name] if spent else None for name in MEASURES})
                days[row["start_date"]].append({**row, **measures, "stats_as_of": read_at, "read_at": read_at})
    finally:
        for day, rows in days.items():
            update_table(lake, JUDGE_COST_BY_EXPERIMENT, day, partial(_merged, rows))


def _merged(read: Sequence[Row], before: pa.Table, _file: Mapping[str, str]) -> NewContent:
    return merge_judges(before, read), {}


def _experiments(lake: Lake) -> pa.Table:
    """All experiments in the lake: the columns `NEEDED`, and each one's day as `start_date`."""
    stored = lake.each(lambda day: lake.load(SESSIONS, day, NEEDED), [*lake.days(SESSIONS), UNDATED])
    is_experiment = pc.field("reference_dataset_id").is_valid()
    return parquet.joined(SESSIONS, ((day, file.rows.filter(is_experiment)) for day, file in stored if file), NEEDED)
