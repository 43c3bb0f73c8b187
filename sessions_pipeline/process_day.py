"""Processing one day: load what is stored, merge what was fetched, validate, derive, write. Without Dagster and HTTP.

It runs in a thread or in a worker process, so its inputs and results must be picklable.
"""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import pyarrow as pa

from sessions_pipeline.days import name_of
from sessions_pipeline.errors import SumOverflowError, TooManyRejectedError
from sessions_pipeline.lake import Lake, Written, parquet
from sessions_pipeline.lake.commits import replace_derived, stored_metadata
from sessions_pipeline.lake.layout import UNDATED, Day, readings_key
from sessions_pipeline.lake.store import retried
from sessions_pipeline.tables import CHECKS, RAW_SESSIONS, TABLES, CheckResult, DayTables, Table, day_metadata
from sessions_pipeline.tables.derived_day import DerivedDay, RunOptions
from sessions_pipeline.tables.raw_sessions import merge
from sessions_pipeline.tables.readings import RawDay, dump_readings, latest_readings, load_note, load_readings
from sessions_pipeline.tables.rows import Rows
from sessions_pipeline.tables.table import AS_OF, ATTRIBUTES, COMMIT, FACTS, READINGS, columns_read

# With fewer rejected records the threshold is not applied: a few broken records on a small day don't mean a broken API.
LEAST_REJECTED = 20
# A day has seven derived files.
_WRITERS = 8


@dataclass(frozen=True, slots=True)
class DayResult:
    """The result of processing a day.

    `written`: the files written, by table name.
    `metadata`: facts about each of the run's tables, by table name (see `day_metadata`).
    `exceeded`: if too many records were rejected and so nothing was written, a line that says so; else None.
    """

    day: Day
    written: Mapping[str, Written]
    metadata: Mapping[str, Mapping[str, Any]]
    exceeded: str | None = None


@retried
def process_day(
    lake: Lake, day: Day, fetched: Sequence[RawDay] = (), received: int = 0, *, options: RunOptions
) -> DayResult:
    """Merge, validate, derive and write a day. If what was fetched is not new, only outdated tables are written.

    `fetched` has one element per workspace; if it is empty, the tables are derived again from storage. `received` is
    how many records the run has received so far, for all days.

    Raises:
        NotReadError: nothing was fetched, and nothing is stored (or nothing from before `options.as_of`).
        SumOverflowError: a sum does not fit its column; the text names table, sum and day. Other tables are written.
        LakeError: the day could not be read or written; its former tables are intact.
    """
    with lake.lock(day):
        before, commit = _stored_day(lake, day)
        raw = merge(before, fetched)
        facts: dict[str, Any] = {RAW_SESSIONS.name: {**day_metadata.raw_facts(raw), "uri": lake.uri(RAW_SESSIONS, day)}}
        pending = [table for table in TABLES if table.name in options.tables and table is not RAW_SESSIONS]
        if fetched and not raw.learned:
            facts |= _current_facts(lake, day, commit, options, pending)
            pending = [table for table in pending if table.name not in facts]
        if not raw.learned and not pending:
            _note_readings(lake, raw)
            return DayResult(day, {}, facts)
        derived = DerivedDay(raw, options)
        if reason := _exceeded(derived, received):
            return DayResult(day, {}, {}, reason)
        written = dict[str, Written]()
        if raw.learned:
            # Usually the time, so that a raw file restored from a backup does not repeat the number of a commit that is
            # lost, and tables made from that one are not taken for its own. A wrong clock can't make it count down.
            commit = max(commit + 1, int(options.now.timestamp()))
            raw = derived.raw
            metadata = {COMMIT: str(commit), READINGS: dump_readings(raw.readings)}
            facts[RAW_SESSIONS.name] = day_metadata.raw_facts(raw)
            written[RAW_SESSIONS.name] = lake.replace(RAW_SESSIONS, day, raw.rows, metadata, expected=raw.version)
        written |= _write_derived(lake, derived, pending, commit, facts)
    return DayResult(day, written, facts)


def _stored_day(lake: Lake, day: Day) -> tuple[RawDay, int]:
    """The day's raw rows and readings, with the number of their commit; empty and 0 if it was never read."""
    if stored := lake.load(RAW_SESSIONS, day):
        readings = load_readings(stored.metadata[READINGS])
        return RawDay(day, stored.parts, readings, stored.version), int(stored.metadata[COMMIT])
    return RawDay(day, Rows(RAW_SESSIONS.schema), []), 0


def _write_derived(
    lake: Lake, derived: DerivedDay, tables: Sequence[Table], commit: int, facts: dict[str, Any]
) -> dict[str, Written]:
    """Compute these tables while the files of those before them are written; add their facts to `facts`.

    The files are written in parallel, since a disk makes many durable in the time of one: 0.3 ms each instead of 3.
    """
    day, files, overflows = derived.raw.day, dict[str, Future[Written | None]](), list[str]()
    try:
        for table in tables:
            try:
                facts[table.name] = day_metadata.facts_of(table, derived)
            except SumOverflowError as error:
                overflows.append(f"{table.name} of {name_of(day)}: {error}")
                continue
            metadata = {**day_metadata.file_metadata(table, derived, facts[table.name]), COMMIT: str(commit)}
            content = parquet.encode(table, derived[table], metadata)
            files[table.name] = _writers(os.getpid()).submit(replace_derived, lake, table, day, content, commit=commit)
            derived.drop(table)
        _note_readings(lake, derived.raw)
    finally:
        wait(files.values())
    if overflows:
        raise SumOverflowError("; ".join(overflows))
    return {name: file for name, future in files.items() if (file := future.result())}


@cache
def _writers(_process: int) -> ThreadPoolExecutor:
    """A process's writer threads. They are reused, because starting them takes a twentieth of a day's time."""
    return ThreadPoolExecutor(_WRITERS, thread_name_prefix="files")


def examine_day(
    lake: Lake, day: Day, names: Sequence[str], now: datetime, workspaces: Sequence[str]
) -> dict[str, CheckResult]:
    """The results of the checks of these names on a stored day, by name.

    Each file is read at most once, and only the columns that these checks need; of tables that none of them declares
    in its `reads`, only the metadata.

    Raises:
        LakeError: a file can't be read.
    """
    checks = [CHECKS[name] for name in names]
    columns = columns_read(checks)

    @cache
    def load(table: Table) -> tuple[pa.Table, Mapping[str, str]] | None:
        stored = lake.load(table, day, columns.get(table, ()))
        return stored and (stored.rows, stored.metadata)

    tables = DayTables(day, load, now, lake.last_readings(day), workspaces)
    return {check.name: check.examine(tables) for check in checks}


def _current_facts(lake: Lake, day: Day, commit: int, options: RunOptions, tables: Sequence[Table]) -> dict[str, Any]:
    """The facts stored in the files of these derived tables, and their addresses, without files to be made again.

    Those are missing, broken or lack a column, or were made from another commit, as of another time or for other
    attributes.
    """
    facts = dict[str, Any]()
    for table, (_, metadata) in lake.each(lambda table: stored_metadata(lake, table, day), tables):
        expected = {COMMIT: str(commit), **day_metadata.basis(table, options)}
        if FACTS in metadata and all(metadata.get(name) == expected.get(name) for name in (COMMIT, AS_OF, ATTRIBUTES)):
            facts[table.name] = {**json.loads(metadata[FACTS]), "uri": lake.uri(table, day)}
    return facts


def _exceeded(derived: DerivedDay, received: int) -> str | None:
    """A line that says that too many records are rejected, with the first reason; None if the share is acceptable."""
    day, rejected = derived.raw.day, derived.rejected_now
    # Usually few records have no readable day, so their share is taken of all records that the run received.
    all_ = max(rejected + derived.sessions.num_rows, received if day is UNDATED else 0)
    if rejected < LEAST_REJECTED or rejected <= derived.options.max_rejected_ratio * all_:
        return None
    ((reason, *_),) = next(derived.rejected.tuples("reasons"))
    return f"{name_of(day)}: {rejected} of {all_} records are rejected ({reason})"


def too_many_rejected(exceeded: Sequence[str], limit: float) -> TooManyRejectedError:
    """The error for a run in which too many records of some days were rejected, as the texts in `exceeded` say."""
    return TooManyRejectedError(
        f"{'; '.join(exceeded)}. More than SESSIONS_PIPELINE_MAX_REJECTED_RATIO={limit:g} allows, so these days keep "
        "their previous tables; see whether the API changed, or raise the ratio"
    )


def _note_readings(lake: Lake, raw: RawDay) -> None:
    """Note when the day was last read, in a file of its own: a reading that brings nothing new rewrites no table."""
    readings, new = raw.readings, raw.new_readings

    def noted(stored: bytes | None) -> bytes:
        # Without older notes of the same workspaces: if the raw file was lost and a backup of it was put back, they may
        # have higher numbers.
        asked = {one.asked for one in new}
        before = [one for one in load_note(stored or b"") if one.asked not in asked]
        return dump_readings(latest_readings([*readings, *before, *new])).encode()

    lake.update_file(readings_key(raw.day), noted)
