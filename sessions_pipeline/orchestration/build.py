"""All that Dagster is shown, built from settings: assets, checks, jobs, schedules and the sensor."""

import dagster as dg

from sessions_pipeline.orchestration.assets import daily_assets
from sessions_pipeline.orchestration.checks import table_checks
from sessions_pipeline.orchestration.judges import judge_asset
from sessions_pipeline.orchestration.names import names_asset
from sessions_pipeline.orchestration.partitions import daily_partitions
from sessions_pipeline.orchestration.periods import period_assets
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.orchestration.projects import project_asset
from sessions_pipeline.orchestration.report import REPORT, report_asset
from sessions_pipeline.orchestration.schedules import MEASURE_JUDGES, MEASURE_PROJECTS, REFRESH, schedules
from sessions_pipeline.orchestration.sensor import changed_sessions
from sessions_pipeline.tables import DAILY_COST_BY_PROJECT, JUDGE_COST_BY_EXPERIMENT


def build_definitions(pipeline: Pipeline) -> dg.Definitions:
    """The code location `sessions_pipeline`; opens neither the lake nor a connection."""
    settings = pipeline.settings
    projects, judges, report = map(
        dg.AssetSelection.assets, (DAILY_COST_BY_PROJECT.name, JUDGE_COST_BY_EXPERIMENT.name, REPORT)
    )
    return dg.Definitions(
        assets=[
            daily_assets(daily_partitions(settings.start_date), settings.days_per_run),
            period_assets(),
            names_asset(),
            project_asset(),
            judge_asset(),
            report_asset(),
        ],
        asset_checks=[table_checks()],
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
        sensors=[changed_sessions(pipeline)],
        resources={"pipeline": pipeline},
        executor=dg.in_process_executor,
    )
