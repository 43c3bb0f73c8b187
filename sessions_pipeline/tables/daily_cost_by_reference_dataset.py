"""Daily costs of each dataset's experiments, by the UTC day they started: exact sums of what is known."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables import column
from sessions_pipeline.tables.aggregate import sums, total, tuples
from sessions_pipeline.tables.sessions import SESSIONS, experiments
from sessions_pipeline.tables.table import CheckResult, DayTables, Table, Tables, check, derived

_SUM = "summed over these experiments: all they are known to have used by `stats_as_of`; null when nothing is known"
_COUNTS = (
    column.count("session_count", "Experiments that started on the day, or in the week or month", nullable=False),
    column.count("priced_session_count", "Those whose `total_cost` is known", nullable=False),
    column.count("unpriced_session_count", "Those whose `total_cost` is unknown, not zero", nullable=False),
    column.count(
        "zero_cost_with_tokens_count",
        "Those that cost 0 although they used tokens: usually their model has no price",
        nullable=False,
    ),
)
_SUMS = (
    column.count("run_count", f"Traces, {_SUM}"),
    column.count("prompt_tokens", f"Tokens in prompts, {_SUM}"),
    column.count("completion_tokens", f"Tokens in completions, {_SUM}"),
    column.count("total_tokens", f"Tokens, prompt and completion, {_SUM}"),
    *(replace(cost, description=cost.description.replace("; null when unknown", f", {_SUM}")) for cost in column.COSTS),
)
DAILY_MEASURES = (*_COUNTS, *_SUMS)

DAILY_COST_BY_REFERENCE_DATASET = Table(
    "daily_cost_by_reference_dataset",
    "Costs of each dataset's experiments, by the UTC day they started: exact sums of what is known.",
    (
        column.TENANT,
        column.EXPERIMENTS_DATASET,
        *DAILY_MEASURES,
        column.flag("is_day_over", "True if the day had ended when it was last read"),
    ),
    order=("tenant_id", "reference_dataset_id"),
    group="costs",
)
SUM_NAMES = tuple(column.name for column in _SUMS)
_COUNTED = ("session_count", "priced_session_count", "unpriced_session_count")
_SUMMED = (*DAILY_COST_BY_REFERENCE_DATASET.order, "session_count", "total_cost")
NEEDED = (*DAILY_COST_BY_REFERENCE_DATASET.order, *SUM_NAMES)
"""The columns of `sessions` that the sums are computed from."""


@derived(DAILY_COST_BY_REFERENCE_DATASET, reads={SESSIONS: NEEDED}, takes=("open_workspaces",))
def daily_cost_by_reference_dataset(tables: Tables, open_workspaces: Collection[str]) -> pa.Table:
    """The sums of one day. Sessions without a dataset are left out.

    Raises:
        SumOverflowError: a sum does not fit its column; the text names it.
    """
    summed = summed_costs(experiments(tables, NEEDED), DAILY_COST_BY_REFERENCE_DATASET.order)
    is_open = pc.is_in(summed.column("tenant_id"), pa.array(sorted(open_workspaces), pa.string()))
    return summed.append_column("is_day_over", pc.invert(is_open))


def summed_costs(rows: pa.Table, keys: Sequence[str]) -> pa.Table:
    """`DAILY_MEASURES` of experiments by `keys`. `rows` has the columns `NEEDED` and `keys`.

    Raises:
        SumOverflowError: a sum does not fit its column; the text names it.
    """
    # Some of the three token counts may be unknown; any that is above zero shows that tokens were used.
    tokens = pc.max_element_wise(*(rows.column(f"{kind}_tokens") for kind in ("total", "prompt", "completion")))
    is_zero_with_tokens = pc.and_kleene(pc.equal(rows.column("total_cost"), Decimal(0)), pc.greater(tokens, 0))
    flagged = rows.append_column("priced_session_count", rows.column("total_cost").is_valid())
    flagged = flagged.append_column("zero_cost_with_tokens_count", pc.fill_null(is_zero_with_tokens, fill_value=False))
    summed = sums(flagged, keys, (*SUM_NAMES, "priced_session_count", "zero_cost_with_tokens_count"))
    summed = summed.rename_columns({"rows": "session_count"})
    unpriced = pc.subtract(summed.column("session_count"), summed.column("priced_session_count"))
    return summed.append_column("unpriced_session_count", unpriced)


@check(
    DAILY_COST_BY_REFERENCE_DATASET,
    "The daily sums equal an independent sum over the sessions.",
    "These costs are wrong; materialize the table again for these days.",
    reads={DAILY_COST_BY_REFERENCE_DATASET: _SUMMED, SESSIONS: (*DAILY_COST_BY_REFERENCE_DATASET.order, "total_cost")},
)
def costs_add_up(day: DayTables) -> CheckResult:
    """Sums the stored sessions in Python, whose numbers can't overflow."""
    costs: defaultdict[tuple[str, str], list[Decimal | None]] = defaultdict(list)
    for tenant, dataset, cost in tuples(day[SESSIONS], *DAILY_COST_BY_REFERENCE_DATASET.order, "total_cost"):
        if dataset is not None:
            costs[tenant, dataset].append(cost)
    expected = {key: (len(all_), total(all_)) for key, all_ in costs.items()}
    daily = tuples(day[DAILY_COST_BY_REFERENCE_DATASET], *_SUMMED)
    found = {(tenant, dataset): (count, cost) for tenant, dataset, count, cost in daily}
    wrong = [key for key in sorted(expected.keys() | found.keys()) if expected.get(key) != found.get(key)]
    broken = tuple(f"{day.day} {dataset} of {tenant}" for tenant, dataset in wrong)
    return CheckResult(broken, {"rows": len(found)})


@check(
    DAILY_COST_BY_REFERENCE_DATASET,
    "A sum is unknown exactly if no session of it has a known cost; unknown is never zero.",
    "These costs are wrong; materialize the table again for these days.",
    reads={DAILY_COST_BY_REFERENCE_DATASET: ("reference_dataset_id", *_COUNTED, "total_cost")},
)
def no_cost_is_invented(day: DayTables) -> CheckResult:
    """Also checks that priced and unpriced sessions add up to all sessions."""
    daily = list(tuples(day[DAILY_COST_BY_REFERENCE_DATASET], "reference_dataset_id", *_COUNTED, "total_cost"))
    broken = [
        f"{day.day} {dataset}"
        for dataset, sessions, priced, unpriced, cost in daily
        if (priced == 0) is not (cost is None) or priced + unpriced != sessions
    ]
    counts = {"rows": len(daily), "unpriced_sessions": sum(unpriced for *_, unpriced, _ in daily)}
    return CheckResult(tuple(broken), counts)
