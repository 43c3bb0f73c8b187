"""A day's tables, derived from its raw rows in parts to save memory. Pure."""

import json
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.days import is_day_over
from sessions_pipeline.tables import day_metadata
from sessions_pipeline.tables.history import history
from sessions_pipeline.tables.merge import Merged
from sessions_pipeline.tables.readings import needed_readings, open_workspaces, readings_as_of
from sessions_pipeline.tables.rejected_sessions import REJECTED_SESSIONS
from sessions_pipeline.tables.session_attributes import SESSION_ATTRIBUTES
from sessions_pipeline.tables.sessions import DRIFT, SESSIONS, SHRUNK
from sessions_pipeline.tables.table import ALL, DERIVED, DayTables, Derived, Table
from sessions_pipeline.validation.rows import PLAIN, Rows, release


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules that apply to all days of a run.

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
    """A day's tables, derived from its merged raw rows; each table is computed when it is first needed.

    `history`: the day's sessions and rejected records. `is_over`: the day had ended when it was last read.
    """

    def __init__(self, day: date | None, merged: Merged, rules: Rules, *, may_delete: bool) -> None:
        """Derive the history; `may_delete`: what was superseded by `rules.kept_from` may be left out.

        Raises:
            NotReadError: nothing was read by `rules.as_of`.
        """
        readings = readings_as_of(rules.as_of, day, merged.readings)
        kept_from = rules.kept_from if may_delete and rules.as_of is None else None
        self.history = history(merged.rows, readings, as_of=rules.as_of, kept_from=kept_from)
        self.is_over = day is not None and is_day_over(day, readings[-1].fetched_at)
        still_open = open_workspaces(day, readings)
        self._day = partial(DayTables, day, now=rules.now, attributes=rules.attributes, open_workspaces=still_open)
        self._rules = rules
        self._tables = {SESSIONS: self.history.sessions, REJECTED_SESSIONS: self.history.rejected}

    def without_superseded(self, merged: Merged) -> Merged:
        """The raw rows and readings to store."""
        superseded, kept_from = self.history.superseded, self._rules.kept_from
        if not superseded or kept_from is None:
            return merged
        rows = merged.rows.only(lambda row: row not in superseded)
        return merged._replace(rows=rows, readings=needed_readings(merged.readings, rows, kept_from))

    def metadata(self, table: Table) -> dict[str, str]:
        """The metadata to store in a table's file."""
        stored = day_metadata.basis(table, self._rules.as_of, self._rules.attributes)
        stored[day_metadata.IS_DAY_OVER] = json.dumps(self.is_over)
        if table is SESSIONS:
            stored |= {SHRUNK: json.dumps(self.history.shrunk), DRIFT: json.dumps(self.history.drift, sort_keys=True)}
        return stored

    def __getitem__(self, table: Table) -> Rows:
        """The rows of a table.

        Raises:
            SumOverflowError: a sum does not fit its column.
        """
        if table not in self._tables:
            derived = DERIVED[table]
            if derived.by_session:
                self._tables |= self._derive_by_session(table)
            else:
                day = self._day(lambda _day, source: (self._read(source, derived), {}))
                self._tables[table] = Rows(table.schema, [derived.make(day)])
        return self._tables[table]

    def drop(self, table: Table) -> None:
        """Free a written table's memory, unless tables that are still to be made are derived from it."""
        pending = (other for other in DERIVED if other.name in self._rules.tables and other not in self._tables)
        if not any(table in DERIVED[other].reads for other in pending):
            del self._tables[table]
        if self.history.sessions.nbytes > PLAIN:
            release()

    def _read(self, source: Table, derived: Derived) -> pa.Table:
        """The columns of `source` that `derived` needs; of attributes, only those that costs are summed by."""
        rows, columns = self[source], derived.reads[source]
        if source is SESSION_ATTRIBUTES and derived.by_attributes:
            keys = pa.array(self._rules.attributes, pa.string())
            parts = (part.filter(pc.is_in(part.column("key"), keys)) for part in rows.parts(*columns))
            return pa.concat_tables([rows.schema.empty_table().select(columns), *parts])
        return rows.table(*(() if columns == ALL else columns))

    def _derive_by_session(self, requested: Table) -> dict[Table, Rows]:
        """Derive all pending tables that can be made from a few sessions at a time, in one pass over the sessions."""
        names = {requested.name, *self._rules.tables} - {table.name for table in self._tables}
        made = {table: Rows(table.schema) for table in DERIVED if DERIVED[table].by_session and table.name in names}
        for part in self.history.sessions.parts():
            tables = self._tables_of(part)
            for table, rows in made.items():
                rows.add(tables[table])
        return made

    def _tables_of(self, sessions: pa.Table) -> DayTables:
        # The lambda uses the DayTables that it is passed. If it captured the object instead, that would be a reference
        # cycle, and its tables would stay in memory until garbage collection: 30 MB for a day of 5,500 sessions.
        return self._day(lambda day, table: (sessions if table is SESSIONS else DERIVED[table].make(day), {}))
