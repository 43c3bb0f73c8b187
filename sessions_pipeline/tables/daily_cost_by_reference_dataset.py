"""What each reference dataset's experiments cost by the UTC day they started: exact sums of what is known."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables.aggregate import counted, sums
from sessions_pipeline.tables.sessions import SESSIONS
from sessions_pipeline.tables.sql import conform
from sessions_pipeline.tables.table import (
    COSTS,
    EXPERIMENTS_DATASET,
    TENANT,
    Table,
    count,
    flag,
    registered,
)
from sessions_pipeline.validation.arrays import int64_array

DAILY_MEASURES = (
    count("session_count", "Experiments that started in the period", nullable=False),
    count("priced_session_count", "Those with a `total_cost`", nullable=False),
    count("unpriced_session_count", "Those without one: their cost is unknown, not zero", nullable=False),
    count(
        "zero_cost_with_tokens_count",
        "Those that cost 0 although tokens were used: usually a model without a price",
        nullable=False,
    ),
    count("run_count", "Traces recorded for all their lives, as of `stats_as_of`; null when unknown"),
    count("prompt_tokens", "Tokens in prompts"),
    count("completion_tokens", "Tokens in completions"),
    count("total_tokens", "Tokens used, prompt and completion; null when unknown"),
    *(
        replace(
            column,
            description=f"{column.description}; of the experiments that started on the day, what each had cost at its "
            "`stats_as_of`, for all its life",
        )
        for column in COSTS
    ),
)

DAILY_COST_BY_REFERENCE_DATASET = registered(
    Table(
        "daily_cost_by_reference_dataset",
        "What each reference dataset's experiments cost, by the UTC day they started: exact sums of what is known.",
        (
            TENANT,
            EXPERIMENTS_DATASET,
            *DAILY_MEASURES,
            flag("is_day_over", "The day had ended when it was read"),
        ),
        order=("tenant_id", "reference_dataset_id"),
        group="costs",
    )
)

_KEYS = ("tenant_id", "reference_dataset_id")
MEASURES = (
    "run_count",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "prompt_cost",
    "completion_cost",
    "total_cost",
)
NEEDED = (*_KEYS, *MEASURES)
"""The columns of `sessions` that the sums are made from."""

DAY = pa.field("start_date", pa.date32())

# By way of an array, because `pa.scalar` imports pandas, which takes 0.4 s.
(_ZERO,) = int64_array([0], pa.int64())


def daily_cost_by_reference_dataset(sessions: pa.Table) -> pa.Table:
    """The sums of one day. `sessions` has at least the columns `NEEDED`; those without a dataset do not count.

    Raises:
        SumOverflowError: a sum does not fit its column; the text names it.
    """
    needed = sessions.select(list(NEEDED)).cast(pa.schema([SESSIONS.schema.field(name) for name in NEEDED]))
    experiments = needed.filter(needed.column("reference_dataset_id").is_valid())
    priced = counted(experiments.column("total_cost").is_valid())
    flagged = experiments.append_column("priced_session_count", priced).append_column(
        "zero_cost_with_tokens_count", counted(_costs_nothing(experiments))
    )
    summed = sums(flagged, _KEYS, (*MEASURES, "priced_session_count", "zero_cost_with_tokens_count"))
    unpriced = pc.subtract(summed.column("rows"), summed.column("priced_session_count"))
    summed = summed.append_column("session_count", summed.column("rows"))
    return conform(summed.append_column("unpriced_session_count", unpriced), DAILY_COST_BY_REFERENCE_DATASET.schema)


def _costs_nothing(sessions: pa.Table) -> pa.ChunkedArray:
    """Where a cost is zero although tokens were used. Any known count of tokens will do: some may be unknown."""
    tokens = pc.max_element_wise(*(sessions.column(f"{kind}_tokens") for kind in ("total", "prompt", "completion")))
    return pc.and_kleene(pc.equal(sessions.column("total_cost"), _ZERO), pc.greater(tokens, _ZERO))
