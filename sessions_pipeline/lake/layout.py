"""Which key holds which day of which table, after the conventions of Hive.

`<table>/start_date=2025-01-31/<table>.parquet`; the null partition is `start_date=__HIVE_DEFAULT_PARTITION__`; an
unpartitioned table is `<table>/<table>.parquet`. The partition value is in the path alone.
"""

from collections.abc import Iterable
from datetime import date
from enum import Enum
from typing import Final, TypeAlias

from sessions_pipeline.tables import Table

LOCKS = "_locks"
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


class Undated(Enum):
    """The partition of rows without a day; its only member is `UNDATED`."""

    UNDATED = NULL_PARTITION

    def __str__(self) -> str:
        return "no day"


UNDATED: Final = Undated.UNDATED

Day: TypeAlias = date | Undated | None
"""A UTC day, `UNDATED`, or None for a table without partitions."""


def key_of(table: Table, day: Day) -> str:
    """The key of one day of a table, relative to the lake's root.

    Raises:
        ValueError: a day for a table without partitions, or none for one with them.
    """
    if (day is None) is not (table.partition is None):
        raise ValueError(f"{table.name} {'has no partitions' if table.partition is None else 'needs a day'}")
    if day is None:
        return f"{table.name}/{table.name}.parquet"
    value = day.value if isinstance(day, Undated) else day.isoformat()
    return f"{table.name}/{table.partition}={value}/{table.name}.parquet"


def lock_of(day: Day) -> str:
    """The name of the lock that a day is written under: its month, such as `2025-01`; `undated`; `lake` for None."""
    if isinstance(day, date):
        return f"{day:%Y-%m}"
    return "lake" if day is None else "undated"


def lock_names(keys: Iterable[str]) -> set[str]:
    """The locks that the files in the folder of locks stand for."""
    files = (key.rpartition("/")[2] for key in keys)
    return {file.partition(".")[0] for file in files if "." in file}


def day_of(table: Table, key: str) -> date | Undated | None:
    """The day whose file `key` is; None for any other file in the table's folder."""
    folder, _, name = key.removeprefix(f"{table.name}/").partition("/")
    level, _, value = folder.partition("=")
    if level != table.partition or name != f"{table.name}.parquet":
        return None
    if value == NULL_PARTITION:
        return UNDATED
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None
