"""How new readings of a day join the stored ones. Pure.

`raw_sessions` holds a payload once, under the reading that first gave it: an unchanged session costs nothing. The list
of readings travels in the Parquet file's metadata, so that rows and readings are replaced together or not at all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables.raw_sessions import RAW_SESSIONS
from sessions_pipeline.tables.readings import RawRow, Reading, gone_since, open_workspaces, raw_rows, record_key
from sessions_pipeline.validation.records import FetchedDay, Record
from sessions_pipeline.validation.types import TIMESTAMP

# So few records that their payloads never overflow text offsets of 32 bits: up to 128 kB each.
_CHUNK = 16_384


class Merged(NamedTuple):
    """A day's raw rows and readings with new ones; `heard` are the new ones, also those that taught nothing."""

    rows: pa.Table
    readings: list[Reading]
    heard: list[Reading]
    learned: bool


def merge(
    rows: pa.Table,
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
    committed_since = [] if base == version else _since(readings, base)
    first_late = committed_since[0].number if committed_since else None
    for day in fetched:
        before = (name for reading in merged.readings if reading.asked is None for name in reading.workspaces)
        speaks_for = {day.workspace} if day.workspace else {*before, *_workspaces(day.records)}
        if first_late is not None and any(speaks_for.intersection(other.workspaces) for other in committed_since):
            merged = _merge_late(merged, day, speaks_for, first_late, version)
            first_late += 1
        else:
            merged = _merge_newest(merged, day, speaks_for, version)
    return merged


def _since(readings: Sequence[Reading], base: str | None) -> Sequence[Reading]:
    for place, reading in enumerate(readings):
        if reading.replaced == base:
            return readings[place:]
    return []


def _workspaces(records: Iterable[Record]) -> set[str]:
    return {(tenant_id or "").lower() for tenant_id in {record.tenant_id for record in records}}


def _merge_newest(merged: Merged, day: FetchedDay, speaks_for: set[str], version: str | None) -> Merged:
    readings = merged.readings
    current = {row.key: row for row in _by_reading(merged)}
    present = _by_key(day)
    missing = gone_since(readings)
    fresh = [record for key, record in present.items() if key not in current or current[key].payload != record.payload]
    gone = {key for key, row in current.items() if row.workspace in speaks_for} - present.keys() - missing.keys()
    reading = replace(
        _reading(day, speaks_for, max((reading.number for reading in readings), default=0) + 1, len(fresh), version),
        gone=tuple(sorted(gone)),
        back=tuple(sorted(missing.keys() & present.keys())),
    )
    return _joined(merged, day, reading, fresh)


def _merge_late(merged: Merged, day: FetchedDay, speaks_for: set[str], number: int, version: str | None) -> Merged:
    """The same for a reading that others overtook: it takes their first number, and they move up by one."""
    versions: dict[str, set[str]] = {}
    for row in _by_reading(merged):
        # The version that was current when the reading began, and all since.
        since = versions.setdefault(row.key, set())
        if row.reading < number:
            since.clear()
        since.add(row.payload)
    fresh = [record for key, record in _by_key(day).items() if record.payload not in versions.get(key, ())]
    if not fresh:
        return merged._replace(heard=[*merged.heard, _reading(day, speaks_for, number - 1, 0, version)])
    moved = pc.add(merged.rows.column("reading"), pc.greater_equal(merged.rows.column("reading"), number).cast("int64"))
    place = merged.rows.schema.get_field_index("reading")
    rows = merged.rows.set_column(place, merged.rows.schema.field(place), moved)
    readings = [replace(other, number=other.number + (other.number >= number)) for other in merged.readings]
    heard = [replace(other, number=other.number + (other.number >= number)) for other in merged.heard]
    reading = _reading(day, speaks_for, number, len(fresh), version)
    return _joined(Merged(rows, readings, heard, merged.learned), day, reading, fresh)


def _by_reading(merged: Merged) -> list[RawRow]:
    return sorted(raw_rows(merged.rows, merged.readings), key=lambda row: row.reading)


def _by_key(day: FetchedDay) -> dict[str, Record]:
    return {
        record_key(record.session_id, record.tenant_id, record.payload, day.workspace): record for record in day.records
    }


def _reading(day: FetchedDay, speaks_for: set[str], number: int, added: int, version: str | None) -> Reading:
    return Reading(
        number=number,
        fetched_at=day.fetched_at,
        asked=day.workspace,
        workspaces=tuple(sorted(speaks_for)),
        received=day.received,
        repeated=day.received - len(day.records),
        requests=day.requests,
        added=added,
        replaced=version,
    )


def _joined(merged: Merged, day: FetchedDay, reading: Reading, fresh: Sequence[Record]) -> Merged:
    known = {name for other in merged.readings for name in other.workspaces}
    was_open = open_workspaces(day.day, merged.readings).intersection(reading.workspaces)
    learned = (
        not merged.readings
        or reading.has_learned
        or not known.issuperset(reading.workspaces)
        or bool(was_open.symmetric_difference(open_workspaces(day.day, [reading])))
    )
    if not learned:
        # It stands for the commit that it found nothing to add to.
        reading = replace(reading, number=reading.number - 1)
        return merged._replace(heard=[*merged.heard, reading])
    readings = sorted([*merged.readings, reading], key=lambda reading: reading.number)
    rows = pa.concat_tables([merged.rows, *_tables(fresh, reading)])
    return Merged(rows, readings, [*merged.heard, reading], learned=True)


def _tables(records: Sequence[Record], reading: Reading) -> list[pa.Table]:
    tables = []
    for first in range(0, len(records), _CHUNK):
        part = records[first : first + _CHUNK]
        sent = [pa.array(map(attrgetter(name), part), pa.string()) for name in RAW_SESSIONS.schema.names[:4]]
        at = (pa.scalar(reading.number, pa.int64()), pa.scalar(reading.fetched_at, TIMESTAMP))
        read = [pa.repeat(value, len(part)) for value in at]
        tables.append(pa.Table.from_arrays([*sent, *read], schema=RAW_SESSIONS.schema))
    return tables
