"""The asset `cost_report`."""

import dagster as dg

from sessions_pipeline.orchestration import metadata
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.outputs.report import latest_days, write_report
from sessions_pipeline.tables import DAILY_COST_BY_PROJECT, EXPERIMENT_SUMMARY, WEEKLY_COST_BY_REFERENCE_DATASET

REPORT = "cost_report"


def report_asset() -> dg.AssetsDefinition:
    """`cost_report`."""

    @dg.asset(
        name=REPORT,
        deps=[WEEKLY_COST_BY_REFERENCE_DATASET.name, EXPERIMENT_SUMMARY.name, DAILY_COST_BY_PROJECT.name],
        group_name="insight",
        owners=metadata.OWNERS,
        kinds={"html"},
        description="One HTML page for people who do not use Dagster: total, trend, what cost most, and caveats.",
    )
    def cost_report(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> dg.MaterializeResult[None]:
        lake = pipeline.open_lake()
        first, last = latest_days(lake)
        address = write_report(lake, first, last)
        context.log.info("wrote %s", address)
        return dg.MaterializeResult(
            metadata={
                "dagster/uri": address,
                "report": dg.MetadataValue.path(address),
                "days": f"{first} to {last}",
            }
        )

    return cost_report
