"""The command line on a real terminal, with a Dagster database that is down or locked, and while it serves the UI."""

import contextlib
import fcntl
import os
import pty
import re
import shlex
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

from sessions_pipeline.lake import Lake
from sessions_pipeline.orchestration import SHIPPED
from sessions_pipeline.tables import RAW_SESSIONS
from sessions_pipeline_tests.ctrl_c import accepting_ctrl_c
from sessions_pipeline_tests.end_to_end.deployment import REPOSITORY, free_port, wait_until
from sessions_pipeline_tests.faulty_server import running_sandbox
from sessions_pipeline_tests.scripts import COMMAND
from sessions_pipeline_tests.snippets import Snippet, each

COLUMNS = 80
TODAY = str(datetime.now(UTC).date())
RUN = ("materialize", "--from", TODAY, "--to", TODAY)
UNWANTED = (
    "Segmentation fault",
    "Traceback",
    "SupersessionWarning",
    "Found a dagster",
    "another terminal",
    "Error 130",
)
POSTGRES_DOWN = "storage:\n  postgres:\n    postgres_url: postgresql+psycopg2://user:hunter2@127.0.0.1:9/db\n"


def on_a_terminal(*arguments: str, folder: Path) -> tuple[int, str]:
    """Run a command on a terminal of 80 columns. Returns its exit status and everything that it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    with subprocess.Popen([COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder) as process:
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
    assert {"0", "1", "2"} <= set(bars), "the bar must move although Dagster redirects standard error"
    table = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in written.split("Dataset")[-1].split("\r\n")]
    assert max(len(line) for line in table if not line.startswith(("DuckDB", "Parquet", "Report", " "))) <= COLUMNS
    assert f"Parquet  {tmp_path}" in written
    assert f"Report   {tmp_path}" in written


def test_messages_are_wrapped_between_words(tmp_path: Path) -> None:
    status, written = on_a_terminal("export", "focus", "--month", "2026-01", "--output", "x" * 90, folder=tmp_path)
    assert status == 2
    assert f"{'x' * 90}:" in written.split(), "a path must stay whole, so that it can be copied"
    status, written = on_a_terminal("materialize", "--from", "soon", "--to", "never", folder=tmp_path)
    lines = written.split("\r\n")
    assert status == 2
    assert max(map(len, lines)) <= COLUMNS
    assert " ".join(written.split()) == (
        "sessions-pipeline: Invalid value for '--from': soon is not a day YYYY-MM-DD such as 2026-01-31 "
        "(see `sessions-pipeline materialize --help`)"
    )


@pytest.mark.parametrize("trouble", ["postgres down", "locked"])
def test_a_dagster_database_that_is_down_or_locked_is_an_error_of_one_line(trouble: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(POSTGRES_DOWN if trouble == "postgres down" else "telemetry: {enabled: false}\n")
    with running_sandbox() as sandbox:
        environment = {
            **os.environ,
            "LANGSMITH_API_KEY": sandbox.key,
            "LANGSMITH_ENDPOINT": sandbox.url,
            "DAGSTER_HOME": str(home),
        }

        def run() -> subprocess.CompletedProcess[str]:
            command = [COMMAND, *RUN]
            return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

        if trouble == "locked":
            assert run().returncode == 0
            with contextlib.closing(sqlite3.connect(home / "history" / "runs.db", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                result = run()
                other.rollback()
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
@each
def test_make_dev_prints_the_address_of_the_ui_and_all_its_processes_end_cleanly(
    snippet: Snippet, tmp_path: Path, stop: Callable[[int, int], None], number: signal.Signals
) -> None:
    checkout(tmp_path)
    home = tmp_path / "data" / "demo" / "_dagster"
    home.mkdir(parents=True)
    shutil.copy(SHIPPED, home)
    lake = Lake.open(str(home.parent), query={})
    lake.replace(RAW_SESSIONS, datetime.now(UTC).date(), RAW_SESSIONS.schema.empty_table(), {})
    port = free_port()
    line = command_on_port(snippet, port)
    output = output_of_ui(line, port, tmp_path, stop=lambda process: stop(process, number))
    assert output.startswith(f"Dagster UI: http://127.0.0.1:{port}\n")
    assert [text for text in UNWANTED if text in output] == []


@each
def test_the_ui_starts_as_the_docs_say(snippet: Snippet, tmp_path: Path) -> None:
    checkout(tmp_path)
    port = free_port()
    # Without sessions the sensor starts no runs. If Dagster is stopped while it starts one, it prints a traceback.
    with running_sandbox(texts=[]) as sandbox:
        api = {"LANGSMITH_API_KEY": sandbox.key, "LANGSMITH_ENDPOINT": sandbox.url}
        line = command_on_port(snippet, port)
        output = output_of_ui(line, port, tmp_path, stop=lambda process: os.killpg(process, signal.SIGTERM), **api)
    assert [text for text in UNWANTED if text in output] == []
    assert (tmp_path / ".dagster" / "dagster.yaml").read_text() == SHIPPED.read_text()


def checkout(folder: Path) -> None:
    """Make the folder look like a checkout to `make dev`, with this Python's environment as `.venv`."""
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "sessions_pipeline").symlink_to(REPOSITORY / "sessions_pipeline")


def command_on_port(snippet: Snippet, port: int) -> str:
    """The docs' command with this port. `make` is also given its file, and told not to rebuild `.venv`."""
    if not snippet.text.startswith("make "):
        return f"{snippet.text} --port {port}"
    makefile = shlex.quote(str(REPOSITORY / "Makefile"))
    return snippet.text.replace("make ", f"make -f {makefile} -o .venv/.runtime UI_PORT={port} ")


def output_of_ui(line: str, port: int, folder: Path, *, stop: Callable[[int], None], **variables: str) -> str:
    """Run a line that serves the UI on `port`, stop it when the UI is up, and return the output.

    Waits until all processes of the line are gone.
    """
    log = folder / "log"
    # Without the variables of a `make` that may run these tests.
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "DAGSTER_"))}
    alone["PATH"] = f"{Path(sys.executable).parent}:{alone['PATH']}"
    with log.open("w") as written:
        process = subprocess.Popen(
            accepting_ctrl_c("bash", "-c", f"exec env {line}"),
            cwd=folder,
            env=alone | variables,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(lambda: is_up(port), "the UI", log.read_text)
        stop(process.pid)
        # Dagster waits up to 60 s for each of its two processes before it kills them; that was needed once.
        process.wait(150)
        wait_until(lambda: not processes_of(process.pid), "the last process's end", log.read_text)
    finally:
        for left in processes_of(process.pid):
            os.kill(left, signal.SIGKILL)
        process.wait(10)
    return log.read_text()


def is_up(port: int) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/server_info").status_code == 200
    return False


def processes_of(session: int) -> list[int]:
    """The processes that were started on one terminal, in whichever group, without those that have ended."""
    found = list[int]()
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            # The fields after the program's name, which may have spaces: state, parent, group, session.
            state, _, _, of = file.read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found.append(int(file.parent.name))
    return found
