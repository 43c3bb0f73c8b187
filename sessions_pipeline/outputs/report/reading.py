"""Reading what a report needs from the lake."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.errors import SettingError
from sessions_pipeline.lake.day_file import Stored
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.outputs.budget_file import load_budgets
from sessions_pipeline.outputs.budgets import BudgetStatus, budget_statuses, last_readings
from sessions_pipeline.outputs.dataset_names import dataset_names
from sessions_pipeline.outputs.judges import judge_readings, judge_rows
from sessions_pipeline.outputs.report.data import Doubtful, ReportData
from sessions_pipeline.outputs.spending import Row, month_days, total
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import (
    DAILY_COST_BY_ATTRIBUTE,
    DAILY_COST_BY_PROJECT,
    DAILY_COST_BY_REFERENCE_DATASET,
    EXPERIMENT_SUMMARY,
    REJECTED_SESSIONS,
    SESSIONS,
    Table,
)
from sessions_pipeline.tables.day_metadata import ATTRIBUTES, rests_on_kept_readings, was_over
from sessions_pipeline.tables.readings import Reading

DOUBTFUL_COLUMNS = ("reference_dataset_id", "total_cost", "fetched_at", "stats_as_of", "missing_since", "problems")
"""The columns of `sessions` that say which numbers are from an earlier reading, and which costs could not be used."""
_COUNTED = ("session_count", "unpriced_session_count", "zero_cost_with_tokens_count", "run_count", "total_tokens")
_ATTRIBUTE_COLUMNS = ("reference_dataset_id", "attribute", "value", *_COUNTED, "total_cost")


def read_report_data(
    lake: Lake, first: date, last: date, budgets_at: tuple[Settings, datetime] | None = None
) -> ReportData:
    """Read what a report on these days, both included, needs; with settings and a time, how their budgets stood then.

    Raises:
        LakeError: a file can't be read.
    """
    _, month_before = month_days(last)
    earliest = min(month_before[0], first - (last - first) - timedelta(days=1))
    known = lake.days(DAILY_COST_BY_REFERENCE_DATASET)
    read = [day for day in known if earliest <= day <= last]
    inside = [day for day in read if day >= first]
    usage = [day for day in lake.days(DAILY_COST_BY_PROJECT) if first <= day <= last]
    costs = _read(lake, DAILY_COST_BY_REFERENCE_DATASET, [*read, UNDATED])
    attributes = _read(lake, DAILY_COST_BY_ATTRIBUTE, read, _ATTRIBUTE_COLUMNS)
    daily = _rows(costs)
    names = dataset_names(lake, {(row["tenant_id"], row["reference_dataset_id"]) for row in daily}, read)
    rejected = _read(lake, REJECTED_SESSIONS, [*inside, UNDATED], ["fetched_at"])
    sessions = _read(lake, SESSIONS, inside, DOUBTFUL_COLUMNS)
    notes = {day: last_readings(lake, day) for day in inside}
    return ReportData(
        first=first,
        last=last,
        daily=daily,
        attributes=_rows(attributes),
        attribute_days=_attribute_days(attributes),
        experiments=_rows(_read(lake, EXPERIMENT_SUMMARY, inside)),
        projects=_rows(_read(lake, DAILY_COST_BY_PROJECT, usage), "usage_date") if usage else None,
        rejected={_date(day): stored.rows.num_rows for day, stored in rejected.items() if stored.rows.num_rows},
        doubtful=doubtful([stored.rows for stored in sessions.values()]),
        unexamined=frozenset(inside) - (rejected.keys() & sessions.keys()),
        days_read=frozenset(read),
        unfinished=frozenset(day for day in read if (of := costs.get(day)) and not was_over(of.rows, of.metadata)),
        latest=max(known, default=None),
        names={dataset: name for (_, dataset), name in names.items()},
        readings={day: found[-1].fetched_at for day, found in notes.items() if found},
        unread_of=_unread_of(notes),
        judges=judge_rows(lake, inside),
        judge_readings=judge_readings(lake),
        budgets=_budgets(lake, *budgets_at) if budgets_at else (),
    )


def _unread_of(notes: Mapping[date, Sequence[Reading]]) -> dict[str, list[date]]:
    """The days on which a workspace of others was not read; a reading that saw no session may be of any."""
    read = {day: {name for one in found for name in one.workspaces or ("",)} for day, found in notes.items() if found}
    known = sorted(set[str]().union(*read.values()) - {""})
    days = {name: [day for day, names in read.items() if names.isdisjoint({name, ""})] for name in known}
    return {name: unread for name, unread in days.items() if unread}


def _budgets(lake: Lake, settings: Settings, now: datetime) -> Sequence[BudgetStatus] | str:
    try:
        return budget_statuses(lake, load_budgets(settings), now)
    except SettingError as error:
        return str(error)


def _read(lake: Lake, table: Table, days: Sequence[Day], columns: Sequence[str] | None = None) -> dict[Day, Stored]:
    """Those of the days that the table has."""
    found = ((day, lake.load(table, day, columns)) for day in days)
    return {day: stored for day, stored in found if stored is not None}


def _rows(days: Mapping[Day, Stored], partition: str = "start_date") -> list[Row]:
    return [{partition: _date(day), **row} for day, stored in days.items() for row in stored.rows.to_pylist()]


def _date(day: Day) -> date | None:
    return day if isinstance(day, date) else None


def _attribute_days(days: Mapping[Day, Stored]) -> dict[str, frozenset[date]]:
    """The days whose files were summed by a key, as they say; the keys in the order of the latest."""
    found: dict[str, set[date]] = defaultdict(set)
    for day, stored in reversed(list(days.items())):
        listed = json.loads(stored.metadata.get(ATTRIBUTES, "[]"))
        for key in listed or stored.rows.column("attribute").unique().to_pylist():
            if isinstance(day, date):
                found[key].add(day)
    return {key: frozenset(known) for key, known in found.items()}


def doubtful(days: Sequence[pa.Table]) -> Doubtful:
    """The experiments among rows (with `DOUBTFUL_COLUMNS`) that are kept, or have problems."""
    kept, costs, problems = 0, [], 0
    for sessions in days:
        experiments = sessions.filter(pc.is_valid(sessions.column("reference_dataset_id")))
        emptied = experiments.filter(rests_on_kept_readings(experiments))
        kept += emptied.num_rows
        costs.append(total(emptied.column("total_cost").to_pylist()))
        problems += experiments.num_rows - experiments.column("problems").null_count
    return Doubtful(kept, total(costs), problems)
