"""What experiments say about themselves: the metadata of their `extra`, one row per key."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from sessions_pipeline.tables import column
from sessions_pipeline.tables.aggregate import OWNER, rows_of_sessions
from sessions_pipeline.tables.sessions import SESSIONS, experiments
from sessions_pipeline.tables.table import DayTables, Table, derived

SESSION_ATTRIBUTES = Table(
    "session_attributes",
    "What experiments say about themselves: one row per session and key of `extra.metadata`.",
    (
        column.text("session_id", "The experiment, canonical UUID", nullable=False),
        column.TENANT,
        column.EXPERIMENTS_DATASET,
        column.text(
            "key",
            "The metadata's key; of nested objects the keys joined by dots, three levels",
            nullable=False,
            repeats=True,
        ),
        column.text(
            "value",
            "Its value: text, numbers as sent, true or false, arrays of these sorted and joined by commas; one of "
            "over 200 characters is cut to 191 with `…` and eight hex digits of its SHA-256",
            nullable=False,
            repeats=True,
        ),
    ),
    order=("session_id", "key"),
    group="insight",
)
_LEVELS = 3
_LONGEST = 200
_CUT = 191
_DIGITS = 8


class _Number(str):
    """A JSON number as it was sent."""

    __slots__ = ()


@derived(SESSION_ATTRIBUTES, reads={SESSIONS: (*OWNER, "extra")})
def session_attributes(day: DayTables) -> pa.Table:
    """The attributes of a day's experiments, in the table's order."""
    found = experiments(day, [*OWNER, "extra"])
    return rows_of_sessions(SESSION_ATTRIBUTES, found, ["extra"], lambda extra: attributes(extra).items())


def attributes(extra: str | None) -> dict[str, str]:
    """The attributes in a session's `extra`, JSON text or None: each key's value as text.

    Nested objects count by dotted key, three levels deep. Nulls, arrays with none but nulls or with anything but
    scalars, and keys that begin with `__` are left out.
    """
    sent = json.loads(extra or "null", parse_int=_Number, parse_float=_Number)
    metadata = sent.get("metadata") if isinstance(sent, dict) else None
    return dict(_flat("", metadata, _LEVELS)) if isinstance(metadata, dict) else {}


def _flat(prefix: str, values: Mapping[str, Any], levels: int) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if name.startswith("__"):
            continue
        if isinstance(value, dict):
            if levels > 1:
                yield from _flat(f"{prefix}{name}.", value, levels - 1)
        elif (spelt := _spell(value)) is not None:
            yield f"{prefix}{name}", _shortened(spelt)


def _spell(value: Any) -> str | None:
    """A scalar, or an array of them, as text; None for what is left out."""
    if isinstance(value, list):
        if any(isinstance(part, list | dict) for part in value):
            return None
        return ", ".join(sorted({spelt for part in value if (spelt := _spell(part)) is not None})) or None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str) else None


def _shortened(value: str) -> str:
    if len(value) <= _LONGEST:
        return value
    return f"{value[:_CUT]}…{hashlib.sha256(value.encode()).hexdigest()[:_DIGITS]}"
