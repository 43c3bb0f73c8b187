"""What a table, a transform and a check are, and the registry that these are entered in.

A table's file defines its columns; `@derived` enters the function that makes a day of it, `@check` one that examines a
day. Assets, dependencies, column schemas, checks, the data dictionary, DuckDB views and Parquet options follow from it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import chain
from typing import Any, Literal, Self, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables.column import Column
from sessions_pipeline.tables.readings import Reading

Group: TypeAlias = Literal["sessions", "experiments", "costs", "usage"]
Severity: TypeAlias = Literal["error", "warn"]
Examined: TypeAlias = Literal["run", "recent"]


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the lake; equal to another of the same name.

    `order` is the order of the rows in a file; `partition` the folder level that holds its days (None: a single file);
    `sample` the columns that are shown of a few rows when a day was written.
    """

    name: str
    description: str = field(compare=False)
    columns: tuple[Column, ...] = field(compare=False)
    order: tuple[str, ...] = field(compare=False)
    partition: Literal["start_date", "usage_date"] | None = field(default="start_date", compare=False)
    group: Group = field(default="sessions", compare=False)
    sample: tuple[str, ...] = field(default=(), compare=False)
    schema: pa.Schema = field(init=False, compare=False)

    def __post_init__(self) -> None:
        fields = [
            pa.field(column.name, column.type, column.nullable, {"description": column.description})
            for column in self.columns
        ]
        object.__setattr__(self, "schema", pa.schema(fields))


Reads: TypeAlias = Mapping[Table, tuple[str, ...]]
ALL: tuple[str, ...] = ("*",)
"""In `reads`: every column of the table."""


@dataclass
class DayTables:
    """A UTC day (None: the rows without one) and its tables, as transforms and checks are given them.

    `load` gives a table's rows and file metadata, or None where the day has no such table; it is asked once for each.
    `now` is the time of the run; `attributes` are the keys of `extra.metadata` that costs are summed by; `last_read` is
    the latest reading of each workspace, the very latest last; `open_workspaces` are those that were last read before
    the day had ended.
    """

    day: date | None
    load: Callable[[Self, Table], tuple[pa.Table, Mapping[str, str]] | None]
    now: datetime
    attributes: tuple[str, ...] = ()
    last_read: tuple[Reading, ...] = ()
    open_workspaces: frozenset[str] = frozenset()
    _loaded: dict[Table, tuple[pa.Table, Mapping[str, str]] | None] = field(default_factory=dict)

    def has(self, table: Table) -> bool:
        """Whether the day has the table."""
        return self._get(table) is not None

    def __getitem__(self, table: Table) -> pa.Table:
        """The rows, with at least the columns that were declared.

        Raises:
            KeyError: the day has no such table.
        """
        if (found := self._get(table)) is None:
            raise KeyError(table.name)
        return found[0]

    def metadata(self, table: Table) -> Mapping[str, str]:
        """What was stored with the table's file; empty where the day has no such table."""
        found = self._get(table)
        return {} if found is None else found[1]

    def _get(self, table: Table) -> tuple[pa.Table, Mapping[str, str]] | None:
        if table not in self._loaded:
            self._loaded[table] = self.load(self, table)
        return self._loaded[table]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found: whatever breaks its promise, by name, and the numbers that show it.

    Numbers and texts of `counts` are shown; numbers of several days are added. `once` holds values that may come only
    once, in all days together; `merged` finds those that come again.
    """

    broken: tuple[str, ...] = ()
    counts: Mapping[str, Any] = field(default_factory=dict)
    once: pa.ChunkedArray | None = None

    @property
    def passed(self) -> bool:
        """Whether the promise is kept. Of a result with `once`, ask the merged one."""
        return not self.broken

    @classmethod
    def merged(cls, results: Iterable[Self]) -> Self:
        """One result of several days: counts added, broken ones joined."""
        results = list(results)
        counts: dict[str, Any] = {}
        for name, count in chain.from_iterable(result.counts.items() for result in results):
            counts[name] = counts[name] + count if name in counts else count
        broken = list(chain.from_iterable(result.broken for result in results))
        parts = [chunk for result in results if result.once is not None for chunk in result.once.chunks]
        return cls((*broken, *_repeated(pa.chunked_array(parts, pa.string()))), counts)


def _repeated(values: pa.ChunkedArray) -> list[str]:
    """The values that come more than once."""
    endings, again = pc.utf8_slice_codeunits(values, start=-1), list[str]()
    # By their last letter, because a count of all values at once takes 200 bytes for each.
    for ending in pc.unique(endings):
        counts = pc.value_counts(values.filter(pc.equal(endings, ending)))
        again += counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
    return again


@dataclass(frozen=True, slots=True)
class Derived:
    """How a table's day is made from other tables of the day, with the columns that are read of each.

    `by_session`: each row is of one session, so that it can be made of some sessions at a time. `by_attributes`: it
    also follows from the day's `attributes`, so a file that lists others is made again.
    """

    make: Callable[[DayTables], pa.Table]
    reads: Reads
    by_session: bool
    by_attributes: bool


@dataclass(frozen=True, slots=True)
class Check:
    """A promise of a table: what it says, how a day is examined for it, and how bad it is when broken.

    `otherwise` says what a broken one means for costs, and what to do.
    `reads` names the columns that are needed of each table; a day that lacks one of these tables is passed over.
    `days` says which are examined: those of the run, or the recent ones that the schedule keeps fresh.
    """

    name: str
    table: Table
    description: str
    otherwise: str
    function: Callable[[DayTables], CheckResult]
    reads: Reads
    severity: Severity
    days: Examined

    def examine(self, day: DayTables) -> CheckResult:
        """The result for one day."""
        return self.function(day) if all(map(day.has, self.reads)) else CheckResult()


DERIVED: dict[Table, Derived] = {}
CHECKS: dict[str, Check] = {}


def needed(checks: Iterable[Check]) -> Reads:
    """The columns that several checks need of each table together."""
    columns: dict[Table, tuple[str, ...]] = {}
    for one in checks:
        for table, names in one.reads.items():
            columns[table] = tuple(dict.fromkeys((*columns.get(table, ()), *names)))
    return columns


def derived(
    made: Table, *, reads: Reads, by_session: bool = False, by_attributes: bool = False
) -> Callable[[Callable[[DayTables], pa.Table]], Callable[[DayTables], pa.Table]]:
    """Enter the function that makes a day of a table; the order of entering is the order of making."""

    def enter(function: Callable[[DayTables], pa.Table]) -> Callable[[DayTables], pa.Table]:
        DERIVED[made] = Derived(function, reads, by_session, by_attributes)
        return function

    return enter


def check(
    examined: Table,
    description: str,
    otherwise: str,
    *,
    reads: Reads,
    severity: Severity = "error",
    days: Examined = "run",
) -> Callable[[Callable[[DayTables], CheckResult]], Callable[[DayTables], CheckResult]]:
    """Enter a check under the function's name."""

    def enter(function: Callable[[DayTables], CheckResult]) -> Callable[[DayTables], CheckResult]:
        name = function.__name__
        CHECKS[name] = Check(name, examined, description, otherwise, function, reads, severity, days)
        return function

    return enter
