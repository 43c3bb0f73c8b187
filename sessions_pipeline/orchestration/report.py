"""The asset `cost_report`: the HTML page, from what the lake holds."""

import dagster as dg

from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.orchestration.recording import OWNERS
from sessions_pipeline.tables import (
    DAILY_COST_BY_PROJECT,
    EXPERIMENT_SUMMARY,
    JUDGE_COST_BY_EXPERIMENT,
    REFERENCE_DATASETS,
    WEEKLY_COST_BY_REFERENCE_DATASET,
)

REPORT = "cost_report"


def report_asset() -> dg.AssetsDefinition:
    """`cost_report`."""

    @dg.asset(
        name=REPORT,
        deps=[
            WEEKLY_COST_BY_REFERENCE_DATASET.name,
            EXPERIMENT_SUMMARY.name,
            REFERENCE_DATASETS.name,
            DAILY_COST_BY_PROJECT.name,
            JUDGE_COST_BY_EXPERIMENT.name,
        ],
        group_name="insight",
        owners=OWNERS,
        kinds={"html"},
        description="One HTML page for people who don't use Dagster: total, trend, the most expensive, caveats.",
    )
    def cost_report(pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult[None]:
        # The page's libraries take 0.3 s to import, and a run without the report should not wait for them.
        from sessions_pipeline.outputs.report import latest_days, write_report  # noqa: PLC0415

        lake = pipeline.open_lake()
        first, last = latest_days(lake)
        address = write_report(lake, first, last)
        return dg.MaterializeResult(
            metadata={"dagster/uri": address, "report": dg.MetadataValue.path(address), "days": f"{first} to {last}"}
        )

    return cost_report
