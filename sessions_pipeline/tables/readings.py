"""The readings of a day, as the raw file's metadata keeps them, and what follows from them. Pure.

A reading is one complete fetch of a day from one workspace. Readings are ordered by their numbers. Their times are
shown, and compared with the API's times, but never used for ordering, since clocks can be wrong.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from itertools import chain, repeat
from operator import attrgetter
from typing import NamedTuple, Self

import msgspec

from sessions_pipeline.days import is_day_over, name_of
from sessions_pipeline.errors import NotReadError
from sessions_pipeline.tables.rows import Rows
from sessions_pipeline.validation.json_text import UNREADABLE
from sessions_pipeline.validation.rules import IS_UUID


class Reading(msgspec.Struct, frozen=True, omit_defaults=True):
    """One reading of a day in one workspace. Stored as JSON, so the field names are part of the lake's format.

    `number`: unique within the day and counting up; the `reading` column of `raw_sessions` refers to it.
    `fetched_at`: when the reading began.
    `asked`: the id of the workspace that was requested; None if the API key's own workspace was read.
    `workspaces`: the workspaces that the reading covers: the requested one or, if none was requested, all that this
    reading and earlier ones of the same kind have seen.
    `received`, `repeated`, `requests`: records received, duplicates among them, and requests sent.
    `added`: how many rows it added to `raw_sessions`.
    `gone`: keys of sessions in these workspaces that this reading was the first to miss.
    `back`: keys of missing sessions that this reading has found again.
    `alone`: for a late reading (see `raw_sessions.merge`), keys of sessions that no other reading has; a later reading
    will show whether they still exist.
    `replaced`: the version of the raw file that this reading's commit replaced; None if there was no file.
    `is_partial`: the list may hold more sessions without a day than were read, so those it lacks are not missing.
    `length`: of sessions without a day: the length of the whole list, so that its end is soon found again; 0: unknown.
    """

    number: int
    fetched_at: datetime
    asked: str | None = None
    workspaces: tuple[str, ...] = ()
    received: int = 0
    repeated: int = 0
    requests: int = 0
    added: int = 0
    gone: tuple[str, ...] = ()
    back: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    replaced: str | None = None
    is_partial: bool = False
    length: int = 0


class RawDay(NamedTuple):
    """A UTC day's records as received, and the readings that they come from: as fetched, as stored or as merged.

    `day`: None for the records without a known day.
    `rows`: of `raw_sessions`. As fetched, without its columns `reading` and `fetched_at`, and each session once; on a
    large day perhaps more often: then its last row counts.
    `readings`: in their order. As fetched, a single one, which gets its number and `repeated` when it is merged.
    `version`: the version of the day's raw file: as stored, that of this file; as fetched, that before this run's first
    request; None if there was no file.
    `new_readings`: those merged by this run, including the ones that brought nothing new and are not in `readings`.
    `learned`: whether anything new must be stored.
    """

    day: date | None
    rows: Rows
    readings: Sequence[Reading]
    version: str | None = None
    new_readings: Sequence[Reading] = ()
    learned: bool = False

    def workspaces(self) -> list[tuple[str, str]]:
        """For each row, the workspace that it was read in, and the one that it names (`""` for none).

        If no workspace was requested, a row was read in the one that it names.
        """
        tenant_ids = self.rows.table("tenant_id").column(0).to_pylist()
        names = {one: one.lower() if one and IS_UUID.fullmatch(one) else "" for one in {*tenant_ids}}
        asked = {reading.number: reading.asked for reading in self.readings}
        is_one = len({*asked.values()}) == 1
        numbers = repeat(self.readings[0].number) if is_one else self.rows.table("reading").column(0).to_pylist()
        rows = zip(tenant_ids, numbers, strict=False)
        return [(asked.get(number) or names[tenant_id], names[tenant_id]) for tenant_id, number in rows]

    def keys(self, *others: Self) -> list[tuple[list[str], dict[int, str]]]:
        """For this part of a day and for others, the key of each row, and the foreign rows.

        Foreign rows do not name the workspace that was requested; each one's index is mapped to that workspace.

        Records of one session have the same key. It is the `plain_key`, followed by ` of <requested workspace>` for
        foreign rows. But if that is the only workspace that sent such a record under its own name, both are the same
        session.
        """
        parts = self, *others
        keys = [_plain_keys(part.rows) for part in parts]
        by_id = any(reading.asked for part in parts for reading in part.readings)
        workspaces = [part.workspaces() if by_id else [] for part in parts]
        foreign = [{row: asked for row, (asked, named) in enumerate(some) if asked != named} for some in workspaces]
        owners = dict[str, str]()  # by plain key; `""` if there are several
        for plain, some in zip(keys, workspaces, strict=True) if any(foreign) else ():
            for key, (workspace, named) in zip(plain, some, strict=True):
                if workspace == named:
                    owners[key] = workspace if owners.get(key, workspace) == workspace else ""
        for plain, rows in zip(keys, foreign, strict=True):
            for row, workspace in rows.items():
                if owners.get(plain[row]) != workspace:
                    plain[row] += f" of {workspace}"
        return list(zip(keys, foreign, strict=True))


def _plain_keys(rows: Rows) -> list[str]:
    session_ids = rows.table("session_id").column(0).to_pylist()
    if all(IS_UUID.fullmatch(session_id or "") for session_id in session_ids):
        # The usual case, without the payloads.
        return [session_id.lower() for session_id in session_ids]
    return [plain_key(*record) for record in rows.tuples("session_id", "payload")]


def plain_key(session_id: str | None, payload: str) -> str:
    """A record's id in lower case or, if it is no UUID, a digest of its text: others may have the same broken id."""
    if session_id is None or not IS_UUID.fullmatch(session_id):
        return f"sha256:{hashlib.sha256(payload.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return session_id.lower()


_READINGS = msgspec.json.Decoder(list[Reading])


def dump_readings(readings: Iterable[Reading]) -> str:
    """The readings as JSON text; fields with default values are left out."""
    return msgspec.json.encode(list(readings)).decode()


def load_readings(text: str | bytes) -> list[Reading]:
    """The readings in a JSON text, in their order."""
    return _READINGS.decode(text)


def readings_as_of(as_of: datetime | None, day: date | None, readings: Iterable[Reading]) -> list[Reading]:
    """The readings that began at or before `as_of`; all if it is None.

    Raises:
        NotReadError: there are none; the text names the day.
    """
    found = [reading for reading in readings if as_of is None or reading.fetched_at <= as_of]
    if not found:
        advice = f" at {as_of:%Y-%m-%d %H:%M:%S} UTC; choose a later time" if as_of else "; materialize that day first"
        raise NotReadError(f"raw_sessions was not read yet for {name_of(day)}{advice}")
    return found


def needed_readings(readings: Sequence[Reading], raw: Rows, kept_from: datetime) -> list[Reading]:
    """The day's first reading, those that the remaining rows refer to, and those that results since then depend on."""
    latest = {reading.asked: reading.number for reading in readings if reading.fetched_at <= kept_from}
    needed = {readings[0].number, *raw.table("reading").column(0).to_pylist(), *latest.values()}
    needed |= {one.number for one in readings if one.fetched_at > kept_from or one.gone or one.back or one.alone}
    return [one for one in readings if one.number in needed]


def load_note(content: bytes) -> list[Reading]:
    """The readings in a note of the `_readings/` folder; none if it is missing or broken."""
    try:
        return load_readings(content)
    except UNREADABLE:
        return []


def gone_since(readings: Iterable[Reading]) -> dict[str, datetime]:
    """The keys of sessions that are gone, with the time of the first reading that missed them."""
    gone: dict[str, datetime] = {}
    for reading in readings:
        for key in reading.back:
            gone.pop(key, None)
        gone |= dict.fromkeys(reading.gone, reading.fetched_at)
    return gone


def unconfirmed(readings: Iterable[Reading]) -> set[str]:
    """The keys of sessions that only late readings have, and that no reading since has confirmed or missed."""
    alone = set[str]()
    for reading in readings:
        alone = alone.difference(reading.gone, reading.back).union(reading.alone)
    return alone


def open_workspaces(day: date | None, readings: Iterable[Reading]) -> frozenset[str]:
    """The workspaces whose latest reading began before the day was over; `""` stands for a reading that saw none."""
    if day is None:
        return frozenset()
    latest = {name: one.fetched_at for one in latest_readings(readings) for name in one.workspaces or ("",)}
    return frozenset(workspace for workspace, at in latest.items() if not is_day_over(day, at))


def latest_readings(readings: Iterable[Reading]) -> list[Reading]:
    """The latest reading of each workspace, newest last.

    One that brought nothing new has the number of the commit that it confirmed, and must come after that one.
    """
    latest = list[Reading]()
    for reading in sorted(readings, key=attrgetter("number"))[::-1]:
        # Leave out those that later ones cover: workspaces may first be read as the key's own, and later by their ids.
        covered = {"", *chain.from_iterable(one.workspaces for one in latest)}
        if not latest or not (reading.asked in {one.asked for one in latest} or covered.issuperset(reading.workspaces)):
            latest.append(reading)
    return latest[::-1]


def last_read(readings: Iterable[Reading], workspaces: Iterable[str]) -> datetime | None:
    """When the workspace that was read longest ago was last read; None: there is one that was not read.

    `workspaces`: the ids of those that count. If empty, the key's own workspace counts or, if it was not read, all that
    `readings` requested.
    """
    latest = {one.asked: one.fetched_at for one in sorted(readings, key=attrgetter("fetched_at"))}
    required = {*workspaces} or latest.keys() & {None} or latest.keys()
    return min((latest[name] for name in required), default=None) if required <= latest.keys() else None


def workspaces_of(readings: Mapping[date, Sequence[Reading]]) -> set[str]:
    """The workspaces that readings name; records that name none don't count."""
    return {name for some in readings.values() for one in some for name in one.workspaces} - {""}


def unread_of_workspaces(readings: Mapping[date, Sequence[Reading]]) -> dict[str, list[date]]:
    """For each workspace, the days on which only other workspaces were read. Those without such days are left out.

    `readings` has the latest readings of each day, and the workspaces are those that they name. A reading of the key's
    own workspace may name none: it counts for those that others of its kind name, or else for all.
    """
    # The empty name stands for records that name no workspace.
    own = {name for one in chain(*readings.values()) if one.asked is None for name in one.workspaces} - {""} or {""}
    read = {day: set[str]().union(*({*one.workspaces} - {""} or own for one in some)) for day, some in readings.items()}
    known = sorted(workspaces_of(readings))
    days = {name: [day for day, names in read.items() if names.isdisjoint({name, ""})] for name in known}
    return {name: unread for name, unread in days.items() if unread}
