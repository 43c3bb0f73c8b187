"""Budgets: what a TOML file allows for a day, week or month, and how much of it is used, exactly.

`load_budgets` reads the file that `SESSIONS_PIPELINE_BUDGETS` names; `budget_statuses` compares it with the lake. A sum
is what is known: experiments without a cost, and days that were not read, are said beside it.
"""

import difflib
import json
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from sessions_pipeline.days import days_between, utc_day
from sessions_pipeline.errors import NotReadError, SettingError
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.outputs.dataset_names import Key, dataset_names
from sessions_pipeline.outputs.formatting import EXACT, day_ranges, money, plural, share
from sessions_pipeline.outputs.spending import Row, forecast, period_of, total
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import DAILY_COST_BY_ATTRIBUTE, REFERENCE_DATASETS, Table
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET as DAILY
from sessions_pipeline.tables.day_metadata import ATTRIBUTES
from sessions_pipeline.tables.readings import Reading, noted_readings, open_workspaces

VARIABLE = "SESSIONS_PIPELINE_BUDGETS"
# No month is longer; a dataset without experiments for so long is known by its listed name alone.
LOOKED_AT = timedelta(days=30)
# After so long without a reading, nobody knows what was spent since.
STALE = timedelta(hours=24)
MOST_NAMED = 10
_SUBJECT = ("reference_dataset_id", "tenant_id", "attribute", "value")
_COLUMNS = (*_SUBJECT, "session_count", "unpriced_session_count", "total_cost")

# Rows and metadata by day; the latest reading of each workspace by day.
Files: TypeAlias = Mapping[date, tuple[Sequence[Row], Mapping[str, str]]]
Readings: TypeAlias = Mapping[date, Sequence[Reading]]
_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


def _number(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("should be a number, such as 400.00")  # noqa: TRY004 - pydantic reports these
    return Decimal(value)


class Budget(BaseModel):
    """One `[[budget]]` of the file: a limit in US dollars, for what and for how long; docs/alerts.md has the keys."""

    model_config = _STRICT

    name: str = Field(min_length=1)
    limit: Annotated[Decimal, BeforeValidator(_number), Field(gt=0, max_digits=38, decimal_places=18)]
    period: Literal["day", "week", "month"]
    warn_at: Annotated[Decimal, BeforeValidator(_number), Field(ge=0, le=1)] = Decimal("0.8")
    dataset: str | None = None
    attribute: str | None = None
    value: str | None = None
    workspace: Annotated[str, StringConstraints(to_lower=True)] | None = None
    include_judges: bool = False

    @model_validator(mode="after")
    def _is_about_one_thing(self, info: ValidationInfo) -> Self:
        if sum(one is not None for one in (self.dataset, self.attribute, self.workspace)) > 1:
            raise ValueError("write one of dataset, attribute and workspace, or none of them")
        if (self.attribute is None) is not (self.value is None):
            raise ValueError('write both or neither of attribute = "git.branch" and value = "main"')
        summed: tuple[str, ...] = getattr(info.context, "attributes", ())
        if self.attribute is not None and self.attribute not in summed:
            raise ValueError(f"needs SESSIONS_PIPELINE_ATTRIBUTES={','.join((*summed, self.attribute))}")
        return self


class _File(BaseModel):
    model_config = _STRICT

    budget: list[Budget]

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if twice := [name for name, times in Counter(one.name for one in self.budget).items() if times > 1]:
            raise ValueError(f"two budgets are called {twice[0]!r}; give each a name of its own")
        return self


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
        return tuple(_File.model_validate(found, context=settings).budget)
    except OSError as error:
        raise SettingError(VARIABLE, f"{file} can't be read: {error.strerror}") from None
    except ValidationError as error:
        raise SettingError(VARIABLE, f"{file}:{_problem(error)}") from None
    except ValueError as error:
        raise SettingError(VARIABLE, f"{file} is no TOML: {error}") from None


def _problem(error: ValidationError) -> str:
    """` budget 2: limit should be ...`."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = "".join(f" {part + 1}:" if isinstance(part, int) else f" {part}" for part in first["loc"])
    if first["type"] == "list_type":
        return f"{place} should be written [[budget]], with two brackets"
    if first["type"] == "extra_forbidden":
        keys = ["budget"] if len(first["loc"]) == 1 else [*Budget.model_fields]
        return f"{place} is no key; write {' or '.join(difflib.get_close_matches(place, keys, n=1) or keys)}"
    return f"{place} {first['msg'].removeprefix('Value error, ').replace('Input should', 'should')}"


def budget_statuses(lake: Lake, budgets: Sequence[Budget], now: datetime) -> list[BudgetStatus]:
    """How each budget stands, in their order.

    Raises:
        SettingError: a budget names a dataset or workspace that the lake does not know, or a name of several datasets.
        LakeError: a file can't be read.
    """
    today = utc_day(now)
    days = [day for day in lake.days(DAILY) if today - LOOKED_AT <= day <= today]
    readings = {day: last_readings(lake, day) for day in days}

    @cache
    def load(table: Table) -> Files:
        columns = [name for name in _COLUMNS if name in table.schema.names]
        found = {day: lake.load(table, day, columns) for day in days}
        return {day: (one.rows.to_pylist(), one.metadata) for day, one in found.items() if one}

    names = _names(lake, load(DAILY))
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
        if not is_made or not readings[day] or (day < today and open_workspaces(day, readings[day])):
            unread.append(day)
    experiments, used = sum(row["session_count"] for row in rows), total(row["total_cost"] for row in rows)
    if used is None and not experiments and not unread:
        used = Decimal(0)
    expected = None if unread else forecast(used, len(so_far), len(days_between(first, last)))
    unpriced, unjudged = sum(row["unpriced_session_count"] for row in rows), experiments * budget.include_judges
    read_at = max((of_day[-1].fetched_at for of_day in readings.values() if of_day), default=None)
    counts = experiments, unpriced, unjudged
    is_stale = read_at is None or now - read_at > STALE
    return BudgetStatus(budget, first, last, used, expected, *counts, tuple(unread), read_at, is_stale)


def last_readings(lake: Lake, day: date) -> list[Reading]:
    """The latest reading of each workspace, the very latest last; none where the day was never read."""
    with suppress(NotReadError):
        return noted_readings(lake.read_file(f"_readings/start_date={day}.json"))
    return []


def _names(lake: Lake, costs: Files) -> dict[Key, str]:
    """Every dataset that the lake knows, and its name; the id where it has none."""
    listed = lake.load(REFERENCE_DATASETS, None, ("tenant_id", "id"))
    keys = {(row["tenant_id"], row["id"]) for row in (listed.rows.to_pylist() if listed else ())}
    keys |= {(row["tenant_id"], row["reference_dataset_id"]) for rows, _ in costs.values() for row in rows}
    return {**{key: key[1] for key in keys}, **dataset_names(lake, keys, list(costs))}


def _subject(budget: Budget, names: Mapping[Key, str], readings: Readings) -> dict[str, str]:
    """The columns that say which rows a budget is about, and their values; of an empty lake nothing is asked."""
    dataset, workspace, problem = budget.dataset, budget.workspace, None
    if dataset and names:
        ids = sorted({id_ for (_, id_), name in names.items() if dataset in (name, id_.upper(), id_)})
        if len(ids) != 1:
            instead = ids or difflib.get_close_matches(dataset, names.values(), n=1) or sorted({*names.values()})
            problem = f"{len(ids) or 'no'} datasets are called {dataset!r}; write {' or '.join(instead[:MOST_NAMED])}"
        dataset = ids[0] if ids else None
    read = {one for of_day in readings.values() for reading in of_day for one in reading.workspaces}
    if workspace and read and workspace not in read:
        problem = f"workspace {workspace} was never read; write {' or '.join(sorted(read)[:MOST_NAMED])}"
    if problem:
        raise SettingError(VARIABLE, f"budget {budget.name!r}: {problem}")
    subject = zip(_SUBJECT, (dataset, workspace, budget.attribute, budget.value), strict=True)
    return {column: value for column, value in subject if value is not None}
