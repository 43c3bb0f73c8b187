"""The assets that are one file each: the names of datasets, the costs by week and by month, and the report.

Names are worth some requests, but a failure to read them never fails the run. The first run of a UTC day reads each
workspace's whole list of datasets, and so does every run without days. Other runs request only the datasets on their
own days that are not known yet, by id.

Weeks and months are summed again only if a day in them was written since. For this, each file's metadata holds a hash
of the versions of each period's daily files.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime
from functools import cache
from typing import Any

import dagster as dg
import pyarrow as pa

from sessions_pipeline import tables
from sessions_pipeline.days import days_between, utc_day
from sessions_pipeline.errors import ApiError, SessionsPipelineError
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.commits import NewContent, update_table
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.lake.parquet import Stored
from sessions_pipeline.langsmith.lists import read_datasets
from sessions_pipeline.orchestration import tagged_range
from sessions_pipeline.orchestration.assets import OWNERS, spec
from sessions_pipeline.outputs.read import Key
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET as DAILY
from sessions_pipeline.tables.aggregate import tuples
from sessions_pipeline.tables.day_metadata import open_days
from sessions_pipeline.tables.period_costs import MADE_FROM, PERIODS, Period, sum_periods
from sessions_pipeline.tables.readings import unread_of_workspaces
from sessions_pipeline.tables.reference_datasets import Row, dataset_rows, merge_datasets

# Key in the metadata of `reference_datasets`: the last day on which each workspace's whole list was read.
LISTED_ON = "listed_on"
# Stands for the workspace's id in metadata and warnings if the settings name no workspace, and the key determines it.
OWN_WORKSPACE = "the key's own"
# A slow or rate-limited API must not hold up the rest of the run for longer than this.
MOST_SECONDS = 300.0


@dg.multi_asset(specs=[spec(tables.REFERENCE_DATASETS, deps=[DAILY.name])])
def read_names(context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult[None]:
    """Refresh `reference_datasets`."""
    metadata = refresh_names(pipeline, tagged_range(context.run.tags), pipeline.warn_to(context.log))
    return dg.MaterializeResult(metadata=metadata)


def refresh_names(pipeline: Pipeline, span: tuple[date, date] | None, warn: Callable[[str], object]) -> dict[str, Any]:
    """Read the names that are missing or due, store them, and return the metadata for Dagster.

    `span` is the run's first and last day; None: a run without days, which reads every list. If the API refuses, `warn`
    is called and the stored names stay.

    Raises:
        LakeError: a file could not be read or written; the previous one is intact.
    """
    lake, read_at = pipeline.open_lake(), pipeline.clock()
    stored = lake.load(tables.REFERENCE_DATASETS, None)
    known = {*tuples(stored.rows, "tenant_id", "id")} if stored else set[Key]()
    # Of the experiments on the run's days, and of those without a day.
    days: list[Day] = [*(days_between(*span) if span else ()), UNDATED]
    unknown = {*tuples(lake.load_days(DAILY, days, DAILY.order)[0], *DAILY.order)} - known
    today = utc_day(read_at).isoformat()
    listed = {name for name, day in _listed_on(stored.metadata).items() if day == today} if span and stored else set()
    rows, newly_listed, warnings = _read(pipeline, unknown, listed, read_at)
    for warning in warnings:
        warn(warning)

    def make(before: pa.Table, file: Mapping[str, str]) -> NewContent:
        if not rows and not newly_listed:
            return None
        listed_on = {**_listed_on(file), **dict.fromkeys(newly_listed, today)}
        tenants = set[str]().union(*newly_listed.values())
        return merge_datasets(before, rows, tenants, read_at), {LISTED_ON: json.dumps(listed_on)}

    update_table(lake, tables.REFERENCE_DATASETS, None, make)
    warned = {"api_warnings": "; ".join(warnings)} if warnings else {}
    return {"dagster/uri": lake.uri(tables.REFERENCE_DATASETS, None), "datasets_read": len(rows), **warned}


def _read(
    pipeline: Pipeline, unknown: set[Key], listed: set[str], read_at: datetime
) -> tuple[list[Row], dict[str, set[str]], list[str]]:
    """Read the whole lists of workspaces that are not in `listed`, and of the others the unknown datasets.

    Returns the rows that were read; for each workspace whose whole list was read, the tenant ids in it; and warnings.
    """
    rows, newly_listed = list[Row](), dict[str, set[str]]()
    with pipeline.sources() as (client, sources):
        client.throttle.end_within(MOST_SECONDS)
        for source in sources:
            workspace, name = source.workspace, source.workspace or OWN_WORKSPACE
            ids = sorted({dataset for tenant, dataset in unknown if workspace in (None, tenant)})
            if name in listed and not ids:
                continue
            try:
                with source.named():
                    records = read_datasets(client, workspace=workspace, ids=ids if name in listed else None)
            except ApiError as error:
                client.warn(f"Dataset names could not be read, so the names known before are used: {error}")
                continue
            read = dataset_rows([record.payload for record in records], read_at)
            rows += read
            if name not in listed:
                newly_listed[name] = {workspace} if workspace else {row["tenant_id"] for row in read}
        return rows, newly_listed, client.warnings


def _listed_on(file: Mapping[str, str]) -> dict[str, str]:
    return dict(json.loads(file.get(LISTED_ON, "{}")))


@dg.multi_asset(specs=[spec(period.table, deps=[DAILY.name]) for period in PERIODS], can_subset=True)
def period_tables(
    context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> Iterator[dg.MaterializeResult[None]]:
    """`weekly_cost_by_reference_dataset` and `monthly_cost_by_reference_dataset`."""
    selected = [one for one in PERIODS if dg.AssetKey(one.table.name) in context.selected_asset_keys]
    for name, metadata in sum_weeks_and_months(pipeline, selected).items():
        yield dg.MaterializeResult(asset_key=name, metadata=metadata)


def sum_after_days(pipeline: Pipeline, warn: Callable[[str], object]) -> None:
    """Sum the weeks and months of days that were written. If that fails, `warn` is called; the days are complete."""
    try:
        sum_weeks_and_months(pipeline)
    except SessionsPipelineError as error:
        warn(f"Weeks and months were not summed: {error}")


def sum_weeks_and_months(pipeline: Pipeline, periods: Iterable[Period] = PERIODS) -> dict[str, Mapping[str, Any]]:
    """Sum the weeks or months that have changed (see `refresh_periods`); the metadata for Dagster, by table name."""
    lake = pipeline.open_lake()
    load = cache(lambda day, _version: lake.load(DAILY, day))
    return {period.table.name: refresh_periods(lake, period, load) for period in periods}


def refresh_periods(lake: Lake, period: Period, load: Callable[[date, str | None], Stored | None]) -> Mapping[str, Any]:
    """Sum the periods that have changed, and return the metadata for Dagster. If none has changed, nothing is written.

    `load` reads a day of the daily costs, in this version or a later one.

    Raises:
        LakeError: the file could not be read or written; the previous one is intact.
        SumOverflowError: a sum does not fit its column; the message names it.
    """
    metadata: dict[str, Any] = {"dagster/uri": lake.uri(period.table, None)}

    def make(before: pa.Table, file: Mapping[str, str]) -> NewContent:
        # Listed after the file was read, so that sums of newer days, which another run has stored, are not undone; and
        # before the days are read, so that a day which another run writes meanwhile is summed again next time.
        versions = lake.versions_of_days(DAILY)
        made_from, changed = period.changed(versions, file)
        loaded = lake.each(lambda day: load(day, versions[day]), filter(versions.get, period.days(changed)))
        days = {day: one for day, one in loaded if one}
        dated = [one.rows.append_column("start_date", pa.repeat(day, one.rows.num_rows)) for day, one in days.items()]
        daily = pa.concat_tables([lake.read_days(DAILY, []), *dated])
        readings = lake.readings_of_days(days)
        # Each period by itself, so that the result does not depend on which others have changed.
        notes = [{day: readings[day] for day in period.days([start]) if day in readings} for start in changed]
        unread = {day for some in notes for of_one in unread_of_workspaces(some).values() for day in of_one}
        part = open_days(daily, {day: one.metadata for day, one in days.items()}).union(unread)
        read = {day: day not in part for day in days}
        rows = sum_periods(period, before, daily, read, changed)
        metadata["dagster/row_count"] = rows.num_rows
        return (rows, {MADE_FROM: json.dumps(made_from)}) if changed or not file else None

    update_table(lake, period.table, None, make)
    return metadata


@dg.asset(
    deps=[
        tables.WEEKLY_COST_BY_REFERENCE_DATASET.name,
        tables.EXPERIMENT_SUMMARY.name,
        tables.REFERENCE_DATASETS.name,
        tables.DAILY_COST_BY_PROJECT.name,
        tables.JUDGE_COST_BY_EXPERIMENT.name,
    ],
    group_name="report",
    owners=OWNERS,
    kinds={"html"},
    description="One HTML page for people who don't use Dagster, written every night: total, trend, caveats.",
)
def cost_report(pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult[None]:
    """The HTML report of the latest days, from the tables in the lake."""
    # Imported here: the page's libraries take 0.3 s to import, and a run without the report should not wait for them.
    from sessions_pipeline.outputs.report import budgets_or_problem, latest_days, write_report  # noqa: PLC0415

    lake = pipeline.open_lake()
    first, last = latest_days(lake)
    address = write_report(lake, first, last, budgets=budgets_or_problem(lake, pipeline.settings, pipeline.clock()))
    return dg.MaterializeResult(
        metadata={"dagster/uri": address, "report": dg.MetadataValue.path(address), "days": f"{first} to {last}"}
    )
