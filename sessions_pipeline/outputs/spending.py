"""What rows of daily costs add up to, exactly: in all, by a column's values, and by day, week or month."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, NamedTuple, Self, TypeAlias

from sessions_pipeline.days import days_between, month_start, next_month_start, week_start
from sessions_pipeline.outputs import formatting
from sessions_pipeline.outputs.formatting import EXACT

# Thirty or so bars fit on a phone.
LONGEST_BY_DAY = 45
LONGEST_BY_WEEK = 200
# One or two days say nothing about a month.
FEWEST_DAYS_OF_A_FORECAST = 3
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
    """What some rows with the measures of `daily_cost_by_reference_dataset` add up to. Money is in US dollars."""

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

    @property
    def per_run(self) -> Decimal | None:
        """The known cost by the runs, to 18 digits; None where one is unknown, or nothing ran."""
        if self.cost is None or not self.runs:
            return None
        return EXACT.quantize(EXACT.divide(self.cost, self.runs), Decimal(1).scaleb(-18))


class Period(NamedTuple):
    """Days, and those of them that compare like with like: as many of them as there are days `before`."""

    days: frozenset[date]
    alike: frozenset[date]
    before: frozenset[date]

    @classmethod
    def of(cls, days: Sequence[date], days_before: Sequence[date], whole: frozenset[date]) -> Self:
        """A day is compared with the one in its place before, if both are `whole`: they were read, and over by then."""
        pairs = [(day, other) for day, other in zip(days, days_before, strict=False) if {day, other} <= whole]
        return cls(frozenset(days), frozenset(day for day, _ in pairs), frozenset(other for _, other in pairs))


@dataclass(frozen=True, slots=True)
class Spending:
    """What was spent on something in a period, and on its days that are alike against the days before."""

    key: str | None
    name: str
    now: Totals
    alike: Totals
    before: Totals

    @classmethod
    def of(cls, key: str | None, name: str, rows: Iterable[Row], period: Period) -> Self:
        """What the rows say of these days; others may be among them."""
        found = list(rows)
        return cls(key, name, *(Totals.of(row for row in found if row["start_date"] in days) for days in period))

    @property
    def difference(self) -> Decimal | None:
        """What was spent more than before, of what is known, US dollars; None where nothing is known of one of them."""
        if any(totals.sessions and totals.cost is None for totals in (self.alike, self.before)):
            return None
        return EXACT.subtract(self.alike.cost or Decimal(0), self.before.cost or Decimal(0))


def biggest_movers(rows: Iterable[Row], column: str, names: Mapping[Any, str], period: Period) -> list[Spending]:
    """What was spent by a column's values, the largest change first; where nothing changed, the most expensive."""
    found = [Spending.of(key, names[key], group, period) for key, group in by_key(rows, column).items()]
    found = [one for one in found if one.now.sessions or one.before.sessions]
    return sorted(found, key=lambda one: (-abs(one.difference or Decimal(0)), *_expensive(one)))


def most_expensive_first(spent: Iterable[Spending]) -> list[Spending]:
    """The same things by what they cost in the period."""
    return sorted(spent, key=_expensive)


def _expensive(one: Spending) -> tuple[Any, ...]:
    return -(one.now.cost or Decimal(0)), not one.now.sessions, -(one.before.cost or Decimal(0)), one.key or ""


def forecast(cost: Decimal | None, gone: int, days: int) -> Decimal | None:
    """What a period of `days` will have cost if it goes on as in the days that are gone; None before the third."""
    if cost is None or gone < FEWEST_DAYS_OF_A_FORECAST:
        return None
    return EXACT.divide(EXACT.multiply(cost, days), gone)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A day, week or month of the period: known costs by dataset id, and what is to be known of its days.

    `is_part`: not all its days are in the period. `lacks` says so, and which days were not read, or not over by then.
    """

    label: str
    long_label: str
    is_part: bool
    is_read: bool
    lacks: str
    totals: Totals
    costs: Mapping[str | None, Decimal]


def by_time(
    days: Sequence[date], rows: Iterable[Row], read: frozenset[date], unfinished: frozenset[date], unit: str
) -> list[Bucket]:
    """What the rows say of each day, week or month, oldest first."""
    starts = {day: STARTS[unit](day) for day in days}
    rows_of = defaultdict(list)
    for row in rows:
        rows_of[starts[row["start_date"]]].append(row)
    return [
        _bucket(start, [day for day in days if starts[day] == start], rows_of[start], read, unfinished, unit)
        for start in dict.fromkeys(starts.values())
    ]


def _bucket(
    start: date,
    days: Sequence[date],
    rows: Sequence[Row],
    read: frozenset[date],
    unfinished: frozenset[date],
    unit: str,
) -> Bucket:
    costs = {
        key: total(row["total_cost"] for row in group) for key, group in by_key(rows, "reference_dataset_id").items()
    }
    whole = len(days_between(*period_of(unit, start)))
    unread, open_days = len(days) - len(read.intersection(days)), len(unfinished.intersection(days))
    lacks = (
        f"only {len(days)} of the {unit}'s {whole} days" if len(days) < whole else "",
        ("not read" if len(days) == 1 else f"{unread} of {len(days)} days not read") if unread else "",
        "not over when last read" if open_days else "",
    )
    return Bucket(
        label=formatting.month(start) if unit == "month" else formatting.short_day(start),
        long_label=formatting.days(days[0], days[-1]),
        is_part=len(days) < whole,
        is_read=not unread,
        lacks=", ".join(filter(None, lacks)),
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


def by_key(rows: Iterable[Row], key: str) -> dict[Any, list[Row]]:
    """The rows by their value in a column."""
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[key]].append(row)
    return groups


def month_days(day: date) -> tuple[list[date], list[date]]:
    """The days of the day's month up to it, and those of the month before."""
    start = month_start(day)
    return days_between(start, day), days_between(*period_of("month", start - timedelta(days=1)))
