"""How much of each budget is used, exactly.

A sum is what is known: experiments without a cost, and days that were not read, are said beside it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Literal, TypeAlias

from sessions_pipeline.days import days_between, is_day_over, utc_day
from sessions_pipeline.errors import NotReadError, SettingError, UsageError
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.outputs.budget_file import VARIABLE, Budget
from sessions_pipeline.outputs.dataset_names import Key, dataset_called, known_names
from sessions_pipeline.outputs.formatting import EXACT, day_ranges, money, plural, share
from sessions_pipeline.outputs.judges import Spent
from sessions_pipeline.outputs.spending import Row, forecast, period_of
from sessions_pipeline.tables import DAILY_COST_BY_ATTRIBUTE, JUDGE_COST_BY_EXPERIMENT, SESSION_ATTRIBUTES, Table
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET as DAILY
from sessions_pipeline.tables.day_metadata import ATTRIBUTES
from sessions_pipeline.tables.readings import Reading, noted_readings

# No month is longer; a dataset without experiments for so long is known by its listed name alone.
LOOKED_AT = timedelta(days=30)
# After so long without a reading, nobody knows what was spent since.
STALE = timedelta(hours=24)
_SUBJECT = ("reference_dataset_id", "tenant_id", "attribute", "value")
_COLUMNS = (*_SUBJECT, "id", "session_id", "key", "session_count", "unpriced_session_count", "total_cost")

# Rows and metadata by day; the latest reading of each workspace by day.
Files: TypeAlias = Mapping[date, tuple[Sequence[Row], Mapping[str, str]]]
Readings: TypeAlias = Mapping[date, Sequence[Reading]]


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """How a budget stands at a moment; `first` and `last` are its period's days.

    `used` is the known cost of the period so far, US dollars, exact; None: nothing of it is known. `forecast` is what
    the period comes to at this pace; None before its third day, and where days are unread. Of the `experiments`,
    `unpriced` have no cost, and `unjudged` have judges whose cost was not measured or is unknown. `unread` are days so
    far that were not read, or not since they are over; `read_at` is the latest reading of any day, and `is_stale`
    whether that is over a day ago.
    """

    budget: Budget
    first: date
    last: date
    used: Decimal | None
    forecast: Decimal | None
    experiments: int
    unpriced: int
    unjudged: int
    unread: tuple[date, ...]
    read_at: datetime | None
    is_stale: bool

    @property
    def share(self) -> Decimal | None:
        """The used part of the limit; 1 is all of it."""
        return None if self.used is None else EXACT.divide(self.used, self.budget.limit)

    @property
    def is_known(self) -> bool:
        """Whether all of the period so far was read, not over a day ago; experiments without a cost may be in it."""
        return self.used is not None and not self.unread and not self.is_stale

    @property
    def state(self) -> Literal["ok", "warning", "exceeded", "unknown"]:
        """By what is known: more can only be worse, so only what would be `ok` can be `unknown`."""
        if self.share is not None and self.share >= self.budget.warn_at:
            return "exceeded" if self.share > 1 else "warning"
        return "ok" if self.is_known else "unknown"

    @property
    def caveats(self) -> str:
        """What the sum does not hold, in words; empty if nothing."""
        of = f"of {plural(self.experiments, 'experiment')}"
        last = f"last read {self.read_at:%Y-%m-%d %H:%M} UTC" if self.read_at else "never read"
        said = [f"{self.unpriced:,d} {of} without a cost"] if self.unpriced else []
        said += [f"judges of {self.unjudged:,d} {of} not measured"] if self.unjudged else []
        said += [f"not read to the end: {day_ranges(self.unread)}"] if self.unread else []
        return "; ".join([*said, last] if self.is_stale else said)

    @property
    def headline(self) -> str:
        """`$312.40 of $400.00 (78.1 %), heading for $416.53`."""
        used = f"{money(self.used)} of {money(self.budget.limit)} ({share(self.used, self.budget.limit)})"
        return used if self.forecast is None else f"{used}, heading for {money(self.forecast)}"


def budget_statuses(lake: Lake, budgets: Sequence[Budget], now: datetime) -> list[BudgetStatus]:
    """How each budget stands, in their order.

    Raises:
        SettingError: the lake does not know a budget's dataset or workspace, or several datasets of its name.
        LakeError: a file can't be read.
    """
    if not budgets:
        return []
    today = utc_day(now)
    days = [day for day in lake.days(DAILY) if today - LOOKED_AT <= day <= today]
    readings = {day: last_readings(lake, day) for day in days}

    @cache
    def load(table: Table) -> Files:
        columns = [name for name in _COLUMNS if name in table.schema.names]
        found = {day: lake.load(table, day, columns) for day in days}
        return {day: (one.rows.to_pylist(), one.metadata) for day, one in found.items() if one}

    keys = {(row["tenant_id"], row["reference_dataset_id"]) for rows, _ in load(DAILY).values() for row in rows}
    names = known_names(lake, keys, days)
    return [_status(budget, _subject(budget, names, readings), load, readings, now) for budget in budgets]


def _status(
    budget: Budget, subject: Mapping[str, str], load: Callable[[Table], Files], readings: Readings, now: datetime
) -> BudgetStatus:
    """`subject`: the columns that say which rows a budget is about, and their values."""
    today, (first, last) = utc_day(now), period_of(budget.period, utc_day(now))
    so_far, rows, unread = days_between(first, today), list[Row](), list[date]()
    files = load(DAILY_COST_BY_ATTRIBUTE if budget.attribute else DAILY)
    for day in so_far:
        found, metadata = files.get(day, ([], {}))
        rows += [row for row in found if subject.items() <= row.items()]
        # A file may be made for other attributes than the settings' of today.
        is_made = day in files and budget.attribute in (None, *json.loads(metadata.get(ATTRIBUTES, "[]")))
        # One that found nothing may not know whose workspace it was.
        workspaces = {subject.get("tenant_id")}
        read = [one for one in readings.get(day, ()) if workspaces <= {None, *one.workspaces} or not one.workspaces]
        if not is_made or not read or (day < today and not all(is_day_over(day, one.fetched_at) for one in read)):
            unread.append(day)
    spent = Spent.of(rows, _judged(budget, subject, load, so_far) if budget.include_judges else ())
    experiments, used = sum(row["session_count"] for row in rows), spent.whole
    if used is None and not experiments and not unread:
        used = Decimal(0)
    expected = None if unread else forecast(used, len(so_far), len(days_between(first, last)))
    unpriced = sum(row["unpriced_session_count"] for row in rows)
    unjudged = spent.unknown + spent.not_measured if budget.include_judges else 0
    read_at = max((of_day[-1].fetched_at for of_day in readings.values() if of_day), default=None)
    counts = experiments, unpriced, unjudged
    is_stale = read_at is None or now - read_at > STALE
    return BudgetStatus(budget, first, last, used, expected, *counts, tuple(unread), read_at, is_stale)


def _judged(
    budget: Budget, subject: Mapping[str, str], load: Callable[[Table], Files], days: Sequence[date]
) -> list[Row]:
    """What was spent on the judges of a budget's experiments."""
    said, spent = (
        [row for day in days for row in load(table).get(day, ((), {}))[0]]
        for table in (SESSION_ATTRIBUTES, JUDGE_COST_BY_EXPERIMENT)
    )
    if budget.attribute is None:
        return [row for row in spent if subject.items() <= row.items()]
    ids = {row["session_id"] for row in said if (row["key"], row["value"]) == (budget.attribute, budget.value)}
    return [row for row in spent if row["id"] in ids]


def last_readings(lake: Lake, day: date) -> list[Reading]:
    """The latest reading of each workspace, the very latest last; none where the day was never read."""
    with suppress(NotReadError):
        return noted_readings(lake.read_file(f"_readings/start_date={day}.json"))
    return []


def _subject(budget: Budget, names: Mapping[Key, str], readings: Readings) -> dict[str, str]:
    """The columns that say which rows a budget is about, and their values."""
    read = {workspace for of_day in readings.values() for reading in of_day for workspace in reading.workspaces}
    workspace = budget.workspace and budget.workspace.lower()
    if workspace and read and workspace not in read:
        known = " or ".join(sorted(read))
        raise SettingError(VARIABLE, f"budget {budget.name!r}: {workspace} was never read; write {known}")
    try:
        # An empty lake knows no names.
        dataset = dataset_called(budget.dataset, names) if budget.dataset and names else budget.dataset
    except UsageError as error:
        raise SettingError(VARIABLE, f"budget {budget.name!r}: {error}") from None
    subject = zip(_SUBJECT, (dataset, workspace, budget.attribute, budget.value), strict=True)
    return {column: value for column, value in subject if value is not None}
