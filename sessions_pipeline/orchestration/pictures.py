"""Pictures of the days just made, in the metadata of the last of them.

Only where Dagster keeps them: a picture costs 0.3 s.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg

from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.orchestration.report import dataset_names
from sessions_pipeline.outputs import charts
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET, REJECTED_SESSIONS


def show_costs(context: dg.AssetExecutionContext, lake: Lake, days: Sequence[date]) -> None:
    """Cost by dataset, and the share of experiments without a cost, over the run's days."""
    if context.instance.is_ephemeral:
        return
    daily = lake.read_days(DAILY_COST_BY_REFERENCE_DATASET, days)
    if daily.num_rows:
        cost = charts.cost_by_dataset_png(daily, dataset_names(lake, days))
        share = charts.unpriced_share_png(daily)
        pictures = {
            "cost_by_dataset": _picture(cost, "Cost by day and dataset, US dollars"),
            "unpriced_share_by_day": _picture(share, "Share of experiments without a cost, by day"),
        }
        context.add_asset_metadata(
            pictures, asset_key=DAILY_COST_BY_REFERENCE_DATASET.name, partition_key=days[-1].isoformat()
        )


def show_rejected(context: dg.AssetExecutionContext, lake: Lake, days: Sequence[date]) -> None:
    """How many records were rejected for which reason, over the run's days."""
    if context.instance.is_ephemeral:
        return
    written = [day for day in days if lake.has(REJECTED_SESSIONS, day)]
    rejected = lake.read_days(REJECTED_SESSIONS, written, ("reasons",))
    if rejected.num_rows:
        picture = _picture(charts.rejected_by_reason_png(rejected), "Rejected records by reason")
        context.add_asset_metadata(
            {"rejected_by_reason": picture}, asset_key=REJECTED_SESSIONS.name, partition_key=days[-1].isoformat()
        )


def _picture(png: bytes, alt: str) -> Any:
    return dg.MetadataValue.md(charts.as_markdown(png, alt))
