"""When the assets are refreshed: the schedules, and the sensor for late truth."""

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta

import dagster as dg

from sessions_pipeline.days import days_between, ranges, utc_day
from sessions_pipeline.langsmith.activity import Activity, active_since
from sessions_pipeline.orchestration.changes import Cursor, days_being_read, days_that_failed
from sessions_pipeline.orchestration.partitions import range_tags
from sessions_pipeline.orchestration.pipeline import Pipeline, now
from sessions_pipeline.settings import Settings

REFRESH = "refresh_sessions"
SENSOR = "changed_sessions"
# Feedback may arrive without new runs, and the API's stats reach 31 days back.
NIGHTLY_DAYS = 31
# Long-lived projects are always active: their first day would be read again at every look.
LOOK_EVERY_SECONDS = 3600
# For all workspaces together: Dagster drops a tick after 60 s.
LOOK_SECONDS = 40


def hourly_refresh(settings: Settings) -> dg.ScheduleDefinition:
    """Every hour, one run for the lookback days and today."""

    @dg.schedule(
        job_name=REFRESH,
        cron_schedule="0 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Refreshes today and the {settings.lookback_days} days before it, as one run.",
    )
    def hourly_refresh(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        today = utc_day(context.scheduled_execution_time)
        first = max(today - timedelta(days=settings.lookback_days), settings.start_date)
        return dg.RunRequest(tags=range_tags(first, today))

    return hourly_refresh


def nightly_refresh(settings: Settings) -> dg.ScheduleDefinition:
    """Every night the last 31 days, for feedback that arrives without new runs."""

    @dg.schedule(
        job_name=REFRESH,
        cron_schedule="30 2 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Refreshes the last {NIGHTLY_DAYS} days, for feedback that arrives without new runs.",
    )
    def nightly_refresh(context: dg.ScheduleEvaluationContext) -> Sequence[dg.RunRequest] | dg.SkipReason:
        today = utc_day(context.scheduled_execution_time)
        first = max(today - timedelta(days=NIGHTLY_DAYS - 1), settings.start_date)
        days = set(days_between(first, today)) - days_being_read(context.instance, REFRESH)
        if not days:
            return dg.SkipReason("all of these days are being read already")
        return runs_of(days, context.scheduled_execution_time)

    return nightly_refresh


def changed_sessions(pipeline: Pipeline) -> dg.SensorDefinition:
    """Older days whose sessions had new runs."""

    @dg.sensor(
        name=SENSOR,
        job_name=REFRESH,
        minimum_interval_seconds=LOOK_EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Refreshes older days whose sessions had new activity.",
    )
    def changed_sessions(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        time = now()
        before = Cursor.load(context.cursor, time)
        being_read = days_being_read(context.instance, REFRESH)
        failed = days_that_failed(context.instance, SENSOR, before.looked)
        cursor, days = look_for_changes(before, pipeline, time, list_activity, being_read, failed)
        requests = runs_of(days, time)
        skipped = None if requests else "no older day has changed"
        return dg.SensorResult(run_requests=requests, cursor=cursor.dump(), skip_reason=skipped)

    return changed_sessions


def look_for_changes(
    before: Cursor,
    pipeline: Pipeline,
    time: datetime,
    listing: Callable[[Pipeline, datetime], list[Activity]],
    being_read: set[date],
    failed: set[date],
) -> tuple[Cursor, list[date]]:
    """The next cursor and the days to ask for.

    Days being read stay pending, `failed` ones are asked for again, recent ones are the schedule's.
    """
    settings = pipeline.settings
    last = utc_day(time) - timedelta(days=settings.lookback_days + 1)
    cursor = before.after(listing(pipeline, before.look_from), first=settings.start_date, last=last)
    wanted = {*cursor.pending, *failed}
    return Cursor(cursor.since, time, cursor.seen, tuple(sorted(wanted & being_read))), sorted(wanted - being_read)


def runs_of(days: Iterable[date], time: datetime) -> list[dg.RunRequest]:
    """A run for each stretch of adjoining days; its key is the time, since the same days may be asked for again."""
    return [
        dg.RunRequest(run_key=f"{first}/{last}@{time.isoformat()}", tags=range_tags(first, last))
        for first, last in ranges(sorted(days))
    ]


def list_activity(pipeline: Pipeline, since: datetime) -> list[Activity]:
    """All activity since a time, in every workspace of the settings.

    Raises:
        ApiError: a workspace could not be listed; nothing of it counts then.
    """
    with pipeline.workspaces() as (client, workspaces):
        listed: list[Activity] = []
        for workspace in workspaces:
            with workspace.named():
                listed += active_since(
                    client, pipeline.query, workspace=workspace.asked, since=since, deadline=LOOK_SECONDS
                )
        return listed
