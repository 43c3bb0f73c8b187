"""All that Dagster is shown, built from settings: assets, checks, jobs, schedules and the sensor."""

import dagster as dg

from sessions_pipeline.orchestration.assets import OWNERS, daily_assets
from sessions_pipeline.orchestration.checks import budget_check, table_checks
from sessions_pipeline.orchestration.judges import judge_asset
from sessions_pipeline.orchestration.names import read_names
from sessions_pipeline.orchestration.notifications import notifications
from sessions_pipeline.orchestration.periods import period_assets
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.orchestration.projects import measure_projects
from sessions_pipeline.orchestration.schedules import MEASURE_JUDGES, MEASURE_PROJECTS, REFRESH, schedules
from sessions_pipeline.orchestration.sensor import changed_sessions
from sessions_pipeline.tables import (
    DAILY_COST_BY_PROJECT,
    EXPERIMENT_SUMMARY,
    JUDGE_COST_BY_EXPERIMENT,
    REFERENCE_DATASETS,
    WEEKLY_COST_BY_REFERENCE_DATASET,
)

REPORT = "cost_report"
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
    group_name="insight",
    owners=OWNERS,
    kinds={"html"},
    description="One HTML page for people who don't use Dagster: total, trend, the most expensive, caveats.",
)
def cost_report(pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult[None]:
    """Made from what the lake holds."""
    # The page's libraries take 0.3 s to import, and a run without the report should not wait for them.
    from sessions_pipeline.outputs.report import latest_days, write_report  # noqa: PLC0415

    lake = pipeline.open_lake()
    first, last = latest_days(lake)
    address = write_report(lake, first, last, budgets_at=(pipeline.settings, pipeline.clock()))
    return dg.MaterializeResult(
        metadata={"dagster/uri": address, "report": dg.MetadataValue.path(address), "days": f"{first} to {last}"}
    )


def build_definitions(pipeline: Pipeline) -> dg.Definitions:
    """The code location `sessions_pipeline`; opens neither the lake nor a connection."""
    settings = pipeline.settings
    # The running day is a partition, too.
    daily = dg.DailyPartitionsDefinition(settings.start_date.isoformat(), timezone="UTC", end_offset=1)
    projects, judges, report = map(
        dg.AssetSelection.assets, (DAILY_COST_BY_PROJECT.name, JUDGE_COST_BY_EXPERIMENT.name, REPORT)
    )
    return dg.Definitions(
        assets=[
            daily_assets(daily, settings.days_per_run),
            period_assets(),
            read_names,
            measure_projects,
            judge_asset(),
            cost_report,
        ],
        asset_checks=[table_checks(), *([budget_check()] if settings.budgets else [])],
        jobs=[
            dg.define_asset_job(
                REFRESH,
                selection=dg.AssetSelection.all() - projects - judges - report,
                description="Reads the sessions of some days and makes every table that follows from them.",
            ),
            dg.define_asset_job(
                MEASURE_PROJECTS,
                selection=projects | report,
                description="Measures what sessions used on the days within reach, and writes the cost report.",
            ),
            dg.define_asset_job(
                MEASURE_JUDGES,
                selection=judges | report,
                description="Measures what evaluators have spent on each experiment, and writes the cost report.",
            ),
        ],
        schedules=schedules(settings),
        sensors=[changed_sessions(pipeline), *([notifications(pipeline)] if settings.notify else [])],
        resources={"pipeline": pipeline},
        executor=dg.in_process_executor,
    )
