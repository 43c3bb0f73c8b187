"""Promises of the lake in a local folder: what is written is what everyone reads."""

import json
import random
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessions_pipeline.errors import LakeBusyError, LakeError, LakeMismatchError, NotReadError
from sessions_pipeline.lake import local, marker
from sessions_pipeline.lake.lake import Lake, _store
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.tables import RAW_SESSIONS, SESSIONS, TABLES, WEEKLY_COST_BY_REFERENCE_DATASET
from sessions_pipeline_tests.integration.pipeline_runs import DataRoot, also_in_a_bucket, files

DAY = date(2025, 1, 31)
READ_AT = datetime(2025, 1, 31, 12, tzinfo=UTC)


def raw(*payloads: str) -> pa.Table:
    count = len(payloads)
    columns = {"session_id": [f"id-{i}" for i in range(count)], "payload": list(payloads)}
    columns |= {"tenant_id": ["t"] * count, "start_time": [None] * count, "fetched_at": [READ_AT] * count}
    return pa.table(columns, RAW_SESSIONS.schema)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "lake"


def marker_of(root: DataRoot) -> bytes:
    return _store(str(root)).read(marker.MARKER)


def put_marker(root: DataRoot, content: bytes) -> None:
    _store(str(root)).put(marker.MARKER, content)


@pytest.fixture
def lake(root: Path) -> Lake:
    return Lake.open(str(root), query={})


@pytest.fixture
def anywhere(data_root: DataRoot) -> Lake:
    return Lake.open(str(data_root), query={})


def test_a_day_comes_back_as_it_was_written(lake: Lake, root: Path):
    written = lake.replace(RAW_SESSIONS, DAY, raw("{}", "[1]"), {"readings": "[]"})
    path = root / "raw_sessions" / "start_date=2025-01-31" / "raw_sessions.parquet"
    assert written == (str(path), path.stat().st_size, 2)
    assert lake.uri(RAW_SESSIONS, DAY) == str(path)
    assert lake.read(RAW_SESSIONS, DAY).equals(raw("{}", "[1]"))
    assert lake.read(RAW_SESSIONS, DAY, ["payload"]).to_pydict() == {"payload": ["{}", "[1]"]}
    assert lake.metadata(RAW_SESSIONS, DAY) == {"readings": "[]"}


def test_replacing_a_day_leaves_nothing_of_the_former_one(lake: Lake, root: Path):
    lake.replace(RAW_SESSIONS, DAY, raw("1", "2"), {"a": "1"})
    lake.replace(RAW_SESSIONS, DAY, raw("3"), {"b": "2"})
    assert lake.read(RAW_SESSIONS, DAY).equals(raw("3"))
    assert lake.metadata(RAW_SESSIONS, DAY) == {"b": "2"}
    files = sorted(path.name for path in root.rglob("*") if path.is_file())
    assert files == ["_lake.json", "raw_sessions.parquet"]


@given(
    days=st.dictionaries(
        st.one_of(st.dates(date(2000, 1, 1), date(2050, 1, 1)), st.just(UNDATED)),
        st.lists(st.text(max_size=20), max_size=5),
        max_size=5,
    ),
    again=st.lists(st.text(max_size=20), max_size=5),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


def test_days_are_only_those_with_a_file(lake: Lake, root: Path):
    for offset in (3, 1, 2):
        lake.replace(SESSIONS, DAY + timedelta(offset), SESSIONS.schema.empty_table(), {})
    lake.replace(SESSIONS, UNDATED, SESSIONS.schema.empty_table(), {})
    (root / "sessions" / "start_date=2025-03-01").mkdir()
    (root / "sessions" / "start_date=2025-03-02").mkdir()
    (root / "sessions" / "start_date=2025-03-02" / ".sessions.parquet.swp").write_bytes(b"")
    (root / "sessions" / "note.txt").write_text("mine")
    assert lake.days(SESSIONS) == [DAY + timedelta(offset) for offset in (1, 2, 3)]
    assert lake.days(RAW_SESSIONS) == []


@also_in_a_bucket
def test_a_day_that_was_never_read_is_not_an_empty_one(anywhere: Lake):
    anywhere.replace(SESSIONS, DAY, SESSIONS.schema.empty_table(), {})
    assert anywhere.read(SESSIONS, DAY).num_rows == 0
    assert not anywhere.has(SESSIONS, DAY + timedelta(1))
    for read in (anywhere.read, anywhere.metadata):
        with pytest.raises(NotReadError, match=r"^sessions was never read for 2025-02-01; materialize that day first$"):
            read(SESSIONS, DAY + timedelta(1))
        with pytest.raises(NotReadError, match=r"^sessions was never read for rows without a day;"):
            read(SESSIONS, UNDATED)
        with pytest.raises(NotReadError, match=r"^weekly_cost_by_reference_dataset was never made;"):
            read(WEEKLY_COST_BY_REFERENCE_DATASET, None)
    with pytest.raises(NotReadError, match="2025-02-01"):
        anywhere.read_days(SESSIONS, [DAY, DAY + timedelta(1)])


@also_in_a_bucket
def test_no_days_at_all_is_an_empty_table_with_its_columns(anywhere: Lake):
    table = anywhere.read_days(SESSIONS, [])
    assert table.schema.names == [*SESSIONS.schema.names, "start_date"]
    assert table.schema.field("start_date").type == pa.date32()
    assert table.num_rows == 0
    with pytest.raises(ValueError, match="has no partitions"):
        anywhere.read_days(WEEKLY_COST_BY_REFERENCE_DATASET, [])


def test_a_broken_file_is_named(lake: Lake):
    path = Path(lake.replace(RAW_SESSIONS, DAY, raw("{}"), {}).uri)
    path.write_bytes(path.read_bytes()[:-20])
    for read in (lake.read, lake.metadata):
        with pytest.raises(LakeError, match=r"raw_sessions\.parquet: not a readable Parquet file") as caught:
            read(RAW_SESSIONS, DAY)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_other_files_can_be_kept_beside_the_tables(lake: Lake, root: Path):
    assert lake.write_file("reports/cost.html", b"<p>") == str(root / "reports" / "cost.html")
    assert lake.read_file("reports/cost.html") == b"<p>"
    with pytest.raises(NotReadError, match="there is no such file"):
        lake.read_file("reports/none.html")


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
    with pytest.raises(LakeError, match="opened for reading only"), anywhere.exclusive():
        pass
    assert files(data_root) == {}


def test_opening_and_reading_write_nothing(root: Path, lake: Lake):
    assert lake.days(SESSIONS) == []
    assert not root.exists()


def test_the_first_write_says_what_the_lake_is_filled_with(root: Path):
    Lake.open(str(root), query={"name": "x", "facets": None}).write_file("a", b"")
    assert json.loads((root / "_lake.json").read_text()) == {"layout": 1, "query": {"name": "x"}}


@also_in_a_bucket
def test_the_same_query_spelled_otherwise_is_the_same(data_root: DataRoot):
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
    with pytest.raises(LakeMismatchError, match=expected), early.exclusive():
        pass
    assert not any(key.startswith("raw_sessions") for key in files(data_root))


@also_in_a_bucket
def test_a_newer_layout_is_refused(data_root: DataRoot):
    put_marker(data_root, b'{"layout": 2, "query": {}}')
    with pytest.raises(LakeMismatchError, match=r"layout 2 is newer than this version's 1; upgrade sessions-pipeline"):
        Lake.open(str(data_root), query={})


@also_in_a_bucket
def test_an_older_layout_is_migrated_step_by_step(data_root: DataRoot, monkeypatch: pytest.MonkeyPatch):
    Lake.open(str(data_root), query={}).write_file("old", b"1")
    monkeypatch.setitem(marker.MIGRATIONS, 2, lambda store: store.put("newest", store.read("new") + b"3"))
    with pytest.raises(LakeError, match="layout 1 is too old to be migrated; materialize anew"):
        Lake.open(str(data_root), query={})
    assert json.loads(marker_of(data_root))["layout"] == 1
    monkeypatch.setitem(marker.MIGRATIONS, 1, lambda store: store.put("new", store.read("old") + b"2"))
    with pytest.raises(LakeError, match="of an older layout; `sessions-pipeline materialize` migrates it"):
        Lake.open(str(data_root), query={}, read_only=True)
    assert Lake.open(str(data_root), query={}).read_file("newest") == b"123"
    assert json.loads(marker_of(data_root))["layout"] == 3


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"layout": 1}',
        b'{"layout": "x", "query": {}}',
        b'{"layout": 1, "query": 5}',
    ],
)
@also_in_a_bucket
def test_a_broken_marker_is_an_error_and_never_a_new_lake(data_root: DataRoot, content: bytes):
    put_marker(data_root, content)
    with pytest.raises(LakeError, match=r"_lake\.json: broken; put it back"):
        Lake.open(str(data_root), query={})
    assert marker_of(data_root) == content


@pytest.mark.parametrize("root", ["gs://bucket/x", "http://127.0.0.1/x"])
def test_an_address_of_another_kind_is_refused(root: str):
    with pytest.raises(LakeError, match="takes a folder or an s3://bucket/prefix address"):
        Lake.open(root, query={})


def test_a_root_that_is_a_file_is_one_line(tmp_path: Path):
    (tmp_path / "taken").write_text("")
    for root in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(LakeError, match="a file is where a folder should be: move it away, or point") as caught:
            Lake.open(str(root), query={}).replace(RAW_SESSIONS, DAY, raw("{}"), {})
        assert "\n" not in str(caught.value)


def test_a_root_that_cannot_be_made_is_one_line():
    with pytest.raises(LakeError, match=r"^/proc/no/such/lake/.*SESSIONS_PIPELINE_DATA_ROOT elsewhere$"):
        Lake.open("/proc/no/such/lake", query={}).replace(RAW_SESSIONS, DAY, raw("{}"), {})
    with pytest.raises(LakeError, match=r"^/proc/no/such/lake/"), Lake.open("/proc/no/such/lake", query={}).exclusive():
        pass


def test_others_may_not_read_what_is_written(lake: Lake, root: Path):
    lake.replace(RAW_SESSIONS, DAY, raw("{}"), {})
    with lake.exclusive():
        pass
    for path in [root, *root.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o027 == 0, path


def test_equal_input_gives_equal_files(lake: Lake):
    first = Path(lake.replace(RAW_SESSIONS, DAY, raw("{}", "[]"), {"a": "b"}).uri).read_bytes()
    assert Path(lake.replace(RAW_SESSIONS, DAY, raw("{}", "[]"), {"a": "b"}).uri).read_bytes() == first


@also_in_a_bucket
def test_the_lock_is_re_entered_by_the_thread_that_holds_it(anywhere: Lake, data_root: DataRoot):
    with anywhere.exclusive(timeout=0), Lake.open(str(data_root), query={}).exclusive(timeout=0):
        anywhere.replace(RAW_SESSIONS, DAY, raw("{}"), {})
    with anywhere.exclusive(timeout=0):
        pass


def test_another_run_is_waited_for_and_that_is_said_once(lake: Lake, root: Path):
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with Lake.open(str(root), query={}).exclusive():
            held.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    with pytest.raises(LakeBusyError, match=r"still writing after 0 s; try again when"), lake.exclusive(timeout=0):
        pass
    said: list[str] = []
    with lake.exclusive(lambda line: (said.append(line), release.set())):
        pass
    holder.join()
    assert said == [f"waiting for another run that is writing to {root}"]


@also_in_a_bucket
def test_runs_for_different_months_do_not_wait_for_each_other(anywhere: Lake, data_root: DataRoot):
    other = Lake.open(str(data_root), query={})
    january, february = date(2025, 1, 31), date(2025, 2, 1)
    with anywhere.exclusive(days=[january]), ThreadPoolExecutor(1) as elsewhere:

        def takes(*days: Day) -> bool:
            try:
                with other.exclusive(timeout=0, days=days):
                    return True
            except LakeBusyError:
                return False

        for days in ([february], [UNDATED], [None], [date(2024, 1, 31), february, UNDATED, None]):
            assert elsewhere.submit(takes, *days).result()
        for days in ([january], [date(2025, 1, 1)], [None, january, UNDATED]):
            assert not elsewhere.submit(takes, *days).result()
        with anywhere.exclusive(timeout=0, days=[date(2025, 1, 1), february]):
            assert not elsewhere.submit(takes, february).result()
        assert elsewhere.submit(takes, february).result()


@also_in_a_bucket
def test_runs_that_need_the_same_months_in_any_order_never_wait_for_ever(data_root: DataRoot):
    days: list[Day] = [date(2025, 1, 31), date(2025, 2, 1), UNDATED, None]
    counted = {"now": 0, "most": 0, "turns": 0}
    turns = 30 if isinstance(data_root, Path) else 4

    def work(seed: int) -> None:
        anywhere = Lake.open(str(data_root), query={})
        for turn in range(turns):
            random.Random(seed * 100 + turn).shuffle(mine := list(days))
            with anywhere.exclusive(timeout=60, days=mine):
                counted["now"] += 1
                counted["most"] = max(counted["most"], counted["now"])
                counted["turns"] += 1
                counted["now"] -= 1

    with ThreadPoolExecutor(4) as runs:
        list(runs.map(work, range(4)))
    assert counted == {"now": 0, "most": 1, "turns": 4 * turns}


def test_a_file_that_another_month_s_run_took_for_stray_is_written_all_the_same(
    lake: Lake, root: Path, monkeypatch: pytest.MonkeyPatch
):
    claim, moments = local._claim, iter([True])

    def late(fd: int) -> bool:
        if next(moments, False):
            with Lake.open(str(root), query={}).exclusive(days=[UNDATED]):
                assert list((root / "_tmp").iterdir()) == []
        return claim(fd)

    lake.write_file("reports/a", b"former")
    monkeypatch.setattr(local, "_claim", late)
    lake.write_file("reports/a", b"whole")
    assert lake.read_file("reports/a") == b"whole"


@also_in_a_bucket
def test_a_query_that_came_in_while_waiting_is_refused(data_root: DataRoot):
    anywhere = Lake.open(str(data_root), query={"name": "y"})
    Lake.open(str(data_root), query={"name": "x"}).write_file("a", b"")
    with pytest.raises(LakeMismatchError), anywhere.exclusive():
        pass


def test_an_exclusive_run_removes_what_a_crash_left_but_not_what_is_being_written(lake: Lake, root: Path):
    lake.write_file("reports/a", b"")
    stray = root / "_tmp" / "sessions%2Fstart_date%3D2025-01-31%2Fsessions.parquet.0123"
    stray.write_bytes(b"PAR1")
    (root / "sessions" / "start_date=2025-01-31").mkdir(parents=True)
    alive = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()",
            str(root / "_tmp" / "reports%2Fb.4567"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with alive:
        assert alive.stdout is not None
        alive.stdout.readline()
        with lake.exclusive():
            pass
        assert [path.name for path in (root / "_tmp").iterdir()] == ["reports%2Fb.4567"]
        alive.kill()
    assert not (root / "sessions").exists()
    assert (root / "reports" / "a").exists()
    with lake.exclusive():
        pass
    assert list((root / "_tmp").iterdir()) == []


def test_reading_and_writing_import_no_pandas(root: Path):
    program = """
import sys, datetime, pyarrow as pa
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.tables import SESSIONS
lake, day = Lake.open(sys.argv[1], query={}), datetime.date(2025, 1, 31)
with lake.exclusive():
    lake.replace(SESSIONS, day, pa.Table.from_batches([], SESSIONS.schema), {})
assert lake.read_days(SESSIONS, lake.days(SESSIONS)).num_rows == 0
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, str(root)], check=True)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_table_can_be_empty(lake: Lake, table):
    day = None if table.partition is None else DAY
    lake.replace(table, day, table.schema.empty_table(), {})
    assert lake.read(table, day).schema.equals(table.schema, check_metadata=True)


@also_in_a_bucket
def test_asking_whether_it_can_be_written_leaves_no_file(anywhere: Lake, data_root: DataRoot):
    anywhere.check_writable()
    assert files(data_root) == {}
    with pytest.raises(LakeError, match="SESSIONS_PIPELINE_DATA_ROOT elsewhere"):
        Lake.open("/proc/no/such/lake", query={}).check_writable()
