"""The assets that are computed from `sessions` day by day: feedback, experiments and daily costs."""

from collections.abc import Iterator, Sequence
from datetime import date
from functools import partial

import dagster as dg
import pyarrow as pa

from sessions_pipeline.insights import costs
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.orchestration import metadata, telling
from sessions_pipeline.orchestration.partitions import days_of, rows_by_day
from sessions_pipeline.orchestration.pictures import show_costs
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.orchestration.work import summarize
from sessions_pipeline.schema.columns import (
    DAILY_COST_BY_REFERENCE_DATASET,
    EXPERIMENT_SUMMARY,
    SESSION_FEEDBACK,
    SESSIONS,
)

COSTS = "costs"
INSIGHT = "insight"
# Days summed in one query: enough to make its fixed cost small, few enough to keep memory flat.
DAYS_AT_ONCE = 8


def daily_cost_asset(daily: dg.PartitionsDefinition) -> dg.AssetsDefinition:
    """`daily_cost_by_reference_dataset`."""

    @dg.multi_asset(
        name="sum_daily_costs",
        specs=[metadata.spec(DAILY_COST_BY_REFERENCE_DATASET, deps=[SESSIONS.name], group=COSTS, partitions=daily)],
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool="lake",
    )
    def sum_daily_costs(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> dg.MaterializeResult[None]:
        lake, days = pipeline.open_lake(), days_of(context)
        with lake.exclusive(pipeline.on_wait or context.log.warning, days=days):
            for start in range(0, len(days), DAYS_AT_ONCE):
                for day, rows in _daily_costs(lake, days[start : start + DAYS_AT_ONCE]):
                    # Under the readings of the sessions that they were made from.
                    written = lake.replace(DAILY_COST_BY_REFERENCE_DATASET, day, rows, lake.metadata(SESSIONS, day))
                    told = metadata.of_file(written) | telling.money(telling.total(rows.column("total_cost")))
                    metadata.record(context, DAILY_COST_BY_REFERENCE_DATASET.name, day, told)
            show_costs(context, lake, days)
        return dg.MaterializeResult(asset_key=DAILY_COST_BY_REFERENCE_DATASET.name)

    return sum_daily_costs


def _daily_costs(lake: Lake, days: Sequence[date]) -> Iterator[tuple[date, pa.Table]]:
    sums = costs.daily_costs(lake.read_days(SESSIONS, days, list(costs.NEEDED)))
    by_day = rows_by_day(sums)
    for day in days:
        yield day, by_day.get(day, sums.slice(0, 0)).drop_columns("start_date")


def insight_assets(daily: dg.PartitionsDefinition) -> dg.AssetsDefinition:
    """`session_feedback` and `experiment_summary`, which needs the feedback."""

    @dg.multi_asset(
        name="summarize_experiments",
        specs=[
            metadata.spec(SESSION_FEEDBACK, deps=[SESSIONS.name], group=INSIGHT, partitions=daily),
            metadata.spec(
                EXPERIMENT_SUMMARY, deps=[SESSIONS.name, SESSION_FEEDBACK.name], group=INSIGHT, partitions=daily
            ),
        ],
        # Without it Dagster refuses a backfill of the two: it splits what depends within one step.
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool="lake",
    )
    def summarize_experiments(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[None]]:
        both = (SESSION_FEEDBACK, EXPERIMENT_SUMMARY)
        names = [table.name for table in both if dg.AssetKey(table.name) in context.selected_asset_keys]
        lake = pipeline.open_lake()
        days = days_of(context)
        todo: list[Day] = [*days, *([UNDATED] if lake.has(SESSIONS, UNDATED) else [])]
        with (
            lake.exclusive(pipeline.on_wait or context.log.warning, days=days),
            pipeline.workers(lake, len(days)) as workers,
        ):
            for day, written in zip(todo, workers.each(partial(summarize, tables=names), todo), strict=True):
                # Rows without a day have no partition to tell of.
                if isinstance(day, date):
                    for name, file in written.items():
                        metadata.record(context, name, day, metadata.of_file(file))
        for name in names:
            yield dg.MaterializeResult(asset_key=name)

    return summarize_experiments
