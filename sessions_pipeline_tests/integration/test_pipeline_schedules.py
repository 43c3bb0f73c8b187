"""The runs that Dagster requests by itself: by the sensor over HTTP, which ends in time, and by the schedules."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import dagster as dg
import pytest

from sessions_pipeline.activity import Cursor
from sessions_pipeline.definitions import build_definitions
from sessions_pipeline.langsmith.auth import Auth
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.throttle import Throttle
from sessions_pipeline.langsmith.transport import Transport
from sessions_pipeline.orchestration import dump_cursor, range_tags, tagged_range
from sessions_pipeline.orchestration.automation import (
    LOOK_SECONDS,
    changed_sessions,
    days_being_read,
    days_that_failed,
)
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.sandbox.company import OTHER_WORKSPACE, WORKSPACE, Session
from sessions_pipeline.settings import Settings
from sessions_pipeline_tests.clock import Clock
from sessions_pipeline_tests.faulty_server import Fault, Sandbox, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import NOW, TODAY, record, settings_for

OLD = TODAY - timedelta(days=12)
FIRST = date(2026, 1, 1)
SLOW = "the API is slow or limits the rate; the next tick lists the rest"
NOWHERE = "http://127.0.0.1:9"


def evaluate(
    settings: Settings, instance: dg.DagsterInstance, cursor: str | None, moment: datetime, seconds: float = 40
) -> tuple[list[str], str, str | None]:
    """One tick of the sensor: the first days of its requests, the next cursor, and the reason for no request."""
    return tick(Pipeline(settings, clock=lambda: moment), instance, cursor, seconds)


def tick(
    pipeline: Pipeline, instance: dg.DagsterInstance, cursor: str | None, seconds: float = LOOK_SECONDS
) -> tuple[list[str], str, str | None]:
    sensor = changed_sessions(pipeline, seconds)
    tick_result = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=cursor))
    asked = [request.tags["dagster/asset_partition_range_start"] for request in tick_result.run_requests or []]
    assert tick_result.cursor is not None
    return asked, tick_result.cursor, tick_result.skip_message


def an_old_experiment(sandbox: Sandbox) -> Session:
    sessions: list[Session] = sandbox.api.data.sessions  # type: ignore[attr-defined]
    return next(s for s in sessions if s.start and s.start.date() == OLD and s.dataset and not s.broken)


def wake(sandbox: Sandbox, session: Session, until: datetime) -> None:
    """Add runs to a session long after it started."""
    session.until = until
    session.__dict__.pop("runs", None)
    sandbox.api.now = until
    sandbox.api.data.records.pop(session.id, None)  # type: ignore[attr-defined]
    session.runs[-1:] = [session.runs[-1]._replace(start_us=int(until.timestamp()) * 1_000_000)]


def test_new_activity_on_an_old_day_is_requested_once_over_http(tmp_path: Path) -> None:
    with running_sandbox(now=NOW, is_drawn=True) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=FIRST)
        session = an_old_experiment(sandbox)
        _, cursor, _ = evaluate(settings, instance, None, NOW)
        wake(sandbox, session, NOW + timedelta(minutes=30))
        asked, later, _ = evaluate(settings, instance, cursor, NOW + timedelta(hours=1))
        assert OLD.isoformat() in asked
        again, _, why = evaluate(settings, instance, later, NOW + timedelta(hours=2))
        assert OLD.isoformat() not in again
        assert again or why == "no older day needs a refresh now"
        # After a crash before the cursor was stored, the same days are requested again.
        repeated, _, _ = evaluate(settings, instance, cursor, NOW + timedelta(hours=1))
        assert repeated == asked


@pytest.mark.parametrize(
    ("changed", "runs"),
    [
        ((0, 3, 10, 18, 19), [(0, 10), (18, 19)]),
        (range(0, 68, 6), [(0, 30), (31, 61), (62, 66)]),
    ],
    ids=["a week apart", "so many that one run would read all history"],
)
def test_changed_days_up_to_a_week_apart_are_refreshed_in_one_run_of_31_days_at_most(
    tmp_path: Path, changed: Sequence[int], runs: list[tuple[int, int]]
) -> None:
    days = [FIRST + timedelta(days=number) for number in range(70)]
    active = (NOW - timedelta(minutes=30)).isoformat()
    texts = [
        record(number, datetime.combine(days[number], NOW.timetz()), last_run_start_time=active) for number in changed
    ]
    with running_sandbox(texts=texts[::-1], now=NOW) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=FIRST)
        sensor = changed_sessions(Pipeline(settings, clock=lambda: NOW))
        tick_result = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
    spans = [tagged_range(request.tags) for request in tick_result.run_requests or []]
    assert spans == [(days[first], days[last]) for first, last in runs]
    assert len({request.run_key for request in tick_result.run_requests or []}) == len(runs), (
        "Dagster runs each key once"
    )


@pytest.mark.parametrize(
    "text", ["abc", "[]", '{"a":1}', '{"since":"2026-03-20T12:00:00","looked":"2026-03-20T12:00:00"}', "[" * 100_000]
)
def test_a_cursor_that_was_edited_by_hand_and_is_none_starts_the_search_anew_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """The fourth lacks the time zone."""
    with running_sandbox(now=NOW, is_drawn=True) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        wake(sandbox, an_old_experiment(sandbox), NOW - timedelta(minutes=30))
        settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=FIRST)
        new = evaluate(settings, instance, None, NOW)
        assert evaluate(settings, instance, text, NOW) == new
        context = dg.build_sensor_context(instance=instance, cursor=text)
        context.log.addHandler(caplog.handler)
        changed_sessions(Pipeline(settings, clock=lambda: NOW)).evaluate_tick(context)
    assert OLD.isoformat() in new[0]
    assert "The cursor can't be read, so the search starts anew: " in caplog.text


def test_a_tick_that_the_api_refuses_fails_and_keeps_the_cursor(tmp_path: Path) -> None:
    with running_sandbox(now=NOW, is_drawn=True) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        sandbox.faults.add(Fault("status", 401, times=None))
        settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=FIRST)
        with pytest.raises(dg.DagsterError, match="401"):  # Dagster puts others below a stack trace
            evaluate(settings, instance, None, NOW)


def test_a_tick_that_is_cut_off_requests_what_it_listed_and_the_next_one_lists_the_rest(tmp_path: Path) -> None:
    with running_sandbox(now=NOW, is_drawn=True) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        sessions: list[Session] = sandbox.api.data.sessions  # type: ignore[attr-defined]
        # An old day has the newest activity. That of other days fills the first page of a hundred and goes on after it.
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
        left = json.loads(after)
        assert all(left[name] == complete[name] for name in ("since", "looked", "seen", "stopped"))
        assert set(left["pending"]) <= set(cut["requested"]), "days over a month old that the first tick has requested"


class Clocked(Pipeline):
    """A pipeline whose client measures its deadline with the test's clock."""

    seconds: ClassVar[Clock]

    def connect(self) -> SessionsClient:
        auth, clock = Auth(self.settings), self.seconds
        throttle = Throttle(1, deadline_seconds=7200, clock=clock, wait=clock.wait)
        transport = Transport(auth, most_connections=1)
        return SessionsClient(self.settings, clock=self.clock, throttle=throttle, transport=transport)


@contextmanager
def slow_api(tmp_path: Path, texts: list[str], seconds: float, **values: str) -> Iterator[tuple[Sandbox, Clocked]]:
    """A server whose answers each move the clock on by this many seconds, and a pipeline that uses it."""
    with running_sandbox(texts=texts, now=NOW) as sandbox:
        clock = Clock()
        sandbox.api.before_answer = lambda _: clock.wait(threading.Condition(), seconds)
        pipeline = Clocked(
            settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=FIRST, **values), clock=lambda: NOW
        )
        Clocked.seconds = clock
        yield sandbox, pipeline


def busy(number: int, minutes: float) -> str:
    """A session on one of 25 days, whose latest run was this many minutes ago."""
    start = datetime(2026, 2, 20, tzinfo=UTC) + timedelta(days=number % 25)
    return record(number, start, last_run_start_time=(NOW - timedelta(minutes=minutes)).isoformat())


def test_a_tick_that_the_api_asks_to_wait_ends_without_waiting_with_a_reason_and_a_cursor(tmp_path: Path) -> None:
    with slow_api(tmp_path, [busy(0, 30)], 0) as (sandbox, pipeline), dg.DagsterInstance.ephemeral() as instance:
        sandbox.faults.add(Fault("status", 429, times=1))
        before = Clocked.seconds()
        asked, cursor, why = tick(pipeline, instance, None)
        assert (asked, why) == ([], SLOW)
        assert Clocked.seconds() == before
        assert json.loads(cursor)["stopped"] is None, "nothing was listed, so the next tick starts from the beginning"
        assert tick(pipeline, instance, cursor)[0] == ["2026-02-20"]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_look_that_takes_longer_than_a_tick_continues_in_the_next_until_it_is_complete(
    tmp_path: Path, version: str
) -> None:
    """With three pages a tick and 600 sessions, each tick continues where the last one stopped."""
    texts = [busy(number, number / 10) for number in range(600)]
    values = {"SESSIONS_PIPELINE_API_VERSION": version}
    with slow_api(tmp_path, texts, 18, **values) as (sandbox, pipeline), dg.DagsterInstance.ephemeral() as instance:
        _, cursor, _ = tick(pipeline, instance, None)
        assert json.loads(cursor)["stopped"] is not None
        # Meanwhile some sessions that were not listed yet get new runs, and move to the front; and some that were
        # listed are deleted, including the last one, so that later ones move up.
        kept = [*texts[30:299], *texts[300:]] if version == "v1" else texts
        sandbox.api.data.texts = [  # type: ignore[attr-defined]
            *(busy(number, -1) for number in range(580, 587)),
            *(text for text in kept if text not in texts[580:587]),
        ]
        ticks = 1
        while json.loads(cursor)["stopped"] is not None:
            assert ticks < 3, "else a sensor that does not get on would hang the suite"
            _, cursor, _ = tick(pipeline, instance, cursor)
            ticks += 1
        whole = json.loads(cursor)
        assert len(sandbox.requests) <= 9
        assert len(whole["seen"]) == 593, "all but those that moved over to what was listed"
        assert whole["since"] == NOW.isoformat().replace("+00:00", "Z"), "what the first tick saw, not the last"
        days, cursor, _ = tick(pipeline, instance, cursor)
        assert days == [(date(2026, 2, 20) + timedelta(days=580 % 25)).isoformat()], "one run for the seven days"


def test_a_cursor_that_is_too_old_starts_the_look_again(tmp_path: Path) -> None:
    texts = [busy(number, number / 10) for number in range(150)]
    values = {"SESSIONS_PIPELINE_API_VERSION": "v2"}
    with slow_api(tmp_path, texts, 45, **values) as (sandbox, pipeline), dg.DagsterInstance.ephemeral() as instance:
        _, cursor, _ = tick(pipeline, instance, None)
        Clocked.seconds.now = 0
        sandbox.api.before_answer = None
        sandbox.faults.add(Fault("status", 422, times=1))
        _, cursor, _ = tick(pipeline, instance, cursor)
        assert len(json.loads(cursor)["seen"]) == 150
    assert [dict(request["parameters"]).get("cursor") is None for request in sandbox.requests] == [
        *(True, False),
        *(True, False),
    ]


def test_a_tick_continues_in_the_workspace_where_the_last_one_stopped(tmp_path: Path) -> None:
    names = [WORKSPACE, OTHER_WORKSPACE]
    texts = [busy(number, number / 10) for number in range(150)]
    with slow_api(tmp_path, texts, 15, LANGSMITH_WORKSPACE_ID=",".join(names)) as (sandbox, pipeline):
        with dg.DagsterInstance.ephemeral() as instance:
            _, cursor, _ = tick(pipeline, instance, None)
            sandbox.api.data.texts.insert(0, busy(150, -30))  # type: ignore[attr-defined]
            _, cursor, _ = tick(pipeline, instance, cursor)
        assert json.loads(cursor)["stopped"] is None
        assert json.loads(cursor)["since"] == NOW.isoformat().replace("+00:00", "Z"), (
            "as the first has seen no later ones"
        )
    asked = [request["workspace"] for request in sandbox.requests]
    assert asked == [WORKSPACE] * 3 + [OTHER_WORKSPACE] * 3


def test_a_tick_ends_although_the_api_does_not_answer(tmp_path: Path) -> None:
    with running_sandbox(now=NOW, is_drawn=True) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        ended = threading.Event()
        # A tick that waits longer gets its answer, and so another reason.
        sandbox.api.before_answer = lambda _: ended.wait(30)
        try:
            settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=FIRST)
            _, _, why = evaluate(settings, instance, None, NOW, seconds=0.5)
        finally:
            ended.set()
        assert why == SLOW


def test_days_of_waiting_running_failed_and_cancelled_runs_are_known(tmp_path: Path) -> None:
    job = build_definitions(Pipeline(settings_for(NOWHERE, tmp_path))).get_repository_def().get_job("refresh_sessions")
    with dg.DagsterInstance.ephemeral() as instance:
        for status, day, sensor in (
            (dg.DagsterRunStatus.NOT_STARTED, 1, "changed_sessions"),
            (dg.DagsterRunStatus.STARTED, 3, "changed_sessions"),
            (dg.DagsterRunStatus.SUCCESS, 5, "changed_sessions"),
            (dg.DagsterRunStatus.FAILURE, 7, "changed_sessions"),
            (dg.DagsterRunStatus.FAILURE, 9, ""),
            (dg.DagsterRunStatus.CANCELED, 11, "changed_sessions"),
        ):
            first = date(2026, 3, day)
            tags = range_tags(first, first + timedelta(days=1)) | ({"dagster/sensor_name": sensor} if sensor else {})
            instance.create_run_for_job(job, tags=tags, status=status)
        being_read = days_being_read(instance, datetime.now(UTC) - timedelta(hours=1))
        failed = days_that_failed(instance, datetime(2020, 1, 1, tzinfo=UTC))
        later = days_that_failed(instance, datetime.now(UTC) + timedelta(days=1))
    assert sorted(day.day for day in being_read) == [1, 2, 3, 4]
    assert sorted(day.day for day in failed) == [7, 8, 11, 12]
    assert later == set()


def test_a_run_that_died_before_it_began_holds_its_days_back_for_a_day_only(tmp_path: Path) -> None:
    with running_sandbox(texts=[], now=NOW) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=FIRST)
        job = build_definitions(Pipeline(settings)).get_repository_def().get_job("refresh_sessions")
        instance.create_run_for_job(job, tags=range_tags(OLD, OLD))
        cursor = dump_cursor(Cursor(NOW, NOW, pending=(OLD,)))
        present = datetime.now(UTC)
        asked, cursor, _ = evaluate(settings, instance, cursor, present)
        assert (asked, json.loads(cursor)["pending"]) == ([], [OLD.isoformat()])
        asked, cursor, _ = evaluate(settings, instance, cursor, present + timedelta(days=1, minutes=1))
        assert (asked, json.loads(cursor)["pending"]) == ([OLD.isoformat()], [])


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


@pytest.mark.parametrize(
    ("lookback", "days"), [("0", "today and the 0 days before"), ("1", "today and the 1 day before")]
)
def test_the_hourly_schedule_says_how_many_days_it_refreshes(tmp_path: Path, lookback: str, days: str) -> None:
    settings = settings_for(NOWHERE, tmp_path, SESSIONS_PIPELINE_LOOKBACK_DAYS=lookback)
    schedule = build_definitions(Pipeline(settings)).get_repository_def().get_schedule_def("hourly_refresh")
    assert schedule.description == f"Refreshes {days}."


def test_a_tick_from_before_the_first_partition_refreshes_that_partition(tmp_path: Path) -> None:
    """In the UI, a tick of yesterday can be evaluated and launched on the day on which the partitions begin."""
    settings = settings_for(NOWHERE, tmp_path, SESSIONS_PIPELINE_START_DATE=TODAY)
    repository = build_definitions(Pipeline(settings, clock=lambda: NOW)).get_repository_def()
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(
            instance=instance, scheduled_execution_time=NOW - timedelta(days=1), repository_def=repository
        )
        for schedule in ("hourly_refresh", "nightly_refresh"):
            [request] = repository.get_schedule_def(schedule).evaluate_tick(context).run_requests or []
            assert range_tags(TODAY, TODAY).items() <= request.tags.items()


def test_schedules_and_sensor_are_on_by_default(tmp_path: Path) -> None:
    repository = build_definitions(Pipeline(settings_for(NOWHERE, tmp_path))).get_repository_def()
    assert {schedule.name: schedule.default_status.value for schedule in repository.schedule_defs} == dict.fromkeys(
        ("hourly_refresh", "nightly_refresh", "nightly_project_costs", "nightly_judge_costs"), "RUNNING"
    )
    assert {sensor.name: sensor.default_status.value for sensor in repository.sensor_defs} == {
        "changed_sessions": "RUNNING"
    }


def test_every_day_up_to_today_is_read_by_the_schedule_or_the_sensor(tmp_path: Path) -> None:
    """The newest day that the sensor requests is the day before the schedule's first."""
    with running_sandbox(now=NOW, is_drawn=True) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=FIRST)
        repository = build_definitions(Pipeline(settings, clock=lambda: NOW)).get_repository_def()
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=NOW, repository_def=repository)
        [request] = repository.get_schedule_def("hourly_refresh").evaluate_tick(context).run_requests or []
        first = date.fromisoformat(request.tags["dagster/asset_partition_range_start"])
        for session in sandbox.api.data.sessions:  # type: ignore[attr-defined]
            if session.start and first - timedelta(days=2) < session.start.date() <= first:
                wake(sandbox, session, NOW)
        tick_result = repository.get_sensor_def("changed_sessions").evaluate_tick(
            dg.build_sensor_context(instance=instance)
        )
    last = max(request.tags["dagster/asset_partition_range_end"] for request in tick_result.run_requests or [])
    assert date.fromisoformat(last) == first - timedelta(days=1)


def test_the_cursor_is_small_whatever_happened_before(tmp_path: Path) -> None:
    with running_sandbox(now=NOW, is_drawn=True) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_START_DATE=FIRST)
        _, cursor, _ = evaluate(settings, instance, None, NOW)
        listed = len(json.loads(cursor)["seen"])
        for hours in range(1, 4):
            _, cursor, _ = evaluate(settings, instance, cursor, NOW + timedelta(hours=hours))
    assert len(json.loads(cursor)["seen"]) <= listed < 1000
