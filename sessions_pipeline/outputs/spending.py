"""What rows of daily costs add up to, exactly: in all, by dataset, and by day, week or month."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, NamedTuple, Self, TypeAlias

from sessions_pipeline.days import month_start, next_month_start, week_start
from sessions_pipeline.outputs import formatting
from sessions_pipeline.outputs.formatting import EXACT

# Thirty or so bars fit on a phone.
LONGEST_BY_DAY = 45
LONGEST_BY_WEEK = 200
STARTS: Mapping[str, Callable[[date], date]] = {"day": lambda day: day, "week": week_start, "month": month_start}

Row: TypeAlias = Mapping[str, Any]


def total(values: Iterable[Decimal | None]) -> Decimal | None:
    """The exact sum of what is known; None when nothing is."""
    added = None
    for value in values:
        if value is not None:
            added = EXACT.add(added or Decimal(0), value)
    return added


def known_sum(values: Iterable[int | None]) -> int | None:
    """The sum of what is known; None when nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


class Totals(NamedTuple):
    """What some rows of `daily_cost_by_reference_dataset` add up to. Money is in US dollars."""

    cost: Decimal | None
    sessions: int
    unpriced: int
    zero_with_tokens: int
    runs: int | None
    tokens: int | None

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Self:
        """The sums of `rows`."""
        found = list(rows)
        return cls(
            cost=total(row["total_cost"] for row in found),
            sessions=sum(row["session_count"] for row in found),
            unpriced=sum(row["unpriced_session_count"] for row in found),
            zero_with_tokens=sum(row["zero_cost_with_tokens_count"] for row in found),
            runs=known_sum(row["run_count"] for row in found),
            tokens=known_sum(row["total_tokens"] for row in found),
        )


@dataclass(frozen=True, slots=True)
class DatasetSpending:
    """A dataset's sums in the period and in the one before."""

    id: str
    name: str
    now: Totals
    before: Totals

    @property
    def difference(self) -> Decimal:
        """What was spent more than before, of what is known, US dollars."""
        return EXACT.subtract(self.now.cost or Decimal(0), self.before.cost or Decimal(0))


@dataclass(frozen=True, slots=True)
class Bucket:
    """A day, week or month of the period: known costs by dataset id, and how many of its days were read."""

    label: str
    long_label: str
    days: int
    days_read: int
    totals: Totals
    costs: Mapping[str, Decimal]


def by_dataset(now: Iterable[Row], before: Iterable[Row], labels: Mapping[str, str]) -> list[DatasetSpending]:
    """What the rows say of each dataset, the most expensive first."""
    rows_now, rows_before = by_key(now, "reference_dataset_id"), by_key(before, "reference_dataset_id")
    found = [
        DatasetSpending(key, labels[key], Totals.of(rows_now.get(key, ())), Totals.of(rows_before.get(key, ())))
        for key in rows_now.keys() | rows_before.keys()
    ]
    return sorted(found, key=lambda one: (-(one.now.cost or 0), not one.now.sessions, -(one.before.cost or 0), one.id))


def by_time(days: Sequence[date], rows: Iterable[Row], read: frozenset[date], unit: str) -> list[Bucket]:
    """What the rows say of each day, week or month, oldest first."""
    starts = {day: STARTS[unit](day) for day in days}
    rows_of = defaultdict(list)
    for row in rows:
        rows_of[starts[row["start_date"]]].append(row)
    return [
        _bucket(start, [day for day in days if starts[day] == start], rows_of[start], read, unit)
        for start in dict.fromkeys(starts.values())
    ]


def _bucket(start: date, days: Sequence[date], rows: Sequence[Row], read: frozenset[date], unit: str) -> Bucket:
    costs = {
        key: total(row["total_cost"] for row in group) for key, group in by_key(rows, "reference_dataset_id").items()
    }
    return Bucket(
        label=formatting.month(start) if unit == "month" else formatting.short_day(start),
        long_label=formatting.days(days[0], days[-1]),
        days=len(days),
        days_read=len(read.intersection(days)),
        totals=Totals.of(rows),
        costs={key: cost for key, cost in costs.items() if cost is not None},
    )


def unit_of(days: int) -> str:
    """`day`, `week` or `month`: what as many bars stand for as can be told apart."""
    if days <= LONGEST_BY_DAY:
        return "day"
    return "week" if days <= LONGEST_BY_WEEK else "month"


def period_of(unit: str, day: date) -> tuple[date, date]:
    """The first and last day of the `day`, ISO `week` or `month` that a day is in."""
    first = STARTS[unit](day)
    after = {"day": first + timedelta(days=1), "week": first + timedelta(days=7), "month": next_month_start(first)}
    return first, after[unit] - timedelta(days=1)


def by_key(rows: Iterable[Row], key: str) -> dict[str, list[Row]]:
    """The rows by their value in a column."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[key]].append(row)
    return groups
