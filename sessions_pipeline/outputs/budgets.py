"""The budgets of the file that `SESSIONS_PIPELINE_BUDGETS` names, and how much of each is used, exactly.

A sum is what is known: experiments without a cost, and days that were not read, are said beside it.
"""

import difflib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, ValidationInfo, model_validator

from sessions_pipeline.days import days_between, utc_day
from sessions_pipeline.errors import SettingError, UsageError
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import Day
from sessions_pipeline.outputs import read as from_lake
from sessions_pipeline.outputs.formatting import EXACT, day_ranges, money, plural, share
from sessions_pipeline.outputs.spending import Row, Spent, forecast, period_of
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import DAILY_COST_BY_ATTRIBUTE, JUDGE_COST_BY_EXPERIMENT, SESSION_ATTRIBUTES, Table
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET as DAILY
from sessions_pipeline.tables.day_metadata import ATTRIBUTES
from sessions_pipeline.tables.readings import Reading

VARIABLE = "SESSIONS_PIPELINE_BUDGETS"
# No month is longer; a dataset without experiments for so long is known by its listed name alone.
LOOKED_AT = timedelta(days=30)
# After so long without a reading, nobody knows what was spent since.
STALE = timedelta(hours=24)
_SUBJECT = ("reference_dataset_id", "tenant_id", "attribute", "value")
_SAID = {"missing": "is missing", "list_type": "should be written [[budget]], with two brackets"}
_COLUMNS = (*_SUBJECT, "id", "session_id", "key", "session_count", "unpriced_session_count", "total_cost")

# The latest reading of each workspace by day; what gives a table's rows, and its files' metadata by day.
_Readings: TypeAlias = Mapping[date, Sequence[Reading]]
_Load: TypeAlias = Callable[[Table], tuple[Sequence[Row], Mapping[Day, Mapping[str, str]]]]


def _number(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("should be a number, such as 400.00")  # noqa: TRY004 - pydantic reports these
    return Decimal(value)


class Budget(BaseModel, extra="forbid", frozen=True, strict=True, hide_input_in_errors=True):
    """One `[[budget]]` of the file: a limit in US dollars, for what and for how long; docs/alerts.md has the keys."""

    name: str = Field(min_length=1)
    limit: Annotated[Decimal, BeforeValidator(_number), Field(gt=0, max_digits=38, decimal_places=18)]
    period: Literal["day", "week", "month"]
    warn_at: Annotated[Decimal, BeforeValidator(_number), Field(ge=0, le=1)] = Decimal("0.8")
    dataset: str | None = Field(default=None, min_length=1)
    attribute: str | None = Field(default=None, min_length=1)
    value: str | None = None
    workspace: str | None = Field(default=None, min_length=1)
    include_judges: bool = False

    @model_validator(mode="after")
    def _is_about_one_thing(self, info: ValidationInfo) -> Self:
        if sum(one is not None for one in (self.dataset, self.attribute, self.workspace)) > 1:
            raise ValueError("write one of dataset, attribute and workspace, or none of them")
        if (self.attribute is None) is not (self.value is None):
            raise ValueError('write both or neither of attribute = "git.branch" and value = "main"')
        summed: tuple[str, ...] = getattr(info.context, "attributes", ())
        if "," in (self.attribute or ""):
            raise ValueError(f"{self.attribute!r} has a comma, and costs can't be summed by such a key")
        if self.attribute is not None and self.attribute not in summed:
            raise ValueError(f"needs SESSIONS_PIPELINE_ATTRIBUTES={','.join((*summed, self.attribute))}")
        return self


class _File(BaseModel, extra="forbid", strict=True, hide_input_in_errors=True):
    budget: list[Budget]


def load_budgets(settings: Settings) -> tuple[Budget, ...]:
    """The budgets of the settings' file; none without one.

    Raises:
        SettingError: the file can't be read, or something in it is wrong; the text says what to write instead.
    """
    if settings.budgets is None:
        return ()
    file = Path(settings.budgets)
    try:
        found = tomllib.loads(file.read_bytes().decode("utf-8-sig"), parse_float=Decimal)
        budgets = tuple(_File.model_validate(found, context=settings).budget)
    except OSError as error:
        raise SettingError(VARIABLE, f"{file} can't be read: {error.strerror}") from None
    except ValidationError as error:
        raise SettingError(VARIABLE, f"{file}:{_problem(error)}") from None
    except ValueError as error:
        raise SettingError(VARIABLE, f"{file} is no TOML: {error}") from None
    if twice := [name for name, times in Counter(one.name for one in budgets).items() if times > 1]:
        raise SettingError(VARIABLE, f"{file}: two budgets are called {twice[0]!r}; give each a name of its own")
    return budgets


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
    rows = [row for row in rows if row["start_date"] >= first and subject.items() <= row.items()]
    # A file may be made for other attributes than the settings' of today.
    summed = {day: json.loads(metadata.get(ATTRIBUTES, "[]")) for day, metadata in files.items()}
    made = {day for day, keys in summed.items() if budget.attribute in (None, *keys)}
    read = {day for day in so_far if from_lake.is_read(day, readings.get(day, ()), subject.get("tenant_id"), now)}
    unread = [day for day in so_far if day not in made & read]
    spent = Spent.of(rows, _judged(budget, subject, load, first) if budget.include_judges else ())
    experiments, used = sum(row["session_count"] for row in rows), spent.whole
    if used is None and not experiments and not unread:
        used = Decimal(0)
    expected = None if unread else forecast(used, len(so_far), len(days_between(first, last)))
    unpriced = sum(row["unpriced_session_count"] for row in rows)
    unjudged = spent.unknown + spent.not_measured if budget.include_judges else 0
    read_at = max((of_day[-1].fetched_at for of_day in readings.values()), default=None)
    is_stale = read_at is None or now - read_at > STALE
    counts = experiments, unpriced, unjudged
    return BudgetStatus(budget, first, last, used, expected, *counts, tuple(unread), read_at, is_stale)


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


def _problem(error: ValidationError) -> str:
    """` budget 2: limit should be ...`."""
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    # What is written wrongly is missing, too.
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    place = "".join(f" {part + 1}:" if isinstance(part, int) else f" {part}" for part in first["loc"])
    if first["type"] == "extra_forbidden":
        keys = ["budget"] if len(first["loc"]) == 1 else [*Budget.model_fields]
        close = difflib.get_close_matches(str(first["loc"][-1]), keys, n=1)
        return f"{place} is no key; write {' or '.join(close or keys)}"
    said = re.sub("^(Value error, |(Input|String|Decimal input) (?=should))", "", first["msg"])
    return f"{place} {_SAID.get(first['type'], said)}"
