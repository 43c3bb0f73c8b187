"""The asset `daily_cost_by_project`: what every session used on a UTC day, measured while the API still tells it."""

from collections.abc import Iterable, Sequence
from datetime import date

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.days import days_between, is_day_over, utc_day
from sessions_pipeline.lake.day_file import Stored
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.langsmith.activity import is_within_reach, read_usage
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.orchestration.assets import Made, commit, spec
from sessions_pipeline.orchestration.pipeline import Pipeline, Workspace
from sessions_pipeline.tables import DAILY_COST_BY_PROJECT
from sessions_pipeline.tables import daily_cost_by_project as projects
from sessions_pipeline.validation.records import Record
from sessions_pipeline.validation.validate import validate

IS_FINAL = "day_was_over"


@dg.multi_asset(
    description="Cuts a day out of every active session's totals by three readings of its stats.",
    specs=[spec(DAILY_COST_BY_PROJECT, deps=[]).merge_attributes(kinds={"langsmith"})],
)
def measure_projects(
    context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> dg.MaterializeResult[None]:
    """`daily_cost_by_project`: no partitions, so that one materialization measures whatever still can be."""
    lake = pipeline.open_lake()
    reachable = reachable_days(pipeline)
    context.log.info("days before %s can't be measured any more: the stats reach 31 days back", reachable[0])
    days = unmeasured(lake, reachable)
    with pipeline.workspaces() as (client, workspaces):
        for day in days:
            _measure(pipeline, lake, client, workspaces, day)
    measured = {"measured_days": ", ".join(map(str, days)), "measurable_from": str(reachable[0])}
    return dg.MaterializeResult(metadata=measured)


def reachable_days(pipeline: Pipeline) -> list[date]:
    """The days that the API still tells of, from the first partition to today, oldest first."""
    time = pipeline.clock()
    days = days_between(pipeline.settings.start_date, utc_day(time))
    return [day for day in days if is_within_reach(day, time)]


def unmeasured(lake: Lake, days: Sequence[date]) -> list[date]:
    """Those of the days that are missing, or were not over when they were measured."""
    measured = set(lake.days(DAILY_COST_BY_PROJECT)).intersection(days)
    return [
        day
        for day in days
        if day not in measured or lake.metadata(DAILY_COST_BY_PROJECT, day).get(IS_FINAL) != str(True)
    ]


def _measure(
    pipeline: Pipeline, lake: Lake, client: SessionsClient, workspaces: Iterable[Workspace], day: date
) -> None:
    """Measure a day in every workspace, and write it; rows of workspaces that were not read are kept."""
    read_at = pipeline.clock()
    is_over = is_day_over(day, read_at)
    rows, tenants = [DAILY_COST_BY_PROJECT.schema.empty_table()], set[str]()
    for workspace in workspaces:
        tenants |= {workspace.asked} if workspace.asked else set()
        with workspace.named():
            for usage in read_usage(client, pipeline.query, workspace=workspace.asked, day=day):
                end, start, end_again = map(_validated, (usage.end, usage.start, usage.end_again))
                tenants |= set(start.column("tenant_id").to_pylist())
                rows.append(projects.daily_cost_by_project(end, start, end_again, day_is_over=is_over, read_at=read_at))

    def make(stored: Stored | None) -> Made:
        kept = [] if stored is None else [_of_others(stored.rows, tenants)]
        return pa.concat_tables([*rows, *kept]), {IS_FINAL: str(is_over)}

    commit(lake, DAILY_COST_BY_PROJECT, day, make)


def _validated(records: Sequence[Record]) -> pa.Table:
    return validate([record.payload for record in records]).sessions.select(list(projects.NEEDED))


def _of_others(rows: pa.Table, tenants: set[str]) -> pa.Table:
    return rows.filter(pc.invert(pc.is_in(rows.column("tenant_id"), pa.array(sorted(tenants), pa.string()))))
