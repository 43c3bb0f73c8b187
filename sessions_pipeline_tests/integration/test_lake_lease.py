"""Promises of the lock in an object store: one holder, none for ever, and a store without conditional puts is told."""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest

from sessions_pipeline.errors import LakeBusyError, LakeError
from sessions_pipeline.lake import lease, s3
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline_tests.integration.s3_server import S3Server

DAY = date(2025, 1, 31)
LOCK = "_locks/2025-01.json"
HOLD = """
import sys
from datetime import date
from sessions_pipeline.lake import lease
from sessions_pipeline.lake.lake import Lake
lease.SECONDS = float(sys.argv[2])
with Lake.open(sys.argv[1], query={}).exclusive(days=[date(2025, 1, 31)]):
    print("held", flush=True)
    input()
"""


@pytest.fixture
def lake(bucket: str) -> Lake:
    return Lake.open(bucket, query={})


@contextmanager
def holding(root: str, seconds: float) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, root, str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def content(lake: Lake) -> dict[str, object]:
    return json.loads(lake.read_file(LOCK))


def test_another_process_is_waited_for_and_that_is_said_once(lake: Lake, bucket: str):
    with holding(bucket, 30) as process:
        with (
            pytest.raises(LakeBusyError, match=rf"^{bucket}: another run is still writing after 0 s; try again"),
            lake.exclusive(timeout=0, days=[DAY]),
        ):
            pass
        assert content(lake)["holder"]["process"] == process.pid
        said: list[str] = []
        assert process.stdin is not None
        answer = process.stdin

        def listen(line: str) -> None:
            said.append(line)
            answer.write("\n")
            answer.flush()

        with lake.exclusive(listen, days=[DAY]), Lake.open(bucket, query={}).exclusive(timeout=0, days=[DAY]):
            assert content(lake)["held"]
            lake.write_file("a", b"")
    assert said == [f"waiting for another run that is writing to {bucket}"]
    assert not content(lake)["held"]


def test_a_holder_that_was_killed_is_waited_for_until_its_lease_has_run_out(lake: Lake, bucket: str):
    with holding(bucket, 1.5) as process:
        process.kill()
        process.wait()
        with pytest.raises(LakeBusyError), lake.exclusive(timeout=0.7, days=[DAY]):
            pass
        with lake.exclusive(timeout=30, days=[DAY]):
            pass


def test_a_holder_that_lives_keeps_its_lock_as_long_as_it_needs(
    lake: Lake, bucket: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lease, "SECONDS", 0.5)
    with lake.exclusive(days=[DAY]), ThreadPoolExecutor(1) as elsewhere:

        def wait() -> None:
            with pytest.raises(LakeBusyError), Lake.open(bucket, query={}).exclusive(timeout=2, days=[DAY]):
                pass

        elsewhere.submit(wait).result()
        lake.write_file("a", b"mine")


def test_a_holder_that_stood_still_has_lost_its_lock_and_writes_nothing_more(
    lake: Lake, bucket: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lease, "SECONDS", 0.3)
    monkeypatch.setattr(lease.Lease, "_renew", lambda _: None)
    lake.write_file("a", b"former")
    standing, taken, done = threading.Event(), threading.Event(), threading.Event()

    def take_over() -> None:
        with Lake.open(bucket, query={}).exclusive(timeout=30, days=[DAY]):
            taken.set()
            done.wait(30)

    lost = "stood still so long that it has lost its lock; run it again"

    def stand_still() -> None:
        with lake.exclusive(days=[DAY]):
            standing.set()
            assert taken.wait(30)
            with pytest.raises(LakeBusyError, match=lost):
                lake.write_file("a", b"late")

    with ThreadPoolExecutor(2) as elsewhere:
        first = elsewhere.submit(stand_still)
        assert standing.wait(30)
        other = elsewhere.submit(take_over)
        with pytest.raises(LakeBusyError, match=lost):
            first.result()
        assert content(lake)["held"]
        done.set()
        other.result()
    assert lake.read_file("a") == b"former"
    assert not content(lake)["held"]


@pytest.mark.usefixtures("lake")
def test_of_many_runs_one_holds_it_at_a_time(bucket: str):
    counted = {"now": 0, "most": 0, "turns": 0}

    def work(_: int) -> None:
        mine = Lake.open(bucket, query={})
        for _turn in range(5):
            with mine.exclusive(timeout=60, days=[DAY]):
                counted["now"] += 1
                counted["most"] = max(counted["most"], counted["now"])
                mine.write_file("a", b"")
                counted["turns"] += 1
                counted["now"] -= 1

    with ThreadPoolExecutor(4) as runs:
        list(runs.map(work, range(4)))
    assert counted == {"now": 0, "most": 1, "turns": 20}


@pytest.mark.parametrize("fault", ["slow down", "reset", "lost answer"])
@pytest.mark.parametrize("number", range(5))
def test_a_passing_fault_at_any_request_costs_no_lock(lake: Lake, server: S3Server, fault: str, number: int):
    with lake.exclusive(days=[DAY]):
        pass
    server.fail(*[""] * number, fault)
    with lake.exclusive(timeout=0, days=[DAY]):
        assert content(lake)["held"]
    assert server.faults == []
    assert not content(lake)["held"]


def test_a_lock_that_may_not_be_written_is_one_line(lake: Lake, server: S3Server, bucket: str):
    with lake.exclusive(days=[DAY]):
        pass
    server.fail("", "denied")
    with (
        pytest.raises(LakeError, match=rf"^{bucket}/_locks/2025-01.json: 403 AccessDenied: "),
        lake.exclusive(days=[DAY]),
    ):
        pass


@pytest.mark.parametrize("kind", ["deaf", "refusing"])
def test_a_store_without_conditional_puts_is_told_once_and_runs_on_this_machine_keep_each_other_out(
    lake: Lake, server: S3Server, bucket: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server.fail(kind=kind)
    said: list[str] = []

    def try_elsewhere() -> None:
        with pytest.raises(LakeBusyError), Lake.open(bucket, query={}).exclusive(timeout=0, days=[DAY]):
            pass

    with lake.exclusive(said.append, days=[DAY]), ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(try_elsewhere).result()
    with lake.exclusive(said.append, days=[DAY]):
        pass
    assert said == [f"{bucket}: this store has no conditional puts, so write to it from one machine only"]
    assert s3._CONDITIONAL[bucket] is False
