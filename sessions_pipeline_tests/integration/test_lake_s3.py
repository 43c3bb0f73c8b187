"""Promises of the lake on object storage: the same tables, against moto's server in a process of its own."""

import json
import multiprocessing
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from pyarrow import fs

from sessions_pipeline.errors import LakeBusyError, LakeError, LakeMismatchError, NotReadError
from sessions_pipeline.lake import s3
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import UNDATED
from sessions_pipeline.schema.columns import RAW_SESSIONS, SESSIONS, TABLES
from sessions_pipeline_tests.integration.s3_server import S3Server

DAY = date(2025, 1, 31)
NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)


def raw(*payloads: str) -> pa.Table:
    count = len(payloads)
    columns: dict[str, Any] = {"session_id": [f"id-{i}" for i in range(count)], "payload": list(payloads)}
    columns |= {"tenant_id": ["t"] * count, "start_time": [None] * count, "fetched_at": [NOON] * count}
    return pa.table(columns, RAW_SESSIONS.schema)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as running:
        yield running


@pytest.fixture
def root(server: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    server.fail()
    monkeypatch.setattr(s3, "ATTEMPTS", 3)  # The waits between them grow: five last seven seconds.
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret-that-is-never-shown",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.port}",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/{request.node.name.partition('[')[0]}/lake"


@pytest.fixture
def lake(root: str) -> Lake:
    return Lake.open(root, query={})


def test_a_day_comes_back_as_it_was_written(lake: Lake, root: str):
    for payloads in (["{}", "[1]"], ["[2]"]):
        written = lake.replace(RAW_SESSIONS, DAY, raw(*payloads), {"readings": str(len(payloads))})
        assert written.uri == f"{root}/raw_sessions/start_date=2025-01-31/raw_sessions.parquet"
        assert written.uri == lake.uri(RAW_SESSIONS, DAY)
        assert written.rows == len(payloads)
        assert lake.read(RAW_SESSIONS, DAY).equals(raw(*payloads))
        assert lake.metadata(RAW_SESSIONS, DAY) == {"readings": str(len(payloads))}


def test_days_files_and_missing_ones_are_told_apart(lake: Lake):
    assert lake.days(SESSIONS) == []
    for day in (DAY + timedelta(1), DAY, UNDATED):
        lake.replace(SESSIONS, day, SESSIONS.schema.empty_table(), {})
    lake.write_file("reports/cost.html", b"<p>")
    assert lake.days(SESSIONS) == [DAY, DAY + timedelta(1)]
    assert lake.has(SESSIONS, UNDATED)
    assert not lake.has(SESSIONS, DAY + timedelta(2))
    assert lake.read_file("reports/cost.html") == b"<p>"
    for missing in (lambda: lake.read(SESSIONS, DAY + timedelta(2)), lambda: lake.read_file("none")):
        with pytest.raises(NotReadError):
            missing()
    with pytest.raises(NotReadError):
        lake.metadata(SESSIONS, DAY + timedelta(2))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_table_has_the_same_bytes_as_in_a_folder(lake: Lake, table, tmp_path):
    day = None if table.partition is None else DAY
    lake.replace(table, day, table.schema.empty_table(), {"a": "b"})
    folder = Lake.open(str(tmp_path), query={})
    folder.replace(table, day, table.schema.empty_table(), {"a": "b"})
    key = lake.uri(table, day).partition("/lake/")[2]
    assert lake.read_file(key) == folder.read_file(key)
    assert lake.read(table, day).schema.equals(table.schema, check_metadata=True)


def test_what_the_lake_is_filled_with_is_kept_and_checked(root: str):
    assert Lake.open(root, query={"name": "y"}, read_only=True).days(SESSIONS) == []
    lake = Lake.open(root, query={"name": "x"})
    lake.write_file("a", b"")
    assert json.loads(lake.read_file("_lake.json")) == {"layout": 1, "query": {"name": "x"}}
    with pytest.raises(LakeMismatchError, match=r"s3://bucket/.*/_lake\.json: filled with the query"):
        Lake.open(root, query={"name": "y"})


def test_a_day_is_one_put_under_its_final_key(lake: Lake, server: S3Server):
    lake.write_file("a", b"")
    server.fail()
    lake.replace(RAW_SESSIONS, DAY, raw("{}"), {})
    (put,) = server.asked
    assert put.startswith("PUT ")
    assert put.endswith("/lake/raw_sessions/start_date%3D2025-01-31/raw_sessions.parquet")


@pytest.mark.parametrize("size", [0, 1, s3.ONE_PUT - 1, s3.ONE_PUT, 25_000_000])
def test_files_of_any_size_come_back(lake: Lake, size: int):
    lake.write_file("reports/any", bytes(size))
    assert lake.read_file("reports/any") == bytes(size)


@pytest.mark.parametrize("fault", ["slow down", "reset"])
def test_a_passing_fault_is_tried_again(lake: Lake, server: S3Server, fault: str):
    lake.replace(RAW_SESSIONS, DAY, raw("former"), {})
    server.fail(*[fault] * 2)
    lake.replace(RAW_SESSIONS, DAY, raw("new"), {})
    assert server.faults == []
    server.fail(*[fault] * 2)
    assert lake.read(RAW_SESSIONS, DAY).equals(raw("new"))


@pytest.mark.parametrize("fault", ["slow down", "reset", "denied"])
def test_a_lasting_fault_is_one_line_and_the_former_object_stays(lake: Lake, server: S3Server, fault: str):
    lake.replace(RAW_SESSIONS, DAY, raw("former"), {})
    server.fail(*[fault] * 20)
    with pytest.raises(LakeError, match=r"^s3://bucket/.*raw_sessions\.parquet: .*check the bucket") as caught:
        lake.replace(RAW_SESSIONS, DAY, raw("new" * 1000), {})
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    server.fail()
    assert lake.read(RAW_SESSIONS, DAY).equals(raw("former"))
    lake.replace(RAW_SESSIONS, DAY, raw("new"), {})
    assert lake.read(RAW_SESSIONS, DAY).equals(raw("new"))


@pytest.mark.parametrize("broken", range(5))
def test_a_put_in_parts_that_breaks_anywhere_leaves_a_whole_object(lake: Lake, server: S3Server, broken: int):
    lake.write_file("reports/big", b"former")
    new = bytes(s3.ONE_PUT + 1)
    server.fail(*[""] * broken, "denied")
    with pytest.raises(LakeError, match="check the bucket"):
        lake.write_file("reports/big", new)
    assert server.faults == []
    assert lake.read_file("reports/big") == b"former"
    lake.write_file("reports/big", new)
    assert lake.read_file("reports/big") == new


def test_an_exclusive_run_removes_what_a_broken_put_left(lake: Lake, server: S3Server):
    server.fail(*[""] * 7, "denied")
    with pytest.raises(LakeError):
        lake.write_file("reports/big", bytes(s3.ONE_PUT + 1))
    server.fail()
    lake.write_file("_tmp/stray", b"PAR1")
    with lake.exclusive():
        with pytest.raises(NotReadError):
            lake.read_file("_tmp/stray")
        assert lake._store.keys("_tmp") == []


@pytest.mark.parametrize("fault", ["denied", "slow down"])
def test_a_failed_read_is_never_an_empty_one(lake: Lake, server: S3Server, root: str, fault: str):
    lake.replace(RAW_SESSIONS, DAY, raw("{}"), {})
    readings = (
        lambda: lake.read(RAW_SESSIONS, DAY),
        lambda: lake.metadata(RAW_SESSIONS, DAY),
        lambda: lake.days(RAW_SESSIONS),
        lambda: lake.has(RAW_SESSIONS, DAY),
        lambda: lake.read_file("_lake.json"),
        lambda: Lake.open(root, query={}, read_only=True),
    )
    for read in readings:
        server.fail(*[fault] * 20)
        with pytest.raises(LakeError, match="s3://bucket") as caught:
            read()
        assert not isinstance(caught.value, NotReadError)
    server.fail()


@pytest.mark.usefixtures("root")
def test_a_missing_bucket_is_one_line():
    with pytest.raises(LakeError, match=r"^s3://no-such-bucket/x/_lake\.json: .*bucket"):
        Lake.open("s3://no-such-bucket/x", query={}).write_file("a", b"b")
    with pytest.raises(LakeError, match="names no bucket; write s3://bucket/prefix"):
        Lake.open("s3://", query={})


def test_a_broken_object_is_named(lake: Lake, root: str):
    content = lake.replace(RAW_SESSIONS, DAY, raw("{}"), {})
    key = content.uri.removeprefix(f"{root}/")
    lake.write_file(key, lake.read_file(key)[:-9])
    for read in (lake.read, lake.metadata):
        with pytest.raises(LakeError, match=r"s3://bucket/.*raw_sessions\.parquet: not a readable Parquet file"):
            read(RAW_SESSIONS, DAY)


def test_other_tools_read_the_objects(lake: Lake, root: str, server: S3Server):
    lake.replace(RAW_SESSIONS, DAY, raw("1", "2"), {})
    lake.replace(RAW_SESSIONS, UNDATED, raw("3"), {})
    files = fs.S3FileSystem(endpoint_override=f"127.0.0.1:{server.port}", scheme="http")
    level = ds.partitioning(pa.schema([("start_date", pa.date32())]), flavor="hive")
    sessions = ds.dataset(f"{root.removeprefix('s3://')}/raw_sessions", filesystem=files, partitioning=level)
    with duckdb.connect() as connection:
        connection.register("sessions", sessions)
        rows = connection.sql("SELECT payload, start_date FROM sessions ORDER BY payload").fetchall()
    assert rows == [("1", DAY), ("2", DAY), ("3", None)]


def hold(root: str, connection: Any) -> None:
    with Lake.open(root, query={}).exclusive():
        connection.send("held")
        connection.recv()


def test_runs_on_this_machine_keep_each_other_out(lake: Lake, root: str, tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(root, theirs))
    process.start()
    assert mine.recv() == "held"
    with pytest.raises(LakeBusyError, match=r"^s3://bucket/.*another run is still writing"), lake.exclusive(timeout=0):
        pass
    said: list[str] = []
    with lake.exclusive(lambda line: (said.append(line), mine.send("go"))), lake.exclusive():
        lake.write_file("a", b"")
    process.join()
    assert said == [f"waiting for another run that is writing to {root}"]


@pytest.mark.parametrize("faults", [["denied"], ["slow down"] * 3, ["reset"] * 3], ids=lambda faults: faults[0])
def test_a_put_that_just_fails_leaves_the_former_object_even_when_the_store_recovers_at_once(
    lake: Lake, server: S3Server, faults: list[str]
):
    lake.replace(RAW_SESSIONS, DAY, raw("former"), {})
    server.fail(*faults)
    with pytest.raises(LakeError):
        lake.replace(RAW_SESSIONS, DAY, raw("new"), {})
    assert lake.read(RAW_SESSIONS, DAY).equals(raw("former"))
