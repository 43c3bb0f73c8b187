"""The sensor for late truth: older days whose sessions had new runs are asked for again.

A tick ends within its time, whatever the API does: what was found until then is asked for, and the next tick goes on
where it stopped. It begins anew where nothing was found, or where the API no longer knows that place.
"""

from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import NamedTuple

import dagster as dg
import msgspec

from sessions_pipeline.days import day_of_us, days_between, ranges, utc_day
from sessions_pipeline.errors import DeadlineExceededError
from sessions_pipeline.langsmith.lists import NEWEST, Activity, Place, active_since
from sessions_pipeline.orchestration import REFRESH, range_tags, tagged_range
from sessions_pipeline.orchestration.pipeline import Pipeline
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


class Stopped(NamedTuple):
    """A look that is not over: the workspace and the place at which the next tick goes on, and `since` when it is."""

    workspace: str | None
    place: Place
    since: datetime


@dataclass(frozen=True, slots=True)
class Cursor:
    """What the sensor remembers: how far and when it looked, what it saw in the overlap, days still to be asked for.

    `since` is the latest activity that whole looks have seen, `looked` the time of the last tick.
    """

    since: datetime
    looked: datetime
    seen: dict[str, str] = field(default_factory=dict)
    pending: tuple[date, ...] = ()
    stopped: Stopped | None = None

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

    def after(self, look: "Look", *, first: date, last: date, now: datetime) -> "Cursor":
        """The cursor after a tick's look: days from `first` to `last` with activity not seen before are pending.

        Days after `last` are the schedule's. Their activity is not kept as seen: a day may grow too old for the
        schedule before it has read it.
        """
        seen, days = dict(self.seen), set(self.pending)
        # Of a look over several ticks only the first has surely seen what was the latest in every workspace. Runs have
        # their senders' times: one in the future must not hide what comes before it.
        latest = self.stopped.since if self.stopped else max([self.since, *(one.latest_run for one in look.listed)])
        since = min(now, latest)
        for active in look.listed:
            day = None if active.start_us is None else day_of_us(active.start_us)
            if day is not None and day > last:
                continue
            at = active.latest_run.isoformat()
            if day is not None and day >= first and self.seen.get(active.session) != at:
                days.add(day)
            seen[active.session] = at
        pending = tuple(sorted(days))
        if look.stopped_at:
            stopped = Stopped(*look.stopped_at, since) if self.stopped or look.listed else None
            return replace(self, seen=seen, pending=pending, stopped=stopped)
        oldest = (since - OVERLAP).isoformat()
        recent = {session: at for session, at in seen.items() if at >= oldest}
        return replace(self, since=since, seen=recent, pending=pending, stopped=None)


class Look(NamedTuple):
    """What a tick listed, and the workspace and place at which its time was over, None if all is listed."""

    listed: list[Activity]
    stopped_at: tuple[str | None, Place] | None = None


def changed_sessions(pipeline: Pipeline, seconds: float = LOOK_SECONDS) -> dg.SensorDefinition:
    """Older days whose sessions had new runs; a look at the API takes at most this many seconds."""

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
        look = list_activity(pipeline, before, seconds)
        cursor, days = next_look(
            before,
            look,
            time=time,
            settings=pipeline.settings,
            being_read=days_being_read(instance),
            failed=days_that_failed(instance, before.looked),
        )
        slow = "the API is slow or limits the rate; the next tick lists the rest"
        skipped = slow if look.stopped_at else "no older day has changed"
        # The time is in the key, since the same days may be asked for again.
        runs = [
            dg.RunRequest(run_key=f"{first}/{last}@{time.isoformat()}", tags=range_tags(first, last))
            for first, last in ranges(days)
        ]
        return dg.SensorResult(run_requests=runs, cursor=cursor.dump(), skip_reason=None if days else skipped)

    return changed_sessions


def next_look(
    before: Cursor,
    look: Look,
    *,
    time: datetime,
    settings: Settings,
    being_read: set[date],
    failed: set[date],
) -> tuple[Cursor, set[date]]:
    """The next cursor and the days to ask for: those that changed, and `failed` ones once more.

    Days being read stay pending; those of the lookback are the schedule's.
    """
    last = utc_day(time) - timedelta(days=settings.lookback_days + 1)
    after = before.after(look, first=settings.start_date, last=last, now=time)
    wanted = {*after.pending, *failed}
    return replace(after, looked=time, pending=tuple(sorted(wanted & being_read))), wanted - being_read


def list_activity(pipeline: Pipeline, before: Cursor, seconds: float) -> Look:
    """The activity that is to be listed in every workspace, or what of it came within `seconds`.

    Raises:
        ApiError: a workspace could not be listed.
    """
    listed: list[Activity] = []
    with pipeline.sources() as (client, sources):
        client.throttle.end_within(seconds)
        names, stopped, place, begin = [one.workspace for one in sources], before.stopped, NEWEST, 0
        if stopped and stopped.workspace in names:
            begin, place = names.index(stopped.workspace), stopped.place
        query, since = pipeline.query, before.look_from
        for source in sources[begin:]:
            try:
                with source.named():
                    pages = active_since(client, query, workspace=source.workspace, since=since, place=place)
                    for found, place in pages:  # noqa: B007 - known when the next page does not come
                        listed += found
            except DeadlineExceededError:
                return Look(listed, (source.workspace, place))
            place = NEWEST
    return Look(listed)


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
