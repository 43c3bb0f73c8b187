"""The asset `reference_datasets`: what datasets are called. Names are worth some requests, never a failed run.

Each workspace's list is read whole by the first run of a UTC day, and whenever the asset is made by itself; in between
only datasets that the run's own days name and nobody knows yet are asked for, by id.
"""

import json
from collections.abc import Callable
from datetime import date, datetime
from typing import Any, TypeAlias

import dagster as dg

from sessions_pipeline.days import days_between, utc_day
from sessions_pipeline.errors import ApiError
from sessions_pipeline.lake.day_file import Stored
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import UNDATED
from sessions_pipeline.langsmith.lists import read_datasets
from sessions_pipeline.orchestration.assets import Made, commit, spec
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.orchestration.schedules import tagged_range
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET as DAILY
from sessions_pipeline.tables import REFERENCE_DATASETS
from sessions_pipeline.tables.reference_datasets import Row, dataset_rows, merge_datasets

# In the file's metadata: the last day on which each workspace's list was read whole.
LISTED_ON = "listed_on"
KEYS_OWN = "the key's own"
# An API that is slow or limits the rate must not keep the run from its end.
MOST_SECONDS = 300.0
Key: TypeAlias = tuple[str, str]
"""A workspace and a dataset."""


@dg.multi_asset(specs=[spec(REFERENCE_DATASETS, deps=[DAILY.name]).merge_attributes(kinds={"langsmith"})])
def read_names(context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult[None]:
    """`reference_datasets`, one file."""
    facts = refresh_names(pipeline, tagged_range(context.run.tags), context.log.warning)
    return dg.MaterializeResult(metadata=facts)


def refresh_names(pipeline: Pipeline, span: tuple[date, date] | None, warn: Callable[[str], object]) -> dict[str, Any]:
    """Read what is not known of datasets, and store it; what Dagster is told of it. `span`: the run's days.

    What the API refuses is told to `warn`, and what is known stays.

    Raises:
        LakeError: a file could not be read or written; the former one is intact.
    """
    lake, read_at = pipeline.open_lake(), pipeline.clock()
    stored = lake.load(REFERENCE_DATASETS, None)
    unknown = _named(lake, span) - (_keys(stored.rows, "id") if stored else set())
    today = utc_day(read_at).isoformat()
    listed = {name for name, day in _listed_on(stored).items() if day == today} if span else set()
    rows, whole, warnings = _read(pipeline, unknown, listed, read_at)
    for warning in warnings:
        warn(warning)

    def make(stored: Stored | None) -> Made:
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
    with pipeline.workspaces() as (client, workspaces):
        client.throttle.end_within(MOST_SECONDS)
        for workspace in workspaces:
            asked, name = workspace.asked, workspace.asked or KEYS_OWN
            ids = sorted({dataset for tenant, dataset in unknown if asked in (None, tenant)})
            if name in listed and not ids:
                continue
            try:
                with workspace.named():
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
    versions = lake.versions(DAILY, [*(days_between(*span) if span else ()), UNDATED])
    days = [day for day, version in versions.items() if version]
    rows = lake.read_days(DAILY, days, ("tenant_id", "reference_dataset_id"))
    return _keys(rows, "reference_dataset_id")


def _keys(rows: Any, dataset: str) -> set[Key]:
    return set(zip(rows.column("tenant_id").to_pylist(), rows.column(dataset).to_pylist(), strict=True))
