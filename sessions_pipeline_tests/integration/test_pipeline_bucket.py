"""Whole runs with the data root in a bucket: the same lake as in a folder, in spite of faults of the store."""

import os
from pathlib import Path

import duckdb
import polars as pl
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import fs

from sessions_pipeline.errors import LakeError
from sessions_pipeline.lake.layout import UNDATED
from sessions_pipeline.tables import SESSIONS
from sessions_pipeline_tests.faulty_server import Sandbox, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import (
    NOW,
    Bucket,
    accounts,
    contents,
    copy,
    failing_in_one_line,
    files,
    lake_at,
    read,
    record,
    some_records,
    stray,
)
from sessions_pipeline_tests.integration.s3_server import S3Server

TEXTS = ['{"broken": NaN}', record(9_999, None), *some_records(150)]


def read_twice(sandbox: Sandbox, root: Path | Bucket) -> None:
    """A first reading, and a second one after some sessions disappeared and others cost more."""
    sandbox.api.data.texts = TEXTS  # type: ignore[attr-defined]
    read(sandbox, root)
    sandbox.api.data.texts = [*some_records(100, total_cost="2.50")[5:], *TEXTS[:2]]  # type: ignore[attr-defined]
    read(sandbox, root)


class S3(ArrowFSWrapper):
    """A file system with which DuckDB reads `s3://` without its extension httpfs, which can't be installed offline."""

    protocol = "s3"


def test_a_lake_in_a_bucket_equals_that_in_a_folder_and_other_engines_read_it(
    tmp_path: Path, bucket: str, server: S3Server
) -> None:
    root = Bucket(bucket)
    with running_sandbox(texts=TEXTS, now=NOW) as sandbox:
        read_twice(sandbox, tmp_path)
        read_twice(sandbox, root)
    assert contents(root) == contents(tmp_path)
    assert accounts(root) == accounts(tmp_path)
    assert list(files(root)) == list(files(tmp_path))
    assert stray(root) == []

    lake = lake_at(root)
    stored = lake.read_days(SESSIONS, [*lake.days(SESSIONS), UNDATED], ["id", "total_cost"]).to_pylist()
    expected = {row["id"]: row["total_cost"] for row in stored}
    assert len(expected) > 100
    pattern = f"{root}/sessions/*/*.parquet"
    with duckdb.connect() as connection:
        connection.register_filesystem(S3(fs.S3FileSystem(endpoint_override=f"127.0.0.1:{server.port}", scheme="http")))
        rows = connection.sql(f"SELECT id, total_cost FROM read_parquet('{pattern}', hive_partitioning = true)")
        assert dict(rows.fetchall()) == expected
        days = connection.sql(f"SELECT DISTINCT start_date FROM read_parquet('{pattern}', hive_partitioning = true)")
        assert {day for (day,) in days.fetchall()} == {row["start_date"] for row in stored}
    options = {"aws_endpoint_url": os.environ["AWS_ENDPOINT_URL_S3"], "aws_allow_http": "true"}
    frame = pl.scan_parquet(pattern, hive_partitioning=True, storage_options=options).collect()
    assert dict(frame.select("id", "total_cost").rows()) == expected


def test_temporary_faults_of_the_store_do_not_change_the_result(tmp_path: Path, bucket: str, server: S3Server) -> None:
    root = Bucket(bucket)
    with running_sandbox(texts=TEXTS, now=NOW) as sandbox:
        read(sandbox, tmp_path)
        pattern = ["", "slow down", "", "", "reset", "", "", "lost answer", "slow down", ""]
        server.fail(*pattern * 100)
        read(sandbox, root)
        left = len(server.faults)
        server.fail()
    assert left < 900
    assert contents(root) == contents(tmp_path)


def test_a_store_that_fails_for_good_ends_the_run_in_one_line_and_every_day_is_old_or_new(
    tmp_path: Path, bucket: str, server: S3Server
) -> None:
    root = Bucket(bucket)
    with running_sandbox(texts=some_records(150), now=NOW) as sandbox:
        read(sandbox, tmp_path)
        old = contents(tmp_path)
        copy(tmp_path, root)
        copy(tmp_path, root / "tried")
        sandbox.api.data.texts = some_records(150, total_cost="2.50")  # type: ignore[attr-defined]
        server.fail()
        read(sandbox, root / "tried")
        new = contents(root / "tried")
        server.fail(*[""] * (len(server.requests) // 3), *["slow down"] * 400)
        with failing_in_one_line(LakeError, rf"^{bucket}/.*: 503 SlowDown: the store is overloaded; try again later$"):
            read(sandbox, root)
        server.fail()
        found = contents(root)
        assert {rows == old[key] for key, rows in found.items() if rows != new[key]} == {True}
        assert any(rows != old[key] for key, rows in found.items())
        read(sandbox, root)
    assert contents(root) == new
