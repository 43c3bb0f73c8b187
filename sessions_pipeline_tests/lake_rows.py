"""Rows for tests of the lake, in whatever columns a table has, and a store that counts what it is asked for."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from sessions_pipeline.lake.commits import writing
from sessions_pipeline.lake.lake import Lake, Written
from sessions_pipeline.lake.layout import Day
from sessions_pipeline.lake.store import ANY, Expected, Opened, Store
from sessions_pipeline.tables import RAW_SESSIONS, Table

DAY = date(2025, 1, 31)
NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)


def rows(table: Table, count: int, **columns: Sequence[Any]) -> pa.Table:
    """So many rows with these columns; the others are null, or something where they may not be."""

    def column(field: pa.Field) -> pa.Array:
        if field.name in columns:
            return pa.array(columns[field.name], field.type)
        if field.nullable:
            return pa.nulls(count, field.type)
        some = {pa.string(): "t", pa.int64(): 1, pa.bool_(): False}.get(field.type)
        if pa.types.is_list(field.type):
            some = ["x"]
        return pa.array([NOON if some is None else some] * count, field.type)

    return pa.table([column(field) for field in table.schema], table.schema)


def raw(*payloads: str, session_ids: Sequence[str | None] | None = None) -> pa.Table:
    """Raw rows in their order, one for each payload."""
    ids = session_ids or [f"id-{number:06}" for number in range(len(payloads))]
    return rows(RAW_SESSIONS, len(payloads), session_id=ids, payload=payloads)


class CountingStore:
    """A store that passes everything on to another, and counts it: `asked` by method, `opened` by key."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.asked: Counter[str] = Counter()
        self.opened: Counter[str] = Counter()
        self._counting = threading.Lock()

    def uri(self, key: str) -> str:
        return self.store.uri(key)

    def open(self, key: str, *, whole: bool) -> Opened:
        with self._counting:
            self.asked["open"] += 1
            self.opened[key] += 1
        return self.store.open(key, whole=whole)

    def put(self, key: str, data: bytes | pa.Buffer, expected: Expected = ANY) -> None:
        self._count("put")
        self.store.put(key, data, expected)

    def versions(self, keys: Sequence[str]) -> dict[str, str | None]:
        self._count("versions")
        return self.store.versions(keys)

    def partitions(self, table: str) -> list[str]:
        self._count("partitions")
        return self.store.partitions(table)

    def delete(self, key: str) -> None:
        self._count("delete")
        self.store.delete(key)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        self._count("lock")
        with self._held(name):
            yield

    def _count(self, method: str) -> None:
        with self._counting:
            self.asked[method] += 1

    def _held(self, name: str) -> AbstractContextManager[None]:
        return self.store.lock(name)


def replace_derived(
    lake: Lake, table: Table, data: pa.Table, metadata: Mapping[str, str], *, commit: int, day: Day = DAY
) -> Written | None:
    """What `writing` does with one file."""
    with writing(lake, day) as replace:
        return replace(table, data, metadata, commit).result()
