"""The asset `judge_cost_by_experiment`: what evaluators have spent on each experiment, and on none.

What judges cost is worth some requests, never a failed run: what the API refuses is one warning and not measured.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import uuid4

import dagster as dg
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.errors import ApiError, RefusedError
from sessions_pipeline.lake.day_file import Stored
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.langsmith.activity import REACH, read_judges
from sessions_pipeline.langsmith.redaction import parse_paths
from sessions_pipeline.orchestration.assets import Made, commit, spec
from sessions_pipeline.orchestration.names import KEYS_OWN
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.outputs.formatting import EXACT
from sessions_pipeline.outputs.judges import JUDGES_FILE, JudgeReading, JudgeReadings, judge_readings, load_readings
from sessions_pipeline.outputs.spending import total
from sessions_pipeline.tables import JUDGE_COST_BY_EXPERIMENT as JUDGES
from sessions_pipeline.tables import SESSIONS, Table
from sessions_pipeline.tables.judge_cost_by_experiment import MEASURES, NEEDED, due, merge_judges

ADD_UP = "judges_add_up"


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
        facts, night = measure(pipeline, context.log.warning)
        below = [tenant for tenant, one in night.readings.items() if (one.unattributed_cost or 0) < 0]
        metadata = {**facts, **msgspec.to_builtins(night)}
        broken = dg.AssetCheckResult(passed=not below, check_name=ADD_UP, metadata={"which": ", ".join(below)})
        yield dg.MaterializeResult(metadata=metadata, check_results=[broken])

    return measure_judges


def measure(pipeline: Pipeline, warn: Callable[[str], object]) -> tuple[dict[str, int], JudgeReadings]:
    """Measure the experiments that are due in every workspace, and keep what is unattributed beside the tables.

    How many experiments and requests that were, and what came of it.

    Raises:
        LakeError: a file could not be read or written; the former one is intact.
    """
    lake, settings, night = pipeline.open_lake(), pipeline.settings, JudgeReadings()
    experiments, left = _experiments(lake), settings.judge_requests
    with pipeline.workspaces() as (client, workspaces):
        tried = [workspace.asked or KEYS_OWN for workspace in workspaces]
        for workspace, name in zip(workspaces, tried, strict=True):
            read = partial(read_judges, client, settings.judge_project, workspace=workspace.asked)
            try:
                tenant, night.readings[tenant], count = _measure(pipeline, lake, experiments, read, left)
                left -= count
            except ApiError as error:
                night.problems[name] = str(error)
                warn(f"Judges are not measured (workspace: {name}): {error}")

    def noted(stored: bytes | None) -> bytes:
        before = load_readings(stored)
        others = {name: problem for name, problem in before.problems.items() if name not in tried}
        return msgspec.json.encode(JudgeReadings(before.readings | night.readings, others | night.problems))

    lake.update_file(JUDGES_FILE, noted)
    return {"measured_experiments": settings.judge_requests - left, "requests": client.requests}, night


def _measure(
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
    measured = {row["id"] for row in _rows(lake, tenant)}
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
    # By id, as an experiment whose start time has changed may stand on two days.
    claimed = total({row["id"]: row["total_cost"] for row in _rows(lake, tenant)}.values()) or Decimal(0)
    rest = None if spent is None else EXACT.subtract(spent, claimed)
    reading = JudgeReading(project, spent, claimed, rest, is_exact, read_at, dict(chosen.skipped))
    return tenant, reading, len(chosen.rows)


def _each(pipeline: Pipeline, lake: Lake, experiments: Sequence[Mapping[str, Any]], read: Callable[..., Any]) -> None:
    """Measure the experiments and write their days, also where the API fails in between.

    Raises:
        ApiError: no usable answer.
    """
    read_at, days = pipeline.clock(), defaultdict[Day, list[Mapping[str, Any]]](list)
    try:
        with ThreadPoolExecutor(pipeline.settings.concurrency, thread_name_prefix="judges") as executor:
            found = executor.map(lambda row: read(experiment=row["name"]), experiments)
            for row, spent in zip(experiments, found, strict=True):
                measures = {name: spent[name] if spent else None for name in MEASURES}
                days[row["start_date"] or UNDATED].append(
                    {**row, **measures, "stats_as_of": read_at, "read_at": read_at}
                )
    finally:
        for day, rows in days.items():
            commit(lake, JUDGES, day, partial(_merged, rows))


def _merged(read: Sequence[Mapping[str, Any]], stored: Stored | None) -> Made:
    return merge_judges(stored and stored.rows, read), {}


def _experiments(lake: Lake) -> pa.Table:
    """All experiments that the lake knows, with the day of each."""
    parts = [lake.read_days(SESSIONS, [], NEEDED)]
    for day in _days(lake, SESSIONS):
        rows = lake.read_days(SESSIONS, [day], NEEDED)
        parts.append(rows.filter(rows.column("reference_dataset_id").is_valid()))
    return pa.concat_tables(parts)


def _rows(lake: Lake, tenant: str) -> list[dict[str, Any]]:
    rows = lake.read_days(JUDGES, _days(lake, JUDGES), ("tenant_id", "id", "total_cost")).to_pylist()
    return [row for row in rows if row["tenant_id"] == tenant]


def _days(lake: Lake, table: Table) -> list[Day]:
    return [*lake.days(table), *([UNDATED] if lake.has(table, UNDATED) else [])]
