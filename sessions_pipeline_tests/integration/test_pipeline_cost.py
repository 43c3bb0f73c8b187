"""The cost of an hourly refresh (requests, files, statements) depends on what it reads, never on the lake's age."""

import os
import shutil
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import dagster as dg
import pytest
import sqlalchemy as db

from sessions_pipeline.days import midnight
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.store import Store, store_at
from sessions_pipeline.measurements import measure_judge_costs
from sessions_pipeline.orchestration.automation import changed_sessions
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.sandbox.company import OTHER_WORKSPACE, WORKSPACE
from sessions_pipeline.tables import CHECKS, RAW_SESSIONS, SESSIONS, TABLES, Table
from sessions_pipeline.tables import JUDGE_COST_BY_EXPERIMENT as JUDGES
from sessions_pipeline.tables.table import columns_read
from sessions_pipeline_tests.faulty_server import Sandbox, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import (
    DAYS,
    FIRST,
    NOW,
    TODAY,
    execute,
    read,
    record,
    settings_for,
    some_records,
)


class Cost(NamedTuple):
    """The numbers of a run's requests, opened files, calls of the store, and statements of Dagster's storage."""

    requests: int
    opened: Counter[str]
    calls: Counter[str]
    statements: int


class CountingLake(Lake):
    """A lake that counts opened files by table."""

    opened: Counter[str]

    def load(self, table: Table, day: Any, columns: Any = None) -> Any:
        self.opened[table.name] += 1
        return super().load(table, day, columns)

    def read(self, table: Table, day: Any, columns: Any = None) -> Any:
        self.opened[table.name] += 1
        return super().read(table, day, columns)

    def metadata(self, table: Table, day: Any) -> Any:
        self.opened[table.name] += 1
        return super().metadata(table, day)


class CountingStore:
    """A store that counts calls by method."""

    def __init__(self, store: Store, calls: Counter[str]) -> None:
        self._store, self._calls = store, calls

    def __getattr__(self, name: str) -> Any:
        self._calls[name] += 1
        return getattr(self._store, name)


class CountingPipeline(Pipeline):
    """A pipeline whose lakes and stores share their counters."""

    opened: ClassVar[Counter[str]] = Counter()
    calls: ClassVar[Counter[str]] = Counter()

    def open_lake(self, *, read_only: bool = False) -> Lake:
        store: Any = CountingStore(store_at(self.settings.data_root), self.calls)
        lake = CountingLake.open(store, query=self.settings.query, read_only=read_only)
        lake.opened = self.opened
        return lake


def age(root: Path, days: int) -> None:
    """Make the lake older: copy the first day's files to this number of days before it."""
    for table in (table for table in TABLES if table.partition_column == "start_date"):
        source = root / table.name / f"start_date={FIRST}"
        for back in range(1, days + 1) if source.exists() else ():
            folder = root / table.name / f"start_date={FIRST - timedelta(days=back)}"
            shutil.copytree(source, folder, copy_function=os.link)


def hour(sandbox: Sandbox, root: Path, start: date, instance: dg.DagsterInstance) -> Cost:
    """Run one more refresh of the latest days. Returns its cost."""
    # One request at a time: with several, their number at a list's end varies by one.
    values = {"LOOKBACK_DAYS": (TODAY - FIRST).days, "START_DATE": start, "CONCURRENCY": 1}
    settings = settings_for(sandbox.url, root, **{f"SESSIONS_PIPELINE_{name}": value for name, value in values.items()})
    pipeline = CountingPipeline(settings, clock=lambda: NOW, processes=1)
    pipeline.opened.clear()
    pipeline.calls.clear()
    statements: list[str] = []

    def record_statement(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    before = len(sandbox.requests)
    db.event.listen(db.Engine, "before_cursor_execute", record_statement)
    try:
        execute(pipeline, FIRST, TODAY, instance=instance)
    finally:
        db.event.remove(db.Engine, "before_cursor_execute", record_statement)
    return Cost(len(sandbox.requests) - before, Counter(pipeline.opened), Counter(pipeline.calls), len(statements))


def test_a_refresh_costs_the_same_on_a_lake_of_30_days_and_of_730(tmp_path: Path) -> None:
    costs = {}
    for days in (30, 730):
        root, start = tmp_path / str(days), FIRST - timedelta(days=days)
        # The API's list is as old as the lake, with a session an hour.
        older = [record(1000 + hours, midnight(FIRST) - timedelta(hours=hours)) for hours in range(1, 24 * days)]
        texts = some_records(200) + older
        with running_sandbox(texts=texts, now=NOW) as sandbox, dg.DagsterInstance.ephemeral() as instance:
            read(sandbox, root)
            age(root, days)
            hour(sandbox, root, start, instance)
            nothing_is_new = hour(sandbox, root, start, instance)
            sandbox.api.data.texts = some_records(201) + older  # type: ignore[attr-defined]
            costs[days] = nothing_is_new, hour(sandbox, root, start, instance)
    for young, old in zip(costs[30], costs[730], strict=True):
        # A prefetched page after the list's end is sometimes cancelled before it is sent.
        assert abs(old.requests - young.requests) <= 1
        assert old.opened == young.opened
        assert max(old.opened.values()) < 50
        assert old.calls == young.calls
        assert old.calls["listing"] <= 6
        # Nor does the number of SQL statements depend on the number of partitions in the definition.
        assert old.statements == young.statements


def test_checks_of_a_run_open_only_its_days_and_checks_of_all_730_days_open_each_file_once(tmp_path: Path) -> None:
    with running_sandbox(texts=some_records(200), now=NOW) as sandbox:
        read(sandbox, tmp_path)
    age(tmp_path, 730)
    settings = settings_for("http://127.0.0.1:9", tmp_path, SESSIONS_PIPELINE_LOOKBACK_DAYS=(TODAY - FIRST).days)
    pipeline = CountingPipeline(settings, clock=lambda: NOW, processes=1)
    needed_tables = {table.name for table in columns_read(list(CHECKS.values()))}
    for span, days in {(FIRST, TODAY): 3, None: 733}.items():
        pipeline.opened.clear()
        pipeline.examine(list(CHECKS.values()), span)
        assert needed_tables <= pipeline.opened.keys()
        assert set(pipeline.opened.values()) == {days}


def test_a_night_opens_each_file_of_judges_costs_once_however_many_workspaces_there_are(tmp_path: Path) -> None:
    values = {"LANGSMITH_WORKSPACE_ID": f"{WORKSPACE},{OTHER_WORKSPACE}", "SESSIONS_PIPELINE_JUDGE_REQUESTS": 4}
    with running_sandbox(now=NOW) as sandbox:
        pipeline = CountingPipeline(settings_for(sandbox.url, tmp_path, **values), clock=lambda: NOW, processes=1)
        pipeline.process(DAYS, [RAW_SESSIONS, SESSIONS], print, lambda _: None)
        measure_judge_costs(pipeline, print)
        age(tmp_path, 50)
        days = len(pipeline.open_lake().days(JUDGES))
        pipeline.opened.clear()
        _, night = measure_judge_costs(pipeline, print)
    assert len(night.readings) == 2
    # A day that is written is opened twice more: to merge into it, and for its sum.
    assert 50 < days <= pipeline.opened[JUDGES.name] <= days + 1 + 2 * 2 * len(DAYS)


@pytest.mark.parametrize(("every_seconds", "active"), [(60, 121), (0.3, 20_000)], ids=["quiet", "busy"])
def test_a_look_at_20000_sessions_requests_only_the_pages_of_those_with_new_runs(
    tmp_path: Path, every_seconds: float, active: int
) -> None:
    """One request for each hundred active sessions, and one for the end. The cursor holds about 70 bytes for each."""
    start = datetime(2026, 1, 3, tzinfo=UTC)
    texts = [
        record(number, start, last_run_start_time=(NOW - timedelta(seconds=every_seconds * number)).isoformat())
        for number in range(20_000)
    ]
    with running_sandbox(texts=texts, now=NOW) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=start.date())
        sensor = changed_sessions(Pipeline(settings, clock=lambda: NOW), 600)
        tick = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
    assert len(sandbox.requests) == active // 100 + 1
    assert len(tick.run_requests or []) == 1
    assert active * 60 < len(tick.cursor or "") < active * 80 + 200
