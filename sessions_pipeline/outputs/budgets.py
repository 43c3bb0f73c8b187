"""How much of each budget is used, exactly.

A sum is what is known: experiments without a cost, and days that were not read, are said beside it.
"""

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Literal, TypeAlias

from sessions_pipeline.days import days_between, utc_day
from sessions_pipeline.errors import SettingError, UsageError
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import Day
from sessions_pipeline.outputs import read as from_lake
from sessions_pipeline.outputs.budget_file import VARIABLE, Budget
from sessions_pipeline.outputs.formatting import EXACT, day_ranges, money, plural, share, visible
from sessions_pipeline.outputs.spending import Row, Spent, forecast, period_of, spent_by
from sessions_pipeline.tables import DAILY_COST_BY_ATTRIBUTE, JUDGE_COST_BY_EXPERIMENT, SESSION_ATTRIBUTES, Table
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET as DAILY
from sessions_pipeline.tables.day_metadata import ATTRIBUTES
from sessions_pipeline.tables.judge_cost_by_experiment import YOUNG
from sessions_pipeline.tables.readings import Reading

# No month is longer; a dataset without experiments for so long is known by its listed name alone.
LOOKED_AT = timedelta(days=30)
# After so long without a reading, nobody knows what was spent since.
STALE = timedelta(hours=24)
_SUBJECT = ("reference_dataset_id", "tenant_id", "attribute", "value")
_COLUMNS = (*_SUBJECT, "id", "session_id", "key", "session_count", "unpriced_session_count", "total_cost")

# The latest reading of each workspace by day; what gives a table's rows, and its files' metadata by day.
_Readings: TypeAlias = Mapping[date, Sequence[Reading]]
_Load: TypeAlias = Callable[[Table], tuple[Sequence[Row], Mapping[Day, Mapping[str, str]]]]


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """How a budget stands at a moment; `first` and `last` are its period's days.

    `used` is the known cost of the period so far, US dollars, exact; None: nothing of it is known. `forecast` is what
    the period comes to at this pace; None before its third day, and where days are unread. Of the `experiments`,
    `unpriced` have no cost, and `unjudged` have judges whose cost was not measured or is unknown; `too_old` of these
    can't be measured any more. `unread` are days so far that were not read, or not since they are over; `read_at` is
    the latest reading of any day, and `is_stale` whether that is over a day ago. `unseen` says that no experiment has
    the value of the budget's attribute, though others are known.
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
    too_old: int = 0
    unseen: str = ""

    @property
    def share(self) -> Decimal | None:
        """The used part of the limit; 1 is all of it."""
        return None if self.used is None else EXACT.divide(self.used, self.budget.limit)

    @property
    def is_known(self) -> bool:
        """Whether all of the period so far was read, not over a day ago, and the judges measured that count.

        Experiments without a cost may be in it.
        """
        return self.used is not None and not (self.unread or self.unjudged or self.is_stale)

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
        said += [self._unjudged(of)] if self.unjudged else []
        said += [f"not read to the end: {day_ranges(self.unread)}"] if self.unread else []
        said += [last] if self.is_stale else []
        return "; ".join([*said, self.unseen] if self.unseen else said)

    def _unjudged(self, of: str) -> str:
        said = [f"judges of {self.unjudged:,d} {of} not measured"]
        if self.too_old:
            said.append(f"{self.too_old:,d} of them started over {YOUNG.days} days ago, too late to be measured")
        if self.too_old < self.unjudged:
            last = min(self.last, utc_day(self.read_at)) if self.read_at else self.last
            days = f"--from {self.first} --to {last}"
            others = "the others" if self.too_old else "them"
            said.append(f"`sessions-pipeline materialize --select judge_cost_by_experiment {days}` measures {others}")
        return "; ".join(said)

    @property
    def is_heading_over(self) -> bool:
        """Whether the forecast is beyond the limit; the state is about what is used by now."""
        return self.forecast is not None and self.forecast > self.budget.limit

    @property
    def outlook(self) -> str:
        """`heading for $416.53, over the limit`; empty without a forecast."""
        over = ", over the limit" if self.is_heading_over else ""
        return "" if self.forecast is None else f"heading for {money(self.forecast)}{over}"

    @property
    def notes(self) -> str:
        """What is said below the amounts: the outlook, if it is worse than the state, and the caveats."""
        is_worse = self.is_heading_over and self.state != "exceeded"
        return "; ".join(filter(None, (self.outlook if is_worse else "", self.caveats)))

    @property
    def headline(self) -> str:
        """`$312.40 of $400.00 (78.1 %), heading for $416.53, over the limit`."""
        used = f"{money(self.used)} of {money(self.budget.limit)} ({share(self.used, self.budget.limit)})"
        return ", ".join(filter(None, (used, self.outlook)))


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
    readings = {day: of_day for day in days if (of_day := from_lake.last_readings(lake, day))}
    read = {name for of_day in readings.values() for reading in of_day for name in reading.workspaces}

    @cache
    def load(table: Table) -> tuple[Sequence[Row], Mapping[Day, Mapping[str, str]]]:
        columns = [name for name in _COLUMNS if name in table.schema.names]
        found = from_lake.stored_days(lake, table, days, columns)
        return from_lake.rows_of(found), {day: stored.metadata for day, stored in found.items()}

    names = from_lake.dataset_names(lake, load(DAILY)[0], days, all_known=True)
    return [_status(one, _subject(one, names, read), load, readings, now) for one in budgets]


def _status(
    budget: Budget, subject: Mapping[str, str], load: _Load, readings: _Readings, now: datetime
) -> BudgetStatus:
    """`subject`: the columns that say which rows a budget is about, and their values."""
    first, last = period_of(budget.period, utc_day(now))
    so_far = days_between(first, utc_day(now))
    rows, files = load(DAILY_COST_BY_ATTRIBUTE if budget.attribute else DAILY)
    unseen = _unseen(budget, rows)
    rows = [row for row in rows if row["start_date"] >= first and subject.items() <= row.items()]
    # A file may be made for other attributes than the settings' of today.
    summed = {day: json.loads(metadata.get(ATTRIBUTES, "[]")) for day, metadata in files.items()}
    made = {day for day, keys in summed.items() if budget.attribute in (None, *keys)}
    read = {day for day in so_far if from_lake.is_read(day, readings.get(day, ()), subject.get("tenant_id"), now)}
    unread = [day for day in so_far if day not in made & read]
    judged = _judged(budget, subject, load, first) if budget.include_judges else []
    spent, by_day = Spent.of(rows, judged), spent_by(rows, judged, lambda row: row["start_date"])
    experiments, used = sum(row["session_count"] for row in rows), spent.whole
    if used is None and not experiments and not unread:
        used = Decimal(0)
    expected = None if unread else forecast(used, len(so_far), len(days_between(first, last)))
    unpriced = sum(row["unpriced_session_count"] for row in rows)
    unjudged = spent.unknown + spent.not_measured if budget.include_judges else 0
    too_old = sum(of.not_measured for day, of in by_day.items() if day < utc_day(now - YOUNG)) if unjudged else 0
    read_at = max((of_day[-1].fetched_at for of_day in readings.values()), default=None)
    is_stale = read_at is None or now - read_at > STALE
    counts = experiments, unpriced, unjudged
    known = first, last, used, expected, *counts, tuple(unread), read_at, is_stale
    return BudgetStatus(budget, *known, too_old, unseen)


def _unseen(budget: Budget, rows: Sequence[Row]) -> str:
    """That no experiment has a budget's value, where others are known: it may be misspelt, or to come."""
    known = {row["value"] for row in rows if budget.attribute and row["attribute"] == budget.attribute} - {None}
    if budget.value is None or budget.value in known or not known:
        return ""
    close = difflib.get_close_matches(budget.value, sorted(known), n=1)
    said = f"no experiment of the last {LOOKED_AT.days} days has {budget.attribute} = {budget.value}"
    return visible(f"{said}, did you mean {close[0]}?" if close else said)


def _judged(budget: Budget, subject: Mapping[str, str], load: _Load, first: date) -> list[Row]:
    """What was spent on the judges of a budget's experiments from a day on."""
    spent = [row for row in load(JUDGE_COST_BY_EXPERIMENT)[0] if row["start_date"] >= first]
    if budget.attribute is None:
        return [row for row in spent if subject.items() <= row.items()]
    of = budget.attribute, budget.value
    ids = {row["session_id"] for row in load(SESSION_ATTRIBUTES)[0] if (row["key"], row["value"]) == of}
    return [row for row in spent if row["id"] in ids]


def _subject(budget: Budget, names: Mapping[from_lake.Key, str], read: AbstractSet[str]) -> dict[str, str]:
    """The columns that say which rows a budget is about, and their values; `read`: the workspaces that were."""
    try:
        # An empty lake knows neither names nor workspaces.
        dataset = from_lake.dataset_called(budget.dataset, names) if budget.dataset and names else budget.dataset
        workspace = from_lake.workspace_called(budget.workspace, read) if budget.workspace else None
    except UsageError as error:
        raise SettingError(VARIABLE, f"budget {budget.name!r}: {error}") from None
    subject = zip(_SUBJECT, (dataset, workspace, budget.attribute, budget.value), strict=True)
    return {column: value for column, value in subject if value is not None}
