"""How much of each budget is used, as exact sums.

A sum has only what is known. Experiments without a cost, and days that were not read, are reported beside it.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache, partial
from typing import Literal

from sessions_pipeline.days import days_between, is_day_over, period_of, utc_day
from sessions_pipeline.errors import UsageError
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.layout import Day
from sessions_pipeline.outputs import judges_command
from sessions_pipeline.outputs import read as from_lake
from sessions_pipeline.outputs.budget_file import Budget
from sessions_pipeline.outputs.formatting import at_least, day_ranges, money_as_set, plural, share, visible
from sessions_pipeline.outputs.spending import Row, Totals, forecast
from sessions_pipeline.tables import DAILY_COST_BY_ATTRIBUTE, JUDGE_COST_BY_EXPERIMENT, SESSION_ATTRIBUTES, Table
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET as DAILY
from sessions_pipeline.tables.aggregate import EXACT
from sessions_pipeline.tables.daily_cost_by_attribute import attributes_of
from sessions_pipeline.tables.day_metadata import rebuilt_days
from sessions_pipeline.tables.judge_cost_by_experiment import YOUNG
from sessions_pipeline.tables.readings import unread_of_workspaces, workspaces_of

# How many days before today are read: with today 31, the longest month. Of a dataset without experiments on these days,
# only the name in the API's list is known.
LOOKBACK = timedelta(days=30)
# If the newest reading is older than this, what was spent since is unknown.
STALE = timedelta(hours=24)
_SUBJECT = ("reference_dataset_id", "tenant_id", "attribute", "value")


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """How much of a budget is used. `first` and `last` are the first and last day of its current period.

    `read_at` is the time of the latest reading of today and the `LOOKBACK` days (None: there was none); `is_stale`: it
    was over a day ago. `used` is the known cost of the period so far, in US dollars, exact; None: nothing is known.
    `forecast` is the cost of the whole period at this pace; None before its third day, and if days are unread. Of the
    `experiments`, `unpriced` have no cost, and `unjudged` have judges whose cost was not measured or is unknown;
    `too_old` of these can't be measured any more. `unread` are the days so far that were not read in every workspace of
    the budget, or not again after they were over, or whose files show what was known earlier (`--as-of`);
    `unread_because` names these reasons. `unseen` is a text if no experiment has the value of the budget's attribute,
    although some have another one. If there is a `problem`, the budget can't be checked, and the counts are None.
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
    unread_because: str = ""
    unseen: str = ""
    problem: str = ""

    @property
    def share(self) -> Decimal | None:
        """The used share of the limit: 1 is all of it. None if `used` is unknown."""
        return None if self.used is None else EXACT.divide(self.used, self.budget.limit)

    @property
    def is_part(self) -> bool:
        """Whether costs that belong to `used` are unknown, so that at least this much was spent."""
        return bool(self.unpriced or self.unjudged or self.unread)

    @property
    def amounts(self) -> tuple[str, str, str, str]:
        """As text: the used amount, the limit, the used share of it, and the forecast (empty if there is none)."""
        percent = at_least(self.used, self.is_part, share(self.used, self.budget.limit))
        outlook = "" if self.forecast is None else at_least(self.forecast, self.is_part)
        return at_least(self.used, self.is_part), money_as_set(self.budget.limit), percent, outlook

    @property
    def is_known(self) -> bool:
        """Whether all days so far were read, the last time within a day, and judges were measured if they count.

        Experiments without a cost don't make it false.
        """
        return self.used is not None and not (self.unread or self.unjudged or self.is_stale)

    @property
    def state(self) -> Literal["ok", "warning", "exceeded", "unknown"]:
        """The state by the known cost. Unknown costs can only make it worse, so `unknown` replaces only `ok`."""
        if self.share is not None and self.share >= self.budget.warn_at:
            return "exceeded" if self.share > 1 else "warning"
        return "ok" if self.is_known else "unknown"

    @property
    def notes(self) -> str:
        """As one text: why the budget can't be checked or may be exceeded, and what its sum lacks; empty if nothing."""
        of_all = f"of {plural(self.experiments or 0, 'experiment')}"
        will_exceed = self.state != "exceeded" and (self.forecast or 0) > self.budget.limit
        last = f"last read {self.read_at:%Y-%m-%d %H:%M} UTC" if self.read_at else f"not read in {LOOKBACK.days} days"
        notes = (
            visible(self.problem),
            f"the forecast, {self.amounts[-1]}, is over the limit" if will_exceed else "",
            f"{self.unpriced:,d} {of_all} without a cost" if self.unpriced else "",
            self._unjudged(self.unjudged, of_all) if self.unjudged else "",
            f"{self.unread_because}: {day_ranges(self.unread)}" if self.unread else "",
            last if self.is_stale else "",
            self.unseen,
        )
        return "; ".join(filter(None, notes))

    def _unjudged(self, count: int, of_all: str) -> str:
        text = [f"judges of {count:,d} {of_all} not measured"]
        if self.too_old:
            text.append(f"{self.too_old:,d} of them started over {YOUNG.days} days ago, too late to be measured")
        if self.read_at and self.too_old < count:
            text.append(f"`{judges_command(utc_day(self.read_at))}` measures those of the last {YOUNG.days} days")
        return "; ".join(text)

    @property
    def headline(self) -> str:
        """The amounts as text: `$312.40 of $400.00 (78.1 %), heading for $416.53`."""
        used, limit, percent, outlook = self.amounts
        return f"{used} of {limit} ({percent}){f', heading for {outlook}' if outlook else ''}"


def budget_statuses(lake: Lake, budgets: Sequence[Budget], now: datetime) -> list[BudgetStatus]:
    """The status of each budget at `now`, in the order given.

    If a budget's dataset or workspace is not in the lake, or several datasets have its name, the status has a
    `problem`.

    Raises:
        LakeError: a file can't be read.
    """
    return list(map(_RecentCosts(lake, now).status, budgets)) if budgets else []


class _RecentCosts:
    """The costs of today and the `LOOKBACK` days. Each table is read once, and only if a budget needs it."""

    def __init__(self, lake: Lake, now: datetime) -> None:
        self.now, self.today = now, utc_day(now)
        self.days = [day for day in lake.days(DAILY) if self.today - LOOKBACK <= day <= self.today]
        self.readings = lake.readings_of_days(self.days)
        self.unread_of = unread_of_workspaces(self.readings)
        self.workspaces = workspaces_of(self.readings)
        self.where = " in every workspace" if len(self.workspaces) > 1 else ""
        self.read_at = max((of_day[-1].fetched_at for of_day in self.readings.values()), default=None)
        self.is_stale = self.read_at is None or now - self.read_at > STALE
        self.load = cache(partial(self._load, lake))
        self.names = from_lake.dataset_names(lake, self.load(DAILY)[0], self.days, all_known=True)

    def _load(self, lake: Lake, table: Table) -> tuple[list[Row], dict[Day, dict[str, str]]]:
        """The rows of a table, and its files' metadata by day."""
        rows, files = lake.load_days(table, self.days)
        return rows.to_pylist(), files

    def status(self, budget: Budget) -> BudgetStatus:
        first, last = period_of(budget.period, self.today)
        status = partial(BudgetStatus, budget, first, last, self.read_at, self.is_stale)
        try:
            subject = self._subject(budget)
        except UsageError as error:
            return status(problem=str(error))
        recent, files = self.load(DAILY_COST_BY_ATTRIBUTE if budget.attribute else DAILY)
        rows = [row for row in recent if row["start_date"] >= first and subject.items() <= row.items()]
        judges = self._judges(budget, subject, first) if budget.include_judges else []

        def totals_before(day: date) -> Totals:
            """The sums over the experiments that started before a day."""
            return Totals.of(*([row for row in some if row["start_date"] < day] for some in (rows, judges)))

        so_far, length = days_between(first, self.today), len(days_between(first, last))
        rebuilt = rebuilt_days(files).intersection(so_far)
        or_rebuilt = ", or rebuilt by --as-of" if rebuilt else ""
        unread = tuple(day for day in so_far if day in rebuilt or not self._is_read(day, files.get(day), subject))
        spent, before_today = Totals.of(rows, judges), totals_before(self.today)
        used = spent.whole_cost if unread else spent.known
        unjudged = spent.unjudged if budget.include_judges else 0
        return status(
            used=used,
            forecast=None if unread else forecast(used, before_today.known, len(so_far) - 1, len(so_far), length),
            experiments=spent.sessions,
            unpriced=spent.unpriced,
            unjudged=unjudged,
            too_old=totals_before(utc_day(self.now - YOUNG)).judges_not_measured if unjudged else 0,
            unread=unread,
            unread_because=f"not read to the end{self.where if not budget.workspace else ''}{or_rebuilt}",
            unseen=_unseen(budget, recent),
        )

    def _is_read(self, day: date, metadata: Mapping[str, str] | None, subject: Mapping[str, str]) -> bool:
        """Whether a day was read in every workspace of the budget, and its file is summed by the budget's attribute."""
        workspace, found = subject.get("tenant_id"), self.readings.get(day, ())
        # A reading that found nothing, or only records that name no workspace, may not know its own.
        readings = [one for one in found if not any(one.workspaces) or workspace in (None, *one.workspaces)]
        is_over = day >= self.today or all(is_day_over(day, one.fetched_at) for one in readings)
        unread = {one for name, days in self.unread_of.items() if workspace in (None, name) for one in days}
        # The file may be older than today's SESSIONS_PIPELINE_ATTRIBUTES.
        is_summed = metadata is not None and subject.get("attribute") in (None, *attributes_of(metadata))
        return is_summed and bool(readings) and is_over and day not in unread

    def _judges(self, budget: Budget, subject: Mapping[str, str], first: date) -> list[Row]:
        """The costs of the judges of the budget's experiments that started on `first` or later."""
        costs = [row for row in self.load(JUDGE_COST_BY_EXPERIMENT)[0] if row["start_date"] >= first]
        if budget.attribute is None:
            return [row for row in costs if subject.items() <= row.items()]
        pair, rows = {"key": budget.attribute, "value": budget.value}, self.load(SESSION_ATTRIBUTES)[0]
        ids = {(row["start_date"], row["session_id"]) for row in rows if pair.items() <= row.items()}
        return [row for row in costs if (row["start_date"], row["id"]) in ids]

    def _subject(self, budget: Budget) -> dict[str, str]:
        """The columns and values that a row must have to count for the budget.

        Raises:
            UsageError: the budget's dataset or workspace is not in the lake.
        """
        dataset = budget.dataset
        # An empty lake has no names and no workspaces to compare with.
        if dataset and self.names:
            dataset = from_lake.dataset_called(dataset, self.names)
        workspace = budget.workspace and from_lake.workspace_called(budget.workspace, self.workspaces)
        subject = zip(_SUBJECT, (dataset, workspace, budget.attribute, budget.value), strict=True)
        return {column: value for column, value in subject if value is not None}


def _unseen(budget: Budget, rows: Sequence[Row]) -> str:
    """A note if no experiment has the budget's value but some have others: it may be misspelt, or still to come."""
    known = {row["value"] for row in rows if budget.attribute and row["attribute"] == budget.attribute} - {None}
    if budget.value is None or budget.value in known or not known:
        return ""
    close = "".join(f", did you mean {one}?" for one in difflib.get_close_matches(budget.value, sorted(known), n=1))
    return visible(f"no experiment of the last {LOOKBACK.days} days has {budget.attribute} = {budget.value}{close}")
