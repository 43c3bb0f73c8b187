"""The lake: a day of a table is one Parquet file, read as it is and replaced as a whole."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from time import monotonic
from typing import Any, NamedTuple, Self
from uuid import uuid4

import pyarrow as pa

from sessions_pipeline.errors import LakeError, NotReadError
from sessions_pipeline.lake import marker, parquet
from sessions_pipeline.lake.layout import LOCKS, UNDATED, Day, day_of, key_of, lock_names, lock_of
from sessions_pipeline.lake.local import LocalStore
from sessions_pipeline.lake.store import OnWait, Store, said_once
from sessions_pipeline.tables import Table


class Written(NamedTuple):
    """What `Lake.replace` wrote: where, how many bytes and how many rows."""

    uri: str
    bytes: int
    rows: int


class Lake:
    """The tables under one data root. Open it with `Lake.open`."""

    def __init__(self, store: Store, query: Mapping[str, Any], *, read_only: bool) -> None:
        self._store = store
        self._query = query
        self._read_only = read_only
        self._is_marked = False

    @classmethod
    def open(cls, root: str, *, query: Mapping[str, Any], read_only: bool = False) -> Self:
        """The lake at `root`, a folder or `s3://bucket/prefix`; nothing is written before the first write.

        `query` is what narrows the sessions that the lake is filled with. A missing root is an empty lake.

        Raises:
            LakeMismatchError: the lake was filled with another query, or by a newer version of this package.
            LakeError: the root can't be read, or is of an older layout that this version can't migrate, or may not.
        """
        lake = cls(_store(root), query, read_only=read_only)
        if lake._is_older():
            lake._migrate()
        return lake

    @contextmanager
    def exclusive(
        self, on_wait: OnWait | None = None, timeout: float | None = None, *, days: Iterable[Day] = (None,)
    ) -> Iterator[None]:
        """Keep other runs from writing to the months of `days`; None among them stands for what has no day.

        Re-entrant within a thread, and freed if the process dies. Hold it for as short as a day is read, merged and
        written: runs for other months go on meanwhile. Who nests them takes the later months inside.

        `on_wait` is told once, in one line, when another run has to be waited for; `timeout` is in seconds.

        Raises:
            LakeBusyError: another run is still writing after `timeout`.
            LakeMismatchError: the run waited for filled the lake with another query.
        """
        self._refuse_if_read_only()
        say, end = said_once(on_wait), None if timeout is None else monotonic() + timeout
        with ExitStack() as held:
            # All in one order: two runs that each need what the other holds would wait for ever.
            for name in sorted({lock_of(day) for day in days}):
                rest = None if end is None else max(0.0, end - monotonic())
                held.enter_context(self._store.lock(name, say, rest))
            marker.check(self._store, self._query)
            yield

    def replace(self, table: Table, day: Day, data: pa.Table, metadata: Mapping[str, str]) -> Written:
        """Make `data` the whole content of a day; readers see the former file or this one.

        `data` has the table's columns in any order; the writer sorts the rows. `metadata` is kept in the file.

        Raises:
            LakeError: it could not be written; the former file is intact.
            TypeError, ValueError: the data breaks the table's schema, a fault of the program.
        """
        key = key_of(table, day)
        content = parquet.encode(table, data, metadata)
        self._put(key, content)
        return Written(self._store.uri(key), content.size, data.num_rows)

    def read(self, table: Table, day: Day, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a day, in the table's order; all columns or the given ones.

        Raises:
            NotReadError: the day was never written.
            LakeError: the file is broken.
        """
        with self._open(table, day, whole=True) as source:
            return parquet.decode(table, source, columns, self.uri(table, day))

    def read_days(self, table: Table, days: Sequence[Day], columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of several days, and as a last column the partition's own (date32; null for `UNDATED`).

        Raises:
            NotReadError: one of the days was never written.
        """
        if table.partition is None:
            raise ValueError(f"{table.name} has no partitions")
        level = pa.field(table.partition, pa.date32())
        fields = table.schema if columns is None else [table.schema.field(name) for name in columns]
        parts = [pa.Table.from_batches([], pa.schema([*fields, level]))]
        for day in days:
            rows = self.read(table, day, columns)
            parts.append(
                rows.append_column(level, parquet.repeated(day if isinstance(day, date) else None, rows.num_rows))
            )
        return pa.concat_tables(parts)

    def metadata(self, table: Table, day: Day) -> dict[str, str]:
        """What was stored with a day's file; reads its footer alone.

        Raises:
            NotReadError: the day was never written.
            LakeError: the file is broken.
        """
        with self._open(table, day, whole=False) as source:
            return parquet.decode_metadata(source, self.uri(table, day))

    def days(self, table: Table) -> list[date]:
        """The days that a table has, sorted; `UNDATED` is not among them, ask `has` for it."""
        found = (day_of(table, key) for key in self._store.keys(table.name))
        return sorted(day for day in found if isinstance(day, date))

    def has(self, table: Table, day: Day) -> bool:
        """Whether a table has this day."""
        return self._store.has(key_of(table, day))

    def uri(self, table: Table, day: Day) -> str:
        """The address of a day's file, for other programs."""
        return self._store.uri(key_of(table, day))

    def write_file(self, key: str, content: bytes) -> str:
        """Write or replace a file that is no table's, such as `reports/cost.html`; its address.

        Raises:
            LakeError: it could not be written; the former file is intact.
        """
        self._put(key, content)
        return self._store.uri(key)

    def read_file(self, key: str) -> bytes:
        """A file that is no table's.

        Raises:
            NotReadError: there is no such file.
        """
        try:
            return self._store.read(key)
        except FileNotFoundError:
            raise NotReadError(f"{self._store.uri(key)}: there is no such file; materialize what writes it") from None

    def check_writable(self) -> None:
        """Write and remove a probe file, nothing else.

        Raises:
            LakeError: the root can't be written; the text says why.
        """
        self._refuse_if_read_only()
        probe = f"_probe-{uuid4().hex}"
        self._store.put(probe, b"")
        self._store.delete(probe)

    def _put(self, key: str, content: bytes | pa.Buffer) -> None:
        self._refuse_if_read_only()
        if not self._is_marked:
            if marker.check(self._store, self._query) is None:
                marker.write(self._store, self._query)
            self._is_marked = True
        self._store.put(key, content)

    def _open(self, table: Table, day: Day, *, whole: bool) -> pa.NativeFile:
        key = key_of(table, day)
        try:
            return self._store.open(key, whole=whole)
        except FileNotFoundError:
            if day is None:
                raise NotReadError(f"{table.name} was never made; materialize it first") from None
            named = "rows without a day" if day is UNDATED else str(day)
            raise NotReadError(f"{table.name} was never read for {named}; materialize that day first") from None

    def _is_older(self) -> bool:
        found = marker.check(self._store, self._query)
        return found is not None and found < marker.layout()

    def _migrate(self) -> None:
        if self._read_only:
            raise LakeError(f"{self._store.uri('')}: of an older layout; `sessions-pipeline materialize` migrates it")
        with self.exclusive():
            found = marker.check(self._store, self._query)
            if found is None or found == marker.layout():
                return
            steps = marker.steps(self._store, found)
            marker.write(self._store, self._query, migrated_from=found)
        # Older versions refuse the lake now. Whoever still writes to it holds one of the locks that are there.
        with ExitStack() as held:
            for name in sorted(lock_names(self._store.keys(LOCKS)) | {lock_of(None), lock_of(UNDATED)}):
                held.enter_context(self._store.lock(name, None, None))
            if self._is_older():
                for step in steps:
                    step(self._store)
                marker.write(self._store, self._query)

    def _refuse_if_read_only(self) -> None:
        if self._read_only:
            raise LakeError(f"{self._store.uri('')}: opened for reading only; run `sessions-pipeline materialize`")


def _store(root: str) -> Store:
    if root.startswith("s3://"):
        # Imported here because a folder needs none of it.
        from sessions_pipeline.lake.s3 import S3Store  # noqa: PLC0415

        return S3Store(root)
    if "://" in root:
        raise LakeError(f"{root}: SESSIONS_PIPELINE_DATA_ROOT takes a folder or an s3://bucket/prefix address")
    return LocalStore(root)
