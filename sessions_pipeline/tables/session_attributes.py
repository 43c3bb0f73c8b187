"""The metadata that experiments carry in `extra`, one row per key."""

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
from sessions_pipeline.tables.table import Table, Tables, derived

SESSION_ATTRIBUTES = Table(
    "session_attributes",
    "The metadata of experiments: one row per session and key of `extra.metadata`.",
    (
        column.text("session_id", "The experiment, canonical UUID", nullable=False),
        column.TENANT,
        column.EXPERIMENTS_DATASET,
        column.text(
            "key", "The metadata key; keys of nested objects are joined by dots, down to three levels", nullable=False
        ),
        column.text(
            "value",
            "The value as text: strings, numbers as sent, `true` or `false`; arrays of these are sorted and joined by "
            "`, `; over 200 characters are cut to 191, followed by `…` and eight hex digits of the SHA-256",
            nullable=False,
        ),
    ),
    order=("session_id", "key"),
    group="experiments",
)
_LEVELS = 3
_LONGEST = 200
_NESTED = frozenset([list, dict])
# msgspec decodes `-0` to 0, so texts that contain it take the slower way.
_NEGATIVE_ZERO = re.compile(r"-0(?=[\s,\]}])")


class _Extra(msgspec.Struct, gc=False):
    metadata: dict[str, Any] | None = None


# Numbers with a fraction or exponent stay as sent (`float_hook`); integers have only one spelling.
_EXTRAS = msgspec.json.Decoder(list[_Extra | None], float_hook=str)


@derived(SESSION_ATTRIBUTES, reads={SESSIONS: (*OWNER, "extra")}, by_session=True)
def session_attributes(tables: Tables) -> pa.Table:
    """The attributes of the day's experiments."""
    rows = experiments(tables, [*OWNER, "extra"])
    indices, keys, values = entries(attributes(rows.column("extra").to_pylist()))
    return pa.table([*rows.select(OWNER).take(indices).columns, keys, values], SESSION_ATTRIBUTES.schema)


def attributes(extras: Sequence[str | None]) -> list[dict[str, str]]:
    """The attributes of each session: metadata key to value as text. `extras`: the sessions' `extra`, JSON or None.

    Keys of nested objects are joined by dots, down to three levels. Left out are nulls, arrays that hold only nulls or
    anything nested, and keys that begin with `__`.
    """
    found = [dict[str, str]() for _ in extras]
    for attributes_, metadata in zip(found, metadata_of([extra or "null" for extra in extras]), strict=True):
        _flatten(attributes_, "", metadata, _LEVELS)
    return found


def metadata_of(extras: Sequence[str]) -> list[dict[str, Any]]:
    """The metadata object of each session, empty if it is absent or not an object. Usually decoded all at once."""
    joined = f"[{','.join(extras)}]"
    with suppress(msgspec.ValidationError):
        if not _NEGATIVE_ZERO.search(joined):
            return [(extra and extra.metadata) or {} for extra in _EXTRAS.decode(joined)]
    decoded = [json.loads(extra, parse_int=str, parse_float=str) for extra in extras]
    found = [extra.get("metadata") if isinstance(extra, dict) else None for extra in decoded]
    return [metadata if isinstance(metadata, dict) else {} for metadata in found]


def _flatten(found: dict[str, str], prefix: str, members: Mapping[str, Any], levels: int) -> None:
    """Add an object's members to `found`, under their dotted keys."""
    for name, value in members.items():
        if name.startswith("__"):
            continue
        if isinstance(value, dict):
            if levels > 1:
                _flatten(found, f"{prefix}{name}.", value, levels - 1)
        elif (text := value if isinstance(value, str) else _as_text(value)) is not None:
            if len(text) > _LONGEST:
                text = f"{text[:191]}…{sha256(text.encode()).hexdigest()[:8]}"
            found[prefix + name] = text


def _as_text(value: Any) -> str | None:
    """A scalar or an array of scalars as text; None if it is to be left out."""
    if not isinstance(value, list):
        return value if value is None or isinstance(value, str) else str(value).lower()
    try:
        # Most arrays hold only strings; this takes a third of the time.
        return ", ".join(sorted(set(value))) if value else None
    except TypeError:
        if not _NESTED.isdisjoint(map(type, value)):
            return None
        texts = {text for part in value if (text := _as_text(part)) is not None}
        return ", ".join(sorted(texts)) if texts else None
