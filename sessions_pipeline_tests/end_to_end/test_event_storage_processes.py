"""Processes that share the event storage: a watcher sees each event, and a new DAGSTER_HOME is created only once."""

import os
import queue
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from sessions_pipeline_tests.integration.test_event_storage import numbers, opened

WRITER = """
import sys
from sessions_pipeline.orchestration.event_storage import KeptStorage
from sessions_pipeline_tests.integration.test_event_storage import materialization
log = KeptStorage.from_local(sys.argv[1]).event_log_storage
print("ready", flush=True)
for line in sys.stdin:
    number, run_id = line.split()
    log.store_event(materialization(int(number), run_id))
    print(number, flush=True)
"""


@contextmanager
def writer(home: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that stores an event for each line of its standard input."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WRITER, str(home)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def send(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin
    process.stdin.write(line + "\n")
    process.stdin.flush()


def test_a_watcher_in_another_process_sees_each_event_while_the_run_goes_on(tmp_path: Path) -> None:
    seen: queue.Queue[int] = queue.Queue()
    with writer(tmp_path) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        send(process, "0 a-run")
        assert process.stdout.readline() == "0\n"
        with opened(tmp_path) as log:
            log.watch("a-run", None, lambda event, _cursor: seen.put(int(event.user_message)))
            for number in range(1, 6):
                send(process, f"{number} a-run")
                while seen.get(timeout=20) != number:
                    continue
            process.kill()  # the stored events must survive this
            process.wait()
            assert numbers(log) == list(range(6))


def test_processes_that_start_in_a_new_home_at_once_share_its_files(tmp_path: Path) -> None:
    with writer(tmp_path) as one, writer(tmp_path) as two:
        processes = (one, two)
        for number, process in enumerate(processes):
            for event in range(40):
                send(process, f"{100 * number + event} {'a-run' if event % 2 else process.pid}")
            assert process.stdin
            process.stdin.close()
        for process in processes:
            assert process.wait(60) == 0
        with opened(tmp_path) as log:
            assert numbers(log) == [100 * number + event for number in range(2) for event in range(1, 40, 2)]
            assert [len(numbers(log, str(process.pid))) for process in processes] == [20, 20]
            assert len(log.get_materialized_partitions(dg.AssetKey("sessions"))) == 28
