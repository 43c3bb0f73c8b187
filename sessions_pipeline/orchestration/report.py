"""The cost report from what the lake holds, and its asset `cost_report`."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta

import dagster as dg
import pyarrow as pa

from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.orchestration import metadata
from sessions_pipeline.orchestration.pipeline import Pipeline, now
from sessions_pipeline.outputs import dataset_names as names
from sessions_pipeline.tables import (
    DAILY_COST_BY_PROJECT,
    DAILY_COST_BY_REFERENCE_DATASET,
    EXPERIMENT_SUMMARY,
    REJECTED_SESSIONS,
    SESSIONS,
    WEEKLY_COST_BY_REFERENCE_DATASET,
    Table,
)
from sessions_pipeline.tables.readings import last_read

REPORT = "cost_report"
REPORT_FILE = "reports/cost.html"
# What a manager looks at; the period before it is read too, for comparison.
REPORT_DAYS = 30
# Names are looked for in so many of the latest days.
NAMED_DAYS = 7


def latest_days(lake: Lake, count: int = REPORT_DAYS) -> tuple[date, date]:
    """The last `count` days up to the latest that was read; up to today in an empty lake."""
    days = lake.days(DAILY_COST_BY_REFERENCE_DATASET)
    last = days[-1] if days else now().date()
    return last - timedelta(days=count - 1), last


def dataset_names(lake: Lake, days: Sequence[date]) -> dict[str, str]:
    """Datasets' names as the latest sessions tell them."""
    some = [day for day in sorted(days, reverse=True) if lake.has(SESSIONS, day)][:NAMED_DAYS]
    return names.dataset_names(lake.read(SESSIONS, day, names.NEEDED) for day in some)


def render_report(lake: Lake, first: date, last: date) -> str:
    """The report of the days, both included, as one HTML page."""
    # The page's library takes 0.3 s to import, and a run without the report should not wait for it.
    from sessions_pipeline.outputs.report import build_report  # noqa: PLC0415
    from sessions_pipeline.outputs.report.data import SESSIONS as NEEDED  # noqa: PLC0415
    from sessions_pipeline.outputs.report.data import report_data  # noqa: PLC0415

    earliest = first - (last - first) - timedelta(days=1)
    read = [day for day in lake.days(DAILY_COST_BY_REFERENCE_DATASET) if earliest <= day <= last]
    columns = [name for name in NEEDED.names if name != SESSIONS.partition]
    usage = [day for day in lake.days(DAILY_COST_BY_PROJECT) if first <= day <= last]
    data = report_data(
        first=first,
        last=last,
        daily=_read(lake, DAILY_COST_BY_REFERENCE_DATASET, read),
        experiments=_read(lake, EXPERIMENT_SUMMARY, [day for day in read if day >= first]),
        rejected=_read(lake, REJECTED_SESSIONS, [*read, UNDATED], ["session_id"]),
        sessions=_read(lake, SESSIONS, [day for day in read if day >= first], columns),
        days_read=read,
        projects=_read(lake, DAILY_COST_BY_PROJECT, usage) if usage else None,
        names=dataset_names(lake, read),
        read_at=_read_at(lake, [day for day in read if day >= first]),
    )
    return build_report(data)


def _read(lake: Lake, table: Table, days: Sequence[Day], columns: Sequence[str] | None = None) -> pa.Table:
    return lake.read_days(table, [day for day in days if lake.has(table, day)], columns)


def _read_at(lake: Lake, days: Sequence[date]) -> datetime | None:
    return max((last_read(lake.metadata(DAILY_COST_BY_REFERENCE_DATASET, day)) for day in days), default=None)


def report_asset() -> dg.AssetsDefinition:
    """`cost_report`."""

    @dg.asset(
        name=REPORT,
        deps=[WEEKLY_COST_BY_REFERENCE_DATASET.name, EXPERIMENT_SUMMARY.name, DAILY_COST_BY_PROJECT.name],
        group_name="insight",
        owners=metadata.OWNERS,
        kinds={"html"},
        description="One HTML page for people who do not use Dagster: total, trend, dearest experiments, and honesty.",
    )
    def cost_report(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> dg.MaterializeResult[None]:
        lake = pipeline.open_lake()
        first, last = latest_days(lake)
        page = render_report(lake, first, last).encode()
        address = lake.write_file(REPORT_FILE, page)
        context.log.info("wrote %s", address)
        return dg.MaterializeResult(
            metadata={
                "dagster/uri": address,
                "report": dg.MetadataValue.path(address),
                "days": f"{first} to {last}",
                "bytes": len(page),
            }
        )

    return cost_report
