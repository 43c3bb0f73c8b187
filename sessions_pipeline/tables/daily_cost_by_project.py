"""What each session used on one UTC day, as the difference of two totals.

The API only returns what a session has used since a given time (`stats_start_time`). So it is asked three times, for
usage since the day's end, since its start, and since its end again, in this order. The day's usage is the second
answer minus the first. Rules:

- In a reading without runs (`run_count` is 0, or all measures are null, as an API may say it), null means zero.
- In any other reading null means unknown, and so the difference is unknown.
- A negative difference is impossible. The totals must have shrunk between the readings, because runs were deleted or
  moved. The value is null, and the row is not exact.
- If one reading of the end lacks a session, the other one is used. A session that both lack, or that the reading of
  the start lacks, is kept with nulls and is not exact.
- Sessions that used nothing on the day are left out: they had no runs, and no measure is known to have grown.
- A row is exact if the day was over, the session was in all three readings, and both readings of the end agree.
"""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from sessions_pipeline.days import is_day_over
from sessions_pipeline.tables import column
from sessions_pipeline.tables.aggregate import EXACT
from sessions_pipeline.tables.table import Table

DAILY_COST_BY_PROJECT = Table(
    "daily_cost_by_project",
    "What each session, tracing projects included, used on a UTC day, however long ago it started.",
    (
        column.SESSION,
        column.TENANT,
        column.text("name", "The project's or experiment's name"),
        column.DATASET,
        column.count("run_count", "Traces of the day"),
        column.count("total_tokens", "Tokens used on the day"),
        *column.COSTS,
        column.flag("is_exact", "False if the numbers changed while they were read, or the day was not over"),
        column.time("read_at", "When the usage was read", nullable=False),
    ),
    order=("tenant_id", "id"),
    partition_column="usage_date",
    group="usage",
)
_LABELS = ("id", "tenant_id", "name", "reference_dataset_id")
NEEDED = (*_LABELS, *column.MEASURES)
"""The columns that a reading must have, with the types of `sessions`."""

_Row = Mapping[str, Any]


def daily_cost_by_project(
    end: pa.Table, start: pa.Table, end_again: pa.Table, *, day: date, read_at: datetime
) -> pa.Table:
    """The table `daily_cost_by_project` of one day, from three readings of the sessions that were active.

    `end`, `start` and `end_again`: usage since the day's end, its start and its end again, with at least the columns
    `NEEDED`, one row per session. `read_at`: when they were read.
    """
    ends, starts, ends_again = (_by_session(reading) for reading in (end, start, end_again))
    rows = [
        {**row, "is_exact": row["is_exact"] and is_day_over(day, read_at), "read_at": read_at}
        for key in sorted(ends.keys() | starts.keys() | ends_again.keys())
        if (row := _used(starts.get(key), ends.get(key), ends_again.get(key)))
    ]
    return pa.Table.from_pylist(rows, DAILY_COST_BY_PROJECT.schema)


def _by_session(reading: pa.Table) -> dict[tuple[str, str], _Row]:
    return {(row["tenant_id"], row["id"]): _zeroed(row) for row in reading.select(NEEDED).to_pylist()}


def _zeroed(row: _Row) -> _Row:
    is_empty = all(row[name] is None for name in column.MEASURES)
    return zero_without_runs({**row, "run_count": 0} if is_empty else row)


def zero_without_runs(row: _Row) -> _Row:
    """A row of measures, with zero for null if it counts no runs: databases give null for a sum of nothing."""
    return {**row, **{name: row[name] or 0 for name in column.MEASURES}} if row["run_count"] == 0 else row


def _used(start: _Row | None, end: _Row | None, end_again: _Row | None) -> dict[str, Any] | None:
    """What a session used from the day's start to its end; None if that is nothing."""
    used = {name: _difference(start, end or end_again, name) for name in column.MEASURES}
    known = [value for value in used.values() if value is not None]
    if used["run_count"] == 0 and all(value == 0 for value in known):
        return None
    readings = [row for row in (start, end, end_again) if row is not None]
    is_steady = bool(start and end and end_again and all(end[name] == end_again[name] for name in column.MEASURES))
    return {
        **{name: readings[0][name] for name in _LABELS},
        "reference_dataset_id": next(filter(None, (row["reference_dataset_id"] for row in readings)), None),
        **{name: value if value is not None and value >= 0 else None for name, value in used.items()},
        "is_exact": is_steady and all(value >= 0 for value in known),
    }


def _difference(start: _Row | None, end: _Row | None, name: str) -> Any:
    if start is None or end is None or start[name] is None or end[name] is None:
        return None
    return EXACT.subtract(start[name], end[name]) if name.endswith("_cost") else start[name] - end[name]
