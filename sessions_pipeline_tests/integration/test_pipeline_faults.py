"""Whatever the API does, a run ends with the right lake, or keeps the former one and says why in one line.

docs/faults.md lists these faults; `test_pipeline_pages.py` keeps it so.
"""

import re
import socket
import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest
import stamina

from sessions_pipeline.definitions import build_definitions
from sessions_pipeline.errors import (
    ApiError,
    BadBodyError,
    DeadlineExceededError,
    FirewallError,
    NotFoundError,
    PagingError,
    RateLimitedError,
    RefusedError,
    ServerError,
    TooManyRejectedError,
    UnreachableError,
)
from sessions_pipeline.lake.layout import MARKER
from sessions_pipeline.orchestration import range_tags
from sessions_pipeline.orchestration.run import QUIET
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline_tests.faulty_server import Fault, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import (
    FIRST,
    NOW,
    TODAY,
    DataRoot,
    accounts,
    contents,
    copy,
    execute,
    failing_in_one_line,
    files,
    read,
    record,
    run_days,
    settings_for,
    some_records,
    stray,
)

# With pages of ten, two days and fifteen hours take about forty requests, so that faults happen in mid-run.
SMALL_PAGES = {"SESSIONS_PIPELINE_PAGE_SIZE": 10}


class Case(NamedTuple):
    """A fault, and the error with which the run ends, or None."""

    name: str
    fault: Fault
    error: type[ApiError] | None = None
    says: str = ""


PASSING = [
    Case("429 with Retry-After in seconds", Fault("status", 429, times=3, after=9, retry_after="0.1")),
    Case("429 with Retry-After as a date", Fault("status", 429, after=9, retry_after="Thu, 01 Jan 2026 00:00:00 GMT")),
    Case("429 without Retry-After", Fault("status", 429, times=1, after=9)),
    Case("500", Fault("status", 500, times=4, after=9)),
    Case("503 with Retry-After", Fault("status", 503, times=2, after=9, retry_after="0.1")),
    Case("connection reset in mid-body", Fault("reset", times=4, after=9)),
    Case("truncated body", Fault("truncated", times=4, after=9)),
    Case("200 that is not JSON", Fault("not_json", times=4, after=9)),
    Case("HTML 401", Fault("html", 401, times=3, after=9)),
    Case("HTML 403", Fault("html", 403, times=3, after=9)),
    Case("HTML 502", Fault("html", 502, times=3, after=9)),
    Case("late answers", Fault("latency", 0.05, times=5, after=9)),
    Case("capped pages", Fault("cap", 7, times=None)),
    Case("Deprecation and Sunset", Fault("deprecated", "Thu, 31 Dec 2099 00:00:00 GMT", times=None)),
]
FINAL = [
    Case("endless 429", Fault("status", 429, times=None, after=9, retry_after="0"), RateLimitedError, "429"),
    Case("endless 5xx", Fault("status", 503, times=None, after=9), ServerError, "503"),
    Case("endless resets", Fault("reset", times=None, after=9), UnreachableError, "broke the connection"),
    Case("endless truncation", Fault("truncated", times=None, after=9), BadBodyError, "complete JSON page"),
    Case("a hotel's welcome page", Fault("not_json", times=None), BadBodyError, "text/html"),
    Case("endless HTML 401", Fault("html", 401, times=None, after=9), FirewallError, "without JSON"),
    Case("endless HTML 403", Fault("html", 403, times=None, after=9), FirewallError, "without JSON"),
    Case("JSON 401", Fault("status", 401, times=None, after=9), RefusedError, "LANGSMITH_API_KEY"),
    Case("JSON 403", Fault("status", 403, times=None, after=9), RefusedError, "LANGSMITH_WORKSPACE_ID"),
    Case("404", Fault("status", 404, times=None, after=9), NotFoundError, "LANGSMITH_ENDPOINT"),
    Case("422", Fault("status", 422, times=None, after=9), RefusedError, "refuses a parameter"),
    Case("ignored offset", Fault("ignore_offset", times=None), PagingError, "brought nothing new"),
    Case(
        "the last page again and again",
        Fault("repeat_last", times=None),
        PagingError,
        "brought nothing new|kept changing",
    ),
    Case("unsorted pages", Fault("unsorted", times=None), PagingError, "did not sort"),
]


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    """Retries happen without waits."""
    with stamina.set_testing(testing=True, attempts=8):
        yield


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake that was read without a fault."""
    root = tmp_path_factory.mktemp("former")
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        read(sandbox, root)
    return root


@pytest.mark.parametrize("case", PASSING, ids=lambda case: case.name)
def test_a_temporary_fault_does_not_change_the_result(case: Case, data_root: DataRoot, former: Path) -> None:
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        sandbox.faults.add(case.fault)
        read(sandbox, data_root, **SMALL_PAGES)
        assert len(sandbox.requests) > 9
    assert contents(data_root) == contents(former)
    assert stray(data_root) == []


@pytest.mark.parametrize("case", FINAL, ids=lambda case: case.name)
def test_a_final_fault_is_one_line_and_replaces_no_unfinished_day(
    case: Case, data_root: DataRoot, former: Path
) -> None:
    assert case.error is not None
    copy(former, data_root)
    before, rows = files(data_root), contents(data_root)
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        sandbox.faults.add(case.fault)
        with failing_in_one_line(case.error, case.says):
            read(sandbox, data_root, **SMALL_PAGES)
    # Pages come newest first: today may be finished before the fault, but the oldest day is not.
    assert _oldest(files(data_root)) == _oldest(before)
    assert contents(data_root) == rows
    assert stray(data_root) == []


def _oldest(digests: Mapping[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in digests.items() if str(FIRST) in name or "_PARTITION_" in name}


def test_days_finished_before_a_fault_stay_written_and_the_others_are_as_they_were(data_root: DataRoot) -> None:
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        sandbox.faults.add(Fault("status", 401, times=None, after=25))
        with failing_in_one_line(RefusedError, "401"):
            read(sandbox, data_root, **SMALL_PAGES)
    assert list(accounts(data_root)) == [TODAY]
    assert stray(data_root) == []


def test_nobody_listening_is_one_line_and_writes_nothing(data_root: DataRoot) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    with failing_in_one_line(UnreachableError, "LANGSMITH_ENDPOINT"):
        run_days(settings_for(f"http://127.0.0.1:{port}", data_root), FIRST, TODAY)
    assert files(data_root) == {}


def test_the_page_of_a_failure_in_dagster_begins_with_the_reason_whatever_step_failed(tmp_path: Path) -> None:
    root, budgets = tmp_path / "lake", tmp_path / "budgets.toml"
    root.mkdir()
    (root / MARKER).write_text("not JSON")
    budgets.write_text('[[budget]]\nname = "all"\nlimit = 1\nperiod = "day"\n')
    settings = settings_for("http://127.0.0.1:9", root, SESSIONS_PIPELINE_BUDGETS=str(budgets))
    pipeline = Pipeline(settings, clock=lambda: NOW)
    repository = build_definitions(pipeline).get_repository_def()
    job, texts = repository.get_implicit_global_asset_job_def(), dict[str, str]()
    with dg.DagsterInstance.ephemeral() as instance:
        for step in repository.asset_graph.assets_defs:
            part = job.get_subset(asset_selection={*step.keys}, asset_check_selection={*step.check_keys})
            options: dict[str, Any] = {"instance": instance, "run_config": QUIET, "tags": range_tags(TODAY, TODAY)}
            result = part.execute_in_process(raise_on_error=False, **options)
            [entry] = instance.all_logs(result.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
            error = entry.get_dagster_event().step_failure_data.error
            texts[step.op.name] = error.message if error else ""
    assert len(texts) == 9
    assert {name: text for name, text in texts.items() if f"{MARKER}: broken" not in text} == {}


def test_the_deadlines_error_names_its_setting_and_how_far_the_run_came(data_root: DataRoot) -> None:
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        sandbox.faults.add(Fault("status", 429, times=None, after=25, retry_after="86400"))
        # Pages are read ahead, so whether the first day counts as finished depends on how fast it is processed.
        with failing_in_one_line(DeadlineExceededError, r"SESSIONS_PIPELINE_DEADLINE_MINUTES.*after [01] of 3 days"):
            read(sandbox, data_root, **SMALL_PAGES)


class _Elsewhere(BaseHTTPRequestHandler):
    seen: list[dict[str, str]] = []  # noqa: RUF012 - one server, one test

    def do_GET(self) -> None:
        self.seen.append(dict(self.headers))

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def test_a_redirect_to_another_host_carries_no_key(data_root: DataRoot) -> None:
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere) as elsewhere,
        running_sandbox(texts=some_records(), now=NOW) as sandbox,
    ):
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        sandbox.faults.add(Fault("redirect", f"http://localhost:{elsewhere.server_port}/?token=t0ken", times=None))
        with failing_in_one_line(RefusedError, "to localhost; the key is not sent there"):
            read(sandbox, data_root)
        elsewhere.shutdown()
    assert _Elsewhere.seen == []
    assert files(data_root) == {}


def test_the_announced_end_of_the_api_is_one_warning_and_metadata(data_root: DataRoot) -> None:
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        sandbox.faults.add(Fault("deprecated", "Thu, 31 Dec 2099 00:00:00 GMT", times=None))
        pipeline = Pipeline(settings_for(sandbox.url, data_root, **SMALL_PAGES))
        with dg.DagsterInstance.ephemeral() as instance:
            result = execute(pipeline, FIRST, TODAY, instance=instance)
            logged = [entry for entry in instance.all_logs(result.run_id) if "announces the end" in entry.user_message]
    # One warning for each of the API's lists whose end is announced.
    assert sorted(entry.user_message.split()[6] for entry in logged) == ["/api/v1/datasets", "/api/v1/sessions"]
    assert "Thu, 31 Dec 2099" in logged[0].user_message
    reports = [
        str(event.step_materialization_data.materialization.metadata.get("api_warnings"))
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey("raw_sessions")
    ]
    assert sum("Thu, 31 Dec 2099" in text for text in reports) >= 1


def test_too_many_rejected_records_fail_only_their_day_which_keeps_its_former_tables(data_root: DataRoot) -> None:
    good = some_records()
    with running_sandbox(texts=good, now=NOW) as sandbox:
        read(sandbox, data_root)
        before, rows = files(data_root), contents(data_root)
        data = sandbox.api.data
        data.texts = [  # type: ignore[attr-defined]
            re.sub(r'"run_count": ?10', '"run_count":"many"', text) if str(TODAY) in text else text for text in good
        ]
        with failing_in_one_line(TooManyRejectedError, f"{TODAY}: 91 of 182|{TODAY}: 91 of 91"):
            read(sandbox, data_root)
    after = files(data_root)
    assert {key for key in before if str(TODAY) in key and before[key] != after[key]} == set()
    assert contents(data_root) == rows


def test_a_few_broken_records_never_block_the_valid_ones(data_root: DataRoot) -> None:
    texts = [*some_records(100), record(200, NOW - timedelta(minutes=1000), run_count="many")]
    with running_sandbox(texts=texts, now=NOW) as sandbox:
        read(sandbox, data_root)
    assert sum(of_day[1] for of_day in accounts(data_root).values()) == 100
