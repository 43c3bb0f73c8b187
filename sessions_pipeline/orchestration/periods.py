"""The assets that sum days: costs by week and by month, one file each.

Only periods of which a day was written since are summed again: each file remembers which versions of their days its
periods were made from.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from hashlib import sha256
from typing import Any, NamedTuple

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.days import month_start, week_start
from sessions_pipeline.lake.lake import Lake, Stored
from sessions_pipeline.orchestration.commits import Made, commit
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.orchestration.recording import spec
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET as DAILY
from sessions_pipeline.tables import MONTHLY_COST_BY_REFERENCE_DATASET, WEEKLY_COST_BY_REFERENCE_DATASET, Table
from sessions_pipeline.tables.period_costs import monthly_costs, weekly_costs

MADE_FROM = "made_from"


class Period(NamedTuple):
    """The first day of a day's period, and how days are summed."""

    start_of: Callable[[date], date]
    sums: Callable[..., pa.Table]


PERIODS = {
    WEEKLY_COST_BY_REFERENCE_DATASET: Period(week_start, weekly_costs),
    MONTHLY_COST_BY_REFERENCE_DATASET: Period(month_start, monthly_costs),
}


def period_assets() -> dg.AssetsDefinition:
    """`weekly_cost_by_reference_dataset` and `monthly_cost_by_reference_dataset`."""

    @dg.multi_asset(specs=[spec(table, deps=[DAILY.name]) for table in PERIODS], can_subset=True)
    def period_tables(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[None]]:
        lake = pipeline.open_lake()
        for table in PERIODS:
            if dg.AssetKey(table.name) in context.selected_asset_keys:
                yield dg.MaterializeResult(asset_key=table.name, metadata=sum_periods(lake, table))

    return period_tables


def sum_periods(lake: Lake, table: Table) -> Mapping[str, Any]:
    """Sum the periods that have changed; nothing is written where none has. What Dagster is told of it.

    Raises:
        LakeError: the file could not be read or written; the former one is intact.
        SumOverflowError: a sum does not fit its column; the text names it.
    """
    facts: dict[str, Any] = {"dagster/uri": lake.uri(table, None)}

    def make(stored: Stored | None) -> Made:
        period = PERIODS[table]
        versions = lake.versions(DAILY, lake.days(DAILY))
        made_from = _fingerprints(versions, period)
        before = json.loads(stored.metadata.get(MADE_FROM, "{}")) if stored else {}
        changed = {start for start in made_from.keys() | before.keys() if made_from.get(start) != before.get(start)}
        made = [_sums(lake, [day for day in versions if period.start_of(day).isoformat() in changed], period)]
        if stored:
            starts = stored.rows.column(table.order[0]).cast(pa.string())
            made.append(stored.rows.filter(pc.invert(pc.is_in(starts, pa.array(sorted(changed), pa.string())))))
        rows = pa.concat_tables(made)
        facts.update({"dagster/row_count": rows.num_rows, "periods_summed": len(changed)})
        return (rows, {MADE_FROM: json.dumps(made_from)}) if changed or not stored else None

    commit(lake, table, None, make)
    return facts


def _sums(lake: Lake, days: Sequence[date], period: Period) -> pa.Table:
    """The periods' sums from their days, and which of these were last read before they were over."""
    unfinished = [day for day in days if lake.metadata(DAILY, day).get("is_day_over") != "true"]
    return period.sums(lake.read_days(DAILY, days), days, unfinished)


def _fingerprints(versions: Mapping[date, str | None], period: Period) -> dict[str, str]:
    """What names the versions of a period's days, by its first day."""
    days = defaultdict(list)
    for day, version in sorted(versions.items()):
        days[period.start_of(day).isoformat()].append(f"{day} {version}")
    return {start: sha256("\n".join(of_period).encode()).hexdigest()[:16] for start, of_period in days.items()}
