"""The tables' checks as asset checks: on the days of the run, or on all days if the run has none."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import dagster as dg

from sessions_pipeline.errors import BrokenError, SettingError
from sessions_pipeline.orchestration import tagged_range
from sessions_pipeline.orchestration.assets import reason_first
from sessions_pipeline.outputs.budget_file import load_budgets
from sessions_pipeline.outputs.budgets import budget_statuses
from sessions_pipeline.outputs.formatting import plural
from sessions_pipeline.outputs.read import outdated_periods
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.tables import CHECKS, DAILY_COST_BY_REFERENCE_DATASET, REFERENCE_DATASETS, CheckResult
from sessions_pipeline.tables.period_costs import PERIODS
from sessions_pipeline.tables.table import Check

# How many violations are named in a check's metadata.
MOST_NAMED = 20


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(check.name, asset=check.table.name, description=check.description)
        for check in CHECKS.values()
    ],
    can_subset=True,
)
def check_tables(
    context: dg.AssetCheckExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> Iterator[dg.AssetCheckResult]:
    """All checks of all tables in one step, which runs after all tables of the run are written."""
    selected = [CHECKS[key.name] for key in sorted(context.selected_asset_check_keys)]
    with reason_first():
        results = pipeline.examine(selected, tagged_range(context.run.tags))
    for check in selected:
        yield dg.AssetCheckResult(
            asset_key=check.table.name,
            check_name=check.name,
            passed=results[check.name].passed,
            severity=dg.AssetCheckSeverity(check.severity.upper()),
            description=_description(check, results[check.name]),
            metadata=_metadata(results[check.name]),
        )


@dg.asset_check(asset=DAILY_COST_BY_REFERENCE_DATASET.name, additional_deps=[REFERENCE_DATASETS.name])
@reason_first()
def costs_are_within_budget(pipeline: dg.ResourceParam[Pipeline]) -> dg.AssetCheckResult:
    """No budget has reached its warning, or is beyond its limit."""
    # It depends on `reference_datasets`, because a budget may be for a dataset by its name.
    try:
        budgets = load_budgets(pipeline.settings)
        statuses = budget_statuses(pipeline.open_lake(read_only=True), budgets, pipeline.clock())
    except (SettingError, BrokenError) as error:
        return dg.AssetCheckResult(passed=False, description=str(error))
    states = Counter("wrong" if status.problem else status.state for status in statuses)
    reached = states["warning"] + states["exceeded"]
    summary = f"Budgets at their warning or beyond their limit: {reached} of {len(statuses)}; this changes no cost."
    wrong = f" {states['wrong']} can't be checked, for the reason below." if states["wrong"] else ""
    return dg.AssetCheckResult(
        passed=not reached and not wrong,
        severity=dg.AssetCheckSeverity("ERROR" if wrong or states["exceeded"] else "WARN"),
        description=summary + wrong,
        metadata={one.budget.label: "; ".join(filter(None, (one.headline, one.notes))) for one in statuses},
    )


@dg.asset_check(asset=DAILY_COST_BY_REFERENCE_DATASET.name, additional_deps=[one.table.name for one in PERIODS])
@reason_first()
def weeks_and_months_add_up(pipeline: dg.ResourceParam[Pipeline]) -> dg.AssetCheckResult:
    """Weeks and months are the sums of their days. If not, the next refresh sums them again."""
    # It belongs to the daily costs, because a run that is killed after it wrote them leaves weeks and months behind.
    try:
        result = CheckResult(tuple(outdated_periods(pipeline.open_lake(read_only=True))))
    except BrokenError as error:  # of a file that only another run can make again
        result = CheckResult((str(error),))
    return dg.AssetCheckResult(
        passed=result.passed,
        severity=dg.AssetCheckSeverity.WARN,
        description="True of all weeks and months." if result.passed else "Not true; `which` says of which.",
        metadata=_metadata(result),
    )


def _description(check: Check, result: CheckResult) -> str:
    """The check's outcome; for a failure also what that means for costs, and what to do."""
    days = plural(result.counts["days"], "day")
    failure = f"Not true in {plural(len(result.broken), 'case')} within {days}. {check.consequence}"
    return failure if result.broken else f"True of all {days}."


def _metadata(result: CheckResult) -> dict[str, Any]:
    which = {"which": ", ".join(result.broken[:MOST_NAMED])} if result.broken else {}
    return {**result.counts, "broken": len(result.broken), **which}
