"""When the assets are refreshed: the schedules, and the sensor for late truth."""

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta

import dagster as dg

from sessions_pipeline.langsmith.activity import Activity, active_since
from sessions_pipeline.orchestration.changes import Cursor, days_being_read, ranges, utc_day
from sessions_pipeline.orchestration.partitions import days_between, range_tags
from sessions_pipeline.orchestration.pipeline import Pipeline, now
from sessions_pipeline.schema.query import parse_narrowing
from sessions_pipeline.settings import Settings

REFRESH = "refresh_sessions"
# Feedback may arrive without new runs, and the API's stats reach 31 days back.
NIGHTLY_DAYS = 31
# Long-lived projects are always active: their first day would be read again at every look.
LOOK_EVERY_SECONDS = 3600


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
        return [dg.RunRequest(tags=range_tags(*span)) for span in ranges(sorted(days))]

    return nightly_refresh


def changed_sessions(pipeline: Pipeline) -> dg.SensorDefinition:
    """Older days whose sessions had new runs."""

    @dg.sensor(
        job_name=REFRESH,
        minimum_interval_seconds=LOOK_EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Refreshes older days whose sessions had new activity.",
    )
    def changed_sessions(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        being_read = days_being_read(context.instance, REFRESH)
        cursor, days = look_for_changes(context.cursor, pipeline, now(), list_activity, being_read)
        requests = [
            dg.RunRequest(run_key=f"{first}/{last}@{cursor.since.isoformat()}", tags=range_tags(first, last))
            for first, last in ranges(days)
        ]
        skipped = None if requests else "no older day has changed"
        return dg.SensorResult(run_requests=requests, cursor=cursor.dump(), skip_reason=skipped)

    return changed_sessions


def look_for_changes(
    text: str | None,
    pipeline: Pipeline,
    time: datetime,
    listing: Callable[[Pipeline, datetime], list[Activity]],
    being_read: set[date],
) -> tuple[Cursor, list[date]]:
    """The next cursor and the days to ask for; days being read stay pending, recent ones are the schedule's."""
    settings = pipeline.settings
    before = Cursor.load(text, time)
    last = utc_day(time) - timedelta(days=settings.lookback_days + 1)
    cursor = before.after(listing(pipeline, before.look_from), first=settings.start_date, last=last)
    days = [day for day in cursor.pending if day not in being_read]
    pending = tuple(day for day in cursor.pending if day in being_read)
    return Cursor(cursor.since, cursor.seen, pending), days


def list_activity(pipeline: Pipeline, since: datetime) -> list[Activity]:
    """All activity since a time, in every workspace of the settings.

    Raises:
        ApiError: a workspace could not be listed; nothing of it counts then.
    """
    query = parse_narrowing(pipeline.settings.query)
    with pipeline.workspaces() as (client, workspaces):
        return [
            activity
            for workspace in workspaces
            for activity in active_since(client, query, workspace=workspace.asked, since=since)
        ]
