"""Rows of any table for tests of the lake, and a store that counts calls."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from sessions_pipeline.lake import Lake, Written, commits, parquet
from sessions_pipeline.lake.layout import Day
from sessions_pipeline.lake.store import ANY, Expected, Item, Opened, Store, T
from sessions_pipeline.tables import RAW_SESSIONS, Table

DAY = date(2025, 1, 31)
NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)


def rows(table: Table, count: int, **columns: Sequence[Any]) -> pa.Table:
    """`count` rows with these columns. Other columns are null, or a placeholder if they may not be null."""

    def column(field: pa.Field) -> pa.Array:
        if field.name in columns:
            return pa.array(columns[field.name], field.type)
        if field.nullable:
            return pa.nulls(count, field.type)
        placeholder = {pa.string(): "t", pa.int64(): 1, pa.bool_(): False}.get(field.type)
        if pa.types.is_list(field.type):
            placeholder = ["x"]
        return pa.array([NOON if placeholder is None else placeholder] * count, field.type)

    return pa.table([column(field) for field in table.schema], table.schema)


def raw(*payloads: str, session_ids: Sequence[str | None] | None = None) -> pa.Table:
    """Rows of `raw_sessions` in their table's order, one for each payload."""
    ids = session_ids or [f"id-{number:06}" for number in range(len(payloads))]
    return rows(RAW_SESSIONS, len(payloads), session_id=ids, payload=payloads)


class CountingStore:
    """A store that passes all calls on to another, and counts them: `calls` by method, `opened` by key."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.calls: Counter[str] = Counter()
        self.opened: Counter[str] = Counter()
        self._counting = threading.Lock()

    def uri(self, key: str) -> str:
        return self.store.uri(key)

    def open(self, key: str, *, whole: bool) -> Opened:
        with self._counting:
            self.calls["open"] += 1
            self.opened[key] += 1
        return self.store.open(key, whole=whole)

    def put(self, key: str, data: bytes | pa.Buffer, expected: Expected = ANY) -> None:
        self._count("put")
        self.store.put(key, data, expected)

    def versions(self, keys: Sequence[str]) -> dict[str, str | None]:
        self._count("versions")
        return self.store.versions(keys)

    def listing(self, table: str) -> dict[str, str | None]:
        self._count("listing")
        return self.store.listing(table)

    def map(self, read: Callable[[Item], T], items: Iterable[Item]) -> Iterator[T]:
        return self.store.map(read, items)

    def delete(self, key: str) -> None:
        self._count("delete")
        self.store.delete(key)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        self._count("lock")
        with self.store.lock(name):
            yield

    def _count(self, method: str) -> None:
        with self._counting:
            self.calls[method] += 1


def replace_derived(
    lake: Lake, table: Table, data: pa.Table, metadata: Mapping[str, str], *, commit: int, day: Day = DAY
) -> Written | None:
    """Replace one derived file of a day that no other run may write meanwhile."""
    content = parquet.encode(table, data, {**metadata, "commit": str(commit)})
    with lake.lock(day):
        return commits.replace_derived(lake, table, day, content, commit=commit)
