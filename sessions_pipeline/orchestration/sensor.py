"""The sensor for late truth: older days whose sessions had new runs are asked for again.

A tick ends within its time, whatever the API does: what was found until then is asked for, and the next look lists the
same stretch of time again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta

import dagster as dg
import msgspec

from sessions_pipeline.days import day_of_us, days_between, utc_day
from sessions_pipeline.errors import DeadlineExceededError
from sessions_pipeline.langsmith.activity import Activity, active_since
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.orchestration.schedules import REFRESH, runs_of, tagged_range
from sessions_pipeline.settings import Settings

SENSOR = "changed_sessions"
# Long-lived projects are always active: their first day would be read again at every look.
LOOK_EVERY_SECONDS = 3600
# Dagster drops a tick after 60 s, and its cursor with it.
LOOK_SECONDS = 40.0
# A run is listed under the time it started, yet may arrive when it ends: look this far back again.
OVERLAP = timedelta(hours=2)
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]
FAILED = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


@dataclass(frozen=True, slots=True)
class Cursor:
    """What the sensor remembers: how far and when it looked, what it saw in the overlap, days still to be asked for.

    `since` is the latest activity that whole looks have seen, `looked` the time of the last look.
    """

    since: datetime
    looked: datetime
    seen: dict[str, str] = field(default_factory=dict)
    pending: tuple[date, ...] = ()

    def dump(self) -> str:
        """As text, for Dagster to keep."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def load(cls, text: str | None, now: datetime) -> "Cursor":
        """From its text; the first look begins one overlap before now."""
        return msgspec.json.decode(text, type=cls) if text else cls(now, now)

    @property
    def look_from(self) -> datetime:
        """The time from which activity is to be listed."""
        return self.since - OVERLAP

    def after(self, activity: Iterable[Activity], *, whole: bool, first: date, last: date) -> "Cursor":
        """The cursor after a listing: days from `first` to `last` with activity not seen before are pending.

        Days after `last` are the schedule's. Their activity is not kept as seen: a day may grow too old for the
        schedule before it has read it. Of a listing that is not `whole`, only what was seen is kept.
        """
        latest, seen, days = self.since, dict[str, str](), set(self.pending)
        for active in activity:
            latest = max(latest, active.latest_run)
            day = None if active.start_us is None else day_of_us(active.start_us)
            if day is not None and day > last:
                continue
            seen[active.session] = active.latest_run.isoformat()
            if day is not None and day >= first and self.seen.get(active.session) != seen[active.session]:
                days.add(day)
        pending = tuple(sorted(days))
        if not whole:
            return replace(self, seen={**self.seen, **seen}, pending=pending)
        return replace(self, since=latest, seen=seen, pending=pending)


def changed_sessions(pipeline: Pipeline, seconds: float = LOOK_SECONDS) -> dg.SensorDefinition:
    """Older days whose sessions had new runs; a look at the API takes at most so many seconds."""

    @dg.sensor(
        name=SENSOR,
        job_name=REFRESH,
        minimum_interval_seconds=LOOK_EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Refreshes older days whose sessions had new activity.",
    )
    def changed_sessions(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        time, instance = pipeline.clock(), context.instance
        before = Cursor.load(context.cursor, time)
        activity, whole = list_activity(pipeline, before.look_from, seconds)
        cursor, days = next_look(
            before,
            activity,
            whole=whole,
            time=time,
            settings=pipeline.settings,
            being_read=days_being_read(instance),
            failed=days_that_failed(instance, before.looked),
        )
        skipped = "no older day has changed" if whole else "the API is slow or limits the rate; the next look goes on"
        return dg.SensorResult(
            run_requests=runs_of(days, time), cursor=cursor.dump(), skip_reason=None if days else skipped
        )

    return changed_sessions


def next_look(
    before: Cursor,
    activity: Iterable[Activity],
    *,
    whole: bool,
    time: datetime,
    settings: Settings,
    being_read: set[date],
    failed: set[date],
) -> tuple[Cursor, set[date]]:
    """The next cursor and the days to ask for: those that changed, and `failed` ones once more.

    Days being read stay pending; those of the lookback are the schedule's.
    """
    last = utc_day(time) - timedelta(days=settings.lookback_days + 1)
    after = before.after(activity, whole=whole, first=settings.start_date, last=last)
    wanted = {*after.pending, *failed}
    return replace(after, looked=time, pending=tuple(sorted(wanted & being_read))), wanted - being_read


def list_activity(pipeline: Pipeline, since: datetime, seconds: float) -> tuple[list[Activity], bool]:
    """The activity since a time in every workspace, and whether it is all of it, or what came within `seconds`.

    Raises:
        ApiError: a workspace could not be listed.
    """
    listed: list[Activity] = []
    try:
        with pipeline.workspaces() as (client, workspaces):
            client.throttle.end_within(seconds)
            for workspace in workspaces:
                with workspace.named():
                    listed.extend(active_since(client, pipeline.query, workspace=workspace.asked, since=since))
    except DeadlineExceededError:
        return listed, False
    return listed, True


def days_being_read(instance: dg.DagsterInstance) -> set[date]:
    """The days of the refreshes that wait or run."""
    return _days_of_runs(instance, dg.RunsFilter(job_name=REFRESH, statuses=UNFINISHED))


def days_that_failed(instance: dg.DagsterInstance, since: datetime) -> set[date]:
    """The days of the sensor's runs that have failed or were cancelled since a time."""
    tags = {"dagster/sensor_name": SENSOR}
    return _days_of_runs(instance, dg.RunsFilter(statuses=FAILED, tags=tags, updated_after=since))


def _days_of_runs(instance: dg.DagsterInstance, filters: dg.RunsFilter) -> set[date]:
    spans = (tagged_range(run.tags) for run in instance.get_runs(filters=filters))
    return {day for span in spans if span for day in days_between(*span)}
