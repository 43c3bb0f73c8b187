"""Tables as Dagster's assets, and what Dagster is told of a day that was written."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from sessions_pipeline.lake.lake import Written
from sessions_pipeline.process_day import DayResult
from sessions_pipeline.tables import Table

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


def record_day(context: dg.AssetExecutionContext, day: str, result: DayResult, tables: Sequence[Table]) -> None:
    """Record a finished day's tables at once, each after those that it is made from: a later crash keeps the day."""
    for table in tables:
        facts = {**of_file(result.written[table.name]), **result.metadata.get(table.name, {})}
        context.log_event(dg.AssetMaterialization(table.name, partition=day, metadata=facts))


def recorded(table: Table) -> dg.MaterializeResult[None]:
    """The result of a table whose days are recorded already: later steps may begin."""
    return dg.MaterializeResult(asset_key=table.name, metadata=_IS_RECORDED)


def of_file(written: Written) -> Mapping[str, Any]:
    """Rows, bytes and address of a file."""
    return {"dagster/row_count": written.rows, "dagster/uri": written.uri, "bytes": written.bytes}


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
