"""Dagster's SQLite storage with its connections kept: an event costs 1 ms or less, where the stock one takes 10 to 30.

For each event the stock storage makes an engine, connects, compiles, commits and closes, in two databases. This one
keeps the connections, writes in one transaction what comes together, and planned events and materializations in one
statement; all else is the stock code. Files, schema and rows are the stock ones, so that one can go back at any time.
`dagster.yaml` names it under `storage`.

It is the one module that imports Dagster's inner parts: a storage can only be made from them. Should another version
of Dagster lack what is in `LEANS_ON`, the stock storage is used, with one warning.
"""

import inspect
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import dagster as dg
import sqlalchemy as db
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.schema import AssetKeyTable, SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from filelock import FileLock
from sqlalchemy.dialects.sqlite import insert

LEANS_ON = """run_connection(run_id) index_connection() has_table(table_name) store_event(event) dispose()
store_event_batch(events) store_asset_event_tags(events,event_ids) path_for_shard(run_id) _event_to_row(event)
conn_string_for_shard(shard_name) has_asset_key_index_cols()
_get_asset_entry_values(event,event_id,has_asset_key_index_cols)"""
AT_ONCE = (dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, dg.DagsterEventType.ASSET_MATERIALIZATION)
KEPT_DATABASES = 16  # that of all runs, and one for each run that is written or looked at

_told = threading.local()


@contextmanager
def together(instance: dg.DagsterInstance) -> Iterator[None]:
    """Store the events that this thread tells the instance meanwhile in one transaction, at the end."""
    _told.events = events = list[EventLogEntry]()
    try:
        yield
    finally:
        _told.events = None
        instance.event_log_storage.store_event_batch(events)


class KeptEventLog(SqliteEventLogStorage):
    """The stock event log on kept connections."""

    def __init__(self, base_dir: str) -> None:
        self._lock = threading.RLock()
        # By process, since a fork must neither use nor close its parent's; then by name, and the file's number.
        self._engines: dict[tuple[int, str, int], db.Engine] = {}
        self._open: dict[tuple[int, str], db.Connection | None] = {}
        super().__init__(base_dir)
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")  # else Dagster hands over planned events one by one

    def run_connection(self, run_id: str | None = None) -> Any:
        """A transaction in a run's database."""
        return self._transaction(str(run_id), lambda: super(KeptEventLog, self).run_connection(run_id))

    def index_connection(self) -> Any:
        """A transaction in the database of all runs."""
        return self._transaction(INDEX_SHARD_NAME, super().index_connection)

    def has_table(self, table_name: str) -> bool:
        """Whether the database of all runs has a table."""
        with self.index_connection() as connection:
            return bool(db.inspect(connection).has_table(table_name))

    def store_event(self, event: EventLogEntry) -> None:
        """Store an event, or keep it with those that this thread tells together."""
        self.store_event_batch([event])

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store a run's events in one transaction, then touch its file, which is what watchers of the run look at."""
        if getattr(_told, "events", None) is not None:
            _told.events.extend(events)
            return
        for run_id, of_run in groupby(events, key=lambda event: event.run_id):
            with self.run_connection(run_id) as run, self.index_connection() as index:
                for kind, some in groupby(of_run, key=lambda event: event.dagster_event_type):
                    if kind in AT_ONCE:
                        self._store_at_once(list(some), run, index)
                    else:
                        for event in some:
                            super().store_event(event)
            os.utime(self.path_for_shard(run_id))

    def dispose(self) -> None:
        """Close everything."""
        super().dispose()
        for key in [key for key in self._engines if key[0] == os.getpid()]:
            self._engines.pop(key).dispose()

    def _store_at_once(self, events: list[EventLogEntry], run: db.Connection, index: db.Connection) -> None:
        """What the stock storage does with these events of one kind, asset by asset and not event by event."""
        rows = [self._event_to_row(event) for event in events]
        run.execute(SqlEventLogStorageTable.insert(), rows)
        index.execute(SqlEventLogStorageTable.insert(), rows)
        last = index.execute(db.select(db.func.max(SqlEventLogStorageTable.c.id))).scalar_one()
        numbers = range(last - len(rows) + 1, last + 1)  # nobody else can write between the two statements
        self.store_asset_event_tags(events, numbers)
        indexed = self.has_asset_key_index_cols()
        newest = {row["asset_key"]: about for row, about in zip(rows, zip(events, numbers, strict=True), strict=True)}
        assets = [{"asset_key": key, **self._get_asset_entry_values(*newest[key], indexed)} for key in newest]
        upsert = insert(AssetKeyTable)
        told = {column: upsert.excluded[column] for column in assets[0]}
        index.execute(upsert.on_conflict_do_update(index_elements=["asset_key"], set_=told), assets)

    @contextmanager
    def _transaction(self, shard: str, stock: Callable[[], Any]) -> Iterator[db.Connection]:
        key = os.getpid(), shard
        with self._lock:
            outer = self._open.get(key)
            with nullcontext(outer) if outer else self._engine(key, stock).begin() as connection:
                self._open[key] = connection
                try:
                    yield connection
                finally:
                    self._open[key] = outer

    def _engine(self, key: tuple[int, str], stock: Callable[[], Any]) -> db.Engine:
        path = Path(self.path_for_shard(key[1]))
        engine = self._engines.pop((*key, path.stat().st_ino), None) if path.exists() else None
        if engine is None:
            # It waits as long for another process as the stock storage does.
            engine = db.create_engine(self.conn_string_for_shard(key[1]), connect_args={"timeout": 30})
            with engine.connect() as one, nullcontext() if db.inspect(one).has_table("alembic_version") else stock():
                one.exec_driver_sql("PRAGMA synchronous=NORMAL")  # a power cut loses the last moments, no more
        self._engines[*key, path.stat().st_ino] = engine  # the last in order is the one used last
        idle = [kept for kept in self._engines if kept[0] == key[0] and not self._open.get(kept[:2])]
        for kept in idle[:-KEPT_DATABASES]:
            self._engines.pop(kept).dispose()
        return engine


class KeptStorage(DagsterSqliteStorage):
    """Dagster's SQLite storage with this event log; of runs and schedules there is little to store, and it stays."""

    def __init__(self, base_dir: str, inst_data: Any = None, stock: type = SqliteEventLogStorage) -> None:
        # Of two processes that start in a new folder at once, one otherwise ends with "table runs already exists".
        with FileLock(Path(base_dir) / ".storage.lock"):
            super().__init__(base_dir, inst_data)
            if lacking := _lacking(stock):
                warnings.warn(f"events are stored slowly: Dagster's {stock.__name__} has no {lacking}", stacklevel=2)
            else:
                self._event_log_storage = KeptEventLog(str(Path(self._event_log_storage.path_for_shard("")).parent))

    @classmethod
    def config_type(cls) -> dict[str, dg.Field]:
        """A folder; without it DAGSTER_HOME, and without that the one that `make dev` uses."""
        return {"base_dir": dg.Field(dg.StringSource, is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> Self:
        """What `dagster.yaml` asks for."""
        folder = config_value.get("base_dir") or os.environ.get("DAGSTER_HOME") or ".dagster"
        return cls.from_local(str(Path(folder).expanduser().absolute()), inst_data)


def _lacking(stock: type) -> str:
    methods = inspect.getmembers(stock, inspect.isfunction)
    found = {f"{name}({','.join([*inspect.signature(method).parameters][1:])})" for name, method in methods}
    return ", ".join(sorted({*LEANS_ON.split()} - found))
