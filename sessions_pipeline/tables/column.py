"""Columns: their definition, one constructor per type, and the columns that several tables share."""

from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from sessions_pipeline.validation.model import PROPERTIES
from sessions_pipeline.validation.types import MONEY, TIMESTAMP


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its Arrow type, name, description, and whether it may be null."""

    type: pa.DataType
    name: str
    description: str
    nullable: bool = True


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


SESSION = text("id", "The session, canonical UUID", nullable=False)
TENANT = text("tenant_id", "The workspace, canonical UUID", nullable=False)
DATASET = text("reference_dataset_id", "The dataset that the experiment ran against; null for a tracing project")
EXPERIMENTS_DATASET = replace(DATASET, description="The reference dataset, canonical UUID", nullable=False)
SENT = {name: Column(rule.type, name, description, not required) for name, rule, required, _, description in PROPERTIES}
"""The columns of the schema's properties, by name."""
COSTS = tuple(SENT[name] for name in ("prompt_cost", "completion_cost", "total_cost"))
MEASURES = ("run_count", "total_tokens", *(cost.name for cost in COSTS))
"""The columns that say what a session has used so far; a subset of the API's stats."""
