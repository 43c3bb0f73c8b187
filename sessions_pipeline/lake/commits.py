"""Concurrent runs: a file is only replaced if it is still the one its writer has read, and never by older results."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import pyarrow as pa

from sessions_pipeline.errors import BrokenError
from sessions_pipeline.lake import Lake, Written
from sessions_pipeline.lake.layout import Day, key_of
from sessions_pipeline.lake.store import retried
from sessions_pipeline.tables import FROM_API, RAW_SESSIONS, Table
from sessions_pipeline.tables.table import COMMIT

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


@retried
def replace_derived(lake: Lake, table: Table, day: Day, content: pa.Buffer, *, commit: int) -> Written | None:
    """Replace the file of a derived table, unless the stored one is newer. The caller must hold the day's lock.

    `commit` is the number of the raw commit that the content was made from. The result is None if the stored file was
    made from a later commit, which the raw file has, and so was left alone. A file that is unreadable or does not name
    its commit is always replaced.

    Raises:
        LakeConflictError: other runs have replaced the file again and again.
        LakeError: the file could not be written.
    """
    version, stored = stored_metadata(lake, table, day)
    # A raw file that was restored from a backup is older than the tables made from its successors.
    if commit < _commit_of(stored) <= _commit_of(stored_metadata(lake, RAW_SESSIONS, day)[1]):
        return None
    return lake.put(key_of(table, day), content, version)


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
