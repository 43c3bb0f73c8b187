"""A program that reads a lake's `sessions` with DuckDB, Polars and pandas, and prints one JSON line for each.

`python old_readers.py DATA_ROOT LAKE_SQL` runs in an environment with the oldest versions that the docs name.
"""

import json
import sys
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds

root, lake_sql = sys.argv[1:]

lake = duckdb.connect()
lake.execute(f"SET VARIABLE data_root = '{root}'")
lake.execute(Path(lake_sql).read_text())
totals = "SELECT sum(total_cost)::VARCHAR, count(*) FROM sessions WHERE start_date >= '2025-01-31'"
print(json.dumps(["duckdb", duckdb.__version__, *lake.sql(totals).fetchall()[0]]))
undated = lake.sql("SELECT count(*) FROM sessions WHERE start_date IS NULL").fetchall()[0]
print(json.dumps(["duckdb undated", duckdb.__version__, *undated]))
plan = lake.sql("EXPLAIN ANALYZE SELECT id FROM sessions WHERE start_date = DATE '2025-01-31'").fetchall()
print(json.dumps(["duckdb plan", duckdb.__version__, str(plan)]))

frame = pl.scan_parquet(f"{root}/sessions/*/*.parquet", hive_partitioning=True)
dated = frame.filter(pl.col("start_date") >= pl.date(2025, 1, 31)).select("total_cost").collect()
print(json.dumps(["polars", pl.__version__, str(dated["total_cost"].sum()), dated.height]))

level = ds.partitioning(pa.schema([("start_date", pa.date32())]), flavor="hive")
table = pd.read_parquet(f"{root}/sessions", partitioning=level)
recent = table[table["start_date"].notna()]
print(json.dumps(["pandas", pd.__version__, str(recent["total_cost"].dropna().sum()), len(recent)]))
