"""The asset `daily_cost_by_project`, its job and its nightly schedule: what every session used on a UTC day."""

from collections.abc import Sequence
from datetime import date, timedelta

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.days import days_between, midnight, utc_day
from sessions_pipeline.errors import UsageError
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.usage import UsageReadings, is_within_reach, read_usage
from sessions_pipeline.orchestration import metadata
from sessions_pipeline.orchestration.partitions import days_of
from sessions_pipeline.orchestration.pipeline import Pipeline, Workspace, now
from sessions_pipeline.orchestration.schedules import runs_of
from sessions_pipeline.tables import DAILY_COST_BY_PROJECT
from sessions_pipeline.tables import daily_cost_by_project as usage
from sessions_pipeline.tables import day_metadata as telling
from sessions_pipeline.validation.records import Record
from sessions_pipeline.validation.validate import validate

MEASURE = "measure_project_costs"
# The API's stats reach 31 days back; the night's run begins hours after midnight.
CATCH_UP_DAYS = 30
FINAL = "day_was_over"


def usage_asset(daily: dg.PartitionsDefinition) -> dg.AssetsDefinition:
    """`daily_cost_by_project`."""

    @dg.multi_asset(
        name="measure_usage",
        description="Cuts a day out of every active session's totals by three readings of its stats.",
        specs=[
            metadata.spec(DAILY_COST_BY_PROJECT, deps=[], group="usage", partitions=daily).merge_attributes(
                kinds={"langsmith"}
            )
        ],
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool="lake",
    )
    def measure_usage(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> dg.MaterializeResult[None]:
        lake, days = pipeline.open_lake(), days_of(context)
        with pipeline.workspaces() as (client, workspaces):
            for day in _reachable(context, days):
                _measure(context, pipeline, lake, client, workspaces, day)
        return dg.MaterializeResult(asset_key=DAILY_COST_BY_PROJECT.name)

    return measure_usage


def _reachable(context: dg.AssetExecutionContext, days: Sequence[date]) -> list[date]:
    """The days that the API still tells; the others are said, and an error where there are no others.

    Raises:
        UsageError: no day of the run can be read any more.
    """
    time = now()
    reachable = [day for day in days if is_within_reach(day, time)]
    if not reachable:
        raise UsageError(
            f"daily_cost_by_project: the API's stats reach 31 days back, so {days[0]} to {days[-1]} can't be measured "
            "any more; choose later days"
        )
    skipped = len(days) - len(reachable)
    if skipped:
        context.log.warning("%d days before %s skipped: the API's stats reach 31 days back", skipped, reachable[0])
        context.add_asset_metadata(
            {"skipped_days_beyond_reach": skipped},
            asset_key=DAILY_COST_BY_PROJECT.name,
            partition_key=reachable[0].isoformat(),
        )
    return reachable


def _measure(
    context: dg.AssetExecutionContext,
    pipeline: Pipeline,
    lake: Lake,
    client: SessionsClient,
    workspaces: Sequence[Workspace],
    day: date,
) -> None:
    read_at, is_over, before = now(), now() >= midnight(day + timedelta(days=1)), client.requests
    rows, tenants, refused = [DAILY_COST_BY_PROJECT.schema.empty_table()], set[str](), 0
    for workspace in workspaces:
        tenants |= {workspace.asked} if workspace.asked else set()
        with workspace.named():
            for readings in read_usage(client, pipeline.query, workspace=workspace.asked, day=day):
                end, start, end_again, broken = _tables(readings)
                refused += broken
                tenants |= set(start.column("tenant_id").to_pylist())
                rows.append(usage.daily_cost_by_project(end, start, end_again, day_is_over=is_over, read_at=read_at))
    used = pa.concat_tables([*rows, _of_others(lake, day, tenants)])
    written = lake.replace(DAILY_COST_BY_PROJECT, day, used, {FINAL: str(is_over)})
    told = {
        **metadata.of_file(written),
        **telling.money(telling.total(used.column("total_cost"))),
        "not_exact": used.column("is_exact").to_pylist().count(False),
        "rejected": refused,
        "requests": client.requests - before,
    }
    metadata.record_now(context, DAILY_COST_BY_PROJECT.name, day, told)
    pipeline.on_day(day)


def _tables(readings: UsageReadings) -> tuple[pa.Table, pa.Table, pa.Table, int]:
    judged = [_judged(records) for records in (readings.end, readings.start, readings.end_again)]
    (end, refused, *_), (start, *_), (end_again, *_) = judged
    return end, start, end_again, refused


def _judged(records: Sequence[Record]) -> tuple[pa.Table, int]:
    judged = validate([record.payload for record in records])
    return judged.sessions.select(list(usage.NEEDED)), len(judged.rejected)


def _of_others(lake: Lake, day: date, tenants: set[str]) -> pa.Table:
    """Rows of workspaces that this run did not read."""
    if not lake.has(DAILY_COST_BY_PROJECT, day):
        return DAILY_COST_BY_PROJECT.schema.empty_table()
    stored = lake.read(DAILY_COST_BY_PROJECT, day)
    return stored.filter(pc.invert(pc.is_in(stored.column("tenant_id"), pa.array(sorted(tenants), pa.string()))))


def nightly_project_costs(pipeline: Pipeline) -> dg.ScheduleDefinition:
    """Every night yesterday, and days missed while it was down."""

    @dg.schedule(
        job_name=MEASURE,
        cron_schedule="0 3 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Measures what every project used yesterday, and catches up on days missed while it was down.",
    )
    def nightly_project_costs(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest]:
        yesterday = utc_day(context.scheduled_execution_time) - timedelta(days=1)
        lake = pipeline.open_lake(read_only=True)
        days = unmeasured_days(lake, yesterday, first=pipeline.settings.start_date)
        return runs_of(days, context.scheduled_execution_time)

    return nightly_project_costs


def unmeasured_days(lake: Lake, yesterday: date, *, first: date) -> list[date]:
    """Yesterday, and the days since the earliest measured one in reach that are missing or were not over."""
    earliest = max(first, yesterday - timedelta(days=CATCH_UP_DAYS - 1))
    measured = {
        day: lake.metadata(DAILY_COST_BY_PROJECT, day).get(FINAL) == str(True)
        for day in lake.days(DAILY_COST_BY_PROJECT)
        if earliest <= day <= yesterday
    }
    since = min(measured, default=yesterday)
    return [day for day in days_between(since, yesterday) if not measured.get(day, False)]
