"""Dagster's SQLite storage with connections kept open: an event costs at most 1 ms, in the stock storage 10 to 30 ms.

For each event, the stock storage creates an engine, connects, compiles, commits and closes, in two databases. This one
keeps the connections, writes each batch of events in one transaction, writes planned events and materializations with
one statement for many, and removes the files of deleted runs. Everything else is the stock code. Files, schema and rows
are the same as with the stock storage, so one can switch back at any time. `dagster.yaml` names this storage under
`storage`.

This is the only module that imports private parts of Dagster: a storage can't be made without them. If another version
of Dagster lacks one of `REQUIRED_PARTS`, the stock storage is used, with one warning.
"""

import inspect
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import dagster as dg
import sqlalchemy as db
from dagster._core.storage.event_log import schema
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from filelock import FileLock
from sqlalchemy.dialects.sqlite import insert

REQUIRED_PARTS = """_connect(shard) _initdb(engine,for_index_shard) path_for_shard(run_id) store_event(event)
store_event_batch(events) _event_to_row(event) store_asset_event_tags(events,event_ids) AssetKeyTable
SqlEventLogStorageTable has_asset_key_index_cols() _get_asset_entry_values(event,event_id,has_asset_key_index_cols)"""
BULK_EVENTS = (dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, dg.DagsterEventType.ASSET_MATERIALIZATION)
KEPT_DATABASES = 16  # the index of all runs, and one for each run that is written to or looked at

_batch = threading.local()


@contextmanager
def batch_events(instance: dg.DagsterInstance) -> Iterator[None]:
    """Hold back the events that this thread reports within the block, and store them in one transaction at its end."""
    _batch.events = events = list[dg.EventLogEntry]()
    try:
        yield
    finally:
        _batch.events = None
        instance.event_log_storage.store_event_batch(events)


class KeptEventLog(SqliteEventLogStorage):
    """The stock event log, with its connections kept open."""

    def __init__(self, base_dir: str) -> None:
        self._lock = threading.RLock()
        # Keys: the process id, because a forked process must neither use nor close its parent's connections; and the
        # inode of a database's file, because a deleted file may be made again under the same name.
        self._kept: dict[tuple[int, int], db.Connection] = {}
        super().__init__(base_dir)
        # Without this, Dagster stores planned events one by one.
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")

    def has_table(self, table_name: str) -> bool:
        """Whether the index database has this table."""
        with self._connect(INDEX_SHARD_NAME) as connection:
            return bool(db.inspect(connection).has_table(table_name))

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Store an event, or add it to this thread's batch (`batch_events`)."""
        self.store_event_batch([event])

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store the events, those of a run in one transaction, or add them to this thread's batch.

        Each run's file is touched afterwards, because Dagster's live view watches the file and SQLite writes to the
        write-ahead log beside it.
        """
        if getattr(_batch, "events", None) is not None:
            _batch.events.extend(events)
            return
        for run_id, of_run in groupby(events, key=lambda event: event.run_id):
            with self._connect(run_id) as run, self._connect(INDEX_SHARD_NAME) as index:
                for event_type, group in groupby(of_run, key=lambda event: event.dagster_event_type):
                    if event_type in BULK_EVENTS:
                        self._store_in_bulk(list(group), run, index)
                    else:
                        for event in group:
                            super().store_event(event)
            os.utime(self.path_for_shard(run_id))

    def delete_events(self, run_id: str) -> None:
        """Delete a run's events, and its file, which the stock storage leaves at its full size, unless it is in use."""
        super().delete_events(run_id)
        with suppress(db.exc.OperationalError), self._connect(run_id) as run:
            run.exec_driver_sql("PRAGMA journal_mode=DELETE")  # fails while another process has the file open
            Path(self.path_for_shard(run_id)).unlink()
            run.close()

    def dispose(self) -> None:
        """Close this process's connections."""
        super().dispose()
        self._close()

    def _close(self) -> None:
        with self._lock:
            for key in [key for key, kept in self._kept.items() if key[0] == os.getpid() and not kept.in_transaction()]:
                self._kept.pop(key).close()

    def _store_in_bulk(self, events: list[dg.EventLogEntry], run: db.Connection, index: db.Connection) -> None:
        """Store events of one type as the stock storage does, but with one statement for each table that it fills.

        Of several events of one asset, the last makes the asset's entry.
        """
        rows = [self._event_to_row(event) for event in events]
        run.execute(schema.SqlEventLogStorageTable.insert(), rows)
        index.execute(schema.SqlEventLogStorageTable.insert(), rows)
        # Not by `RETURNING`: SQLite has it since 3.35, and Enterprise Linux 9 comes with 3.34.
        last = index.execute(db.select(db.func.max(schema.SqlEventLogStorageTable.c.id))).scalar_one()
        ids = range(last - len(rows) + 1, last + 1)  # SQLite lets nobody else write during this transaction
        self.store_asset_event_tags(events, ids)
        has_index_columns = self.has_asset_key_index_cols()
        newest = {row["asset_key"]: pair for row, pair in zip(rows, zip(events, ids, strict=True), strict=True)}
        assets = [{"asset_key": key, **self._get_asset_entry_values(*newest[key], has_index_columns)} for key in newest]
        upsert = insert(schema.AssetKeyTable)
        # Not `upsert.excluded`, for which SQLAlchemy copies the table each time.
        values = {column: db.text(f"excluded.{column}") for column in assets[0]}
        index.execute(upsert.on_conflict_do_update(index_elements=["asset_key"], set_=values), assets)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[db.Connection]:
        """A transaction in the database of a run, or in the index, which has the events of all runs."""
        path = Path(self.path_for_shard(shard))
        with self._lock:
            connection = self._kept.get((os.getpid(), path.stat().st_ino)) if path.exists() else None
            if connection is None or connection.closed:
                if len(self._kept) >= KEPT_DATABASES:
                    self._close()
                # Wait up to 30 s for another process's lock, as the stock storage does.
                engine = db.create_engine(f"sqlite:///{path}?timeout=30", poolclass=db.NullPool)
                # A power cut may lose the latest events, nothing else.
                db.event.listen(engine, "connect", lambda new, _: new.execute("PRAGMA synchronous=NORMAL"))
                if not db.inspect(engine).has_table("alembic_version"):
                    self._initdb(engine)
                connection = self._kept[os.getpid(), path.stat().st_ino] = engine.connect()
            try:
                # A transaction within another one of the same thread is a part of it.
                with nullcontext() if connection.in_transaction() else connection.begin():
                    yield connection
            except BaseException:  # also if a signal interrupts a commit: else the database may stay locked
                connection.close()
                raise


class KeptStorage(DagsterSqliteStorage):
    """Dagster's SQLite storage with this event log. Runs and schedules, of which there are few, use the stock code."""

    def __init__(self, base_dir: str, inst_data: Any = None, stock: type = SqliteEventLogStorage) -> None:
        # Dagster makes a URL of the path, in which SQLAlchemy gives `?` and codes such as `%20` a meaning.
        if db.make_url(f"sqlite:///{base_dir}").database != base_dir:
            raise ValueError("SQLite can't be used in a path with ? or a code such as %20; rename the folder")
        # Without the lock, one of two processes that start in a new folder fails with "table runs already exists".
        with FileLock(Path(base_dir) / ".storage.lock"):
            super().__init__(base_dir, inst_data)
            if missing := _missing_parts(stock):
                warnings.warn(f"events are stored slowly: Dagster's {stock.__name__} has no {missing}", stacklevel=2)
            else:
                self._event_log_storage = KeptEventLog(str(Path(self._event_log_storage.path_for_shard("")).parent))

    @classmethod
    def config_type(cls) -> dict[str, dg.Field]:
        """`base_dir`: the folder of the database; by default DAGSTER_HOME, else `.dagster`, which `make dev` uses."""
        return {"base_dir": dg.Field(dg.StringSource, is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> Self:
        """The storage that `dagster.yaml` describes."""
        folder = config_value.get("base_dir") or os.environ.get("DAGSTER_HOME") or ".dagster"
        return cls.from_local(str(Path(folder).expanduser().absolute()), inst_data)


def _missing_parts(stock: type) -> str:
    methods = inspect.getmembers(stock, inspect.isfunction)
    found = {f"{name}({','.join([*inspect.signature(method).parameters][1:])})" for name, method in methods}
    return ", ".join(sorted({*REQUIRED_PARTS.split()} - {*found, *vars(schema)}))
