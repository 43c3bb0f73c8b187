"""The assets that are one file each: what datasets are called, and costs by week and by month.

Names are worth some requests, never a failed run. Each workspace's list is read whole by the first run of a UTC day,
and whenever the asset is made by itself; in between only datasets that the run's own days name and nobody knows yet are
asked for, by id.

Only periods of which a day was written since are summed again: each file remembers which versions of their days its
periods were made from.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from functools import cache, partial
from hashlib import sha256
from typing import Any

import dagster as dg
import pyarrow as pa

from sessions_pipeline.days import days_between, utc_day
from sessions_pipeline.errors import ApiError
from sessions_pipeline.lake.commits import NewContent, commit
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.lake.parquet import Stored
from sessions_pipeline.langsmith.lists import read_datasets
from sessions_pipeline.orchestration import tagged_range
from sessions_pipeline.orchestration.assets import spec
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.outputs.read import Key, rows_of, stored_days, unread_of_workspaces
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET as DAILY
from sessions_pipeline.tables import REFERENCE_DATASETS
from sessions_pipeline.tables.day_metadata import was_over
from sessions_pipeline.tables.period_costs import PERIODS, Period, sum_periods
from sessions_pipeline.tables.reference_datasets import Row, dataset_rows, merge_datasets

# In the file's metadata: the last day on which each workspace's list was read whole.
LISTED_ON = "listed_on"
KEYS_OWN = "the key's own"
# An API that is slow or limits the rate must not keep the run from its end.
MOST_SECONDS = 300.0
MADE_FROM = "made_from"


@dg.multi_asset(specs=[spec(REFERENCE_DATASETS, deps=[DAILY.name]).merge_attributes(kinds={"langsmith"})])
def read_names(context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult[None]:
    """`reference_datasets`, one file."""
    facts = refresh_names(pipeline, tagged_range(context.run.tags), pipeline.warner(context.log))
    return dg.MaterializeResult(metadata=facts)


def refresh_names(pipeline: Pipeline, span: tuple[date, date] | None, warn: Callable[[str], object]) -> dict[str, Any]:
    """Read what is not known of datasets, and store it; what Dagster is told of it. `span`: the run's days.

    What the API refuses is told to `warn`, and what is known stays.

    Raises:
        LakeError: a file could not be read or written; the former one is intact.
    """
    lake, read_at = pipeline.open_lake(), pipeline.clock()
    stored = lake.load(REFERENCE_DATASETS, None)
    known = stored.rows.select(["tenant_id", "id"]).to_pylist() if stored else []
    unknown = _named(lake, span) - {(row["tenant_id"], row["id"]) for row in known}
    today = utc_day(read_at).isoformat()
    listed = {name for name, day in _listed_on(stored).items() if day == today} if span else set()
    rows, whole, warnings = _read(pipeline, unknown, listed, read_at)
    for warning in warnings:
        warn(warning)

    def make(stored: Stored | None) -> NewContent:
        if not rows and not whole:
            return None
        listed_on = {**_listed_on(stored), **dict.fromkeys(whole, today)}
        tenants = set[str]().union(*whole.values())
        return merge_datasets(stored and stored.rows, rows, tenants, read_at), {LISTED_ON: json.dumps(listed_on)}

    commit(lake, REFERENCE_DATASETS, None, make)
    told = {"api_warnings": "; ".join(warnings)} if warnings else {}
    return {"dagster/uri": lake.uri(REFERENCE_DATASETS, None), "datasets_read": len(rows), **told}


def _read(
    pipeline: Pipeline, unknown: set[Key], listed: set[str], read_at: datetime
) -> tuple[list[Row], dict[str, set[str]], list[str]]:
    """Rows of the lists that are not among `listed`, and of unknown datasets; whose lists they are; warnings."""
    rows, whole = list[Row](), dict[str, set[str]]()
    with pipeline.sources() as (client, sources):
        client.throttle.end_within(MOST_SECONDS)
        for source in sources:
            asked, name = source.workspace, source.workspace or KEYS_OWN
            ids = sorted({dataset for tenant, dataset in unknown if asked in (None, tenant)})
            if name in listed and not ids:
                continue
            try:
                with source.named():
                    found = read_datasets(client, workspace=asked, ids=ids if name in listed else None)
            except ApiError as error:
                client.warn(f"Datasets are called what they were known as before: {error}")
                continue
            read = dataset_rows([record.payload for record in found], read_at)
            rows += read
            if name not in listed:
                whole[name] = {asked} if asked else {row["tenant_id"] for row in read}
        return rows, whole, client.warnings


def _listed_on(stored: Stored | None) -> dict[str, str]:
    found: dict[str, str] = json.loads(stored.metadata.get(LISTED_ON, "{}")) if stored else {}
    return found


def _named(lake: Lake, span: tuple[date, date] | None) -> set[Key]:
    """The datasets that the sessions of these days, and of no day, ran against."""
    days: list[Day] = [*(days_between(*span) if span else ()), UNDATED]
    rows = rows_of(stored_days(lake, DAILY, days, ("tenant_id", "reference_dataset_id")))
    return {(row["tenant_id"], row["reference_dataset_id"]) for row in rows}


@dg.multi_asset(specs=[spec(period.table, deps=[DAILY.name]) for period in PERIODS], can_subset=True)
def period_tables(
    context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> Iterator[dg.MaterializeResult[None]]:
    """`weekly_cost_by_reference_dataset` and `monthly_cost_by_reference_dataset`."""
    lake = pipeline.open_lake()
    # Noted before the days are read: a day that is written meanwhile is summed again next time.
    versions, load = lake.versions(DAILY, lake.days(DAILY)), cache(partial(lake.load, DAILY))
    for period in PERIODS:
        if dg.AssetKey(period.table.name) in context.selected_asset_keys:
            facts = refresh_periods(lake, period, versions, load)
            yield dg.MaterializeResult(asset_key=period.table.name, metadata=facts)


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

    def make(stored: Stored | None) -> NewContent:
        before = json.loads(stored.metadata.get(MADE_FROM, "{}")) if stored else {}
        starts = [start for start in {**before, **made_from} if made_from.get(start) != before.get(start)]
        changed = [date.fromisoformat(start) for start in starts]
        days = {day: found for day in period.days(changed) if day in versions and (found := load(day))}
        daily = pa.concat_tables([lake.read_days(DAILY, []), *(_dated(found.rows, day) for day, found in days.items())])
        unread = set[date]().union(*unread_of_workspaces({day: lake.last_readings(day) for day in days}).values())
        read = {day: was_over(of.rows, of.metadata) and day not in unread for day, of in days.items()}
        rows = sum_periods(period, stored.rows if stored else None, daily, read, changed)
        facts.update({"dagster/row_count": rows.num_rows, "periods_summed": len(changed)})
        return (rows, {MADE_FROM: json.dumps(made_from)}) if changed or not stored else None

    commit(lake, period.table, None, make, rebuildable=True)
    return facts


def _dated(rows: pa.Table, day: date) -> pa.Table:
    return rows.append_column("start_date", pa.repeat(pa.scalar(day, pa.date32()), rows.num_rows))


def _fingerprints(versions: Mapping[Day, str | None], period: Period) -> dict[str, str]:
    """What names the versions of a period's days, by its first day."""
    of_period = defaultdict(list)
    for day, version in versions.items():
        if day:
            of_period[period.start_of(day).isoformat()].append(f"{day} {version}")
    return {start: sha256("\n".join(days).encode()).hexdigest()[:16] for start, days in of_period.items()}
