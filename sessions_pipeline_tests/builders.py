"""Builders of readable test data: a test gives the values that matter, and the others are valid."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import pyarrow as pa

from sessions_pipeline.tables import SESSIONS, TABLES
from sessions_pipeline.validation.validate import Validator

NOON = datetime(2025, 3, 3, 12, tzinfo=UTC)
TENANT = "7e000000-0000-4000-8000-000000000001"
OTHER_TENANT = "7e000000-0000-4000-8000-000000000002"


def uuid(number: int, prefix: str = "5e") -> str:
    """A canonical UUID that is easy to read: `5e…7` for 7."""
    return f"{prefix}000000-0000-4000-8000-{number:012d}"


def dataset(number: int) -> str:
    return uuid(number, "da")


def record(number: int = 1, **properties: Any) -> dict[str, Any]:
    """A session as the API sends it, with the properties that every session has and the given ones, no others."""
    return {
        "id": uuid(number),
        "tenant_id": TENANT,
        "name": f"session {number}",
        "start_time": (NOON + timedelta(seconds=number)).isoformat(),
        **properties,
    }


def payload(number: int = 1, **properties: Any) -> str:
    """`record` as JSON text."""
    return json.dumps(record(number, **properties))


def session(number: int = 1, **columns: Any) -> dict[str, Any]:
    """A row of `sessions`. Nullable columns that are not given are null. A cost may be given as text."""
    row = {
        **dict.fromkeys(SESSIONS.schema.names),
        "id": uuid(number),
        "tenant_id": TENANT,
        "name": f"session {number}",
        "start_time": NOON + timedelta(seconds=number),
        "fetched_at": NOON + timedelta(days=1),
        "stats_as_of": NOON + timedelta(days=1),
        **columns,
    }
    return {name: _json(value) if isinstance(value, dict) else value for name, value in row.items()}


def experiment(number: int = 1, **columns: Any) -> dict[str, Any]:
    """A row of `sessions` for an experiment on `dataset(1)`."""
    return session(number, **{"reference_dataset_id": dataset(1), **columns})


def sessions_table(*rows: Mapping[str, Any]) -> pa.Table:
    """The rows as a table with the schema of `sessions`."""
    return table_of("sessions", rows)


class Validated(NamedTuple):
    """Validated records, see `Validator`."""

    sessions: pa.Table
    rejected: dict[int, tuple[str, ...]]
    drift: Counter[str]
    rounded: int
    absent: list[str]


def validate(payloads: Iterable[str]) -> Validated:
    """What a validator says of records, given as JSON text."""
    validator = Validator()
    sessions = validator.sessions(list(payloads))
    rejected = {row: tuple(reasons) for row, reasons in validator.rejected.items()}
    return Validated(sessions, rejected, validator.drift, validator.rounded, validator.absent)


def table_of(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of the lake; costs may be given as text."""
    schema = next(table.schema for table in TABLES if table.name == name)
    exact = [{column: _exact(schema.field(column).type, value) for column, value in row.items()} for row in rows]
    return pa.Table.from_pylist(exact, schema=schema)


def on_day(day: date, table: pa.Table) -> pa.Table:
    """The table with its partition's `start_date` as a column, as the lake returns several days."""
    return table.append_column(pa.field("start_date", pa.date32()), pa.array([day] * table.num_rows, pa.date32()))


def _exact(kind: pa.DataType, value: Any) -> Any:
    return Decimal(value) if pa.types.is_decimal(kind) and value is not None else value


def _json(value: Any) -> str:
    return json.dumps(value)
