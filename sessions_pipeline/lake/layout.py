"""The lake's layout: which key holds which day of which table, after the conventions of Hive, and the marker.

`<table>/start_date=2025-01-31/<table>.parquet`; the null partition is `start_date=__HIVE_DEFAULT_PARTITION__`; an
unpartitioned table is `<table>/<table>.parquet`. The partition value is in the path alone. Other files and folders in a
table's folder are nobody's day, a second spelling of one (`start_date=20250131`) included.

The marker `_lake.json` at the root has the layout's version, and the query that the lake was filled with.
"""

import json
from collections.abc import Mapping
from datetime import date
from typing import Any, Final, TypeAlias
from uuid import uuid4

from sessions_pipeline.errors import LakeConflictError, LakeError, LakeMismatchError
from sessions_pipeline.lake.store import Store
from sessions_pipeline.tables import Table

MARKER = "_lake.json"
LAYOUT = 2

_ANEW = "point SESSIONS_PIPELINE_DATA_ROOT elsewhere and materialize anew, or go back to the version that wrote it"
# No object has this version, so a put that expects it must be refused.
_NO_VERSION = '"0"'
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"

UNDATED: Final = None
"""The partition of rows without a day."""
# A UTC day, or None: `UNDATED`, and the one file of a table without partitions.
Day: TypeAlias = date | None


def key_of(table: Table, day: Day) -> str:
    """The key of one day of a table, relative to the lake's root.

    Raises:
        ValueError: a day for a table without partitions.
    """
    if table.partition is None:
        if day:
            raise ValueError(f"{table.name} has no partitions")
        return f"{table.name}/{table.name}.parquet"
    return f"{table.name}/{table.partition}={value_of(day)}/{table.name}.parquet"


def value_of(day: Day) -> str:
    """The day as the partitions and locks are named: `2025-01-31`, or the null partition's name."""
    return str(day or NULL_PARTITION)


def readings_key(day: Day) -> str:
    """The key of the note that says when a day was last read."""
    return f"_readings/start_date={value_of(day)}.json"


def day_of(table: Table, key: str) -> date | None:
    """The day whose file `key` is; None for any other file in the table's folder, and for rows without a day."""
    folder, _, name = key.removeprefix(f"{table.name}/").partition("/")
    level, _, value = folder.partition("=")
    if level != table.partition or name != f"{table.name}.parquet":
        return None
    try:
        day = date.fromisoformat(value)
    except ValueError:
        return None
    # Python 3.11 also takes 20250131 and 2025-W05-5, and the same day would count twice.
    return day if day.isoformat() == value else None


def check_marker(store: Store, query: Mapping[str, Any] | None) -> bool:
    """Whether the lake in `store` is there; it is then of this version's layout, and filled with `query`, if given.

    Raises:
        LakeMismatchError: it has another layout, or was filled with another query.
        LakeError: the marker can't be read.
    """
    try:
        with store.open(MARKER, whole=True).source as file:
            content = json.loads(file.read())
        found, filled_with = int(content["layout"]), _canonical(content["query"])
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LakeError(
            f"{store.uri(MARKER)}: broken; put it back from a backup, or point SESSIONS_PIPELINE_DATA_ROOT elsewhere"
        ) from None
    if found != LAYOUT:
        advice = "upgrade sessions-pipeline" if found > LAYOUT else _ANEW
        raise LakeMismatchError(f"{store.uri(MARKER)}: layout {found}, where this version has {LAYOUT}; {advice}")
    if query is not None and filled_with != _canonical(query):
        raise LakeMismatchError(
            f"{store.uri(MARKER)}: filled with the query {filled_with}, not {_canonical(query)}; set"
            " SESSIONS_PIPELINE_QUERY as it was, or point SESSIONS_PIPELINE_DATA_ROOT elsewhere"
        )
    return True


def write_marker(store: Store, query: Mapping[str, Any]) -> None:
    """Say that the lake in `store` is filled with `query`; try on the marker that the store refuses a false condition.

    Raises:
        LakeMismatchError: another run has meanwhile begun the lake with another query.
        LakeError: the store takes a put whose condition does not hold, so that two runs could undo each other's work.
    """
    content = {"layout": LAYOUT, "query": json.loads(_canonical(query))}
    with store.lock("lake"):
        if not check_marker(store, query):
            try:
                store.put(MARKER, _encoded(content), None)
            except LakeConflictError:
                check_marker(store, query)
        # Not the same bytes: those count as put, since a put is sent again when its answer was lost.
        probe = _encoded({**content, "probe": uuid4().hex})
        for false in (None, _NO_VERSION):
            try:
                store.put(MARKER, probe, false)
            except LakeConflictError:
                continue
            raise LakeError(
                f"{store.uri(MARKER)}: this store ignores the conditions of a put (If-None-Match, If-Match), so two"
                " runs could undo each other's work; point SESSIONS_PIPELINE_DATA_ROOT at a store that knows them"
            )


def _encoded(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2).encode() + b"\n"


def _canonical(query: Mapping[str, Any]) -> str:
    """One spelling for one meaning: sorted keys, sorted lists (all of the API's are sets), nothing that is None."""
    spelled = {
        name: sorted(map(str, value)) if isinstance(value, list | tuple | set | frozenset) else value
        for name, value in query.items()
        if value is not None
    }
    return json.dumps(spelled, sort_keys=True, default=str)
