"""Backfills are shared out to processes: the same lake as from one, and nothing left behind when one of them dies."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from sessions_pipeline.errors import LakeError, SumOverflowError, WorkerLostError
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.orchestration import workers
from sessions_pipeline.orchestration.workers import BACKFILL_DAYS, Workers, workers_for
from sessions_pipeline.process_day import sum_costs
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET, SESSIONS
from sessions_pipeline_tests.builders import experiment, sessions_table
from sessions_pipeline_tests.faulty_server import running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import NOW, TODAY, contents, read

FIRST = TODAY - timedelta(days=BACKFILL_DAYS)


@pytest.fixture(params=[1, BACKFILL_DAYS], ids=["thread", "processes"])
def crew(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    monkeypatch.setattr(workers, "_cores", lambda: 2)
    with workers_for(request.param, Lake.open(str(tmp_path), query={}), str(tmp_path), {}) as started:
        yield started


def double(_lake: Lake, number: int) -> int:
    if number < 0:
        raise LakeError(f"{number} is too small")
    return 2 * number


def die(_lake: Lake, number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def who(_lake: Lake, _number: int) -> int:
    return os.getpid()


def test_results_come_in_the_order_of_the_tasks(crew: Workers) -> None:
    assert list(crew.each(double, range(50))) == [2 * number for number in range(50)]


def test_after_a_failure_what_was_begun_is_still_told_and_nothing_else_is_begun(crew: Workers) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for number in [1, 2, -3, *range(4, 100)]:
            taken.append(number)
            yield number

    given: list[int] = []
    with pytest.raises(LakeError, match="-3 is too small"):
        given.extend(crew.each(double, tasks()))
    assert given[:2] == [2, 4]
    assert len(taken) < 12
    assert given[2:] == [2 * number for number in taken[3:]]


def test_a_task_that_cannot_be_had_fails_after_the_results_before_it(crew: Workers) -> None:
    def tasks() -> Iterator[int]:
        yield 1
        raise LakeError("no more")

    given: list[int] = []
    with pytest.raises(LakeError, match="no more"):
        given.extend(crew.each(double, tasks()))
    assert given == [2]


def test_a_killed_worker_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_cores", lambda: 2)
    lake = Lake.open(str(tmp_path), query={})
    with (
        workers_for(BACKFILL_DAYS, lake, str(tmp_path), {}) as crew,
        pytest.raises(WorkerLostError, match="memory ran out; days already written stay, run the others again"),
    ):
        list(crew.each(die, range(9)))


def test_few_days_are_done_in_this_process_and_many_in_others(crew: Workers, request: pytest.FixtureRequest) -> None:
    is_here = set(crew.each(who, range(4))) == {os.getpid()}
    assert is_here is (request.node.callspec.params["crew"] == 1)


def test_a_backfill_by_processes_gives_the_same_lake_as_by_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_sandbox(now=NOW) as sandbox:
        monkeypatch.setattr(workers, "_cores", lambda: 1)
        read(sandbox, tmp_path / "one", FIRST, TODAY)
        monkeypatch.setattr(workers, "_cores", lambda: 3)
        read(sandbox, tmp_path / "several", FIRST, TODAY)
        read(sandbox, tmp_path / "several", FIRST, TODAY)
    assert contents(tmp_path / "one") == contents(tmp_path / "several")


def test_a_sum_that_does_not_fit_names_its_day_and_leaves_the_table_as_it_was(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path), query={})
    lake.replace(SESSIONS, TODAY, sessions_table(experiment(1, total_tokens=2**63 - 1)), {})
    sum_costs(lake, TODAY)
    before = lake.read(DAILY_COST_BY_REFERENCE_DATASET, TODAY)
    huge = [experiment(number, total_tokens=2**63 - 1) for number in (1, 2)]
    lake.replace(SESSIONS, TODAY, sessions_table(*huge), {})
    with pytest.raises(SumOverflowError, match=rf"^{TODAY}: total_tokens of .* 18446744073709551614, more than"):
        sum_costs(lake, TODAY)
    assert lake.read(DAILY_COST_BY_REFERENCE_DATASET, TODAY).equals(before)


ORPHAN = """
import sys, time
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.orchestration import workers
from sessions_pipeline_tests.integration.test_workers import who

workers._cores = lambda: 3
with workers.workers_for(99, Lake.open(sys.argv[1], query={}), sys.argv[1], {}) as crew:
    print(*set(crew.each(who, range(40))), flush=True)
    sys.stdin.read()
"""


def test_no_worker_outlives_a_run_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ORPHAN, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        processes = [int(number) for number in run.stdout.readline().split()]
        assert processes
        run.kill()
    end = time.monotonic() + 30
    while any(_is_alive(process) for process in processes) and time.monotonic() < end:
        os.sched_yield()
    assert not any(_is_alive(process) for process in processes)


def _is_alive(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def test_what_is_being_prepared_is_not_interrupted_by_ctrl_c() -> None:
    prepare = "from sessions_pipeline.orchestration import workers; workers._cores = lambda: 2; workers.prepare(99)"
    wait = "import sys; print('ready', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", f"{prepare}; {wait}"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        os.killpg(run.pid, signal.SIGINT)
        _, said = run.communicate()
    # Only this process itself, which has no command line around it, says that it was interrupted.
    assert said.count("KeyboardInterrupt") == 1
    assert "forkserver.py" not in said
