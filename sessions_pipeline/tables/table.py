"""Tables, transforms and checks, and the registry that holds them.

A table's file defines its columns. `@derived` registers the function that computes one day of the table; `@check`
registers a function that checks a day. Assets, dependencies, column schemas, asset checks, the data dictionary, the
DuckDB views and the Parquet options all follow from this registry.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from itertools import chain
from typing import Literal, Self, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables.column import Column
from sessions_pipeline.tables.readings import Reading

Group: TypeAlias = Literal["sessions", "experiments", "costs", "usage"]
Severity: TypeAlias = Literal["error", "warn"]
CheckedDays: TypeAlias = Literal["run", "recent"]
# Keys of files' metadata: of a raw file, its readings and its commit; of the files derived from it, this commit and,
# see `day_metadata`, what else they depend on and what was found when they were made.
READINGS, COMMIT = "readings", "commit"
AS_OF, ATTRIBUTES = "as_of", "attributes"
FACTS, IS_DAY_OVER, SHRUNK, DRIFT = "facts", "is_day_over", "shrunk", "drift"


@dataclass(frozen=True, eq=False)
class Table:
    """One table of the lake.

    `order`: the columns that a file's rows are sorted by.
    `partition_column`: the Hive key of the day folders; None if the whole table is one file.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    order: tuple[str, ...]
    partition_column: Literal["start_date", "usage_date"] | None = "start_date"
    group: Group = "sessions"

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns' names and types, with their descriptions as metadata."""
        fields = [pa.field(one.name, one.type, one.nullable, {"description": one.description}) for one in self.columns]
        return pa.schema(fields)


Tables: TypeAlias = Mapping[Table, pa.Table]
"""Tables of one UTC day, as transforms receive them: with at least the columns declared in `reads`."""
Reads: TypeAlias = Mapping[Table, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class DayTables:
    """The stored tables of one UTC day (None: the rows without a day), as checks receive them.

    `load`: returns a table's rows and file metadata, or None if the day has no such table.
    `now`: the time of the run.
    `last_readings`: the latest reading of each workspace, newest last.
    `workspaces`: the ids of the workspaces in the settings; empty for the key's own.
    """

    day: date | None
    load: Callable[[Table], tuple[pa.Table, Mapping[str, str]] | None]
    now: datetime
    last_readings: Sequence[Reading] = ()
    workspaces: Sequence[str] = ()

    def __getitem__(self, table: Table) -> pa.Table:
        """The table's rows, with at least the columns declared in `reads`.

        Raises:
            KeyError: the day has no such table.
        """
        if (found := self.load(table)) is None:
            raise KeyError(table.name)
        return found[0]

    def metadata(self, table: Table) -> Mapping[str, str]:
        """The metadata of the table's file; empty if the day has no such table."""
        found = self.load(table)
        return {} if found is None else found[1]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check.

    `broken`: the names of all cases for which the check does not hold.
    `counts`: figures to show beside the result; `merged` adds those of several days.
    `unique`: values that must not occur twice across all checked days; `merged` finds the duplicates.
    """

    broken: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    unique: pa.ChunkedArray | None = None

    @property
    def passed(self) -> bool:
        """Whether the check holds. If `unique` is set, only the merged result can tell."""
        return not self.broken

    @classmethod
    def merged(cls, results: Iterable[Self]) -> Self:
        """One result for several days: counts added, broken cases joined, duplicates of `unique` found."""
        results = list(results)
        counts = Counter[str]()
        for result in results:
            counts.update(result.counts)
        broken = list(chain.from_iterable(result.broken for result in results))
        chunks = [chunk for result in results if result.unique is not None for chunk in result.unique.chunks]
        return cls((*broken, *_duplicates(pa.chunked_array(chunks, pa.string()))), counts)


def _duplicates(values: pa.ChunkedArray) -> list[str]:
    """The values that occur more than once, sorted."""
    # Sorted, because counting would take 200 bytes of memory for each value. In one chunk, because sorting one for each
    # day takes three times as long.
    ordered = values.combine_chunks().sort()
    return list(pc.unique(ordered[1:].filter(pc.equal(ordered[1:], ordered[:-1]))).to_pylist())


@dataclass(frozen=True, slots=True)
class Derived:
    """How one day of a table is computed from other tables of that day.

    `make`: returns the table's columns, in any order.
    `reads`: the columns that `make` needs of each of them.
    `by_session`: each row belongs to one session, so `make` can run on a few sessions at a time.
    `takes`: the names of further arguments of `make`: `attributes`, the keys of `extra.metadata` that costs are summed
    by (a file made for others is replaced); `open_workspaces`, those that were last read before the day had ended.
    """

    make: Callable[..., pa.Table]
    reads: Reads
    by_session: bool
    takes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """A statement about a table, and the function that checks it for one day.

    `consequence`: what it means for costs if the check fails, and what to do about it.
    `reads`: the columns that `function` needs of each table; days that lack one of these tables pass unchecked.
    `days`: which days are checked: those of the run, or the recent ones that the schedule keeps fresh.
    """

    name: str
    table: Table
    description: str
    consequence: str
    function: Callable[[DayTables], CheckResult]
    reads: Reads
    severity: Severity
    days: CheckedDays

    def examine(self, day: DayTables) -> CheckResult:
        """Check one day."""
        return self.function(day) if all(map(day.load, self.reads)) else CheckResult()


DERIVED: dict[Table, Derived] = {}
CHECKS: dict[str, Check] = {}


def columns_read(checks: Iterable[Check]) -> Reads:
    """The columns of each table that these checks need, all together."""
    columns: dict[Table, tuple[str, ...]] = {}
    for table, names in chain.from_iterable(one.reads.items() for one in checks):
        columns[table] = tuple(dict.fromkeys((*columns.get(table, ()), *names)))
    return columns


def derived(
    table: Table, *, reads: Reads, by_session: bool = False, takes: tuple[str, ...] = ()
) -> Callable[[Callable[..., pa.Table]], Callable[..., pa.Table]]:
    """Register the function that computes a day of `table`, see `Derived`. Registration order is computation order."""

    def register(function: Callable[..., pa.Table]) -> Callable[..., pa.Table]:
        DERIVED[table] = Derived(function, reads, by_session, takes)
        return function

    return register


def check(
    table: Table,
    description: str,
    consequence: str,
    *,
    reads: Reads,
    severity: Severity = "error",
    days: CheckedDays = "run",
) -> Callable[[Callable[[DayTables], CheckResult]], Callable[[DayTables], CheckResult]]:
    """Register a check of `table` under the function's name, see `Check`."""

    def register(function: Callable[[DayTables], CheckResult]) -> Callable[[DayTables], CheckResult]:
        name = function.__name__
        CHECKS[name] = Check(name, table, description, consequence, function, reads, severity, days)
        return function

    return register
