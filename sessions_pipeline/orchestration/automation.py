"""The jobs, and what starts them: the schedules, and the sensor `changed_sessions`, which refreshes older days.

A tick of the sensor looks for sessions with new runs (see `activity`), and requests a refresh of their days.
"""

from datetime import date, datetime, timedelta

import dagster as dg

from sessions_pipeline.activity import Cursor, list_activity, next_look
from sessions_pipeline.days import days_between, ranges, utc_day
from sessions_pipeline.orchestration import REFRESH, dump_cursor, load_cursor, range_tags, tagged_range
from sessions_pipeline.orchestration.assets import cost_report, reason_first
from sessions_pipeline.outputs.formatting import plural
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import DAILY_COST_BY_PROJECT, JUDGE_COST_BY_EXPERIMENT

MEASURE_PROJECTS, MEASURE_JUDGES = "measure_project_costs", "measure_judge_costs"
# Feedback may arrive without new runs, and the API's stats reach 31 days back.
NIGHTLY_DAYS = 31
_PROJECTS = dg.AssetSelection.assets(DAILY_COST_BY_PROJECT.name, cost_report)
_JUDGES = dg.AssetSelection.assets(JUDGE_COST_BY_EXPERIMENT.name, cost_report)
_REFRESHED = dg.AssetSelection.all() - _PROJECTS - _JUDGES
JOBS = [
    dg.define_asset_job(name, assets, description=description)
    for name, assets, description in (
        (REFRESH, _REFRESHED, "Reads the sessions of the run's days and makes every table that follows from them."),
        (MEASURE_PROJECTS, _PROJECTS, "Measures usage on the last 31 days, today included, then writes the report."),
        (MEASURE_JUDGES, _JUDGES, "Measures what evaluators spent on each experiment, then writes the report."),
    )
]

SENSOR = "changed_sessions"
# Not more often, because long-lived projects are always active: each look refreshes the day they started on.
LOOK_EVERY_SECONDS = 3600
# Days up to a week apart are refreshed in one run, with those between them. A run alone takes a dozen requests to each
# workspace and 0.5 MB of Dagster's history; with 2,000 active projects, there would be 250 runs a day. But a run has 31
# days at most: if one day always fails, all days of its run are read again every hour.
JOINED, LONGEST = timedelta(days=7), timedelta(days=30)
# Dagster drops a tick that takes longer than 60 s, and its cursor with it.
LOOK_SECONDS = 40.0
# An unfinished Dagster run that is older has died. Dagster notices this only if the run had begun.
LIVES = timedelta(days=1)
UNFINISHED = [dg.DagsterRunStatus[name] for name in ("QUEUED", "NOT_STARTED", "STARTING", "STARTED")]
FAILED = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


def schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedules, one run each: hourly today and the lookback days; nightly the last 31 days, projects and judges.

    `settings.start_date` is the earliest day of any run.
    """

    def schedule(
        name: str, cron: str, description: str, *, job: str = REFRESH, days_back: int | None = None
    ) -> dg.ScheduleDefinition:
        # `tags_fn` can't set these tags: it refuses Dagster's own.
        def request(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
            # The UI can evaluate a tick from before the first partition, too.
            today = max(utc_day(context.scheduled_execution_time), settings.start_date)
            first = max(today - timedelta(days=days_back or 0), settings.start_date)
            return dg.RunRequest(tags=range_tags(first, today))

        return dg.ScheduleDefinition(
            name=name,
            job_name=job,
            cron_schedule=cron,
            execution_timezone="UTC",
            execution_fn=None if days_back is None else request,
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=description,
        )

    recent = f"Refreshes today and the {plural(settings.lookback_days, 'day')} before."
    late = f"Refreshes the last {NIGHTLY_DAYS} days, for feedback that arrives without new runs."
    missed = "Measures what every project used yesterday, and on days that were missed while Dagster was down."
    judges = "Measures what evaluators spent on experiments that ran recently."
    return [
        schedule("hourly_refresh", "0 * * * *", recent, days_back=settings.lookback_days),
        schedule("nightly_refresh", "30 2 * * *", late, days_back=NIGHTLY_DAYS - 1),
        schedule("nightly_project_costs", "0 3 * * *", missed, job=MEASURE_PROJECTS),
        schedule("nightly_judge_costs", "30 3 * * *", judges, job=MEASURE_JUDGES),
    ]


def changed_sessions(pipeline: Pipeline, seconds: float = LOOK_SECONDS) -> dg.SensorDefinition:
    """The sensor that refreshes older days whose sessions had new runs. Each tick lists for at most `seconds`."""

    @dg.sensor(
        name=SENSOR,
        job_name=REFRESH,
        minimum_interval_seconds=LOOK_EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Refreshes older days whose sessions had new activity; those over 31 days old once a day.",
    )
    @reason_first(dg.DagsterError)
    def changed_sessions(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        time, instance = pipeline.clock(), context.instance
        # The first look goes back one overlap from now.
        before = load_cursor(context.cursor, Cursor, context.log.warning) or Cursor(time, time)
        look = list_activity(pipeline, before, seconds)
        being_read, failed = days_being_read(instance, time - LIVES), days_that_failed(instance, before.looked)
        cursor, days = next_look(before, look, pipeline.settings, time=time, being_read=being_read, failed=failed)
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
