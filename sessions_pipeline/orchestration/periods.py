"""The assets that sum days: costs by week and by month, one file each.

Only periods of which a day was written since are summed again: each file remembers which versions of their days its
periods were made from.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from functools import cache, partial
from hashlib import sha256
from typing import Any

import dagster as dg
import pyarrow as pa

from sessions_pipeline.lake.day_file import Stored
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import Day
from sessions_pipeline.orchestration.assets import Made, commit, spec
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET as DAILY
from sessions_pipeline.tables.period_costs import PERIODS, Period, sum_periods

MADE_FROM = "made_from"
_DAY = pa.field("start_date", pa.date32())
_NO_COSTS = pa.schema([*DAILY.schema, _DAY]).empty_table()


def period_assets() -> dg.AssetsDefinition:
    """`weekly_cost_by_reference_dataset` and `monthly_cost_by_reference_dataset`."""

    @dg.multi_asset(specs=[spec(period.table, deps=[DAILY.name]) for period in PERIODS], can_subset=True)
    def period_tables(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[None]]:
        lake = pipeline.open_lake()
        # Noted before the days are read: a day that is written meanwhile is summed again next time.
        versions, load = lake.versions(DAILY, lake.days(DAILY)), cache(partial(lake.load, DAILY))
        for period in PERIODS:
            if dg.AssetKey(period.table.name) in context.selected_asset_keys:
                facts = refresh_periods(lake, period, versions, load)
                yield dg.MaterializeResult(asset_key=period.table.name, metadata=facts)

    return period_tables


def refresh_periods(
    lake: Lake, period: Period, versions: Mapping[Day, str | None], load: Callable[[date], Stored | None]
) -> Mapping[str, Any]:
    """Sum the periods that have changed; nothing is written where none has. What Dagster is told of it.

    `versions` are those of all days of the daily costs, and `load` reads one of them.

    Raises:
        LakeError: the file could not be read or written; the former one is intact.
        SumOverflowError: a sum does not fit its column; the text names it.
    """
    facts: dict[str, Any] = {"dagster/uri": lake.uri(period.table, None)}
    made_from = _fingerprints(versions, period)

    def make(stored: Stored | None) -> Made:
        before = json.loads(stored.metadata.get(MADE_FROM, "{}")) if stored else {}
        starts = [start for start in {**before, **made_from} if made_from.get(start) != before.get(start)]
        changed = [date.fromisoformat(start) for start in starts]
        days = {day: found for day in period.days(changed) if day in versions and (found := load(day))}
        daily = pa.concat_tables([_NO_COSTS, *(_dated(found.rows, day) for day, found in days.items())])
        read = {day: found.metadata.get("is_day_over") == "true" for day, found in days.items()}
        rows = sum_periods(period, stored.rows if stored else None, daily, read, changed)
        facts.update({"dagster/row_count": rows.num_rows, "periods_summed": len(changed)})
        return (rows, {MADE_FROM: json.dumps(made_from)}) if changed or not stored else None

    commit(lake, period.table, None, make)
    return facts


def _dated(rows: pa.Table, day: date) -> pa.Table:
    return rows.append_column(_DAY, pa.repeat(pa.scalar(day, pa.date32()), rows.num_rows))


def _fingerprints(versions: Mapping[Day, str | None], period: Period) -> dict[str, str]:
    """What names the versions of a period's days, by its first day."""
    of_period = defaultdict(list)
    for day, version in versions.items():
        if isinstance(day, date):
            of_period[period.start_of(day).isoformat()].append(f"{day} {version}")
    return {start: sha256("\n".join(days).encode()).hexdigest()[:16] for start, days in of_period.items()}
