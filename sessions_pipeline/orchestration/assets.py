"""Tables as Dagster's assets: how they are described, recorded and replaced, and the one step for those of a day.

With `raw_sessions` among the chosen tables of a day it is read from the API; without it the others are made again from
what is stored, with no request.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg

from sessions_pipeline.errors import TooManyRejectedError
from sessions_pipeline.orchestration import tagged_range
from sessions_pipeline.orchestration.event_storage import together
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.process_day import DayResult
from sessions_pipeline.tables import DERIVED, RAW_SESSIONS, REJECTED_SESSIONS, SESSIONS, Table

OWNERS = ["team:llm-costs"]
# A step's end records every partition of its run once more for each result, also those that it did not write. Dagster
# leaves that out for results with this metadata (1.13, execute_step.py); without it days would be recorded twice.
_IS_RECORDED = {"__source_asset_observation__": True}


def spec(table: Table, *, deps: Sequence[str], partitions: dg.PartitionsDefinition | None = None) -> dg.AssetSpec:
    """A table as an asset: description, column schema, group, owner and kinds."""
    return dg.AssetSpec(
        table.name,
        deps=deps,
        description=table.description,
        group_name=table.group,
        owners=OWNERS,
        kinds={"parquet"},
        metadata={"dagster/column_schema": _column_schema(table), "dagster/table_name": table.name},
        partitions_def=partitions,
    )


def daily_assets(daily: dg.PartitionsDefinition, days_per_run: int | None) -> dg.AssetsDefinition:
    """One asset for each table of a day; a backfill is one run, or one for every `days_per_run` days."""
    tables = {RAW_SESSIONS: [], SESSIONS: [RAW_SESSIONS], REJECTED_SESSIONS: [RAW_SESSIONS]} | {
        table: list(derived.reads) for table, derived in DERIVED.items()
    }

    @dg.multi_asset(
        specs=[spec(table, deps=[dep.name for dep in deps], partitions=daily) for table, deps in tables.items()],
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(days_per_run) if days_per_run else dg.BackfillPolicy.single_run(),
    )
    def daily_tables(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[None]]:
        chosen = [table for table in tables if dg.AssetKey(table.name) in context.selected_asset_keys]
        # A job that Dagster's own command line starts may be given no days.
        is_asked = tagged_range(context.run.tags) is not None
        days = [date.fromisoformat(key) for key in context.partition_keys] if is_asked else pipeline.recent_days()
        exceeded = []
        for result in pipeline.process(days, chosen, pipeline.warn_to(context.log)):
            if result.exceeded:
                exceeded.append(result.exceeded)
            elif result.day:
                record_day(context, result, chosen)
                pipeline.on_day(result.day)
        refuse(exceeded, pipeline.settings.max_rejected_ratio)
        # Their days are recorded already: later steps may begin.
        yield from (dg.MaterializeResult(asset_key=table.name, metadata=_IS_RECORDED) for table in chosen)

    return daily_tables


def refuse(exceeded: Sequence[str], limit: float) -> None:
    """Fail for the days that were not written, each with its reason.

    Raises:
        TooManyRejectedError: there are such days.
    """
    if exceeded:
        raise TooManyRejectedError(
            f"{'; '.join(exceeded)}. More than SESSIONS_PIPELINE_MAX_REJECTED_RATIO={limit:g} allows, so these days "
            "keep their former tables; see whether the API changed, or raise the ratio"
        )


def record_day(context: dg.AssetExecutionContext, result: DayResult, tables: Sequence[Table]) -> None:
    """Record a finished day's tables at once, each after those that it is made from: a later crash keeps the day."""
    with together(context.instance):
        for table in tables:
            facts = _facts(result, table)
            context.log_event(dg.AssetMaterialization(table.name, partition=str(result.day), metadata=facts))


def _facts(result: DayResult, table: Table) -> dict[str, Any]:
    file, facts = result.written.get(table.name), dict(result.metadata.get(table.name, {}))
    rows = {"dagster/row_count": facts.pop("rows")} if "rows" in facts else {}
    facts = {**rows, **({"dagster/uri": file.uri, "bytes": file.bytes} if file else {"unchanged": True}), **facts}
    return facts | ({"sample": _sample(facts["sample"])} if "sample" in facts else {})


def _sample(rows: Sequence[Mapping[str, str]]) -> dg.TableMetadataValue:
    columns = [dg.TableColumn(name, "string") for name in rows[0]]
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows], dg.TableSchema(columns=columns))


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
