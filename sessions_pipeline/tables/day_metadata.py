"""Facts about a day's tables: for the files' metadata and for Dagster. Plain values, as workers return them. Pure."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables.aggregate import EXACT, known_sum
from sessions_pipeline.tables.derived_day import DerivedDay, RunOptions
from sessions_pipeline.tables.readings import RawDay, Reading, unread_of_workspaces
from sessions_pipeline.tables.rejected_sessions import REJECTED_SESSIONS
from sessions_pipeline.tables.sessions import SESSIONS
from sessions_pipeline.tables.table import AS_OF, ATTRIBUTES, DERIVED, DRIFT, FACTS, IS_DAY_OVER, SHRUNK, Table

MOST_REASONS = 20


def basis(table: Table, options: RunOptions) -> dict[str, str]:
    """The metadata that says what a file depends on besides the raw sessions: `as_of`, and the attributes summed by."""
    return {
        **({AS_OF: options.as_of.isoformat()} if options.as_of else {}),
        **({ATTRIBUTES: json.dumps(options.attributes)} if _is_by_attributes(table) else {}),
    }


def file_metadata(table: Table, day: DerivedDay, facts: Mapping[str, Any]) -> dict[str, str]:
    """The metadata to store in the file of a derived table; `facts` are those of `facts_of`."""
    metadata = {**basis(table, day.options), IS_DAY_OVER: json.dumps(day.is_over), FACTS: json.dumps(facts)}
    if table is SESSIONS:
        metadata |= {SHRUNK: json.dumps(day.shrunk), DRIFT: json.dumps(day.drift, sort_keys=True)}
    return metadata


def _is_by_attributes(table: Table) -> bool:
    return table in DERIVED and "attributes" in DERIVED[table].takes


def open_days(daily: pa.Table, files: Mapping[date | None, Mapping[str, str]]) -> set[date | None]:
    """The days that were not over when one of their workspaces was last read.

    `daily` are the daily costs of several days, and `files` their files' metadata. Both are needed: if there are no
    rows only the metadata says it, and a file that another program has written has no metadata.
    """
    rows = daily.filter(pc.invert(daily.column("is_day_over")))
    said = {day for day, metadata in files.items() if metadata.get(IS_DAY_OVER) == "false"}
    return said.union(rows.column("start_date").to_pylist())


def rebuilt_days(*files: Mapping[date | None, Mapping[str, str]]) -> set[date]:
    """The days of which a file shows what was known earlier (`--as-of`). A refresh without it makes them new again.

    `files` are the metadata of each table's files, by day.
    """
    return {day for of_table in files for day, metadata in of_table.items() if day and AS_OF in metadata}


def incomplete_days(
    daily: pa.Table, files: Mapping[date | None, Mapping[str, str]], readings: Mapping[date, Sequence[Reading]]
) -> set[date | None]:
    """The days whose costs are not those of a reading of all workspaces after their end.

    They were not over when they were last read (see `open_days`), were not read in every workspace, or show what was
    known earlier (see `rebuilt_days`). `readings` has the latest readings of each day.
    """
    return open_days(daily, files).union(rebuilt_days(files), *unread_of_workspaces(readings).values())


def facts_of(table: Table, day: DerivedDay) -> dict[str, Any]:
    """Facts about a derived table to show in Dagster: row count, table-specific figures and total cost.

    They are also stored in the file (`FACTS`), so that a day which is not rewritten can show them again.

    Raises:
        SumOverflowError: a sum does not fit its column.
    """
    rows, specific = day[table], dict[str, Any]()
    if table is SESSIONS:
        specific = _session_facts(day)
    elif table is REJECTED_SESSIONS:
        reasons = Counter(reason for (row,) in rows.tuples("reasons") for reason in row)
        specific = {"reasons": dict(reasons.most_common(MOST_REASONS))}
    # In daily_cost_by_attribute each cost occurs once per attribute, so its total would be meaningless.
    has_cost = "total_cost" in rows.schema.names and not _is_by_attributes(table)
    cost = money(known_sum(rows.table("total_cost").column(0))) if has_cost else {}
    return {"rows": rows.num_rows, **specific, **cost}


def raw_facts(raw: RawDay) -> dict[str, Any]:
    """What this run's readings of a day received and added, and how many rows and readings of the day are stored."""
    return {
        "rows": raw.rows.num_rows,
        "requests": sum(reading.requests for reading in raw.new_readings),
        "received": sum(reading.received for reading in raw.new_readings),
        "repeated": sum(reading.repeated for reading in raw.new_readings),
        "new_or_changed": sum(reading.added for reading in raw.new_readings),
        "readings_kept": len(raw.readings),
    }


def _session_facts(day: DerivedDay) -> dict[str, Any]:
    """How many sessions are rejected, unpriced or missing, and how many numbers survive only in earlier readings."""
    sessions = day.sessions.table("total_cost", "missing_since", "fetched_at", "stats_as_of", "problems")
    return {
        "rejected": day.rejected.num_rows,
        "unpriced": sessions.column("total_cost").null_count,
        "missing": sessions.num_rows - sessions.column("missing_since").null_count,
        "rests_on_kept_readings": sessions.filter(rests_on_kept_readings(sessions)).num_rows,
        "costs_with_problems": sessions.num_rows - sessions.column("problems").null_count,
        "costs_rounded": day.rounded,
        "drift": dict(day.drift),
    }


def money(amount: Decimal | None) -> dict[str, Any]:
    """A cost as exact text, and as a float that Dagster can plot; if it is unknown, only the text `unknown`."""
    if amount is None:
        return {"total_cost": "unknown"}
    return {"total_cost": f"{amount.normalize(EXACT):f}", "total_cost_usd": float(amount)}


def rests_on_kept_readings(sessions: pa.Table) -> pa.ChunkedArray:
    """For each session, whether the API no longer returns its numbers: retention has emptied them, or it is missing.

    A null counts as no.
    """
    emptied = pc.not_equal(sessions.column("stats_as_of"), sessions.column("fetched_at"))
    return pc.or_kleene(emptied, pc.is_valid(sessions.column("missing_since")))
