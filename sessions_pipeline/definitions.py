"""Everything that Dagster loads: `dagster dev` through `workspace.yaml`, or `-m sessions_pipeline.definitions`."""

import dagster as dg

from sessions_pipeline.orchestration import assets
from sessions_pipeline.orchestration.automation import JOBS, changed_sessions, schedules
from sessions_pipeline.orchestration.checks import check_tables, costs_are_within_budget, weeks_and_months_add_up
from sessions_pipeline.orchestration.notifications import notifications
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.settings import Settings

UNPARTITIONED = (
    assets.period_tables,
    assets.read_names,
    assets.measure_projects,
    assets.measure_judges,
    assets.cost_report,
)


@dg.definitions
def defs() -> dg.Definitions:
    """Build the definitions from the environment and `.env`. Opens neither the lake nor a connection."""
    return build_definitions(Pipeline(Settings.load()))


def build_definitions(pipeline: Pipeline) -> dg.Definitions:
    """Build the code location `sessions_pipeline`. Opens neither the lake nor a connection.

    Raises:
        SettingError: notifications are set up, but Apprise is not installed, or does not know an address.
    """
    settings = pipeline.settings
    return dg.Definitions(
        assets=[
            assets.daily_assets(settings),
            # Dagster's command line refuses a range of days unless every asset has this policy, partitioned or not.
            *(asset.with_attributes(backfill_policy=dg.BackfillPolicy.single_run()) for asset in UNPARTITIONED),
        ],
        asset_checks=[check_tables, weeks_and_months_add_up, *([costs_are_within_budget] if settings.budgets else [])],
        jobs=JOBS,
        schedules=schedules(settings),
        sensors=[changed_sessions(pipeline), *([notifications(pipeline)] if settings.notify else [])],
        resources={"pipeline": pipeline},
        executor=dg.in_process_executor,
    )
