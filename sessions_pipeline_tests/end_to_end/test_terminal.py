"""The command line on a terminal, on a persistent Dagster instance, and beside a database that others hold."""

import contextlib
import fcntl
import os
import pty
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from sessions_pipeline.orchestration import SHIPPED
from sessions_pipeline_tests.ctrl_c import hearing_ctrl_c
from sessions_pipeline_tests.end_to_end.dagster_processes import end
from sessions_pipeline_tests.end_to_end.deployment import REPOSITORY, free_port, until
from sessions_pipeline_tests.faulty_server import running_sandbox

CLI = (sys.executable, "-m", "sessions_pipeline.cli")
COLUMNS = 80
TODAY = str(datetime.now(UTC).date())
RUN = ("materialize", "--from", TODAY, "--to", TODAY)
POSTGRES_AWAY = "storage:\n  postgres:\n    postgres_url: postgresql+psycopg2://user:hunter2@127.0.0.1:9/db\n"


def on_a_terminal(*arguments: str, folder: Path) -> tuple[int, str]:
    """Exit status and everything that a command wrote to a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    with subprocess.Popen([*CLI, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder) as process:
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 65_536):
                written += part
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    return process.returncode, written.decode()


def test_the_demo_shows_progress_and_a_table_that_fits_80_columns(tmp_path: Path) -> None:
    status, written = on_a_terminal("demo", "--days", "2", folder=tmp_path)
    assert status == 0
    first, second, *_ = written.split("\r\n")
    assert (first.partition(" on ")[0], second) == ("Sandbox API", "Loading Dagster ...")
    bars = re.findall(r"(\d+)/2", written)
    assert {"0", "1", "2"} <= set(bars), "the bar moves although Dagster redirects standard error"
    table = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in written.split("Dataset")[-1].split("\r\n")]
    assert max(len(line) for line in table if not line.startswith(("DuckDB", "Parquet", "Report", " "))) <= COLUMNS
    assert f"Parquet  {tmp_path}" in written
    assert f"Report   {tmp_path}" in written


def test_what_is_said_is_broken_between_words(tmp_path: Path) -> None:
    status, written = on_a_terminal("export", "focus", "--month", "2026-01", "--output", "x" * 90, folder=tmp_path)
    assert status == 2
    assert f"{'x' * 90}:" in written.split(), "what may be copied stays whole"
    status, written = on_a_terminal("materialize", "--from", "soon", "--to", "never", folder=tmp_path)
    lines = written.split("\r\n")
    assert status == 2
    assert max(map(len, lines)) <= COLUMNS
    assert " ".join(written.split()) == (
        "sessions-pipeline: Invalid value for '--from': soon is no day YYYY-MM-DD such as 2026-01-31 "
        "(see `sessions-pipeline materialize --help`)"
    )


@pytest.mark.parametrize("trouble", ["postgres away", "locked"])
def test_a_database_of_dagster_that_is_away_or_held_is_one_line(trouble: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(POSTGRES_AWAY if trouble == "postgres away" else "telemetry: {enabled: false}\n")
    with running_sandbox() as sandbox:
        environment = {
            **os.environ,
            "LANGSMITH_API_KEY": sandbox.key,
            "LANGSMITH_ENDPOINT": sandbox.url,
            "DAGSTER_HOME": str(home),
        }

        def run() -> subprocess.CompletedProcess[str]:
            command = [*CLI, *RUN]
            return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

        if trouble == "locked":
            assert run().returncode == 0
            with sqlite3.connect(home / "history" / "runs.db", isolation_level=None) as held:
                held.execute("BEGIN IMMEDIATE")
                result = run()
                held.rollback()
        else:
            result = run()
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "DAGSTER_HOME" in result.stderr
    assert "hunter2" not in result.stderr


@pytest.mark.parametrize(
    ("stop", "number"),
    [(os.killpg, signal.SIGINT), (os.killpg, signal.SIGTERM), (os.kill, signal.SIGTERM)],
    ids=["Ctrl-C", "TERM to all", "TERM to make alone"],
)
def test_make_dev_says_where_the_ui_is_and_ends_whole_and_cleanly(
    tmp_path: Path, stop: Callable[[int, int], None], number: signal.Signals
) -> None:
    home = tmp_path / "data" / "demo" / "_dagster"
    home.mkdir(parents=True)
    shutil.copy(SHIPPED, home)
    (home.parent / "budgets.toml").touch()
    (home.parent / "raw_sessions" / f"start_date={TODAY}").mkdir(parents=True)
    shutil.copy(REPOSITORY / "workspace.yaml", tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    port, log = free_port(), tmp_path / "log"
    ports = f"SANDBOX_PORT={free_port()}", f"UI_PORT={port}"
    make = ("make", "-f", str(REPOSITORY / "Makefile"), "-o", ".venv/.runtime", "dev", "SANDBOX=1", *ports)
    # By themselves, not as a part of the make that runs the tests.
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    with log.open("w") as written:
        process = subprocess.Popen(
            hearing_ctrl_c(*make),
            cwd=tmp_path,
            env=alone,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until(lambda: is_up(port), "the UI", log.read_text)
        stop(process.pid, number)
        process.wait(60)
        until(lambda: not is_there(process.pid), "the last process's end", log.read_text)
    finally:
        end(process, patience_seconds=0)
    said = log.read_text()
    assert said.startswith(f"Dagster UI: http://127.0.0.1:{port}\n")
    unwanted = ("Segmentation fault", "Traceback", "SupersessionWarning", "Found a dagster", "another terminal")
    assert [text for text in unwanted if text in said] == []


def is_up(port: int) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/server_info").status_code == 200
    return False


def is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
