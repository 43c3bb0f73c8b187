"""What each reference dataset's experiments cost by the UTC day they started: exact sums of what is known."""

import pyarrow as pa

from sessions_pipeline.insights.sql import conform, sums
from sessions_pipeline.schema.columns import DAILY_COST_BY_REFERENCE_DATASET, SESSIONS

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

# Any known count will do: one of the three may be unknown.
_TOKENS_USED = "greatest(total_tokens, prompt_tokens, completion_tokens) > 0"
_COUNTS = (
    "count(*) AS session_count",
    "count(total_cost) AS priced_session_count",
    "count(*) - count(total_cost) AS unpriced_session_count",
    f"count(*) FILTER (total_cost = 0 AND {_TOKENS_USED}) AS zero_cost_with_tokens_count",
)


def daily_cost_by_reference_dataset(sessions: pa.Table) -> pa.Table:
    """The sums of one day. `sessions` has at least the columns `NEEDED`; those without a dataset do not count.

    Raises:
        SumOverflowError: a sum does not fit its column; the text names it.
    """
    return _sums(sessions, (), DAILY_COST_BY_REFERENCE_DATASET.schema)


def daily_costs(sessions: pa.Table) -> pa.Table:
    """The sums of many days at once: `sessions` has `start_date` (date32) too, and so has the result, first.

    One query for a month costs little more than one for a day.

    Raises:
        SumOverflowError: a sum does not fit its column; the text names it.
    """
    return _sums(sessions, (DAY.name,), pa.schema([DAY, *DAILY_COST_BY_REFERENCE_DATASET.schema]))


def _sums(sessions: pa.Table, days: tuple[str, ...], schema: pa.Schema) -> pa.Table:
    needed = sessions.select([*days, *NEEDED]).cast(
        pa.schema([*(DAY for _ in days), *(SESSIONS.schema.field(name) for name in NEEDED)])
    )
    experiments = needed.filter(needed.column("reference_dataset_id").is_valid())
    return conform(sums(experiments, (*days, *_KEYS), MEASURES, _COUNTS), schema)
