"""Reads the names of datasets from the API, and stores them in `reference_datasets`.

Names are worth some requests, but a failure to read them never fails the run. The first run of a UTC day reads each
workspace's whole list of datasets, and so does every run without days. Other runs request only the datasets on their
own days that are not known yet, by id.
"""

import json
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from sessions_pipeline.days import days_between, utc_day
from sessions_pipeline.errors import ApiError
from sessions_pipeline.lake.commits import NewContent, update_table
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.langsmith.client import OWN_WORKSPACE
from sessions_pipeline.langsmith.lists import read_datasets
from sessions_pipeline.outputs.read import Key
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET, REFERENCE_DATASETS
from sessions_pipeline.tables.aggregate import tuples
from sessions_pipeline.tables.reference_datasets import Row, dataset_rows, merge_datasets

# Key in the metadata of `reference_datasets`: the last day on which each workspace's whole list was read.
LISTED_ON = "listed_on"
# A slow or rate-limited API must not hold up the rest of the run for longer than this.
MOST_SECONDS = 300.0


def refresh_names(pipeline: Pipeline, span: tuple[date, date] | None, warn: Callable[[str], object]) -> dict[str, Any]:
    """Read the names that are missing or due, store them, and return facts about it.

    `span` is the run's first and last day; None: a run without days, which reads every list. If the API refuses, `warn`
    is called and the stored names stay.

    Raises:
        LakeError: a file could not be read or written; the previous one is intact.
    """
    lake, read_at = pipeline.open_lake(), pipeline.clock()
    stored = lake.load(REFERENCE_DATASETS, None)
    known = {*tuples(stored.rows, "tenant_id", "id")} if stored else set[Key]()
    # Of the experiments on the run's days, and of those without a day.
    days: list[Day] = [*(days_between(*span) if span else ()), UNDATED]
    keys = DAILY_COST_BY_REFERENCE_DATASET.order
    unknown = {*tuples(lake.load_days(DAILY_COST_BY_REFERENCE_DATASET, days, keys)[0], *keys)} - known
    today = utc_day(read_at).isoformat()
    listed = {name for name, day in _listed_on(stored.metadata).items() if day == today} if span and stored else set()
    rows, newly_listed, read_at, warnings = _read(pipeline, unknown, listed, read_at)
    for warning in warnings:
        warn(warning)

    def make(before: pa.Table, file: Mapping[str, str]) -> NewContent:
        if not rows and not newly_listed:
            return None
        listed_on = {**_listed_on(file), **dict.fromkeys(newly_listed, today)}
        tenants = set[str]().union(*newly_listed.values())
        return merge_datasets(before, rows, tenants, read_at), {LISTED_ON: json.dumps(listed_on)}

    update_table(lake, REFERENCE_DATASETS, None, make)
    warned = {"api_warnings": "; ".join(warnings)} if warnings else {}
    return {"uri": lake.uri(REFERENCE_DATASETS, None), "datasets_read": len(rows), **warned}


def _read(
    pipeline: Pipeline, unknown: set[Key], listed: set[str], read_at: datetime
) -> tuple[list[Row], dict[str, set[str]], datetime, list[str]]:
    """Read the whole lists of workspaces that are not in `listed`, and of the others the unknown datasets.

    Returns the rows that were read; for each workspace whose whole list was read, the tenant ids in it; `read_at`, by
    the API's clock if this machine's is off; and warnings.
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
            # A time that a clock was ahead by would hide what is read before it has come.
            read = dataset_rows([record.payload for record in records], client.now(read_at))
            rows += read
            if name not in listed:
                newly_listed[name] = {workspace} if workspace else {row["tenant_id"] for row in read}
        return rows, newly_listed, client.now(read_at), client.warnings


def _listed_on(file: Mapping[str, str]) -> dict[str, str]:
    return dict(json.loads(file.get(LISTED_ON, "{}")))
