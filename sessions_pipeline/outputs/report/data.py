"""What the report is made from: rows of the lake's tables, read for the days that it is about."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.days import days_between, is_day_over
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.outputs.dataset_names import dataset_names
from sessions_pipeline.outputs.formatting import dataset_labels
from sessions_pipeline.outputs.spending import Bucket, DatasetSpending, Row, Totals, by_dataset, by_time, total, unit_of
from sessions_pipeline.tables import (
    DAILY_COST_BY_PROJECT,
    DAILY_COST_BY_REFERENCE_DATASET,
    EXPERIMENT_SUMMARY,
    REJECTED_SESSIONS,
    SESSIONS,
    Table,
)
from sessions_pipeline.tables.readings import load_readings

KEPT_COLUMNS = ("reference_dataset_id", "total_cost", "fetched_at", "stats_as_of", "missing_since")
"""The columns of `sessions` that say which earlier readings were kept."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Experiments whose numbers the API no longer gives, so that an earlier reading stands for them.

    `cost` is what they cost, US dollars, exact; None when none of it is known.
    """

    count: int = 0
    cost: Decimal | None = None


@dataclass(frozen=True)
class ReportData:
    """What the report says, before any layout. Rows have their table's columns and its partition's.

    `daily` (`daily_cost_by_reference_dataset`) also has the period before, which has as many days and ends where this
    one begins, and the rows without a day. `experiments` (`experiment_summary`) and `projects`
    (`daily_cost_by_project`; None: not measured) are the period's alone. `rejected` counts records by day, None for
    those without one. `days_read` are the days of both periods that were read, `names` datasets' names by id, and
    `readings` the time of each day's last reading.
    """

    first: date
    last: date
    daily: Sequence[Row] = ()
    experiments: Sequence[Row] = ()
    projects: Sequence[Row] | None = None
    rejected: Mapping[date | None, int] = field(default_factory=dict)
    kept: Kept = Kept()
    days_read: frozenset[date] = frozenset()
    names: Mapping[str, str] = field(default_factory=dict)
    readings: Mapping[date, datetime] = field(default_factory=dict)

    @property
    def days(self) -> list[date]:
        """The days that were asked for."""
        return days_between(self.first, self.last)

    @property
    def days_before(self) -> list[date]:
        """The days of the period before."""
        return days_between(first_before(self.first, self.last), self.first - timedelta(days=1))

    @cached_property
    def unread(self) -> list[date]:
        """The days of the period that were not read."""
        return [day for day in self.days if day not in self.days_read]

    @cached_property
    def unread_before(self) -> list[date]:
        """The same of the period before."""
        return [day for day in self.days_before if day not in self.days_read]

    @property
    def read_at(self) -> datetime | None:
        """The latest reading of all; None: no day was read."""
        return max(self.readings.values(), default=None)

    @property
    def unfinished(self) -> list[date]:
        """The days that were read last before they were over."""
        return [day for day, read_at in sorted(self.readings.items()) if not is_day_over(day, read_at)]

    @cached_property
    def labels(self) -> Mapping[str, str]:
        """What each dataset is called on the page, by id."""
        return dataset_labels((row["reference_dataset_id"] for row in (*self.daily, *self.experiments)), self.names)

    @cached_property
    def rows(self) -> list[Row]:
        """The daily rows of the period, the latest day first."""
        return sorted((row for row in self._dated if self.first <= row["start_date"] <= self.last), key=_latest_first)

    @property
    def _dated(self) -> list[Row]:
        return [row for row in self.daily if row["start_date"] is not None]

    @cached_property
    def rows_before(self) -> list[Row]:
        """The daily rows of the period before."""
        return [row for row in self._dated if row["start_date"] < self.first]

    @cached_property
    def now(self) -> Totals:
        """The sums of the period."""
        return Totals.of(self.rows)

    @cached_property
    def before(self) -> Totals:
        """The sums of the period before."""
        return Totals.of(self.rows_before)

    @cached_property
    def undated(self) -> Totals:
        """The sums of what has no day, and belongs to no period."""
        return Totals.of(row for row in self.daily if row["start_date"] is None)

    @cached_property
    def datasets(self) -> list[DatasetSpending]:
        """What was spent on each dataset, the most expensive first."""
        return by_dataset(self.rows, self.rows_before, self.labels)

    @property
    def unit(self) -> str:
        """`day`, `week` or `month`."""
        return unit_of(len(self.days))

    @cached_property
    def buckets(self) -> list[Bucket]:
        """What was spent by day, week or month."""
        return by_time(self.days, self.rows, self.days_read, self.unit)


def _latest_first(row: Row) -> tuple[Any, ...]:
    cost = -1 if row["total_cost"] is None else row["total_cost"]
    return -row["start_date"].toordinal(), -cost, row["reference_dataset_id"], row["tenant_id"]


def first_before(first: date, last: date) -> date:
    """The first day of the period before, which is as long."""
    return first - (last - first) - timedelta(days=1)


def read_report_data(lake: Lake, first: date, last: date) -> ReportData:
    """Read what a report on these days, both included, needs.

    Raises:
        LakeError: a file can't be read.
    """
    read = [day for day in lake.days(DAILY_COST_BY_REFERENCE_DATASET) if first_before(first, last) <= day <= last]
    inside = [day for day in read if day >= first]
    usage = [day for day in lake.days(DAILY_COST_BY_PROJECT) if first <= day <= last]
    rejected = _read(lake, REJECTED_SESSIONS, [*inside, UNDATED], ["fetched_at"])
    daily = _read(lake, DAILY_COST_BY_REFERENCE_DATASET, [*read, UNDATED]).to_pylist()
    names = dataset_names(lake, {(row["tenant_id"], row["reference_dataset_id"]) for row in daily}, read)
    return ReportData(
        first=first,
        last=last,
        daily=daily,
        experiments=_read(lake, EXPERIMENT_SUMMARY, inside).to_pylist(),
        projects=_read(lake, DAILY_COST_BY_PROJECT, usage).to_pylist() if usage else None,
        rejected=Counter(rejected.column("start_date").to_pylist()),
        kept=kept_readings(_read(lake, SESSIONS, inside, KEPT_COLUMNS)),
        days_read=frozenset(read),
        names={dataset: name for (_, dataset), name in names.items()},
        readings={day: _last_read(lake, day) for day in inside},
    )


def _last_read(lake: Lake, day: date) -> datetime:
    """When a day that is in the lake was read last, also by a reading that learned nothing."""
    return load_readings(lake.read_file(f"_readings/start_date={day}.json"))[-1].fetched_at


def kept_readings(sessions: pa.Table) -> Kept:
    """The experiments among the rows (with `KEPT_COLUMNS`) that retention has emptied, or that are gone."""
    emptied = pc.less(sessions.column("stats_as_of"), sessions.column("fetched_at"))
    is_kept = pc.or_kleene(emptied, pc.is_valid(sessions.column("missing_since")))
    kept = sessions.filter(pc.and_kleene(is_kept, pc.is_valid(sessions.column("reference_dataset_id"))))
    return Kept(kept.num_rows, total(kept.column("total_cost").to_pylist()))


def _read(lake: Lake, table: Table, days: Sequence[Day], columns: Sequence[str] | None = None) -> pa.Table:
    return lake.read_days(table, [day for day in days if lake.has(table, day)], columns)
