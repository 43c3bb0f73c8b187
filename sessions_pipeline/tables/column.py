"""What a column is, the kinds that there are, and those that several tables have."""

from dataclasses import dataclass, replace

import pyarrow as pa

from sessions_pipeline.validation.types import MONEY, TIMESTAMP


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, Arrow type, what it means, and whether it may be null.

    `repeats`: few values come again and again, so it is dictionary-encoded. `long_text`: nobody filters it by range,
    and its smallest and largest value would only swell the file, so it has no statistics.
    """

    name: str
    type: pa.DataType
    description: str
    nullable: bool = True
    repeats: bool = False
    long_text: bool = False


def text(name: str, description: str, **more: bool) -> Column:
    """A column of text."""
    return Column(name, pa.string(), description, **more)


def count(name: str, description: str, **more: bool) -> Column:
    """A column of whole numbers."""
    return Column(name, pa.int64(), description, **more)


def number(name: str, description: str) -> Column:
    """A column of doubles."""
    return Column(name, pa.float64(), description)


def money(name: str, description: str) -> Column:
    """A column of US dollars."""
    return Column(name, MONEY, f"{description}, US dollars, exact; null when unknown")


def time(name: str, description: str, **more: bool) -> Column:
    """A column of UTC times."""
    return Column(name, TIMESTAMP, description, **more)


def flag(name: str, description: str) -> Column:
    """A column of yes and no, never null."""
    return Column(name, pa.bool_(), description, nullable=False)


SESSION = text("id", "The session, canonical UUID", nullable=False)
TENANT = text("tenant_id", "The workspace that the session belongs to, canonical UUID", nullable=False, repeats=True)
DATASET = text(
    "reference_dataset_id", "The dataset that the experiment ran against; null for a tracing project", repeats=True
)
EXPERIMENTS_DATASET = replace(
    DATASET, description="The reference dataset, which experiments ran against, canonical UUID", nullable=False
)
RUN_COUNT = count("run_count", "Traces recorded; null when unknown")
TOTAL_TOKENS = count("total_tokens", "Tokens used, prompt and completion; null when unknown")
COSTS = (
    money("prompt_cost", "Cost of the prompts"),
    money("completion_cost", "Cost of the completions"),
    money("total_cost", "Total cost, which may exceed prompt and completion together"),
)
MEASURES = ("run_count", "total_tokens", *(cost.name for cost in COSTS))
"""What a session has used, of what the API's stats tell."""
