"""What Dagster asks for by itself: the sensor over HTTP, in its time whatever the API does, and the schedules."""

import json
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from sessions_pipeline.orchestration.build import build_definitions
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.orchestration.schedules import range_tags
from sessions_pipeline.orchestration.sensor import LOOK_SECONDS, changed_sessions, days_being_read, days_that_failed
from sessions_pipeline.sandbox.company import Session
from sessions_pipeline.settings import Settings
from sessions_pipeline_tests.faulty_server import Fault, Sandbox, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import NOW, TODAY, settings_for

OLD = TODAY - timedelta(days=12)
FIRST = date(2026, 1, 1)
NOWHERE = "http://127.0.0.1:9"


def evaluate(
    settings: Settings, instance: dg.DagsterInstance, cursor: str | None, moment: datetime, seconds: float = 40
) -> tuple[list[str], str, str | None]:
    """One tick of the sensor at a moment: the first days asked for, the next cursor, and why it asks for nothing."""
    sensor = changed_sessions(Pipeline(settings, clock=lambda: moment), seconds)
    told = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=cursor))
    asked = [request.tags["dagster/asset_partition_range_start"] for request in told.run_requests or []]
    assert told.cursor is not None
    return asked, told.cursor, told.skip_message


def an_old_experiment(sandbox: Sandbox) -> Session:
    sessions: list[Session] = sandbox.api.data.sessions  # type: ignore[attr-defined]
    return next(s for s in sessions if s.start and s.start.date() == OLD and s.dataset and not s.broken)


def wake(sandbox: Sandbox, session: Session, until: datetime) -> None:
    """Runs on a session long after it started."""
    session.until = until
    session.__dict__.pop("runs", None)
    sandbox.api.now = until
    sandbox.api.data.now = until  # type: ignore[attr-defined]
    sandbox.api.data.forget(session)  # type: ignore[attr-defined]
    session.runs[-1:] = [session.runs[-1]._replace(start_us=int(until.timestamp()) * 1_000_000)]


def test_new_activity_on_an_old_day_is_asked_for_once_over_http(tmp_path: Path) -> None:
    with running_sandbox(now=NOW) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=FIRST)
        session = an_old_experiment(sandbox)
        _, cursor, _ = evaluate(settings, instance, None, NOW)
        wake(sandbox, session, NOW + timedelta(minutes=30))
        asked, later, _ = evaluate(settings, instance, cursor, NOW + timedelta(hours=1))
        assert OLD.isoformat() in asked
        again, _, why = evaluate(settings, instance, later, NOW + timedelta(hours=2))
        assert OLD.isoformat() not in again
        assert again or why == "no older day has changed"
        # A crash before the cursor was kept: the same is asked for again.
        repeated, _, _ = evaluate(settings, instance, cursor, NOW + timedelta(hours=1))
        assert repeated == asked


def test_a_tick_that_fails_asks_for_nothing_and_keeps_the_cursor(tmp_path: Path) -> None:
    with running_sandbox(now=NOW) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        sandbox.faults.add(Fault("status", 401, times=None))
        settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=FIRST)
        with pytest.raises(Exception, match="401"):
            evaluate(settings, instance, None, NOW)


def test_a_tick_that_is_told_to_wait_ends_at_once_with_a_reason_and_a_cursor(tmp_path: Path) -> None:
    with running_sandbox(now=NOW) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        wake(sandbox, an_old_experiment(sandbox), NOW - timedelta(minutes=30))
        sandbox.faults.add(Fault("status", 429, times=1))
        settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=FIRST)
        began = time.monotonic()
        asked, cursor, why = evaluate(settings, instance, None, NOW)
        assert (asked, why) == ([], "the API is slow or limits the rate; the next look goes on")
        assert time.monotonic() - began < LOOK_SECONDS / 4
        asked, _, _ = evaluate(settings, instance, cursor, NOW + timedelta(hours=1))
        assert OLD.isoformat() in asked


def test_a_tick_that_is_cut_off_asks_for_what_it_listed_and_the_next_one_lists_the_rest(tmp_path: Path) -> None:
    with running_sandbox(now=NOW) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        sessions: list[Session] = sandbox.api.data.sessions  # type: ignore[attr-defined]
        # An old day's activity is the newest; that of other days fills the page of a hundred and goes on behind it.
        for session in [one for one in sessions if one.start and not one.broken][:300]:
            is_recent = session.start is not None and session.start.date() > OLD
            wake(sandbox, session, NOW - timedelta(minutes=1 if is_recent else 2))
        wake(sandbox, an_old_experiment(sandbox), NOW)
        settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=FIRST)
        _, whole, _ = evaluate(settings, instance, None, NOW)
        sandbox.faults.add(Fault("status", 429, times=1, after=1))
        asked, cursor, _ = evaluate(settings, instance, None, NOW)
        assert OLD.isoformat() in asked
        cut, complete = (json.loads(text) for text in (cursor, whole))
        assert cut["seen"].items() < complete["seen"].items()
        assert cut["since"] == NOW.isoformat().replace("+00:00", "Z"), "what was not listed is listed by the next tick"
        again, after, _ = evaluate(settings, instance, cursor, NOW)
        assert OLD.isoformat() not in again
        assert json.loads(after) == complete


def test_a_tick_of_an_api_that_answers_slowly_ends_in_its_time(tmp_path: Path) -> None:
    with running_sandbox(now=NOW) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        sandbox.faults.add(Fault("latency", 5.0, times=None))
        settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=FIRST)
        began = time.monotonic()
        _, _, why = evaluate(settings, instance, None, NOW, seconds=0.5)
        assert why == "the API is slow or limits the rate; the next look goes on"
        assert time.monotonic() - began < 4


def test_days_of_waiting_running_and_failed_runs_are_known(tmp_path: Path) -> None:
    job = build_definitions(Pipeline(settings_for(NOWHERE, tmp_path))).get_repository_def().get_job("refresh_sessions")
    with dg.DagsterInstance.ephemeral() as instance:
        for status, day, sensor in (
            (dg.DagsterRunStatus.NOT_STARTED, 1, "changed_sessions"),
            (dg.DagsterRunStatus.STARTED, 3, "changed_sessions"),
            (dg.DagsterRunStatus.SUCCESS, 5, "changed_sessions"),
            (dg.DagsterRunStatus.FAILURE, 7, "changed_sessions"),
            (dg.DagsterRunStatus.FAILURE, 9, ""),
        ):
            first = date(2026, 3, day)
            tags = range_tags(first, first + timedelta(days=1)) | ({"dagster/sensor_name": sensor} if sensor else {})
            instance.create_run_for_job(job, tags=tags, status=status)
        being_read = days_being_read(instance)
        failed = days_that_failed(instance, datetime(2020, 1, 1, tzinfo=UTC))
        later = days_that_failed(instance, datetime.now(UTC) + timedelta(days=1))
    assert sorted(day.day for day in being_read) == [1, 2, 3, 4]
    assert sorted(day.day for day in failed) == [7, 8]
    assert later == set()


@pytest.mark.parametrize(
    ("name", "start", "first"),
    [
        ("hourly_refresh", FIRST, TODAY - timedelta(days=3)),
        ("hourly_refresh", TODAY - timedelta(days=1), TODAY - timedelta(days=1)),
        ("nightly_refresh", FIRST, TODAY - timedelta(days=30)),
    ],
    ids=["the lookback days", "none before the first partition", "31 days"],
)
def test_a_refresh_is_one_run_that_ends_today(tmp_path: Path, name: str, start: date, first: date) -> None:
    settings = settings_for(NOWHERE, tmp_path, SESSIONS_PIPELINE_START_DATE=start)
    repository = build_definitions(Pipeline(settings)).get_repository_def()
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=NOW, repository_def=repository)
        [request] = repository.get_schedule_def(name).evaluate_tick(context).run_requests or []
    assert request.tags == range_tags(first, TODAY) | request.tags


def test_schedules_and_sensor_are_on_by_default(tmp_path: Path) -> None:
    repository = build_definitions(Pipeline(settings_for(NOWHERE, tmp_path))).get_repository_def()
    assert {schedule.name: schedule.default_status.value for schedule in repository.schedule_defs} == dict.fromkeys(
        ("hourly_refresh", "nightly_refresh", "nightly_project_costs", "nightly_judge_costs"), "RUNNING"
    )
    assert {sensor.name: sensor.default_status.value for sensor in repository.sensor_defs} == {
        "changed_sessions": "RUNNING"
    }


def test_every_day_up_to_today_is_the_schedules_or_the_sensors(tmp_path: Path) -> None:
    """The newest day that the sensor asks for is the one before the schedule's first."""
    with running_sandbox(now=NOW) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=FIRST)
        repository = build_definitions(Pipeline(settings, clock=lambda: NOW)).get_repository_def()
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=NOW, repository_def=repository)
        [request] = repository.get_schedule_def("hourly_refresh").evaluate_tick(context).run_requests or []
        first = date.fromisoformat(request.tags["dagster/asset_partition_range_start"])
        for session in sandbox.api.data.sessions:  # type: ignore[attr-defined]
            if session.start and first - timedelta(days=2) < session.start.date() <= first:
                wake(sandbox, session, NOW)
        told = repository.get_sensor_def("changed_sessions").evaluate_tick(dg.build_sensor_context(instance=instance))
    last = max(request.tags["dagster/asset_partition_range_end"] for request in told.run_requests or [])
    assert date.fromisoformat(last) == first - timedelta(days=1)


def test_the_cursor_is_small_whatever_happened_before(tmp_path: Path) -> None:
    with running_sandbox(now=NOW) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=FIRST)
        _, cursor, _ = evaluate(settings, instance, None, NOW)
        listed = len(json.loads(cursor)["seen"])
        for hours in range(1, 4):
            _, cursor, _ = evaluate(settings, instance, cursor, NOW + timedelta(hours=hours))
    assert len(json.loads(cursor)["seen"]) <= listed < 1000
