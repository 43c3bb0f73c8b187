"""The assets that sum days: costs by week and by month, one file each.

Only periods of which a day was written since are summed again: each file remembers which versions of their days its
periods were made from.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import date
from hashlib import sha256
from typing import Any

import dagster as dg

from sessions_pipeline.lake.day_file import Stored
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import Day
from sessions_pipeline.orchestration.commits import Made, commit
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.orchestration.recording import spec
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET as DAILY
from sessions_pipeline.tables.period_costs import PERIODS, Period, sum_periods

MADE_FROM = "made_from"


def period_assets() -> dg.AssetsDefinition:
    """`weekly_cost_by_reference_dataset` and `monthly_cost_by_reference_dataset`."""

    @dg.multi_asset(specs=[spec(period.table, deps=[DAILY.name]) for period in PERIODS], can_subset=True)
    def period_tables(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[None]]:
        lake = pipeline.open_lake()
        for period in PERIODS:
            if dg.AssetKey(period.table.name) in context.selected_asset_keys:
                yield dg.MaterializeResult(asset_key=period.table.name, metadata=refresh_periods(lake, period))

    return period_tables


def refresh_periods(lake: Lake, period: Period) -> Mapping[str, Any]:
    """Sum the periods that have changed; nothing is written where none has. What Dagster is told of it.

    Raises:
        LakeError: the file could not be read or written; the former one is intact.
        SumOverflowError: a sum does not fit its column; the text names it.
    """
    facts: dict[str, Any] = {"dagster/uri": lake.uri(period.table, None)}

    def make(stored: Stored | None) -> Made:
        versions = lake.versions(DAILY, lake.days(DAILY))
        made_from = _fingerprints(versions, period)
        before = json.loads(stored.metadata.get(MADE_FROM, "{}")) if stored else {}
        changed = [
            date.fromisoformat(start)
            for start in made_from.keys() | before.keys()
            if made_from.get(start) != before.get(start)
        ]
        days = [day for day in period.days(changed) if day in versions]
        read = {day: lake.metadata(DAILY, day).get("is_day_over") == "true" for day in days}
        daily = lake.read_days(DAILY, days)
        rows = sum_periods(period, stored.rows if stored else None, daily, read, changed)
        facts.update({"dagster/row_count": rows.num_rows, "periods_summed": len(changed)})
        return (rows, {MADE_FROM: json.dumps(made_from)}) if changed or not stored else None

    commit(lake, period.table, None, make)
    return facts


def _fingerprints(versions: Mapping[Day, str | None], period: Period) -> dict[str, str]:
    """What names the versions of a period's days, by its first day."""
    of_period = defaultdict(list)
    for day, version in versions.items():
        if isinstance(day, date):
            of_period[period.start_of(day).isoformat()].append(f"{day} {version}")
    return {start: sha256("\n".join(days).encode()).hexdigest()[:16] for start, days in of_period.items()}
