"""Fetching that starts before a run: the pages are used once, by that run, and never in place of another reading."""

import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import dagster as dg
import pytest

from sessions_pipeline.errors import SettingError
from sessions_pipeline.langsmith.source import MOST_WAITING
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.process_day import DayResult
from sessions_pipeline.tables import RAW_SESSIONS
from sessions_pipeline_tests.faulty_server import running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import (
    DAYS,
    FIRST,
    KEY,
    NOW,
    TODAY,
    contents,
    execute,
    failing_in_one_line,
    read,
    settings_for,
    some_records,
)
from sessions_pipeline_tests.integration.scripted_server import answer, scripted


def run(pipeline: Pipeline) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        execute(pipeline, FIRST, TODAY, instance=instance)


def test_pages_requested_before_the_run_are_not_requested_again(tmp_path: Path) -> None:
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        read(sandbox, tmp_path / "usual", clock=lambda: NOW)
        sandbox.requests.clear()
        asked = threading.Event()
        sandbox.api.before_answer = lambda _request: asked.set()
        pipeline = Pipeline(settings_for(sandbox.url, tmp_path / "begun"), clock=lambda: NOW)
        with pipeline.start_fetching(DAYS):
            assert asked.wait(20)
            assert not (tmp_path / "begun").exists()
            run(pipeline)
        # The number of prefetched pages that are not needed depends on the timing of threads.
        offsets = [one["parameters"] for one in sandbox.requests if one["path"].endswith("/sessions")]
        assert len(offsets) == len({str(parameters) for parameters in offsets}) > 3
    assert contents(tmp_path / "begun") == contents(tmp_path / "usual")


def test_a_reading_that_was_started_early_is_used_once_and_only_for_its_own_days(tmp_path: Path) -> None:
    def received(pipeline: Pipeline, *days: Any) -> int:
        results = list[DayResult]()
        pipeline.process(days, [RAW_SESSIONS], print, results.append)
        return sum(result.metadata[RAW_SESSIONS.name]["received"] for result in results)

    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        pipeline = Pipeline(settings_for(sandbox.url, tmp_path), clock=lambda: NOW)
        with pipeline.start_fetching(DAYS):
            of_today = received(pipeline, TODAY)
            first, second = received(pipeline, *DAYS), received(pipeline, *DAYS)
        third = received(pipeline, *DAYS)
    assert 0 < of_today < first
    assert first == second == third


def test_the_program_does_not_wait_for_a_page_without_a_run(tmp_path: Path) -> None:
    asked, over = threading.Event(), threading.Event()

    def wait(_handler: object) -> None:
        asked.set()
        assert over.wait(60)

    with scripted(wait) as script:
        pipeline = Pipeline(settings_for(script.url, tmp_path), clock=lambda: NOW)
        with suppress(InterruptedError), pipeline.start_fetching(DAYS):
            assert asked.wait(20)
            raise InterruptedError
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("pages", "fetch"))]
        over.set()


def test_a_refusal_of_the_api_before_the_run_is_reported_by_the_run(tmp_path: Path) -> None:
    with scripted(answer(401)) as script:
        pipeline = Pipeline(settings_for(script.url, tmp_path, LANGSMITH_API_KEY=KEY), clock=lambda: NOW)
        with pipeline.start_fetching(DAYS), failing_in_one_line(Exception, "401"):
            run(pipeline)
    with pytest.raises(SettingError, match="LANGSMITH_API_KEY"), pipeline_without_key(tmp_path).start_fetching(DAYS):
        pass


def pipeline_without_key(root: Path) -> Pipeline:
    return Pipeline(settings_for("http://127.0.0.1:9", root, LANGSMITH_API_KEY=None), clock=lambda: NOW)


@pytest.mark.parametrize("count", [1, 2, 40])
def test_the_sessions_that_wait_do_not_grow_with_the_number_of_workspaces(count: int, tmp_path: Path) -> None:
    ids = ",".join(str(UUID(int=number)) for number in range(count))
    pipeline = Pipeline(settings_for("http://127.0.0.1:9", tmp_path, LANGSMITH_WORKSPACE_ID=ids))
    with pipeline.sources() as (_, sources):
        assert len(sources) == count
        assert 0.9 * MOST_WAITING < sum(source.most_waiting for source in sources) <= MOST_WAITING


FAILS_WHILE_MANY_WAIT = """
import sys
from datetime import UTC, date, datetime, timedelta
from sessions_pipeline.langsmith.source import MOST_WAITING, read_ahead
from sessions_pipeline.workers import workers_for
from sessions_pipeline.tables.readings import RawDay, Reading
from sessions_pipeline.langsmith.records import RAW_SCHEMA, Record, records_table
from sessions_pipeline.tables.rows import Rows

RECORDS = [Record("{}", None, None, None, None, undated=True)] * MOST_WAITING

def days():
    for number in range(9):
        day = date(2026, 1, 9) - timedelta(days=number)
        yield RawDay(day, Rows(RAW_SCHEMA, [records_table(RECORDS)]), [Reading(0, datetime.now(UTC))])

def fail(lake, day):
    raise OSError("No space left on device")

with workers_for(0, None, "", {}) as workers:
    workers.run(fail, ((day,) for day in read_ahead(days(), MOST_WAITING)), print)
"""


def test_a_run_that_fails_while_many_sessions_wait_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FAILS_WHILE_MANY_WAIT]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith("OSError: No space left on device\n")


LOADS_DAGSTER_LATE = """
import sys, threading
from datetime import date
from sessions_pipeline.cli.runs import run_days
from sessions_pipeline.settings import Settings
from sessions_pipeline_tests.integration.scripted_server import scripted

asked = threading.Event()

class Late:
    def find_spec(self, name, path=None, target=None):
        if name == "dagster":
            assert asked.wait(20), "nothing was asked before Dagster was loaded"

def step(handler):
    asked.set()
    handler.reply()

sys.meta_path.insert(0, Late())
with scripted(step) as script:
    settings = Settings.model_validate({
        "LANGSMITH_API_KEY": "key", "LANGSMITH_ENDPOINT": script.url, "SESSIONS_PIPELINE_DATA_ROOT": sys.argv[1]
    })
    run_days(settings, date(2026, 3, 18), date(2026, 3, 18))
"""


def test_materialize_requests_the_first_page_before_it_loads_dagster(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOADS_DAGSTER_LATE, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
