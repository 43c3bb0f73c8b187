"""The API's records as received. This file is the day's only commit: all other tables can be derived from it again.

A payload is stored once, under the reading that first returned it, so an unchanged session adds no row. The list of
readings is kept in the Parquet file's metadata, so that rows and readings are replaced together or not at all.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from hashlib import sha256
from itertools import repeat
from operator import attrgetter

import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from sessions_pipeline.days import midnight
from sessions_pipeline.tables import column
from sessions_pipeline.tables.readings import RawDay, Reading, gone_since, last_read, open_workspaces, unconfirmed
from sessions_pipeline.tables.rows import PLAIN, Rows
from sessions_pipeline.tables.table import CheckResult, DayTables, Table, check
from sessions_pipeline.validation.types import TIMESTAMP

# The schedule runs hourly: two missed runs are a hiccup, three are a fault.
FRESH_WITHIN = timedelta(hours=3)

IDENTITY = (
    column.text("session_id", "The record's `id` as sent; null if it is absent or not a string"),
    column.text("tenant_id", "The record's `tenant_id` as sent; null if it is absent or not a string"),
    column.text("start_time", "The record's `start_time` as sent; null if it is absent or not a string"),
)

RAW_SESSIONS = Table(
    "raw_sessions",
    "The API's records as received, before validation: one row per session and change of its payload.",
    (
        *IDENTITY,
        column.text(
            "payload", "The record's JSON text, verbatim: spacing, escapes and number spellings as sent", nullable=False
        ),
        column.count(
            "reading",
            "Number of the reading that first returned this payload; a day's readings are numbered in their order, "
            "whatever the clocks said",
            nullable=False,
        ),
        column.time("fetched_at", "When that reading began", nullable=False),
    ),
    order=("session_id", "reading"),
)
_NOT_STORED = (0, "", False)


def merge(raw: RawDay, fetched: Iterable[RawDay]) -> RawDay:
    """Merge new readings of a day into the stored ones: add rows for new or changed payloads, and note what is missing.

    If the file's version is not the one that was fetched for, other runs have committed readings since this run's first
    request. Where those cover the same workspace, this run's reading is late: it gets a number before theirs, may add
    rows, but neither decides which sessions are missing nor overrides the values that the others have found.

    Args:
        raw: the stored day.
        fetched: what this run has fetched of it, one element per workspace.
    """
    for one in fetched:
        # Uncompressed, since they are read several times. Only a very large day stays compressed.
        rows = one.rows if one.rows.nbytes > PLAIN else Rows(one.rows.schema, one.rows.parts())
        day = one._replace(rows=rows)
        before = {name for reading in raw.readings if reading.asked is None for name in reading.workspaces}
        (reading,) = day.readings
        workspaces = {reading.asked} if reading.asked else before.union(named for _, named in day.workspaces())
        # Compared with the readings as stored, so that what changes below is stored, too.
        is_new = _changes_coverage(raw.readings, replace(reading, workspaces=tuple(workspaces)), raw.day)
        if reading.asked and before <= {reading.asked, ""}:
            # It was read before without its id: readings that saw no session, and records that name no workspace, are
            # its own.
            asked = {"asked": reading.asked, "workspaces": (reading.asked,)}
            raw = raw._replace(readings=[one if one.asked else replace(one, **asked) for one in raw.readings])
        overtaken_by = _committed_since(raw, day.version)
        is_late = any(workspaces.intersection(other.workspaces) for other in overtaken_by)
        number = overtaken_by[0].number if is_late else max((old.number for old in raw.readings), default=0) + 1
        reading = replace(reading, number=number, workspaces=tuple(sorted(workspaces)), replaced=raw.version)
        # Once a run reads all workspaces by their ids, the records without one are found there, under other keys.
        covered = workspaces.union([""] if before <= {"", *(one.asked for one in (*raw.new_readings, reading))} else ())
        raw = _merge_one(raw, day, reading, covered, is_late=is_late, is_new=is_new)
    return raw


def _committed_since(raw: RawDay, base: str | None) -> list[Reading]:
    """The readings of a stored day that other runs have committed since its file had the version `base`.

    They start with the reading that replaced `base`; if that was dropped since (see `needed_readings`), with the first.
    Readings that replace the present version belong to this run.
    """
    otherwise = len(raw.readings) if base == raw.version else 0
    first = next((index for index, reading in enumerate(raw.readings) if reading.replaced == base), otherwise)
    return [reading for reading in raw.readings[first:] if reading.replaced != raw.version]


def _merge_one(raw: RawDay, day: RawDay, reading: Reading, covered: set[str], *, is_late: bool, is_new: bool) -> RawDay:
    """Merge one more reading: records of the workspaces `covered` that it lacks are missing.

    A late one has the number of the first reading that overtook it. `is_new`: it is stored even if no record changed.
    """
    (stored_keys, _), (keys, _) = raw.keys(day)
    # The fetched records by their keys: each one's row index and a digest of its payload. The digest is left empty if
    # nothing is stored to compare it with.
    digests = (_digest(payload) for (payload,) in day.rows.tuples("payload")) if raw.rows.num_rows else repeat(b"")
    present = dict(zip(keys, enumerate(digests), strict=False))
    reading = replace(reading, repeated=reading.received - len(present))
    before, since = _compare(raw, stored_keys, present, reading.number)
    new = {row for key, (row, _) in present.items() if not (since.get(key) or before.get(key, _NOT_STORED)[2])}
    if is_late:
        # Sessions that the other readings have not changed: a row would be their newest, and decide their values.
        new -= {present[key][0] for key in present.keys() & (before.keys() - since.keys())}
        alone = present.keys() - before.keys() - since.keys()
        reading = replace(reading, added=len(new), alone=tuple(sorted(alone)))
        learned = bool(new)
    else:
        missing = gone_since(raw.readings).keys()
        known = {key for key, (_, workspace, _) in before.items() if workspace in covered and not reading.is_partial}
        gone = known - present.keys() - missing
        # A key that no row has is of a session that has its plain key now, see `RawDay.keys`.
        back = {key for key in missing | unconfirmed(raw.readings) if key in present or key not in before}
        reading = replace(reading, added=len(new), gone=tuple(sorted(gone)), back=tuple(sorted(back)))
        learned = bool(new or gone or back or is_new)
    if not learned:
        # It gets the number of the commit that it confirms.
        return raw._replace(new_readings=[*raw.new_readings, replace(reading, number=reading.number - 1)])
    if is_late:
        raw = _renumbered(raw, reading.number)
    readings = sorted([*raw.readings, reading], key=attrgetter("number"))
    new_rows = day.rows if len(new) == day.rows.num_rows else day.rows.only(new.__contains__)
    number, at = pa.scalar(reading.number, pa.int64()), pa.scalar(reading.fetched_at, TIMESTAMP)
    rows = raw.rows.joined(new_rows, reading=number, fetched_at=at)
    return raw._replace(rows=rows, readings=readings, new_readings=[*raw.new_readings, reading], learned=True)


def _compare(
    raw: RawDay, keys: Iterable[str], present: Mapping[str, tuple[int, bytes]], reading: int
) -> tuple[dict[str, tuple[int, str, bool]], dict[str, bool]]:
    """Compare the stored rows, which have these keys, with the records `present` in the reading of this number.

    Returns each session's newest row from before this reading, as the number of its reading, its workspace, and whether
    this reading has the same payload; and for each session of the readings that overtook this one, whether any of them
    has the same payload.
    """
    before, since = dict[str, tuple[int, str, bool]](), dict[str, bool]()
    stored = zip(keys, raw.workspaces(), raw.rows.tuples("reading", "payload"), strict=True)
    for key, (workspace, _), (number, payload) in stored:
        is_same = key in present and present[key][1] == _digest(payload)
        if number >= reading:
            since[key] = since.get(key, False) or is_same
        elif number >= before.get(key, _NOT_STORED)[0]:
            before[key] = number, workspace, is_same
    return before, since


def _changes_coverage(readings: Sequence[Reading], reading: Reading, day: date | None) -> bool:
    """Whether a reading is the day's or a workspace's first, or the first to see the day over (or open again)."""
    known = {name for other in readings for name in other.workspaces}
    was_open = open_workspaces(day, readings).intersection(reading.workspaces or ("",))
    return not readings or not known.issuperset(reading.workspaces) or was_open != open_workspaces(day, [reading])


def _renumbered(raw: RawDay, first: int) -> RawDay:
    """The same, with all reading numbers from `first` on increased by one."""

    def shifted(readings: Iterable[Reading]) -> list[Reading]:
        return [replace(reading, number=reading.number + (reading.number >= first)) for reading in readings]

    index, rows = RAW_SESSIONS.schema.get_field_index("reading"), Rows(RAW_SESSIONS.schema)
    for part in raw.rows.parts():
        numbers = part.column(index)
        numbers = pc.add(numbers, pc.greater_equal(numbers, first).cast(numbers.type))
        rows.add(part.set_column(index, RAW_SESSIONS.schema.field(index), numbers))
    return raw._replace(rows=rows, readings=shifted(raw.readings), new_readings=shifted(raw.new_readings))


def _digest(payload: str) -> bytes:
    return sha256(payload.encode()).digest()


@check(
    RAW_SESSIONS,
    "Today and the lookback days were read within the last three hours.",
    "Costs of these days may be too low; check that the schedule hourly_refresh is running.",
    reads={},
    severity="warn",
    days="recent",
)
def recent_days_are_fresh(day: DayTables) -> CheckResult:
    """Looks at the latest reading of each workspace, including one that brought nothing new."""
    stale = why_stale(last_read(day.last_readings, day.workspaces), day.now)
    # A day that began less than three hours ago, perhaps during this run, may still be unread.
    is_new = day.day is not None and day.now - midnight(day.day) <= FRESH_WITHIN
    return CheckResult((f"{day.day}: {stale}",) if stale and not is_new else ())


def why_stale(read_at: datetime | None, now: datetime) -> str | None:
    """Why days are not fresh, such as `last read at ...`; None if they are. `read_at` is their `last_read`."""
    if read_at is None:
        return "never read, or not in every workspace"
    return f"last read at {read_at:%Y-%m-%d %H:%M} UTC, over three hours ago" if now - read_at > FRESH_WITHIN else None
