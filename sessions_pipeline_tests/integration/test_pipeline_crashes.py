"""After `kill -9` of a run, two runs at once, an interrupt or a full disk, a day is old or new, never a part."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from sessions_pipeline.errors import LakeError
from sessions_pipeline.orchestration import ensure_dagster_yaml
from sessions_pipeline.workers import BACKFILL_DAYS
from sessions_pipeline_tests.ctrl_c import accepting_ctrl_c
from sessions_pipeline_tests.faulty_server import Fault, Sandbox, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import (
    FIRST,
    NOW,
    TODAY,
    Bucket,
    DataRoot,
    contents,
    copy,
    failing_in_one_line,
    files,
    read,
    record,
    run_days,
    settings_for,
    some_records,
    stray,
)
from sessions_pipeline_tests.scripts import COMMAND

COUNT = 150


def environment(sandbox: Sandbox, root: DataRoot) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LANG", "SESSIONS_", "DAGSTER"))}
    return {
        **kept,
        "LANGSMITH_API_KEY": sandbox.key,
        "LANGSMITH_ENDPOINT": sandbox.url,
        "SESSIONS_PIPELINE_DATA_ROOT": str(root),
        "SESSIONS_PIPELINE_PAGE_SIZE": "20",
    }


@contextmanager
def run_process(sandbox: Sandbox, root: DataRoot, *, days: int = 3, **more: str) -> Iterator[subprocess.Popen[str]]:
    first = TODAY - timedelta(days=days - 1)
    with subprocess.Popen(
        accepting_ctrl_c(COMMAND, "materialize", "--from", str(first), "--to", str(TODAY)),
        env={**environment(sandbox, root), **more},
        start_new_session=True,
        cwd=tempfile.gettempdir(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(process: subprocess.Popen[str], condition: Callable[[], bool], what: str) -> None:
    """Wait for something that a running process does. If it takes a minute, or the process ends, the test fails."""
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within a minute")
        with suppress(subprocess.TimeoutExpired):
            pytest.fail(f"{what}: the process ended before, with status {process.wait(timeout=0.05)}")


def runs_in_forks() -> None:
    """For every line of input (an address and a folder), fork a run and print its id; at the next line, its status.

    Forks of a process that has imported everything already, so that kills hit the run and not Python's start.
    """
    while line := sys.stdin.readline():
        url, root = line.split()
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            run_days(settings_for(url, Bucket(root), SESSIONS_PIPELINE_PAGE_SIZE=20), FIRST, TODAY)
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        # The process id stays reserved until this wait, so that no other process can be killed by mistake.
        sys.stdin.readline()
        sys.stdout.write(f"{os.waitpid(child, 0)[1]}\n")
        sys.stdout.flush()


@pytest.mark.parametrize(
    ("data_root", "kills"),
    [
        ("folder", 3),
        pytest.param("folder", 100, marks=pytest.mark.long),
        pytest.param("s3", 30, marks=pytest.mark.long),
    ],
    indirect=["data_root"],
)
def test_a_rerun_after_kill_9_at_a_random_moment_equals_an_undisturbed_run(
    data_root: DataRoot, tmp_path: Path, kills: int
) -> None:
    former, root = tmp_path / "former", data_root
    moments = random.Random(20260320)
    with running_sandbox(texts=some_records(COUNT), now=NOW) as sandbox:
        read(sandbox, former)
        sandbox.api.data.texts = some_records(COUNT + 50, total_cost="2.50")  # type: ignore[attr-defined]
        shutil.copytree(former, tmp_path / "undisturbed")
        started = time.monotonic()
        run_days(settings_for(sandbox.url, tmp_path / "undisturbed"), FIRST, TODAY)
        seconds = time.monotonic() - started
        old, new = contents(former), contents(tmp_path / "undisturbed")
        killed = 0
        program = f"from {__name__} import runs_in_forks as f; f()"
        with subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as forks:
            assert forks.stdin is not None
            assert forks.stdout is not None
            for _ in range(kills):
                copy(former, root)
                forks.stdin.write(f"{sandbox.url} {root}\n")
                forks.stdin.flush()
                child = int(forks.stdout.readline())
                with pytest.raises(subprocess.TimeoutExpired):
                    forks.wait(timeout=moments.uniform(0.02, 0.8 * seconds))
                os.kill(child, signal.SIGKILL)
                forks.stdin.write("ended\n")
                forks.stdin.flush()
                killed += int(forks.stdout.readline()) == signal.SIGKILL
                check_every_day_is_old_or_new(root, old, new)
                read(sandbox, root)
                assert contents(root) == new
                assert stray(root) == []
    assert killed >= kills / 3


def check_every_day_is_old_or_new(
    root: DataRoot, old: Mapping[tuple[str, str], object], new: Mapping[tuple[str, str], object]
) -> None:
    for key, rows in contents(root).items():
        assert rows in (new[key], old.get(key)), key


def test_two_runs_at_once_leave_the_same_lake_as_one(data_root: DataRoot, tmp_path: Path) -> None:
    root = data_root
    with running_sandbox(texts=some_records(COUNT), now=NOW) as sandbox:
        sandbox.faults.add(Fault("latency", 0.05, times=None))
        with run_process(sandbox, root) as one, run_process(sandbox, root) as other:
            said = [process.communicate(timeout=60)[1] for process in (one, other)]
            assert [one.returncode, other.returncode] == [0, 0], said
        sandbox.faults.clear()
        read(sandbox, tmp_path / "undisturbed")
    assert contents(root) == contents(tmp_path / "undisturbed")
    assert stray(root) == []


@pytest.mark.parametrize(
    ("number", "days"),
    [
        (signal.SIGINT, 3),
        pytest.param(signal.SIGHUP, 3, marks=pytest.mark.long),
        (signal.SIGHUP, BACKFILL_DAYS),
    ],
)
def test_a_run_that_is_interrupted_or_whose_terminal_is_closed_ends_at_once_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, days: int
) -> None:
    """Its worker processes get the signal of the terminal, too. Dagster has the run as canceled."""
    root, home = tmp_path / "lake", tmp_path / "home"
    home.mkdir()
    ensure_dagster_yaml(str(home))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with (
        running_sandbox(texts=some_records(), now=NOW) as sandbox,
        dg.DagsterInstance.from_config(str(home)) as instance,
    ):
        assert instance.get_runs() == []  # creates the database, which two processes must not do at once
        sandbox.faults.add(Fault("latency", 30, times=None, after=3))
        with run_process(sandbox, root, days=days, DAGSTER_HOME=str(home)) as process:
            wait_until(process, lambda: len(sandbox.requests) >= 5, "five requests")
            started = [dg.DagsterRunStatus.STARTED]
            wait_until(process, lambda: [run.status for run in instance.get_runs()] == started, "the run's start")
            # Processes that Dagster has just started may print a traceback for SIGINT.
            (os.kill if number == signal.SIGINT else os.killpg)(process.pid, number)
            _, said = process.communicate(timeout=20)
            assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.CANCELED]
    assert process.returncode == 1
    assert "Traceback" not in said
    assert said.strip().splitlines()[-1] == "sessions-pipeline: stopped; no day was finished"
    assert stray(root) == []


def test_a_file_size_limit_is_one_line_and_the_former_tables_stay(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    with running_sandbox(texts=some_records(COUNT), now=NOW) as sandbox:
        settings = read(sandbox, root)
        before = files(root)
        sandbox.api.data.texts = some_records(COUNT, extra={"noise": random.Random(1).randbytes(40_000).hex()})  # type: ignore[attr-defined]
        former = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, former[1]))
        try:
            with failing_in_one_line(LakeError, "larger than this system allows"):
                run_days(settings, FIRST, TODAY)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, former)
            signal.signal(signal.SIGXFSZ, ignored)
    assert files(root) == before
    assert stray(root) == []


def noise(number: int) -> str:
    return random.Random(number).randbytes(5_000).hex()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_full_disk_is_one_line_and_the_former_tables_stay(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", disk], check=False)
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a small file system")
    try:
        root = disk / "lake"
        with running_sandbox(texts=some_records(COUNT), now=NOW) as sandbox:
            settings = read(sandbox, root)
            old = contents(root)
            sandbox.api.data.texts = [  # type: ignore[attr-defined]
                record(number, NOW - timedelta(minutes=10 * number), extra={"noise": noise(number)})
                for number in range(COUNT)
            ]
            with failing_in_one_line(LakeError, "the disk is full"):
                run_days(settings, FIRST, TODAY)
            assert stray(root) == []
            found = contents(root)
            run_days(settings_for(sandbox.url, tmp_path / "undisturbed"), FIRST, TODAY)
        new = contents(tmp_path / "undisturbed")
        # There may have been room for a day's raw rows and none for the derived tables, which then stay as they were.
        changed = [key for key in old if found[key] != old[key]]
        assert {table for table, _ in changed} <= {"raw_sessions"}
        for key in changed:
            payloads = [{row["payload"] for row in rows[key]} for rows in (old, new, found)]
            assert payloads[2] == payloads[0] | payloads[1]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_an_interrupt_in_code_run_from_a_string_has_the_usual_exit_status(tmp_path: Path) -> None:
    """In such code, Python ends `-m` programs by the signal although the interrupt was caught."""
    program = tmp_path / "interrupted.py"
    program.write_text(
        "import os, click\n"
        "from sessions_pipeline import cli\n"
        "text = 'os.kill(os.getpid(), 2)\\nfor _ in range(100_000): pass'\n"
        "cli.cli.add_command(click.Command('interrupted', callback=lambda: exec(text, {'os': os})))\n"
        "cli.main()\n"
    )
    command = accepting_ctrl_c(sys.executable, "-m", program.stem, "interrupted")
    path = {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    done = subprocess.run(command, env={**os.environ, **path}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (1, "sessions-pipeline: stopped")
