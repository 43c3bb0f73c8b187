"""Reads the budgets from the TOML file that `SESSIONS_PIPELINE_BUDGETS` names. Unknown keys are errors."""

import difflib
import re
import tomllib
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, ValidationInfo, model_validator

from sessions_pipeline.errors import SettingError
from sessions_pipeline.settings import Settings

BUDGETS = "SESSIONS_PIPELINE_BUDGETS"
# Our words for some of pydantic's errors, by type.
_PLAIN_WORDS = {"missing": "is missing", "list_type": "should be written [[budget]], with two brackets"}


def _number(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("should be a number, such as 400.00")  # noqa: TRY004 - pydantic reports a ValueError
    return Decimal(value)


class Budget(BaseModel, extra="forbid", frozen=True, strict=True, hide_input_in_errors=True):
    """One `[[budget]]` of the file: a limit in US dollars for a period and a subject; docs/alerts.md has the keys."""

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
        if sum(key is not None for key in (self.dataset, self.attribute, self.workspace)) > 1:
            raise ValueError("write one of dataset, attribute and workspace, or none of them")
        if (self.attribute is None) is not (self.value is None):
            raise ValueError('write both or neither of attribute = "git.branch" and value = "main"')
        summed: tuple[str, ...] = getattr(info.context, "attributes", ())
        if "," in (self.attribute or ""):
            raise ValueError(f"{self.attribute!r} has a comma, and costs can't be summed by such a key")
        if self.attribute is not None and self.attribute not in summed:
            needs = f"needs SESSIONS_PIPELINE_ATTRIBUTES={','.join((*summed, self.attribute))}"
            close = difflib.get_close_matches(self.attribute, summed, n=1)
            raise ValueError(f"did you mean attribute = {close[0]!r}? {self.attribute!r} {needs}" if close else needs)
        return self

    @property
    def label(self) -> str:
        """The name and the kind of period: `support answers (month)`."""
        return f"{self.name} ({self.period})"


class _File(BaseModel, extra="forbid", strict=True, hide_input_in_errors=True):
    budget: list[Budget]


def load_budgets(settings: Settings) -> tuple[Budget, ...]:
    """The budgets in the file that the settings name; none if they name none.

    Raises:
        SettingError: the file can't be read, or something in it is wrong; the message says what to write instead.
    """
    if settings.budgets is None:
        return ()
    file = Path(settings.budgets)
    try:
        content = tomllib.loads(file.read_bytes().decode("utf-8-sig"), parse_float=Decimal)
        budgets = tuple(_File.model_validate(content, context=settings).budget)
    except OSError as error:
        raise SettingError(BUDGETS, f"{file} can't be read: {error.strerror}") from None
    except ValidationError as error:
        raise SettingError(BUDGETS, f"{file}:{_problem(error)}") from None
    except (ValueError, RecursionError) as error:
        raise SettingError(BUDGETS, f"{file} is not valid TOML in UTF-8: {error}") from None
    if twice := [name for name, times in Counter(budget.name for budget in budgets).items() if times > 1]:
        raise SettingError(BUDGETS, f"{file}: two budgets are called {twice[0]!r}; give each a name of its own")
    return budgets


def _problem(error: ValidationError) -> str:
    """The place and the problem: ` budget 2: limit should be ...`."""
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    # A misspelt key comes first: the key that was meant is reported as missing as well.
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    place = "".join(f" {part + 1}:" if isinstance(part, int) else f" {part}" for part in first["loc"])
    if first["type"] == "extra_forbidden":
        keys = ["budget"] if len(first["loc"]) == 1 else [*Budget.model_fields]
        close = difflib.get_close_matches(str(first["loc"][-1]), keys, n=1)
        return f"{place} is not a key; write {' or '.join(close or keys)}"
    problem = re.sub("^(Value error, |(Input|String|Decimal input) (?=should))", "", first["msg"])
    return f"{place} {_PLAIN_WORDS.get(first['type'], problem)}"
