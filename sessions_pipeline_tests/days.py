"""Builders for tests of `process_day`, transforms and checks: readings as a source gives them, and a day in a lake."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.layout import Day
from sessions_pipeline.langsmith.records import RAW_SCHEMA, read_page, records_table
from sessions_pipeline.process_day import DayResult, examine_day, process_day
from sessions_pipeline.tables import (
    CHECKS,
    DERIVED,
    RAW_SESSIONS,
    REJECTED_SESSIONS,
    SESSIONS,
    TABLES,
    CheckResult,
    DayTables,
    Table,
)
from sessions_pipeline.tables.derived_day import RunOptions
from sessions_pipeline.tables.readings import RawDay, Reading
from sessions_pipeline.tables.rows import Rows
from sessions_pipeline_tests.builders import NOON

DAY = NOON.date()
HOUR = timedelta(hours=1)
# The morning after `DAY`, so that the day is over.
READ = datetime(2025, 3, 4, 6, tzinfo=UTC)
DAILY = tuple(table.name for table in (RAW_SESSIONS, SESSIONS, REJECTED_SESSIONS, *DERIVED))
OPTIONS = RunOptions(DAILY, 0.2, ("models", "git.branch"), None, None, READ)


def fetched(
    *payloads: str,
    at: datetime = READ,
    workspace: str | None = None,
    day: date | None = DAY,
    received: int | None = None,
) -> RawDay:
    """One reading of a day, from the JSON texts of its records. `received` defaults to their number."""
    rows = Rows(RAW_SCHEMA, [records_table(read_page(f"[{','.join(payloads)}]".encode()))])
    received = rows.num_rows if received is None else received
    reading = Reading(0, at, workspace, received=received, repeated=received - rows.num_rows, requests=1)
    return RawDay(day, rows, [reading])


class ProcessedDay:
    """One day in a lake, for tests that process it several times."""

    def __init__(self, root: Path, day: Day = DAY, **options: Any) -> None:
        self.lake = Lake.open(str(root), query={})
        self.day = day
        self.options = replace(OPTIONS, **options)

    @property
    def base(self) -> str | None:
        """The current version of the day's raw sessions."""
        return self.lake.versions(RAW_SESSIONS, [self.day])[self.day]

    def read(self, *readings: RawDay, base: str | Any | None = ..., received: int = 0, **options: Any) -> DayResult:
        """Process the day with these readings. `base` defaults to the current version of its raw sessions."""
        base = self.base if base is ... else base
        readings = tuple(reading._replace(version=base) for reading in readings)
        return process_day(self.lake, self.day, readings, received, options=replace(self.options, **options))

    def again(self, **options: Any) -> DayResult:
        """Rebuild the day's tables from its stored raw sessions, without a new reading."""
        return process_day(self.lake, self.day, options=replace(self.options, **options))

    def rows(self, table: Table) -> list[dict[str, Any]]:
        """The rows of a table."""
        return self.lake.read(table, self.day).to_pylist()

    def row(self, table: Table, **values: Any) -> dict[str, Any]:
        """The only row with these values."""
        (row,) = [row for row in self.rows(table) if values.items() <= row.items()]
        return row

    def versions(self) -> dict[str, str | None]:
        """The version of each table's file, by the table's name."""
        return {name: self.lake.versions(table, [self.day])[self.day] for name, table in _BY_NAME.items()}

    def check(self, name: str, now: datetime = READ) -> CheckResult:
        """The result of a check of the day."""
        return CheckResult.merged([examine_day(self.lake, self.day, [name], now, ())[name]])

    def broken_checks(self, now: datetime = READ) -> dict[str, Sequence[str]]:
        """What each failing check reports. Leaves out drift, because the builders' records lack most properties."""
        results = {name: self.check(name, now) for name in CHECKS if name != "schema_has_not_drifted"}
        return {name: result.broken for name, result in results.items() if not result.passed}


_BY_NAME = {table.name: table for table in TABLES if table.name in DAILY}


def day_of(tables: Mapping[Table, pa.Table], day: date | None = DAY, **more: Any) -> DayTables:
    """Tables made by hand, in the form that checks take. `metadata` is their files', by table."""
    metadata = more.pop("metadata", {})
    return DayTables(
        day,
        lambda table: (tables[table], metadata.get(table, {})) if table in tables else None,
        **{"now": READ, **more},
    )


def derive(table: Table, tables: Mapping[Table, pa.Table], **more: Any) -> pa.Table:
    """A derived table, made from these tables and sorted in its own order."""
    arguments = {name: more.get(name, ()) for name in DERIVED[table].takes}
    made = DERIVED[table].make(tables, **arguments)
    # `Rows` would convert other types.
    assert made.select(table.schema.names).schema.types == table.schema.types
    return Rows(table.schema, [made]).table().sort_by([(name, "ascending") for name in table.order])
