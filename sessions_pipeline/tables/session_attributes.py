"""What experiments say about themselves: the metadata of their `extra`, one row per key."""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any

import msgspec
import pyarrow as pa

from sessions_pipeline.tables import column
from sessions_pipeline.tables.aggregate import entries
from sessions_pipeline.tables.sessions import OWNER, SESSIONS, experiments
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
    group="experiments",
)
_LEVELS = 3
_LONGEST = 200
_NESTED = frozenset([list, dict])
# Which msgspec reads as 0.
_NEGATIVE_ZERO = re.compile(r"-0(?=[\s,\]}])")


class _Extra(msgspec.Struct, gc=False):
    metadata: dict[str, Any] | None = None


# Fractions and exponents stay as they were sent; whole numbers have one spelling.
_EXTRAS = msgspec.json.Decoder(list[_Extra | None], float_hook=str)


@derived(SESSION_ATTRIBUTES, reads={SESSIONS: (*OWNER, "extra")}, by_session=True)
def session_attributes(day: DayTables) -> pa.Table:
    """The attributes of those sessions that are experiments."""
    said = experiments(day, [*OWNER, "extra"])
    places, keys, values = entries(attributes(said.column("extra").to_pylist()))
    return pa.table([*said.select(OWNER).take(places).columns, keys, values], SESSION_ATTRIBUTES.schema)


def attributes(extras: Sequence[str | None]) -> list[dict[str, str]]:
    """The attributes in sessions' `extra`, JSON texts or None: of each session its keys' values as text.

    Nested objects count by dotted key, three levels deep. Nulls, arrays with none but nulls or with anything but
    scalars, and keys that begin with `__` are left out.
    """
    found = [dict[str, str]() for _ in extras]
    for of_session, metadata in zip(found, _metadata([extra or "null" for extra in extras]), strict=True):
        _flatten(of_session, "", metadata, _LEVELS)
    return found


def _metadata(extras: Sequence[str]) -> list[dict[str, Any]]:
    """The metadata of each session, most often decoded in one go; empty where it is no object."""
    joined = f"[{','.join(extras)}]"
    with suppress(msgspec.ValidationError):
        if not _NEGATIVE_ZERO.search(joined):
            return [(extra and extra.metadata) or {} for extra in _EXTRAS.decode(joined)]
    read = [json.loads(extra, parse_int=str, parse_float=str) for extra in extras]
    found = [extra.get("metadata") if isinstance(extra, dict) else None for extra in read]
    return [metadata if isinstance(metadata, dict) else {} for metadata in found]


def _flatten(found: dict[str, str], prefix: str, members: Mapping[str, Any], levels: int) -> None:
    """Add an object's members by dotted key."""
    for name, value in members.items():
        if name.startswith("__"):
            continue
        if isinstance(value, dict):
            if levels > 1:
                _flatten(found, f"{prefix}{name}.", value, levels - 1)
        elif (text := value if isinstance(value, str) else _spell(value)) is not None:
            if len(text) > _LONGEST:
                text = f"{text[:191]}…{sha256(text.encode()).hexdigest()[:8]}"
            found[prefix + name] = text


def _spell(value: Any) -> str | None:
    """A scalar, or an array of them, as text; None for what is left out."""
    if not isinstance(value, list):
        return value if value is None or isinstance(value, str) else str(value).lower()
    try:
        # Most often of texts alone: so it takes a third of the time.
        return ", ".join(sorted(set(value))) or None
    except TypeError:
        if not _NESTED.isdisjoint(map(type, value)):
            return None
        return ", ".join(sorted({text for part in value if (text := _spell(part)) is not None})) or None
