"""The report's data, apart from its layout: rows of the lake's tables, and what is computed from them. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cached_property, partial
from math import inf
from typing import NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.days import days_between, month_days, period_of
from sessions_pipeline.outputs.budgets import BudgetStatus
from sessions_pipeline.outputs.formatting import dataset_labels, plural, visible
from sessions_pipeline.outputs.report.charts import Bucket, by_time
from sessions_pipeline.outputs.spending import (
    TOTALS_COLUMNS,
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
    most_expensive_first,
)
from sessions_pipeline.tables.aggregate import sums, sums_by_days

Budgets: TypeAlias = Sequence[BudgetStatus] | str
"""The status of each budget, or why they can't be read."""
# For each attribute, how many values have a row of their own, and how many datasets can be chosen.
VALUES_SHOWN, DATASETS_OFFERED = 12, 25
LATEST_FIRST = [("start_date", "descending"), ("total_cost", "descending"), ("reference_dataset_id", "ascending")]
# The longest period, in days, with a bar for each day, week and month. About thirty bars fit on a phone.
LONGEST_BY = {"day": 45, "week": 200, "month": inf}


class Month(NamedTuple):
    """The days of a month so far, what was spent on them, and a forecast for the whole month in US dollars.

    `before` is the first day of the month before. `unread` of the days were not read in every workspace, or are
    `rebuilt`, and `whole_days` were over when they were read. The forecast is None before the third day, if days are
    unread, and for a month that is over.
    """

    days: Sequence[date]
    before: date
    is_over: bool
    unread: int
    whole_days: int
    period: Comparison
    spending: Spending
    forecast: Decimal | None


class Breakdown(NamedTuple):
    """What was spent for each value of an attribute: the most expensive ones, largest change first, and all others."""

    whole: Spending
    values: Sequence[Spending]
    others: Spending | None


class Attribute(NamedTuple):
    """What was spent for each value of an attribute (`key`): the first group is everything, the others are datasets.

    The days are those whose file is summed by this attribute; `unread` counts the days that were read without it.
    """

    key: str
    period: Comparison
    unread: int
    groups: Sequence[Breakdown]


@dataclass(frozen=True)
class ReportData:
    """The data of the report on the days from `first` to `last`. Rows have columns of their table and its partition.

    - `daily`: `daily_cost_by_reference_dataset`, also of the days to compare with, and undated, `LATEST_FIRST`.
    - `attributes`: `daily_cost_by_attribute` of the same days; `attribute_days`: the days summed by each attribute.
    - `experiments`: at least the most expensive of `experiment_summary`; `judges`: `judge_cost_by_experiment`.
    - `projects`: `daily_cost_by_project` on the `measured_days` of the period.
    - `rejected`: how many records were rejected, by day; None: those without a day.
    - `sessions`: the `DOUBTFUL_COLUMNS` of the table of that name, of the period.
    - `unexamined`: days without `sessions` or `rejected_sessions`, which `sessions` and `rejected` can't know about.
    - `days_read`: the days that were read in every workspace, without those `rebuilt` as they were known earlier;
      `unfinished`: the days that were not over when they were last read; `latest`: the lake's last day.
    - `names`: datasets' names by id.
    - `readings`: the time of the last reading of each day of the period, if it was noted; `unread_of`: by workspace,
      the days on which only others were read.
    - `judge_readings`: what judges cost in all, and why some were not measured.
    - `budgets`: see `Budgets`.
    - `asked_for`: the last day that the user asked for, which may be in the future.
    """

    first: date
    last: date
    daily: pa.Table
    attributes: pa.Table
    experiments: pa.Table
    projects: pa.Table
    judges: pa.Table
    sessions: pa.Table
    attribute_days: Mapping[str, frozenset[date]] = field(default_factory=dict)
    measured_days: int = 0
    rejected: Mapping[date | None, int] = field(default_factory=dict)
    unexamined: frozenset[date] = frozenset()
    days_read: frozenset[date] = frozenset()
    rebuilt: frozenset[date] = frozenset()
    unfinished: frozenset[date] = frozenset()
    latest: date | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    readings: Mapping[date, datetime] = field(default_factory=dict)
    unread_of: Mapping[str, Sequence[date]] = field(default_factory=dict)
    judge_readings: JudgeReadings = field(default_factory=JudgeReadings)
    budgets: Budgets = ()
    asked_for: date | None = None

    @cached_property
    def days(self) -> list[date]:
        """The days of the report."""
        return days_between(self.first, self.last)

    @cached_property
    def days_before(self) -> list[date]:
        """The days of the period before, which has the same length."""
        return days_between(self.first - timedelta(days=len(self.days)), self.first - timedelta(days=1))

    @cached_property
    def unread(self) -> list[date]:
        """The days of the period that were not read in every workspace, or are `rebuilt`."""
        return [day for day in self.days if day not in self.days_read]

    @cached_property
    def period(self) -> Comparison:
        """The days of the report, and which of them are compared with the period before."""
        return Comparison.of(self.days, self.days_before, self.days_read - self.unfinished)

    @cached_property
    def labels(self) -> Mapping[str, str]:
        """Each dataset's label on the page, by id."""
        ids = (rows.column("reference_dataset_id").unique() for rows in (self.daily, self.experiments))
        return dataset_labels((id_ for some in ids for id_ in some.to_pylist()), self.names)

    @cached_property
    def rows(self) -> pa.Table:
        """The daily rows of the period."""
        days = self.daily.column("start_date")
        return self.daily.filter(pc.and_(pc.greater_equal(days, self.first), pc.less_equal(days, self.last)))

    @cached_property
    def costs(self) -> Sequence[Row]:
        """The daily costs by dataset; days that the page never tells apart are one, see `sums_by_days`."""
        bars = by_key(self.days, partial(period_of, self.unit)).values()
        sets = (*bars, *self.period, *([day] for days in month_days(self.last) for day in days))
        return sums_by_days(self.daily, ["reference_dataset_id"], sets, TOTALS_COLUMNS)

    @cached_property
    def costs_now(self) -> list[Row]:
        """The costs of the period."""
        return [row for row in self.costs if row["start_date"] in self.period.days]

    @cached_property
    def judge_costs(self) -> Sequence[Row]:
        """The judges' costs by dataset."""
        judges = self.judges.append_column("unknown", self.judges.column("total_cost").is_null())
        return list(sums(judges, ["reference_dataset_id"], ["total_cost", "unknown"]).to_pylist())

    @cached_property
    def whole(self) -> Spending:
        """What was spent on everything."""
        return Spending(None, "", self.costs, self.period)

    @cached_property
    def now(self) -> Totals:
        """The sums of the period, with the cost of judges."""
        return Totals.of(self.costs_now, self.judge_costs)

    @cached_property
    def movers(self) -> list[Spending]:
        """What was spent on each dataset, the largest change first."""
        return biggest_movers(self.costs, "reference_dataset_id", self.labels, self.period)

    def causes(self, mover: Spending) -> Causes | None:
        """The causes of a dataset's change, by the attribute of which one value explains most; None if none does."""
        found = [
            explanation
            for attribute in self.by_attribute
            for group in attribute.groups
            if group.whole.key == mover.key and attribute.period == self.period and len(group.values) > 1
            if (explanation := causes(attribute.key, mover.difference or Decimal(0), group.values))
        ]
        return max(found, key=lambda explanation: abs(explanation.parts[0][1]), default=None)

    @cached_property
    def datasets(self) -> list[Spending]:
        """What was spent on each dataset, the most expensive first."""
        return sorted(self.movers, key=most_expensive_first)

    @property
    def unit(self) -> str:
        """The unit of the chart's bars, `day`, `week` or `month`, so that they can be told apart."""
        return next(unit for unit, longest in LONGEST_BY.items() if len(self.days) <= longest)

    @cached_property
    def buckets(self) -> list[Bucket]:
        """What was spent by day, week or month."""
        return by_time(self)

    @cached_property
    def month(self) -> Month:
        """The costs of the last day's month, up to that day."""
        days, before = month_days(self.last)
        period = Comparison.of(days, before, self.days_read - self.unfinished)
        spending, unread = Spending(None, "", self.costs, period), len(period.days - self.days_read)
        whole = period.days - self.unfinished
        month = period_of("month", self.last)
        is_over = self.last not in self.unfinished if self.last == month[1] else (self.latest or self.last) > month[1]
        expected = None
        if not unread and not is_over:
            of_whole_days = Totals.of(row for row in self.costs if row["start_date"] in whole).known
            expected = forecast(spending.now.cost, of_whole_days, len(whole), len(days), len(days_between(*month)))
        return Month(days, before[0], is_over, unread, len(whole), period, spending, expected)

    @cached_property
    def by_attribute(self) -> list[Attribute]:
        """What was spent for the values of each attribute, in the order of the settings."""
        return [self._attribute(key, days) for key, days in self.attribute_days.items()]

    def _attribute(self, key: str, days: frozenset[date]) -> Attribute:
        period = Comparison.of(self.days, self.days_before, days & self.days_read - self.unfinished)
        rows, offered = self.attributes.filter(pc.field("attribute") == key), self.datasets[:DATASETS_OFFERED]
        is_offered = pc.field("reference_dataset_id").isin(pa.array([one.key for one in offered], pa.string()))
        costs = sums_by_days(rows.filter(is_offered), ["reference_dataset_id", "value"], period, TOTALS_COLUMNS)
        by_id = by_key(costs, lambda row: row["reference_dataset_id"])
        whole = _breakdown(None, "", sums_by_days(rows, ["value"], period, TOTALS_COLUMNS), period)
        groups = [_breakdown(one.key, one.name, by_id[one.key], period) for one in offered]
        return Attribute(visible(key), period, len(self.days_read.intersection(self.days) - days), [whole, *groups])


def _breakdown(dataset: str | None, name: str, rows: Sequence[Row], period: Comparison) -> Breakdown:
    names = {row["value"]: "(not stated)" if row["value"] is None else visible(row["value"]) for row in rows}
    found = biggest_movers(rows, "value", names, period)
    largest = sorted(found, key=lambda one: -max(one.now.cost or 0, one.before.cost or 0))
    rest = {one.key for one in largest[VALUES_SHOWN:]}
    others = Spending(None, plural(len(rest), "other"), (row for row in rows if row["value"] in rest), period)
    shown = [one for one in found if one.key not in rest]
    return Breakdown(Spending(dataset, name, rows, period), shown, others if rest else None)
