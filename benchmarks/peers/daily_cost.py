"""The last step of the dlt peers: one DuckDB query over the loaded data, exact because it sums decimals."""

from pathlib import Path

import duckdb


def write_daily_cost(table: Path, folder: Path) -> int:
    """Write `daily_cost.parquet` from the Parquet files in a table's folder; returns the number of sessions."""
    connection = duckdb.connect()
    loaded = f"read_parquet('{table}/*.parquet', union_by_name = true)"
    connection.execute(f"""
        COPY (
            SELECT CAST(start_time AT TIME ZONE 'UTC' AS DATE) AS day, reference_dataset_id,
                sum(CAST(total_cost AS DECIMAL(38, 18))) AS total_cost
            FROM {loaded} WHERE reference_dataset_id IS NOT NULL GROUP BY ALL
        ) TO '{folder / "daily_cost.parquet"}'
    """)
    [rows] = connection.execute(f"SELECT count(*) FROM {loaded}").fetchone() or [0]
    return int(rows)
