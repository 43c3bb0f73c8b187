"""The daily costs summed by week and by month, with how many days of each period were read. Pure.

A period's `day_count` is the same for all its datasets: a dataset without a row on a day that was read had no
experiments on it, which is knowledge, while of a day that was not read nothing is known. Days before the first
partition and days to come are unread, so the first and the current period are incomplete as long as they lack any.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.days import days_between, period_of
from sessions_pipeline.tables import column
from sessions_pipeline.tables.aggregate import conform, sums
from sessions_pipeline.tables.daily_cost_by_reference_dataset import (
    DAILY_COST_BY_REFERENCE_DATASET,
    DAILY_MEASURES,
    PERIOD_COLUMNS,
)
from sessions_pipeline.tables.table import Table


def _table(name: str, what: str, first: column.Column) -> Table:
    columns = (first, *PERIOD_COLUMNS)
    order = (first.name, *DAILY_COST_BY_REFERENCE_DATASET.order)
    return Table(name, f"The daily costs summed by {what}", columns, order, partition=None, group="costs")


WEEKLY_COST_BY_REFERENCE_DATASET = _table(
    "weekly_cost_by_reference_dataset",
    "ISO week; a week with an unread day says so.",
    column.Column("week_start", pa.date32(), "The Monday that the ISO week starts on", nullable=False),
)
MONTHLY_COST_BY_REFERENCE_DATASET = _table(
    "monthly_cost_by_reference_dataset",
    "calendar month; a month with an unread day says so.",
    column.Column("month_start", pa.date32(), "The first day of the month", nullable=False),
)


class Period(NamedTuple):
    """A kind of period, `week` or `month`, and its table."""

    table: Table
    unit: str

    def start_of(self, day: date) -> date:
        """The first day of the period that a day is in."""
        return period_of(self.unit, day)[0]

    def days(self, touched: Iterable[date]) -> list[date]:
        """All days of the periods that have one of these days."""
        return [
            day for period in sorted({period_of(self.unit, day) for day in touched}) for day in days_between(*period)
        ]


PERIODS = Period(WEEKLY_COST_BY_REFERENCE_DATASET, "week"), Period(MONTHLY_COST_BY_REFERENCE_DATASET, "month")


def sum_periods(
    period: Period, stored: pa.Table | None, daily: pa.Table, read: Mapping[date, bool], touched: Iterable[date]
) -> pa.Table:
    """The period's table with the periods of the touched days made again, and all others as they are.

    Args:
        period: weeks or months.
        stored: the table as it is; None: there is none yet, so every day that was ever read must be touched.
        daily: the daily costs of all days of the touched periods, with their `start_date`.
        read: those of these days that were read, and whether each was over then in every workspace.
        touched: the days that changed.

    Raises:
        SumOverflowError: a sum does not fit its column; the text names it.
    """
    key = period.table.order[0]
    made = {period.start_of(day) for day in touched}
    starts = [period.start_of(day) for day in daily.column("start_date").to_pylist()]
    rows = daily.append_column(key, pa.array(starts, pa.date32()))
    rows = rows.append_column("open_days", pc.invert(rows.column("is_day_over")).cast(pa.int64()))
    summed = sums(rows, period.table.order, (*(column.name for column in DAILY_MEASURES), "open_days"))
    # Of each row's period, whether its days were over; None: a day was not read.
    days = [[read.get(day) for day in period.days([start])] for start in summed.column(key).to_pylist()]
    counts = pa.array([len(of) - of.count(None) for of in days], pa.int64())
    is_over = pc.and_(pc.equal(summed.column("open_days"), 0), pa.array([all(of) for of in days], pa.bool_()))
    fresh = conform(
        summed.append_column("day_count", counts).append_column("is_complete", is_over), period.table.schema
    )
    if stored is None:
        return fresh
    others = stored.filter(pc.invert(pc.is_in(stored.column(key), pa.array(sorted(made), pa.date32()))))
    order = [(name, "ascending") for name in period.table.order]
    return pa.concat_tables([others.select(fresh.schema.names).cast(fresh.schema), fresh]).sort_by(order)
