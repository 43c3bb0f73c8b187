"""How much of each budget is used, exactly.

A sum is what is known: experiments without a cost, and days that were not read, are said beside it.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache, partial
from typing import Literal

from sessions_pipeline.days import days_between, period_of, utc_day
from sessions_pipeline.errors import UsageError
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import Day
from sessions_pipeline.outputs import judges_command
from sessions_pipeline.outputs import read as from_lake
from sessions_pipeline.outputs.budget_file import Budget
from sessions_pipeline.outputs.formatting import day_ranges, money, money_as_set, plural, share, visible
from sessions_pipeline.outputs.spending import Row, Totals, forecast
from sessions_pipeline.tables import DAILY_COST_BY_ATTRIBUTE, JUDGE_COST_BY_EXPERIMENT, SESSION_ATTRIBUTES, Table
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET as DAILY
from sessions_pipeline.tables.aggregate import EXACT
from sessions_pipeline.tables.day_metadata import ATTRIBUTES
from sessions_pipeline.tables.judge_cost_by_experiment import YOUNG

# No month is longer; a dataset without experiments for so long is known by its listed name alone.
LOOKED_AT = timedelta(days=30)
# After so long without a reading, nobody knows what was spent since.
STALE = timedelta(hours=24)
_SUBJECT = ("reference_dataset_id", "tenant_id", "attribute", "value")
_SUMMED = ("session_count", "unpriced_session_count", "zero_cost_with_tokens_count", "run_count", "total_tokens")
_COLUMNS = (*_SUBJECT, "id", "session_id", "key", *_SUMMED, "total_cost")


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """How a budget stands at a moment; `first` and `last` are its period's days.

    `read_at` is the latest reading of any day, and `is_stale` whether that is over a day ago. `used` is the known cost
    of the period so far, US dollars, exact; None: nothing of it is known. `forecast` is what the period comes to at
    this pace; None before its third day, and where days are unread. Of the `experiments`, `unpriced` have no cost, and
    `unjudged` have judges whose cost was not measured or is unknown; `too_old` of these can't be measured any more.
    `unread` are days so far that were not read in every workspace that counts, or not since they are over. `unseen`
    says that no experiment has the value of the budget's attribute, though others are known; `problem` why nothing can
    be told of the budget, and what to write instead: then the counts are None, too.
    """

    budget: Budget
    first: date
    last: date
    read_at: datetime | None
    is_stale: bool
    used: Decimal | None = None
    forecast: Decimal | None = None
    experiments: int | None = None
    unpriced: int | None = None
    unjudged: int | None = None
    too_old: int = 0
    unread: tuple[date, ...] = ()
    unseen: str = ""
    problem: str = ""

    @property
    def share(self) -> Decimal | None:
        """The used part of the limit; 1 is all of it."""
        return None if self.used is None else EXACT.divide(self.used, self.budget.limit)

    @property
    def limit(self) -> str:
        """What may be spent, for reading."""
        return money_as_set(self.budget.limit)

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
        of = f"of {plural(self.experiments or 0, 'experiment')}"
        last = f"last read {self.read_at:%Y-%m-%d %H:%M} UTC" if self.read_at else "never read"
        said = (
            visible(self.problem),
            f"{self.unpriced:,d} {of} without a cost" if self.unpriced else "",
            self._unjudged(self.unjudged, of) if self.unjudged else "",
            f"not read, or not since the day was over: {day_ranges(self.unread)}" if self.unread else "",
            last if self.is_stale else "",
            self.unseen,
        )
        return "; ".join(filter(None, said))

    def _unjudged(self, count: int, of: str) -> str:
        said = [f"judges of {count:,d} {of} not measured"]
        if self.too_old:
            said.append(f"{self.too_old:,d} of them started over {YOUNG.days} days ago, too late to be measured")
        if self.too_old < count:
            others = "the others" if self.too_old else "them"
            said.append(f"`{judges_command(utc_day(self.read_at) if self.read_at else self.last)}` measures {others}")
        return "; ".join(said)

    @property
    def outlook(self) -> str:
        """`heading for $416.53, over the limit`; empty without a forecast."""
        over = ", over the limit" if self._gets_worse else ""
        return "" if self.forecast is None else f"heading for {money(self.forecast)}{over}"

    @property
    def _gets_worse(self) -> bool:
        """Whether it is heading over the limit, and not there yet."""
        return (self.forecast or 0) > self.budget.limit and self.state != "exceeded"

    @property
    def notes(self) -> str:
        """What is said below the amounts: the outlook, if it is worse than the state, and the caveats."""
        return "; ".join(filter(None, (self.outlook if self._gets_worse else "", self.caveats)))

    @property
    def headline(self) -> str:
        """`$312.40 of $400.00 (78.1 %), heading for $416.53, over the limit`."""
        used = f"{money(self.used)} of {self.limit} ({share(self.used, self.budget.limit)})"
        return ", ".join(filter(None, (used, self.outlook)))


def budget_statuses(lake: Lake, budgets: Sequence[Budget], now: datetime) -> list[BudgetStatus]:
    """How each budget stands, in their order.

    One whose dataset or workspace the lake does not know, or whose name several datasets have, has a `problem`.

    Raises:
        LakeError: a file can't be read.
    """
    known = _Known(lake, now) if budgets else None
    return [known.status(budget) for budget in budgets if known]


class _Known:
    """What the lake knows of the last days; each table is read once, and only where a budget asks for it."""

    def __init__(self, lake: Lake, now: datetime) -> None:
        today = utc_day(now)
        self.now, self.today = now, today
        self.days = [day for day in lake.days(DAILY) if today - LOOKED_AT <= day <= today]
        self.readings = {day: of_day for day in self.days if (of_day := lake.last_readings(day))}
        self.workspaces = {name for of_day in self.readings.values() for one in of_day for name in one.workspaces}
        self.read_at = max((of_day[-1].fetched_at for of_day in self.readings.values()), default=None)
        self.is_stale = self.read_at is None or now - self.read_at > STALE
        self.load = cache(partial(self._load, lake))
        self.names = from_lake.dataset_names(lake, self.load(DAILY)[0], self.days, all_known=True)

    def _load(self, lake: Lake, table: Table) -> tuple[list[Row], dict[Day, dict[str, str]]]:
        """A table's rows, and its files' metadata by day."""
        found = from_lake.stored_days(lake, table, self.days, [name for name in _COLUMNS if name in table.schema.names])
        return from_lake.rows_of(found), {day: stored.metadata for day, stored in found.items()}

    def status(self, budget: Budget) -> BudgetStatus:
        first, last = period_of(budget.period, self.today)
        of_budget = partial(BudgetStatus, budget, first, last, self.read_at, self.is_stale)
        try:
            subject = self._subject(budget)
        except UsageError as error:
            return of_budget(problem=str(error))
        rows, files = self.load(DAILY_COST_BY_ATTRIBUTE if budget.attribute else DAILY)
        unseen = _unseen(budget, rows)
        rows = [row for row in rows if row["start_date"] >= first and subject.items() <= row.items()]
        judged = self._judged(budget, subject, first) if budget.include_judges else []

        def until(day: date) -> Totals:
            """What experiments cost that started before a day."""
            return Totals.of(*([row for row in some if row["start_date"] < day] for some in (rows, judged)))

        so_far, length = days_between(first, self.today), len(days_between(first, last))
        unread = tuple(day for day in so_far if not self._is_read(day, files.get(day), subject))
        spent, over = Totals.of(rows, judged), until(self.today)
        used = spent.whole_cost if unread else spent.known
        unjudged = spent.unjudged if budget.include_judges else 0
        return of_budget(
            used=used,
            forecast=None if unread else forecast(used, over.known, len(so_far) - 1, len(so_far), length),
            experiments=spent.sessions,
            unpriced=spent.unpriced,
            unjudged=unjudged,
            too_old=until(utc_day(self.now - YOUNG)).judges_not_measured if unjudged else 0,
            unread=unread,
            unseen=unseen,
        )

    def _is_read(self, day: date, metadata: Mapping[str, str] | None, subject: Mapping[str, str]) -> bool:
        """Whether a day was read in the workspaces that count, and summed by the budget's attribute."""
        if metadata is None:
            return False
        # A file may be made for other attributes than the settings' of today.
        is_summed = "attribute" not in subject or subject["attribute"] in json.loads(metadata.get(ATTRIBUTES, "[]"))
        workspaces = {subject["tenant_id"]} if "tenant_id" in subject else {None, *self.workspaces}
        readings = self.readings.get(day, ())
        return is_summed and all(from_lake.is_read(day, readings, one, self.now) for one in workspaces)

    def _judged(self, budget: Budget, subject: Mapping[str, str], first: date) -> list[Row]:
        """What was spent on the judges of a budget's experiments from a day on."""
        spent = [row for row in self.load(JUDGE_COST_BY_EXPERIMENT)[0] if row["start_date"] >= first]
        if budget.attribute is None:
            return [row for row in spent if subject.items() <= row.items()]
        of = budget.attribute, budget.value
        ids = {row["session_id"] for row in self.load(SESSION_ATTRIBUTES)[0] if (row["key"], row["value"]) == of}
        return [row for row in spent if row["id"] in ids]

    def _subject(self, budget: Budget) -> dict[str, str]:
        """The columns that say which rows a budget is about, and their values.

        Raises:
            UsageError: the lake does not know its dataset or workspace.
        """
        dataset, workspace = budget.dataset, budget.workspace
        # An empty lake knows neither names nor workspaces.
        if dataset and self.names:
            dataset = from_lake.dataset_called(dataset, self.names)
        if workspace:
            workspace = from_lake.workspace_called(workspace, self.workspaces)
        subject = zip(_SUBJECT, (dataset, workspace, budget.attribute, budget.value), strict=True)
        return {column: value for column, value in subject if value is not None}


def _unseen(budget: Budget, rows: Sequence[Row]) -> str:
    """That no experiment has a budget's value, where others are known: it may be misspelt, or to come."""
    known = {row["value"] for row in rows if budget.attribute and row["attribute"] == budget.attribute} - {None}
    if budget.value is None or budget.value in known or not known:
        return ""
    close = difflib.get_close_matches(budget.value, sorted(known), n=1)
    said = f"no experiment of the last {LOOKED_AT.days} days has {budget.attribute} = {budget.value}"
    return visible(f"{said}, did you mean {close[0]}?" if close else said)
