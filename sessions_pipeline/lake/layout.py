"""Which key holds which day of which table, after the conventions of Hive.

`<table>/start_date=2025-01-31/<table>.parquet`; the null partition is `start_date=__HIVE_DEFAULT_PARTITION__`; an
unpartitioned table is `<table>/<table>.parquet`. The partition value is in the path alone. Other files and folders in a
table's folder are nobody's day, a second spelling of one (`start_date=20250131`) included.
"""

from datetime import date
from enum import Enum
from typing import Final, TypeAlias

from sessions_pipeline.tables import Table

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


class Undated(Enum):
    """The partition of rows without a day; its only member is `UNDATED`."""

    UNDATED = NULL_PARTITION

    def __str__(self) -> str:
        return "rows without a day"


UNDATED: Final = Undated.UNDATED

# A UTC day, `UNDATED`, or None for a table without partitions.
Day: TypeAlias = date | Undated | None


def key_of(table: Table, day: Day) -> str:
    """The key of one day of a table, relative to the lake's root.

    Raises:
        ValueError: a day for a table without partitions, or none for one with them.
    """
    if (day is None) is not (table.partition is None):
        raise ValueError(f"{table.name} {'has no partitions' if table.partition is None else 'needs a day'}")
    if day is None:
        return f"{table.name}/{table.name}.parquet"
    return f"{table.name}/{table.partition}={value_of(day)}/{table.name}.parquet"


def value_of(day: Day) -> str:
    """The day as the partitions and locks are named: `2025-01-31`, the null partition's name, or `all` for None."""
    if isinstance(day, date):
        return day.isoformat()
    return "all" if day is None else day.value


def readings_key(day: Day) -> str:
    """The key of the note that says when a day was last read."""
    return f"_readings/start_date={value_of(day)}.json"


def day_of(table: Table, key: str) -> date | Undated | None:
    """The day whose file `key` is; None for any other file in the table's folder."""
    folder, _, name = key.removeprefix(f"{table.name}/").partition("/")
    level, _, value = folder.partition("=")
    if level != table.partition or name != f"{table.name}.parquet":
        return None
    if value == NULL_PARTITION:
        return UNDATED
    try:
        day = date.fromisoformat(value)
    except ValueError:
        return None
    # Python 3.11 also takes 20250131 and 2025-W05-5, and the same day would count twice.
    return day if day.isoformat() == value else None
