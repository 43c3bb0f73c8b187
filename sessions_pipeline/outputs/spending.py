"""What rows of daily costs add up to, exactly: in all, by a column's values, and with what judges have spent."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal, localcontext
from operator import itemgetter
from typing import Any, NamedTuple, Self, TypeAlias, TypeVar

import msgspec

from sessions_pipeline.days import days_between, month_start, period_of
from sessions_pipeline.tables.aggregate import EXACT, cost_per_run, total
from sessions_pipeline.validation.types import LAST_DIGIT

# One or two days say nothing about a month.
FEWEST_DAYS_OF_A_FORECAST = 3

JUDGES_FILE = "_readings/judges.json"

Row: TypeAlias = Mapping[str, Any]
_Key = TypeVar("_Key", bound=Hashable)


class Totals(NamedTuple):
    """What some experiments and their judges come to. Money is in US dollars, exact; None: nothing is known.

    `judges_measured` counts the experiments whose judges were asked about, `judges_unknown` those of them whose judges'
    cost is not known.
    """

    cost: Decimal | None
    sessions: int
    unpriced: int
    zero_with_tokens: int
    runs: int | None
    tokens: int | None
    judge_cost: Decimal | None
    judges_measured: int
    judges_unknown: int

    @classmethod
    def of(cls, rows: Iterable[Row], judges: Iterable[Row] = ()) -> Self:
        """The sums of rows with the measures of `daily_cost_by_reference_dataset`, and of `judge_rows` of the same."""
        found, judged = list(rows), [row["total_cost"] for row in judges]
        return cls(
            cost=total(row["total_cost"] for row in found),
            sessions=sum(row["session_count"] for row in found),
            unpriced=sum(row["unpriced_session_count"] for row in found),
            zero_with_tokens=sum(row["zero_cost_with_tokens_count"] for row in found),
            runs=total(row["run_count"] for row in found),
            tokens=total(row["total_tokens"] for row in found),
            judge_cost=total(judged),
            judges_measured=len(judged),
            judges_unknown=judged.count(None),
        )

    @property
    def whole_cost(self) -> Decimal | None:
        """What is known of the experiments' own cost and their judges' together."""
        return total((self.cost, self.judge_cost))

    @property
    def known(self) -> Decimal | None:
        """The same; zero where there are no experiments."""
        return self.whole_cost if self.sessions else Decimal(0)

    @property
    def judges_not_measured(self) -> int:
        """The experiments whose judges were not asked about."""
        return self.sessions - self.judges_measured

    @property
    def unjudged(self) -> int:
        """The experiments whose judges' cost is not in the sums."""
        return self.judges_not_measured + self.judges_unknown

    @property
    def per_run(self) -> Decimal | None:
        """The known cost by the runs, to 18 digits; None where one is unknown, or nothing ran."""
        return cost_per_run(self.cost, self.runs)


class Comparison(NamedTuple):
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
    def of(cls, key: str | None, name: str, rows: Iterable[Row], period: Comparison) -> Self:
        """What the rows say of these days; others may be among them."""
        found = list(rows)
        return cls(key, name, *(Totals.of(row for row in found if row["start_date"] in days) for days in period))

    @property
    def difference(self) -> Decimal | None:
        """What was spent more than before, of what is known, US dollars; None where nothing is known of one of them."""
        now, before = self.alike.known, self.before.known
        return None if now is None or before is None else EXACT.subtract(now, before)


def biggest_movers(rows: Iterable[Row], column: str, names: Mapping[Any, str], period: Comparison) -> list[Spending]:
    """What was spent by a column's values, the largest change first; where nothing changed, the most expensive."""
    found = [Spending.of(key, names[key], group, period) for key, group in by_key(rows, column).items()]
    found = [one for one in found if one.now.sessions or one.before.sessions]
    return sorted(found, key=lambda one: (-abs(one.difference or Decimal(0)), *expensive(one)))


class Causes(NamedTuple):
    """What a change is made of: a key, and its values with their parts of it, US dollars, which add up to all of it."""

    key: str
    parts: Sequence[tuple[str, Decimal]]


def causes(key: str, change: Decimal, values: Iterable[Spending]) -> Causes | None:
    """The one or two values of a key that make up most of a change, and what the others come to.

    Each is at least a quarter of it. None where they are no more than half of it, or do not say what they are.
    """
    way = -1 if change < 0 else 1
    moved = [(one.difference, one.key, one.name) for one in values if one.difference]
    moved.sort(key=lambda one: (-way * one[0], one[2]))
    leading = [one for one in moved[:2] if 4 * way * one[0] >= abs(change)]
    of_leading = total(one[0] for one in leading) or Decimal(0)
    if 2 * way * of_leading <= abs(change) or leading[0][1] is None:
        return None
    rest, left = EXACT.subtract(change, of_leading), moved[len(leading) :]
    others = left[0][2] if [one[0] for one in left] == [rest] else "others"
    return Causes(key, [*((name, part) for part, _, name in leading), *([(others, rest)] if rest else [])])


def expensive(one: Spending) -> tuple[Any, ...]:
    """Sorts what was spent by what it cost in the period, the most expensive first."""
    return -(one.now.cost or Decimal(0)), not one.now.sessions, -(one.before.cost or Decimal(0)), one.key or ""


def forecast(
    cost: Decimal | None, of_whole_days: Decimal | None, whole_days: int, gone: int, length: int
) -> Decimal | None:
    """What a period of `length` days will have cost: what it has by now, and for each to come the mean of whole ones.

    `gone` are the days so far, of which `whole_days` were over when they were read. None before the third day, and
    where nothing is known of either cost. To 18 digits after the point.
    """
    if cost is None or of_whole_days is None or not whole_days or gone < FEWEST_DAYS_OF_A_FORECAST:
        return None
    with localcontext(EXACT):
        return (cost + of_whole_days * (length - gone) / whole_days).quantize(LAST_DIGIT)


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


def with_judges(experiments: Iterable[Row], judges: Iterable[Row]) -> list[Row]:
    """Rows of `experiment_summary` with what their judges cost, of `judge_rows` of the same days.

    `judge_cost` is None where it is unknown or not measured (`is_measured`), `whole_cost` where either is not known.
    One whose start time has changed stands on two days; what its judges cost is that of the day.
    """
    key_of, found = itemgetter("start_date", "tenant_id", "id"), list[Row]()
    costs = {key_of(row): row["total_cost"] for row in judges}
    for row in experiments:
        key, own = key_of(row), row["total_cost"]
        judged = costs.get(key)
        whole = None if own is None or judged is None else EXACT.add(own, judged)
        found.append({**row, "judge_cost": judged, "whole_cost": whole, "is_measured": key in costs})
    return found


def totals_by(rows: Iterable[Row], judges: Iterable[Row], key: Callable[[Row], _Key]) -> dict[_Key, Totals]:
    """The sums by a key that both kinds of rows have, such as the dataset and the month of `start_date`."""
    groups: dict[_Key, tuple[list[Row], list[Row]]] = defaultdict(lambda: ([], []))
    for kind, some in enumerate((rows, judges)):
        for row in some:
            groups[key(row)][kind].append(row)
    return {found: Totals.of(*both) for found, both in groups.items()}


class JudgeReading(msgspec.Struct, frozen=True):
    """What a workspace's judge project had spent in all at `read_at`, and what of it the lake's experiments claim.

    US dollars, exact; None: unknown. `unattributed_cost` is what no experiment claims: below zero, something is counted
    twice, or for the wrong experiment. `is_exact`: nothing moved meanwhile, and retention has emptied nothing.
    `skipped` counts the experiments that were not measured although they are new, or never were, by the reason.
    """

    project: str
    total_cost: Decimal | None
    attributed_cost: Decimal
    unattributed_cost: Decimal | None
    is_exact: bool
    read_at: datetime
    skipped: dict[str, int]


class JudgeReadings(msgspec.Struct):
    """The latest reading of each workspace, and why others were not measured when it was tried last."""

    readings: dict[str, JudgeReading] = {}
    problems: dict[str, str] = {}


def load_judge_readings(text: bytes | None) -> JudgeReadings:
    """What such a file says; nothing where there is none, or a broken one."""
    try:
        return msgspec.json.decode(text or b"{}", type=JudgeReadings)
    except msgspec.DecodeError:
        return JudgeReadings()
