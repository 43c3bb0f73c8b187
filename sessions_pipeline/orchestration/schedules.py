"""The jobs, and the schedules that run them."""

from datetime import timedelta

import dagster as dg

from sessions_pipeline.days import utc_day
from sessions_pipeline.orchestration import REFRESH, range_tags
from sessions_pipeline.orchestration.one_file import cost_report
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

    lookback, nightly = settings.lookback_days, NIGHTLY_DAYS - 1
    late = f"Refreshes the last {NIGHTLY_DAYS} days, for feedback that arrives without new runs."
    missed = "Measures what every project used yesterday, and on days that were missed while Dagster was down."
    judges = "Measures what evaluators spent on experiments that ran recently."
    return [
        schedule("hourly_refresh", "0 * * * *", f"Refreshes today and the {lookback} days before.", days_back=lookback),
        schedule("nightly_refresh", "30 2 * * *", late, days_back=nightly),
        schedule("nightly_project_costs", "0 3 * * *", missed, job=MEASURE_PROJECTS),
        schedule("nightly_judge_costs", "30 3 * * *", judges, job=MEASURE_JUDGES),
    ]
