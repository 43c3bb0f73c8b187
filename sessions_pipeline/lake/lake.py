"""The lake: a day of a table is one Parquet file, read as it is and replaced as a whole."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date
from threading import Lock
from typing import Any, NamedTuple, Self
from uuid import uuid4

import pyarrow as pa

from sessions_pipeline.days import name_of
from sessions_pipeline.errors import LakeError, NotReadError
from sessions_pipeline.lake import parquet
from sessions_pipeline.lake.layout import Day, check_marker, day_of, key_of, readings_key, value_of, write_marker
from sessions_pipeline.lake.parquet import Stored
from sessions_pipeline.lake.store import ANY, Expected, Store, store_at, tries
from sessions_pipeline.tables import Table
from sessions_pipeline.tables.readings import Reading, noted_readings
from sessions_pipeline.validation.rows import Rows


class Written(NamedTuple):
    """What `Lake.replace` wrote: where, and how many bytes."""

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
        """The lake at `root`, a folder or `s3://bucket/prefix`; nothing is written before the first write.

        `query` is what narrows the sessions that the lake is filled with; None reads a lake whatever it was filled
        with. A missing root is an empty lake, which is not there yet (`is_there`). A `Store` in place of an address is
        for tests that count or disturb what it is asked for.

        Raises:
            LakeMismatchError: the lake was filled with another query, or by another version of this package.
            LakeError: the root can't be read.
        """
        return cls(store_at(root) if isinstance(root, str) else root, query, read_only=read_only)

    def lock(self, day: Day) -> AbstractContextManager[None]:
        """Keep other runs from writing to a day of any table while it is merged and written; in a bucket, nothing.

        Re-entrant within a thread, and freed if the process dies. Never hold it while the network is waited for.

        Raises:
            LakeBusyError: another run holds it for longer than one writes.
        """
        self._refuse_if_read_only()
        return self._store.lock(value_of(day))

    def replace(
        self, table: Table, day: Day, data: pa.Table | Rows, metadata: Mapping[str, str], *, expected: Expected = ANY
    ) -> Written:
        """Make `data` the whole content of a day; readers see the former file or this one.

        `data` has the table's columns in any order; the writer sorts the rows. `metadata` is kept in the file.
        `expected` is the version that is replaced, None for a day that is not there, or `ANY`.

        Raises:
            LakeConflictError: something else than `expected` is there; it stays.
            LakeError: it could not be written; the former file is intact.
            TypeError, ValueError: the data breaks the table's schema, a fault of the program.
        """
        content = parquet.encode(table, data, metadata)
        with self.lock(day):
            return self.put(table, day, content, expected=expected)

    def put(self, table: Table, day: Day, content: pa.Buffer, *, expected: Expected) -> Written:
        """The same with what `parquet.encode` made, for one that holds the lock of the day."""
        key = key_of(table, day)
        self._put(key, content, expected)
        return Written(self._store.uri(key), content.size)

    def read(self, table: Table, day: Day, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a day, in the table's order; all columns or the given ones.

        Raises:
            NotReadError: the day was never written.
            LakeError: as `load`.
        """
        return self._required(table, day, columns).rows

    def load(self, table: Table, day: Day, columns: Sequence[str] | None = None) -> Stored | None:
        """The rows of a day, its metadata and its version, by one opening of its file; None if it was never written.

        Without any columns only the end of the file is read. A derived file that another program wrote has no metadata.

        Raises:
            BrokenError: the file can't be read.
            LakeError: it is a raw one that another program wrote.
        """
        return parquet.load(self._store, table, key_of(table, day), columns)

    def read_days(self, table: Table, days: Sequence[Day], columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of several days, and as a last column the partition's own (date32; null for `UNDATED`).

        Raises:
            NotReadError: one of the days was never written.
        """
        if table.partition is None:
            raise ValueError(f"{table.name} has no partitions")
        level = pa.field(table.partition, pa.date32())
        fields = table.schema if columns is None else [table.schema.field(name) for name in columns]
        parts = [pa.schema([*fields, level]).empty_table()]
        for day in days:
            rows = self.read(table, day, columns)
            value = pa.scalar(day, pa.date32())
            parts.append(rows.append_column(level, pa.repeat(value, rows.num_rows)))
        return pa.concat_tables(parts)

    def metadata(self, table: Table, day: Day) -> dict[str, str]:
        """What was stored with a day's file; reads its footer alone.

        Raises:
            NotReadError: the day was never written.
            LakeError: as `load`.
        """
        return self._required(table, day, ()).metadata

    def days(self, table: Table) -> list[date]:
        """The days that a table has, sorted; `UNDATED` is not among them, ask `has` for it."""
        found = (day_of(table, key) for key in self._store.partitions(table.name))
        return sorted(filter(None, found))

    def has(self, table: Table, day: Day) -> bool:
        """Whether a table has this day."""
        return self.version(table, day) is not None

    def version(self, table: Table, day: Day) -> str | None:
        """The version of a day's file, which differs after each write; None if the day was never written."""
        return self.versions(table, [day])[day]

    def versions(self, table: Table, days: Sequence[Day]) -> dict[Day, str | None]:
        """The versions of several days' files; in a bucket by one listing."""
        keys = {day: key_of(table, day) for day in days}
        found = self._store.versions(list(keys.values())) if keys else {}
        return {day: found[key] for day, key in keys.items()}

    def uri(self, table: Table, day: Day) -> str:
        """The address of a day's file, for other programs."""
        return self._store.uri(key_of(table, day))

    def write_file(self, key: str, content: bytes) -> str:
        """Write or replace a file that is no table's, such as `reports/cost.html`; its address.

        Raises:
            LakeError: it could not be written; the former file is intact.
        """
        with self._store.lock("files"):
            self._put(key, content)
        return self._store.uri(key)

    def update_file(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        """Make another of a file that is no table's, None where there is none.

        Where another run was quicker, `change` is given what that has written.

        Raises:
            LakeError: it could not be read or written; the former file is intact.
        """
        for one in tries():
            with one, self._store.lock("files"):
                stored, version = self._read_file(key)
                self._put(key, change(stored), version)
                return

    def read_file(self, key: str) -> bytes:
        """A file that is no table's; empty where there is none."""
        return self._read_file(key)[0] or b""

    def last_readings(self, day: Day) -> list[Reading]:
        """The latest reading of each workspace, the very latest last; none where the day was never read."""
        return noted_readings(self.read_file(readings_key(day)))

    def _read_file(self, key: str) -> tuple[bytes | None, str | None]:
        try:
            source, version = self._store.open(key, whole=True)
        except FileNotFoundError:
            return None, None
        with source:
            return source.read(), version

    def check_writable(self) -> None:
        """Write and remove a probe file, nothing else.

        Raises:
            LakeError: the root can't be written; the text says why.
        """
        self._refuse_if_read_only()
        probe = f"_probe-{uuid4().hex}"
        self._store.put(probe, b"")
        self._store.delete(probe)

    def _put(self, key: str, content: bytes | pa.Buffer, expected: Expected = ANY) -> None:
        self._refuse_if_read_only()
        with self._marking:
            if not self._is_marked:
                write_marker(self._store, self._query)
                self._is_marked = True
        self._store.put(key, content, expected)

    def _required(self, table: Table, day: Day, columns: Sequence[str] | None) -> Stored:
        stored = self.load(table, day, columns)
        if stored is None and table.partition is None:
            raise NotReadError(f"{table.name} was never made; materialize it first")
        if stored is None:
            raise NotReadError(f"{table.name} was never read for {name_of(day)}; materialize that day first")
        return stored

    def _refuse_if_read_only(self) -> None:
        if self._read_only:
            raise LakeError(f"{self._store.uri('')}: opened for reading only; run `sessions-pipeline materialize`")
