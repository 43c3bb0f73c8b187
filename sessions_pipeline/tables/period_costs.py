"""The daily costs summed by week and by month, with the number of days of each period that were read. Pure.

`day_count` is the same for all datasets of a period: if a day was read, a dataset without a row is known to have had no
experiments on it, but nothing is known about a day that was not read. Days before the first partition and future days
count as not read, so the first and the current period are incomplete while they have such days.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from hashlib import sha256
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.days import days_between, period_of
from sessions_pipeline.tables import column
from sessions_pipeline.tables.aggregate import conform, sums, tuples
from sessions_pipeline.tables.daily_cost_by_reference_dataset import DAILY_COST_BY_REFERENCE_DATASET, DAILY_MEASURES
from sessions_pipeline.tables.table import Table

# Key in the metadata of the weekly and monthly files: the hash of the daily files of each period, by its first day.
MADE_FROM = "made_from"


def _table(name: str, period: str, start: str, start_description: str) -> Table:
    description = f"The daily costs summed by {period}; `is_complete` is false while days are unread or not over."
    columns = (
        column.Column(pa.date32(), start, start_description, nullable=False),
        column.TENANT,
        column.EXPERIMENTS_DATASET,
        *DAILY_MEASURES,
        column.count("day_count", "Days of the period that were read", nullable=False),
        column.flag("is_complete", "True if all days are over and were read in every workspace that any was read in"),
    )
    order = (start, *DAILY_COST_BY_REFERENCE_DATASET.order)
    return Table(name, description, columns, order, partition_column=None, group="costs")


WEEKLY_COST_BY_REFERENCE_DATASET = _table(
    "weekly_cost_by_reference_dataset", "ISO week", "week_start", "The Monday that the ISO week starts on"
)
MONTHLY_COST_BY_REFERENCE_DATASET = _table(
    "monthly_cost_by_reference_dataset", "calendar month", "month_start", "The first day of the month"
)


class Period(NamedTuple):
    """A kind of period (`unit`: `week` or `month`) and its table."""

    table: Table
    unit: str

    def start_of(self, day: date) -> date:
        """The first day of the period that contains the day."""
        return period_of(self.unit, day)[0]

    def days(self, changed: Iterable[date]) -> list[date]:
        """All days of the periods that contain any of these days, sorted."""
        periods = sorted({period_of(self.unit, day) for day in changed})
        return [day for period in periods for day in days_between(*period)]

    def changed(self, days: Mapping[date, str | None], file: Mapping[str, str]) -> tuple[dict[str, str], list[date]]:
        """The periods of days whose versions are not those that a file was made from, by their first day.

        `days` has the versions of all days, `file` the file's metadata. Also returns a hash of each period's versions.
        """
        days_of_period = defaultdict(list)
        for day, version in days.items():
            days_of_period[self.start_of(day).isoformat()].append(f"{day} {version}")
        hashes = {start: sha256("\n".join(some).encode()).hexdigest()[:16] for start, some in days_of_period.items()}
        before = json.loads(file.get(MADE_FROM, "{}"))
        return hashes, [date.fromisoformat(at) for at in {**before, **hashes} if hashes.get(at) != before.get(at)]

    def outdated(self, stored: pa.Table, daily: pa.Table, days: Sequence[date], changed: Sequence[date]) -> list[str]:
        """The periods of the changed days that are not the sums of their days, such as `week of 2026-01-05`.

        `days` are all days of these periods that were read; for the other arguments, see `sum_periods`.
        """
        summed = sum_periods(self, stored, daily, dict.fromkeys(days, False), changed)
        # Without `is_complete`, which depends on more than the daily costs.
        before, after = ({*tuples(rows, *rows.schema.names[:-1])} for rows in (stored, summed))
        return sorted({f"{self.unit} of {start}" for start, *_ in before ^ after})


PERIODS = Period(WEEKLY_COST_BY_REFERENCE_DATASET, "week"), Period(MONTHLY_COST_BY_REFERENCE_DATASET, "month")


def sum_periods(
    period: Period, stored: pa.Table, daily: pa.Table, read: Mapping[date, bool], changed: Iterable[date]
) -> pa.Table:
    """The table of weeks or months, with the periods of the changed days computed again and all others as stored.

    Args:
        period: weeks or months.
        stored: the table as it is. If it is empty, `changed` must have all days that were ever read.
        daily: the daily costs of all days of the changed periods, with their `start_date`.
        read: those of these days that were read, and whether the day was over then in every workspace.
        changed: the days whose daily costs have changed.

    Raises:
        SumOverflowError: a sum does not fit its column; the text names it.
    """
    key = period.table.order[0]
    changed_starts = {period.start_of(day) for day in changed}
    starts = [period.start_of(day) for day in daily.column("start_date").to_pylist()]
    rows = daily.append_column(key, pa.array(starts, pa.date32()))
    rows = rows.append_column("open_days", pc.invert(rows.column("is_day_over")).cast(pa.int64()))
    summed = sums(rows, period.table.order, (*(column.name for column in DAILY_MEASURES), "open_days"))
    # For each row, whether each day of its period was over; None for a day that was not read.
    days = [[read.get(day) for day in period.days([start])] for start in summed.column(key).to_pylist()]
    counts = pa.array([len(were_over) - were_over.count(None) for were_over in days], pa.int64())
    is_over = pc.and_(pc.equal(summed.column("open_days"), 0), pa.array([*map(all, days)], pa.bool_()))
    new = conform(summed.append_column("day_count", counts).append_column("is_complete", is_over), period.table.schema)
    others = stored.filter(pc.invert(pc.is_in(stored.column(key), pa.array(sorted(changed_starts), pa.date32()))))
    order = [(name, "ascending") for name in period.table.order]
    return pa.concat_tables([conform(others, new.schema), new]).sort_by(order)
