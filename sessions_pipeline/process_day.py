"""The life of a day: read what is stored, merge what was fetched, validate, derive, write. Without Dagster and HTTP.

It is done by whoever is free, a thread or a process, so what comes in and goes out are plain values.
"""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow as pa

from sessions_pipeline.days import name_of
from sessions_pipeline.errors import LakeConflictError, LakeError, SumOverflowError
from sessions_pipeline.lake.commits import writing
from sessions_pipeline.lake.lake import Lake, Written
from sessions_pipeline.lake.layout import UNDATED, Day, readings_key
from sessions_pipeline.lake.store import tries
from sessions_pipeline.tables import CHECKS, RAW_SESSIONS, TABLES, CheckResult, DayTables, Table, day_metadata
from sessions_pipeline.tables.derived_day import DerivedDay, Rules
from sessions_pipeline.tables.history import History
from sessions_pipeline.tables.merge import Merged, merge
from sessions_pipeline.tables.readings import (
    COMMIT,
    READINGS,
    dump_readings,
    latest_readings,
    load_readings,
    noted_readings,
)
from sessions_pipeline.tables.table import ALL, Reads, needed
from sessions_pipeline.validation.records import FetchedDay
from sessions_pipeline.validation.rows import PLAIN, Rows

# A handful of broken records among few is no sign of a broken API: it takes this many.
LEAST_REJECTED = 20


@dataclass(frozen=True, slots=True)
class DayTask:
    """A day, and what was fetched of it, a workspace each; nothing: make its tables again from what is stored.

    `base` is the version of `raw_sessions` before the day's first request, None if there was none; `received` counts
    all records of the run so far.
    """

    day: Day
    fetched: tuple[FetchedDay, ...] = ()
    base: str | None = None
    received: int = 0


@dataclass(frozen=True, slots=True)
class DayResult:
    """What came of a day: the files written, and what is worth knowing of each, by the table's name.

    `learned` is whether the reading brought anything new; `exceeded` says why nothing was written, where too many of
    its records are rejected.
    """

    day: Day
    written: Mapping[str, Written]
    metadata: Mapping[str, Mapping[str, Any]]
    exceeded: str | None
    learned: bool


def process_day(lake: Lake, task: DayTask, rules: Rules) -> DayResult:
    """Merge, validate, derive and write a day. One that taught nothing, and whose tables are all there, stays as it is.

    Raises:
        NotReadError: nothing was fetched, and nothing is stored (or was, by `rules.as_of`).
        SumOverflowError: a sum does not fit its column; the text names table, sum and day. All others are written.
        LakeError: the day could not be read or written; its former tables are intact.
    """
    with suppress(LakeConflictError):
        return _process(lake, task, rules)
    # Another run was quicker. The same again, as a reading that it overtook; in a folder nobody can come between.
    for one in tries():
        with one, lake.lock(task.day):
            return _process(lake, task, rules)
    raise AssertionError


def _process(lake: Lake, task: DayTask, rules: Rules) -> DayResult:
    stored = lake.load(RAW_SESSIONS, task.day)
    version, commit = (stored.version, int(stored.metadata[COMMIT])) if stored else (None, 0)
    rows = stored.parts if stored else Rows(RAW_SESSIONS.schema)
    readings = load_readings(stored.metadata[READINGS]) if stored else []

    merged = merge(rows, readings, map(_unpacked, task.fetched), base=task.base, version=version)
    wanted = [table for table in TABLES if table.name in rules.tables and table is not RAW_SESSIONS]
    known: dict[str, Any] = {RAW_SESSIONS.name: {"rows": rows.num_rows, **day_metadata.of_readings(merged)}}
    if task.fetched and not merged.learned:
        known |= {table.name: facts for table in wanted if (facts := _kept_facts(lake, table, task.day, commit, rules))}
        wanted = [table for table in wanted if table.name not in known]
    if not merged.learned and not wanted:
        _note_readings(lake, task.day, merged)
        return DayResult(task.day, {}, known, None, learned=False)

    made = DerivedDay(task.day, merged, rules, may_forget=bool(task.fetched))
    if reason := _exceeded(task, made.told, rules):
        return DayResult(task.day, {}, {}, reason, merged.learned)
    written = dict[str, Written]()
    files, overflows = dict[str, Future[Written | None]](), list[str]()
    with writing(lake, task.day) as replace_derived:
        if merged.learned:
            commit += 1
            raw, metadata = made.raw(), {COMMIT: str(commit), READINGS: dump_readings(merged.readings)}
            known[RAW_SESSIONS.name] = day_metadata.of_table(RAW_SESSIONS, raw, made.told, merged)
            written[RAW_SESSIONS.name] = lake.replace(RAW_SESSIONS, task.day, raw, metadata, expected=version)
        for table in wanted:
            try:
                rows = made[table]
            except SumOverflowError as error:
                overflows.append(f"{table.name} of {name_of(task.day)}: {error}")
                continue
            known[table.name] = facts = day_metadata.of_table(table, rows, made.told, merged)
            metadata = {**made.metadata(table), day_metadata.FACTS: json.dumps(facts)}
            files[table.name] = replace_derived(table, rows, metadata, commit)
            made.forget(table)
        _note_readings(lake, task.day, merged)
    written |= {name: file for name, future in files.items() if (file := future.result())}
    if overflows:
        raise SumOverflowError("; ".join(overflows))
    return DayResult(task.day, written, known, None, merged.learned)


def _unpacked(day: FetchedDay) -> FetchedDay:
    """Days wait compressed, and are read several times: laid out here, unless too large for it."""
    rows = day.rows
    return day if rows.nbytes > PLAIN else replace(day, rows=Rows(rows.schema, rows.parts()))


def day_tables(lake: Lake, day: Day, reads: Reads, *, now: datetime) -> DayTables:
    """A stored day as checks are given it; of each table the columns that `reads` names, of others the metadata alone.

    A file is read once, when it is first asked for.
    """

    def load(_day: DayTables, table: Table) -> tuple[pa.Table, Mapping[str, str]] | None:
        columns = reads.get(table, ())
        stored = lake.load(table, day, None if ALL[0] in columns else columns)
        return stored and (stored.rows, stored.metadata)

    tables = DayTables(day, load, now=now)
    committed = load_readings(tables.metadata(RAW_SESSIONS).get(READINGS, "[]"))
    tables.last_read = tuple(latest_readings(committed, lake.last_readings(day)))
    return tables


def examine_day(lake: Lake, task: tuple[Day, Sequence[str]], now: datetime) -> dict[str, CheckResult]:
    """What some checks find on a stored day, by their names; each file is read at most once, and only what they need.

    Raises:
        LakeError: a file can't be read.
    """
    day, names = task
    checks = [CHECKS[name] for name in names]
    tables = day_tables(lake, day, needed(checks), now=now)
    return {check.name: check.examine(tables) for check in checks}


def _kept_facts(lake: Lake, table: Table, day: Day, commit: int, rules: Rules) -> dict[str, Any] | None:
    """What a derived file says of its rows; None where it is to be made again.

    It is if it is missing, broken, or of another commit, time or list of attributes than wanted.
    """
    try:
        metadata = lake.metadata(table, day)
    except LakeError:
        return None
    wanted = {COMMIT: str(commit), **day_metadata.basis(table, rules.as_of, rules.attributes)}
    if any(metadata.get(name) != wanted.get(name) for name in (COMMIT, day_metadata.AS_OF, day_metadata.ATTRIBUTES)):
        return None
    facts: dict[str, Any] = json.loads(metadata.get(day_metadata.FACTS, "{}"))
    return facts


def _exceeded(task: DayTask, told: History, rules: Rules) -> str | None:
    rejected = told.rejected.num_rows
    all_ = rejected + told.sessions.num_rows
    if task.day is UNDATED:
        # Records without a readable day are few or none: they are measured against all that the run received.
        all_ = max(all_, task.received)
    if rejected < LEAST_REJECTED or rejected <= rules.max_rejected_ratio * all_:
        return None
    ((reason, *_),) = next(told.rejected.tuples("reasons"))
    return f"{name_of(task.day)}: {rejected} of {all_} records are rejected ({reason})"


def _note_readings(lake: Lake, day: Day, merged: Merged) -> None:
    """Keep when the day was last read, also where that taught nothing, beside the tables, which stay as they are."""

    def noted(stored: bytes | None) -> bytes:
        before = noted_readings(stored or b"")
        return dump_readings(latest_readings(merged.readings, [*before, *merged.heard])).encode()

    if merged.heard:
        lake.update_file(readings_key(day), noted)
