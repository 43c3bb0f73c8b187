"""The readings of a day, and how a new one joins the stored ones. Pure.

`raw_sessions` holds a payload once, under the reading that first gave it: an unchanged session costs nothing. The list
of readings travels in the Parquet file's metadata, so that rows and readings are replaced together or not at all.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise

import pyarrow as pa

from sessions_pipeline.tables import RAW_SESSIONS
from sessions_pipeline.validation.arrays import moments, text_array, time_array
from sessions_pipeline.validation.records import Columns

READINGS = "readings"
# So few records that their payloads never overflow text offsets of 32 bits.
_CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of a day in one workspace.

    `fetched_at` is unique within a day, so a row's `fetched_at` names its reading. `workspaces` are those that the
    reading speaks for: the one asked for or, where none was named, all that it saw and that such readings saw before.
    `gone` names the sessions of these workspaces that earlier readings held and this one did not.
    """

    fetched_at: datetime
    asked: str | None
    workspaces: tuple[str, ...]
    received: int
    repeated: int
    requests: int
    added: int
    gone: tuple[str, ...] = ()


def dump_readings(readings: Iterable[Reading]) -> dict[str, str]:
    """The file metadata that holds the readings."""
    rows = [{**asdict(reading), "fetched_at": reading.fetched_at.isoformat()} for reading in readings]
    return {READINGS: json.dumps(rows, separators=(",", ":"))}


def load_readings(metadata: Mapping[str, str]) -> list[Reading]:
    """The readings in a file's metadata, oldest first."""
    rows = json.loads(metadata.get(READINGS, "[]"))
    return [
        Reading(
            **{
                **row,
                "fetched_at": datetime.fromisoformat(row["fetched_at"]),
                "workspaces": tuple(row["workspaces"]),
                "gone": tuple(row["gone"]),
            }
        )
        for row in rows
    ]


def last_read(metadata: Mapping[str, str]) -> datetime:
    """When the day of a file with this metadata was read last; a written day has at least one reading."""
    return max(reading.fetched_at for reading in load_readings(metadata))


def row_key(session_id: str | None, payload: str) -> str:
    """What makes two raw rows readings of the same session: its id or, where it has none, its text."""
    if session_id is not None:
        return session_id.lower()
    return f"sha256:{hashlib.sha256(payload.encode('utf-8', 'surrogatepass')).hexdigest()}"


def row_workspaces(raw: pa.Table, readings: Sequence[Reading]) -> list[str]:
    """The workspace that each raw row was read for: the one asked for, else the one that the record names."""
    asked = {reading.fetched_at: reading.asked for reading in readings}
    tenants = raw.column("tenant_id").to_pylist()
    times = moments(raw.column("fetched_at"))
    return [asked.get(time) or (tenant or "").lower() for tenant, time in zip(tenants, times, strict=True)]


def merge_reading(
    stored: pa.Table | None,
    readings: Sequence[Reading],
    records: Columns,
    *,
    asked: str | None,
    fetched_at: datetime,
    received: int,
    requests: int,
) -> tuple[pa.Table, list[Reading]]:
    """Join one reading of a day to the stored ones: rows for new or differing payloads, and who is gone.

    Returns the day's raw rows and readings. Readings that changed nothing are dropped once a later one, which changed
    nothing either, says the same.
    """
    before = (workspace for reading in readings if reading.asked is None for workspace in reading.workspaces)
    speaks_for = {asked} if asked else {*before, *((tenant or "").lower() for tenant in set(records.tenant_id))}
    gone: list[str] = []
    fresh = records
    if stored is not None:
        current, present = _current_payloads(stored, readings), _keys(records, asked)
        changed = [i for i, key in enumerate(present) if current.get(key) != records.payload[i]]
        fresh = records.only(changed)
        gone = sorted(key for workspace, key in current.keys() - set(present) if workspace in speaks_for)
    reading = Reading(
        fetched_at=fetched_at,
        asked=asked,
        workspaces=tuple(sorted(speaks_for)),
        received=received,
        repeated=received - len(records.payload),
        requests=requests,
        added=len(fresh.payload),
        gone=tuple(gone),
    )
    rows = _raw_rows(fresh, fetched_at)
    return (rows if stored is None else pa.concat_tables([stored, rows])), _append(readings, reading)


def _keys(records: Columns, asked: str | None) -> list[tuple[str, str]]:
    """For each record its workspace and what identifies it there."""
    rows = zip(records.tenant_id, records.session_id, records.payload, strict=True)
    return [(asked or (tenant or "").lower(), row_key(session_id, payload)) for tenant, session_id, payload in rows]


def _append(readings: Sequence[Reading], reading: Reading) -> list[Reading]:
    same = [other for other in readings if other.workspaces == reading.workspaces][-2:]
    # Hourly readings of a settled day would grow the list for ever: of a run of equal ones the first and the last say
    # all, so the one between them goes.
    settled = len(same) == 2 and all(  # noqa: PLR2004
        not later.added and later.gone == earlier.gone for earlier, later in pairwise([*same, reading])
    )
    return [*(other for other in readings if not settled or other is not same[-1]), reading]


def _current_payloads(stored: pa.Table, readings: Sequence[Reading]) -> dict[tuple[str, str], str]:
    ids, payloads = stored.column("session_id").to_pylist(), stored.column("payload").to_pylist()
    times = moments(stored.column("fetched_at"))
    workspaces = row_workspaces(stored, readings)
    current: dict[tuple[str, str], str] = {}
    for index in sorted(range(len(ids)), key=times.__getitem__):
        current[workspaces[index], row_key(ids[index], payloads[index])] = payloads[index]
    return current


def _raw_rows(records: Columns, fetched_at: datetime) -> pa.Table:
    tables = [pa.Table.from_batches([], RAW_SESSIONS.schema)]
    for first in range(0, len(records.payload), _CHUNK):
        part = records.part(first, _CHUNK)
        columns = [
            text_array(part.session_id),
            text_array(part.tenant_id),
            text_array(part.start_time),
            text_array(part.payload),
            time_array(fetched_at, len(part.payload)),
        ]
        tables.append(pa.table(columns, schema=RAW_SESSIONS.schema))
    return pa.concat_tables(tables)
