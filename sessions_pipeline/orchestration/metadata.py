"""What the UI shows of a day, a table and a column. The columns' texts come from their one definition."""

from collections import Counter
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.lake.lake import Written
from sessions_pipeline.orchestration.refresh import DayState
from sessions_pipeline.schema.columns import RAW_SESSIONS, REJECTED_SESSIONS, SESSIONS, Table

OWNERS = ["team:llm-costs"]
SAMPLE_ROWS = 5
SAMPLE_COLUMNS = {
    RAW_SESSIONS.name: ("session_id", "start_time", "payload"),
    SESSIONS.name: ("name", "start_time", "run_count", "total_tokens", "total_cost"),
    REJECTED_SESSIONS.name: ("session_id", "reasons"),
}


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


def record(context: dg.AssetExecutionContext, table: Table, day: date, told: dict[str, Any]) -> None:
    """Record a day as soon as it is written, so that a crash later in the run keeps it.

    A temporary instance keeps nothing after a crash, and events cost 1 ms each: there the step's end records the days.
    """
    partition = day.isoformat()
    if not context.instance.is_ephemeral:
        context.log_event(dg.AssetMaterialization(table.name, partition=partition, metadata=told))
    context.add_asset_metadata(told, asset_key=table.name, partition_key=partition)


def of_day(table: Table, state: DayState, written: Written) -> dict[str, Any]:
    """What a person wants to know of a day's table when it was written."""
    rows = state.table(table)
    return {
        **of_file(written),
        **_TOLD[table.name](state),
        "sample": sample(rows, SAMPLE_COLUMNS[table.name]),
    }


def sample(rows: pa.Table, columns: tuple[str, ...]) -> dg.TableMetadataValue:
    """The first rows as a small table of texts, long ones cut."""
    head = rows.select(list(columns)).slice(0, SAMPLE_ROWS)
    if "start_time" in columns:
        # As text, because Python's times out of Arrow import pandas, which takes 0.4 s.
        place = head.schema.get_field_index("start_time")
        head = head.set_column(place, "start_time", head.column("start_time").cast(pa.string()))
    records = [dg.TableRecord({name: _short(value) for name, value in row.items()}) for row in head.to_pylist()]
    schema = dg.TableSchema(columns=[dg.TableColumn(name, "string") for name in columns])
    return dg.MetadataValue.table(records, schema)


def total(column: pa.ChunkedArray) -> Decimal | None:
    """An exact sum; None when nothing is known. 256 bits wide, since Arrow's 128-bit sums wrap silently."""
    value: Decimal | None = pc.sum(column.cast(pa.decimal256(76, 18))).as_py()
    return value


def money(amount: Decimal | None) -> dict[str, Any]:
    """A cost as exact text, and as a float for the UI's plots; nothing where it is unknown."""
    if amount is None:
        return {"total_cost": "unknown"}
    return {"total_cost": f"{amount.normalize():f}", "total_cost_usd": float(amount)}


def _of_raw(state: DayState) -> dict[str, Any]:
    latest = {reading.asked: reading for reading in state.readings}.values()
    return {
        "requests": sum(reading.requests for reading in latest),
        "received": sum(reading.received for reading in latest),
        "repeated": sum(reading.repeated for reading in latest),
        "new_or_changed": sum(reading.added for reading in latest),
        "readings_kept": len(state.readings),
    }


def _of_sessions(state: DayState) -> dict[str, Any]:
    sessions = state.verdict.sessions
    unpriced = sessions.column("total_cost").null_count
    kept = sessions.filter(rests_on_kept_readings(sessions))
    return {
        "rejected": state.verdict.rejected.num_rows,
        "unpriced": unpriced,
        "unpriced_share": unpriced / sessions.num_rows if sessions.num_rows else 0.0,
        "missing": sessions.num_rows - sessions.column("missing_since").null_count,
        "rests_on_kept_readings": kept.num_rows,
        "kept_cost": str(total(kept.column("total_cost")) or 0),
        **({"drift": dict(state.verdict.drift)} if state.verdict.drift else {}),
        **money(total(sessions.column("total_cost"))),
    }


def _of_rejected(state: DayState) -> dict[str, Any]:
    reasons = Counter(reason for row in state.verdict.rejected.column("reasons").to_pylist() for reason in row)
    return {"reasons": dict(reasons.most_common(20))} if reasons else {}


def rests_on_kept_readings(sessions: pa.Table) -> pa.ChunkedArray:
    """Which sessions' numbers the API no longer gives: emptied by retention, or the session is gone. Null is no."""
    emptied = pc.less(sessions.column("stats_as_of"), sessions.column("fetched_at"))
    return pc.or_kleene(emptied, pc.is_valid(sessions.column("missing_since")))


_TOLD: Mapping[str, Any] = {
    RAW_SESSIONS.name: _of_raw,
    SESSIONS.name: _of_sessions,
    REJECTED_SESSIONS.name: _of_rejected,
}


def _short(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."  # noqa: PLR2004
