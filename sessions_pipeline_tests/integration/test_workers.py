"""Backfills by worker processes write the same lake as a single process, and leave no process behind when one dies."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from sessions_pipeline.days import days_between
from sessions_pipeline.errors import LakeError, WorkerLostError
from sessions_pipeline.lake import Lake
from sessions_pipeline.orchestration.assets import DAILY_TABLES
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.process_day import DayResult
from sessions_pipeline.workers import BACKFILL_DAYS, Workers, processes_for, workers_for
from sessions_pipeline_tests.ctrl_c import accepting_ctrl_c
from sessions_pipeline_tests.faulty_server import running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import NOW, TODAY, contents, settings_for
from sessions_pipeline_tests.integration.worker_tasks import die, double, metadata, who

FIRST = TODAY - timedelta(days=BACKFILL_DAYS)


@pytest.fixture(params=[0, 2], ids=["thread", "processes"])
def crew(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workers]:
    with workers_for(request.param, Lake.open(str(tmp_path), query={}), str(tmp_path), {}) as started:
        yield started


def test_a_broken_file_is_named_from_wherever_it_is_found(crew: Workers, tmp_path: Path) -> None:
    file = tmp_path / f"raw_sessions/start_date={TODAY}/raw_sessions.parquet"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"broken")
    with pytest.raises(LakeError, match=rf"^{file}: not a readable Parquet file"):
        crew.run(metadata, [(TODAY,)], print)


def test_results_come_in_the_order_of_the_tasks(crew: Workers) -> None:
    given = list[int]()
    crew.run(double, zip(range(50)), given.append)
    assert given == [2 * number for number in range(50)]


def test_after_a_failure_started_tasks_still_give_results_and_no_new_ones_are_started(crew: Workers) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[tuple[int]]:
        for number in [1, 2, -3, *range(4, 100)]:
            taken.append(number)
            yield (number,)

    given: list[int] = []
    with pytest.raises(LakeError, match="-3 is too small"):
        crew.run(double, tasks(), given.append)
    assert given[:2] == [2, 4]
    assert len(taken) < 12
    assert given[2:] == [2 * number for number in taken[3:]]


def test_an_error_of_the_iterator_of_tasks_is_raised_after_the_results_before_it(crew: Workers) -> None:
    def tasks() -> Iterator[tuple[int]]:
        yield (1,)
        raise LakeError("no more")

    given: list[int] = []
    with pytest.raises(LakeError, match="no more"):
        crew.run(double, tasks(), given.append)
    assert given == [2]


def test_however_many_signals_come_what_was_begun_gives_its_result_once_and_the_rest_is_canceled() -> None:
    """As by Ctrl-C, or by Terminate in the UI: a day that is being written would otherwise be in no record."""
    handled, begun, given = threading.Event(), list[int](), list[int]()

    class Interrupt(BaseException):
        """Like `KeyboardInterrupt`, which would end pytest if it were not caught."""

    def interrupt(*_: object) -> None:
        handled.set()
        raise Interrupt

    def send_signals() -> None:
        for _ in range(3):
            handled.clear()
            # Again, because a signal that comes right before a thread begins to wait does not wake it.
            while not handled.wait(0.1):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def work(number: int) -> int:
        begun.append(number)
        if number == 1:
            send_signals()
        return 2 * number

    def on_result(result: int) -> None:
        send_signals()
        given.append(result)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with ThreadPoolExecutor(1) as executor, pytest.raises(Interrupt):
            Workers(executor, lambda _work, number: work(number), ahead=2).run(double, zip(range(1, 9)), on_result)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert given == [2 * number for number in begun]
    assert len(begun) < 3


def test_of_results_that_cannot_be_passed_on_the_first_is_the_error_and_few_are_tried() -> None:
    may_end, given = threading.Event(), list[int]()

    def tasks() -> Iterator[tuple[int]]:
        yield from zip(range(3))
        may_end.set()
        yield (3,)

    def work(number: int) -> int:
        assert may_end.wait(30)
        return number

    def on_result(number: int) -> None:
        given.append(number)
        raise OSError(f"{number} is too much")

    with ThreadPoolExecutor(1) as executor, pytest.raises(OSError, match="0 is too much"):
        Workers(executor, lambda _work, number: work(number), ahead=3).run(double, tasks(), on_result)
    assert given == [0, 1]


def test_a_machine_on_which_no_thread_can_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with ThreadPoolExecutor(1) as executor:
        executor.submit(int).result()
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            Workers(executor, lambda _work, number: number, ahead=1).run(double, zip(range(3)), print)


def test_a_killed_worker_is_one_clear_error(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path), query={})
    with (
        workers_for(2, lake, str(tmp_path), {}) as crew,
        pytest.raises(WorkerLostError, match="memory ran out; days already written stay, run the others again"),
    ):
        crew.run(die, zip(range(9)), print)


def test_a_worker_that_is_killed_while_the_next_task_is_awaited_is_the_same_error() -> None:
    class Broken(ThreadPoolExecutor):
        """Like a pool of processes, it takes no task once it has noticed that one is gone."""

        def submit(self, call: Any, /, *given: Any, **named: Any) -> Any:
            if given[-1] == 2:
                raise BrokenProcessPool
            return super().submit(call, *given, **named)

    results = list[int]()
    with Broken(1) as executor, pytest.raises(WorkerLostError, match="days already written stay"):
        Workers(executor, lambda _work, number: 2 * number, ahead=3).run(double, zip(range(9)), results.append)
    assert results == [0, 2]


def test_a_lake_that_workers_cannot_open_is_one_clear_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lake = Lake.open(str(tmp_path), query={})
    lake.write_file("_lake.json", b'{"layout": 99, "query": {}}')
    with workers_for(2, lake, str(tmp_path), {}) as crew, pytest.raises(LakeError, match="layout 99"):
        crew.run(double, zip(range(9)), print)
    assert capfd.readouterr().err == ""


def test_tasks_run_in_this_process_or_in_workers(crew: Workers, request: pytest.FixtureRequest) -> None:
    pids = set[int]()
    crew.run(who, zip(range(4)), pids.add)
    assert (pids == {os.getpid()}) is (request.node.callspec.params["crew"] == 0)


@pytest.mark.parametrize(
    ("days", "most", "processes"),
    [(BACKFILL_DAYS - 1, 4, 0), (BACKFILL_DAYS, 4, 4), (365, 64, 4), (365, 2, 2), (365, 1, 0)],
)
def test_a_backfill_uses_at_most_four_worker_processes_and_a_refresh_none(days: int, most: int, processes: int) -> None:
    assert processes_for(days, most) == processes


def test_a_process_that_may_have_no_children_processes_the_days_itself() -> None:
    with get_context("fork").Pool(1) as pool:
        assert pool.apply(processes_for, (365, 4)) == 0


def test_a_backfill_by_processes_gives_the_same_lake_as_by_one_thread(tmp_path: Path) -> None:
    with running_sandbox(now=NOW, is_drawn=True) as sandbox:
        for name, processes in (("one", 1), ("several", 3), ("several", 3)):
            pipeline = Pipeline(settings_for(sandbox.url, tmp_path / name), processes=processes)
            days = days_between(FIRST, TODAY)
            results = list[DayResult]()
            pipeline.process(days, list(DAILY_TABLES), print, results.append)
            assert len(results) == len(days) + 1
    assert contents(tmp_path / "one") == contents(tmp_path / "several")


ORPHAN = """
import sys
from sessions_pipeline.lake import Lake
from sessions_pipeline import workers
from sessions_pipeline_tests.integration.worker_tasks import who

with workers.workers_for(3, Lake.open(sys.argv[1], query={}), sys.argv[1], {}) as crew:
    pids = set()
    crew.run(who, zip(range(40)), pids.add)
    print(*pids, flush=True)
    sys.stdin.read()
"""


def test_no_worker_outlives_a_run_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ORPHAN, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline().split()
        run.kill()
        # The workers share the run's output, which ends when the last of them has.
        run.communicate(timeout=30)


LOST = """
import os, signal, sys
from sessions_pipeline.errors import WorkerLostError
from sessions_pipeline.lake import Lake
from sessions_pipeline import workers
from sessions_pipeline_tests.integration.worker_tasks import who

signal.signal(signal.SIGTERM, signal.SIG_IGN)
for number in range(3):
    try:
        with workers.workers_for(4, Lake.open(sys.argv[1], query={}), sys.argv[1], {}) as crew:
            pids = set()
            while len(pids) < 4:
                crew.run(who, zip(range(9)), pids.add)
            # The one that waits for a task has a lock that the others wait for. It is hardly ever the one left alive.
            for pid in sorted(pids)[:-1]:
                os.kill(pid, signal.SIGKILL)
            # The one left alive may do some tasks before the others are missed.
            while True:
                crew.run(who, [(number,)], str)
    except WorkerLostError:
        print("lost")
"""


def test_a_run_that_lost_a_worker_ends_even_if_it_was_started_with_sigterm_ignored(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOST, str(tmp_path)]
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True).stdout == "lost\n" * 3


def test_starting_workers_is_not_interrupted_by_ctrl_c() -> None:
    prepare = "from sessions_pipeline import workers; workers.prepare(2)"
    wait = "import sys; print('ready', flush=True); sys.stdin.read()"
    command = accepting_ctrl_c(sys.executable, "-c", f"{prepare}; {wait}")
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
    # Only the main process reports the interrupt, because here no command line catches it.
    assert said.count("KeyboardInterrupt") == 1
    assert "forkserver.py" not in said


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the threads of libraries")
def test_arrow_starts_no_thread_beside_which_python_warns_of_forks() -> None:
    names = "print(*(file.read_text() for file in pathlib.Path('/proc/self/task').glob('*/comm')))"
    program = f"import pathlib; from sessions_pipeline import workers; workers.prepare(0); import pyarrow; {names}"
    threads = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "python" in threads
    assert "jemalloc" not in threads
