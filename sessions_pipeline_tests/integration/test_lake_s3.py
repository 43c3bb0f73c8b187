"""The lake in a bucket has the same tables as in a folder, and survives faults. The server is moto's."""

import json
import os
import subprocess
import sys
import traceback
import tracemalloc
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from pyarrow import fs

from sessions_pipeline.errors import LakeError, LakeMismatchError, NotReadError
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, readings_key
from sessions_pipeline.lake.s3 import READS, S3Store
from sessions_pipeline.lake.store import ANY, Opened
from sessions_pipeline.tables import RAW_SESSIONS, SESSIONS, TABLES
from sessions_pipeline.tables.readings import Reading, dump_readings
from sessions_pipeline_tests.integration.pipeline_runs import Bucket, files
from sessions_pipeline_tests.integration.s3_server import S3Server
from sessions_pipeline_tests.lake_rows import DAY, NOON, CountingStore, raw
from sessions_pipeline_tests.snippets import Snippet, each


@pytest.fixture
def root(bucket: str) -> str:
    return f"{bucket}/lake"


@pytest.fixture
def lake(root: str) -> Lake:
    """A lake that tries each request only twice, because the waits between more attempts would take seconds."""
    return Lake.open(S3Store(root, retries=2), query={})


def test_a_day_is_read_back_as_it_was_written(lake: Lake, root: str):
    for payloads in (["{}", "[1]"], ["[2]"]):
        written = lake.replace(RAW_SESSIONS, DAY, raw(*payloads), {"readings": str(len(payloads))})
        assert written.uri == f"{root}/raw_sessions/start_date=2025-01-31/raw_sessions.parquet"
        assert written.uri == lake.uri(RAW_SESSIONS, DAY)
        assert lake.read(RAW_SESSIONS, DAY).equals(raw(*payloads))
        assert lake.metadata(RAW_SESSIONS, DAY) == {"readings": str(len(payloads))}


def test_days_other_files_and_missing_ones_are_distinguished(lake: Lake):
    assert lake.days(SESSIONS) == []
    for day in (DAY + timedelta(1), DAY, UNDATED):
        lake.replace(SESSIONS, day, SESSIONS.schema.empty_table(), {})
    lake.write_file("reports/cost.html", b"<p>")
    assert lake.days(SESSIONS) == [DAY, DAY + timedelta(1)]
    assert lake.has(SESSIONS, UNDATED)
    assert not lake.has(SESSIONS, DAY + timedelta(2))
    assert lake.read_file("reports/cost.html") == b"<p>"
    assert lake.read_file("none") == b""
    with pytest.raises(NotReadError):
        lake.read(SESSIONS, DAY + timedelta(2))
    with pytest.raises(NotReadError):
        lake.metadata(SESSIONS, DAY + timedelta(2))


class AllAtOnce(CountingStore):
    """A store that, once it has a barrier, answers reads only when as many were asked for as the barrier waits for."""

    barrier: Barrier | None = None

    def open(self, key: str, *, whole: bool) -> Opened:
        if self.barrier:
            self.barrier.wait(timeout=30)
        return super().open(key, whole=whole)


def test_several_days_are_read_at_a_time_and_in_order(lake: Lake, root: str):
    days = [DAY + timedelta(number) for number in range(2 * READS)]
    for number, day in enumerate(days):
        lake.replace(RAW_SESSIONS, day, raw(f"[{number}]"), {})
        lake.write_file(readings_key(day), dump_readings([Reading(number, NOON)]).encode())
    store = AllAtOnce(S3Store(root))
    waiting = Lake.open(store, query={}, read_only=True)
    store.barrier = Barrier(READS)
    for rows in waiting.read_days(RAW_SESSIONS, days), waiting.load_days(RAW_SESSIONS, days)[0]:
        assert rows["payload"].to_pylist() == [f"[{number}]" for number in range(2 * READS)]
        assert rows["start_date"].to_pylist() == days
    assert [one.number for [one] in waiting.readings_of_days(days).values()] == [*range(2 * READS)]


def test_a_missing_day_is_named_and_no_later_batch_is_read(lake: Lake, root: str):
    # The last of the first batch: reads that have not begun when the error is found are not made.
    missing = DAY + timedelta(READS - 1)
    for number in range(READS - 1):
        lake.replace(RAW_SESSIONS, DAY + timedelta(number), raw("{}"), {})
    counting = CountingStore(S3Store(root))
    with pytest.raises(NotReadError, match=str(missing)):
        Lake.open(counting, query={}).read_days(RAW_SESSIONS, [DAY + timedelta(number) for number in range(5 * READS)])
    assert sum(counting.opened[key] for key in counting.opened if "raw_sessions" in key) == READS


def test_an_object_that_is_read_is_not_copied(lake: Lake, root: str):
    lake.write_file("large", bytes(4 * 1024 * 1024))
    tracemalloc.start()
    try:
        opened = S3Store(root).open("large", whole=True)
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()
    assert opened.source.read() == bytes(4 * 1024 * 1024)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_table_has_the_same_bytes_as_in_a_folder(lake: Lake, table, tmp_path):
    day = None if table.partition_column is None else DAY
    lake.replace(table, day, table.schema.empty_table(), {"a": "b"})
    folder = Lake.open(str(tmp_path), query={})
    folder.replace(table, day, table.schema.empty_table(), {"a": "b"})
    key = lake.uri(table, day).partition("/lake/")[2]
    assert lake.read_file(key) == folder.read_file(key)
    assert lake.read(table, day).schema.equals(table.schema, check_metadata=True)


def test_the_query_of_the_lake_is_stored_and_checked(root: str):
    assert Lake.open(root, query={"name": "y"}, read_only=True).days(SESSIONS) == []
    lake = Lake.open(root, query={"name": "x"})
    lake.write_file("a", b"")
    assert json.loads(lake.read_file("_lake.json")) == {"layout": 2, "query": {"name": "x"}}
    with pytest.raises(LakeMismatchError, match=r"s3://bucket/.*/_lake\.json: filled with the query"):
        Lake.open(root, query={"name": "y"})


def test_a_day_is_one_put_under_its_final_key(lake: Lake, server: S3Server):
    lake.write_file("a", b"")
    server.fail()
    lake.replace(RAW_SESSIONS, DAY, raw("{}"), {}, expected=None)
    (put,) = server.requests
    assert put.startswith("PUT ")
    assert put.endswith("/lake/raw_sessions/start_date%3D2025-01-31/raw_sessions.parquet")
    server.fail()
    assert lake.read(RAW_SESSIONS, DAY).num_rows == 1
    assert lake.metadata(RAW_SESSIONS, DAY) == {}
    assert [line.partition(" ")[0] for line in server.requests] == ["GET", "GET"]


@pytest.mark.parametrize("size", [10, 100_000])
def test_what_describes_a_file_is_read_whole_however_long_it_is(lake: Lake, server: S3Server, size: int):
    lake.replace(RAW_SESSIONS, DAY, raw("{}", "[]"), {"readings": "r" * size})
    server.fail()
    stored = lake.load(RAW_SESSIONS, DAY, ())
    assert stored
    assert (stored.parts.num_rows, stored.metadata) == (2, {"readings": "r" * size})
    assert len(server.requests) == (1 if size == 10 else 2)


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 25_000_000])
def test_files_of_any_size_are_read_back(lake: Lake, size: int):
    lake.write_file("reports/any", bytes(size))
    assert lake.read_file("reports/any") == bytes(size)


@pytest.mark.parametrize("fault", ["slow down", "reset"])
def test_a_temporary_fault_is_retried(lake: Lake, server: S3Server, fault: str):
    lake.replace(RAW_SESSIONS, DAY, raw("former"), {})
    for payload, expected in (("overwritten", ANY), ("new", None)):
        seen = expected or lake.versions(RAW_SESSIONS, [DAY])[DAY]
        server.fail(*[fault] * 2)
        lake.replace(RAW_SESSIONS, DAY, raw(payload), {}, expected=seen)
        assert server.faults == []
    server.fail(*[fault] * 2)
    assert lake.read(RAW_SESSIONS, DAY).equals(raw("new"))


@pytest.mark.parametrize("fault", ["slow down", "reset", "half"])
def test_a_listing_that_breaks_off_is_repeated_and_never_taken_for_a_short_one(
    lake: Lake, server: S3Server, fault: str
):
    days = [DAY + timedelta(number) for number in range(20)]
    for day in days:
        lake.write_file(f"sessions/start_date={day}/sessions.parquet", b"")
    server.fail(*[fault] * 2)
    assert lake.days(SESSIONS) == days
    assert server.faults == []
    server.fail(*[fault] * 20)
    with pytest.raises(LakeError):
        lake.days(SESSIONS)
    server.fail()


def test_a_put_that_was_too_slow_for_the_store_is_repeated(lake: Lake, server: S3Server):
    lake.write_file("a", b"former")
    server.fail("too slow", "too slow")
    lake.write_file("a", b"new")
    assert lake.read_file("a") == b"new"


LASTING = {
    "slow down": "503 SlowDown: the store is overloaded; try again later",
    "reset": "no answer, or a broken one; check AWS_ENDPOINT_URL, AWS_REGION and the network",
    "denied": "403 AccessDenied: access denied; the key needs to list, read, write and delete below this address",
    "wrong key": (
        "403 SignatureDoesNotMatch: the store does not accept the key; "
        "correct or renew AWS_ACCESS_KEY_ID and what belongs to it"
    ),
    "expired": (
        "400 ExpiredToken: the store does not accept the key; correct or renew AWS_ACCESS_KEY_ID and what belongs to it"
    ),
    "wrong clock": "403 RequestTimeTooSkewed: this machine's clock is wrong; set it",
    "wrong region": "301 PermanentRedirect: the bucket is elsewhere; set AWS_REGION to its region",
    "region in the signature": (
        "400 AuthorizationHeaderMalformed: the bucket is elsewhere; set AWS_REGION to its region"
    ),
    "archived": ("403 InvalidObjectState: the file was archived; restore it, and exempt the data from archiving"),
    "web server": "404 NotFound: the store failed; check the bucket, AWS_* and the endpoint",
    "not implemented": (
        "501 NotImplemented: the store lacks conditional writes (If-None-Match, If-Match); choose one that has them"
    ),
}


@pytest.mark.parametrize("fault", LASTING)
def test_a_lasting_fault_is_one_line_and_the_former_object_stays(lake: Lake, server: S3Server, fault: str):
    address = lake.replace(RAW_SESSIONS, DAY, raw("former"), {}).uri
    server.fail(*[fault] * 20)
    with pytest.raises(LakeError) as caught:
        lake.replace(RAW_SESSIONS, DAY, raw("new" * 1000), {})
    said = f"{address}: {LASTING[fault]}"
    assert str(caught.value).replace("redirected", "301 PermanentRedirect") == said
    assert "Signature=" not in "".join(traceback.format_exception(caught.value))
    server.fail()
    assert lake.read(RAW_SESSIONS, DAY).equals(raw("former"))
    lake.replace(RAW_SESSIONS, DAY, raw("new"), {})
    assert lake.read(RAW_SESSIONS, DAY).equals(raw("new"))


def test_a_large_object_is_one_put_and_a_broken_put_leaves_the_former_object(lake: Lake, server: S3Server):
    lake.write_file("reports/big", b"former")
    server.fail(*["reset"] * 3)
    with pytest.raises(LakeError, match="no answer, or a broken one"):
        lake.write_file("reports/big", bytes(25_000_000))
    assert server.faults == []
    assert lake.read_file("reports/big") == b"former"
    server.fail("reset")
    lake.write_file("reports/big", bytes(25_000_000))
    assert len(server.requests) == 2
    assert lake.read_file("reports/big") == bytes(25_000_000)


def test_a_process_killed_during_a_put_leaves_the_former_object(lake: Lake, server: S3Server, root: str):
    lake.write_file("reports/big", b"former")
    # `_lake.json` is read twice; then it is put twice and read again, to see that the store honours conditions.
    server.fail(*[""] * 6, "hang")
    program = "import sys; from sessions_pipeline.lake import Lake\n"
    program += "Lake.open(sys.argv[1], query={}).write_file('reports/big', bytes(25_000_000))"
    with subprocess.Popen([sys.executable, "-c", program, root]) as process:
        while server.faults:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.05)
        process.kill()
    assert [line for line in server.requests if line.endswith("big")] == [
        f"PUT /{root.removeprefix('s3://')}/reports/big"
    ]
    assert lake.read_file("reports/big") == b"former"


@pytest.mark.parametrize("fault", ["slow down", "archived"])
def test_the_words_in_the_address_of_the_data_change_no_message(server: S3Server, fault: str):
    for prefix in ("data/latest/lake", "redirects", "v2/credential"):
        server.fail(*[fault] * 20)
        with pytest.raises(LakeError) as caught:
            S3Store(f"s3://bucket/{prefix}", retries=0).open("a", whole=True)
        assert str(caught.value) == f"s3://bucket/{prefix}/a: {LASTING[fault]}"


@pytest.mark.parametrize(
    ("kind", "faults", "said"),
    [
        ("deaf", [], "this store ignores conditional writes"),
        ("refusing", [], "501 NotImplemented: the store lacks conditional writes"),
        ("", ["denied"], "403 AccessDenied: access denied; the key needs to list,"),
        ("", ["", "denied"], "403 AccessDenied: access denied; the key needs to list,"),
    ],
    ids=["ignores conditions", "refuses conditions", "may not list", "may not write"],
)
def test_what_would_fail_in_a_run_is_noticed_when_writing_is_tried_out(
    lake: Lake, server: S3Server, root: str, kind: str, faults: list[str], said: str
):
    server.fail(*faults, kind=kind)
    with pytest.raises(LakeError, match=rf"^{root}/_probe-\w+: {said}"):
        lake.check_writable()
    assert server.requests[0] == "GET /bucket", "a listing, which a key may not be allowed to do"
    server.fail()
    assert files(Bucket(root)) == {}


@pytest.mark.parametrize("fault", ["denied", "slow down", "web server"])
def test_a_failed_read_is_never_an_empty_result(lake: Lake, server: S3Server, root: str, fault: str):
    lake.replace(RAW_SESSIONS, DAY, raw("{}"), {})
    readings = (
        lambda: lake.read(RAW_SESSIONS, DAY),
        lambda: lake.metadata(RAW_SESSIONS, DAY),
        lambda: lake.days(RAW_SESSIONS),
        lambda: lake.has(RAW_SESSIONS, DAY),
        lambda: lake.read_file("_lake.json"),
        lambda: Lake.open(S3Store(root, retries=1), query={}, read_only=True),
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
    with pytest.raises(LakeError, match=r"^SESSIONS_PIPELINE_DATA_ROOT: write s3://bucket/prefix"):
        Lake.open("s3://", query={})
    for root in ("s3://bucket/a//b", "s3://bucket/a/../b", "s3://bucket/a\tb"):
        with pytest.raises(LakeError, match=r"^SESSIONS_PIPELINE_DATA_ROOT or AWS_\*: Could not parse path"):
            Lake.open(root, query={})


NO_KEY = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
POD = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/v1/credentials"}


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"AWS_ENDPOINT_URL_S3": "minio:9000"}, "AWS_ENDPOINT_URL_S3: write an address such as https://minio"),
        ({"AWS_ENDPOINT_URL_S3": "", "AWS_ENDPOINT_URL": "minio"}, "AWS_ENDPOINT_URL: write an address such as https"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "s3://bucket/x/_lake.json: no answer, or a broken one; check"),
        ({"AWS_ENDPOINT_URL_S3": ""}, "s3://bucket/x/_lake.json: no answer, or a broken one; check AWS_ENDPOINT_URL"),
        ({"AWS_CA_BUNDLE": "/none.pem"}, "AWS_CA_BUNDLE: No such file or directory; name a file of certificates"),
        (
            {"AWS_CA_BUNDLE": __file__},
            "SESSIONS_PIPELINE_DATA_ROOT or AWS_*: No certificates found",
        ),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9 "}, "AWS_ENDPOINT_URL_S3: write an address such as https://minio"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:70000"}, "AWS_ENDPOINT_URL_S3: write an address such as https://"),
        ({"AWS_ACCESS_KEY_ID": "key\n"}, "AWS_ACCESS_KEY_ID: holds a space or another wrong character; copy it again"),
        ({"AWS_SESSION_TOKEN": "to ken"}, "AWS_SESSION_TOKEN: holds a space or another wrong character; copy it again"),
        ({"AWS_REGION": "eu central"}, "AWS_REGION: holds a space or another wrong character; copy it again"),
        (
            {"AWS_SECRET_ACCESS_KEY": ""},
            "SESSIONS_PIPELINE_DATA_ROOT or AWS_*: Generic S3 error: Missing Secr",
        ),
        (
            {"AWS_SKIP_SIGNATURE": "maybe"},
            "SESSIONS_PIPELINE_DATA_ROOT or AWS_*: Generic Config error: fai",
        ),
        ({"AWS_PROFILE": "none-such"}, "AWS_PROFILE: The config profile (none-such) could not be found"),
        (
            {**NO_KEY, "AWS_METADATA_ENDPOINT": "http://127.0.0.1:9"},
            "s3://bucket/x/_lake.json: no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or",
        ),
        (
            {**NO_KEY, **POD, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/none"},
            "s3://bucket/x/_lake.json: no AWS credentials; set AWS_ACCESS_KEY_ID",
        ),
        (
            {**NO_KEY, **POD, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": os.devnull},
            "s3://bucket/x/_lake.json: no AWS credentials; set AWS_ACCESS_KEY_ID",
        ),
        (
            {**NO_KEY, "AWS_ROLE_ARN": "arn:aws:iam::1:role/x", "AWS_WEB_IDENTITY_TOKEN_FILE": os.devnull},
            "s3://bucket/x/_lake.json: no AWS credentials; set AWS_ACCESS_KEY_ID",
        ),
    ],
    ids=[
        *("no scheme", "no scheme either", "nobody there", "the general one", "no bundle", "not a bundle"),
        *("a space", "no port", "a line break in the key", "a space in the token", "a space in the region"),
        *("half a key", "not a flag", "no profile", "no key"),
        *("no token of a pod", "no credentials of a pod", "no role"),
    ],
)
@pytest.mark.usefixtures("server")
def test_a_wrong_variable_is_one_line_that_names_it(
    variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LakeError) as caught:
        Lake.open("s3://bucket/x", query={})
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
    assert "secret-that-is-never-shown" not in "".join(traceback.format_exception(caught.value))


SERVICES = "services = local\n[services local]\ns3 =\n  endpoint_url = {url}"


@pytest.mark.parametrize("where", ["endpoint_url = {url}", SERVICES])
def test_the_endpoint_and_keys_of_a_profile_are_used(
    root: str, server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
):
    keys = "aws_access_key_id = key\naws_secret_access_key = secret\nregion = eu-west-1\n"
    text = f"[profile lake]\n{keys}{where}\n".replace("{url}", f"http://127.0.0.1:{server.port}")
    (tmp_path / "config").write_text(text)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lake")
    Lake.open(root, query={}).write_file("a", b"")
    assert any(line.endswith("/lake/a") for line in server.requests)


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


@each
def test_polars_reads_a_bucket_as_the_docs_say(
    snippet: Snippet, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake.open(S3Store("s3://bucket/prefix"), query={})
    lake.replace(SESSIONS, DAY, SESSIONS.schema.empty_table(), {})
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    assert eval(snippet.text, {"pl": pl}).collect().columns == [*SESSIONS.schema.names, "start_date"]
