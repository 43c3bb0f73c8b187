"""What was spent in the period, on which dataset, when, and how that differs from the period before."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from sessions_pipeline.days import month_start, week_start
from sessions_pipeline.outputs import formatting
from sessions_pipeline.outputs.report.data import ReportData, Row

# Thirty or so bars fit on a phone.
LONGEST_BY_DAY = 45
LONGEST_BY_WEEK = 200


@dataclass(frozen=True, slots=True)
class Usage:
    """Sums over some rows of daily costs. Money is None where nothing is known."""

    cost: Decimal | None
    sessions: int
    unpriced: int
    zero_with_tokens: int
    runs: int | None
    tokens: int | None

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "Usage":
        """The sums of `rows`."""
        found = list(rows)
        return cls(
            cost=formatting.total(row["total_cost"] for row in found),
            sessions=sum(row["session_count"] for row in found),
            unpriced=sum(row["unpriced_session_count"] for row in found),
            zero_with_tokens=sum(row["zero_cost_with_tokens_count"] for row in found),
            runs=formatting.known_sum(row["run_count"] for row in found),
            tokens=formatting.known_sum(row["total_tokens"] for row in found),
        )


@dataclass(frozen=True, slots=True)
class DatasetSpending:
    """A dataset's sums in the period and in the one before."""

    id: str
    name: str
    now: Usage
    before: Usage

    @property
    def difference(self) -> Decimal:
        """What was spent more than before, of what is known, US dollars."""
        return formatting.EXACT.subtract(self.now.cost or Decimal(0), self.before.cost or Decimal(0))


@dataclass(frozen=True, slots=True)
class Bucket:
    """A day, week or month of the period: costs by dataset id, and how many of its days were read."""

    start: date
    label: str
    long_label: str
    days: int
    days_read: int
    usage: Usage
    costs: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class Spending:
    """The whole period. `datasets` are the most expensive first; `unit` is `day`, `week` or `month`."""

    now: Usage
    before: Usage
    undated: Usage
    datasets: Sequence[DatasetSpending]
    buckets: Sequence[Bucket]
    unit: str
    rows: Sequence[Row]
    unread: Sequence[date]
    unread_before: Sequence[date]
    tenants: Sequence[str]

    @property
    def has_before(self) -> bool:
        """Whether anything is known of the period before."""
        return self.before.sessions > 0


def spending(data: ReportData) -> Spending:
    """Add up `data.daily`."""
    dated = [row for row in data.daily if row["start_date"] is not None]
    now = [row for row in dated if data.first <= row["start_date"] <= data.last]
    earlier = [row for row in dated if row["start_date"] < data.first]
    read = data.days_read | {row["start_date"] for row in dated}
    unit = _unit(len(data.days))
    return Spending(
        now=Usage.of(now),
        before=Usage.of(earlier),
        undated=Usage.of(row for row in data.daily if row["start_date"] is None),
        datasets=_by_dataset(now, earlier, data.labels),
        buckets=_buckets(data.days, now, read, unit),
        unit=unit,
        rows=sorted(now, key=_latest_day_first),
        unread=[day for day in data.days if day not in read],
        unread_before=[day for day in data.before if day not in read],
        tenants=sorted({row["tenant_id"] for row in now}),
    )


def _by_dataset(now: Iterable[Row], earlier: Iterable[Row], labels: Mapping[str, str]) -> list[DatasetSpending]:
    rows_now, rows_earlier = _grouped(now, "reference_dataset_id"), _grouped(earlier, "reference_dataset_id")
    found = [
        DatasetSpending(key, labels[key], Usage.of(rows_now.get(key, ())), Usage.of(rows_earlier.get(key, ())))
        for key in rows_now.keys() | rows_earlier.keys()
    ]
    return sorted(found, key=lambda one: (-(one.now.cost or 0), not one.now.sessions, -(one.before.cost or 0), one.id))


def _buckets(days: Sequence[date], rows: Iterable[Row], read: frozenset[date], unit: str) -> list[Bucket]:
    days_of, rows_of = defaultdict(list), defaultdict(list)
    for day in days:
        days_of[_start(day, unit)].append(day)
    for row in rows:
        rows_of[_start(row["start_date"], unit)].append(row)
    return [
        Bucket(
            start=start,
            label=formatting.month(start) if unit == "month" else formatting.short_day(start),
            long_label=formatting.days(inside[0], inside[-1]),
            days=len(inside),
            days_read=sum(day in read for day in inside),
            usage=Usage.of(rows_of[start]),
            costs={
                key: cost
                for key, group in sorted(_grouped(rows_of[start], "reference_dataset_id").items())
                if (cost := formatting.total(row["total_cost"] for row in group)) is not None
            },
        )
        for start, inside in days_of.items()
    ]


def _start(day: date, unit: str) -> date:
    if unit == "week":
        return week_start(day)
    return month_start(day) if unit == "month" else day


def _unit(days: int) -> str:
    if days <= LONGEST_BY_DAY:
        return "day"
    return "week" if days <= LONGEST_BY_WEEK else "month"


def _latest_day_first(row: Row) -> tuple[Any, ...]:
    return (
        -row["start_date"].toordinal(),
        -(row["total_cost"] if row["total_cost"] is not None else -1),
        row["reference_dataset_id"],
        row["tenant_id"],
    )


def _grouped(rows: Iterable[Row], key: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[key]].append(row)
    return groups
