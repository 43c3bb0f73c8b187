"""Which raw rows are readings of the same session, and when each was seen. Pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables.readings import Reading, row_key, row_workspaces
from sessions_pipeline.validation.arrays import flag_array, moments, time_array, value_array
from sessions_pipeline.validation.types import TIMESTAMP


class Versions(Protocol):
    """The raw rows of a day, seen as versions of sessions. Rows are numbered as in the raw table.

    `foreign` names the rows of another workspace than was asked for, with the workspace asked; `several` gives, for
    each newest row of a session with more than one, all of them, oldest first; `times` are the rows' readings.
    """

    @property
    def foreign(self) -> Mapping[int, str]:
        """Rows of another workspace."""
        ...

    @property
    def several(self) -> Mapping[int, Sequence[int]]:
        """Sessions with several rows."""
        ...

    @property
    def times(self) -> Sequence[datetime]:
        """The reading of each row."""
        ...

    def is_newest(self, rows: pa.ChunkedArray) -> pa.Array | None:
        """Which of the rows are what their session says now and belong here; None when all are."""
        ...

    def is_newest_row(self, row: int) -> bool:
        """Whether the row is the latest version of its session."""
        ...

    def last_seen(self, rows: pa.ChunkedArray) -> pa.Array:
        """For each row the latest reading that contained its session."""
        ...

    def last_seen_row(self, row: int, *, before: datetime) -> datetime:
        """The latest reading before a time that contained the row's session."""
        ...

    def missing_since(self, rows: pa.ChunkedArray) -> pa.Array:
        """For each row the first of the latest readings that no longer contained its session, or null."""
        ...


def versions_of(raw: pa.Table, readings: Sequence[Reading]) -> Versions:
    """The versions in a day's raw rows; the quick way where every session was read once and none is gone."""
    first, *later = readings
    unchanged = not first.gone and all(
        not reading.added and not reading.gone and reading.workspaces == first.workspaces for reading in later
    )
    if unchanged and not _foreign(raw, readings):
        return OneVersion(readings[-1].fetched_at, raw.num_rows)
    return ManyVersions(raw, readings)


class OneVersion:
    """Every session of the day has one version, and the latest reading contained them all."""

    foreign: Mapping[int, str] = {}
    several: Mapping[int, Sequence[int]] = {}

    def __init__(self, seen: datetime, count: int) -> None:
        self.times = [seen] * count
        self._seen = seen

    def is_newest(self, rows: pa.ChunkedArray) -> None:  # noqa: ARG002
        """All are."""
        return

    def is_newest_row(self, row: int) -> bool:  # noqa: ARG002
        """It is."""
        return True

    def last_seen(self, rows: pa.ChunkedArray) -> pa.Array:
        """The latest reading."""
        return time_array(self._seen, len(rows))

    def last_seen_row(self, row: int, *, before: datetime) -> datetime:  # noqa: ARG002
        """The latest reading."""
        return self._seen

    def missing_since(self, rows: pa.ChunkedArray) -> pa.Array:
        """None is missing."""
        return pa.nulls(len(rows), TIMESTAMP)


class ManyVersions:
    """Sessions that changed, went or came back between readings."""

    def __init__(self, raw: pa.Table, readings: Sequence[Reading]) -> None:
        ids, payloads = raw.column("session_id").to_pylist(), raw.column("payload").to_pylist()
        self.times: list[datetime] = moments(raw.column("fetched_at"))
        self.foreign = _foreign(raw, readings)
        self._workspaces = row_workspaces(raw, readings)
        self._keys = [row_key(id_, payload) for id_, payload in zip(ids, payloads, strict=True)]
        groups: dict[tuple[str, bool], list[int]] = defaultdict(list)
        for row in sorted(range(len(ids)), key=lambda row: self.times[row]):
            groups[self._keys[row], row in self.foreign].append(row)
        self._newest = {rows[-1] for rows in groups.values()}
        self.foreign = {row: workspace for row, workspace in self.foreign.items() if row in self._newest}
        self.several = {rows[-1]: rows for rows in groups.values() if len(rows) > 1}
        self._readings = sorted(readings, key=lambda reading: reading.fetched_at)
        self._gone = {key for reading in readings for key in reading.gone}

    def is_newest(self, rows: pa.ChunkedArray) -> pa.Array:
        """See `Versions`."""
        return flag_array(bytes(row in self._newest and row not in self.foreign for row in rows.to_pylist()))

    def is_newest_row(self, row: int) -> bool:
        """See `Versions`."""
        return row in self._newest

    def last_seen(self, rows: pa.ChunkedArray) -> pa.Array:
        """See `Versions`."""
        return value_array([self._last_seen(row) for row in rows.to_pylist()], TIMESTAMP)

    def last_seen_row(self, row: int, *, before: datetime) -> datetime:
        """See `Versions`."""
        return self._last_seen(row, before)

    def missing_since(self, rows: pa.ChunkedArray) -> pa.Array:
        """See `Versions`."""
        return value_array([self._missing_since(row) for row in rows.to_pylist()], TIMESTAMP)

    def _last_seen(self, row: int, before: datetime | None = None) -> datetime:
        seen = [reading.fetched_at for reading in self._about(row) if self._keys[row] not in reading.gone]
        return max([self.times[row], *(time for time in seen if before is None or time < before)])

    def _missing_since(self, row: int) -> datetime | None:
        since = None
        if self._keys[row] in self._gone:
            for reading in self._about(row):
                since = (since or reading.fetched_at) if self._keys[row] in reading.gone else None
        return since

    def _about(self, row: int) -> list[Reading]:
        return [
            reading
            for reading in self._readings
            if self._workspaces[row] in reading.workspaces and reading.fetched_at >= self.times[row]
        ]


def _foreign(raw: pa.Table, readings: Sequence[Reading]) -> dict[int, str]:
    """Rows that name another workspace than the one that their reading asked for."""
    asked = {reading.fetched_at: reading.asked for reading in readings if reading.asked is not None}
    if not asked:
        return {}
    tenants, times = pc.utf8_lower(raw.column("tenant_id")).to_pylist(), moments(raw.column("fetched_at"))
    return {
        row: asked[time]
        for row, (tenant, time) in enumerate(zip(tenants, times, strict=True))
        if tenant is not None and tenant != asked.get(time, tenant)
    }
