"""Reading a table's file, and what to do when it is broken or somebody else's."""

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from sessions_pipeline.errors import LakeError
from sessions_pipeline.lake import parquet
from sessions_pipeline.lake.store import Store
from sessions_pipeline.tables import Table
from sessions_pipeline.validation.rows import Rows

# What the API said at a time: nothing makes these again.
_SOURCES = frozenset(["raw_sessions", "daily_cost_by_project", "reference_datasets", "judge_cost_by_experiment"])
# Their metadata says which readings the rows come from, so rows without it are of no use.
_NEEDS_METADATA = "raw_sessions"
_HISTORY = "put it back from a backup, since deleting it loses the history of its day, which the API may no longer have"


class Stored(NamedTuple):
    """A day as `Lake.load` found it: all of it from one file, of this version."""

    parts: Rows
    metadata: dict[str, str]
    version: str

    @property
    def rows(self) -> pa.Table:
        """All rows at once."""
        return self.parts.table()


class BrokenError(LakeError):
    """A file can't be read; `version` says which it was."""

    def __init__(self, message: str, version: str) -> None:
        super().__init__(message)
        self.version = version


def load(store: Store, table: Table, key: str, columns: Sequence[str] | None) -> Stored | None:
    """What is stored under the key, by one opening; None if there is no file. See `Lake.load`.

    Raises:
        BrokenError: it is no readable Parquet file of this table.
        LakeError: it is a raw one that another program wrote.
    """
    try:
        source, version = store.open(key, whole=columns != ())
    except FileNotFoundError:
        return None
    try:
        with source:
            rows, metadata = parquet.decode(table, source, columns)
    except parquet.UnreadableError as error:
        advice = _HISTORY if table.name in _SOURCES else f"materialize {table.name} again, from what is stored"
        text = f"{store.uri(key)}: not a readable Parquet file of this table ({error}); {advice}"
        raise BrokenError(text, version) from error
    if metadata is None and table.name == _NEEDS_METADATA:
        raise LakeError(
            f"{store.uri(key)}: another program wrote it, without the metadata that says what was read when; {_HISTORY}"
        )
    return Stored(rows, metadata or {}, version)
