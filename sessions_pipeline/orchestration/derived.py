"""The assets that are computed from `sessions` day by day: feedback, experiments and daily costs."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import dagster as dg
import pyarrow as pa

from sessions_pipeline.insights import costs, experiments, feedback
from sessions_pipeline.lake.lake import Lake, Written
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.orchestration import metadata
from sessions_pipeline.orchestration.overlap import one_behind
from sessions_pipeline.orchestration.partitions import days_of, rows_by_day
from sessions_pipeline.orchestration.pictures import show_costs
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.schema.columns import (
    DAILY_COST_BY_REFERENCE_DATASET,
    EXPERIMENT_SUMMARY,
    SESSION_FEEDBACK,
    SESSIONS,
    Table,
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
        with lake.exclusive(pipeline.on_wait or context.log.warning):
            for start in range(0, len(days), DAYS_AT_ONCE):
                some = days[start : start + DAYS_AT_ONCE]
                sums = costs.daily_costs(lake.read_days(SESSIONS, some, list(costs.NEEDED)))
                by_day = rows_by_day(sums)
                none = sums.slice(0, 0)
                made = (
                    (DAILY_COST_BY_REFERENCE_DATASET, day, by_day.get(day, none).drop_columns("start_date"))
                    for day in some
                )
                _replace(context, lake, made)
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
        tables = [table for table in both if dg.AssetKey(table.name) in context.selected_asset_keys]
        lake = pipeline.open_lake()
        days: list[Day] = [*days_of(context), *([UNDATED] if lake.has(SESSIONS, UNDATED) else [])]
        with lake.exclusive(pipeline.on_wait or context.log.warning):
            _replace(context, lake, (one for one in _insights(lake, days) if one[0] in tables))
        for table in tables:
            yield dg.MaterializeResult(asset_key=table.name)

    return summarize_experiments


def _insights(lake: Lake, days: Sequence[Day]) -> Iterator[tuple[Table, Day, pa.Table]]:
    needed = list({*feedback.NEEDED, *experiments.NEEDED})
    for day in days:
        sessions = lake.read(SESSIONS, day, needed)
        scores = feedback.session_feedback(sessions)
        yield SESSION_FEEDBACK, day, scores
        yield EXPERIMENT_SUMMARY, day, experiments.experiment_summary(sessions, scores)


def _replace(context: dg.AssetExecutionContext, lake: Lake, made: Iterable[tuple[Table, Day, pa.Table]]) -> None:
    """Replace derived days under the readings of the sessions that they were made from, and tell Dagster."""
    for table, day, rows, written in one_behind(partial(_write, lake, *one) for one in made):
        if day is UNDATED:
            continue
        told = metadata.of_file(written)
        if "total_cost" in table.schema.names:
            told |= metadata.money(metadata.total(rows.column("total_cost")))
        context.add_asset_metadata(told, asset_key=table.name, partition_key=str(day))


def _write(lake: Lake, table: Table, day: Day, rows: pa.Table) -> tuple[Table, Day, pa.Table, Written]:
    return table, day, rows, lake.replace(table, day, rows, lake.metadata(SESSIONS, day))
