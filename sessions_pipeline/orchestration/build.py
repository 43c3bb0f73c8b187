"""Dagster's definitions, built from the settings: assets, checks, jobs, schedules and sensors."""

from datetime import timedelta

import dagster as dg

from sessions_pipeline import tables
from sessions_pipeline.days import utc_day
from sessions_pipeline.orchestration import REFRESH, range_tags
from sessions_pipeline.orchestration.assets import OWNERS, daily_assets
from sessions_pipeline.orchestration.checks import check_tables, costs_are_within_budget, weeks_and_months_add_up
from sessions_pipeline.orchestration.measured import measure_judges, measure_projects
from sessions_pipeline.orchestration.notifications import notifications
from sessions_pipeline.orchestration.one_file import period_tables, read_names, sum_after_days
from sessions_pipeline.orchestration.sensor import changed_sessions
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.settings import Settings

REPORT = "cost_report"
MEASURE_PROJECTS, MEASURE_JUDGES = "measure_project_costs", "measure_judge_costs"
# Feedback may arrive without new runs, and the API's stats reach 31 days back.
NIGHTLY_DAYS = 31
REPORTED = (
    tables.WEEKLY_COST_BY_REFERENCE_DATASET,
    tables.EXPERIMENT_SUMMARY,
    tables.REFERENCE_DATASETS,
    tables.DAILY_COST_BY_PROJECT,
    tables.JUDGE_COST_BY_EXPERIMENT,
)


@dg.asset(
    name=REPORT,
    deps=[table.name for table in REPORTED],
    group_name="report",
    owners=OWNERS,
    kinds={"html"},
    description="One HTML page for people who don't use Dagster, written every night: total, trend, caveats.",
)
def cost_report(pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult[None]:
    """The HTML report of the latest days, from the tables in the lake."""
    # Imported here: the page's libraries take 0.3 s to import, and a run without the report should not wait for them.
    from sessions_pipeline.outputs.report import budgets_or_problem, latest_days, write_report  # noqa: PLC0415

    lake = pipeline.open_lake()
    first, last = latest_days(lake)
    address = write_report(lake, first, last, budgets=budgets_or_problem(lake, pipeline.settings, pipeline.clock()))
    return dg.MaterializeResult(
        metadata={"dagster/uri": address, "report": dg.MetadataValue.path(address), "days": f"{first} to {last}"}
    )


UNPARTITIONED = (period_tables, read_names, measure_projects, measure_judges, cost_report)


def build_definitions(pipeline: Pipeline) -> dg.Definitions:
    """Build the code location `sessions_pipeline`. Opens neither the lake nor a connection.

    Raises:
        SettingError: notifications are set up, but the extra that sends them is not installed.
    """
    settings = pipeline.settings
    # `end_offset=1` makes today a partition, too.
    daily = dg.DailyPartitionsDefinition(settings.start_date.isoformat(), timezone="UTC", end_offset=1)
    projects, judges, report = map(
        dg.AssetSelection.assets, (tables.DAILY_COST_BY_PROJECT.name, tables.JUDGE_COST_BY_EXPERIMENT.name, REPORT)
    )
    refreshed = dg.AssetSelection.all() - projects - judges - report
    jobs = (
        (REFRESH, refreshed, "Reads the sessions of the run's days and makes every table that follows from them."),
        (MEASURE_PROJECTS, projects | report, "Measures usage on each of the last 31 days, then writes the report."),
        (MEASURE_JUDGES, judges | report, "Measures what evaluators spent on each experiment, then writes the report."),
    )
    return dg.Definitions(
        assets=[
            daily_assets(daily, settings.days_per_run, sum_after_days),
            # Dagster's command line refuses a range of days unless every asset has this policy, partitioned or not.
            *(asset.with_attributes(backfill_policy=dg.BackfillPolicy.single_run()) for asset in UNPARTITIONED),
        ],
        asset_checks=[check_tables, weeks_and_months_add_up, *([costs_are_within_budget] if settings.budgets else [])],
        jobs=[dg.define_asset_job(name, selection=assets, description=text) for name, assets, text in jobs],
        schedules=schedules(settings),
        sensors=[changed_sessions(pipeline), *([notifications(pipeline)] if settings.notify else [])],
        resources={"pipeline": pipeline},
        executor=dg.in_process_executor,
    )


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
