"""The cost report: from the lake's tables, one HTML file that works offline."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from sessions_pipeline.errors import LakeError
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.outputs.report.page import build_report
from sessions_pipeline.outputs.report.reading import read_report_data
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET

REPORT_FILE = "reports/cost.html"
# What a manager looks at; the period before it is read too, for comparison.
REPORT_DAYS = 30


def latest_days(lake: Lake) -> tuple[date, date]:
    """The last `REPORT_DAYS` days up to the latest that was read; up to today in an empty lake."""
    days = lake.days(DAILY_COST_BY_REFERENCE_DATASET)
    last = days[-1] if days else datetime.now(UTC).date()
    return last - timedelta(days=REPORT_DAYS - 1), last


def write_report(
    lake: Lake,
    first: date,
    last: date,
    file: Path | None = None,
    *,
    budgets_at: tuple[Settings, datetime] | None = None,
) -> str:
    """Write the report on these days, both included, under the data root or to `file`; its address.

    With settings and a time, it says how their budgets stood then.

    Raises:
        LakeError: the data root can't be read, or the file can't be written.
    """
    page = build_report(read_report_data(lake, first, last, budgets_at)).encode()
    if file is None:
        return lake.write_file(REPORT_FILE, page)
    try:
        file.write_bytes(page)
    except OSError as error:
        raise LakeError(f"{file}: {error.strerror}; choose another file") from None
    return str(file.resolve())
