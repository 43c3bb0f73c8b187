"""The daily costs summed by ISO week and by month, with how many days of each period were read.

A period's `day_count` is the same for all its datasets: a dataset without a row on a day that was read had no
experiments on it, which is knowledge, while of a day that was not read nothing is known. Days before the first
partition and days to come are unread, so the first and the current period are incomplete as long as they lack any.
"""

from calendar import monthrange
from collections import Counter
from collections.abc import Callable, Collection
from datetime import date

import pyarrow as pa

from sessions_pipeline.days import month_start, week_start
from sessions_pipeline.tables import (
    DAILY_COST_BY_REFERENCE_DATASET,
    MONTHLY_COST_BY_REFERENCE_DATASET,
    WEEKLY_COST_BY_REFERENCE_DATASET,
    Table,
)
from sessions_pipeline.tables.aggregate import sums
from sessions_pipeline.tables.daily_cost_by_reference_dataset import DAY, MEASURES
from sessions_pipeline.tables.sql import conform
from sessions_pipeline.validation.arrays import date_array, flag_array, int64_array

_WEEK = 7
_SUMMED = (
    "session_count",
    "priced_session_count",
    "unpriced_session_count",
    "zero_cost_with_tokens_count",
    *MEASURES,
)
_DAILY = pa.schema([DAY, *DAILY_COST_BY_REFERENCE_DATASET.schema])


def weekly_costs(daily: pa.Table, days_read: Collection[date], unfinished: Collection[date] = ()) -> pa.Table:
    """`weekly_cost_by_reference_dataset` from daily rows with their `start_date`.

    `days_read` are the UTC days that were read, also those without a row; days with rows count as read.
    `unfinished` are those of them that were last read before they were over: their period is not complete.

    Raises:
        SumOverflowError: a sum does not fit its column; the text names it.
    """
    return _by_period(daily, days_read, unfinished, WEEKLY_COST_BY_REFERENCE_DATASET, week_start, lambda _start: _WEEK)


def monthly_costs(daily: pa.Table, days_read: Collection[date], unfinished: Collection[date] = ()) -> pa.Table:
    """`monthly_cost_by_reference_dataset`, as `weekly_costs`.

    Raises:
        SumOverflowError: a sum does not fit its column; the text names it.
    """
    return _by_period(daily, days_read, unfinished, MONTHLY_COST_BY_REFERENCE_DATASET, month_start, _days_in_month)


def _by_period(
    daily: pa.Table,
    days_read: Collection[date],
    unfinished: Collection[date],
    table: Table,
    start_of: Callable[[date], date],
    length_of: Callable[[date], int],
) -> pa.Table:
    """Sums by period: `start_of` gives the first day of a day's period, `length_of` the days that it has."""
    key = table.order[0]
    daily = daily.select(_DAILY.names).cast(_DAILY)
    days = daily.column("start_date").to_pylist()
    starts = date_array([start_of(day) for day in days])
    summed = sums(daily.append_column(key, starts), table.order, _SUMMED)
    read = {*days_read, *days}
    counts = Counter(map(start_of, read))
    unsure = {start_of(day) for day in read.intersection(unfinished)}
    periods = summed.column(key).to_pylist()
    complete = [counts[start] == length_of(start) and start not in unsure for start in periods]
    summed = summed.append_column("day_count", int64_array([counts[start] for start in periods], pa.int64()))
    return conform(summed.append_column("is_complete", flag_array(bytes(complete))), table.schema)


def _days_in_month(start: date) -> int:
    return monthrange(start.year, start.month)[1]
