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

from collections.abc import Callable
from datetime import datetime

import pyarrow as pa

from sessions_pipeline.tables.sql import conform, query
from sessions_pipeline.tables.table import (
    COSTS,
    DATASET,
    SESSION,
    TENANT,
    Table,
    count,
    flag,
    registered,
    text,
    time,
)
from sessions_pipeline.validation.types import TIMESTAMP

DAILY_COST_BY_PROJECT = registered(
    Table(
        "daily_cost_by_project",
        "What each session, tracing projects included, used on a UTC day, however long ago it started.",
        (
            SESSION,
            TENANT,
            text("name", "The project's or experiment's name"),
            DATASET,
            count("run_count", "Runs of the day"),
            count("total_tokens", "Tokens used on the day"),
            *COSTS,
            flag("is_exact", "False when the readings moved while they were taken, or the day is not over"),
            time("read_at", "When the readings were taken", nullable=False),
        ),
        order=("tenant_id", "id"),
        partition="usage_date",
        group="usage",
    )
)

MEASURES = ("run_count", "total_tokens", "prompt_cost", "completion_cost", "total_cost")
NEEDED = ("id", "tenant_id", "name", "reference_dataset_id", *MEASURES)
"""The columns that a reading has; their types are those of `sessions`."""

_READING = pa.schema([DAILY_COST_BY_PROJECT.schema.field(name) for name in NEEDED])


def daily_cost_by_project(
    end: pa.Table, start: pa.Table, end_again: pa.Table, *, day_is_over: bool, read_at: datetime
) -> pa.Table:
    """The table `daily_cost_by_project` of one day, from three readings of the sessions that were active since.

    Each reading has at least the columns `NEEDED` and each session once; `read_at` is when they were taken.
    """
    readings = {"end_first": end, "start": start, "end_again": end_again}
    tables = {name: table.select(list(NEEDED)).cast(_READING) for name, table in readings.items()}
    used = query(_statement(day_is_over=day_is_over), **tables)
    moment = pa.repeat(pa.scalar(read_at, TIMESTAMP), used.num_rows)
    return conform(used.append_column("read_at", moment), DAILY_COST_BY_PROJECT.schema)


def _statement(*, day_is_over: bool) -> str:
    def each(spelled: Callable[[str], str], separator: str = ",\n") -> str:
        return separator.join(spelled(name) for name in MEASURES)

    def known(reading: str) -> str:
        quiet = f"run_count = 0 OR coalesce({', '.join(MEASURES)}) IS NULL"
        columns = each(lambda name: f"CASE WHEN {quiet} THEN coalesce({name}, 0) ELSE {name} END AS {name}")
        return f"SELECT id, tenant_id, name, reference_dataset_id, {columns} FROM {reading}"  # noqa: S608

    steady = each(lambda name: f"f.{name} IS NOT DISTINCT FROM a.{name}", " AND ")
    return f"""
        WITH s AS ({known("start")}), f AS ({known("end_first")}), a AS ({known("end_again")}),
        e AS (SELECT coalesce(f.id, a.id) AS id, coalesce(f.tenant_id, a.tenant_id) AS tenant_id,
                CASE WHEN f.id IS NULL THEN a.name ELSE f.name END AS name,
                coalesce(f.reference_dataset_id, a.reference_dataset_id) AS reference_dataset_id,
                {each(lambda name: f"CASE WHEN f.id IS NULL THEN a.{name} ELSE f.{name} END AS {name}")},
                {steady} AS is_steady
            FROM f FULL JOIN a ON f.tenant_id = a.tenant_id AND f.id = a.id),
        d AS (SELECT coalesce(s.id, e.id) AS id, coalesce(s.tenant_id, e.tenant_id) AS tenant_id,
                CASE WHEN s.id IS NULL THEN e.name ELSE s.name END AS name,
                coalesce(s.reference_dataset_id, e.reference_dataset_id) AS reference_dataset_id,
                {each(lambda name: f"s.{name} - e.{name} AS {name}")},
                {day_is_over} AND s.id IS NOT NULL AND coalesce(is_steady, false) AS is_steady
            FROM s FULL JOIN e ON s.tenant_id = e.tenant_id AND s.id = e.id)
        SELECT id, tenant_id, name, reference_dataset_id,
            {each(lambda name: f"CASE WHEN {name} >= 0 THEN {name} END AS {name}")},
            is_steady AND coalesce(least({", ".join(MEASURES)}) >= 0, true) AS is_exact
        FROM d
        WHERE NOT coalesce(run_count = 0 AND greatest({", ".join(MEASURES)}) <= 0
            AND least({", ".join(MEASURES)}) >= 0, false)
        ORDER BY tenant_id, id
    """  # noqa: S608
