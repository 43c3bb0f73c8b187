"""The readings of a day: what the raw file's metadata remembers, and what follows from it. Pure.

Readings are ordered by their number alone; their times are shown and compared with the API's, and order nothing.
"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import date, datetime

import msgspec

from sessions_pipeline.days import is_day_over, name_of
from sessions_pipeline.errors import NotReadError
from sessions_pipeline.validation.json_text import UNREADABLE
from sessions_pipeline.validation.rows import Rows

# Names in a file's metadata: the readings of a raw file, and the raw commit that a file is, or was made from.
READINGS, COMMIT = "readings", "commit"


class Reading(msgspec.Struct, frozen=True, omit_defaults=True):
    """One reading of a day in one workspace (`asked`; None: the key's own).

    `number` is unique within a day and counts up, so a row's `reading` names its reading. `workspaces` are those that
    the reading speaks for: the one asked for or, where none was named, all that it saw and that such readings saw
    before. `gone` are the sessions of these that it was the first to miss, `back` those that it has again. `alone` are
    those that it alone has seen, although others overtook it: whether they are still there, a later reading will say.
    `replaced` is the version of the file that this reading was committed on; None: there was none.
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


_READINGS = msgspec.json.Decoder(list[Reading])


def dump_readings(readings: Iterable[Reading]) -> str:
    """The readings as JSON text; what is empty is left out."""
    return msgspec.json.encode(list(readings)).decode()


def load_readings(text: str | bytes) -> list[Reading]:
    """The readings in a JSON text, in their order."""
    return _READINGS.decode(text)


def readings_by(as_of: datetime | None, day: date | None, readings: Iterable[Reading]) -> list[Reading]:
    """The readings that began by a time; all without one.

    Raises:
        NotReadError: there are none; the text names the day.
    """
    found = [reading for reading in readings if as_of is None or reading.fetched_at <= as_of]
    if not found:
        at = f" at {as_of:%Y-%m-%d %H:%M:%S} UTC" if as_of else ""
        raise NotReadError(f"raw_sessions was not read yet for {name_of(day)}{at}; materialize that day first")
    return found


def noted_readings(content: bytes) -> list[Reading]:
    """The readings in a note that is kept beside the tables; none where it is broken."""
    try:
        return load_readings(content)
    except UNREADABLE:
        return []


def record_key(session_id: str | None, tenant_id: str | None, payload: str, asked: str | None) -> str:
    """What makes two records readings of the same session: its id in small letters or, where it has none, its text.

    A record of another workspace than was asked for is one of its own.
    """
    if session_id is None:
        key = f"sha256:{hashlib.sha256(payload.encode('utf-8', 'surrogatepass')).hexdigest()}"
    else:
        key = session_id.lower()
    return f"{key} of {tenant_id.lower()}" if tenant_id is not None and is_foreign(tenant_id, asked) else key


def is_foreign(tenant_id: str | None, asked: str | None) -> bool:
    """Whether a record names another workspace than the one that was asked for."""
    return asked is not None and tenant_id is not None and tenant_id.lower() != asked


def asked_for(raw: Rows, readings: Iterable[Reading]) -> list[str | None]:
    """The workspace that the reading of each row of `raw_sessions` asked for."""
    asked_by = {reading.number: reading.asked for reading in readings}
    if len(alike := set(asked_by.values())) == 1:
        return [*alike] * raw.num_rows
    return [asked_by.get(number) for number in raw.table("reading").column(0).to_pylist()]


def foreign_rows(rows: Rows, asked: Sequence[str | None]) -> dict[int, str]:
    """The workspace that was asked for, by the place of each row that is of another."""
    who = list(zip(rows.table("tenant_id").column(0).to_pylist(), asked, strict=True)) if any(asked) else []
    foreign = {one for one in set(who) if is_foreign(*one)}
    return {place: one[1] or "" for place, one in enumerate(who) if one in foreign} if foreign else {}


def record_keys(rows: Rows, asked: Sequence[str | None]) -> list[str]:
    """The key of each row, for which these workspaces were asked; see `record_key`."""
    session_ids = rows.table("session_id").column(0)
    if not (session_ids.null_count or foreign_rows(rows, asked)):
        # As it mostly is, in a third of the time.
        return [session_id.lower() for session_id in session_ids.to_pylist()]
    who = zip(rows.tuples("session_id", "tenant_id", "payload"), asked, strict=True)
    return [record_key(id_, tenant_id, payload, workspace) for (id_, tenant_id, payload), workspace in who]


def gone_since(readings: Iterable[Reading]) -> dict[str, datetime]:
    """The sessions that are gone, and the time of the reading that was the first to miss them."""
    gone: dict[str, datetime] = {}
    for reading in readings:
        for key in reading.back:
            gone.pop(key, None)
        gone |= dict.fromkeys(reading.gone, reading.fetched_at)
    return gone


def unconfirmed(readings: Iterable[Reading]) -> set[str]:
    """The sessions that late readings alone have seen, and no reading since has told of."""
    alone = set[str]()
    for reading in readings:
        alone = alone.difference(reading.gone, reading.back).union(reading.alone)
    return alone


def open_workspaces(day: date | None, readings: Iterable[Reading]) -> frozenset[str]:
    """The workspaces whose latest reading began before the day was over; `""`: of a reading that saw none."""
    if day is None:
        return frozenset()
    latest = {workspace: reading.fetched_at for reading in readings for workspace in reading.workspaces or ("",)}
    return frozenset(workspace for workspace, at in latest.items() if not is_day_over(day, at))


def latest_readings(committed: Iterable[Reading], heard: Iterable[Reading]) -> list[Reading]:
    """The latest reading of each workspace, the very latest last.

    `committed` are a raw file's; `heard` may have learned nothing, and stand for the commit of the same number only.
    """
    latest: dict[str | None, Reading] = {}
    for reading in sorted([*committed, *heard], key=lambda reading: reading.number):
        # One that speaks for a workspace under another name, as when it is named in the settings later on, replaces it.
        for asked, other in list(latest.items()):
            if asked == reading.asked or set(other.workspaces) <= set(reading.workspaces):
                del latest[asked]
        latest[reading.asked] = reading
    return list(latest.values())
