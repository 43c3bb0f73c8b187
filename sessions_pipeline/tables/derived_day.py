"""A day's tables, made from its raw rows in parts. Pure."""

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
from sessions_pipeline.tables.raw_sessions import RAW_SESSIONS
from sessions_pipeline.tables.readings import open_workspaces, readings_by
from sessions_pipeline.tables.rejected_sessions import REJECTED_SESSIONS
from sessions_pipeline.tables.session_attributes import SESSION_ATTRIBUTES
from sessions_pipeline.tables.sessions import DRIFT, SESSIONS, SHRUNK
from sessions_pipeline.tables.table import ALL, DERIVED, DayTables, Derived, Table
from sessions_pipeline.validation.rows import PLAIN, Rows, release


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


class DerivedDay:
    """A day's tables from its merged raw rows, each made when it is first asked for; and what they come to (`told`)."""

    def __init__(self, day: date | None, merged: Merged, rules: Rules, *, may_forget: bool) -> None:
        """Tell the day's history; `may_forget`: raw rows that nothing rests on since `rules.kept_from` go.

        Raises:
            NotReadError: nothing was read by `rules.as_of`.
        """
        readings = readings_by(rules.as_of, day, merged.readings)
        kept_from = rules.kept_from if may_forget and rules.as_of is None else None
        self.told = history(merged.rows, readings, as_of=rules.as_of, kept_from=kept_from)
        self.is_over = day is not None and is_day_over(day, readings[-1].fetched_at)
        still_open = open_workspaces(day, readings)
        self._day = partial(DayTables, day, now=rules.now, attributes=rules.attributes, open_workspaces=still_open)
        self._rules = rules
        self._raw = merged.rows
        self._made = {SESSIONS: self.told.sessions, REJECTED_SESSIONS: self.told.rejected}

    def raw(self) -> Rows:
        """The raw rows, without those that nothing rests on any more; they are handed over."""
        raw, self._raw = self._raw, Rows(RAW_SESSIONS.schema)
        left_out = self.told.superseded
        return raw.only(lambda row: row not in left_out) if left_out else raw

    def metadata(self, table: Table) -> dict[str, str]:
        """What is stored with a table's file."""
        stored = day_metadata.basis(table, self._rules.as_of, self._rules.attributes)
        stored[day_metadata.IS_DAY_OVER] = json.dumps(self.is_over)
        if table is SESSIONS:
            stored |= {SHRUNK: json.dumps(self.told.shrunk), DRIFT: json.dumps(self.told.drift, sort_keys=True)}
        return stored

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
                of_day = self._day(lambda _tables, source: (self._read(source, derived), {}))
                self._made[table] = Rows(table.schema, [derived.make(of_day)])
        return self._made[table]

    def forget(self, table: Table) -> None:
        """The table is written: it goes, unless others are yet to be made from it."""
        left = [
            derived for made, derived in DERIVED.items() if made.name in self._rules.tables and made not in self._made
        ]
        if not any(table in derived.reads for derived in left):
            del self._made[table]
        if self.told.sessions.nbytes > PLAIN:
            release()

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
        # It makes them of the day that it is given: by its own name the day would refer to itself, and its tables stay
        # until Python looks for garbage, 30 MB of a day of 5,500 sessions.
        return self._day(lambda some, table: (sessions if table is SESSIONS else DERIVED[table].make(some), {}))
