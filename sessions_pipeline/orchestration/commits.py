"""Writing by version: what a table was when it was read is what it must still be when it is replaced."""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

import pyarrow as pa

from sessions_pipeline.errors import LakeConflictError
from sessions_pipeline.lake.day_file import Stored
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import Day
from sessions_pipeline.tables import Table

Made: TypeAlias = tuple[pa.Table, dict[str, str]] | None
"""A file's rows and metadata; None leaves the file as it is."""


def commit(lake: Lake, table: Table, day: Day, make: Callable[[Stored | None], Made]) -> None:
    """Replace a file by what `make` makes of it; where another run was quicker it is made again, of that run's file.

    Raises:
        LakeError: the file could not be read or written; the former one is intact.
    """
    while True:
        stored = lake.load(table, day)
        made = make(stored)
        if made is None:
            return
        with suppress(LakeConflictError):
            lake.replace(table, day, *made, expected=stored.version if stored else None)
            return
