"""The cost of LLM experiments: LangSmith's tracing sessions as validated Parquet, and exact daily costs."""

from datetime import date
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import pyarrow as pa

__version__ = "0.1.0"
AnyDay: TypeAlias = date | str | None


def read(
    table: str, start: AnyDay = None, end: AnyDay = None, *, root: str | Path | None = None, undated: bool = False
) -> "pa.Table":
    """Read a table of the lake into one Arrow table; `.to_pandas()` keeps costs as exact `Decimal`.

    Args:
        table: the table's name, such as `daily_cost_by_reference_dataset`.
        start: the first UTC day, as a date or `YYYY-MM-DD`. A week or month is selected by its first day.
        end: the last UTC day, included. Without `start` and `end`, all days are read.
        root: the lake's folder or `s3://bucket/prefix`; by default `SESSIONS_PIPELINE_DATA_ROOT`.
        undated: also return the rows without a day, which belong to no total. If they are left out and no days were
            asked for, a `UserWarning` says so.

    Returns:
        The table's columns, then the day (date32) as the last column. After `reference_dataset_id`, a column
        `dataset` holds the dataset's current name, else the name in its experiments' metadata, else the id. If two
        datasets share a name, each has its id in brackets. `experiment_summary` also has `judge_cost`, null if judges
        were not measured or their cost is unknown, and `whole_cost`, null if either cost is unknown. A `UserWarning`
        names days that were never read.

    Raises:
        UsageError: there is no such table, or no such day.
        NotReadError: there is no lake, or the table was never made.
        LakeError: a file can't be read.
    """
    # Imported on the first call, because importing Arrow takes 50 ms and everything imports this module.
    rows: pa.Table = import_module("sessions_pipeline.outputs.read").read(table, start, end, root, undated)
    return rows
