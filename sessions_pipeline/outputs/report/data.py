"""What the report says, before any layout: rows of the lake's tables, and what follows from them. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

from sessions_pipeline.days import days_between, period_of
from sessions_pipeline.outputs.budgets import BudgetStatus
from sessions_pipeline.outputs.formatting import dataset_labels, visible
from sessions_pipeline.outputs.report.charts import Bucket, by_time, unit_of
from sessions_pipeline.outputs.spending import (
    Causes,
    Comparison,
    JudgeReadings,
    Row,
    Spending,
    Totals,
    biggest_movers,
    by_key,
    causes,
    forecast,
    month_days,
    most_expensive_first,
)

Budgets: TypeAlias = Sequence[BudgetStatus] | str
"""How budgets stand, or why that can't be told."""
NOT_STATED = "(not stated)"
# Of each attribute: what has a row of its own, and how many datasets can be chosen.
VALUES_SHOWN, DATASETS_OFFERED = 12, 25


@dataclass(frozen=True, slots=True)
class Doubtful:
    """Experiments whose numbers the API no longer gives, so that an earlier reading stands for them, and their cost.

    `cost` is in US dollars, exact; None when none of it is known. `problems` counts those with a cost that is null
    because what the API sent for it can't be used.
    """

    kept: int = 0
    cost: Decimal | None = None
    problems: int = 0


class Month(NamedTuple):
    """The days of a month so far, what was spent on them, and what all of it will cost if it goes on so.

    `before` is the first day of the month before; `whole_days` were over when they were read. The forecast is None
    before the third day, where days are unread, and for a month that is over.
    """

    days: Sequence[date]
    before: date
    is_over: bool
    unread: int
    whole_days: int
    period: Comparison
    spending: Spending
    forecast: Decimal | None


class Group(NamedTuple):
    """What was spent by the values of an attribute: those that cost most, the largest change first, and the others."""

    whole: Spending
    values: Sequence[Spending]
    others: Spending | None


class Attribute(NamedTuple):
    """What was spent by the values of a key, in all and by dataset, on the days whose file was summed by it.

    `unread` are the days that were read, but not summed by this key.
    """

    key: str
    period: Comparison
    unread: int
    groups: Sequence[Group]


@dataclass(frozen=True)
class ReportData:
    """What the report is made from. Rows have their table's columns and its partition's.

    `daily` (`daily_cost_by_reference_dataset`) also has what the period and its last month are compared with, and the
    rows without a day. `attributes` (`daily_cost_by_attribute`) has the same days; `attribute_days` are those that were
    summed, by key. `experiments` (`experiment_summary`), `projects` (`daily_cost_by_project`; None: not measured) of
    `measured_days`, and `judges` (`judge_rows`) are the period's alone. `rejected` counts records by day, None for
    those without one; for days that are `unexamined` neither this nor `doubtful` says anything, as their tables are not
    there. Of the days that were read (`days_read`), `unfinished` were not over by then; `latest` is the lake's last.
    `names` are datasets' names by id. `readings` has the time of each day's last reading, for the days of the period of
    which it is noted, and `unread_of` those on which a workspace was not read, though another was. `judge_readings` say
    what judges spent in all, and why some were not measured. `budgets` are how they stand, or why that can't be told.
    `asked_for` is the last day that was asked for, which may be to come.
    """

    first: date
    last: date
    daily: Sequence[Row] = ()
    attributes: Sequence[Row] = ()
    attribute_days: Mapping[str, frozenset[date]] = field(default_factory=dict)
    experiments: Sequence[Row] = ()
    projects: Sequence[Row] | None = None
    measured_days: int = 0
    rejected: Mapping[date | None, int] = field(default_factory=dict)
    doubtful: Doubtful = field(default_factory=Doubtful)
    unexamined: frozenset[date] = frozenset()
    days_read: frozenset[date] = frozenset()
    unfinished: frozenset[date] = frozenset()
    latest: date | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    readings: Mapping[date, datetime] = field(default_factory=dict)
    unread_of: Mapping[str, Sequence[date]] = field(default_factory=dict)
    judges: Sequence[Row] = ()
    judge_readings: JudgeReadings = field(default_factory=JudgeReadings)
    budgets: Budgets = ()
    asked_for: date | None = None

    @cached_property
    def days(self) -> list[date]:
        """The days that were asked for."""
        return days_between(self.first, self.last)

    @cached_property
    def days_before(self) -> list[date]:
        """The days of the period before, which is as long."""
        return days_between(self.first - timedelta(days=len(self.days)), self.first - timedelta(days=1))

    @cached_property
    def unread(self) -> list[date]:
        """The days of the period that were not read."""
        return [day for day in self.days if day not in self.days_read]

    @cached_property
    def open_days(self) -> list[date]:
        """The days of the period that were read last before they were over."""
        return [day for day in self.days if day in self.unfinished]

    @cached_property
    def period(self) -> Comparison:
        """The days, and which of them are compared with which before."""
        return Comparison.of(self.days, self.days_before, self.days_read - self.unfinished)

    @cached_property
    def labels(self) -> Mapping[str, str]:
        """What each dataset is called on the page, by id."""
        return dataset_labels((row["reference_dataset_id"] for row in (*self.daily, *self.experiments)), self.names)

    @cached_property
    def rows(self) -> list[Row]:
        """The daily rows of the period, the latest day first."""
        return sorted((row for row in self.daily if row["start_date"] in self.period.days), key=_latest_first)

    @cached_property
    def whole(self) -> Spending:
        """What was spent on everything."""
        return Spending.of(None, "", self.daily, self.period)

    @cached_property
    def now(self) -> Totals:
        """The sums of the period, with what judges have spent."""
        return Totals.of(self.rows, self.judges)

    @cached_property
    def undated(self) -> Totals:
        """The sums of what has no day, and belongs to no period."""
        return Totals.of(row for row in self.daily if row["start_date"] is None)

    @cached_property
    def movers(self) -> list[Spending]:
        """What was spent on each dataset, the largest change first."""
        return biggest_movers(self.daily, "reference_dataset_id", self.labels, self.period)

    def causes(self, mover: Spending) -> Causes | None:
        """What a dataset's change is made of, by the key whose values tell most of it."""
        found = [
            made
            for one in self.by_attribute
            for group in one.groups
            if group.whole.key == mover.key and one.period == self.period and len(group.values) > 1
            if (made := causes(one.key, mover.difference or Decimal(0), group.values))
        ]
        return max(found, key=lambda one: abs(one.parts[0][1]), default=None)

    @cached_property
    def datasets(self) -> list[Spending]:
        """The same, the most expensive first."""
        return sorted(self.movers, key=most_expensive_first)

    @property
    def unit(self) -> str:
        """`day`, `week` or `month`."""
        return unit_of(len(self.days))

    @cached_property
    def buckets(self) -> list[Bucket]:
        """What was spent by day, week or month."""
        return by_time(self.days, self.rows, self.days_read, self.unfinished, self.unit)

    @cached_property
    def month(self) -> Month:
        """What the month of the last day has cost up to that day."""
        days, before = month_days(self.last)
        period = Comparison.of(days, before, self.days_read - self.unfinished)
        spending, unread = Spending.of(None, "", self.daily, period), len(period.days - self.days_read)
        whole = period.days - self.unfinished
        month = period_of("month", self.last)
        is_over = self.last not in self.unfinished if self.last == month[1] else (self.latest or self.last) > month[1]
        expected = None
        if not unread and not is_over:
            of_whole_days = Totals.of(row for row in self.daily if row["start_date"] in whole).known
            length = len(days_between(*month))
            expected = forecast(spending.now.cost, of_whole_days, len(whole), len(days), length)
        return Month(days, before[0], is_over, unread, len(whole), period, spending, expected)

    @cached_property
    def by_attribute(self) -> list[Attribute]:
        """What was spent by each key's values, in the order in which the keys are set."""
        rows = by_key(self.attributes, "attribute")
        return [self._attribute(key, days, rows.get(key, [])) for key, days in self.attribute_days.items()]

    def _attribute(self, key: str, days: frozenset[date], rows: Sequence[Row]) -> Attribute:
        period = Comparison.of(self.days, self.days_before, days - self.unfinished)
        of = by_key(rows, "reference_dataset_id")
        groups = [_group(one.key, one.name, of.get(one.key, []), period) for one in self.datasets[:DATASETS_OFFERED]]
        unread = len(self.days_read.intersection(self.days) - days)
        return Attribute(visible(key), period, unread, [_group(None, "", rows, period), *groups])


def _group(dataset: str | None, name: str, rows: Sequence[Row], period: Comparison) -> Group:
    names = {row["value"]: NOT_STATED if row["value"] is None else visible(row["value"]) for row in rows}
    found = biggest_movers(rows, "value", names, period)
    largest = sorted(found, key=lambda one: -max(one.now.cost or 0, one.before.cost or 0))
    rest = {one.key for one in largest[VALUES_SHOWN:]}
    others = Spending.of(None, f"{len(rest)} others", (row for row in rows if row["value"] in rest), period)
    shown = [one for one in found if one.key not in rest]
    return Group(Spending.of(dataset, name, rows, period), shown, others if rest else None)


def _latest_first(row: Row) -> tuple[Any, ...]:
    cost = -1 if row["total_cost"] is None else row["total_cost"]
    return -row["start_date"].toordinal(), -cost, row["reference_dataset_id"], row["tenant_id"]
