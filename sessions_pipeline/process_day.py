"""The life of a day: read what is stored, merge what was fetched, validate, derive, write. Without Dagster and HTTP.

It is done by whoever is free, a thread or a process, so what comes in and goes out are plain values.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from itertools import count
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.days import is_day_over
from sessions_pipeline.errors import LakeConflictError, LakeError, NotReadError, SumOverflowError
from sessions_pipeline.lake.lake import Lake, Written
from sessions_pipeline.lake.layout import UNDATED, Day, value_of
from sessions_pipeline.tables import (
    DERIVED,
    RAW_SESSIONS,
    REJECTED_SESSIONS,
    SESSION_ATTRIBUTES,
    SESSIONS,
    TABLES,
    DayTables,
    Table,
)
from sessions_pipeline.tables import day_metadata as describe
from sessions_pipeline.tables.history import History, history
from sessions_pipeline.tables.merge import Merged, merge
from sessions_pipeline.tables.readings import (
    COMMIT,
    READINGS,
    Reading,
    dump_readings,
    latest_readings,
    load_readings,
    noted_readings,
    open_workspaces,
)
from sessions_pipeline.tables.table import ALL, Derived, Reads
from sessions_pipeline.validation.records import FetchedDay
from sessions_pipeline.validation.rows import PART, Rows

# A handful of broken records among few is no sign of a broken API: so many it takes.
LEAST_REJECTED = 20


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for all days of a run.

    `tables` names the tables to make; `max_rejected_ratio` is the rejection threshold; `attributes` are the keys that
    costs are summed by; `as_of`: only what was read by then counts; `kept_from`: what was superseded by then is
    forgotten; None is no limit. `now` is when the run began.
    """

    tables: tuple[str, ...]
    max_rejected_ratio: float
    attributes: tuple[str, ...]
    as_of: datetime | None
    kept_from: datetime | None
    now: datetime


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

    `sessions` is how many it has; `learned` whether the reading brought anything new; `exceeded` says why nothing was
    written, where too many of its records are rejected.
    """

    day: Day
    sessions: int
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
    try:
        return _process(lake, task, rules)
    except LakeConflictError:
        # Another run was quicker. The same again, as a reading that it overtook; in a folder nobody can come between.
        with lake.lock(task.day):
            return process_day(lake, task, rules)


def _process(lake: Lake, task: DayTask, rules: Rules) -> DayResult:
    stored = lake.load(RAW_SESSIONS, task.day)
    version, commit = (stored.version, int(stored.metadata[COMMIT])) if stored else (None, 0)
    rows = stored.parts if stored else Rows(RAW_SESSIONS.schema)
    readings = load_readings(stored.metadata[READINGS]) if stored else []

    merged = merge(rows, readings, task.fetched, base=task.base, version=version)
    wanted = [table for table in TABLES if table.name in rules.tables and table is not RAW_SESSIONS]
    if task.fetched and not merged.learned:
        wanted = [table for table in wanted if _is_behind(lake, table, task.day, commit, rules)]
    if not merged.learned and not wanted:
        _note_readings(lake, task.day, merged)
        heard = describe.of_readings(merged)
        return DayResult(
            task.day, heard["received"] - heard["repeated"], {}, {RAW_SESSIONS.name: heard}, None, learned=False
        )

    made = DerivedDay(task, merged, rules)
    if reason := _exceeded(task, made.told, rules):
        return DayResult(task.day, made.told.sessions.num_rows, {}, {}, reason, merged.learned)
    files, known, overflows = dict[str, Written](), dict[str, Mapping[str, Any]](), list[str]()
    with lake.lock(task.day):
        if merged.learned:
            commit += 1
            raw, metadata = made.raw(), {COMMIT: str(commit), READINGS: dump_readings(merged.readings)}
            known[RAW_SESSIONS.name] = describe.of_table(RAW_SESSIONS, raw, made.told, merged)
            files[RAW_SESSIONS.name] = lake.replace(RAW_SESSIONS, task.day, raw, metadata, expected=version)
        for table in wanted:
            try:
                rows = made[table]
            except SumOverflowError as error:
                overflows.append(f"{table.name} of {task.day}: {error}")
                continue
            if file := lake.replace_derived(table, task.day, rows, made.metadata(table), commit=commit):
                files[table.name] = file
            known[table.name] = describe.of_table(table, rows, made.told, merged)
            made.forget(table)
        _note_readings(lake, task.day, merged)
    if overflows:
        raise SumOverflowError("; ".join(overflows))
    return DayResult(task.day, made.told.sessions.num_rows, files, known, None, merged.learned)


class DerivedDay:
    """A day's tables from its merged raw rows, each made when it is first asked for; and what they come to (`told`)."""

    def __init__(self, task: DayTask, merged: Merged, rules: Rules) -> None:
        """Tell the day's history.

        Raises:
            NotReadError: nothing was read by `rules.as_of`.
        """
        readings = [reading for reading in merged.readings if rules.as_of is None or reading.fetched_at <= rules.as_of]
        if not readings:
            at = f" at {rules.as_of:%Y-%m-%d %H:%M:%S} UTC" if rules.as_of else ""
            raise NotReadError(f"raw_sessions was not read yet for {task.day}{at}; materialize that day first")
        may_forget = bool(task.fetched) and rules.as_of is None
        kept_from = rules.kept_from if may_forget else None
        self.told = history(merged.rows, readings, as_of=rules.as_of, kept_from=kept_from)
        day = task.day if isinstance(task.day, date) else None
        self.is_over = day is not None and is_day_over(day, readings[-1].fetched_at)
        self._day = partial(
            DayTables,
            day,
            now=rules.now,
            attributes=rules.attributes,
            is_over=self.is_over,
            open_workspaces=open_workspaces(day, readings),
        )
        self._rules = rules
        self._raw = merged.rows
        self._made = {SESSIONS: self.told.sessions, REJECTED_SESSIONS: self.told.rejected}

    def raw(self) -> Rows:
        """The raw rows, without those that nothing rests on any more; they are handed over."""
        raw, self._raw = self._raw, Rows(RAW_SESSIONS.schema)
        return _without(raw, self.told.superseded)

    def metadata(self, table: Table) -> dict[str, str]:
        """What is stored with a table's file."""
        as_of, attributes = self._rules.as_of, self._rules.attributes
        return describe.of_file(table, self.told, as_of=as_of, attributes=attributes, is_over=self.is_over)

    def __getitem__(self, table: Table) -> Rows:
        """The rows of a table.

        Raises:
            SumOverflowError: a sum does not fit its column.
        """
        if table not in self._made:
            derived = DERIVED[table]
            if derived.by_session:
                self._made |= self._of_each_session(table)
            else:
                of_day = self._day(lambda source: (self._read(source, derived), {}))
                self._made[table] = Rows(table.schema, [derived.make(of_day)])
        return self._made[table]

    def forget(self, table: Table) -> None:
        """The table is written: it goes, unless others are yet to be made from it."""
        left = [
            derived for made, derived in DERIVED.items() if made.name in self._rules.tables and made not in self._made
        ]
        if not any(table in derived.reads for derived in left):
            del self._made[table]
        if self.told.sessions.num_rows > PART:
            # What was freed goes back to the system, which the allocator leaves for later.
            pa.default_memory_pool().release_unused()

    def _read(self, source: Table, derived: Derived) -> pa.Table:
        """The columns that a table is made from, and of attributes those alone that costs are summed by."""
        rows, columns = self[source], derived.reads[source]
        if source is SESSION_ATTRIBUTES and derived.by_attributes:
            keys = pa.array(self._rules.attributes, pa.string())
            parts = (part.filter(pc.is_in(part.column("key"), keys)) for part in rows.parts(*columns))
            return pa.concat_tables([rows.schema.empty_table().select(columns), *parts])
        return rows.table(*(() if columns == ALL else columns))

    def _of_each_session(self, asked: Table) -> dict[Table, Rows]:
        """What is made of some sessions at a time: the table asked for, and others that are wanted."""
        wanted = (table for table, derived in DERIVED.items() if derived.by_session and table not in self._made)
        made = {table: Rows(table.schema) for table in wanted if table is asked or table.name in self._rules.tables}
        for part in self.told.sessions.parts():
            some = self._some(part)
            for table, rows in made.items():
                rows.add(some[table])
        return made

    def _some(self, sessions: pa.Table) -> DayTables:
        some: DayTables = self._day(lambda table: (DERIVED[table].make(some), {}))
        some.put(SESSIONS, sessions)
        return some


def _without(raw: Rows, left_out: frozenset[int]) -> Rows:
    if not left_out:
        return raw
    rows = count()
    kept = ([next(rows) not in left_out for _ in range(part.num_rows)] for part in raw.parts("reading"))
    return Rows(raw.schema, (part.filter(pa.array(of_part)) for part, of_part in zip(raw.parts(), kept, strict=True)))


def day_tables(lake: Lake, day: Day, reads: Reads, *, now: datetime) -> DayTables:
    """A stored day as checks are given it; of each table the columns that `reads` names, of others the metadata alone.

    A file is read once, when it is first asked for.
    """

    def load(table: Table) -> tuple[pa.Table, Mapping[str, str]] | None:
        columns = reads.get(table, ())
        stored = lake.load(table, day, None if ALL[0] in columns else columns)
        return stored and (stored.rows, stored.metadata)

    tables = DayTables(day if isinstance(day, date) else None, load, now=now)
    committed = load_readings(tables.metadata(RAW_SESSIONS).get(READINGS, "[]"))
    noted: list[Reading] = []
    with suppress(NotReadError):
        noted = noted_readings(lake.read_file(_readings_key(day)))
    tables.last_read = tuple(latest_readings(committed, noted))
    return tables


def _is_behind(lake: Lake, table: Table, day: Day, commit: int, rules: Rules) -> bool:
    """Whether a derived file is missing, broken, or of another commit, time or list of attributes than wanted."""
    try:
        metadata = lake.metadata(table, day)
    except LakeError:
        return True
    wanted = {COMMIT: str(commit), **describe.basis(table, rules.as_of, rules.attributes)}
    return any(metadata.get(name) != wanted.get(name) for name in (COMMIT, describe.AS_OF, describe.ATTRIBUTES))


def _exceeded(task: DayTask, told: History, rules: Rules) -> str | None:
    rejected = told.rejected.num_rows
    all_ = rejected + told.sessions.num_rows
    if task.day is UNDATED:
        # Records without a readable day are few or none: they are measured against all that the run received.
        all_ = max(all_, task.received)
    if rejected < LEAST_REJECTED or rejected <= rules.max_rejected_ratio * all_:
        return None
    ((reason, *_),) = next(told.rejected.tuples("reasons"))
    return f"{task.day}: {rejected} of {all_} records are rejected ({reason})"


def _readings_key(day: Day) -> str:
    return f"_readings/start_date={value_of(day)}.json"


def _note_readings(lake: Lake, day: Day, merged: Merged) -> None:
    """Keep when the day was last read, also where that taught nothing, beside the tables, which stay as they are."""

    def noted(stored: bytes | None) -> bytes:
        before = noted_readings(stored or b"")
        return dump_readings(latest_readings(merged.readings, [*before, *merged.heard])).encode()

    if merged.heard:
        lake.update_file(_readings_key(day), noted)
