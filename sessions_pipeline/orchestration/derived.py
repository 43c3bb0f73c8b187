"""The assets that are computed from `sessions` day by day: feedback, experiments and daily costs."""

from collections.abc import Iterator
from datetime import date
from functools import partial

import dagster as dg

from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.orchestration import metadata
from sessions_pipeline.orchestration.partitions import days_of
from sessions_pipeline.orchestration.pictures import show_costs
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.process_day import sum_costs, summarize
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET, EXPERIMENT_SUMMARY, SESSION_FEEDBACK, SESSIONS

COSTS = "costs"
INSIGHT = "insight"


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
        with pipeline.workers(lake, len(days)) as workers:
            for day, (written, told) in zip(days, workers.each(sum_costs, days), strict=True):
                facts = metadata.of_file(written) | told
                metadata.record(context, DAILY_COST_BY_REFERENCE_DATASET.name, day, facts)
            show_costs(context, lake, days)
        return dg.MaterializeResult(asset_key=DAILY_COST_BY_REFERENCE_DATASET.name)

    return sum_daily_costs


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
        with pipeline.workers(lake, len(days)) as workers:
            for day, written in zip(todo, workers.each(partial(summarize, tables=names), todo), strict=True):
                # Rows without a day have no partition to tell of.
                if isinstance(day, date):
                    for name, file in written.items():
                        metadata.record(context, name, day, metadata.of_file(file))
        for name in names:
            yield dg.MaterializeResult(asset_key=name)

    return summarize_experiments
