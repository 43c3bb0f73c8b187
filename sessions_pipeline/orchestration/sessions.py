"""The assets that read: what the API said, and what of it is valid or rejected.

One step makes the three tables of a day together, so that they agree; the day is replaced only when all of it was read
and judged. Selected without `raw_sessions`, it judges the stored readings again, without the network.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date

import dagster as dg

from sessions_pipeline.errors import TooManyRejectedError
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import UNDATED
from sessions_pipeline.orchestration import metadata
from sessions_pipeline.orchestration.partitions import days_of
from sessions_pipeline.orchestration.pictures import show_rejected
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.orchestration.refresh import read_days, stored_days
from sessions_pipeline.process_day import DayTask, Settled, settle
from sessions_pipeline.tables import RAW_SESSIONS, REJECTED_SESSIONS, SESSIONS, Table

TABLES = (RAW_SESSIONS, SESSIONS, REJECTED_SESSIONS)
GROUP = "sessions"


def session_assets(daily: dg.PartitionsDefinition) -> dg.AssetsDefinition:
    """`raw_sessions`, `sessions` and `rejected_sessions`."""

    @dg.multi_asset(
        name="read_sessions",
        description="Reads sessions from the API by day, judges every record, and replaces the day's three tables.",
        specs=[
            metadata.spec(RAW_SESSIONS, deps=[], group=GROUP, partitions=daily).merge_attributes(kinds={"langsmith"}),
            metadata.spec(SESSIONS, deps=[RAW_SESSIONS.name], group=GROUP, partitions=daily),
            metadata.spec(REJECTED_SESSIONS, deps=[RAW_SESSIONS.name], group=GROUP, partitions=daily),
        ],
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool="lake",
    )
    def read_sessions(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[None]]:
        tables = [table for table in TABLES if dg.AssetKey(table.name) in context.selected_asset_keys]
        days = days_of(context)
        lake = pipeline.open_lake()
        fuses: list[str] = []
        with (
            pipeline.workers(lake, len(days)) as workers,
            _tasks(pipeline, lake, tables, days) as (tasks, warnings),
        ):
            for settled in workers.each(settle, tasks):
                if settled.fuse:
                    fuses.append(settled.fuse)
                    context.log.error(settled.fuse)
                else:
                    _record(context, pipeline, settled)
            if REJECTED_SESSIONS in tables:
                show_rejected(context, lake, days)
        for warning in warnings:
            context.log.warning(warning)
        _blow(fuses, pipeline.settings.max_rejected_ratio)
        for table in tables:
            told = {"api_warnings": "; ".join(warnings)} if warnings and table is RAW_SESSIONS else {}
            yield dg.MaterializeResult(asset_key=table.name, metadata=told)

    return read_sessions


@contextmanager
def _tasks(
    pipeline: Pipeline, lake: Lake, tables: Sequence[Table], days: Sequence[date]
) -> Iterator[tuple[Iterator[DayTask], list[str]]]:
    """The days to settle, and what the API warned of by the time they are all read."""
    names = [table.name for table in tables]
    if RAW_SESSIONS not in tables:
        yield stored_days(pipeline, lake, days[0], days[-1], names), []
        return
    with pipeline.workspaces() as (client, workspaces):
        yield read_days(pipeline, client, workspaces, days[0], days[-1], names), client.warnings


def _record(context: dg.AssetExecutionContext, pipeline: Pipeline, settled: Settled) -> None:
    """Record a written day's tables; undated sessions have no partition, so they are only logged."""
    if not isinstance(settled.day, date):
        context.log.info("%d sessions have no day; they are under %s", settled.sessions, UNDATED.value)
        return
    for table in (table for table in TABLES if table.name in settled.written):
        metadata.record_now(context, table.name, settled.day, metadata.of_day(table, settled))
    pipeline.on_day(settled.day)


def _blow(fuses: Sequence[str], limit: float) -> None:
    """Fail for the days that were not written, each with its reason.

    Raises:
        TooManyRejectedError: there are such days.
    """
    if fuses:
        days = "; ".join(fuses[:3]) + ("; and more" if len(fuses) > 3 else "")  # noqa: PLR2004
        raise TooManyRejectedError(
            f"{days}. More than SESSIONS_PIPELINE_MAX_REJECTED_RATIO={limit:g} allows, so these days keep their former "
            "tables; see whether the API changed, or raise the ratio"
        )
