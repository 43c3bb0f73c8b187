"""What the UI shows of a day, a table and a column. The columns' texts come from their one definition."""

from collections.abc import Mapping
from datetime import date
from typing import Any

import dagster as dg

from sessions_pipeline.lake.lake import Written
from sessions_pipeline.orchestration.instance import keeps_metadata
from sessions_pipeline.process_day import Settled
from sessions_pipeline.tables import Table
from sessions_pipeline.tables.day_metadata import SAMPLE_COLUMNS

OWNERS = ["team:llm-costs"]


def spec(table: Table, *, deps: list[str], group: str, partitions: dg.PartitionsDefinition | None) -> dg.AssetSpec:
    """A table as an asset: description, column schema, group, owner and kinds."""
    return dg.AssetSpec(
        table.name,
        deps=deps,
        description=table.description,
        group_name=group,
        owners=OWNERS,
        kinds={"parquet"},
        metadata={
            "dagster/column_schema": column_schema(table),
            "dagster/table_name": table.name,
        },
        partitions_def=partitions,
    )


def column_schema(table: Table) -> dg.TableSchema:
    """The columns as Dagster shows them."""
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


def of_file(written: Written) -> dict[str, Any]:
    """Rows, bytes and address of a written file."""
    return {
        "dagster/row_count": written.rows,
        "dagster/uri": written.uri,
        "bytes": written.bytes,
    }


def record(context: dg.AssetExecutionContext, table: str, day: date, told: Mapping[str, Any]) -> None:
    """Tell Dagster of a day's table, where it is kept: the step's end records the day with it."""
    if keeps_metadata(context.instance):
        context.add_asset_metadata(dict(told), asset_key=table, partition_key=day.isoformat())


def record_now(context: dg.AssetExecutionContext, table: str, day: date, told: Mapping[str, Any]) -> None:
    """The same, and record the day at once, so that a crash later in the run keeps it."""
    if not context.instance.is_ephemeral:
        context.log_event(dg.AssetMaterialization(table, partition=day.isoformat(), metadata=dict(told)))
    record(context, table, day, told)


def of_day(table: Table, settled: Settled) -> dict[str, Any]:
    """What a person wants to know of a day's table when it was written."""
    columns = [dg.TableColumn(name, "string") for name in SAMPLE_COLUMNS[table.name]]
    records = [dg.TableRecord(dict(row)) for row in settled.samples[table.name]]
    return {
        **of_file(settled.written[table.name]),
        **settled.told[table.name],
        "sample": dg.MetadataValue.table(records, dg.TableSchema(columns=columns)),
    }
