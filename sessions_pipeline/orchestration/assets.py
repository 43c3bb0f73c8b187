"""The assets: one for each table, and the report. Tables of a day are made in one step; others have no partitions.

If `raw_sessions` is selected, the days are read from the API. Otherwise the selected tables are made again from the
stored raw sessions, without a request.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import partial
from typing import Any

import dagster as dg
import msgspec

from sessions_pipeline import tables
from sessions_pipeline.dataset_names import refresh_names
from sessions_pipeline.errors import SessionsPipelineError
from sessions_pipeline.langsmith.client import OWN_WORKSPACE
from sessions_pipeline.measurements import measurable_days, measure_judge_costs, measure_usage
from sessions_pipeline.orchestration import tagged_range
from sessions_pipeline.orchestration.event_storage import batch_events
from sessions_pipeline.outputs.formatting import day_ranges
from sessions_pipeline.outputs.spending import JUDGES_FILE, load_judge_readings
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.process_day import DayResult
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET as DAILY
from sessions_pipeline.tables import DERIVED, FROM_API, RAW_SESSIONS, REJECTED_SESSIONS, SESSIONS, Table
from sessions_pipeline.tables.period_costs import PERIODS
from sessions_pipeline.weeks_and_months import sum_after_days, sum_weeks_and_months

OWNERS = ["team:llm-costs"]
# When a step ends, Dagster records every partition of the run for each result: also days that were not written, and a
# second time those recorded already. It does not do so for results with this metadata (1.13, execute_step.py).
_ALREADY_RECORDED = {"__source_asset_observation__": True}
_DAGSTERS_NAMES = {"rows": "dagster/row_count", "uri": "dagster/uri"}

# The tables of a day, each with those that it is made from.
DAILY_TABLES = {RAW_SESSIONS: [], SESSIONS: [RAW_SESSIONS], REJECTED_SESSIONS: [RAW_SESSIONS]} | {
    table: list(derived.reads) for table, derived in DERIVED.items()
}


@contextmanager
def reason_first(kind: Callable[[str], Exception] = dg.Failure) -> Iterator[None]:
    """Raise our errors, in a block or a function, as a `Failure`, whose text the UI shows first, above stack traces.

    A sensor needs another `kind`, because only steps may raise a `Failure`. A generator needs the block, because its
    body runs only after the call.
    """
    try:
        yield
    except SessionsPipelineError as error:
        raise kind(str(error)) from error


def spec(table: Table, deps: Sequence[Table], *, partitions: dg.PartitionsDefinition | None = None) -> dg.AssetSpec:
    """The asset spec of a table: description, column schema, group, owner and kinds."""
    columns = [
        dg.TableColumn(one.name, str(one.type), one.description, dg.TableColumnConstraints(nullable=one.nullable))
        for one in table.columns
    ]
    return dg.AssetSpec(
        table.name,
        deps=[dep.name for dep in deps],
        description=table.description,
        group_name=table.group,
        owners=OWNERS,
        kinds={"parquet", "langsmith"} if table in FROM_API else {"parquet"},
        metadata={"dagster/column_schema": dg.TableSchema(columns), "dagster/table_name": table.name},
        partitions_def=partitions,
    )


def daily_assets(settings: Settings) -> dg.AssetsDefinition:
    """An asset for each table of a day, all made in one step.

    A backfill is one run, or one run for every `settings.days_per_run` days.
    """
    # `end_offset=1` makes today a partition, too.
    daily = dg.DailyPartitionsDefinition(settings.start_date.isoformat(), timezone="UTC", end_offset=1)
    most = settings.days_per_run

    @dg.multi_asset(
        specs=[spec(table, deps, partitions=daily) for table, deps in DAILY_TABLES.items()],
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(most) if most else dg.BackfillPolicy.single_run(),
    )
    def daily_tables(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[None]]:
        selected = [table for table in DAILY_TABLES if dg.AssetKey(table.name) in context.selected_asset_keys]
        # A job that is started by Dagster's own command line may come without days.
        has_days = tagged_range(context.run.tags) is not None
        days = [date.fromisoformat(key) for key in context.partition_keys] if has_days else pipeline.recent_days()
        warn, recorded = partial(_warn, context, pipeline), list[date]()
        try:
            with reason_first():
                pipeline.process(days, selected, warn, partial(record_day, context, pipeline, selected, recorded))
        finally:
            # Here, since a run may not have the step of weeks and months (a backfill has it in another run), and may be
            # canceled before it. Also if this step fails: what fails in each run, such as one broken page, would hold
            # them back forever. Where they are up to date, it takes 20 ms on a lake of two years.
            if recorded and DAILY in selected:
                sum_after_days(pipeline, warn)
        # Their days are recorded. These results let the steps that depend on them start.
        yield from (dg.MaterializeResult(asset_key=table.name, metadata=_ALREADY_RECORDED) for table in selected)

    return daily_tables


def _warn(context: dg.AssetExecutionContext, pipeline: Pipeline, text: str) -> None:
    context.log.warning(text)
    pipeline.on_warning(text)


def record_day(
    context: dg.AssetExecutionContext,
    pipeline: Pipeline,
    selected: Sequence[Table],
    recorded: list[date],
    result: DayResult,
) -> None:
    """Record a day's tables as soon as it is finished, so that a later crash does not lose the day.

    All are stored in one transaction, each table after those that it is made from. To be called in a thread that no
    signal interrupts: an interrupted transaction may leave SQLite locked, because its statement stays open as long as
    the error's traceback. The rows without a day are not recorded.
    """
    if result.day is None:
        return
    recorded.append(result.day)
    with batch_events(context.instance):
        for table in selected:
            file, facts = result.written.get(table.name), result.metadata.get(table.name, {})
            written = {"uri": file.uri, "bytes": file.bytes} if file else {"unchanged": True}
            metadata = _metadata({**facts, **written})
            context.log_event(dg.AssetMaterialization(table.name, partition=str(result.day), metadata=metadata))
    pipeline.on_day(result.day)


def _metadata(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts about a table as metadata for Dagster, which has names of its own for some of them."""
    return {_DAGSTERS_NAMES.get(name, name): value for name, value in facts.items()}


@dg.multi_asset(specs=[spec(tables.REFERENCE_DATASETS, [DAILY])])
@reason_first()
def read_names(context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult[None]:
    """Refresh `reference_datasets`."""
    facts = refresh_names(pipeline, tagged_range(context.run.tags), partial(_warn, context, pipeline))
    return dg.MaterializeResult(metadata=_metadata(facts))


@dg.multi_asset(specs=[spec(period.table, [DAILY]) for period in PERIODS], can_subset=True)
def period_tables(
    context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> Iterator[dg.MaterializeResult[None]]:
    """`weekly_cost_by_reference_dataset` and `monthly_cost_by_reference_dataset`."""
    selected = [one for one in PERIODS if dg.AssetKey(one.table.name) in context.selected_asset_keys]
    with reason_first():
        made = sum_weeks_and_months(pipeline, selected)
    for name, facts in made.items():
        yield dg.MaterializeResult(asset_key=name, metadata=_metadata(facts))


@dg.multi_asset(specs=[spec(tables.DAILY_COST_BY_PROJECT, [])])
@reason_first()
def measure_projects(
    context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> dg.MaterializeResult[None]:
    """Measure each day within the API's reach in the workspaces in which it was not yet measured after its end.

    The asset has no partitions, so that one materialization measures all these days.
    """
    reachable = measurable_days(pipeline)
    context.log.info("The days from %s can be measured: at most 31 back, none before the first partition", reachable[0])
    measured = day_ranges(measure_usage(pipeline, reachable))
    return dg.MaterializeResult(metadata={"measured_days": measured, "measurable_from": str(reachable[0])})


@dg.multi_asset(
    specs=[spec(tables.JUDGE_COST_BY_EXPERIMENT, [SESSIONS])],
    check_specs=[
        dg.AssetCheckSpec(
            "judges_add_up",
            asset=tables.JUDGE_COST_BY_EXPERIMENT.name,
            description="The judges of all experiments cost no more than the project that they are traced to.",
        )
    ],
)
def measure_judges(
    context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> Iterator[dg.MaterializeResult[None]]:
    """Measure the judges of all experiments that are due, for `judge_cost_by_experiment`, and check the sums.

    The asset has no partitions, so that one materialization measures all of them.
    """
    with reason_first():
        counts, night = measure_judge_costs(pipeline, partial(_warn, context, pipeline))
        # Where judges were measured before, this night is missing; elsewhere there may be no judges at all.
        known = load_judge_readings(pipeline.open_lake(read_only=True).read_file(JUDGES_FILE)).readings
    missed = [name for name in night.problems if name in known or (known and name == OWN_WORKSPACE)]
    text = f"Not measured: {'; '.join(night.problems.values())}" if night.problems else "They add up."
    if night.overspent:
        text = "Costs with judges are too high, own costs are right; was SESSIONS_PIPELINE_JUDGE_PROJECT changed?"
    which = night.overspent or missed
    severity = dg.AssetCheckSeverity.ERROR if night.overspent else dg.AssetCheckSeverity.WARN
    metadata = {"which": ", ".join(which)} if which else {}
    check = dg.AssetCheckResult(passed=not which, severity=severity, description=text, metadata=metadata)
    # A number, for Dagster to plot; not of a night that lacks a workspace, which would look as if costs had sunk.
    spent = float(sum(reading.attributed_cost for reading in night.readings.values()))
    cost = {} if night.problems else {"attributed_cost_usd": spent}
    yield dg.MaterializeResult(metadata={**counts, **cost, **msgspec.to_builtins(night)}, check_results=[check])


@dg.asset(
    deps=[
        tables.WEEKLY_COST_BY_REFERENCE_DATASET.name,
        tables.EXPERIMENT_SUMMARY.name,
        tables.REFERENCE_DATASETS.name,
        tables.DAILY_COST_BY_PROJECT.name,
        tables.JUDGE_COST_BY_EXPERIMENT.name,
    ],
    group_name="report",
    owners=OWNERS,
    kinds={"html"},
)
@reason_first()
def cost_report(pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult[None]:
    """One HTML page for people who don't use Dagster, written every night: total, trend, caveats."""
    # Imported here: the page's libraries take 0.3 s to import, and a run without the report should not wait for them.
    from sessions_pipeline.outputs.report import budgets_or_problem, latest_days, write_report  # noqa: PLC0415

    lake = pipeline.open_lake()
    first, last = latest_days(lake)
    address = write_report(lake, first, last, budgets=budgets_or_problem(lake, pipeline.settings, pipeline.clock()))
    return dg.MaterializeResult(metadata={"report": dg.MetadataValue.path(address), "days": f"{first} to {last}"})
