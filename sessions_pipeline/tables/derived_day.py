"""A day's tables, as all its readings together show them now or showed them at an earlier time. Pure.

A session's newest state counts, with one exception: spent money stays spent (see `retention`). A session that the
API no longer returns stays, with `missing_since` set. All is derived in parts, to save memory.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables.raw_sessions import RAW_SESSIONS
from sessions_pipeline.tables.readings import RawDay, gone_since, needed_readings, open_workspaces, readings_as_of
from sessions_pipeline.tables.rejected_sessions import REJECTED_SESSIONS
from sessions_pipeline.tables.retention import STATS, USED, SessionState, known_runs, stats_of, superseded
from sessions_pipeline.tables.rows import PLAIN, Rows, release
from sessions_pipeline.tables.session_attributes import SESSION_ATTRIBUTES
from sessions_pipeline.tables.sessions import SESSIONS
from sessions_pipeline.tables.table import DERIVED, Table
from sessions_pipeline.validation.types import TIMESTAMP
from sessions_pipeline.validation.validate import SCHEMA, Validator


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What applies to all days of a run.

    `tables`: the names of the tables to make.
    `max_rejected_ratio`: the rejection threshold, 0 to 1.
    `attributes`: the keys of `extra.metadata` that costs are summed by.
    `as_of`: only what was read at or before this time counts; None counts everything.
    `kept_from`: raw rows superseded by this time are deleted; None keeps everything.
    `now`: when the run began.
    """

    tables: tuple[str, ...]
    max_rejected_ratio: float
    attributes: tuple[str, ...]
    as_of: datetime | None
    kept_from: datetime | None
    now: datetime


class DerivedDay:
    """A day's tables, derived from its raw rows. The sessions are validated at once, other tables when needed.

    `is_over`: the day had ended when each of its workspaces was last read; true without a day.
    `sessions`, `rejected`: the rows of `sessions` and `rejected_sessions`.
    `rejected_now`: how many of the rejected records are not gone. Without a usable id, each change leaves one behind.
    `drift`: how often properties or values came that the schema does not name, and, as `without <property>`, the
    number of sessions if none of them has a property of the schema.
    `rounded`: how many costs had more than 18 decimal places and were rounded.
    `shrunk`: ids of sessions whose numbers have fallen although retention can't explain it.
    `raw`: the raw rows and readings to store, without those superseded by `options.kept_from` (see `retention`).
    """

    def __init__(self, raw: RawDay, options: RunOptions) -> None:
        """Validate the raw rows and derive the sessions from them.

        Raises:
            NotReadError: nothing was read by `options.as_of`.
        """
        readings = readings_as_of(options.as_of, raw.day, raw.readings)
        self._arguments = {"attributes": options.attributes, "open_workspaces": open_workspaces(raw.day, readings)}
        self.is_over = not self._arguments["open_workspaces"]
        self.options = options
        known = raw._replace(readings=readings)
        if options.as_of is not None:
            until = pa.scalar(options.as_of, TIMESTAMP)
            parts = (part.filter(pc.less_equal(part.column("fetched_at"), until)) for part in raw.rows.parts())
            known = known._replace(rows=Rows(raw.rows.schema, parts))
        states = self._derive_sessions(known)
        kept_from = None if options.as_of else options.kept_from
        self.raw = _without_superseded(raw, states, kept_from) if kept_from else raw
        self._tables = {RAW_SESSIONS: self.raw.rows, SESSIONS: self.sessions, REJECTED_SESSIONS: self.rejected}

    def _derive_sessions(self, raw: RawDay) -> Iterable[list[SessionState]]:
        """Make `sessions` and `rejected` from these raw rows, which below are identified by their index.

        Returns the states of each session with several rows, oldest first, if the newest names its workspace.
        """
        ((keys, foreign),) = raw.keys()
        validator = Validator()
        payloads = (part.column(0).to_pylist() for part in raw.rows.parts("payload"))
        validated = Rows(SCHEMA, map(validator.sessions, payloads))
        times = raw.rows.table("fetched_at").column(0)
        states = _states(keys, raw.rows, validated, times)
        older = {state.row for of_session in states.values() for state in of_session[:-1]}
        reasons = {row: list(rejections) for row, rejections in validator.rejected.items() if row not in older}
        for row in foreign.keys() - older:
            reasons.setdefault(row, []).append(f"tenant_id: is not the workspace asked for ({foreign[row]})")
        stats = {newest: stats_of(of_session) for newest, of_session in states.items() if newest not in reasons}
        sources = {newest: source.row for newest, (source, _) in stats.items() if source.row != newest}
        gone = gone_since(raw.readings)
        self.sessions, self.shrunk = Rows(SESSIONS.schema), list[str]()
        for part in _with_sources(validated, {*older, *reasons}, times, sources):
            missing_since = pa.array((gone.get(keys[row]) for row in part.column("row").to_pylist()), TIMESTAMP)
            self.sessions.add(part.append_column("missing_since", missing_since))
            if stats:
                self.shrunk += _only(part, lambda row: row in stats and stats[row][1]).column("id").to_pylist()
        self.rejected, rejected_rows = Rows(REJECTED_SESSIONS.schema), iter(sorted(reasons))
        for part in raw.rows.only(reasons.__contains__).parts() if reasons else ():
            reason_lists = [reasons[row] for row in islice(rejected_rows, part.num_rows)]
            self.rejected.add(part.append_column("reasons", pa.array(reason_lists, pa.list_(pa.string()))))
        self.rejected_now = sum(keys[row] not in gone for row in reasons)
        self.drift = validator.drift + Counter({f"without {name}": self.sessions.num_rows for name in validator.absent})
        self.rounded = validator.rounded
        # Without a record that names the workspace, a session would get another key, see `RawDay.keys`.
        return [of_session for newest, of_session in states.items() if newest not in foreign]

    def __getitem__(self, table: Table) -> Rows:
        """The rows of a table.

        Raises:
            SumOverflowError: a sum does not fit its column.
        """
        if table not in self._tables and DERIVED[table].by_session:
            self._tables |= self._derive_by_session(table)
        if table in self._tables:
            return self._tables[table]
        derived, tables = DERIVED[table], dict[Table, pa.Table]()
        for source, columns in derived.reads.items():
            parts = self[source].parts(*columns)
            if source is SESSION_ATTRIBUTES and "attributes" in derived.takes:
                # Only those that costs are summed by, to save memory.
                keys = pa.array(self.options.attributes, pa.string())
                parts = (part.filter(pc.is_in(part.column("key"), keys)) for part in parts)
            tables[source] = pa.concat_tables(list(parts) or [source.schema.empty_table().select(columns)])
        arguments = {name: self._arguments[name] for name in derived.takes}
        self._tables[table] = Rows(table.schema, [derived.make(tables, **arguments)])
        return self._tables[table]

    def drop(self, table: Table) -> None:
        """Free a written table's memory, unless tables that are still to be made are derived from it."""
        pending = (other for other in DERIVED if other.name in self.options.tables and other not in self._tables)
        if not any(table in DERIVED[other].reads for other in pending):
            del self._tables[table]
        if self.sessions.nbytes > PLAIN:
            release()

    def _derive_by_session(self, requested: Table) -> dict[Table, Rows]:
        """Derive all pending tables that can be made from a few sessions at a time, in one pass over the sessions."""
        names = {requested.name, *self.options.tables} - {table.name for table in self._tables}
        by_session = [table for table in DERIVED if DERIVED[table].by_session]
        made = {table: Rows(table.schema) for table in by_session if table.name in names}
        for part in self.sessions.parts():
            tables = {SESSIONS: part}
            for table in by_session:  # all, because one may be derived from another
                tables[table] = DERIVED[table].make(tables)
            for table, rows in made.items():
                rows.add(tables[table])
        return made


def _states(
    keys: Sequence[str], raw: Rows, validated: Rows, times: "pa.ChunkedArray[pa.TimestampScalar]"
) -> dict[int, list[SessionState]]:
    """The states of each session with several rows, in the order of their readings, keyed by its newest row."""
    counts = Counter(keys)
    if len(counts) == len(keys):
        return {}
    repeated = {row for row, key in enumerate(keys) if counts[key] > 1}
    columns = validated.tuples("row", "trace_tier", "start_time", "run_count", *USED)
    valid = {row: values for row, *values in columns if row in repeated}
    numbers = raw.table("reading").column(0).to_pylist()
    states = defaultdict[str, list[SessionState]](list)
    for row in sorted(repeated, key=lambda row: (numbers[row], row)):
        tier, start_time, runs, *used = valid.get(row, (None, None, None))
        states[keys[row]].append(SessionState(row, times[row].as_py(), known_runs(runs, used), tier, start_time))
    return {of_session[-1].row: of_session for of_session in states.values()}


def _with_sources(validated: Rows, left_out: set[int], times: Any, sources: Mapping[int, int]) -> Iterator[pa.Table]:
    """The valid sessions without the rows `left_out`, with the times of their readings.

    A row in `sources` takes its stats from the row given there. `times`: when each raw row was read.
    """
    needed, names = set(sources.values()), [*STATS, "row"]
    source_parts = [_only(part, needed.__contains__) for part in validated.parts(*names)] if sources else []
    for part in validated.parts(drain=True):
        rows = _only(part, lambda row: row not in left_out) if left_out else part
        source_rows = rows.column("row")
        if sources:
            source_rows = pa.array([sources.get(row, row) for row in source_rows.to_pylist()], pa.int64())
            pool = pa.concat_tables([rows.select(names), *source_parts])
            indices = pc.index_in(source_rows, value_set=pool.column("row").combine_chunks())
            for name in STATS:
                rows = rows.set_column(rows.schema.get_field_index(name), name, pool.column(name).take(indices))
        rows = rows.append_column("fetched_at", times.take(rows.column("row")))
        yield rows.append_column("stats_as_of", times.take(source_rows))


def _only(part: pa.Table, is_wanted: Callable[[int], bool]) -> pa.Table:
    return part.filter(pa.array(map(is_wanted, part.column("row").to_pylist()), pa.bool_()))


def _without_superseded(raw: RawDay, states: Iterable[Sequence[SessionState]], kept_from: datetime) -> RawDay:
    deleted = set[int]().union(*(superseded(of_session, kept_from) for of_session in states))
    if not deleted:
        return raw
    rows = raw.rows.only(lambda row: row not in deleted)
    return raw._replace(rows=rows, readings=needed_readings(raw.readings, rows, kept_from))
