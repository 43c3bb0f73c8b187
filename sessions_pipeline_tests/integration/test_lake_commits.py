"""Runs that write at the same time: a day replaces only the version that its writer saw, and never goes back."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessions_pipeline.errors import BrokenError, LakeBusyError, LakeConflictError, LakeError
from sessions_pipeline.lake import Lake, commits
from sessions_pipeline.lake.layout import MARKER, UNDATED, Day
from sessions_pipeline.lake.local import LocalStore
from sessions_pipeline.lake.s3 import S3Store
from sessions_pipeline.lake.store import ANY, Expected, conflict, store_at
from sessions_pipeline.process_day import process_day
from sessions_pipeline.tables import (
    RAW_SESSIONS,
    REFERENCE_DATASETS,
    REJECTED_SESSIONS,
    SESSIONS,
    WEEKLY_COST_BY_REFERENCE_DATASET,
)
from sessions_pipeline_tests.days import OPTIONS, fetched
from sessions_pipeline_tests.integration.pipeline_runs import DataRoot, also_in_a_bucket
from sessions_pipeline_tests.integration.s3_server import S3Server
from sessions_pipeline_tests.lake_rows import DAY, CountingStore, raw, replace_derived, rows


@pytest.fixture
def anywhere(data_root: DataRoot) -> Lake:
    return Lake.open(str(data_root), query={})


def payloads(lake: Lake, day: Day = DAY) -> list[str]:
    return lake.read(RAW_SESSIONS, day, ["payload"])["payload"].to_pylist()


@also_in_a_bucket
def test_a_day_is_put_only_over_the_version_that_was_seen(anywhere: Lake):
    assert anywhere.versions(RAW_SESSIONS, [DAY])[DAY] is None
    anywhere.replace(RAW_SESSIONS, DAY, raw("1"), {}, expected=None)
    seen = anywhere.versions(RAW_SESSIONS, [DAY])[DAY]
    assert seen is not None
    with pytest.raises(LakeConflictError, match=r"raw_sessions\.parquet: another run has changed it in") as caught:
        anywhere.replace(RAW_SESSIONS, DAY, raw("2"), {}, expected=None)
    assert isinstance(caught.value, LakeError)
    anywhere.replace(RAW_SESSIONS, DAY, raw("3"), {}, expected=seen)
    with pytest.raises(LakeConflictError):
        anywhere.replace(RAW_SESSIONS, DAY, raw("4"), {}, expected=seen)
    assert payloads(anywhere) == ["3"]
    anywhere.replace(RAW_SESSIONS, DAY, raw("5"), {}, expected=ANY)
    with pytest.raises(LakeConflictError):
        anywhere.replace(RAW_SESSIONS, DAY + timedelta(1), raw("6"), {}, expected=seen)
    assert payloads(anywhere) == ["5"]
    assert not anywhere.has(RAW_SESSIONS, DAY + timedelta(1))


@also_in_a_bucket
def test_rows_metadata_and_version_come_from_opening_the_file_once(data_root: DataRoot):
    store = CountingStore(store_at(str(data_root)))
    lake = Lake.open(store, query={})
    assert lake.load(RAW_SESSIONS, DAY) is None
    lake.replace(RAW_SESSIONS, DAY, raw("1", "2"), {"commit": "7"})
    store.opened.clear()
    store.calls.clear()
    found = lake.load(RAW_SESSIONS, DAY)
    assert store.calls == {"open": 1}
    assert store.opened == {"raw_sessions/start_date=2025-01-31/raw_sessions.parquet": 1}
    assert found is not None
    assert (found.metadata, found.version) == ({"commit": "7"}, lake.versions(RAW_SESSIONS, [DAY])[DAY])
    assert found.rows.equals(raw("1", "2"))
    some = lake.load(RAW_SESSIONS, DAY, ["payload"])
    assert some is not None
    assert some.rows.to_pydict() == {"payload": ["1", "2"]}


@also_in_a_bucket
def test_a_version_differs_after_each_write_and_not_without_one(anywhere: Lake):
    seen = []
    for number in range(20):
        # The files have the same size, and may have the same time, so the version can't depend on these.
        anywhere.replace(RAW_SESSIONS, DAY, raw(f"{number:03}"), {})
        seen += [anywhere.versions(RAW_SESSIONS, [DAY])[DAY], anywhere.versions(RAW_SESSIONS, [DAY])[DAY]]
    assert seen[::2] == seen[1::2]
    assert len(set(seen)) == 20


@also_in_a_bucket
def test_versions_of_many_days_are_those_of_each(data_root: DataRoot):
    lake = Lake.open(str(data_root), query={})
    days: list[Day] = [DAY + timedelta(number) for number in range(4)]
    for day in (*days[:2], UNDATED):
        lake.replace(RAW_SESSIONS, day, raw("{}"), {})
    lake.replace(WEEKLY_COST_BY_REFERENCE_DATASET, None, WEEKLY_COST_BY_REFERENCE_DATASET.schema.empty_table(), {})
    asked = [*days, UNDATED, DAY - timedelta(1)]
    assert lake.versions(RAW_SESSIONS, asked) == {day: lake.versions(RAW_SESSIONS, [day])[day] for day in asked}
    assert [day for day in asked if lake.has(RAW_SESSIONS, day)] == [*days[:2], UNDATED]
    assert lake.versions(WEEKLY_COST_BY_REFERENCE_DATASET, [None])[None] is not None
    assert lake.versions(RAW_SESSIONS, []) == {}


class Listing(S3Store):
    """Counts the objects of each listing."""

    listed: ClassVar[list[int]] = []

    def listing(self, table: str, *, after: str | None = None) -> dict[str, str | None]:
        found = super().listing(table, after=after)
        self.listed.append(len(found))
        return found


def test_in_a_bucket_versions_of_many_days_cost_one_listing_without_earlier_days(bucket: str, server: S3Server):
    lake = Lake.open(Listing(bucket), query={})
    days = [DAY + timedelta(number) for number in range(5)]
    for day in days:
        lake.replace(SESSIONS, day, SESSIONS.schema.empty_table(), {})
    server.fail()
    Listing.listed.clear()
    assert None not in lake.versions(SESSIONS, days[3:]).values()
    assert (len(server.requests), Listing.listed) == (1, [2])


def derived(commit: int) -> pa.Table:
    return rows(REJECTED_SESSIONS, 1, payload=[str(commit)])


def made_from(lake: Lake, day: Day = DAY) -> int:
    found = lake.load(REJECTED_SESSIONS, day)
    assert found is not None
    assert found.rows["payload"].to_pylist() == [found.metadata["commit"]]
    return int(found.metadata["commit"])


@given(numbers=st.lists(st.integers(0, 20), min_size=1, max_size=12))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_derived_file_never_goes_back_to_an_earlier_commit(tmp_path_factory, numbers: list[int]):
    lake = Lake.open(str(tmp_path_factory.mktemp("lake")), query={})
    lake.replace(RAW_SESSIONS, DAY, raw(), {"commit": "20"})
    latest = -1
    for commit in numbers:
        written = replace_derived(lake, REJECTED_SESSIONS, derived(commit), {"a": "b"}, commit=commit)
        assert (written is None) is (commit < latest)
        latest = max(latest, commit)
        assert made_from(lake) == latest
        assert lake.metadata(REJECTED_SESSIONS, DAY)["a"] == "b"


@also_in_a_bucket
def test_when_many_runs_write_a_derived_file_at_once_that_of_the_latest_commit_stays(data_root: DataRoot):
    lakes = [Lake.open(str(data_root), query={}) for _ in range(4)]
    lakes[0].replace(RAW_SESSIONS, DAY, raw(), {"commit": "40"})
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            if lakes[0].has(REJECTED_SESSIONS, DAY):
                seen.append(made_from(lakes[0]))

    def work(number: int) -> None:
        for commit in range(number, 40, 4):
            replace_derived(lakes[number], REJECTED_SESSIONS, derived(commit), {}, commit=commit)

    with ThreadPoolExecutor(5) as runs:
        watching = runs.submit(watch)
        list(runs.map(work, range(4)))
        done.set()
        watching.result()
    assert made_from(lakes[0]) == 39
    assert seen == sorted(seen)


class OneAhead(CountingStore):
    """Lets another run write the file once, just before this store's put."""

    def __init__(self, root: str, commit: int) -> None:
        super().__init__(store_at(root))
        self.root, self.commit = root, commit

    def put(self, key: str, data: bytes | pa.Buffer, expected: Expected = ANY) -> None:
        if key.startswith(REJECTED_SESSIONS.name) and self.commit:
            commit, self.commit = self.commit, 0
            replace_derived(Lake.open(self.root, query={}), REJECTED_SESSIONS, derived(commit), {}, commit=commit)
        super().put(key, data, expected)


@pytest.mark.parametrize(("quicker", "latest"), [(3, 5), (9, 9)])
def test_in_a_bucket_a_write_between_our_read_and_our_put_is_noticed(bucket: str, quicker: int, latest: int):
    lake = Lake.open(OneAhead(bucket, quicker), query={})
    lake.replace(RAW_SESSIONS, DAY, raw(), {"commit": "9"})
    written = replace_derived(lake, REJECTED_SESSIONS, derived(5), {}, commit=5)
    assert (written is None) is (quicker > 5)
    assert made_from(Lake.open(bucket, query={})) == latest


class Refusing(LocalStore):
    """Takes the marker, and then refuses every put, as a gateway does that changes the versions it tells."""

    def put(self, key: str, data: bytes | pa.Buffer, expected: Expected = ANY) -> None:
        if key != MARKER or expected is not None:
            raise conflict(self.uri(key))
        super().put(key, data, expected)


@pytest.mark.parametrize(
    "write",
    [
        lambda lake: commits.update_table(lake, RAW_SESSIONS, DAY, lambda *_: (raw(), {})),
        lambda lake: lake.update_file("a", lambda _: b""),
        lambda lake: process_day(lake, DAY, [fetched(day=DAY)], options=OPTIONS),
    ],
)
def test_a_store_that_refuses_every_put_ends_the_run_in_one_line(tmp_path: Path, write: Callable[[Lake], object]):
    Lake.open(str(tmp_path), query={}).replace(RAW_SESSIONS, DAY, raw(), {"commit": "1", "readings": "[]"})
    with pytest.raises(LakeConflictError, match=r"another run has changed it in the meantime; run this one again$"):
        write(Lake.open(Refusing(tmp_path), query={}))


def test_an_unreadable_file_is_made_again_unless_only_the_api_could_fill_it(tmp_path: Path):
    lake = Lake.open(str(tmp_path), query={})
    for table in (WEEKLY_COST_BY_REFERENCE_DATASET, REFERENCE_DATASETS):
        lake.write_file(f"{table.name}/{table.name}.parquet", b"broken")
    commits.update_table(lake, WEEKLY_COST_BY_REFERENCE_DATASET, None, lambda rows, _file: (rows, {}))
    assert lake.read(WEEKLY_COST_BY_REFERENCE_DATASET, None).num_rows == 0
    with pytest.raises(BrokenError):
        commits.update_table(lake, REFERENCE_DATASETS, None, lambda rows, _file: (rows, {}))


COMMIT_MANY = """
import sys
from sessions_pipeline.errors import LakeConflictError
from sessions_pipeline.lake import commits
from sessions_pipeline.lake import Lake
from sessions_pipeline.tables import RAW_SESSIONS
from sessions_pipeline_tests.lake_rows import DAY, raw

root, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
lake, conflicts, written = Lake.open(root, query={}), 0, 0
print("ready", flush=True)
input()
while written < count:
    found = lake.load(RAW_SESSIONS, DAY)
    payloads = found.rows["payload"].to_pylist() if found else []
    try:
        rows = raw(*payloads, f"{name}-{written}")
        lake.replace(RAW_SESSIONS, DAY, rows, {}, expected=found.version if found else None)
        written += 1
    except LakeConflictError:
        conflicts += 1
print(conflicts)
"""


@also_in_a_bucket
def test_two_processes_that_commit_the_same_day_do_not_undo_each_other(data_root: DataRoot):
    command = [sys.executable, "-c", COMMIT_MANY, str(data_root)]
    processes = [
        subprocess.Popen([*command, name, "20"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in ("one", "other")
    ]
    conflicts = 0
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        conflicts += int(process.communicate(timeout=120)[0])
        assert process.returncode == 0
    kept = payloads(Lake.open(str(data_root), query={}))
    for name in ("one", "other"):
        assert [payload for payload in kept if payload.startswith(f"{name}-")] == [f"{name}-{n}" for n in range(20)]
    assert len(kept) == 40
    assert conflicts >= 1


@also_in_a_bucket
def test_one_of_two_writers_that_saw_the_same_version_gets_the_conflict(data_root: DataRoot):
    lakes = [Lake.open(str(data_root), query={}) for _ in range(2)]
    lakes[0].replace(RAW_SESSIONS, DAY, raw("former"), {})
    seen = lakes[0].versions(RAW_SESSIONS, [DAY])[DAY]
    barrier = threading.Barrier(2)

    def put(number: int) -> bool:
        barrier.wait()
        try:
            lakes[number].replace(RAW_SESSIONS, DAY, raw(str(number)), {}, expected=seen)
        except LakeConflictError:
            return False
        return True

    with ThreadPoolExecutor(2) as runs:
        was_put = list(runs.map(put, range(2)))
    assert sorted(was_put) == [False, True]
    assert payloads(lakes[0]) == [str(was_put.index(True))]


HOLD = """
import sys
from sessions_pipeline.lake import commits
from sessions_pipeline.lake import Lake
from sessions_pipeline_tests.lake_rows import DAY
with Lake.open(sys.argv[1], query={}).lock(DAY):
    print("held", flush=True)
    input()
"""


@contextmanager
def holding(root: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_day_is_locked_for_other_processes_and_other_days_are_not(tmp_path: Path):
    lake = Lake.open(LocalStore(tmp_path, lock_timeout=0.1), query={})
    with holding(tmp_path):
        with pytest.raises(LakeBusyError, match=rf"^{tmp_path}/_locks/2025-01-31.lock: .* over 0.1 s; check"):
            lake.replace(RAW_SESSIONS, DAY, raw("{}"), {})
        assert not lake.has(RAW_SESSIONS, DAY)
        for day in (DAY + timedelta(1), UNDATED):
            lake.replace(RAW_SESSIONS, day, raw("{}"), {})


def test_a_lock_is_free_when_its_process_was_killed(tmp_path: Path):
    lake = Lake.open(LocalStore(tmp_path, lock_timeout=20), query={})
    with holding(tmp_path) as process:
        process.kill()
        process.wait()
        lake.replace(RAW_SESSIONS, DAY, raw("{}"), {})


def test_a_lock_excludes_other_threads_and_can_be_re_entered_by_its_own(tmp_path: Path):
    lake, other = (Lake.open(LocalStore(tmp_path, lock_timeout=0.1), query={}) for _ in range(2))

    def is_free(day: date) -> bool:
        try:
            with other.lock(day):
                return True
        except LakeBusyError:
            return False

    with ThreadPoolExecutor(1) as elsewhere:
        with lake.lock(DAY), other.lock(DAY):
            lake.replace(RAW_SESSIONS, DAY, raw("{}"), {})
            assert not elsewhere.submit(is_free, DAY).result()
            assert elsewhere.submit(is_free, DAY + timedelta(1)).result()
        assert elsewhere.submit(is_free, DAY).result()


@pytest.mark.parametrize("kind", ["deaf", "refusing"])
def test_a_store_without_conditional_puts_is_refused_in_one_line(bucket: str, server: S3Server, kind: str):
    server.fail(kind=kind)
    said = {
        "deaf": r"ignores conditional writes \(If-None-Match, If-Match\), so two runs could overwrite each other's",
        "refusing": r"501 NotImplemented: the store lacks conditional writes \(If-None-Match, If-Match\); choose one",
    }
    for _ in range(2):
        with pytest.raises(LakeError, match=rf"^{bucket}/_lake.json: .*{said[kind]}") as caught:
            Lake.open(bucket, query={}).replace(RAW_SESSIONS, DAY, raw("{}"), {})
        assert "\n" not in str(caught.value)
    server.fail()
    lake = Lake.open(bucket, query={})
    assert not lake.has(RAW_SESSIONS, DAY)
    lake.replace(RAW_SESSIONS, DAY, raw("{}"), {})
    assert json.loads(lake.read_file("_lake.json")).items() >= {"layout": 2, "query": {}}.items()


@pytest.mark.parametrize("expected", [None, "seen"])
def test_a_put_whose_answer_is_lost_does_not_conflict_with_itself(bucket: str, server: S3Server, expected: str | None):
    lake = Lake.open(bucket, query={})
    lake.write_file("a", b"")
    if expected:
        lake.replace(RAW_SESSIONS, DAY, raw("former"), {})
        expected = lake.versions(RAW_SESSIONS, [DAY])[DAY]
    server.fail("lost answer")
    lake.replace(RAW_SESSIONS, DAY, raw("new"), {}, expected=expected)
    assert server.faults == []
    assert payloads(lake) == ["new"]


@also_in_a_bucket
def test_a_refused_put_leaves_no_file(anywhere: Lake, data_root: DataRoot):
    anywhere.replace(RAW_SESSIONS, DAY, raw("1"), {})
    with pytest.raises(LakeConflictError):
        anywhere.replace(RAW_SESSIONS, DAY, raw("2"), {}, expected=None)
    if isinstance(data_root, Path):
        assert list((data_root / "_tmp").iterdir()) == []


@also_in_a_bucket
def test_writers_that_change_another_file_at_once_do_not_undo_each_other(data_root: DataRoot):
    lakes = [Lake.open(str(data_root), query={}) for _ in range(4)]
    lakes[0].write_file("_readings/begun", b"")

    def add(number: int) -> None:
        lakes[number % 4].update_file("_readings/notes", lambda stored: (stored or b"") + bytes([number]))

    with ThreadPoolExecutor(4) as runs:
        list(runs.map(add, range(12)))
    assert sorted(lakes[0].read_file("_readings/notes")) == list(range(12))
