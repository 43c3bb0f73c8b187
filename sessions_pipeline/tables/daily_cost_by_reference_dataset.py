"""What each reference dataset's experiments cost by the UTC day they started: exact sums of what is known."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables import column
from sessions_pipeline.tables.aggregate import conform, sums, total, tuples
from sessions_pipeline.tables.sessions import SESSIONS, experiments
from sessions_pipeline.tables.table import CheckResult, DayTables, Table, check, derived

_AT = "summed over these experiments: all that each had used by its `stats_as_of`"
_COUNTS = (
    column.count("session_count", "Experiments that started in the period", nullable=False),
    column.count("priced_session_count", "Those with a `total_cost`", nullable=False),
    column.count("unpriced_session_count", "Those without one: their cost is unknown, not zero", nullable=False),
    column.count(
        "zero_cost_with_tokens_count",
        "Those that cost 0 although tokens were used: usually a model without a price",
        nullable=False,
    ),
)
_SUMS = (
    column.count("run_count", f"Traces, {_AT}; null when unknown"),
    column.count("prompt_tokens", f"Tokens in prompts, {_AT}; null when unknown"),
    column.count("completion_tokens", f"Tokens in completions, {_AT}; null when unknown"),
    column.count("total_tokens", f"Tokens, prompt and completion, {_AT}; null when unknown"),
    *(replace(column, description=f"{column.description}; {_AT}") for column in column.COSTS),
)
DAILY_MEASURES = (*_COUNTS, *_SUMS)

DAILY_COST_BY_REFERENCE_DATASET = Table(
    "daily_cost_by_reference_dataset",
    "What each reference dataset's experiments cost, by the UTC day they started: exact sums of what is known.",
    (
        column.TENANT,
        column.EXPERIMENTS_DATASET,
        *DAILY_MEASURES,
        column.flag("is_day_over", "The day had ended when it was read"),
    ),
    order=("tenant_id", "reference_dataset_id"),
    group="costs",
)
PERIOD_COLUMNS = (
    column.TENANT,
    column.EXPERIMENTS_DATASET,
    *DAILY_MEASURES,
    column.count("day_count", "Days of the period that were read", nullable=False),
    column.flag("is_complete", "Every day of it is over, and was read in each workspace that any was read in"),
)
"""What the sums of a week or a month have, after the period's first day."""

MEASURES = tuple(column.name for column in _SUMS)
_COUNTED = ("session_count", "priced_session_count", "unpriced_session_count")
_SUMMED = (*DAILY_COST_BY_REFERENCE_DATASET.order, "session_count", "total_cost")
NEEDED = (*DAILY_COST_BY_REFERENCE_DATASET.order, *MEASURES)
"""The columns of `sessions` that the sums are made from."""


@derived(DAILY_COST_BY_REFERENCE_DATASET, reads={SESSIONS: NEEDED})
def daily_cost_by_reference_dataset(day: DayTables) -> pa.Table:
    """The sums of one day. Sessions without a dataset do not count.

    Raises:
        SumOverflowError: a sum does not fit its column; the text names it.
    """
    summed = summed_costs(experiments(day, NEEDED), DAILY_COST_BY_REFERENCE_DATASET.order)
    is_open = pc.is_in(summed.column("tenant_id"), pa.array(sorted(day.open_workspaces), pa.string()))
    return conform(summed.append_column("is_day_over", pc.invert(is_open)), DAILY_COST_BY_REFERENCE_DATASET.schema)


def summed_costs(rows: pa.Table, keys: Sequence[str]) -> pa.Table:
    """`DAILY_MEASURES` of experiments, which have at least the columns `NEEDED`, by `keys`.

    Raises:
        SumOverflowError: a sum does not fit its column; the text names it.
    """
    # Any known count of tokens will do: some may be unknown.
    tokens = pc.max_element_wise(*(rows.column(f"{kind}_tokens") for kind in ("total", "prompt", "completion")))
    costs_nothing = pc.and_kleene(pc.equal(rows.column("total_cost"), Decimal(0)), pc.greater(tokens, 0))
    flagged = rows.append_column("priced_session_count", rows.column("total_cost").is_valid())
    flagged = flagged.append_column("zero_cost_with_tokens_count", pc.fill_null(costs_nothing, fill_value=False))
    summed = sums(flagged, keys, (*MEASURES, "priced_session_count", "zero_cost_with_tokens_count"))
    unpriced = pc.subtract(summed.column("rows"), summed.column("priced_session_count"))
    summed = summed.append_column("session_count", summed.column("rows"))
    return summed.append_column("unpriced_session_count", unpriced)


@check(
    DAILY_COST_BY_REFERENCE_DATASET,
    "The daily sums equal sums made again from the sessions.",
    "These costs are wrong; materialize the table of these days again.",
    reads={DAILY_COST_BY_REFERENCE_DATASET: _SUMMED, SESSIONS: (*DAILY_COST_BY_REFERENCE_DATASET.order, "total_cost")},
)
def costs_add_up(day: DayTables) -> CheckResult:
    """In Python, whose numbers do not overflow, from the sessions as they lie in the lake."""
    costs: defaultdict[tuple[str, str], list[Decimal | None]] = defaultdict(list)
    for tenant, dataset, cost in tuples(day[SESSIONS], *DAILY_COST_BY_REFERENCE_DATASET.order, "total_cost"):
        if dataset is not None:
            costs[tenant, dataset].append(cost)
    expected = {key: (len(all_), total(all_)) for key, all_ in costs.items()}
    daily = tuples(day[DAILY_COST_BY_REFERENCE_DATASET], *_SUMMED)
    found = {(tenant, dataset): (count, cost) for tenant, dataset, count, cost in daily}
    broken = [key for key in sorted(expected.keys() | found.keys()) if expected.get(key) != found.get(key)]
    return CheckResult(
        tuple(f"{day.day} {dataset} of {tenant}" for tenant, dataset in broken),
        {"rows": len(found), "total_cost": total(cost for _, cost in found.values()) or Decimal(0)},
    )


@check(
    DAILY_COST_BY_REFERENCE_DATASET,
    "A sum is unknown exactly where no session has a cost; unknown is never zero.",
    "These costs are wrong; materialize the table of these days again.",
    reads={DAILY_COST_BY_REFERENCE_DATASET: ("reference_dataset_id", *_COUNTED, "total_cost")},
)
def no_cost_is_invented(day: DayTables) -> CheckResult:
    """Priced and unpriced sessions are all sessions, and without a priced one there is no sum."""
    daily = list(tuples(day[DAILY_COST_BY_REFERENCE_DATASET], "reference_dataset_id", *_COUNTED, "total_cost"))
    broken = [
        f"{day.day} {dataset}"
        for dataset, sessions, priced, unpriced, cost in daily
        if (priced == 0) is not (cost is None) or priced + unpriced != sessions
    ]
    return CheckResult(
        tuple(broken), {"rows": len(daily), "unpriced_sessions": sum(unpriced for *_, unpriced, _ in daily)}
    )
