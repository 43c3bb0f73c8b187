"""DuckDB, Polars, pandas and PyArrow read a table's files with the documented types."""

import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.layout import UNDATED
from sessions_pipeline.tables import EXPERIMENT_SUMMARY, RAW_SESSIONS, SESSIONS
from sessions_pipeline_tests.lake_rows import DAY, raw

NOON = datetime(2025, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
COST = Decimal("12345678901234567890.123456789012345678")


def session(name: str, **values: object) -> pa.Table:
    row = {"id": name, "tenant_id": "t", "fetched_at": NOON, "start_time": NOON, "total_cost": COST} | values
    return pa.Table.from_pylist([row], SESSIONS.schema)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lake")
    lake = Lake.open(str(root), query={})
    lake.replace(SESSIONS, DAY, session("first"), {})
    lake.replace(SESSIONS, DAY + timedelta(1), session("second", total_cost=None, run_count=7), {})
    lake.replace(SESSIONS, DAY + timedelta(2), SESSIONS.schema.empty_table(), {})
    lake.replace(SESSIONS, UNDATED, session("undated", start_time=None), {})
    scores = [{"feedback_key": "k", "scope": "run", "average": 0.5, "count": 2}]
    summary = {"id": "first", "tenant_id": "t", "reference_dataset_id": "d", "start_time": NOON, "scores": scores}
    missing = {field.name: "x" for field in EXPERIMENT_SUMMARY.schema if not field.nullable} | summary
    lake.replace(EXPERIMENT_SUMMARY, DAY, pa.Table.from_pylist([missing], EXPERIMENT_SUMMARY.schema), {})
    lake.write_file("reports/cost.html", b"")
    return root


EXPECTED = [("first", DAY, COST, NOON), ("second", DAY + timedelta(1), None, NOON), ("undated", None, COST, None)]


def test_duckdb_reads_days_as_dates_and_the_null_partition_as_null(root: Path):
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        sessions = connection.sql(f"FROM read_parquet('{root}/sessions/*/*.parquet', hive_partitioning = true)")
        rows = sessions.select("id, start_date, total_cost, start_time").order("id").fetchall()
        types = dict(zip(sessions.columns, map(str, sessions.types), strict=True))
        scores = connection.sql(f"SELECT scores[1].average FROM '{root}/experiment_summary/*/*.parquet'").fetchall()
    assert rows == EXPECTED
    assert scores == [(0.5,)]
    assert types["total_cost"] == "DECIMAL(38,18)"
    assert types["start_time"] == "TIMESTAMP WITH TIME ZONE"
    assert types["run_count"] == "BIGINT"
    assert types["start_date"] == "DATE"


def test_duckdb_opens_one_file_for_one_day(root: Path):
    with duckdb.connect() as connection:
        plan = connection.sql(
            f"EXPLAIN ANALYZE SELECT id FROM read_parquet('{root}/sessions/*/*.parquet', hive_partitioning = true)"
            " WHERE start_date = DATE '2025-01-31'"
        ).fetchall()
    assert "1/4" in str(plan).replace(" ", "") or "TotalFilesRead:1" in str(plan).replace(" ", "")


def test_duckdb_reads_the_names_of_all_columns_from_a_files_schema(root: Path):
    with duckdb.connect() as connection:
        names = connection.sql(f"SELECT name FROM parquet_schema('{root}/sessions/start_date=2025-01-31/*')").fetchall()
    # In Parquet's schema, a list column has two more levels, `list` and `element`.
    assert [name for (name,) in names[1:] if name not in {"list", "element"}] == SESSIONS.schema.names


def test_polars_reads_days_as_dates_and_the_null_partition_as_null(root: Path):
    frame = pl.scan_parquet(f"{root}/sessions/*/*.parquet", hive_partitioning=True).collect().sort("id")
    assert frame.select("id", "start_date", "total_cost", "start_time").rows() == EXPECTED
    assert frame.schema["total_cost"] == pl.Decimal(38, 18)
    assert frame.schema["start_time"] == pl.Datetime("us", "UTC")
    assert frame.schema["run_count"] == pl.Int64()
    assert frame.schema["start_date"] == pl.Date()


def test_pandas_reads_a_table_by_its_folder(root: Path):
    # Without this type, pandas would read the partition as a dictionary, in which Arrow does not support nulls.
    level = ds.partitioning(pa.schema([("start_date", pa.date32())]), flavor="hive")
    frame = pd.read_parquet(root / "sessions", partitioning=level).sort_values("id")
    assert frame["id"].tolist() == ["first", "second", "undated"]
    assert frame["total_cost"].tolist() == [COST, None, COST]
    assert frame["start_time"].iloc[0] == pd.Timestamp(NOON)
    assert frame["start_date"].tolist() == [DAY, DAY + timedelta(1), None]
    dated = pd.read_parquet(root / "experiment_summary")
    assert dated["start_date"].tolist() == ["2025-01-31"]


def test_pyarrow_reads_a_table_by_its_folder(root: Path):
    partitioning = ds.partitioning(pa.schema([("start_date", pa.date32())]), flavor="hive")
    dataset = ds.dataset(root / "sessions", partitioning=partitioning)
    table = dataset.to_table().sort_by("id")
    names = ["id", "start_date", "total_cost", "start_time"]
    assert [tuple(row.values()) for row in table.select(names).to_pylist()] == EXPECTED
    assert table.select(SESSIONS.schema.names).schema.equals(SESSIONS.schema)
    assert len(list(dataset.get_fragments(ds.field("start_date") == DAY))) == 1


def test_the_lake_itself_reads_the_same(root: Path):
    lake = Lake.open(str(root), query={}, read_only=True)
    columns = ["id", "total_cost", "start_time"]
    rows = lake.read_days(SESSIONS, [*lake.days(SESSIONS), UNDATED], columns).to_pylist()
    assert [(row["id"], row["start_date"], row["total_cost"], row["start_time"]) for row in rows] == EXPECTED


def test_the_partition_value_is_only_in_the_path(root: Path):
    (path,) = (root / "sessions" / "start_date=2025-01-31").iterdir()
    assert "start_date" not in pa.parquet.read_schema(path).names


def test_a_reader_sees_only_whole_files_while_they_are_replaced(tmp_path: Path):
    lake = Lake.open(str(tmp_path), query={})

    def write(generation: int) -> None:
        payloads = [f"{generation}-{row}" for row in range(1, 200 + generation % 7)]
        lake.replace(RAW_SESSIONS, DAY, raw(*payloads), {"generation": str(generation)})

    write(0)
    done = threading.Event()

    def replace_many() -> None:
        for generation in range(1, 150):
            write(generation)
        done.set()

    writer = threading.Thread(target=replace_many)
    writer.start()
    seen: list[int] = []
    while not done.is_set():
        mine = lake.read(RAW_SESSIONS, DAY)["payload"]
        theirs = ds.dataset(tmp_path / "raw_sessions", partitioning="hive").to_table()["payload"]
        for payloads in (mine.to_pylist(), theirs.to_pylist()):
            generations = {int(payload.partition("-")[0]) for payload in payloads}
            assert len(generations) == 1
            (generation,) = generations
            assert len(payloads) == 199 + generation % 7
            seen.append(generation)
    writer.join()
    assert seen == sorted(seen)
    assert len(set(seen)) > 3
