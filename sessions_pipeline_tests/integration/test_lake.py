"""The lake in a local folder: files are read back as they were written, and its query and layout are checked."""

import json
import stat
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessions_pipeline.errors import LakeError, LakeMismatchError, NotReadError
from sessions_pipeline.lake import Lake, layout
from sessions_pipeline.lake.layout import UNDATED
from sessions_pipeline.lake.local import LocalStore
from sessions_pipeline.lake.parquet import DAYS_AT_ONCE
from sessions_pipeline.lake.store import store_at
from sessions_pipeline.tables import RAW_SESSIONS, SESSIONS, TABLES, WEEKLY_COST_BY_REFERENCE_DATASET
from sessions_pipeline_tests.full_disk import files_up_to
from sessions_pipeline_tests.integration.pipeline_runs import DataRoot, also_in_a_bucket, files
from sessions_pipeline_tests.lake_rows import DAY, raw


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "lake"


def marker_of(root: DataRoot) -> bytes:
    return store_at(str(root)).open(layout.MARKER, whole=True).source.read()


def put_marker(root: DataRoot, content: bytes) -> None:
    store_at(str(root)).put(layout.MARKER, content)


@pytest.fixture
def lake(root: Path) -> Lake:
    return Lake.open(str(root), query={})


@pytest.fixture
def anywhere(data_root: DataRoot) -> Lake:
    return Lake.open(str(data_root), query={})


def test_a_day_is_read_back_as_it_was_written(lake: Lake, root: Path):
    written = lake.replace(RAW_SESSIONS, DAY, raw("{}", "[1]"), {"readings": "[]"})
    path = root / "raw_sessions" / "start_date=2025-01-31" / "raw_sessions.parquet"
    assert written == (str(path), path.stat().st_size)
    assert lake.uri(RAW_SESSIONS, DAY) == str(path)
    assert lake.read(RAW_SESSIONS, DAY).equals(raw("{}", "[1]"))
    assert lake.read(RAW_SESSIONS, DAY, ["payload"]).to_pydict() == {"payload": ["{}", "[1]"]}
    assert lake.metadata(RAW_SESSIONS, DAY) == {"readings": "[]"}


def test_replacing_a_day_leaves_no_rows_of_the_former_one(lake: Lake, root: Path):
    lake.replace(RAW_SESSIONS, DAY, raw("1", "2"), {"a": "1"})
    lake.replace(RAW_SESSIONS, DAY, raw("3"), {"b": "2"})
    assert lake.read(RAW_SESSIONS, DAY).equals(raw("3"))
    assert lake.metadata(RAW_SESSIONS, DAY) == {"b": "2"}
    assert list(files(root)) == ["_lake.json", "raw_sessions/start_date=2025-01-31/raw_sessions.parquet"]


@given(
    days=st.dictionaries(
        st.one_of(st.dates(date(2000, 1, 1), date(2050, 1, 1)), st.just(UNDATED)),
        st.lists(st.text(max_size=20), max_size=5),
        max_size=5,
    ),
    again=st.lists(st.text(max_size=20), max_size=5),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_days_replaced_in_any_order_read_back(tmp_path_factory, days, again):
    lake = Lake.open(str(tmp_path_factory.mktemp("lake")), query={})
    if days:
        lake.replace(RAW_SESSIONS, next(iter(days)), raw(*again), {})
    for day, payloads in days.items():
        lake.replace(RAW_SESSIONS, day, raw(*payloads), {"n": str(len(payloads))})
    for day, payloads in days.items():
        assert lake.read(RAW_SESSIONS, day).equals(raw(*payloads))
        assert lake.metadata(RAW_SESSIONS, day) == {"n": str(len(payloads))}
    assert lake.days(RAW_SESSIONS) == sorted(day for day in days if day is not UNDATED)
    assert lake.has(RAW_SESSIONS, UNDATED) is (UNDATED in days)
    together = lake.read_days(RAW_SESSIONS, list(days), ["payload"])
    assert together.to_pylist() == [
        {"payload": payload, "start_date": None if day is UNDATED else day}
        for day, payloads in days.items()
        for payload in payloads
    ]


def test_any_number_of_days_is_read_in_order_and_those_without_a_file_are_left_out(lake: Lake):
    days = [DAY + timedelta(offset) for offset in range(2 * DAYS_AT_ONCE + 3)]
    for number, day in enumerate(days):
        lake.replace(RAW_SESSIONS, day, raw(*[str(number)] * (number % 3)), {"n": str(number)})
    expected = [{"payload": str(n), "start_date": day} for n, day in enumerate(days) for _ in range(n % 3)]
    assert lake.read_days(RAW_SESSIONS, days, ["payload"]).to_pylist() == expected
    asked = [UNDATED, days[0] - timedelta(1), *days]
    rows, metadata = lake.load_days(RAW_SESSIONS, asked, ["payload"])
    assert rows.to_pylist() == expected
    assert metadata == {day: {"n": str(number)} for number, day in enumerate(days)}


def test_only_days_with_a_file_are_listed(lake: Lake, root: Path):
    for offset in (3, 1, 2):
        lake.replace(SESSIONS, DAY + timedelta(offset), SESSIONS.schema.empty_table(), {})
    lake.replace(SESSIONS, UNDATED, SESSIONS.schema.empty_table(), {})
    (root / "sessions" / "start_date=2025-03-01").mkdir()
    (root / "sessions" / "start_date=2025-03-02").mkdir()
    (root / "sessions" / "start_date=2025-03-02" / ".sessions.parquet.swp").write_bytes(b"")
    (root / "sessions" / "note.txt").write_text("mine")
    assert lake.days(SESSIONS) == [DAY + timedelta(offset) for offset in (1, 2, 3)]
    assert lake.days(RAW_SESSIONS) == []


class Reversed(LocalStore):
    """Lists files in reverse."""

    def listing(self, table: str) -> dict[str, str | None]:
        return dict(sorted(super().listing(table).items(), reverse=True))


def test_days_and_their_versions_are_sorted_however_the_store_lists_them(root: Path):
    lake, days = Lake.open(Reversed(root), query={}), [DAY + timedelta(offset) for offset in range(3)]
    for day in days:
        lake.replace(SESSIONS, day, SESSIONS.schema.empty_table(), {})
    assert [*lake.versions_of_days(SESSIONS)] == lake.days(SESSIONS) == days


@also_in_a_bucket
def test_a_day_that_was_never_read_is_distinct_from_an_empty_one(anywhere: Lake):
    anywhere.replace(SESSIONS, DAY, SESSIONS.schema.empty_table(), {})
    assert anywhere.read(SESSIONS, DAY).num_rows == 0
    assert not anywhere.has(SESSIONS, DAY + timedelta(1))
    for read in (anywhere.read, anywhere.metadata):
        with pytest.raises(NotReadError, match=r"^sessions was never read for 2025-02-01; materialize all tables of"):
            read(SESSIONS, DAY + timedelta(1))
        with pytest.raises(NotReadError, match=r"^sessions was never read for rows without a day;"):
            read(SESSIONS, UNDATED)
        with pytest.raises(NotReadError, match=r"^weekly_cost_by_reference_dataset was never made;"):
            read(WEEKLY_COST_BY_REFERENCE_DATASET, None)
    with pytest.raises(NotReadError, match="2025-02-01"):
        anywhere.read_days(SESSIONS, [DAY, DAY + timedelta(1)])


@also_in_a_bucket
def test_reading_no_days_gives_an_empty_table_with_its_columns(anywhere: Lake):
    table = anywhere.read_days(SESSIONS, [])
    assert table.schema.names == [*SESSIONS.schema.names, "start_date"]
    assert table.schema.field("start_date").type == pa.date32()
    assert table.num_rows == 0


def test_other_files_can_be_kept_beside_the_tables(lake: Lake, root: Path):
    assert lake.write_file("reports/cost.html", b"<p>") == str(root / "reports" / "cost.html")
    assert lake.read_file("reports/cost.html") == b"<p>"
    assert lake.read_file("reports/none.html") == b""


@also_in_a_bucket
def test_a_missing_root_read_only_is_an_empty_lake_and_stays_missing(data_root: DataRoot):
    anywhere = Lake.open(str(data_root), query={"name": "x"}, read_only=True)
    assert anywhere.days(SESSIONS) == []
    assert not anywhere.has(SESSIONS, DAY)
    with pytest.raises(NotReadError):
        anywhere.read(SESSIONS, DAY)
    assert files(data_root) == {}


@also_in_a_bucket
def test_a_lake_opened_for_reading_refuses_to_write(data_root: DataRoot):
    anywhere = Lake.open(str(data_root), query={}, read_only=True)
    with pytest.raises(LakeError, match="opened for reading only"):
        anywhere.replace(RAW_SESSIONS, DAY, raw("{}"), {})
    with pytest.raises(LakeError, match="opened for reading only"), anywhere.lock(DAY):
        pass
    assert files(data_root) == {}


def test_opening_and_reading_write_nothing(root: Path, lake: Lake):
    assert lake.days(SESSIONS) == []
    assert not root.exists()


def test_the_first_write_stores_the_query_of_the_lake(root: Path):
    Lake.open(str(root), query={"name": "x", "facets": None}).write_file("a", b"")
    assert json.loads((root / "_lake.json").read_text()) == {"layout": 2, "query": {"name": "x"}}


@also_in_a_bucket
def test_the_same_query_in_another_spelling_is_accepted(data_root: DataRoot):
    Lake.open(str(data_root), query={"id": ("b", "a"), "name": "x"}).write_file("a", b"")
    Lake.open(str(data_root), query={"name": "x", "id": ["a", "b"], "facets": None}).write_file("b", b"")


@also_in_a_bucket
def test_another_query_is_refused_in_one_line(data_root: DataRoot):
    early = Lake.open(str(data_root), query={"name": "y"})
    Lake.open(str(data_root), query={"name": "x"}).write_file("a", b"")
    expected = r'filled with the query {"name": "x"}, not {"name": "y"}; set SESSIONS_PIPELINE_QUERY as it was, or'
    for read_only in (True, False):
        with pytest.raises(LakeMismatchError, match=expected):
            Lake.open(str(data_root), query={"name": "y"}, read_only=read_only)
    with pytest.raises(LakeMismatchError, match=expected):
        early.replace(RAW_SESSIONS, DAY, raw("{}"), {})
    assert not any(key.startswith("raw_sessions") for key in files(data_root))


OLDER = "point SESSIONS_PIPELINE_DATA_ROOT elsewhere and materialize again, or go back to the version that wrote it"


@pytest.mark.parametrize(("found", "advice"), [(3, "upgrade sessions-pipeline"), (1, OLDER)])
@also_in_a_bucket
def test_another_layout_is_refused_in_one_line_and_left_alone(data_root: DataRoot, found: int, advice: str):
    put_marker(data_root, f'{{"layout": {found}, "query": {{}}}}'.encode())
    before = files(data_root)
    for read_only in (True, False):
        with pytest.raises(LakeMismatchError) as caught:
            Lake.open(str(data_root), query={}, read_only=read_only)
        assert str(caught.value) == f"{data_root}/_lake.json: has layout {found}, but this version has 2; {advice}"
    assert files(data_root) == before


@also_in_a_bucket
def test_only_one_of_several_runs_with_different_queries_can_begin_a_lake(data_root: DataRoot):
    lakes = [Lake.open(str(data_root), query={"name": name}) for name in "abcd"]

    def begin(lake: Lake) -> bool:
        try:
            lake.write_file("reports/a", b"")
        except LakeMismatchError:
            return False
        return True

    with ThreadPoolExecutor(4) as runs:
        assert sorted(runs.map(begin, lakes)) == [False, False, False, True]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"layout": 2}',
        b'{"query": {}}',
        b'{"layout": "x", "query": {}}',
        b'{"layout": "2", "query": {}}',
        b'{"layout": true, "query": {}}',
        b'{"layout": 2.0, "query": {}}',
        b'{"layout": 2, "query": 5}',
        b'{"layout": 1e999, "query": {}}',
        b"[" * 100_000,
    ],
)
@also_in_a_bucket
def test_a_broken_marker_is_an_error_and_never_a_new_lake(data_root: DataRoot, content: bytes):
    put_marker(data_root, content)
    with pytest.raises(
        LakeError, match=r"_lake\.json: broken; .* or, if SESSIONS_PIPELINE_QUERY never changed, delete it"
    ):
        Lake.open(str(data_root), query={})
    assert marker_of(data_root) == content


@pytest.mark.parametrize("root", ["gs://bucket/x", "http://127.0.0.1/x", "s3:/bucket/x", "S3://bucket/x", " s3://b/x"])
def test_an_address_of_another_kind_is_refused(root: str):
    with pytest.raises(LakeError, match="takes a folder or an s3://bucket/prefix address"):
        Lake.open(root, query={})


@pytest.mark.parametrize(
    "root",
    [
        "s3://AKIAXXX:hunter2@bucket/lake",
        "s3://AKIAXXX:hunter2@/",
        "s3://bucket:hunter2/lake",
        "s3://bucket/lake?secret_access_key=hunter2",
        "s3:/AKIAXXX:hunter2@bucket",
        "https://user:hunter2@host/lake",
    ],
)
def test_credentials_in_an_address_are_refused_and_never_repeated(root: str):
    with pytest.raises(LakeError, match=r"^SESSIONS_PIPELINE_DATA_ROOT: .*s3://bucket/prefix") as caught:
        Lake.open(root, query={})
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert "AKIAXXX" not in str(caught.value)


def test_a_root_that_is_a_file_is_one_line(tmp_path: Path):
    (tmp_path / "taken").write_text("")
    for root in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(LakeError, match="a file is where a folder should be: move it away, or point") as caught:
            Lake.open(str(root), query={}).replace(RAW_SESSIONS, DAY, raw("{}"), {})
        assert "\n" not in str(caught.value)


def test_a_root_that_cannot_be_made_is_one_line():
    with pytest.raises(LakeError, match=r"^/proc/no/such/lake/.*SESSIONS_PIPELINE_DATA_ROOT elsewhere$"):
        Lake.open("/proc/no/such/lake", query={}).replace(RAW_SESSIONS, DAY, raw("{}"), {})
    with pytest.raises(LakeError, match=r"^/proc/no/such/lake/"), Lake.open("/proc/no/such/lake", query={}).lock(DAY):
        pass
    with pytest.raises(LakeError, match=r"^/proc/no/such/lake/"):
        LocalStore("/proc/no/such/lake").put("file", b"")


def test_other_users_may_not_read_the_files(lake: Lake, root: Path):
    lake.replace(RAW_SESSIONS, DAY, raw("{}"), {})
    for path in [root, *root.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o027 == 0, path


def test_equal_input_gives_equal_files(lake: Lake):
    first = Path(lake.replace(RAW_SESSIONS, DAY, raw("{}", "[]"), {"a": "b"}).uri).read_bytes()
    assert Path(lake.replace(RAW_SESSIONS, DAY, raw("{}", "[]"), {"a": "b"}).uri).read_bytes() == first


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_table_can_be_empty(lake: Lake, table):
    day = None if table.partition_column is None else DAY
    lake.replace(table, day, table.schema.empty_table(), {})
    assert lake.read(table, day).schema.equals(table.schema, check_metadata=True)


@also_in_a_bucket
def test_testing_whether_the_lake_can_be_written_leaves_no_file(anywhere: Lake, data_root: DataRoot):
    anywhere.check_writable()
    assert files(data_root) == {}
    with pytest.raises(LakeError, match="SESSIONS_PIPELINE_DATA_ROOT elsewhere"):
        Lake.open("/proc/no/such/lake", query={}).check_writable()


def test_a_full_disk_can_not_be_written(lake: Lake):
    with files_up_to(4_096), pytest.raises(LakeError, match="raise the limit, or point SESSIONS_PIPELINE_DATA_ROOT"):
        lake.check_writable()
