"""The daily costs summed by ISO week and by month, with how many days of each period were read.

A period's `day_count` is the same for all its datasets: a dataset without a row on a day that was read had no
experiments on it, which is knowledge, while of a day that was not read nothing is known. Days before the first
partition and days to come are unread, so the first and the current period are incomplete as long as they lack any.
"""

from array import array
from collections.abc import Collection
from datetime import date

import pyarrow as pa

from sessions_pipeline.insights.costs import DAY, MEASURES
from sessions_pipeline.insights.sql import conform, query, sums
from sessions_pipeline.schema.columns import (
    DAILY_COST_BY_REFERENCE_DATASET,
    MONTHLY_COST_BY_REFERENCE_DATASET,
    WEEKLY_COST_BY_REFERENCE_DATASET,
    Table,
)

_EPOCH = date(1970, 1, 1).toordinal()
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
    return _by_period(daily, days_read, unfinished, WEEKLY_COST_BY_REFERENCE_DATASET, "week")


def monthly_costs(daily: pa.Table, days_read: Collection[date], unfinished: Collection[date] = ()) -> pa.Table:
    """`monthly_cost_by_reference_dataset`, as `weekly_costs`.

    Raises:
        SumOverflowError: a sum does not fit its column; the text names it.
    """
    return _by_period(daily, days_read, unfinished, MONTHLY_COST_BY_REFERENCE_DATASET, "month")


def _by_period(
    daily: pa.Table, days_read: Collection[date], unfinished: Collection[date], table: Table, unit: str
) -> pa.Table:
    start = f"{unit}_start"
    daily = daily.select(_DAILY.names).cast(_DAILY)
    keys = (start, "tenant_id", "reference_dataset_id")
    dated = query(f"SELECT date_trunc('{unit}', start_date)::DATE AS {start}, * FROM daily", daily=daily)  # noqa: S608
    summed = sums(dated, keys, _SUMMED)
    counted = query(
        f"""
        WITH read AS (SELECT day FROM days_read UNION SELECT start_date FROM daily),
             coverage AS (
                SELECT date_trunc('{unit}', day)::DATE AS period, count(*) AS day_count,
                    count(*) = date_diff('day', period, (period + INTERVAL 1 {unit})::DATE)
                        AND NOT bool_or(day IN (SELECT day FROM unfinished)) AS is_complete
                FROM read GROUP BY period)
        SELECT summed.*, day_count, is_complete
        FROM summed JOIN coverage ON period = {start}
        ORDER BY {", ".join(keys)}
        """,  # noqa: S608
        summed=summed,
        daily=daily,
        days_read=_dates(days_read),
        unfinished=_dates(unfinished),
    )
    return conform(counted, table.schema)


def _dates(days: Collection[date]) -> pa.Table:
    # From a buffer, because `pa.array` on Python values imports pandas.
    since_epoch = array("i", [day.toordinal() - _EPOCH for day in days])
    column = pa.Array.from_buffers(pa.date32(), len(days), [None, pa.py_buffer(since_epoch)])
    return pa.Table.from_arrays([column], ["day"])
