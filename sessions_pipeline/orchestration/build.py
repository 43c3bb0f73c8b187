"""All that Dagster is shown, built from settings: assets, checks, jobs, schedules and the sensor."""

from datetime import timedelta

import dagster as dg

from sessions_pipeline.days import utc_day
from sessions_pipeline.orchestration import REFRESH, range_tags
from sessions_pipeline.orchestration.assets import OWNERS, daily_assets
from sessions_pipeline.orchestration.checks import check_tables, costs_are_within_budget
from sessions_pipeline.orchestration.measured import measure_judges, measure_projects
from sessions_pipeline.orchestration.notifications import notifications
from sessions_pipeline.orchestration.one_file import period_tables, read_names
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.orchestration.sensor import changed_sessions
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import (
    DAILY_COST_BY_PROJECT,
    EXPERIMENT_SUMMARY,
    JUDGE_COST_BY_EXPERIMENT,
    REFERENCE_DATASETS,
    WEEKLY_COST_BY_REFERENCE_DATASET,
)

REPORT = "cost_report"
MEASURE_PROJECTS, MEASURE_JUDGES = "measure_project_costs", "measure_judge_costs"
# Feedback may arrive without new runs, and the API's stats reach 31 days back.
NIGHTLY_DAYS = 31
REPORTED = (
    WEEKLY_COST_BY_REFERENCE_DATASET,
    EXPERIMENT_SUMMARY,
    REFERENCE_DATASETS,
    DAILY_COST_BY_PROJECT,
    JUDGE_COST_BY_EXPERIMENT,
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
    """Made from what the lake holds."""
    # The page's libraries take 0.3 s to import, and a run without the report should not wait for them.
    from sessions_pipeline.outputs.report import budgets_or_problem, latest_days, write_report  # noqa: PLC0415

    lake = pipeline.open_lake()
    first, last = latest_days(lake)
    address = write_report(lake, first, last, budgets=budgets_or_problem(lake, pipeline.settings, pipeline.clock()))
    return dg.MaterializeResult(
        metadata={"dagster/uri": address, "report": dg.MetadataValue.path(address), "days": f"{first} to {last}"}
    )


WITHOUT_DAYS = (period_tables, read_names, measure_projects, measure_judges, cost_report)


def build_definitions(pipeline: Pipeline) -> dg.Definitions:
    """The code location `sessions_pipeline`; opens neither the lake nor a connection."""
    settings = pipeline.settings
    # The running day is a partition, too.
    daily = dg.DailyPartitionsDefinition(settings.start_date.isoformat(), timezone="UTC", end_offset=1)
    projects, judges, report = map(
        dg.AssetSelection.assets, (DAILY_COST_BY_PROJECT.name, JUDGE_COST_BY_EXPERIMENT.name, REPORT)
    )
    of_days = dg.AssetSelection.all() - projects - judges - report
    jobs = (
        (REFRESH, of_days, "Reads the sessions of some days and makes every table that follows from them."),
        (MEASURE_PROJECTS, projects | report, "Measures what sessions used on the days within reach; then the report."),
        (MEASURE_JUDGES, judges | report, "Measures what evaluators have spent on each experiment; then the report."),
    )
    return dg.Definitions(
        assets=[
            daily_assets(daily, settings.days_per_run),
            # For a range of days Dagster's command line asks this of all assets, also where they have no days.
            *(asset.with_attributes(backfill_policy=dg.BackfillPolicy.single_run()) for asset in WITHOUT_DAYS),
        ],
        asset_checks=[check_tables, *([costs_are_within_budget] if settings.budgets else [])],
        jobs=[dg.define_asset_job(name, selection=chosen, description=said) for name, chosen, said in jobs],
        schedules=schedules(settings),
        sensors=[changed_sessions(pipeline), *([notifications(pipeline)] if settings.notify else [])],
        resources={"pipeline": pipeline},
        executor=dg.in_process_executor,
    )


def schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """Every hour today and the lookback days, every night the last 31 days, one run each; then projects and judges."""

    def schedule(
        name: str, cron: str, description: str, *, job: str = REFRESH, days_back: int | None = None
    ) -> dg.ScheduleDefinition:
        # Not by `tags_fn`, which refuses Dagster's own tags.
        def request(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
            today = utc_day(context.scheduled_execution_time)
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
    missed = "Measures what every project used yesterday, and on days missed while it was down."
    judges = "Measures what evaluators have spent on experiments that ran lately."
    return [
        schedule("hourly_refresh", "0 * * * *", f"Refreshes today and the {lookback} days before.", days_back=lookback),
        schedule("nightly_refresh", "30 2 * * *", late, days_back=nightly),
        schedule("nightly_project_costs", "0 3 * * *", missed, job=MEASURE_PROJECTS),
        schedule("nightly_judge_costs", "30 3 * * *", judges, job=MEASURE_JUDGES),
    ]
