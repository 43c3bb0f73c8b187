"""Settings from the environment and `.env`: one typed, frozen object, whose errors name the variable.

Other modules read or write only variables of other programs, such as `AWS_*` in `lake/s3.py`.
"""

import difflib
import io
import os
import re
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasGenerator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    SecretStr,
    ValidationError,
    model_validator,
)

from sessions_pipeline.errors import SettingError

DEFAULT_ENDPOINT = "https://api.smith.langchain.com"
# The command that runs the demo. An installed wheel has no Makefile.
DEMO = "make demo" if Path(__file__).parents[1].joinpath("Makefile").exists() else "sessions-pipeline demo"

# Variables that other libraries read from the environment. Exported, so that they work from `.env`, too.
_EXPORTED = re.compile(
    r"DAGSTER_HOME|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|AWS_\w+|(HTTPS?|ALL|NO)_PROXY|(https?|all|no)_proxy"
)
# Names that are ours or were meant to be: the prefix may be misspelt.
_OUR_NAME = re.compile(r"(SES\w*P\w*|LAN\w*|\w*SMITH)_\w+", re.IGNORECASE)
# KEY and the like must end a word of the name: MY_KEYBOARD holds no secret.
_SECRET = re.compile(r"SECRET|PASSW|(KEY|TOKEN|STORE|NOTIFY)S?\d*(_|$)", re.IGNORECASE)
# Secrets in these variables are hidden from 4 characters on, in others from 8 on: a short value of another variable may
# be an ordinary word, such as "false".
_SHORT = re.compile(r"LANG|AWS_", re.IGNORECASE)
_CREDENTIALS_IN_URL = re.compile(r"(?<=//)[^/\s]+@")
# Our words for pydantic's errors, by the beginning of the error's type, where pydantic's own words describe Python.
_PLAIN_WORDS = {
    "date_": "write YYYY-MM-DD, such as 2026-11-01",
    "datetime_": "write a time such as 2026-01-31 or 2026-01-31T12:00:00Z",
    "int_parsing": "write a whole number",
    **dict.fromkeys(("string_type", "string_unicode"), "write a text in UTF-8"),
    "uuid_": "write an id (a UUID), not a name",
    "too_short": "name at least one, or leave it out",
    **dict.fromkeys(("json_", "dict_"), 'write a JSON object, such as {"name_contains": "nightly"}'),
}


def _split(value: object) -> object:
    if isinstance(value, str) and "," in value and not value.strip(" ,"):
        raise ValueError("has only commas; write one or several values, separated by commas, or remove it")
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _canonical(ids: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(str(UUID(part.strip("\"'"))) for part in ids))
    except ValueError:
        raise ValueError("write workspace ids as UUIDs, several separated by commas") from None


def _iso_day(value: object) -> object:
    """Refuse what pydantic would take, too: seconds since 1970, and times."""
    if isinstance(value, str) and not re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        raise ValueError(_PLAIN_WORDS["date_"])
    return value


# Longer than any value can be. Pydantic refuses bytes that are not UTF-8 only in texts of a limited length.
LONGEST_TEXT = 200_000
Names = Annotated[tuple[str, ...], BeforeValidator(_split)]


class Settings(BaseModel):
    """All settings; docs/settings.md explains each variable.

    `Settings.load()` reads the environment and `.env`. `Settings(...)` reads neither and takes only its arguments.
    `warnings` has a line for each variable that has no effect, such as one that looks like ours but is unknown.
    """

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        str_max_length=LONGEST_TEXT,
        # For fields without an alias of their own: `page_size` is SESSIONS_PIPELINE_PAGE_SIZE.
        alias_generator=AliasGenerator(validation_alias=lambda field: f"SESSIONS_PIPELINE_{field.upper()}"),
    )

    api_key: SecretStr | None = Field(None, validation_alias=AliasChoices("LANGSMITH_API_KEY", "LANGCHAIN_API_KEY"))
    endpoint: str = Field(DEFAULT_ENDPOINT, validation_alias=AliasChoices("LANGSMITH_ENDPOINT", "LANGCHAIN_ENDPOINT"))
    workspace_ids: Annotated[Names, AfterValidator(_canonical)] = Field(
        (), validation_alias=AliasChoices("LANGSMITH_WORKSPACE_ID", "LANGCHAIN_WORKSPACE_ID", "LANGSMITH_TENANT_ID")
    )
    bearer_token: SecretStr | None = Field(None, validation_alias="LANGSMITH_BEARER_TOKEN")
    dagster_home: str | None = Field(None, validation_alias="DAGSTER_HOME")
    warnings: tuple[str, ...] = Field((), validation_alias="warnings")
    api_version: Literal["v1", "v2", "auto"] = "auto"
    data_root: Annotated[str, AfterValidator(os.path.expanduser)] = "data"
    # Dagster lists every partition; from the year 1 on that would take minutes.
    start_date: Annotated[date, BeforeValidator(_iso_day)] = Field(date(2025, 1, 1), ge=date(2000, 1, 1))
    lookback_days: int = Field(3, ge=0, le=3650)
    days_per_run: int | None = Field(None, ge=1)
    concurrency: int = Field(8, ge=1, le=64)
    requests_per_minute: int | None = Field(None, ge=8)
    rate_store: SecretStr | None = None
    # Smaller pages would prove too little about each other (see `langsmith/window.py` and `langsmith/cursors.py`).
    page_size: Annotated[int, AfterValidator(lambda size: max(size, 10))] = Field(100, ge=1, le=100)
    query: Json[dict[str, Any]] = {}
    attributes: Names = ("models", "git.branch")
    budgets: str | None = None
    notify: SecretStr | None = None
    judge_project: str = Field("evaluators", min_length=1)
    judge_requests: int = Field(1000, ge=0)
    max_rejected_ratio: float = Field(0.2, ge=0, le=1)
    redact: Names = ()
    keep_readings_days: int | None = Field(None, ge=1, le=36500)
    deadline_minutes: float = Field(120, gt=0)

    @property
    def absolute_data_root(self) -> str:
        """The data root as an absolute path or a URI."""
        return self.data_root if "://" in self.data_root else str(Path(self.data_root).resolve())

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.bearer_token and self.api_key:
            raise SettingError("LANGSMITH_BEARER_TOKEN", "excludes LANGSMITH_API_KEY; set one of the two")
        if self.start_date > (today := datetime.now(UTC).date()):
            raise SettingError("SESSIONS_PIPELINE_START_DATE", f"is in the future; set {today} (UTC) or earlier")
        return self

    @classmethod
    def load(cls) -> Self:
        """Read `.env` and the environment, which takes precedence.

        Variables in `.env` that other libraries read, such as `AWS_*` and proxies, are exported to the environment.

        Raises:
            SettingError: a variable is wrong. The message names it and never repeats its value.
        """
        variables = _variables()
        os.environ.update({name: value for name, value in variables.items() if _EXPORTED.fullmatch(name)})
        try:
            return cls.model_validate({**variables, "warnings": _without_effect(variables)})
        except ValidationError as error:
            field, problem = first_problem(error)
            raise SettingError(field.partition(".")[0], problem) from None


def without_secrets(text: str) -> str:
    """The text with `***` in place of the environment's secrets and of credentials in URLs."""
    try:
        found = _variables()
    except SettingError:
        found = dict(os.environ)
    values = [(value, 4 if _SHORT.match(name) else 8) for name, value in found.items() if _SECRET.search(name)]
    # SESSIONS_PIPELINE_NOTIFY may hold several secrets.
    secrets = {part for value, least in values for part in (value, *re.split(r"[\s,]+", value)) if len(part) >= least}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _CREDENTIALS_IN_URL.sub("***@", text)


def _variables() -> dict[str, str]:
    return {**_dotenv(Path(".env")), **{name: _unquoted(value) for name, value in os.environ.items() if value}}


def _dotenv(file: Path) -> dict[str, str]:
    """The variables of a file that have a value. The file may begin with a byte order mark."""
    try:
        text = file.read_bytes().decode("utf-8-sig", "replace") if file.exists() and not file.is_dir() else ""
    except OSError as error:
        raise SettingError(str(file), f"can't be read: {error.strerror}") from None
    # UTF-16 without a byte order mark decodes as UTF-8, but with NUL characters in it.
    if {"\0", "\ufffd"} & {*text}:
        raise SettingError(str(file), "is not UTF-8; save it as UTF-8")
    # A part is a line, with the empty lines before it.
    for _, _, (part, at), is_broken in parse_stream(io.StringIO(text)):
        if is_broken:
            line = at + len(part.rstrip().splitlines()) - 1
            raise SettingError(str(file), f"line {line} is not NAME=value, or lacks a quote; correct it")
    return {name: _unquoted(value) for name, value in dotenv_values(stream=io.StringIO(text)).items() if value}


def _unquoted(value: str) -> str:
    """The value without the quotes around it, which `docker run --env-file` leaves there."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _without_effect(names: Collection[str]) -> tuple[str, ...]:
    """A warning for each unknown variable that looks like ours, and for one that has no effect without another.

    Other LANGSMITH_* and LANGCHAIN_* variables are LangSmith's own: of those, only near misses are named.
    """
    aliases = [field.validation_alias for field in Settings.model_fields.values()]
    known = [str(name) for alias in aliases for name in getattr(alias, "choices", [alias])]
    warnings = []
    for name in sorted(filter(_OUR_NAME.fullmatch, {*names} - {*known})):
        longer = [one for one in known if one.startswith(f"{name.upper()}_")]
        close = longer or difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.85)
        if close or name.upper().startswith("SESSIONS_PIPELINE_"):
            suggestion = f"; did you mean {close[0]}?" if close else ""
            warnings.append(f"{name} is not a setting and has no effect{suggestion}")
    if "SESSIONS_PIPELINE_RATE_STORE" in names and "SESSIONS_PIPELINE_REQUESTS_PER_MINUTE" not in names:
        warnings.append("SESSIONS_PIPELINE_RATE_STORE has no effect without SESSIONS_PIPELINE_REQUESTS_PER_MINUTE")
    return tuple(warnings)


def first_problem(error: ValidationError) -> tuple[str, str]:
    """The path of the first invalid field, and what is wrong with it. The text never repeats the value."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    problem = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
    plain = next((words for kind, words in _PLAIN_WORDS.items() if first["type"].startswith(kind)), problem)
    return ".".join(map(str, first["loc"])), plain


def program_variables(given: Mapping[str, str], *, alone: bool = False) -> dict[str, str]:
    """The environment for another program: this process's, with the given variables added.

    With `alone`, our own settings are not inherited: the program gets only those that are given.
    """
    return {**{name: value for name, value in os.environ.items() if not (alone and _OUR_NAME.fullmatch(name))}, **given}


def variable(*names: str) -> tuple[str, str] | None:
    """The name and value of the first of these environment variables that is set and not empty.

    For variables of other programs; ours are fields of `Settings`.
    """
    return next(((name, value) for name in names if (value := os.environ.get(name))), None)
