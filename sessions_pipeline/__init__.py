"""What LLM experiments cost: tracing sessions as validated Parquet and exact daily costs."""

from datetime import date
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import pyarrow as pa

__version__ = "0.1.0"
Day: TypeAlias = date | str | None


def read(
    table: str, start: Day = None, end: Day = None, *, root: str | Path | None = None, undated: bool = False
) -> "pa.Table":
    """A table of the lake as one Arrow table; `.to_pandas()` keeps costs as exact `Decimal`.

    Args:
        table: its name, such as `daily_cost_by_reference_dataset`.
        start: the first UTC day, as a date or `YYYY-MM-DD`; of weeks and months their first day counts.
        end: the last one, included. Without both, all days.
        root: the lake's folder or `s3://bucket/prefix`; without it `SESSIONS_PIPELINE_DATA_ROOT`.
        undated: also the rows without a day, which belong to no total; without days, they are a `UserWarning`.

    Returns:
        The table's columns and, as the last one, its day (date32). `dataset`, behind `reference_dataset_id`, is the
        dataset's present name, else the one that experiments say, else the id; of two datasets of one name, each has
        its id in brackets. `experiment_summary` also has `judge_cost` and `whole_cost`, null where judges were not
        measured or one of the two is unknown. Days that were never read are a `UserWarning`.

    Raises:
        UsageError: there is no such table, or no such day.
        NotReadError: there is no lake, or the table was never made.
        LakeError: a file can't be read.
    """
    # Imported when it is called: Arrow takes 50 ms, and this module is imported by everything.
    found: pa.Table = import_module("sessions_pipeline.outputs.read").read(table, start, end, root, undated)
    return found
