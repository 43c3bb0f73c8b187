"""How runs that write at once leave one truth: a file is put over what its writer saw, and never goes back."""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from typing import TypeAlias

import pyarrow as pa

from sessions_pipeline.lake import parquet
from sessions_pipeline.lake.lake import Lake, Written
from sessions_pipeline.lake.layout import Day
from sessions_pipeline.lake.parquet import BrokenError, Stored
from sessions_pipeline.lake.store import tries
from sessions_pipeline.tables import RAW_SESSIONS, Table
from sessions_pipeline.tables.readings import COMMIT
from sessions_pipeline.validation.rows import Rows

# A day has seven derived files.
_WRITERS = 8

Made: TypeAlias = tuple[pa.Table, dict[str, str]] | None
"""A file's rows and metadata; None leaves the file as it is."""
ReplaceDerived: TypeAlias = Callable[[Table, pa.Table | Rows, Mapping[str, str], int], Future[Written | None]]


def commit(
    lake: Lake, table: Table, day: Day, make: Callable[[Stored | None], Made], *, from_others: bool = False
) -> None:
    """Replace a file by what `make` makes of it; where another run was quicker it is made again, of that run's file.

    `from_others`: all of it can be made from other tables, so one that can't be read counts as none.

    Raises:
        LakeConflictError: others replace it again and again.
        LakeError: the file could not be read or written; the former one is intact.
    """
    for one in tries():
        try:
            stored = lake.load(table, day)
            version = stored and stored.version
        except BrokenError as error:
            if not from_others:
                raise
            stored, version = None, error.version
        made = make(stored)
        if made is None:
            return
        with one:
            lake.replace(table, day, *made, expected=version)
            return


@contextmanager
def writing(lake: Lake, day: Day) -> Iterator[ReplaceDerived]:
    """Lock a day, and replace derived files of it by what is given: table, rows, metadata, and their raw commit.

    A future tells what was written, None if what is there was made from a later commit; a file that doesn't say what
    it was made from, or can't be read, counts as older. Several are written at once, since a disk makes many files
    durable in the time of one: 0.3 ms each instead of 3. All are durable when the block ends.

    Raises:
        LakeConflictError: (the future) others replace it again and again.
        LakeError: the day can't be locked; (the future) the file could not be written.
        TypeError, ValueError: the data breaks the table's schema, a fault of the program.
    """
    begun = list[Future[Written | None]]()
    with lake.lock(day):

        def replace(
            table: Table, data: pa.Table | Rows, metadata: Mapping[str, str], commit: int
        ) -> Future[Written | None]:
            content = parquet.encode(table, data, {**metadata, COMMIT: str(commit)})
            threads = _writers(os.getpid())
            begun.append(threads.submit(_replace_older, lake, table, day, content, commit))
            return begun[-1]

        try:
            yield replace
        finally:
            wait(begun)


@cache
def _writers(_process: int) -> ThreadPoolExecutor:
    """Threads that are kept, since starting them for each day takes a twentieth of its time."""
    return ThreadPoolExecutor(_WRITERS, thread_name_prefix="files")


def _replace_older(lake: Lake, table: Table, day: Day, content: pa.Buffer, commit: int) -> Written | None:
    for one in tries():
        with one:
            version, made_from = _made_from(lake, table, day)
            # Raw files may be put back from a backup: then what was made from later ones is of no commit there is.
            if commit < made_from <= _made_from(lake, RAW_SESSIONS, day)[1]:
                return None
            return lake.put(table, day, content, expected=version)
    raise AssertionError


def _made_from(lake: Lake, table: Table, day: Day) -> tuple[str | None, int]:
    """The version of a derived file and the raw commit that it was made from; -1 if there is none that says it."""
    try:
        stored = lake.load(table, day, ())
    except BrokenError as error:
        return error.version, -1
    made_from = stored.metadata.get(COMMIT, "") if stored else ""
    return stored and stored.version, int(made_from) if made_from.isdecimal() else -1
