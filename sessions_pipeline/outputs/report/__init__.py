"""The cost report: reads the lake's tables and writes one HTML file that works offline."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from sessions_pipeline import tables
from sessions_pipeline.errors import NotReadError, SettingError
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.lake.parquet import Stored
from sessions_pipeline.outputs import REPORT_FILE, write_named
from sessions_pipeline.outputs import read as from_lake
from sessions_pipeline.outputs.budget_file import load_budgets
from sessions_pipeline.outputs.budgets import budget_statuses
from sessions_pipeline.outputs.formatting import days as days_text
from sessions_pipeline.outputs.report.data import Budgets, ReportData
from sessions_pipeline.outputs.report.page import build_report
from sessions_pipeline.outputs.spending import JUDGES_FILE, load_judge_readings, month_days
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables.daily_cost_by_attribute import attributes_of
from sessions_pipeline.tables.day_metadata import was_over
from sessions_pipeline.tables.readings import unread_of_workspaces

# The length of the nightly report's period. The period before is read as well, for comparison.
REPORT_DAYS = 30
DOUBTFUL_COLUMNS = ("reference_dataset_id", "total_cost", "fetched_at", "stats_as_of", "missing_since", "problems")
"""The columns of `sessions` that show which costs rest on earlier readings or could not be used."""


def latest_days(lake: Lake) -> tuple[date, date]:
    """The first and last of the `REPORT_DAYS` days up to the latest day that was read; in an empty lake, up to today.

    The first is never before the lake's first day.
    """
    days = lake.days(tables.DAILY_COST_BY_REFERENCE_DATASET)
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
    stored = lake.days(tables.DAILY_COST_BY_REFERENCE_DATASET)
    if stored and not any(first <= day <= last for day in stored):
        asked, others = days_text(first, last), days_text(stored[0], stored[-1])
        raise NotReadError(f"{asked}: nothing was read; choose days of {others}, or materialize these if they are past")
    end = min(last, max(stored[-1], today or datetime.now(UTC).date())) if stored else last
    page = build_report(replace(read_report_data(lake, first, end, budgets), asked_for=last)).encode()
    return write_named(file, page) if file else lake.write_file(REPORT_FILE, page)


def read_report_data(lake: Lake, first: date, last: date, budgets: Budgets = ()) -> ReportData:
    """Read what a report on these days, both included, needs. `budgets` are passed on as they are.

    Raises:
        LakeError: a file can't be read.
    """
    _, month_before = month_days(last)
    earliest = min(month_before[0], first - (last - first) - timedelta(days=1))
    known = lake.days(tables.DAILY_COST_BY_REFERENCE_DATASET)
    read = [day for day in known if earliest <= day <= last]
    inside = [day for day in read if day >= first]
    usage_days = [day for day in lake.days(tables.DAILY_COST_BY_PROJECT) if first <= day <= last]
    costs = lake.load_days(tables.DAILY_COST_BY_REFERENCE_DATASET, [*read, UNDATED])
    attributes = lake.load_days(tables.DAILY_COST_BY_ATTRIBUTE, read)
    usage = lake.load_days(tables.DAILY_COST_BY_PROJECT, usage_days)
    daily = from_lake.rows_of(costs)
    names = from_lake.dataset_names(lake, daily, read)
    rejected = lake.load_days(tables.REJECTED_SESSIONS, [*inside, UNDATED], ["fetched_at"])
    examined = [day for day, version in lake.versions(tables.SESSIONS, inside).items() if version]
    readings = {day: lake.last_readings(day) for day in inside}
    return ReportData(
        first=first,
        last=last,
        daily=daily,
        attributes=from_lake.rows_of(attributes),
        attribute_days=_attribute_days(attributes),
        experiments=from_lake.rows_of(lake.load_days(tables.EXPERIMENT_SUMMARY, inside)),
        projects=from_lake.rows_of(usage, "usage_date") if usage else None,
        measured_days=len(usage),
        rejected=Counter(row["start_date"] for row in from_lake.rows_of(rejected)),
        sessions=lake.read_days(tables.SESSIONS, examined, DOUBTFUL_COLUMNS),
        unexamined=frozenset(inside) - (rejected.keys() & {*examined}),
        days_read=frozenset(read),
        unfinished=frozenset(day for day in read if (of := costs.get(day)) and not was_over(of.rows, of.metadata)),
        latest=max(known, default=None),
        names={dataset: name for (_, dataset), name in names.items()},
        readings={day: found[-1].fetched_at for day, found in readings.items() if found},
        unread_of=unread_of_workspaces(readings),
        judges=from_lake.judge_rows(lake, inside),
        judge_readings=load_judge_readings(lake.read_file(JUDGES_FILE)),
        budgets=budgets,
    )


def budgets_or_problem(lake: Lake, settings: Settings, now: datetime) -> Budgets:
    """The status of each budget or, if the file of budgets is wrong, a text that says why.

    Raises:
        LakeError: a file can't be read.
    """
    try:
        return budget_statuses(lake, load_budgets(settings), now)
    except SettingError as error:
        return str(error)


def _attribute_days(days: Mapping[Day, Stored]) -> dict[str, frozenset[date]]:
    """For each attribute, the days whose file was summed by it. The attributes are in the order of the latest file.

    A file lists its attributes in its metadata; if it does not, those in its rows are taken.
    """
    found: dict[str, set[date]] = defaultdict(set)
    for day, stored in reversed(list(days.items())):
        for key in attributes_of(stored.metadata) or stored.rows.column("attribute").unique().to_pylist():
            if day:
                found[key].add(day)
    return {key: frozenset(summed) for key, summed in found.items()}
