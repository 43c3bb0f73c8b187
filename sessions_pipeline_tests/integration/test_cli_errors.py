"""Errors of the command line: one line, the right exit status, and nothing written."""

import errno
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, NamedTuple

import click
import dagster as dg
import pyarrow.parquet as pq
import pytest
import stamina

from sessions_pipeline import cli as package
from sessions_pipeline.cli import cli
from sessions_pipeline.errors import DeadlineExceededError, WorkerLostError
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.layout import MARKER
from sessions_pipeline.orchestration import SHIPPED, STORAGE, own_yaml
from sessions_pipeline.orchestration.event_storage import KeptEventLog
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.sandbox.company import OTHER_WORKSPACE, WORKSPACE
from sessions_pipeline.sandbox.listing import CompanyData
from sessions_pipeline.settings import DEMO
from sessions_pipeline.tables import (
    FROM_API,
    MONTHLY_COST_BY_REFERENCE_DATASET,
    RAW_SESSIONS,
    REFERENCE_DATASETS,
    TABLES,
    WEEKLY_COST_BY_REFERENCE_DATASET,
    Table,
)
from sessions_pipeline.tables.readings import Reading, dump_readings
from sessions_pipeline_tests.ctrl_c import accepting_ctrl_c
from sessions_pipeline_tests.faulty_server import Fault, Sandbox, running_sandbox
from sessions_pipeline_tests.full_disk import files_up_to
from sessions_pipeline_tests.integration.scripted_server import Handler, scripted
from sessions_pipeline_tests.lake_rows import rows
from sessions_pipeline_tests.scripts import COMMAND
from sessions_pipeline_tests.strategies import openapi

COMMANDS = ("materialize", "list", "report", "budget", "export", "doctor", "ui", "sandbox", "demo")
TODAY = datetime.now(UTC).date()
REPOSITORY = Path(__file__).parents[2]
KEY = "lsv2_pt_d15tinc71ve_0123456789"


class Result(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running_sandbox() as running:
        yield running


@pytest.fixture(autouse=True)
def behaves(sandbox: Sandbox) -> Iterator[None]:
    stamina.set_testing(True, attempts=2)
    yield
    stamina.set_testing(False)
    sandbox.faults.clear()


@pytest.fixture
def run(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs the command in this process, in an empty folder. The environment has only the sandbox's address and key."""
    for name in os.environ:
        if name.startswith(("LANGCHAIN_", "LANGSMITH_", "SESSIONS_PIPELINE_", "DAGSTER_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    usual = {
        "LANGSMITH_API_KEY": sandbox.key,
        "LANGSMITH_ENDPOINT": sandbox.url,
        "SESSIONS_PIPELINE_DATA_ROOT": str(tmp_path / "lake"),
    }

    def run_command(*arguments: str, **environment: str | None) -> Result:
        for name, value in (usual | environment).items():
            monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["sessions-pipeline", *arguments])
        with pytest.raises(SystemExit) as ended:
            package.main()
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, captured.out, captured.err)

    return run_command


def _days(first: int = 1, last: int = 0) -> tuple[str, ...]:
    return ("--from", str(TODAY - timedelta(days=first)), "--to", str(TODAY - timedelta(days=last)))


def _complains(result: Result, status: int, *words: str) -> None:
    assert result.status == status, result
    assert "Traceback" not in result.err
    assert len(result.err.strip().splitlines()) == 1, result.err
    assert all(word in result.err for word in words), result.err


@pytest.mark.parametrize("command", [*COMMANDS, "export focus"])
def test_the_help_of_a_command_says_what_it_does_and_has_an_example(run: Run, command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.status == 0
    assert f"Example: sessions-pipeline {command}" in " ".join(result.out.split())


def test_help_lists_the_commands(run: Run) -> None:
    result = run("--help")
    assert result.status == 0
    assert all(command in result.out for command in COMMANDS)


def test_every_query_parameter_of_the_schema_is_an_option_of_list() -> None:
    parameters = openapi()["paths"]["/api/v1/sessions"]["get"]["parameters"]
    names = {one["name"] for one in parameters if one["in"] == "query"}
    command = cli.get_command(click.Context(cli), "list")
    assert command is not None
    options = {option.name: option.opts for option in command.params}
    assert len(names) == 21
    assert names <= set(options)
    assert all(f"--{name.replace('_', '-')}" in options[name] for name in names)


def test_list_prints_a_table_json_and_ndjson(run: Run, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("list", "--name-contains", "nightly", "--include-stats", "--limit", "3")
    table = run(*arguments, LANGSMITH_WORKSPACE_ID=f"{WORKSPACE},{OTHER_WORKSPACE}")
    assert table.out.rstrip().endswith("6 sessions"), "three of each workspace"
    as_json = json.loads(run(*arguments, "--format", "json").out)
    lines = [json.loads(line) for line in run(*arguments, "--format", "ndjson").out.splitlines()]
    assert [record["id"] for record in as_json] == [record["id"] for record in lines]
    assert [record["tenant_id"] for record in lines] == [WORKSPACE] * 3 + [OTHER_WORKSPACE] * 3
    assert isinstance(sandbox.api.data, CompanyData)
    names = {one.id: one.name for one in sandbox.api.data.datasets}
    ids = [record["reference_dataset_id"] for record in lines]
    assert [one for one in ids if names[one] not in table.out or one[:8] in table.out] == []
    for shape, nothing in (("table", "0 sessions\n"), ("json", "[]\n"), ("ndjson", "")):
        assert run("list", "--name", "nobody's", "--format", shape).out == nothing
    sandbox.faults.add(Fault("no_datasets", 403, times=None))
    refused = run(*arguments)
    assert refused.status == 0
    assert all(one[:8] in refused.out and one not in refused.out for one in ids)
    sandbox.faults.clear()
    for dataset in sandbox.api.data.datasets:
        monkeypatch.setattr(dataset, "name", " ")
    assert all(one[:8] in run(*arguments).out for one in ids)


def test_list_shows_20_sessions_unless_more_are_asked_for(run: Run) -> None:
    assert run("list").out.endswith("\n20 sessions of the page's 100; --all shows them all\n")
    assert run("list", "--all").out.endswith("\n100 sessions\n")
    assert run("list", "--limit", "30").out.endswith("\n30 sessions\n")


def test_list_does_not_wait_long_for_the_names_of_datasets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessions_pipeline.cli.show.NAMES_SECONDS", 0)
    arguments = ("list", "--name-contains", "nightly", "--limit", "3")
    ids = [record["reference_dataset_id"] for record in json.loads(run(*arguments, "--format", "json").out)]
    table = run(*arguments)
    assert (table.status, [one for one in ids if one[:8] not in table.out]) == (0, [])


def test_the_doctor_passes_when_all_is_well(run: Run, tmp_path: Path) -> None:
    result = run("doctor")
    assert result.status == 0
    assert all(line.startswith("ok") for line in result.out.splitlines())
    assert all(word in result.out for word in ("settings", "key and host", "API", "data root", "Dagster"))
    assert f"{tmp_path / 'lake'} can be written, holds no sessions yet\n" in result.out
    assert run("materialize", *_days(0)).status == 0
    assert f"{tmp_path / 'lake'} can be written\n" in run("doctor").out
    (tmp_path / "lake" / MARKER).unlink()
    assert f"{tmp_path / 'lake'} can be written\n" in run("doctor").out, "the next run writes the marker again"


def test_the_doctor_says_what_it_has_checked(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    alone = run("doctor", SESSIONS_PIPELINE_START_DATE="2026-01-01")
    assert "  from the environment: partitions from 2026-01-01, lookback 3 days\n" in alone.out
    assert " API key set, for its own workspace\n" in alone.out
    assert "  answered for the key's own workspace, clock within a minute\n" in alone.out
    file, root = tmp_path / ".env", tmp_path / "with \x1b[1m"
    file.write_text(f"LANGSMITH_WORKSPACE_ID={WORKSPACE},{OTHER_WORKSPACE}\nSESSIONS_PIPELINE_LOOKBACK_DAYS=1\n")
    root.mkdir()
    (root / "note").touch()
    token = {"LANGSMITH_API_KEY": None, "LANGSMITH_BEARER_TOKEN": sandbox.key}
    more = {"SESSIONS_PIPELINE_QUERY": '{"reference_free": false}', "SESSIONS_PIPELINE_DATA_ROOT": str(root)}
    both = run("doctor", **token, **more)
    assert (both.status, both.err) == (0, "")
    assert f"  from {file} and the environment: partitions from 2026-01-01, lookback 1 day, narrowed by ref" in both.out
    assert " bearer token set, for 2 workspaces\n" in both.out
    assert all(f"  answered for {workspace}, clock" in both.out for workspace in (WORKSPACE, OTHER_WORKSPACE))
    assert "with ␛[1m can be written, holds no sessions yet\n" in both.out


@pytest.mark.parametrize(("scheme", "is_warned"), [("http", True), ("https", False)])
def test_the_doctor_says_that_a_key_is_sent_unencrypted(run: Run, scheme: str, *, is_warned: bool) -> None:
    said = " API key (sent unencrypted: LANGSMITH_ENDPOINT is http) set"
    assert (said in run("doctor", LANGSMITH_ENDPOINT=f"{scheme}://api.invalid:1").out) == is_warned
    assert said not in run("doctor", LANGSMITH_ENDPOINT=f"{scheme}://localhost:1").out


@pytest.mark.parametrize(
    ("variable", "value", "failed"),
    [
        ("SESSIONS_PIPELINE_QUERY", '{"limit": 3}', "settings"),
        ("SESSIONS_PIPELINE_BUDGETS", "nowhere.toml", "settings"),
        ("SESSIONS_PIPELINE_DATA_ROOT", "/proc/lake", "data root"),
    ],
)
def test_the_doctor_finds_settings_that_a_run_would_refuse(run: Run, variable: str, value: str, failed: str) -> None:
    result = run("doctor", **{variable: value})
    _complains(result, 1, " of 5 checks failed")
    assert f"FAIL  {failed:<12} " in result.out


def test_the_doctor_finds_invalid_addresses_for_notifications(run: Run) -> None:
    result = run("doctor", SESSIONS_PIPELINE_NOTIFY="hunter2")
    _complains(result, 1, "1 of 5")
    assert "FAIL  settings     SESSIONS_PIPELINE_NOTIFY: address 1, which Apprise does not know; " in result.out
    assert "hunter2" not in result.out


def test_the_doctor_warns_only_of_redacted_properties_that_no_record_has(run: Run) -> None:
    paths = "extra.metadata.git.author_email,$.feedback_stats.*.values,*.email,example_count,ekstra.metadata"
    result = run("doctor", SESSIONS_PIPELINE_REDACT=paths)
    assert result.status == 0
    assert "warn  settings" in result.out
    assert "SESSIONS_PIPELINE_REDACT: ekstra.metadata begins with no known property; correct it" in result.out
    assert "warn  settings" not in run("doctor", SESSIONS_PIPELINE_REDACT="extra.metadata").out


@pytest.mark.parametrize("arguments", [("doctor",), ("ui",), ("materialize", *_days())])
def test_a_first_partition_in_the_future_is_refused(run: Run, arguments: tuple[str, ...]) -> None:
    """The message has the UTC day: where clocks are ahead of UTC, the local day may be one later."""
    today = datetime.now(UTC).date()
    said = f"SESSIONS_PIPELINE_START_DATE: is in the future; set {today} (UTC) or earlier"
    _complains(run(*arguments, SESSIONS_PIPELINE_START_DATE="2999-01-01"), 2, said)
    assert run("doctor", SESSIONS_PIPELINE_START_DATE=str(today)).status == 0


def test_the_doctor_says_what_is_wrong_with_the_dagster_instance(run: Run, tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry:\n\tenabled: false\n")
    _complains(run("doctor", DAGSTER_HOME=str(tmp_path)), 1, "1 of 5")
    relative = run("doctor", DAGSTER_HOME=".")
    _complains(relative, 1, "1 of 5")
    assert "FAIL  Dagster      DAGSTER_HOME: . must be the absolute path" in relative.out


@pytest.mark.parametrize("name", ["My%20Project", "why?"])
def test_a_dagster_home_whose_path_sqlite_cannot_have_is_one_line(run: Run, tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    home.mkdir()
    result = run("materialize", *_days(), DAGSTER_HOME=str(home))
    _complains(result, 1, f"DAGSTER_HOME: {home}, ", "a path with ? or a code such as %20; rename the folder")
    assert [*tmp_path.iterdir()] == [home], "no database is made in another place"


def test_a_current_folder_that_was_removed_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "removed"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    _complains(run("doctor"), 1, "the current folder: No such file or directory")


def test_files_in_the_current_folder_are_not_taken_for_modules(sandbox: Sandbox, tmp_path: Path) -> None:
    for name in ("json", "queue", "dagster"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the current folder')")
    reached = {"LANGSMITH_API_KEY": sandbox.key, "LANGSMITH_ENDPOINT": sandbox.url, "PYTHONPATH": str(REPOSITORY)}
    # So many days are processed by other processes.
    command = [COMMAND, "materialize", *_days(8)]
    done = subprocess.run(
        command, cwd=tmp_path, env=reached | {"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_dagster_home_on_a_full_disk_is_one_line(run: Run, tmp_path: Path) -> None:
    with files_up_to(10):
        result = run("ui", DAGSTER_HOME=str(tmp_path))
    _complains(result, 2, f"DAGSTER_HOME: {tmp_path} can't be written (File too large); name another folder")
    shutil.copy(SHIPPED, tmp_path)
    with files_up_to(10):
        checked = run("doctor", DAGSTER_HOME=str(tmp_path))
    assert checked.status == 1
    assert f"DAGSTER_HOME: {tmp_path} can't be used (File too large); free some space" in " ".join(checked.out.split())


def test_the_doctor_says_that_dagster_could_write_nothing(run: Run, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(0o500)
    # Root may write to any folder, but not to a read-only file system.
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", home]
    is_root = os.geteuid() == 0
    if is_root and subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("this machine does not let root mount a file system")
    try:
        result = run("doctor", DAGSTER_HOME=str(home))
    finally:
        if is_root:
            subprocess.run(["umount", home], check=True)
    _complains(result, 1, "1 of 5")
    found = " ".join(result.out.split())
    assert f"FAIL Dagster DAGSTER_HOME: {home} can't be used (" in found
    assert found.endswith("); free some space, give this user access, or name another folder")


def test_the_doctors_advice_on_slow_storage_can_be_copied_and_works(run: Run, tmp_path: Path) -> None:
    home = tmp_path / "my home"
    home.mkdir()
    written = "telemetry: {enabled: false}\n"
    (home / "dagster.yaml").write_text(written)
    slow = run("doctor", DAGSTER_HOME=str(home))
    assert slow.status == 0
    checked, advice = slow.out.split("\n\n")
    *well, warned = checked.splitlines()
    assert [line.split()[0] for line in well] == ["ok"] * 4
    assert warned.startswith(f"warn  Dagster      {home}: Dagster's default storage is ten times slower")
    two = run("doctor", DAGSTER_HOME=str(home), SESSIONS_PIPELINE_REDACT="ekstra").out
    assert "ekstra begins with no known property; correct it" in two
    assert advice in two
    (home / "dagster.yaml").write_text(written + advice)
    result = run("doctor", DAGSTER_HOME=str(home), SESSIONS_PIPELINE_REDACT=None)
    assert result.out.endswith(f"{home}: its storage is not the slow default\n")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert not instance.telemetry_enabled
        assert isinstance(instance.event_log_storage, KeptEventLog)


@pytest.mark.parametrize(
    ("written", "is_slow"),
    [
        ("", True),
        ("storage: {sqlite: {base_dir: elsewhere}}\n", True),
        (SHIPPED.read_text(), False),
        (f"{STORAGE}    config: {{base_dir: elsewhere}}\n", False),
    ],
)
def test_the_doctor_says_which_lines_make_an_instance_faster(
    run: Run, tmp_path: Path, written: str, *, is_slow: bool
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(written)
    result = run("doctor", DAGSTER_HOME=str(home))
    assert (result.status, result.err) == (0, "")
    assert result.out.endswith(STORAGE) is is_slow
    assert ("\nwarn  Dagster      " in result.out) is is_slow


@pytest.mark.parametrize("database", ["history/runs.db", "history/runs/index.db", "schedules/schedules.db"])
@pytest.mark.parametrize("is_cut", [False, True])
def test_the_doctor_finds_a_broken_database_of_dagster(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str, *, is_cut: bool
) -> None:
    shutil.copy(SHIPPED, tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        assert instance.get_asset_keys() == []
    assert run("doctor", DAGSTER_HOME=str(tmp_path)).status == 0
    file = tmp_path / database
    file.write_bytes(file.read_bytes()[:12_288] if is_cut else b"no database " * 999)
    result = run("doctor", DAGSTER_HOME=str(tmp_path))
    _complains(result, 1, "1 of 5")
    (line,) = [line for line in result.out.splitlines() if line.startswith("FAIL")]
    assert line.startswith(f"FAIL  Dagster      DAGSTER_HOME: {tmp_path}, its database: ")
    assert line.endswith("or move a broken folder away: it has only the UI's history")


def test_databases_that_cannot_be_looked_for_are_one_line(run: Run, tmp_path: Path) -> None:
    """As in a folder that this user may not read; but root may."""
    shutil.copy(SHIPPED, tmp_path)
    (tmp_path / "history").symlink_to("x" * 300)
    result = run("doctor", DAGSTER_HOME=str(tmp_path))
    _complains(result, 1, "1 of 5")
    assert f"FAIL  Dagster      DAGSTER_HOME: {tmp_path}, its database: [Errno " in result.out


def test_the_doctor_names_each_broken_file_that_no_refresh_makes_again(run: Run, tmp_path: Path) -> None:
    lake, old = Lake.open(str(tmp_path / "lake"), query={}), TODAY - timedelta(days=400)
    files = {table: [TODAY, old, None] if table.partition_column else [None] for table in TABLES}
    for table, days in files.items():
        for day in days:
            lake.replace(table, day, table.schema.empty_table(), {})
    assert run("doctor").status == 0
    broken = [
        Path(lake.uri(table, day))
        for table in (*FROM_API, WEEKLY_COST_BY_REFERENCE_DATASET, MONTHLY_COST_BY_REFERENCE_DATASET)
        for day in files[table]
    ]
    for file in broken:
        file.write_bytes(file.read_bytes()[:-9])
    result = run("doctor")
    _complains(result, 1, "1 of 5")
    failed = [line for line in result.out.splitlines() if not line.startswith("ok")]
    found = [line.removeprefix("FAIL  data root    ").partition(": not a readable Parquet file of") for line in failed]
    assert sorted(Path(place) for place, _, _ in found) == sorted(broken)
    assert all("; restore it from a backup" in line or "; materialize " in line for line in failed)


@pytest.mark.parametrize(("table", "is_noticed"), [(REFERENCE_DATASETS, True), (RAW_SESSIONS, False)])
def test_the_doctor_reads_the_file_of_names_as_a_whole_and_only_the_ends_of_the_files_of_days(
    run: Run, tmp_path: Path, table: Table, *, is_noticed: bool
) -> None:
    lake = Lake.open(str(tmp_path / "lake"), query={})
    file = Path(lake.replace(table, TODAY, rows(table, 1), {}).uri)
    content, column = bytearray(file.read_bytes()), pq.read_metadata(file).row_group(0).column(0)
    content[column.data_page_offset + column.total_compressed_size - 2] ^= 1
    file.write_bytes(content)
    assert ("FAIL  data root" in run("doctor").out) is is_noticed


def test_a_run_in_an_empty_dagster_home_writes_our_settings_and_keeps_existing_files(run: Run, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert run("doctor", DAGSTER_HOME=str(home)).out.endswith(f"{home}: new; it gets our dagster.yaml\n")
    for written in (SHIPPED.read_text(), "telemetry: {enabled: false}\n"):
        result = run("materialize", *_days(0), DAGSTER_HOME=str(home))
        assert (result.status, "export DAGSTER_HOME" in result.out) == (0, False)
        assert [(file.name, file.read_text()) for file in home.glob("*dagster.yaml*")] == [("dagster.yaml", written)]
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")


def test_list_and_the_doctor_can_use_version_2_and_say_so(run: Run, sandbox: Sandbox) -> None:
    arguments = ("list", "--reference-free", "--include-stats", "--limit", "3", "--format", "json")
    first = run(*arguments, SESSIONS_PIPELINE_API_VERSION="v1")
    second = run(*arguments, SESSIONS_PIPELINE_API_VERSION="v2")
    assert (second.status, second.out) == (0, first.out)
    assert (first.err, second.err.count("\n")) == ("", 1)
    assert "Version 2 of the API is read" in second.err
    assert sandbox.requests[-1]["path"] == "/api/v2/sessions"
    _complains(run("list", "--offset", "5", SESSIONS_PIPELINE_API_VERSION="v2"), 2, "no offset")
    sandbox.faults.add(Fault("gone", 410, times=None))
    assert "Version 1 of the API is gone: version 2 is read" in run("doctor", SESSIONS_PIPELINE_API_VERSION="auto").out


@pytest.mark.parametrize(("seconds", "status"), [(-70, 1), (-50, 0), (50, 0), (70, 1)])
def test_the_doctor_says_when_the_clock_is_off_by_more_than_a_minute(run: Run, seconds: int, status: int) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)

    def step(handler: Handler) -> None:
        handler.send_response_only(200)
        handler.send_header("Date", date)
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"[]")

    with scripted(step) as server:
        result = run("doctor", LANGSMITH_ENDPOINT=server.url)
    (line,) = [line for line in result.out.splitlines() if line.split()[1] == "API"]
    assert result.status == status
    assert ("this machine's clock is" in line) == (status == 1)


def test_a_successful_run_prints_no_complaint_and_asks_only_for_what_it_needs(run: Run, sandbox: Sandbox) -> None:
    run_result = run("materialize", *_days(0), SESSIONS_PIPELINE_START_DATE=str(TODAY))
    assert (run_result.status, run_result.err) == (0, "")
    assert run_result.out.endswith(" mkdir -p .dagster; export DAGSTER_HOME=$PWD/.dagster\n")
    as_json = run("materialize", *_days(0), "--json")
    assert (as_json.status, as_json.err) == (0, "")
    assert "DAGSTER_HOME" not in as_json.out
    assert json.loads(as_json.out)["days"] == 1
    before = len(sandbox.requests)
    assert run("materialize", *_days(0), "--select", "experiment_summary").status == 0
    several = run("materialize", *_days(0), "--select", "experiment_summary", "--select", "session_feedback")
    assert "experiment_summary: 1 day\nsession_feedback: 1 day\n" in several.out
    assert len(sandbox.requests) == before, "a derived table is computed from what is stored"


@pytest.mark.long
def test_a_run_waits_for_the_lock_of_dagsters_database(run: Run, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    assert run("materialize", *_days(0), DAGSTER_HOME=str(home)).status == 0
    lock = sqlite3.connect(home / "history" / "runs.db", isolation_level=None, check_same_thread=False)
    lock.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(7, lock.rollback)
    timer.start()
    assert run("materialize", *_days(0), DAGSTER_HOME=str(home)).status == 0
    timer.join()
    lock.close()


def test_the_doctor_prints_a_reason_once_and_leaves_no_files(run: Run, tmp_path: Path) -> None:
    result = run("doctor", LANGSMITH_API_KEY=None)
    _complains(result, 1, "2 of 5")
    assert result.out.count("LANGSMITH_API_KEY") == 1
    assert "FAIL  API          for the same reason\n" in result.out
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    ("seconds", "word"), [(None, "were never read, or not in every workspace; "), (11_000, "over three hours ago")]
)
def test_a_missed_refresh_is_reported_with_its_days(run: Run, tmp_path: Path, seconds: int | None, word: str) -> None:
    if seconds:
        lake, read = Lake.open(str(tmp_path / "lake"), query={}), datetime.now(UTC) - timedelta(seconds=seconds)
        lake.write_file(
            f"_readings/start_date={TODAY}.json", dump_readings([Reading(1, read, None, (), 0, 0, 1)]).encode()
        )
    days = "today and the 3 days before it"
    _complains(run("doctor", "--fresh"), 1, f"{tmp_path / 'lake'}: {days}", word)
    no_days = run("doctor", "--fresh", SESSIONS_PIPELINE_LOOKBACK_DAYS="0")
    _complains(no_days, 1, "today and the 1 day before it were", word)


def test_a_test_message_without_an_address_is_an_error(run: Run) -> None:
    _complains(run("doctor", "--notify"), 2, "SESSIONS_PIPELINE_NOTIFY: not set; set it to")


def test_the_doctor_reports_what_failed_and_continues(run: Run) -> None:
    result = run("doctor", LANGSMITH_API_KEY=KEY)
    _complains(result, 1, "1 of 5")
    assert [line.split()[1] for line in result.out.splitlines() if line.startswith("FAIL")] == ["API"]
    assert KEY not in result.out + result.err
    assert any(line.startswith("ok    data root") for line in result.out.splitlines())


@pytest.mark.parametrize(
    ("environment", "status", "word"),
    [
        ({"LANGSMITH_API_KEY": None}, 2, "LANGSMITH_API_KEY"),
        ({"LANGSMITH_API_KEY": KEY}, 1, "LANGSMITH_API_KEY"),
        ({"LANGSMITH_ENDPOINT": "http://127.0.0.1:1"}, 1, "127.0.0.1:1"),
        ({"LANGSMITH_ENDPOINT": "nowhere"}, 2, "LANGSMITH_ENDPOINT"),
        ({"LANGSMITH_WORKSPACE_ID": "mine"}, 2, "LANGSMITH_WORKSPACE_ID"),
        ({"SESSIONS_PIPELINE_QUERY": '{"limit": 3}'}, 2, "SESSIONS_PIPELINE_QUERY"),
        ({"SESSIONS_PIPELINE_QUERY": "nightly"}, 2, "SESSIONS_PIPELINE_QUERY"),
        (
            {"SESSIONS_PIPELINE_QUERY": '{"reference_dataset": []}'},
            2,
            "SESSIONS_PIPELINE_QUERY: reference_dataset: name at least one, or leave it out",
        ),
        ({"SESSIONS_PIPELINE_API_VERSION": "2"}, 2, "SESSIONS_PIPELINE_API_VERSION: should be 'v1', 'v2' or 'auto'"),
        ({"SESSIONS_PIPELINE_PAGE_SIZE": "101"}, 2, "SESSIONS_PIPELINE_PAGE_SIZE"),
        ({"SESSIONS_PIPELINE_START_DATE": "soon"}, 2, "SESSIONS_PIPELINE_START_DATE"),
        ({"DAGSTER_HOME": "/nowhere/at/all"}, 2, "DAGSTER_HOME"),
    ],
)
def test_a_wrong_setting_is_one_line_and_writes_nothing(
    run: Run, tmp_path: Path, environment: dict[str, str | None], status: int, word: str
) -> None:
    result = run("materialize", *_days(), **environment)
    _complains(result, status, word)
    assert KEY not in result.out + result.err
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize("address", ["carrier-pigeon://hunter2", "hunter2", "json://127.0.0.1:9, slak://hunter2"])
@pytest.mark.parametrize("command", [("materialize", *_days()), ("ui",), ("doctor",)], ids=lambda command: command[0])
def test_a_wrong_address_for_notifications_is_an_error_that_does_not_show_it_before_any_request(
    run: Run, sandbox: Sandbox, command: tuple[str, ...], address: str
) -> None:
    before = len(sandbox.requests)
    result = run(*command, SESSIONS_PIPELINE_NOTIFY=address)
    assert "SESSIONS_PIPELINE_NOTIFY: " in (result.out if command == ("doctor",) else result.err)
    assert result.status == (1 if command == ("doctor",) else 2)
    assert "hunter2" not in result.out + result.err
    assert command == ("doctor",) or len(sandbox.requests) == before


def test_the_summary_fits_80_columns_and_says_how_to_see_the_next_run_in_dagster(run: Run) -> None:
    lines = run("materialize", *_days(2), COLUMNS="80").out.splitlines()
    assert max(len(line) for line in lines if not line.startswith("Parquet")) <= 80
    assert lines[-1].split("; ") == [f"{' ' * 9}mkdir -p .dagster", "export DAGSTER_HOME=$PWD/.dagster"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--from", "2024-01-01", "--to", "2024-01-02"), "first partition"),
        (_days(0, -1), "future"),
        (_days(0, 2), "swap"),
        (("--from", "25.11.2026", "--to", "2026-11-25"), "25.11.2026 is not a day YYYY-MM-DD such as"),
        (("--from", "2026-02-30", "--to", "2026-03-01"), "--from"),
        (
            (*_days(), "--select", "no_such_asset"),
            "no_such_asset: matches no asset; there are cost_report, daily_cost_by_attribute, ",
        ),
        (
            (*_days(), "--select", "sessions,raw_sessions"),
            "; to select two, write key:sessions or",
        ),
        (
            (*_days(), "--select", "key:sessions", "--select", "key:raw_sesions"),
            "--select key:raw_sesions: matches no asset; did you mean raw_sessions?",
        ),
        (
            (*_days(), "--select", "key:sessions or key:raw_sesions"),
            "--select key:sessions or key:raw_sesions: a name in it matches no asset; did you mean raw_sessions?",
        ),
        (
            (*_days(), "--select", "raw_sessions", "--as-of", "2026-01-01"),
            "matches no asset that --as-of rebuilds; there are daily_cost_by_attribute, daily_cost_by_reference_",
        ),
        ((*_days(), "--select", "daily_cost_by_projects"), "; did you mean daily_cost_by_project?"),
        ((*_days(), "--select", "sesions+"), "; did you mean sessions?"),
        ((*_days(), "--select", "((("), "--select"),
        (("--from", "2026-01-01"), "--to"),
        ((*_days(), "--as-of", "2999-01-01"), "future"),
        ((*_days(), "--as-of", "2026-11-20T25:00"), "is not a time such as"),
        ((*_days(), "--as-of", "0001-01-01T00:00+14:00"), "is not a time such as"),
        (("--from", "0001-01-01", "--to", "2026-11-25"), "0001-01-01 is not a day YYYY-MM-DD such as"),
    ],
)
def test_impossible_days_and_selections_are_usage_errors(
    run: Run, sandbox: Sandbox, tmp_path: Path, arguments: tuple[str, ...], word: str
) -> None:
    before = len(sandbox.requests)
    _complains(run("materialize", *arguments), 2, word)
    assert len(sandbox.requests) == before
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (Fault("not_json", times=None), "JSON"),
        (Fault("status", 422, times=None), "sandbox fault 422"),
        (Fault("status", 404, times=None), "LANGSMITH_ENDPOINT"),
        (Fault("redirect", "http://127.0.0.1:1/", times=None), "redirect"),
        (Fault("ignore_offset", times=None), "offset"),
    ],
)
def test_an_api_that_misbehaves_is_one_line_and_no_day_is_written(
    run: Run, sandbox: Sandbox, tmp_path: Path, fault: Fault, word: str
) -> None:
    sandbox.faults.add(fault)
    result = run("materialize", *_days(9, 7))
    _complains(result, 1, word)
    assert "stay written" not in result.err
    assert not list(tmp_path.rglob("*.parquet"))


def test_an_error_after_finished_days_says_that_they_stay_written(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.faults.add(Fault("status", 403, times=None, after=6))
    result = run("materialize", *_days(6), SESSIONS_PIPELINE_CONCURRENCY="1", SESSIONS_PIPELINE_PAGE_SIZE="10")
    _complains(result, 1, "403", "; the days that were finished stay written")
    assert list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize("kind", [DeadlineExceededError, WorkerLostError])
def test_an_error_that_says_itself_that_days_stay_written_says_it_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def fails(pipeline: Pipeline, days: Sequence[date], *_: object) -> None:
        pipeline.on_day(days[0])
        for _ in range(2):
            pipeline.on_warning("careful")
        raise kind("over; days already written stay, run the others again")

    monkeypatch.setattr(Pipeline, "process", fails)
    result = run("materialize", *_days())
    warned, failed = result.err.splitlines()
    assert warned == "sessions-pipeline: warning: careful", "once"
    assert failed == "sessions-pipeline: over; days already written stay, run the others again"


def test_a_data_root_that_cannot_be_written_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    _complains(run("materialize", *_days(), SESSIONS_PIPELINE_DATA_ROOT=str(tmp_path / "file" / "lake")), 1, "file")


def test_a_lake_with_another_query_or_a_newer_layout_is_refused(run: Run, tmp_path: Path) -> None:
    assert run("materialize", *_days(0)).status == 0
    marker = tmp_path / "lake" / "_lake.json"
    before = marker.read_text()
    _complains(run("materialize", *_days(0), SESSIONS_PIPELINE_QUERY='{"reference_free": true}'), 1, "query")
    assert marker.read_text() == before
    marker.write_text('{"layout": 99, "version": 99, "query": {}}')
    _complains(run("materialize", *_days(0), SESSIONS_PIPELINE_QUERY=None), 1)


def test_an_interrupt_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sessions_pipeline.cli.runs.run_days", interrupted)
    _complains(run("materialize", *_days()), 1, "stopped")


def _interrupted_after_a_day(patch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def bar(_days: int, finished: list[date]) -> Iterator[Callable[[date], None]]:
        yield lambda day: _interrupt(finished.append(day))

    patch.setattr("sessions_pipeline.cli.terminal.progress_bar", bar)


def _interrupted_before_the_run_began(patch: pytest.MonkeyPatch) -> None:
    create = dg.DagsterInstance.create_run_for_job
    patch.setattr(dg.DagsterInstance, "create_run_for_job", lambda *given, **more: _interrupt(create(*given, **more)))


def _interrupt(_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("interrupted", "left"),
    [
        (_interrupted_after_a_day, "the days that were finished stay written"),
        (_interrupted_before_the_run_began, "no day was finished"),
    ],
)
def test_a_run_that_is_interrupted_counts_as_canceled_and_says_what_is_left(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, interrupted: Callable[..., None], left: str
) -> None:
    shutil.copy(SHIPPED, tmp_path)
    interrupted(monkeypatch)
    result = run("materialize", *_days(), DAGSTER_HOME=str(tmp_path))
    _complains(result, 1, f"stopped; {left}")
    assert bool(list(tmp_path.rglob("*.parquet"))) == ("stay" in left)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        (canceled,) = instance.get_runs()
    assert canceled.status is dg.DagsterRunStatus.CANCELED


def _dotenv(content: bytes) -> Callable[[Path], dict[str, str]]:
    def prepare(folder: Path) -> dict[str, str]:
        (folder / ".env").write_bytes(content)
        return {}

    return prepare


def _instance(yaml: str, *, database: bytes | None = None) -> Callable[[Path], dict[str, str]]:
    def prepare(folder: Path) -> dict[str, str]:
        home = folder / "home"
        (home / "history").mkdir(parents=True)
        (home / "dagster.yaml").write_text(yaml)
        if database is not None:
            (home / "history" / "runs.db").write_bytes(database)
        return {"DAGSTER_HOME": str(home)}

    return prepare


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
@pytest.mark.parametrize("command", [("materialize", *_days(0)), ("doctor",)])
def test_a_dagster_yaml_that_is_not_a_file_is_one_line_and_does_not_block(
    run: Run, tmp_path: Path, make: Callable[[Path], None], command: tuple[str, ...]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    make(home / "dagster.yaml")
    result = run(*command, DAGSTER_HOME=str(home))
    assert f"DAGSTER_HOME: {home / 'dagster.yaml'} is not a regular file; move it away" in result.out + result.err
    _complains(result, 1 if command == ("doctor",) else 2)


@pytest.mark.parametrize(
    ("prepare", "status", "words"),
    [
        (_dotenv("LANGSMITH_API_KEY=k\n".encode("utf-16")), 2, (".env", "UTF-8")),
        (_dotenv("# Schlüssel\n".encode("cp1252")), 2, (".env", "UTF-8")),
        (_instance("telemetery:\n  enabled: false\n"), 1, ("DAGSTER_HOME", "dagster.yaml", "telemetery")),
        (_instance("telemetry:\n\tenabled: false\n"), 1, ("DAGSTER_HOME", "dagster.yaml", "line 2")),
        (_instance("- a list\n"), 1, ("DAGSTER_HOME", "dagster.yaml")),
        (_instance("storage:\n"), 1, ("DAGSTER_HOME", "dagster.yaml")),
        (_instance("run_coordinator: {module: dagster, class: Nope}"), 1, ("DAGSTER_HOME", "dagster.yaml", "Nope")),
        (
            _instance("storage: {postgres: {postgres_url: {env: NO_SUCH_VARIABLE}}}"),
            1,
            (
                "DAGSTER_HOME",
                'yaml: You have attempted to fetch the environment variable "NO_SUCH_VARIABLE"',
            ),
        ),
        (_dotenv("LANGSMITH_API_KEY=k\n".encode("utf-16-le")), 2, (".env", "UTF-8")),
        (_dotenv(b"AWS_PROFILE=a\0b\n"), 2, (".env", "UTF-8")),
        (_instance("storage:\n  custom:\n    module: no.such\n    class: Storage\n"), 1, ("DAGSTER_HOME", "no.such")),
        (_instance("telemetry: {enabled: false}\n", database=b"no database " * 99), 1, ("DAGSTER_HOME", "database")),
        (lambda folder: {"DAGSTER_HOME": str(folder / ".." / "nowhere")}, 2, ("DAGSTER_HOME", "exists")),
        (lambda _folder: {"SESSIONS_PIPELINE_DATA_ROOT": "ftp://user:hunter2@host/x"}, 1, ("DATA_ROOT",)),
        (
            lambda _folder: {"HTTPS_PROXY": "bogus://user:hunter2@host", "LANGSMITH_ENDPOINT": "https://a.example"},
            2,
            (),
        ),
    ],
)
def test_a_broken_file_or_setting_is_one_line_that_names_it(
    run: Run, tmp_path: Path, prepare: Callable[[Path], dict[str, str]], status: int, words: tuple[str, ...]
) -> None:
    result = run("materialize", *_days(), **prepare(tmp_path))
    _complains(result, status, *words)
    assert "hunter2" not in result.err


def test_an_unexpected_error_is_one_line_and_its_traceback_is_in_a_file_without_secrets(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError(f"odd {KEY}\nhttps://user:hunter2@host")

    monkeypatch.setattr("sessions_pipeline.cli.runs.run_days", fails)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = run("materialize", *_days(), LANGSMITH_API_KEY=KEY)
    (kept,) = tmp_path.glob("sessions-pipeline-*.txt")
    _complains(result, 1, "unexpected RuntimeError", str(kept))
    assert "Traceback" in kept.read_text()
    assert KEY not in result.err + kept.read_text()
    assert "hunter2" not in result.err + kept.read_text()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    result = run("materialize", *_days(), LANGSMITH_API_KEY=KEY)
    assert (result.status, result.err) == (1, "sessions-pipeline: unexpected RuntimeError: odd ***\n")


def test_a_run_without_memory_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("sessions_pipeline.pipeline.Pipeline.process", fails)
    _complains(run("materialize", *_days()), 1, "memory ran out; what was written stays")


@pytest.mark.parametrize(
    "problem",
    [
        "database or disk is full",
        *(
            pytest.param(text, marks=pytest.mark.long)
            for text in ("disk I/O error", "database disk image is malformed")
        ),
    ],
)
def test_a_full_disk_under_dagsters_history_is_named_with_what_to_do_and_shows_no_secret(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, problem: str
) -> None:
    def fails(*_: object) -> None:
        raise sqlite3.OperationalError(f"{problem} {KEY}")

    monkeypatch.setattr(KeptEventLog, "store_event_batch", fails)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    without_home = run("materialize", *_days(0), LANGSMITH_API_KEY=KEY)
    _complains(without_home, 1, f"TMPDIR: Dagster's folder {tmp_path}", f"its database: {problem} ***; free space")
    shutil.copy(SHIPPED, tmp_path)
    result = run("materialize", *_days(0), LANGSMITH_API_KEY=KEY, DAGSTER_HOME=str(tmp_path))
    _complains(result, 1, f"DAGSTER_HOME: {tmp_path}, its database: {problem} ***; free space")


def test_an_error_that_names_no_file_is_not_blamed_on_the_output(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("sessions_pipeline.cli.runs.run_days", fails)
    assert run("materialize", *_days()).err == "sessions-pipeline: Too many open files\n"


@pytest.mark.parametrize("arguments", [("list", "--limit", "1", "--format", "json"), ("report", "--output", "-")])
def test_an_output_that_is_full_is_one_line_that_says_so(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    Lake.open(str(tmp_path / "lake"), query={}).write_file("note", b"")
    # Closing the file fails again, because the text is still not written.
    with suppress(OSError), Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        result = run(*arguments)
    _complains(result, 1, "the output: No space left on device")


def test_an_unexpected_error_in_a_step_ends_the_run(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(*_: object, **__: object) -> None:
        raise NameError("odd")

    monkeypatch.setattr("sessions_pipeline.pipeline.Pipeline.process", fails)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    _complains(run("materialize", *_days()), 1, "unexpected NameError: odd")


def test_a_misspelt_setting_is_a_warning_that_suggests_the_right_name(run: Run) -> None:
    result = run("report", SESSIONS_PIPELINE_LOOKBACK_DAY="3")
    assert "did you mean SESSIONS_PIPELINE_LOOKBACK_DAYS?" in result.err


def test_dagsters_warning_about_its_own_selections_is_not_shown(run: Run) -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        run("materialize", *_days(), "--select", "group:experiments")
    assert not [one for one in heard if "include_sources" in str(one.message)]


def test_a_warning_of_a_run_is_one_line_on_standard_error(run: Run, sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault("no_datasets", 403, times=None))
    result = run("materialize", *_days())
    assert (result.status, result.err.count("\n")) == (0, 1)
    assert result.err.startswith(
        "sessions-pipeline: warning: Dataset names could not be read, so the names known before are used: "
    )


def test_a_warning_of_the_api_is_printed_once_even_if_the_run_fails(run: Run, sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault("deprecated", "Sat, 01 Jan 2028 00:00:00 GMT", times=None), Fault("status", 422, after=1))
    result = run("materialize", *_days(6))
    warned, failed = result.err.splitlines()
    assert "The API announces the end of /api/v1/sessions" in warned
    assert (result.status, "sandbox fault 422" in failed) == (1, True)


def test_the_summary_is_printed_even_if_the_budgets_break_during_the_run(
    run: Run, sandbox: Sandbox, tmp_path: Path
) -> None:
    budgets = tmp_path / "budgets.toml"
    budgets.write_text('[[budget]]\nname = "all"\nlimit = 400\nperiod = "month"\n')
    sandbox.api.before_answer = lambda _number: budgets.unlink(missing_ok=True)
    try:
        result = run("materialize", *_days(), SESSIONS_PIPELINE_BUDGETS=str(budgets))
    finally:
        sandbox.api.before_answer = None
    assert (result.status, result.err, budgets.exists()) == (0, "", False)
    assert "Known cost, exactly: " in result.out
    assert "Budget   all (month): " in result.out


def test_a_run_that_is_terminated_while_it_loads_says_that_it_stopped(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.faults.add(Fault("latency", 20, times=None))
    command = [COMMAND, "materialize", *_days(0)]
    reached = {"LANGSMITH_API_KEY": sandbox.key, "LANGSMITH_ENDPOINT": sandbox.url, "PYTHONPATH": str(REPOSITORY)}
    before = len(sandbox.requests)
    with subprocess.Popen(
        command, cwd=tmp_path, env=reached | {"PATH": os.environ["PATH"]}, stderr=subprocess.PIPE, text=True
    ) as process:
        while len(sandbox.requests) == before:
            assert process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.05)
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert said == "sessions-pipeline: stopped; no day was finished\n"
    assert process.returncode == 1


@pytest.mark.parametrize(("days_ago", "kept", "is_warned"), [(5, "5", True), (2, "5", False), (9, None, False)])
def test_as_of_a_time_whose_readings_may_be_dropped_is_a_warning(
    run: Run, sandbox: Sandbox, days_ago: int, kept: str | None, *, is_warned: bool
) -> None:
    time, before = (datetime.now(UTC) - timedelta(days=days_ago)).date(), len(sandbox.requests)
    result = run("materialize", *_days(), "--as-of", str(time), SESSIONS_PIPELINE_KEEP_READINGS_DAYS=kept)
    said = f"sessions-pipeline: warning: --as-of {time}: readings that were replaced over 5 days ago were deleted"
    assert (said in result.err, "were deleted" in result.err) == (is_warned, is_warned)
    assert "raw_sessions was never read for " in result.err.splitlines()[-1], "the run began"
    assert len(sandbox.requests) == before, "tables are rebuilt without the network"


def test_a_report_without_a_lake_is_one_line_and_creates_nothing(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "nowhere"
    _complains(
        run("report", SESSIONS_PIPELINE_DATA_ROOT=str(root)), 1, f"{root}: there is no data here; materialize days"
    )
    assert not root.exists()


def test_a_report_on_a_lake_that_can_not_be_written_says_how_to_write_it_elsewhere(run: Run, tmp_path: Path) -> None:
    Lake.open(str(tmp_path / "lake"), query={}).write_file("note", b"")
    # As root, too, nothing can be written below a file.
    (tmp_path / "lake" / "reports").write_text("")
    advice = "; or use `sessions-pipeline report --output FILE`"
    _complains(run("report"), 1, f"{tmp_path}/lake/reports", advice)
    file = tmp_path / "costs.html"
    assert (run("report", "--output", str(file)).status, file.exists()) == (0, True)
    assert advice not in run("report", "--output", str(tmp_path / "no folder" / "costs.html")).err


def test_a_report_to_a_dash_is_standard_output_alone(run: Run, tmp_path: Path) -> None:
    Lake.open(str(tmp_path / "lake"), query={}).write_file("note", b"")
    result = run("report", "--output", "-")
    assert (result.status, result.out[:9], result.out.strip()[-7:]) == (0, "<!doctype", "</html>")
    assert not (tmp_path / "-").exists()
    _complains(run("export", "focus", "--month", "2026-01", "--output", "-"), 2, "end its name in .parquet or .csv")


def test_a_report_with_broken_budgets_is_written_and_warns(run: Run, tmp_path: Path) -> None:
    root, file = tmp_path / "lake", tmp_path / "budgets.toml"
    Lake.open(str(root), query={}).write_file("note", b"")
    file.write_text("[[budget]]\nlimt = 4")
    result = run("report", SESSIONS_PIPELINE_DATA_ROOT=str(root), SESSIONS_PIPELINE_BUDGETS=str(file))
    assert (result.status, Path(result.out.strip()).exists()) == (0, True)
    assert "budget 1: limt is not a key; write limit" in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("materialise",), ("No such command 'materialise'", "Did you mean 'materialize'?")),
        (("reports",), ("No such command 'reports'. Did you mean one of: 'export', 'report'? (see",)),
        (("list", "--limits", "3"), ("--limit", "list --help")),
        (("list", "--name", os.fsdecode(b"caf\xe9")), ("--name: write a text in UTF-8",)),
        (("list", "--limit", "many"), ("--limit: write a whole number",)),
        (("list", "--stats-start-time", "soon"), ("--stats-start-time: write a time such as 2026-01-31",)),
        (("list", "--sort-by", "size"), ("--sort-by", "start_time")),
        (("list", "--reference-dataset", "golden"), ("--reference-dataset: write an id (a UUID), not a name",)),
        (("list", "--id", "nightly"), ("--id: write an id (a UUID), not a name",)),
        (("list", "--tag-value-id", "team"), ("--tag-value-id: write an id (a UUID), not a name",)),
        (("export", "focus", "--month", "2026-13"), ("2026-13 is not a month YYYY-MM such as",)),
        (("export", "focus", "--month", "9999-12"), ("9999-12 is not a month YYYY-MM such as",)),
        (("export", "focus", "--month", "2026\n\x1b[1m"), ("2026 ␛[1m is not a month YYYY-MM such as",)),
        (("report", "--from", "2026-01-01"), ("give both --from and --to",)),
        (("report", "--to", "2026-01-01"), ("give both --from and --to",)),
        (("report", "--from", "2026-01-02", "--to", "2026-01-01"), ("--from 2026-01-02 is after --to 2026-01-01",)),
    ],
)
def test_a_usage_error_is_one_line_in_one_style(run: Run, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    result = run(*arguments)
    _complains(result, 2, *words)
    assert result.err.startswith("sessions-pipeline: ")
    assert "Input" not in result.err


STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

# A substitute for Dagster. It writes its arguments and variables, and how many sessions its API gives, to a file.
DAGSTER = """
import json, os, signal, sys, urllib.request
key = {"X-API-Key": os.environ["LANGSMITH_API_KEY"]}
request = urllib.request.Request(os.environ["LANGSMITH_ENDPOINT"] + "/api/v1/sessions?limit=1", headers=key)
answer = json.load(urllib.request.urlopen(request))
given = {"sessions": len(answer), "folder": os.getcwd(), "arguments": sys.argv[1:], **os.environ}
given["ignores_ctrl_c"] = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
json.dump(given, open(os.environ["GIVEN"], "w"))
sys.exit(int(os.environ.get("STATUS", "0")))
"""

# Another one. It starts a program, as a run in progress would be one, and prints the first signal that it gets.
SERVING = """
import signal, subprocess, sys
def stop(number, _):
    print("told", number, flush=True)
    sys.exit()
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, stop)
subprocess.Popen([sys.executable, "-c", "import signal; print('running', flush=True); signal.pause()"])
signal.pause()
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def given(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], dict[str, Any]]]:
    """Puts the substitute for Dagster in place. The function returns what it was given."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "dagster").mkdir()
    (folder / "dagster" / "__init__.py").touch()
    (folder / "dagster" / "__main__.py").write_text(DAGSTER)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("GIVEN", str(folder / "given"))
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    yield lambda: json.loads((folder / "given").read_text())
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("command", ["sandbox", "ui"])
@pytest.mark.usefixtures("given")
def test_a_taken_port_is_one_line(run: Run, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        _complains(run(command, "--port", str(taken.getsockname()[1])), 1, "choose another with --port")


def test_the_demos_ui_gets_its_own_api_and_no_setting_of_another_workspace(
    run: Run, sandbox: Sandbox, tmp_path: Path, given: Callable[[], dict[str, Any]]
) -> None:
    _complains(run("ui", "--demo"), 1, f"{tmp_path / 'data' / 'demo'}: nothing is here; run `{DEMO}` first")
    shown = run("demo", "--days", "2")
    assert shown.status == 0
    assert all(f"\n{word}" in shown.out for word in ("Judges, exactly: ", "Budget   ", "Report   ", "Dagster  "))
    home = tmp_path / "data" / "demo" / "_dagster"
    assert (home / "dagster.yaml").read_text() == own_yaml(str(home)), "its runs stay in this folder"
    (tmp_path / ".env").write_text("LANGSMITH_API_KEY=real\nLANGSMITH_WORKSPACE_ID=real\n")
    others = {"LANGSMITH_BEARER_TOKEN": "real", "SESSIONS_PIPELINE_QUERY": "{}", "LANGCHAIN_API_KEY": "real"}
    assert run("ui", "--demo", "--port", str(free_port()), **others).status == 0
    got = given()
    assert (got["sessions"], got["folder"], got["DAGSTER_HOME"]) == (1, str(home), str(home))
    assert got["LANGSMITH_ENDPOINT"] != sandbox.url
    ours = {name for name in got if name.startswith(("LANGSMITH_", "LANGCHAIN_", "SESSIONS_PIPELINE_"))}
    assert ours == {
        *("LANGSMITH_API_KEY", "LANGSMITH_ENDPOINT"),
        *(f"SESSIONS_PIPELINE_{name}" for name in ("DATA_ROOT", "START_DATE", "BUDGETS")),
    }
    assert got["SESSIONS_PIPELINE_START_DATE"] == str(TODAY - timedelta(days=1))


def test_the_ui_creates_dagsters_folder_with_our_settings_and_keeps_existing_files(
    run: Run, tmp_path: Path, given: Callable[[], dict[str, Any]]
) -> None:
    _complains(run("ui", LANGSMITH_API_KEY=None), 2, "LANGSMITH_API_KEY")
    home = tmp_path / ".dagster"
    assert not home.exists()
    for written in (SHIPPED.read_text(), "telemetry: {enabled: false}\n"):
        port = str(free_port())
        assert run("ui", "--port", port).status == 0
        assert (given()["folder"], given()["DAGSTER_HOME"]) == (str(tmp_path), str(home))
        assert given()["arguments"][-2:] == ["-p", port]
        assert (home / "dagster.yaml").read_text() == written
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    assert run("ui", "--port", str(free_port()), STATUS="7").status == 7


@pytest.mark.parametrize("number", STOPPING)
@pytest.mark.usefixtures("given")
def test_what_stops_the_ui_tells_dagster_alone_to_stop_and_then_ends_what_still_runs(
    number: signal.Signals, tmp_path: Path
) -> None:
    (Path(os.environ["PYTHONPATH"]) / "dagster" / "__main__.py").write_text(SERVING)
    program = subprocess.Popen(
        accepting_ctrl_c(COMMAND, "ui", "--port", str(free_port())),
        cwd=tmp_path,
        env={**os.environ, "LANGSMITH_API_KEY": "key"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    assert [program.stdout.readline()[:10], program.stdout.readline()] == ["Dagster UI", "running\n"]
    os.killpg(program.pid, number)
    # The output's end is reached when no process can write to it.
    assert program.communicate(timeout=20)[0] == f"told {int(signal.SIGTERM)}\n"
    assert program.returncode == 0


def test_a_ui_in_the_background_ignores_ctrl_c_and_a_closed_terminal_and_can_still_stop_dagster(
    run: Run, given: Callable[[], dict[str, Any]]
) -> None:
    """Dagster does with SIGTERM what it does with Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    assert run("ui", "--port", str(free_port())).status == 0
    assert not given()["ignores_ctrl_c"]
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    # The command itself goes on ignoring it, so this does not interrupt the test.
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_sandbox_prints_its_address_and_ends_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    program = (sys.executable, "-W", "error", COMMAND)
    command = accepting_ctrl_c(*program, "sandbox", "--port", "0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        process.send_signal(number)
        assert "http://127.0.0.1:" in first
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
