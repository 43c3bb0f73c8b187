"""Tables as Dagster's assets, and what Dagster is told of a day that was written."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from sessions_pipeline.lake.lake import Written
from sessions_pipeline.orchestration.event_storage import together
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


def record_day(context: dg.AssetExecutionContext, result: DayResult, tables: Sequence[Table]) -> None:
    """Record a finished day's tables at once, each after those that it is made from: a later crash keeps the day."""
    with together(context.instance):
        for table in tables:
            facts = _facts(result, table)
            context.log_event(dg.AssetMaterialization(table.name, partition=str(result.day), metadata=facts))


def recorded(table: Table) -> dg.MaterializeResult[None]:
    """The result of a table whose days are recorded already: later steps may begin."""
    return dg.MaterializeResult(asset_key=table.name, metadata=_IS_RECORDED)


def _facts(result: DayResult, table: Table) -> dict[str, Any]:
    file = result.written.get(table.name)
    facts = {**(_of_file(file) if file else {"unchanged": True}), **result.metadata.get(table.name, {})}
    return facts | ({"sample": _sample(facts["sample"])} if "sample" in facts else {})


def _of_file(file: Written) -> dict[str, Any]:
    """Rows, bytes and address of a file."""
    return {"dagster/row_count": file.rows, "dagster/uri": file.uri, "bytes": file.bytes}


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
