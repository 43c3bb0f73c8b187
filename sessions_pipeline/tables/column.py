"""Columns: their definition, one constructor per type, and the columns that several tables share."""

from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from sessions_pipeline.validation.model import PROPERTIES
from sessions_pipeline.validation.types import MONEY, TIMESTAMP


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its Arrow type, name, description, and whether it may be null.

    `repeats`: it has few distinct values, so Parquet dictionary-encodes it.
    `long_text`: nobody filters it by range, and its minimum and maximum would only bloat the file, so it gets no
    Parquet statistics.
    """

    type: pa.DataType
    name: str
    description: str
    nullable: bool = True
    repeats: bool = False
    long_text: bool = False


# A column of each type: `text("name", "Its name", nullable=False)`. Times are microseconds UTC.
text = partial(Column, pa.string())
texts = partial(Column, pa.list_(pa.string()))
count = partial(Column, pa.int64())
number = partial(Column, pa.float64())
time = partial(Column, TIMESTAMP)
flag = partial(Column, pa.bool_(), nullable=False)


def money(name: str, description: str) -> Column:
    """A nullable column of US dollars, decimal128(38, 18)."""
    return Column(MONEY, name, f"{description}, US dollars, exact; null when unknown")


_REPEATING = ("tenant_id", "default_dataset_id", "reference_dataset_id", "trace_tier")
_LONG = ("description", "extra", "feedback_stats", "session_feedback_stats", "run_facets", "experiment_progress")
SESSION = text("id", "The session, canonical UUID", nullable=False)
TENANT = text("tenant_id", "The workspace, canonical UUID", nullable=False, repeats=True)
DATASET = text(
    "reference_dataset_id", "The dataset that the experiment ran against; null for a tracing project", repeats=True
)
EXPERIMENTS_DATASET = replace(DATASET, description="The reference dataset, canonical UUID", nullable=False)
SENT = {
    name: Column(rule.type, name, description, not required, repeats=name in _REPEATING, long_text=name in _LONG)
    for name, rule, required, _, description in PROPERTIES
}
"""The columns of the schema's properties, by name."""
COSTS = tuple(SENT[name] for name in ("prompt_cost", "completion_cost", "total_cost"))
MEASURES = ("run_count", "total_tokens", *(cost.name for cost in COSTS))
"""The columns that say what a session has used so far; a subset of the API's stats."""
