"""Concurrent runs: a file is only replaced if it is still the one its writer has read, and never by older results."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeAlias

import pyarrow as pa

from sessions_pipeline.errors import BrokenError
from sessions_pipeline.lake import Lake, Written, parquet
from sessions_pipeline.lake.layout import Day, key_of
from sessions_pipeline.lake.store import retried
from sessions_pipeline.tables import FROM_API, RAW_SESSIONS, Table
from sessions_pipeline.tables.rows import Rows
from sessions_pipeline.tables.table import COMMIT

# A day has seven derived files.
_WRITERS = 8

NewContent: TypeAlias = tuple[pa.Table, Mapping[str, str]] | None
"""The new rows and metadata of a file; None leaves the file as it is."""
Make: TypeAlias = Callable[[pa.Table, Mapping[str, str]], NewContent]


@retried
def update_table(lake: Lake, table: Table, day: Day, make: Make) -> None:
    """Replace a file by what `make` returns for its current rows and metadata, which are empty if there is no file.

    If another run replaces the file first, `make` is called again with that run's content. An unreadable file counts as
    none, unless only the API could fill it again.

    Raises:
        LakeConflictError: other runs have replaced the file again and again.
        LakeError: the file could not be read or written; the former one is intact.
    """
    try:
        stored = lake.load(table, day)
        version = stored and stored.version
    except BrokenError as error:
        if table in FROM_API:
            raise
        stored, version = None, error.version
    rows, metadata = (stored.rows, stored.metadata) if stored else (table.schema.empty_table(), {})
    if content := make(rows, metadata):
        lake.replace(table, day, *content, expected=version)


def replace_derived(
    lake: Lake, table: Table, day: Day, data: pa.Table | Rows, metadata: Mapping[str, str], *, commit: int
) -> Future[Written | None]:
    """Encode the rows of a derived table, and replace its file in another thread. The caller must hold the day's lock.

    `commit` is the number of the raw commit that the rows were made from. The future's result is None if the stored
    file was made from a later commit, which the raw file has, and so was left alone. A file that is unreadable or does
    not name its commit is always replaced. Files are written in parallel, since a disk makes many files durable in the
    time of one: 0.3 ms each instead of 3. A file is durable when its future is done.

    Raises:
        LakeConflictError: (from the future) other runs have replaced the file again and again.
        LakeError: (from the future) the file could not be written.
        KeyError, TypeError, ValueError: the data does not fit the table's schema; a bug in the caller.
    """
    content = parquet.encode(table, data, {**metadata, COMMIT: str(commit)})
    return _writers(os.getpid()).submit(_put_derived, lake, table, day, content, commit)


@retried
def _put_derived(lake: Lake, table: Table, day: Day, content: pa.Buffer, commit: int) -> Written | None:
    version, stored = stored_metadata(lake, table, day)
    # A raw file that was restored from a backup is older than the tables made from its successors.
    if commit < _commit_of(stored) <= _commit_of(stored_metadata(lake, RAW_SESSIONS, day)[1]):
        return None
    return lake.put(key_of(table, day), content, version)


@cache
def _writers(_process: int) -> ThreadPoolExecutor:
    """A process's writer threads. They are reused, because starting them takes a twentieth of a day's time."""
    return ThreadPoolExecutor(_WRITERS, thread_name_prefix="files")


def stored_metadata(lake: Lake, table: Table, day: Day) -> tuple[str | None, Mapping[str, str]]:
    """A file's version and metadata; the metadata is empty if the file is missing or broken."""
    try:
        stored = lake.load(table, day, ())
    except BrokenError as error:
        return error.version, {}
    return (stored.version, stored.metadata) if stored else (None, {})


def _commit_of(metadata: Mapping[str, str]) -> int:
    """The raw commit that a file is or was made from; -1 if it is missing, broken or unnumbered."""
    commit = metadata.get(COMMIT, "")
    return int(commit) if commit.isdecimal() else -1
