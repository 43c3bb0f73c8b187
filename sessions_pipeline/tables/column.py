"""Columns: their definition, one constructor per type, and the columns that several tables share."""

from dataclasses import dataclass, replace

import pyarrow as pa

from sessions_pipeline.validation.model import PROPERTIES
from sessions_pipeline.validation.types import MONEY, TIMESTAMP


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, Arrow type, description, and whether it may be null.

    `repeats`: it has few distinct values, so Parquet dictionary-encodes it.
    `long_text`: nobody filters it by range, and its minimum and maximum would only bloat the file, so it gets no
    Parquet statistics.
    """

    name: str
    type: pa.DataType
    description: str
    nullable: bool = True
    repeats: bool = False
    long_text: bool = False


def text(name: str, description: str, **more: bool) -> Column:
    """A string column."""
    return Column(name, pa.string(), description, **more)


def count(name: str, description: str, **more: bool) -> Column:
    """An int64 column."""
    return Column(name, pa.int64(), description, **more)


def number(name: str, description: str) -> Column:
    """A float64 column."""
    return Column(name, pa.float64(), description)


def money(name: str, description: str) -> Column:
    """A nullable column of US dollars, decimal128(38, 18)."""
    return Column(name, MONEY, f"{description}, US dollars, exact; null when unknown")


def time(name: str, description: str, **more: bool) -> Column:
    """A timestamp column, microseconds UTC."""
    return Column(name, TIMESTAMP, description, **more)


def flag(name: str, description: str) -> Column:
    """A boolean column, never null."""
    return Column(name, pa.bool_(), description, nullable=False)


_REPEATING = frozenset(["tenant_id", "default_dataset_id", "reference_dataset_id", "trace_tier"])
_LONG = frozenset(
    ["description", "extra", "feedback_stats", "session_feedback_stats", "run_facets", "experiment_progress"]
)
SESSION = text("id", "The session, canonical UUID", nullable=False)
TENANT = text("tenant_id", "The workspace, canonical UUID", nullable=False, repeats=True)
DATASET = text(
    "reference_dataset_id", "The dataset that the experiment ran against; null for a tracing project", repeats=True
)
EXPERIMENTS_DATASET = replace(DATASET, description="The reference dataset, canonical UUID", nullable=False)
SENT = {
    name: Column(name, rule.type, description, not required, repeats=name in _REPEATING, long_text=name in _LONG)
    for name, rule, description, required, _ in PROPERTIES
}
"""The columns of the schema's properties, by name."""
COSTS = tuple(SENT[name] for name in ("prompt_cost", "completion_cost", "total_cost"))
MEASURES = ("run_count", "total_tokens", *(cost.name for cost in COSTS))
"""The columns that say what a session has used so far; a subset of the API's stats."""
