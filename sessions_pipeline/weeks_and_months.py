"""Sums the daily costs by week and by month.

A week or month is summed again only if a day in it was written since. For this, each file's metadata holds a hash of
the versions of each period's daily files.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from functools import cache
from typing import Any

import pyarrow as pa

from sessions_pipeline.errors import SessionsPipelineError
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.commits import NewContent, update_table
from sessions_pipeline.lake.parquet import Stored, joined
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET
from sessions_pipeline.tables.day_metadata import open_days
from sessions_pipeline.tables.period_costs import MADE_FROM, PERIODS, Period, sum_periods
from sessions_pipeline.tables.readings import unread_of_workspaces


def sum_after_days(pipeline: Pipeline, warn: Callable[[str], object]) -> None:
    """Sum the weeks and months of days that were written. If that fails, `warn` is called; the days are complete."""
    try:
        sum_weeks_and_months(pipeline)
    except SessionsPipelineError as error:
        warn(f"Weeks and months were not summed: {error}")


def sum_weeks_and_months(pipeline: Pipeline, periods: Iterable[Period] = PERIODS) -> dict[str, Mapping[str, Any]]:
    """Sum the weeks or months that have changed (see `refresh_periods`); facts about them, by table name."""
    lake = pipeline.open_lake()
    load = cache(lambda day, _version: lake.load(DAILY_COST_BY_REFERENCE_DATASET, day))
    return {period.table.name: refresh_periods(lake, period, load) for period in periods}


def refresh_periods(lake: Lake, period: Period, load: Callable[[date, str | None], Stored | None]) -> Mapping[str, Any]:
    """Sum the periods that have changed, and return facts about the table. If none has changed, nothing is written.

    `load` reads a day of the daily costs, in this version or a later one.

    Raises:
        LakeError: the file could not be read or written; the previous one is intact.
        SumOverflowError: a sum does not fit its column; the message names it.
    """
    facts: dict[str, Any] = {"uri": lake.uri(period.table, None)}

    def make(before: pa.Table, file: Mapping[str, str]) -> NewContent:
        # Listed after the file was read, so that sums of newer days, which another run has stored, are not undone; and
        # before the days are read, so that a day which another run writes meanwhile is summed again next time.
        versions = lake.versions_of_days(DAILY_COST_BY_REFERENCE_DATASET)
        made_from, changed = period.changed(versions, file)
        loaded = lake.each(lambda day: load(day, versions[day]), filter(versions.get, period.days(changed)))
        days = {day: one for day, one in loaded if one}
        daily = joined(DAILY_COST_BY_REFERENCE_DATASET, ((day, one.rows) for day, one in days.items()), None)
        readings = lake.readings_of_days(days)
        # Each period by itself, so that the result does not depend on which others have changed.
        notes = [{day: readings[day] for day in period.days([start]) if day in readings} for start in changed]
        unread = {day for some in notes for of_one in unread_of_workspaces(some).values() for day in of_one}
        part = open_days(daily, {day: one.metadata for day, one in days.items()}).union(unread)
        rows = sum_periods(period, before, daily, {day: day not in part for day in days}, changed)
        facts["rows"] = rows.num_rows
        return (rows, {MADE_FROM: json.dumps(made_from)}) if changed or not file else None

    update_table(lake, period.table, None, make)
    return facts
