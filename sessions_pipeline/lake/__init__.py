"""The lake: each day of a table, or a table without days, is one Parquet file, only ever replaced as a whole."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date
from threading import Lock
from typing import Any, NamedTuple, Self
from uuid import uuid4

import pyarrow as pa

from sessions_pipeline.days import name_of
from sessions_pipeline.errors import LakeError, NotReadError
from sessions_pipeline.lake import parquet
from sessions_pipeline.lake.layout import Day, check_marker, day_of, key_of, partition_value, readings_key, write_marker
from sessions_pipeline.lake.parquet import Stored
from sessions_pipeline.lake.store import ANY, Expected, Item, Store, T, check_conditions, retried, store_at
from sessions_pipeline.tables import Table
from sessions_pipeline.tables.readings import Reading, load_note
from sessions_pipeline.tables.rows import Rows


class Written(NamedTuple):
    """A file that was written: its address, and its size in bytes."""

    uri: str
    bytes: int


class Lake:
    """The tables under one data root. Open it with `Lake.open`."""

    def __init__(self, store: Store, query: Mapping[str, Any] | None, *, read_only: bool) -> None:
        self.is_there = check_marker(store, query)
        self._store = store
        self._query = query or {}
        self._read_only = read_only or query is None
        self._is_marked, self._marking = False, Lock()

    @classmethod
    def open(cls, root: str | Store, *, query: Mapping[str, Any] | None, read_only: bool = False) -> Self:
        """Open the lake at `root`, a folder or `s3://bucket/prefix`. This creates nothing; the first write does.

        Args:
            root: the address. If nothing exists there, the lake is empty, and `is_there` is False. A `Store` instead
                of an address is for tests that count or disturb its calls.
            query: the filter of the sessions that the lake holds. None opens a lake of any query, for reading only.
            read_only: refuse to write.

        Raises:
            LakeMismatchError: the lake holds sessions of another query, or was written by another version of this
                package.
            LakeError: the root can't be read.
        """
        return cls(store_at(root) if isinstance(root, str) else root, query, read_only=read_only)

    def lock(self, day: Day) -> AbstractContextManager[None]:
        """Keep other runs from writing this day in any table; hold it while the day is merged and written.

        Does nothing in a bucket, where conditional puts keep runs apart. Re-entrant within a thread, and released if
        the process dies. Never hold it while waiting for the network.

        Raises:
            LakeBusyError: another run has held it for longer than any write takes.
        """
        self._refuse_if_read_only()
        return self._store.lock(partition_value(day))

    def replace(
        self, table: Table, day: Day, data: pa.Table | Rows, metadata: Mapping[str, str], *, expected: Expected = ANY
    ) -> Written:
        """Write `data` as the new content of a day. Readers see either the former file or the new one.

        Args:
            table: the table.
            day: its day.
            data: the rows, in any order, with the table's columns in any order.
            metadata: kept in the file.
            expected: the version to replace, None if the day must not exist yet, or `ANY`.

        Raises:
            LakeConflictError: the current version is not the expected one; it stays.
            LakeError: the file could not be written; the former one is intact.
            KeyError, TypeError, ValueError: the data does not fit the table's schema; a bug in the caller.
        """
        content = parquet.encode(table, data, metadata)
        with self.lock(day):
            return self.put(key_of(table, day), content, expected)

    def put(self, key: str, content: bytes | pa.Buffer, expected: Expected = ANY) -> Written:
        """Like `replace`, for any file and its content. The caller must hold the lock that keeps other writers out."""
        self._refuse_if_read_only()
        with self._marking:
            if not self._is_marked:
                write_marker(self._store, self._query)
                self._is_marked = True
        self._store.put(key, content, expected)
        return Written(self._store.uri(key), len(content))

    def read(self, table: Table, day: Day, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a day, in the table's order; all columns or the given ones.

        Raises:
            NotReadError: the day was never written.
            LakeError: see `load`.
        """
        return self._required(table, day, columns).rows

    def load(self, table: Table, day: Day, columns: Sequence[str] | None = None) -> Stored | None:
        """A day's rows, metadata and version, all from one opening of its file; None if it was never written.

        With `columns=()` only the end of the file is read, which has the number of rows. If another program has written
        the file, the metadata is empty.

        Raises:
            BrokenError: the file can't be read.
            LakeError: another program has written it and it is a file of `raw_sessions`, which needs its metadata.
        """
        return parquet.load(self._store, table, key_of(table, day), columns)

    def load_days(
        self, table: Table, days: Sequence[Day], columns: Sequence[str] | None = None
    ) -> tuple[pa.Table, dict[Day, dict[str, str]]]:
        """Those of these days that a table has: their rows as by `read_days`, and each file's metadata; see `load`."""
        versions, files = self.versions(table, days), dict[Day, dict[str, str]]()

        def rows() -> Iterator[tuple[Day, pa.Table]]:
            for day, stored in self.each(lambda day: self.load(table, day, columns), filter(versions.get, days)):
                if stored:
                    files[day] = stored.metadata
                    yield day, stored.rows

        return parquet.joined(table, rows(), columns), files

    def read_days(self, table: Table, days: Sequence[Day], columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of several days of a partitioned table, with the partition column last (date32; null for `UNDATED`).

        Raises:
            NotReadError: one of the days was never written.
        """
        return parquet.joined(table, self.each(lambda day: self.read(table, day, columns), days), columns)

    def metadata(self, table: Table, day: Day) -> dict[str, str]:
        """The metadata of a day's file; reads only its footer.

        Raises:
            NotReadError: the day was never written.
            LakeError: see `load`.
        """
        return self._required(table, day, ()).metadata

    def days(self, table: Table) -> list[date]:
        """The days that a table has, sorted. `UNDATED` is not included; ask `has` for it."""
        return list(self.versions_of_days(table))

    def has(self, table: Table, day: Day) -> bool:
        """Whether a table has this day."""
        return self.versions(table, [day])[day] is not None

    def versions(self, table: Table, days: Sequence[Day]) -> dict[Day, str | None]:
        """The versions of several days' files, which change with each write; in a bucket, one listing.

        None for a day that was never written.
        """
        keys = {day: key_of(table, day) for day in days}
        found = self._store.versions(list(keys.values())) if keys else {}
        return {day: found[key] for day, key in keys.items()}

    def versions_of_days(self, table: Table) -> dict[date, str | None]:
        """The versions of all `days`, sorted by day; in a bucket, one listing."""
        found = self._store.listing(table.name)
        return {day: found[key] for key in sorted(found) if (day := day_of(table, key))}

    def uri(self, table: Table, day: Day) -> str:
        """The address of a day's file, for other programs."""
        return self._store.uri(key_of(table, day))

    def write_file(self, key: str, content: bytes) -> str:
        """Write or replace a file outside the tables, such as `reports/cost.html`. Returns its address.

        Raises:
            LakeError: it could not be written; the former file is intact.
        """
        with self._store.lock("files"):
            return self.put(key, content).uri

    @retried
    def update_file(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace a file outside the tables by `change` of its content (None if there is no file).

        If another run changes the file first, `change` is called again with the other run's content.

        Raises:
            LakeError: it could not be read or written; the former file is intact.
        """
        with self._store.lock("files"):
            stored, version = self._read_file(key)
            self.put(key, change(stored), version)

    def read_file(self, key: str) -> bytes:
        """The content of a file outside the tables; empty if there is no such file."""
        return self._read_file(key)[0] or b""

    def last_readings(self, day: Day) -> list[Reading]:
        """The latest reading of each workspace, newest last; empty if the day was never read."""
        return load_note(self.read_file(readings_key(day)))

    def readings_of_days(self, days: Iterable[date]) -> dict[date, list[Reading]]:
        """The `last_readings` of several days, without the days that were never read."""
        return {day: readings for day, readings in self.each(self.last_readings, days) if readings}

    def each(self, read: Callable[[Item], T], items: Iterable[Item]) -> Iterator[tuple[Item, T]]:
        """Yield each item, in order, with `read(item)`. In a bucket, several are read at a time."""
        return self._store.map(lambda item: (item, read(item)), items)

    def _read_file(self, key: str) -> tuple[bytes | None, str | None]:
        try:
            source, version = self._store.open(key, whole=True)
        except FileNotFoundError:
            return None, None
        with source:
            return source.read(), version

    def check_writable(self) -> None:
        """Try out all that a run needs: listing, and writing a probe file, with content that a full disk would refuse.

        Raises:
            LakeError: the root can't be listed or written, or ignores conditions; the text says why.
        """
        self._refuse_if_read_only()
        probe = f"_probe-{uuid4().hex}"
        self._store.listing(probe)
        self._store.put(probe, bytes(65_536))
        try:
            check_conditions(self._store, probe, b"")
        finally:
            self._store.delete(probe)

    def _required(self, table: Table, day: Day, columns: Sequence[str] | None) -> Stored:
        if stored := self.load(table, day, columns):
            return stored
        if table.partition_column is None:
            raise NotReadError(f"{table.name} was never made; materialize it first")
        raise NotReadError(f"{table.name} was never read for {name_of(day)}; materialize all tables of that day")

    def _refuse_if_read_only(self) -> None:
        if self._read_only:
            raise LakeError(f"{self._store.uri('')}: opened for reading only; run `sessions-pipeline materialize`")
