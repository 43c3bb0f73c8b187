"""Daily UTC partitions, from the first day in the settings to today included, and the tags that name a range."""

from collections.abc import Mapping
from datetime import date

import dagster as dg

RANGE_START, RANGE_END, PARTITION = (
    "dagster/asset_partition_range_start",
    "dagster/asset_partition_range_end",
    "dagster/partition",
)


def daily_partitions(start: date) -> dg.DailyPartitionsDefinition:
    """The days that assets are partitioned by; `end_offset` includes the running day."""
    return dg.DailyPartitionsDefinition(start_date=start.isoformat(), timezone="UTC", end_offset=1)


def days_of(context: dg.AssetExecutionContext) -> list[date]:
    """The UTC days of a run, oldest first."""
    return [date.fromisoformat(key) for key in context.partition_keys]


def range_tags(first: date, last: date) -> dict[str, str]:
    """Run tags that make one run of several days."""
    return {RANGE_START: first.isoformat(), RANGE_END: last.isoformat()}


def tagged_range(tags: Mapping[str, str]) -> tuple[date, date] | None:
    """The first and last day that a run's tags name, as a range or as one partition; None where they name none."""
    first, last = tags.get(RANGE_START) or tags.get(PARTITION), tags.get(RANGE_END) or tags.get(PARTITION)
    return (date.fromisoformat(first), date.fromisoformat(last)) if first and last else None
