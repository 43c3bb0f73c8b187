"""What Dagster asks for by itself: the sensor over HTTP, the nightly refresh and the catch-up of usage."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.orchestration import changes, schedules
from sessions_pipeline.orchestration.build import build_definitions
from sessions_pipeline.orchestration.partitions import range_tags
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.orchestration.usage import FINAL, nightly_project_costs, unmeasured_days
from sessions_pipeline.sandbox.company import Session
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import DAILY_COST_BY_PROJECT
from sessions_pipeline_tests.faulty_server import Fault, Sandbox, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import NOW, TODAY, settings_for

OLD = TODAY - timedelta(days=12)
FIRST = date(2026, 1, 1)


def evaluate(
    settings: Settings,
    instance: dg.DagsterInstance,
    cursor: str | None,
    monkeypatch: pytest.MonkeyPatch,
    time: datetime,
) -> tuple[list[str], str, list[str | None]]:
    """One tick of the sensor at `time`: the first days asked for, the next cursor, and the run keys."""
    monkeypatch.setattr(schedules, "now", lambda: time)
    sensor = schedules.changed_sessions(Pipeline(settings))
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    told = sensor.evaluate_tick(context)
    asked = [request.tags["dagster/asset_partition_range_start"] for request in told.run_requests or []]
    assert told.cursor is not None
    return asked, told.cursor, [request.run_key for request in told.run_requests or []]


def an_old_experiment(sandbox: Sandbox) -> Session:
    sessions: list[Session] = sandbox.api.data.sessions  # type: ignore[attr-defined]
    return next(s for s in sessions if s.start and s.start.date() == OLD and s.dataset and not s.broken)


def test_new_activity_on_an_old_day_is_asked_for_once_over_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_sandbox(now=NOW) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=FIRST)
        session = an_old_experiment(sandbox)
        _, cursor, _ = evaluate(settings, instance, None, monkeypatch, NOW)
        wake(sandbox, session, NOW + timedelta(minutes=30))
        asked, later, _ = evaluate(settings, instance, cursor, monkeypatch, NOW + timedelta(hours=1))
        assert OLD.isoformat() in asked
        again, _, _ = evaluate(settings, instance, later, monkeypatch, NOW + timedelta(hours=2))
        assert OLD.isoformat() not in again
        # A crash before the cursor was kept: the same is asked for again.
        repeated, _, _ = evaluate(settings, instance, cursor, monkeypatch, NOW + timedelta(hours=1))
        assert repeated == asked


def wake(sandbox: Sandbox, session: Session, until: datetime) -> None:
    """Runs on a session long after it started."""
    session.until = until
    session.__dict__.pop("runs", None)
    sandbox.api.now = until
    sandbox.api.data.now = until  # type: ignore[attr-defined]
    sandbox.api.data.forget(session)  # type: ignore[attr-defined]
    session.runs[-1:] = [session.runs[-1]._replace(start_us=int(until.timestamp()) * 1_000_000)]


def test_a_tick_that_fails_asks_for_nothing_and_keeps_the_cursor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_sandbox(now=NOW) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        sandbox.faults.add(Fault("status", 401, times=None))
        settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=FIRST)
        with pytest.raises(Exception, match="401"):
            evaluate(settings, instance, None, monkeypatch, NOW)


def test_days_of_waiting_running_and_failed_runs_are_known(tmp_path: Path) -> None:
    definitions = build_definitions(Pipeline(settings_for("http://127.0.0.1:9", tmp_path)))
    job = definitions.get_repository_def().get_job("refresh_sessions")
    with dg.DagsterInstance.ephemeral() as instance:
        for status, day, sensor in (
            (dg.DagsterRunStatus.NOT_STARTED, 1, "changed_sessions"),
            (dg.DagsterRunStatus.STARTED, 3, "changed_sessions"),
            (dg.DagsterRunStatus.SUCCESS, 5, "changed_sessions"),
            (dg.DagsterRunStatus.FAILURE, 7, "changed_sessions"),
            (dg.DagsterRunStatus.FAILURE, 9, ""),
        ):
            first = date(2026, 3, day)
            tags = {
                **range_tags(first, first + timedelta(days=1)),
                **({"dagster/sensor_name": sensor} if sensor else {}),
            }
            instance.create_run_for_job(job, tags=tags, status=status)
        being_read = changes.days_being_read(instance, "refresh_sessions")
        failed = changes.days_that_failed(instance, "changed_sessions", datetime(2020, 1, 1, tzinfo=UTC))
        later = changes.days_that_failed(instance, "changed_sessions", datetime.now(UTC) + timedelta(days=1))
    assert sorted(day.day for day in being_read) == [1, 2, 3, 4]
    assert sorted(day.day for day in failed) == [7, 8]
    assert later == set()


def test_the_nightly_refresh_asks_for_31_days_but_those_being_read(tmp_path: Path) -> None:
    settings = settings_for("http://127.0.0.1:9", tmp_path, SESSIONS_PIPELINE_START_DATE=FIRST)
    job = build_definitions(Pipeline(settings)).get_repository_def().get_job("refresh_sessions")
    schedule = schedules.nightly_refresh(settings)
    with dg.instance_for_test() as instance:
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=NOW)
        [all_days] = schedule.evaluate_tick(context).run_requests or []
        instance.create_run_for_job(job, tags=range_tags(OLD, OLD), status=dg.DagsterRunStatus.STARTED)
        two = schedule.evaluate_tick(context).run_requests or []
    assert span(all_days) == (TODAY - timedelta(days=30), TODAY)
    assert [span(request) for request in two] == [
        (TODAY - timedelta(days=30), OLD - timedelta(days=1)),
        (OLD + timedelta(days=1), TODAY),
    ]


def test_the_hourly_refresh_is_one_run_of_the_lookback_days_and_today(tmp_path: Path) -> None:
    settings = settings_for("http://127.0.0.1:9", tmp_path, SESSIONS_PIPELINE_START_DATE=TODAY - timedelta(days=1))
    with dg.instance_for_test() as instance:
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=NOW)
        [request] = schedules.hourly_refresh(settings).evaluate_tick(context).run_requests or []
    assert span(request) == (TODAY - timedelta(days=1), TODAY)


def span(request: dg.RunRequest) -> tuple[date, date]:
    first, last = (request.tags[f"dagster/asset_partition_range_{end}"] for end in ("start", "end"))
    return date.fromisoformat(first), date.fromisoformat(last)


def test_usage_catches_up_on_missed_and_unfinished_days_within_reach(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path), query={})
    yesterday = TODAY - timedelta(days=1)
    assert unmeasured_days(lake, yesterday, first=FIRST) == [yesterday]
    empty = DAILY_COST_BY_PROJECT.schema.empty_table()
    for back, is_over in ((40, True), (6, True), (5, False), (3, True)):
        lake.replace(DAILY_COST_BY_PROJECT, TODAY - timedelta(days=back), empty, {FINAL: str(is_over)})
    assert [(TODAY - day).days for day in unmeasured_days(lake, yesterday, first=FIRST)] == [5, 4, 2, 1]
    assert [(TODAY - day).days for day in unmeasured_days(lake, yesterday, first=TODAY - timedelta(days=4))] == [2, 1]
    schedule = nightly_project_costs(Pipeline(settings_for("http://127.0.0.1:9", tmp_path)))
    with dg.instance_for_test() as instance:
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=NOW)
        spans = [span(request) for request in schedule.evaluate_tick(context).run_requests or []]
    assert [((TODAY - first).days, (TODAY - last).days) for first, last in spans] == [(5, 4), (2, 1)]


def test_the_cursor_is_small_whatever_happened_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_sandbox(now=NOW) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=FIRST)
        _, cursor, _ = evaluate(settings, instance, None, monkeypatch, NOW)
        listed = len(json.loads(cursor)["seen"])
        for hours in range(1, 4):
            _, cursor, _ = evaluate(settings, instance, cursor, monkeypatch, NOW + timedelta(hours=hours))
    assert len(json.loads(cursor)["seen"]) <= listed < 1000
