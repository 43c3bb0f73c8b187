"""The assets that sum all days: costs by week and by month, one file each."""

from collections.abc import Iterator
from datetime import date
from typing import Any

import dagster as dg
import pyarrow as pa

from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.orchestration import metadata
from sessions_pipeline.orchestration.derived import COSTS
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.tables import (
    DAILY_COST_BY_REFERENCE_DATASET,
    MONTHLY_COST_BY_REFERENCE_DATASET,
    WEEKLY_COST_BY_REFERENCE_DATASET,
)
from sessions_pipeline.tables import day_metadata as telling
from sessions_pipeline.tables import period_costs as periods
from sessions_pipeline.tables.readings import last_read

SUMS = {
    WEEKLY_COST_BY_REFERENCE_DATASET: periods.weekly_costs,
    MONTHLY_COST_BY_REFERENCE_DATASET: periods.monthly_costs,
}


def period_assets() -> dg.AssetsDefinition:
    """`weekly_cost_by_reference_dataset` and `monthly_cost_by_reference_dataset`, from one reading of the days."""

    @dg.multi_asset(
        name="sum_periods",
        specs=[
            metadata.spec(table, deps=[DAILY_COST_BY_REFERENCE_DATASET.name], group=COSTS, partitions=None)
            for table in SUMS
        ],
        can_subset=True,
        pool="lake",
    )
    def sum_periods(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[None]]:
        lake = pipeline.open_lake()
        with lake.lock(None):
            days = lake.days(DAILY_COST_BY_REFERENCE_DATASET)
            daily, unfinished = lake.read_days(DAILY_COST_BY_REFERENCE_DATASET, days), _unfinished(lake, days)
            for table in (table for table in SUMS if dg.AssetKey(table.name) in context.selected_asset_keys):
                sums = SUMS[table](daily, days, unfinished)
                told = metadata.of_file(lake.replace(table, None, sums, {}))
                yield dg.MaterializeResult(asset_key=table.name, metadata={**told, **_told(sums)})

    return sum_periods


def _unfinished(lake: Lake, days: list[date]) -> list[date]:
    """Days that were last read before they were over."""
    return [day for day in days if last_read(lake.metadata(DAILY_COST_BY_REFERENCE_DATASET, day)).date() <= day]


def _told(sums: pa.Table) -> dict[str, Any]:
    incomplete = sums.column("is_complete").to_pylist().count(False)
    return {"incomplete_rows": incomplete, **telling.money(telling.total(sums.column("total_cost")))}
