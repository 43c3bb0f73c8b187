"""Tables as Dagster assets: their specs, the one step that makes the tables of a day, and how each day is recorded.

If `raw_sessions` is selected, the days are read from the API. Otherwise the selected tables are made again from the
stored raw sessions, without a request.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import Any

import dagster as dg

from sessions_pipeline.errors import TooManyRejectedError
from sessions_pipeline.orchestration import tagged_range
from sessions_pipeline.orchestration.event_storage import batch_events
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.process_day import DayResult
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET as DAILY
from sessions_pipeline.tables import DERIVED, FROM_API, RAW_SESSIONS, REJECTED_SESSIONS, SESSIONS, Table

OWNERS = ["team:llm-costs"]
# When a step ends, Dagster records every partition of the run for each result: also days that were not written, and a
# second time those recorded already. It does not do so for results with this metadata (1.13, execute_step.py).
_ALREADY_RECORDED = {"__source_asset_observation__": True}

# The tables of a day, each with those that it is made from.
DAILY_TABLES = {RAW_SESSIONS: [], SESSIONS: [RAW_SESSIONS], REJECTED_SESSIONS: [RAW_SESSIONS]} | {
    table: list(derived.reads) for table, derived in DERIVED.items()
}


def spec(table: Table, *, deps: Sequence[str], partitions: dg.PartitionsDefinition | None = None) -> dg.AssetSpec:
    """The asset spec of a table: description, column schema, group, owner and kinds."""
    return dg.AssetSpec(
        table.name,
        deps=deps,
        description=table.description,
        group_name=table.group,
        owners=OWNERS,
        kinds={"parquet", "langsmith"} if table in FROM_API else {"parquet"},
        metadata={"dagster/column_schema": _column_schema(table), "dagster/table_name": table.name},
        partitions_def=partitions,
    )


def daily_assets(
    settings: Settings, sum_after_days: Callable[[Pipeline, Callable[[str], object]], object]
) -> dg.AssetsDefinition:
    """An asset for each table of a day, all made in one step.

    A backfill is one run, or one run for every `settings.days_per_run` days. `sum_after_days` sums weeks and months
    then, and passes a warning to the given function if it can't.
    """
    # `end_offset=1` makes today a partition, too.
    daily = dg.DailyPartitionsDefinition(settings.start_date.isoformat(), timezone="UTC", end_offset=1)
    most = settings.days_per_run

    @dg.multi_asset(
        specs=[spec(table, deps=[dep.name for dep in deps], partitions=daily) for table, deps in DAILY_TABLES.items()],
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
        warn, exceeded, is_any_written = pipeline.warn_to(context.log), list[str](), False
        try:
            for result in pipeline.process(days, selected, warn):
                if result.exceeded:
                    exceeded.append(result.exceeded)
                elif result.day:
                    record_day(context, result, selected)
                    is_any_written = DAILY in selected
                    pipeline.on_day(result.day)
            if exceeded:
                raise too_many_rejected(exceeded, pipeline.settings.max_rejected_ratio)
        finally:
            # Here, since a run may not have the step of weeks and months (a backfill has it in another run), and may be
            # canceled before it. Also if this step fails: what fails in each run, such as one broken page, would hold
            # them back forever. Where they are up to date, it takes 20 ms on a lake of two years.
            if is_any_written:
                sum_after_days(pipeline, warn)
        # Their days are recorded. These results let the steps that depend on them start.
        yield from (dg.MaterializeResult(asset_key=table.name, metadata=_ALREADY_RECORDED) for table in selected)

    return daily_tables


def too_many_rejected(exceeded: Sequence[str], limit: float) -> TooManyRejectedError:
    """The error for a run in which too many records of some days were rejected, for the reasons in `exceeded`."""
    return TooManyRejectedError(
        f"{'; '.join(exceeded)}. More than SESSIONS_PIPELINE_MAX_REJECTED_RATIO={limit:g} allows, so these days keep "
        "their previous tables; see whether the API changed, or raise the ratio"
    )


def record_day(context: dg.AssetExecutionContext, result: DayResult, tables: Sequence[Table]) -> None:
    """Record a day's tables as soon as it is finished, so that a later crash does not lose the day.

    All are stored in one transaction, each table after those that it is made from.
    """
    with batch_events(context.instance):
        for table in tables:
            metadata = _metadata(result, table)
            context.log_event(dg.AssetMaterialization(table.name, partition=str(result.day), metadata=metadata))


def _metadata(result: DayResult, table: Table) -> dict[str, Any]:
    file, known = result.written.get(table.name), dict(result.metadata.get(table.name, {}))
    rows = {"dagster/row_count": known.pop("rows")} if "rows" in known else {}
    return {**rows, **({"dagster/uri": file.uri, "bytes": file.bytes} if file else {"unchanged": True}), **known}


def _column_schema(table: Table) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                str(column.type),
                description=column.description,
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in table.columns
        ]
    )
