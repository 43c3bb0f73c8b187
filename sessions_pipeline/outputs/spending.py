"""Exact sums of rows of daily costs and of judges' costs, in all and by a column, and what is computed from them."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal, localcontext
from operator import itemgetter
from typing import Any, NamedTuple, Self, TypeAlias, TypeVar

import msgspec

from sessions_pipeline.tables.aggregate import EXACT, cost_per_run, total
from sessions_pipeline.validation.json_text import UNREADABLE
from sessions_pipeline.validation.types import LAST_DIGIT

# From one or two days a month can't be forecast.
FEWEST_DAYS_OF_A_FORECAST = 3

TOTALS_COLUMNS = (
    *("session_count", "unpriced_session_count", "zero_cost_with_tokens_count"),
    *("run_count", "total_tokens", "total_cost"),
)
# Below the data root: the latest reading of each workspace's judge project, as `JudgeReadings`.
JUDGES_FILE = "_readings/judges.json"

Row: TypeAlias = Mapping[str, Any]
_Item = TypeVar("_Item")
_Key = TypeVar("_Key", bound=Hashable)


class Totals(NamedTuple):
    """The sums over some experiments and their judges. Money is in US dollars, exact; None: nothing is known.

    Of the `sessions` (experiments), `unpriced` have no cost, and `zero_with_tokens` used tokens but cost 0.
    `judges_measured` counts the experiments whose judges were measured, `judges_unknown` those of them whose judges'
    cost is unknown all the same.
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
        """The sums of the `TOTALS_COLUMNS` of `rows`, and of their `judge_rows`.

        A row of judges may also be a sum of several, with the number of these `rows` and of `unknown` costs.
        """
        costs, judged = list(rows), list(judges)
        return cls(
            cost=total(row["total_cost"] for row in costs),
            sessions=sum(row["session_count"] for row in costs),
            unpriced=sum(row["unpriced_session_count"] for row in costs),
            zero_with_tokens=sum(row["zero_cost_with_tokens_count"] for row in costs),
            runs=total(row["run_count"] for row in costs),
            tokens=total(row["total_tokens"] for row in costs),
            judge_cost=total(row["total_cost"] for row in judged),
            judges_measured=sum(row.get("rows", 1) for row in judged),
            judges_unknown=sum(row.get("unknown", row["total_cost"] is None) for row in judged),
        )

    @property
    def whole_cost(self) -> Decimal | None:
        """The known cost of the experiments and their judges together."""
        return total((self.cost, self.judge_cost))

    @property
    def known(self) -> Decimal | None:
        """`whole_cost`, but zero if there are no experiments."""
        return self.whole_cost if self.sessions else Decimal(0)

    @property
    def judges_not_measured(self) -> int:
        """How many experiments have judges that were not measured."""
        return self.sessions - self.judges_measured

    @property
    def unjudged(self) -> int:
        """How many experiments have judges whose cost is not in the sums."""
        return self.judges_not_measured + self.judges_unknown

    @property
    def per_run(self) -> Decimal | None:
        """The known cost divided by the runs, to 18 digits; None if either is unknown or nothing ran."""
        return cost_per_run(self.cost, self.runs)


class Comparison(NamedTuple):
    """The days of a period, those of them that can be compared (`alike`), and the days that these are compared with.

    `alike` and `before` have the same number of days.
    """

    days: frozenset[date]
    alike: frozenset[date]
    before: frozenset[date]

    @classmethod
    def of(cls, days: Sequence[date], days_before: Sequence[date], whole: frozenset[date]) -> Self:
        """Compare each day with the one at the same place in `days_before`, if both are in `whole`.

        `whole` are the days that were read, and were over when they were read. If fewer than half of the days can be
        compared, none are: a change on so few says little about the period.
        """
        pairs = [(day, other) for day, other in zip(days, days_before, strict=False) if {day, other} <= whole]
        pairs = pairs if 2 * len(pairs) >= len(days) else []
        return cls(frozenset(days), frozenset(day for day, _ in pairs), frozenset(other for _, other in pairs))


class Spending:
    """The costs of one thing, such as a dataset (its id is the `key`): `now` in the whole period.

    `alike` and `before` are the costs on the days of these names in `Comparison`.
    """

    def __init__(self, key: str | None, name: str, rows: Iterable[Row], period: Comparison) -> None:
        """The sums of the rows. Rows of other days than the period's are ignored."""
        costs = list(rows)
        self.key, self.name = key, name
        self.now, self.alike, self.before = (
            Totals.of(row for row in costs if row["start_date"] in days) for days in period
        )

    @property
    def difference(self) -> Decimal | None:
        """How much more is known to be spent than before, in US dollars; None if nothing is known of one of the two."""
        now, before = self.alike.known, self.before.known
        return None if now is None or before is None else EXACT.subtract(now, before)


def biggest_movers(rows: Iterable[Row], column: str, names: Mapping[Any, str], period: Comparison) -> list[Spending]:
    """What was spent for each value of a column, the largest change first; equal changes by cost, highest first."""
    found = [Spending(key, names[key], group, period) for key, group in by_key(rows, itemgetter(column)).items()]
    found = [one for one in found if one.now.sessions or one.before.sessions]
    return sorted(found, key=lambda one: (-abs(one.difference or Decimal(0)), *most_expensive_first(one)))


class Causes(NamedTuple):
    """An explanation of a change: values of a key, each with its part of the change in US dollars; these add up."""

    key: str
    parts: Sequence[tuple[str, Decimal]]


def causes(key: str, change: Decimal, values: Iterable[Spending]) -> Causes | None:
    """The one or two values of a key that make up most of a change, and the rest as one part.

    Each of the one or two makes up at least a quarter of the change. None if together they make up no more than half of
    it, or if the largest is the value None: experiments without this key.
    """
    sign = -1 if change < 0 else 1
    moved = [(one.difference, one.key, one.name) for one in values if one.difference]
    moved.sort(key=lambda one: (-sign * one[0], one[2]))
    leading = [one for one in moved[:2] if 4 * sign * one[0] >= abs(change)]
    of_leading = total(one[0] for one in leading) or Decimal(0)
    if 2 * sign * of_leading <= abs(change) or leading[0][1] is None:
        return None
    rest, remaining = EXACT.subtract(change, of_leading), moved[len(leading) :]
    others = remaining[0][2] if [one[0] for one in remaining] == [rest] else "others"
    return Causes(key, [*((name, part) for part, _, name in leading), *([(others, rest)] if rest else [])])


def most_expensive_first(one: Spending) -> tuple[Any, ...]:
    """The key that sorts by cost in the period, highest first; then by the cost before, and by key."""
    return -(one.now.cost or Decimal(0)), not one.now.sessions, -(one.before.cost or Decimal(0)), one.key or ""


def forecast(
    cost: Decimal | None, of_whole_days: Decimal | None, whole_days: int, gone: int, length: int
) -> Decimal | None:
    """The forecast for a period of `length` days: `cost` so far, plus the mean of the whole days for each day to come.

    `gone` is the number of days so far, today included. `whole_days` of them were over when they were read, and cost
    `of_whole_days`. In US dollars, to 18 decimal places. None before the third day, and if either cost is unknown.
    """
    if cost is None or of_whole_days is None or not whole_days or gone < FEWEST_DAYS_OF_A_FORECAST:
        return None
    with localcontext(EXACT):
        return (cost + of_whole_days * (length - gone) / whole_days).quantize(LAST_DIGIT)


def by_key(items: Iterable[_Item], key: Callable[[_Item], _Key]) -> defaultdict[_Key, list[_Item]]:
    """The items grouped by a key, such as rows by their value in a column; a key without items has none."""
    groups = defaultdict[_Key, list[_Item]](list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def with_judges(experiments: Iterable[Row], judges: Iterable[Row]) -> list[Row]:
    """Rows of `experiment_summary` with the cost of their judges, which comes from the `judge_rows` of the same days.

    Adds `is_measured`; `judge_cost`, None if it is unknown or was not measured; and `whole_cost`, None if either the
    judges' cost or the experiment's own is unknown. An experiment whose start time has changed has rows on two days,
    each with the judges' row of that day.
    """
    key_of, joined = itemgetter("start_date", "tenant_id", "id"), list[Row]()
    costs = {key_of(row): row["total_cost"] for row in judges}
    for row in experiments:
        key, own_cost = key_of(row), row["total_cost"]
        judge_cost = costs.get(key)
        whole_cost = None if own_cost is None or judge_cost is None else EXACT.add(own_cost, judge_cost)
        joined.append({**row, "judge_cost": judge_cost, "whole_cost": whole_cost, "is_measured": key in costs})
    return joined


def totals_by(rows: Iterable[Row], judges: Iterable[Row], key: Callable[[Row], _Key]) -> dict[_Key, Totals]:
    """The sums of `rows` and of their `judges` by a key, such as the dataset; without keys that only `judges` have."""
    judged = by_key(judges, key)
    return {group: Totals.of(own, judged[group]) for group, own in by_key(rows, key).items()}


class JudgeReading(msgspec.Struct, frozen=True):
    """The total cost of a workspace's judge project at `read_at`, and how much of it belongs to the lake's experiments.

    In US dollars, exact; None: unknown. `unattributed_cost` belongs to no experiment; if it is negative, something is
    counted twice or for the wrong experiment. `is_exact` is true if the project did not change while it was measured,
    and retention has not emptied its total. `skipped` counts, by reason, the experiments that were due or never
    measured, and were not measured.
    """

    project: str
    total_cost: Decimal | None
    attributed_cost: Decimal
    unattributed_cost: Decimal | None
    is_exact: bool
    read_at: datetime
    skipped: dict[str, int]


class JudgeReadings(msgspec.Struct):
    """The latest reading of each workspace, and for workspaces whose last try failed, why."""

    readings: dict[str, JudgeReading] = {}
    problems: dict[str, str] = {}

    @property
    def overspent(self) -> list[str]:
        """The workspaces whose judges cost more than their project: something is counted twice or wrongly."""
        return [tenant for tenant, reading in self.readings.items() if (reading.unattributed_cost or 0) < 0]


def load_judge_readings(text: bytes | None) -> JudgeReadings:
    """The contents of `JUDGES_FILE`; empty if the file is missing (None) or broken."""
    try:
        return msgspec.json.decode(text or b"{}", type=JudgeReadings)
    except UNREADABLE:
        return JudgeReadings()
