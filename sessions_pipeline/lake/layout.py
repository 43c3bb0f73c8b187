"""The lake's layout: the keys of the tables' days, Hive-style, and the marker file.

A day is at `<table>/start_date=2025-01-31/<table>.parquet`, the rows without a day are under
`start_date=__HIVE_DEFAULT_PARTITION__`, and a table without partitions is at `<table>/<table>.parquet`. The partition
value is only in the path. Other files and folders in a table's folder are ignored, including a day in another spelling
(`start_date=20250131`).

The marker `_lake.json` at the root contains the layout's version, and the query whose sessions the lake holds.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from typing import Any, Final, TypeAlias
from uuid import uuid4

from sessions_pipeline.errors import LakeConflictError, LakeError, LakeMismatchError
from sessions_pipeline.lake.store import Store, check_conditions
from sessions_pipeline.tables import Table

MARKER = "_lake.json"
LAYOUT = 2

_TOO_OLD = "point SESSIONS_PIPELINE_DATA_ROOT elsewhere and materialize again, or go back to the version that wrote it"
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"

UNDATED: Final = None
"""The partition of the rows without a day."""
# A UTC day, or None: for `UNDATED`, and for the only file of a table without partitions.
Day: TypeAlias = date | None


def key_of(table: Table, day: Day) -> str:
    """The key of one day of a table, relative to the lake's root. A table without partitions has one key."""
    if table.partition_column is None:
        return f"{table.name}/{table.name}.parquet"
    return f"{table.name}/{table.partition_column}={partition_value(day)}/{table.name}.parquet"


def partition_value(day: Day) -> str:
    """The day as it appears in the names of partitions and locks: `2025-01-31`, or Hive's name for null."""
    return str(day or NULL_PARTITION)


def readings_key(day: Day) -> str:
    """The key of the note that keeps the latest readings of a day."""
    return f"_readings/start_date={partition_value(day)}.json"


def day_of(table: Table, key: str) -> date | None:
    """The day of the file at `key`; None for the rows without a day, and for files that are not a day of the table."""
    folder, _, name = key.removeprefix(f"{table.name}/").partition("/")
    column, _, value = folder.partition("=")
    if column != table.partition_column or name != f"{table.name}.parquet":
        return None
    try:
        day = date.fromisoformat(value)
    except ValueError:
        return None
    # `fromisoformat` also accepts 20250131 and 2025-W05-5, which would make the same day count twice.
    return day if day.isoformat() == value else None


def check_marker(store: Store, query: Mapping[str, Any] | None) -> bool:
    """Whether there is a lake in `store`. If so, its layout and its query (unless `query` is None) are the right ones.

    Raises:
        LakeMismatchError: it has another layout, or holds the sessions of another query.
        LakeError: the marker can't be read.
    """
    try:
        with store.open(MARKER, whole=True).source as file:
            content = json.loads(file.read())
        # As JSON text: `int` itself would also take "2", true and 2.9.
        found, filled_with = int(json.dumps(content["layout"])), _canonical(content["query"])
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        advice = "restore it from a backup or, if SESSIONS_PIPELINE_QUERY never changed, delete it"
        raise LakeError(f"{store.uri(MARKER)}: broken; {advice}") from None
    if found != LAYOUT:
        advice = "upgrade sessions-pipeline" if found > LAYOUT else _TOO_OLD
        raise LakeMismatchError(f"{store.uri(MARKER)}: has layout {found}, but this version has {LAYOUT}; {advice}")
    if query is not None and filled_with != _canonical(query):
        raise LakeMismatchError(
            f"{store.uri(MARKER)}: filled with the query {filled_with}, not {_canonical(query)}; set"
            " SESSIONS_PIPELINE_QUERY as it was, or point SESSIONS_PIPELINE_DATA_ROOT elsewhere"
        )
    return True


def write_marker(store: Store, query: Mapping[str, Any]) -> None:
    """Write the marker if it is missing, then make sure that the store refuses a put whose condition does not hold.

    Raises:
        LakeMismatchError: another run has meanwhile started the lake with another query.
        LakeError: the store ignores conditions; see `check_conditions`.
    """
    content = {"layout": LAYOUT, "query": json.loads(_canonical(query))}
    with store.lock("lake"):
        if not check_marker(store, query):
            with suppress(LakeConflictError):
                store.put(MARKER, _encoded(content), None)
            check_marker(store, query)
        # The bytes must differ from the marker's: a refused put of the same bytes counts as done, see `S3Store.put`.
        check_conditions(store, MARKER, _encoded({**content, "probe": uuid4().hex}))


def _encoded(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2).encode() + b"\n"


def _canonical(query: Mapping[str, Any]) -> str:
    """The same text for equal queries: keys and lists sorted (the API's lists are all sets), None values left out."""
    normalized = {
        name: sorted(map(str, value)) if isinstance(value, list | tuple | set | frozenset) else value
        for name, value in query.items()
        if value is not None
    }
    return json.dumps(normalized, sort_keys=True, default=str)
