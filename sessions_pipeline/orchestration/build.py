"""All that Dagster is shown, built from settings: assets, checks, jobs, schedules and sensors."""

from typing import Any

import dagster as dg

from sessions_pipeline.orchestration.checks import asset_checks
from sessions_pipeline.orchestration.derived import COSTS, INSIGHT, daily_cost_asset, insight_assets
from sessions_pipeline.orchestration.partitions import daily_partitions
from sessions_pipeline.orchestration.periods import period_assets
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.orchestration.report import REPORT, report_asset
from sessions_pipeline.orchestration.retries import missed_retries
from sessions_pipeline.orchestration.schedules import REFRESH, changed_sessions, hourly_refresh, nightly_refresh
from sessions_pipeline.orchestration.sessions import GROUP as SESSIONS_GROUP
from sessions_pipeline.orchestration.sessions import session_assets
from sessions_pipeline.orchestration.usage import MEASURE, nightly_project_costs, usage_asset
from sessions_pipeline.orchestration.wide import of_run
from sessions_pipeline.tables import DAILY_COST_BY_PROJECT


def build_definitions(pipeline: Pipeline) -> dg.Definitions:
    """The code location `sessions_pipeline`; opens neither the lake nor a connection."""
    daily = daily_partitions(pipeline.settings.start_date)
    return dg.Definitions(
        assets=[
            session_assets(daily),
            daily_cost_asset(daily),
            insight_assets(daily),
            period_assets(),
            usage_asset(daily),
            report_asset(),
        ],
        asset_checks=asset_checks(),
        jobs=[
            dg.define_asset_job(
                REFRESH,
                selection=dg.AssetSelection.groups(SESSIONS_GROUP, COSTS, INSIGHT) - dg.AssetSelection.assets(REPORT),
                description="Reads the sessions of some days and makes every table that follows from them.",
            ),
            dg.define_asset_job(
                MEASURE,
                selection=dg.AssetSelection.assets(DAILY_COST_BY_PROJECT.name, REPORT),
                description="Measures what sessions used on some days, by three sweeps, and writes the cost report.",
            ),
        ],
        schedules=[
            hourly_refresh(pipeline.settings),
            nightly_refresh(pipeline.settings),
            nightly_project_costs(pipeline),
        ],
        sensors=[changed_sessions(pipeline), missed_retries()],
        resources={"pipeline": of_run(pipeline)},
        executor=dg.in_process_executor,
    )


def quiet_config() -> dict[str, Any]:
    """Run configuration that keeps Dagster's own log off the terminal; errors are told by the command line."""
    return {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
