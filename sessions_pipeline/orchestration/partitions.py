"""Daily UTC partitions, from the first day in the settings to today included."""

from datetime import date, timedelta

import dagster as dg


def daily_partitions(start: date) -> dg.DailyPartitionsDefinition:
    """The days that assets are partitioned by; `end_offset` includes the running day."""
    return dg.DailyPartitionsDefinition(start_date=start.isoformat(), timezone="UTC", end_offset=1)


def days_of(context: dg.AssetExecutionContext) -> list[date]:
    """The UTC days of a run, oldest first."""
    return [date.fromisoformat(key) for key in context.partition_keys]


def days_between(first: date, last: date) -> list[date]:
    """All days from `first` to `last`, both included."""
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def range_tags(first: date, last: date) -> dict[str, str]:
    """Run tags that make one run of several days."""
    return {
        "dagster/asset_partition_range_start": first.isoformat(),
        "dagster/asset_partition_range_end": last.isoformat(),
    }
