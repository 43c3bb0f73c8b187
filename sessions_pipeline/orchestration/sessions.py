"""The assets that read: what the API said, and what of it is valid or rejected.

One step makes the three tables of a day together, so that they agree; the day is replaced only when all of it was read
and judged. Selected without `raw_sessions`, it judges the stored readings again, without the network.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from functools import partial

import dagster as dg

from sessions_pipeline.lake.lake import Lake, Written
from sessions_pipeline.lake.layout import UNDATED
from sessions_pipeline.orchestration import metadata
from sessions_pipeline.orchestration.overlap import one_behind
from sessions_pipeline.orchestration.partitions import days_of
from sessions_pipeline.orchestration.pictures import show_rejected
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.orchestration.refresh import DayState, blow_fuse, read_days, stored_days, write_day
from sessions_pipeline.schema.columns import RAW_SESSIONS, REJECTED_SESSIONS, SESSIONS, Table

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
        unwritten: list[DayState] = []
        with (
            lake.exclusive(pipeline.on_wait or context.log.warning),
            _states(pipeline, lake, tables, days) as (states, warnings),
        ):
            for state, written in one_behind(partial(_write, lake, state, tables) for state in states):
                if state.fuse:
                    unwritten.append(state)
                    context.log.error(state.fuse)
                else:
                    _record(context, pipeline, state, written)
            if REJECTED_SESSIONS in tables:
                show_rejected(context, lake, days)
        for warning in warnings:
            context.log.warning(warning)
        blow_fuse(unwritten, pipeline.settings.max_rejected_ratio)
        for table in tables:
            told = {"api_warnings": "; ".join(warnings)} if warnings and table is RAW_SESSIONS else {}
            yield dg.MaterializeResult(asset_key=table.name, metadata=told)

    return read_sessions


@contextmanager
def _states(
    pipeline: Pipeline, lake: Lake, tables: list[Table], days: list[date]
) -> Iterator[tuple[Iterator[DayState], list[str]]]:
    """The days, and what the API warned of by the time they are all read."""
    if RAW_SESSIONS not in tables:
        yield stored_days(pipeline, lake, days[0], days[-1]), []
        return
    with pipeline.workspaces() as (client, workspaces):
        yield read_days(pipeline, lake, client, workspaces, days[0], days[-1]), client.warnings


def _write(lake: Lake, state: DayState, tables: list[Table]) -> tuple[DayState, Mapping[str, Written]]:
    return state, ({} if state.fuse else write_day(lake, state, tables))


def _record(
    context: dg.AssetExecutionContext, pipeline: Pipeline, state: DayState, written: Mapping[str, Written]
) -> None:
    """Record a written day's tables; undated sessions have no partition, so they are only logged."""
    if not isinstance(state.day, date):
        context.log.info("%d sessions have no day; they are under %s", state.verdict.sessions.num_rows, UNDATED.value)
        return
    for table in (table for table in TABLES if table.name in written):
        metadata.record(context, table, state.day, metadata.of_day(table, state, written[table.name]))
    pipeline.on_day(state.day)
