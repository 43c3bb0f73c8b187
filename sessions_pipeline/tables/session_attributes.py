"""What experiments say about themselves: the metadata of their `extra`, one row per key."""

from contextlib import suppress
from hashlib import sha256

import msgspec
import pyarrow as pa

from sessions_pipeline.tables import column
from sessions_pipeline.tables.aggregate import OWNER
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
    group="experiments",
)
_LEVELS = 3
_LONGEST = 200
_NULL = msgspec.Raw(b"null")
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])
_STRING = msgspec.json.Decoder(str)


class _Extra(msgspec.Struct, gc=False):
    metadata: msgspec.Raw = _NULL


_EXTRA = msgspec.json.Decoder(_Extra)


@derived(SESSION_ATTRIBUTES, reads={SESSIONS: (*OWNER, "extra")}, by_session=True)
def session_attributes(day: DayTables) -> pa.Table:
    """The attributes of those sessions that are experiments."""
    said, places, keys, values = experiments(day, [*OWNER, "extra"]), list[int](), list[str](), list[str]()
    for place, extra in enumerate(said.column("extra").to_pylist()):
        found = attributes(extra)
        names = sorted(found)
        places += [place] * len(names)
        keys += names
        values += [found[name] for name in names]
    owners = said.select(OWNER).take(pa.array(places, pa.int64()))
    return pa.table([*owners.columns, keys, values], SESSION_ATTRIBUTES.schema)


def attributes(extra: str | None) -> dict[str, str]:
    """The attributes in a session's `extra`, JSON text or None: each key's value as text.

    Nested objects count by dotted key, three levels deep. Nulls, arrays with none but nulls or with anything but
    scalars, and keys that begin with `__` are left out.
    """
    found: dict[str, str] = {}
    with suppress(msgspec.ValidationError):
        _flatten(found, "", _EXTRA.decode(extra or "{}").metadata, _LEVELS)
    return found


def _flatten(found: dict[str, str], prefix: str, sent: msgspec.Raw, levels: int) -> None:
    """Add an object's members by dotted key.

    Raises:
        msgspec.ValidationError: it is no object.
    """
    for name, value in _MEMBERS.decode(sent).items():
        text = bytes(value)
        if name.startswith("__"):
            continue
        if text.startswith(b"{"):
            if levels > 1:
                _flatten(found, f"{prefix}{name}.", value, levels - 1)
        elif (spelt := _spell(text)) is not None:
            if len(spelt) > _LONGEST:
                spelt = f"{spelt[:191]}…{sha256(spelt.encode()).hexdigest()[:8]}"
            found[f"{prefix}{name}"] = spelt


def _spell(sent: bytes) -> str | None:
    """A scalar, or an array of them, as text; None for what is left out."""
    if sent.startswith(b'"'):
        return _STRING.decode(sent)
    if sent.startswith(b"["):
        parts = [bytes(part) for part in _ELEMENTS.decode(sent)]
        if any(part.startswith((b"[", b"{")) for part in parts):
            return None
        return ", ".join(sorted({spelt for part in parts if (spelt := _spell(part)) is not None})) or None
    return None if sent == b"null" else sent.decode()
