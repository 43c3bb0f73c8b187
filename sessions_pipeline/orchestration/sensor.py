"""The sensor `changed_sessions`: refreshes older days whose sessions had new runs.

A tick lists the sessions that were active since the last look. If its time is over before the list is complete, it
requests the days that it found so far, and the next tick continues at the same place. If nothing was listed, or the API
no longer knows the place, the list starts from the beginning.
"""

from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Annotated, NamedTuple, TypeAlias

import dagster as dg
import msgspec

from sessions_pipeline.days import day_of_us, days_between, ranges, utc_day
from sessions_pipeline.errors import DeadlineExceededError
from sessions_pipeline.langsmith.lists import NEWEST, Activity, Place, active_since
from sessions_pipeline.orchestration import REFRESH, dump_cursor, load_cursor, range_tags, tagged_range
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.settings import Settings

SENSOR = "changed_sessions"
# Not more often, because long-lived projects are always active: each look refreshes the day they started on.
LOOK_EVERY_SECONDS = 3600
# Days older than `OFTEN` are refreshed only once in `DAILY`. Otherwise every project that is always active would cost a
# run and a reading an hour, for ever. Half an hour less than a day, since ticks do not come to the second.
OFTEN, DAILY = timedelta(days=31), timedelta(hours=23, minutes=30)
# Days up to a week apart are refreshed in one run, with those between them. A run alone takes a dozen requests to each
# workspace and 0.5 MB of Dagster's history; with 2,000 active projects, there would be 250 runs a day. But a run has 31
# days at most: if one day always fails, all days of its run are read again every hour.
JOINED, LONGEST = timedelta(days=7), timedelta(days=30)
# Dagster drops a tick that takes longer than 60 s, and its cursor with it.
LOOK_SECONDS = 40.0
# A session's run is listed by its start time, but may arrive only when it ends. So each look goes this far back again.
OVERLAP = timedelta(hours=2)
# An unfinished Dagster run that is older has died. Dagster notices this only if the run had begun.
LIVES = timedelta(days=1)
UNFINISHED = [dg.DagsterRunStatus[name] for name in ("QUEUED", "NOT_STARTED", "STARTING", "STARTED")]
FAILED = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
# A time without a zone can't be compared with others.
AwareDatetime: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


class Stopped(NamedTuple):
    """Where a look stopped: the next tick continues in this workspace at this place.

    `since` becomes the cursor's `since` when the look is complete.
    """

    workspace: str | None
    place: Place
    since: AwareDatetime


@dataclass(frozen=True, slots=True)
class Cursor:
    """What the sensor remembers from one tick to the next; Dagster stores it as text.

    `since` is the latest activity that complete looks have seen, `looked` the time of the last tick. `seen` has the
    latest run of each session in the overlap, as ISO 8601. `pending` are changed days that are still to be requested.
    `stopped` is set while a look is incomplete. `requested` are days older than `OFTEN`, with the request's time.
    """

    since: AwareDatetime
    looked: AwareDatetime
    seen: dict[str, str] = field(default_factory=dict)
    pending: tuple[date, ...] = ()
    stopped: Stopped | None = None
    requested: dict[date, AwareDatetime] = field(default_factory=dict)

    def after(self, look: "Look", *, first: date, last: date, now: datetime) -> "Cursor":
        """The cursor after a look, with the days from `first` to `last` that had new activity among the pending.

        The schedule refreshes the days after `last`. Their activity is not noted as seen: if the schedule does not read
        such a day before it becomes too old for it, the sensor has to.
        """
        seen, days = dict(self.seen), set(self.pending)
        # If a look takes several ticks, only the first has surely listed the latest activity of every workspace. The
        # clients set the times of runs: one in the future must not hide those that come before it.
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
    """What a tick listed, and the workspace and place at which its time was over; None if the list is complete."""

    listed: list[Activity]
    stopped_at: tuple[str | None, Place] | None = None


def changed_sessions(pipeline: Pipeline, seconds: float = LOOK_SECONDS) -> dg.SensorDefinition:
    """The sensor that refreshes older days whose sessions had new runs. Each tick lists for at most `seconds`."""

    @dg.sensor(
        name=SENSOR,
        job_name=REFRESH,
        minimum_interval_seconds=LOOK_EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Refreshes older days whose sessions had new activity; those over 31 days old once a day.",
    )
    def changed_sessions(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        time, instance = pipeline.clock(), context.instance
        # The first look goes back one overlap from now.
        before = load_cursor(context.cursor, Cursor, context.log.warning) or Cursor(time, time)
        look = list_activity(pipeline, before, seconds)
        cursor, days = next_look(
            before,
            look,
            time=time,
            settings=pipeline.settings,
            being_read=days_being_read(instance, time - LIVES),
            failed=days_that_failed(instance, before.looked),
        )
        slow = "the API is slow or limits the rate; the next tick lists the rest"
        skipped = slow if look.stopped_at else "no older day needs a refresh now"
        # Dagster runs each key once. The same days may have to be refreshed again, so the key includes the time.
        runs = [
            dg.RunRequest(run_key=f"{day}@{time.isoformat()}", tags=range_tags(day, min(last, day + LONGEST)))
            for first, last in ranges(days, JOINED)
            for day in days_between(first, last)[:: LONGEST.days + 1]
        ]
        return dg.SensorResult(run_requests=runs, cursor=dump_cursor(cursor), skip_reason=None if days else skipped)

    return changed_sessions


def next_look(
    before: Cursor, look: Look, *, time: datetime, settings: Settings, being_read: set[date], failed: set[date]
) -> tuple[Cursor, set[date]]:
    """The next cursor and the days to refresh now: those that changed, and those of `failed` runs again.

    Days that are `being_read` stay pending, and so do days older than `OFTEN` that were requested within `DAILY`. The
    lookback days and today are left to the schedule.
    """
    last = utc_day(time) - timedelta(days=settings.lookback_days + 1)
    after = before.after(look, first=settings.start_date, last=last, now=time)
    requested = {day: at for day, at in before.requested.items() if abs(time - at) < DAILY}
    changed, waiting = {*after.pending, *failed}, being_read | (requested.keys() - failed)
    days = changed - waiting
    requested |= {day: time for day in days if day < utc_day(time) - OFTEN}
    return replace(after, looked=time, pending=tuple(sorted(changed & waiting)), requested=requested), days


def list_activity(pipeline: Pipeline, before: Cursor, seconds: float) -> Look:
    """List the activity since the last look in every workspace, or as much of it as arrives within `seconds`.

    Raises:
        ApiError: a workspace could not be listed.
    """
    listed: list[Activity] = []
    with pipeline.sources() as (client, sources):
        client.throttle.end_within(seconds)
        names, stopped, place, begin = [one.workspace for one in sources], before.stopped, NEWEST, 0
        if stopped and stopped.workspace in names:
            begin, place = names.index(stopped.workspace), stopped.place
        query, since = pipeline.query, before.since - OVERLAP
        for source in sources[begin:]:
            try:
                with source.named():
                    pages = active_since(client, query, workspace=source.workspace, since=since, place=place)
                    for found, place in pages:  # noqa: B007 - `place` is needed if the next page does not arrive
                        listed += found
            except DeadlineExceededError:
                return Look(listed, (source.workspace, place))
            place = NEWEST
    return Look(listed)


def days_being_read(instance: dg.DagsterInstance, since: datetime) -> set[date]:
    """The days of all refreshes that were created after `since`, and are queued or running."""
    return _days_of_runs(instance, dg.RunsFilter(job_name=REFRESH, statuses=UNFINISHED, created_after=since))


def days_that_failed(instance: dg.DagsterInstance, since: datetime) -> set[date]:
    """The days of the sensor's own runs that failed or were cancelled after `since`."""
    tags = {"dagster/sensor_name": SENSOR}
    return _days_of_runs(instance, dg.RunsFilter(statuses=FAILED, tags=tags, updated_after=since))


def _days_of_runs(instance: dg.DagsterInstance, filters: dg.RunsFilter) -> set[date]:
    spans = (tagged_range(run.tags) for run in instance.get_runs(filters=filters))
    return {day for span in spans if span for day in days_between(*span)}
