"""The cost report: reads the lake's tables and writes one HTML file that works offline."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from sessions_pipeline import tables
from sessions_pipeline.days import days_between, month_days
from sessions_pipeline.errors import LakeError, NotReadError, SettingError
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.outputs import REPORT_FILE, write_named
from sessions_pipeline.outputs import read as from_lake
from sessions_pipeline.outputs.budget_file import load_budgets
from sessions_pipeline.outputs.budgets import budget_statuses
from sessions_pipeline.outputs.formatting import days as days_text
from sessions_pipeline.outputs.report.data import LATEST_FIRST, Budgets, ReportData
from sessions_pipeline.outputs.report.page import build_report, most_expensive
from sessions_pipeline.outputs.spending import JUDGES_FILE, TOTALS_COLUMNS, load_judge_readings
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET as DAILY
from sessions_pipeline.tables.daily_cost_by_attribute import attributes_of
from sessions_pipeline.tables.day_metadata import open_days, rebuilt_days
from sessions_pipeline.tables.readings import unread_of_workspaces

# The length of the nightly report's period. The period before is read as well, for comparison.
REPORT_DAYS = 30
DOUBTFUL_COLUMNS = ("reference_dataset_id", "total_cost", "fetched_at", "stats_as_of", "missing_since", "problems")
"""The columns of `sessions` that show which costs rest on earlier readings or could not be used."""
# The columns of other tables that the page needs.
ATTRIBUTE_COLUMNS = ("reference_dataset_id", "attribute", "value", *TOTALS_COLUMNS)
JUDGE_COLUMNS = ("id", "tenant_id", "reference_dataset_id", "total_cost")
PROJECT_COLUMNS = ("id", "name", "reference_dataset_id", "total_cost", "is_exact")


def latest_days(lake: Lake) -> tuple[date, date]:
    """The first and last of the `REPORT_DAYS` days up to the latest day that was read; in an empty lake, up to today.

    The first is never before the lake's first day.
    """
    days = lake.days(DAILY)
    last = days[-1] if days else datetime.now(UTC).date()
    return max([last - timedelta(days=REPORT_DAYS - 1), *days[:1]]), last


def write_report(
    lake: Lake, first: date, last: date, file: Path | None = None, *, budgets: Budgets = (), today: date | None = None
) -> str:
    """Write the report on these days, both included, to `file` or under the data root, and return its address.

    It ends no later than `today` (None: the current UTC day) or the last day that was read, whichever is later.

    Raises:
        NotReadError: none of the days was read, though others were.
        LakeError: the data root can't be read, or the file can't be written.
    """
    stored = lake.days(DAILY)
    if stored and not any(first <= day <= last for day in stored):
        asked, others = days_text(first, last), days_text(stored[0], stored[-1])
        raise NotReadError(f"{asked}: nothing was read; choose days of {others}, or materialize these if they are past")
    end = min(last, max(stored[-1], today or datetime.now(UTC).date())) if stored else last
    page = build_report(replace(read_report_data(lake, first, end), asked_for=last, budgets=budgets))
    try:
        return write_named(file, page) if file else lake.write_file(REPORT_FILE, page)
    except LakeError as error:
        error.args = (f"{error}{'' if file else '; or use `sessions-pipeline report --output FILE`'}",)
        raise


def read_report_data(lake: Lake, first: date, last: date) -> ReportData:
    """Read what a report on these days, both included, needs from the tables; budgets are not among it.

    Raises:
        LakeError: a file can't be read.
    """
    earliest = min(month_days(last)[1][0], first - (last - first) - timedelta(days=1))
    known = lake.days(DAILY)
    read = [day for day in known if earliest <= day <= last]
    inside = [day for day in read if day >= first]
    daily, files = lake.load_days(DAILY, [*read, UNDATED])
    attributes, summed = lake.load_days(tables.DAILY_COST_BY_ATTRIBUTE, read, ATTRIBUTE_COLUMNS)
    projects, measured = lake.load_days(tables.DAILY_COST_BY_PROJECT, days_between(first, last), PROJECT_COLUMNS)
    names = from_lake.dataset_names(lake, daily.group_by([*DAILY.order]).aggregate([]).to_pylist(), read)
    rejected, counted = lake.load_days(tables.REJECTED_SESSIONS, [*inside, UNDATED], ["fetched_at"])
    sessions, examined = lake.load_days(tables.SESSIONS, inside, DOUBTFUL_COLUMNS)
    readings = lake.readings_of_days(read)
    unread_of, rebuilt = unread_of_workspaces(readings), rebuilt_days(files, summed, counted, examined)
    return ReportData(
        first=first,
        last=last,
        daily=daily.sort_by(LATEST_FIRST),
        attributes=attributes,
        attribute_days=_attribute_days(summed),
        experiments=_days_of_most_expensive(lake, inside),
        projects=projects,
        measured_days=len(measured),
        rejected=Counter(rejected.column("start_date").to_pylist()),
        sessions=sessions,
        unexamined=frozenset(inside) - (counted.keys() & examined.keys()),
        days_read=frozenset(read).difference(rebuilt, *unread_of.values()),
        rebuilt=frozenset(rebuilt),
        unfinished=frozenset(day for day in open_days(daily, files) if day),
        latest=max(known, default=None),
        names={dataset: name for (_, dataset), name in names.items()},
        readings={day: found[-1].fetched_at for day, found in readings.items() if day >= first},
        unread_of=unread_of,
        judges=lake.load_days(tables.JUDGE_COST_BY_EXPERIMENT, inside, JUDGE_COLUMNS)[0],
        judge_readings=load_judge_readings(lake.read_file(JUDGES_FILE)),
    )


def _days_of_most_expensive(lake: Lake, days: Sequence[date]) -> pa.Table:
    """All experiments of those of these days that have one of the most expensive experiments."""
    # There may be hundreds of thousands of experiments, so only these days are read as a whole.
    listed = most_expensive(lake.load_days(tables.EXPERIMENT_SUMMARY, days, ("id", "total_cost"))[0])
    return lake.read_days(tables.EXPERIMENT_SUMMARY, listed.column("start_date").unique().to_pylist())


def budgets_or_problem(lake: Lake, settings: Settings, now: datetime) -> Budgets:
    """The status of each budget or, if the file of budgets is wrong, a text that says why.

    Raises:
        LakeError: a file can't be read.
    """
    try:
        return budget_statuses(lake, load_budgets(settings), now)
    except SettingError as error:
        return str(error)


def _attribute_days(files: Mapping[Day, Mapping[str, str]]) -> dict[str, frozenset[date]]:
    """For each attribute, the days whose file was summed by it. The attributes are in the order of the latest file."""
    keys_of = {day: attributes_of(metadata) for day, metadata in files.items()}
    latest_first = dict.fromkeys(key for keys in reversed(keys_of.values()) for key in keys)
    return {key: frozenset(day for day, keys in keys_of.items() if day and key in keys) for key in latest_first}
