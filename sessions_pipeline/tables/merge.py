"""How new readings of a day join the stored ones. Pure.

`raw_sessions` holds a payload once, under the reading that first gave it: an unchanged session costs nothing. The list
of readings travels in the Parquet file's metadata, so that rows and readings are replaced together or not at all.
"""

from collections.abc import Iterable, Sequence
from datetime import date
from hashlib import sha256
from itertools import repeat
from operator import attrgetter
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from sessions_pipeline.tables.raw_sessions import RAW_SESSIONS
from sessions_pipeline.tables.readings import Reading, asked_for, gone_since, open_workspaces, record_keys, unconfirmed
from sessions_pipeline.validation.records import FetchedDay
from sessions_pipeline.validation.rows import Rows
from sessions_pipeline.validation.types import TIMESTAMP

_NEVER = (0, "", False)
_COMPARED = ("reading", "tenant_id", "payload")


class Merged(NamedTuple):
    """A day's raw rows and readings with new ones; `heard` are the new ones, also those that taught nothing."""

    rows: Rows
    readings: list[Reading]
    heard: list[Reading]
    learned: bool


def merge(
    rows: Rows,
    readings: Sequence[Reading],
    fetched: Iterable[FetchedDay],
    *,
    base: str | None = None,
    version: str | None = None,
) -> Merged:
    """Join readings of a day to the stored ones: rows for new or differing payloads, and who is gone.

    Args:
        rows: the stored rows of `raw_sessions`.
        readings: the stored readings, in their order.
        fetched: what was read, a workspace each.
        base: the file's version before the first request.
        version: the file's version now. Where it is another, readings were committed since: they were quicker, and
            decide. A late reading is numbered before them; it may add rows, and says of nobody that they are gone.
    """
    merged = Merged(rows, list(readings), [], learned=False)
    for day in fetched:
        before = (name for reading in merged.readings if reading.asked is None for name in reading.workspaces)
        tenants = pc.unique(day.rows.table("tenant_id").column(0)).to_pylist()
        seen = ((tenant_id or "").lower() for tenant_id in tenants)
        speaks_for = {day.workspace} if day.workspace else {*before, *seen}
        since = _committed_since(merged.readings, base, version)
        is_late = any(speaks_for.intersection(other.workspaces) for other in since)
        reading = Reading(
            number=since[0].number if is_late else max((other.number for other in merged.readings), default=0) + 1,
            fetched_at=day.fetched_at,
            asked=day.workspace,
            workspaces=tuple(sorted(speaks_for)),
            received=day.received,
            repeated=day.received - day.rows.num_rows,
            requests=day.requests,
            replaced=version,
        )
        merged = _joined(merged, day, reading, is_late=is_late)
    return merged


def _committed_since(readings: Sequence[Reading], base: str | None, version: str | None) -> list[Reading]:
    """The readings from the one that replaced `base` on, but for those of this run, which replace `version`."""
    first = next((place for place, reading in enumerate(readings) if reading.replaced == base), len(readings))
    return [reading for reading in readings[first:] if reading.replaced != version]


def _joined(merged: Merged, day: FetchedDay, reading: Reading, *, is_late: bool) -> Merged:
    """The rows and readings with one more. Where it is late it has the first number of those that overtook it."""
    present = _present(day, is_new=not merged.rows.num_rows)
    # What was known of a session when the reading began: by which reading, in which workspace, and whether it is what
    # this one says; and whether one of those that overtook it says so.
    before, since = dict[str, tuple[int, str, bool]](), dict[str, bool]()
    asked_of = asked_for(merged.rows, merged.readings)
    known_rows = zip(record_keys(merged.rows, asked_of), asked_of, merged.rows.tuples(*_COMPARED), strict=True)
    for key, asked, (number, tenant_id, payload) in known_rows:
        is_same = key in present and present[key][1] == _digest(payload)
        if number >= reading.number:
            since[key] = since.get(key, False) or is_same
        elif number >= before.get(key, _NEVER)[0]:
            before[key] = number, asked or (tenant_id or "").lower(), is_same
    fresh = {place for key, (place, _) in present.items() if not (since.get(key) or before.get(key, _NEVER)[2])}
    if is_late:
        alone = present.keys() - before.keys() - since.keys()
        reading = replace(reading, added=len(fresh), alone=tuple(sorted(alone)))
        learned = bool(fresh)
    else:
        missing = gone_since(merged.readings).keys()
        known = {key for key, (_, workspace, _) in before.items() if workspace in reading.workspaces}
        gone = known - present.keys() - missing
        back = present.keys() & (missing | unconfirmed(merged.readings))
        reading = replace(reading, added=len(fresh), gone=tuple(sorted(gone)), back=tuple(sorted(back)))
        learned = bool(fresh or gone or back) or _is_first(merged.readings, reading, day.day)
    if not learned:
        # It stands for the commit that it found nothing to add to.
        return merged._replace(heard=[*merged.heard, replace(reading, number=reading.number - 1)])
    if is_late:
        merged = _moved(merged, reading.number)
    readings = sorted([*merged.readings, reading], key=attrgetter("number"))
    fresh_rows = day.rows if len(fresh) == day.rows.num_rows else day.rows.only(fresh.__contains__)
    number, at = pa.scalar(reading.number, pa.int64()), pa.scalar(reading.fetched_at, TIMESTAMP)
    rows = merged.rows.joined(fresh_rows, reading=number, fetched_at=at)
    return Merged(rows, readings, [*merged.heard, reading], learned=True)


def _is_first(readings: Sequence[Reading], reading: Reading, day: date | None) -> bool:
    """Whether a reading is the first of the day or of a workspace, or differs from it in whether the day was over."""
    known = {name for other in readings for name in other.workspaces}
    was_open = open_workspaces(day, readings).intersection(reading.workspaces or ("",))
    return not readings or not known.issuperset(reading.workspaces) or was_open != open_workspaces(day, [reading])


def _moved(merged: Merged, first: int) -> Merged:
    """The same with the readings from the number `first` on moved up by one."""

    def moved(readings: Iterable[Reading]) -> list[Reading]:
        return [replace(reading, number=reading.number + (reading.number >= first)) for reading in readings]

    place, rows = RAW_SESSIONS.schema.get_field_index("reading"), Rows(RAW_SESSIONS.schema)
    for part in merged.rows.parts():
        numbers = part.column(place)
        numbers = pc.add(numbers, pc.greater_equal(numbers, first).cast(numbers.type))
        rows.add(part.set_column(place, RAW_SESSIONS.schema.field(place), numbers))
    return merged._replace(rows=rows, readings=moved(merged.readings), heard=moved(merged.heard))


def _present(day: FetchedDay, *, is_new: bool) -> dict[str, tuple[int, bytes]]:
    """The place of each session that was read, and a digest of its text where there is any to compare it with."""
    keys = record_keys(day.rows, [day.workspace] * day.rows.num_rows)
    digests = repeat(b"") if is_new else (_digest(payload) for (payload,) in day.rows.tuples("payload"))
    return dict(zip(keys, enumerate(digests), strict=False))


def _digest(payload: str) -> bytes:
    return sha256(payload.encode()).digest()
