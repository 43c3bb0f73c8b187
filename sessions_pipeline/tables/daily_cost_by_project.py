"""What each session used on one UTC day, cut out of totals that only grow.

Three readings of the same sessions, taken in this order: what was used since the day's end, since its start, and since
its end again. The day is the second minus the first. Rules:

- A reading with no runs (`run_count` 0, or every measure null, as an API may put it) used nothing: null is zero there.
- In any other reading null is unknown, and so is the difference.
- A negative difference can't be: totals shrank in between, because of a deletion or of runs that were moved. It is
  null, and the row is not exact.
- A session that one reading of the end lacks is taken from the other; one that is in neither, or not in the reading of
  the start, is kept with nulls, and not exact.
- Sessions that used nothing on the day are left out: no runs, and no measure that is known to have grown.
- Exact means: the day was over, the session was in all three readings, and both readings of the end were equal.
"""

from collections.abc import Mapping
from datetime import datetime
from operator import itemgetter
from typing import Any

import pyarrow as pa

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
        column.flag("is_exact", "False when the readings moved while they were taken, or the day is not over"),
        column.time("read_at", "When the readings were taken", nullable=False),
    ),
    order=("tenant_id", "id"),
    partition="usage_date",
    group="usage",
)
_LABELS = ("id", "tenant_id", "name", "reference_dataset_id")
NEEDED = (*_LABELS, *column.MEASURES)
"""The columns that a reading has; their types are those of `sessions`."""

_Row = Mapping[str, Any]
_measures = itemgetter(*column.MEASURES)


def daily_cost_by_project(
    end: pa.Table, start: pa.Table, end_again: pa.Table, *, day_is_over: bool, read_at: datetime
) -> pa.Table:
    """The table `daily_cost_by_project` of one day, from three readings of the sessions that were active since.

    Each reading has at least the columns `NEEDED` and each session once; `read_at` is when they were taken.
    """
    first, since, again = (_by_session(reading) for reading in (end, start, end_again))
    rows = [
        {**row, "is_exact": row["is_exact"] and day_is_over, "read_at": read_at}
        for key in sorted(first.keys() | since.keys() | again.keys())
        if (row := _used(since.get(key), first.get(key), again.get(key)))
    ]
    return pa.Table.from_pylist(rows, DAILY_COST_BY_PROJECT.schema)


def _by_session(reading: pa.Table) -> dict[tuple[str, str], _Row]:
    return {(row["tenant_id"], row["id"]): _known(row) for row in reading.select(NEEDED).to_pylist()}


def _known(row: _Row) -> _Row:
    """The reading of one session; null is zero where nothing was used."""
    if row["run_count"] == 0 or all(row[name] is None for name in column.MEASURES):
        return {**row, **{name: row[name] or 0 for name in column.MEASURES}}
    return row


def _used(start: _Row | None, end: _Row | None, end_again: _Row | None) -> dict[str, Any] | None:
    """What a session used between start and end; None where that is nothing."""
    until = end or end_again
    used = {name: _difference(start, until, name) for name in column.MEASURES}
    known = [value for value in used.values() if value is not None]
    if used["run_count"] == 0 and all(value == 0 for value in known):
        return None
    readings = [row for row in (start, end, end_again) if row is not None]
    is_steady = bool(start and end and end_again and _measures(end) == _measures(end_again))
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
