"""The only reader of the environment: one typed, frozen object, with errors that name the variable."""

import json
import os
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from sessions_pipeline.errors import SettingError

DEFAULT_ENDPOINT = "https://api.smith.langchain.com"


def _variable(name: str, *fallbacks: str, default: Any) -> Any:
    return Field(default, validation_alias=AliasChoices(name, *fallbacks))


class Settings(BaseSettings):
    """What the environment and `.env` say; see the README for the meaning of each variable.

    Load it with `Settings.load()`, which raises `SettingError` with one line that names the variable.
    """

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    api_key: SecretStr | None = _variable("LANGSMITH_API_KEY", "LANGCHAIN_API_KEY", default=None)
    endpoint: str = _variable("LANGSMITH_ENDPOINT", "LANGCHAIN_ENDPOINT", default=DEFAULT_ENDPOINT)
    api_version: Literal["v1", "v2", "auto"] = _variable("SESSIONS_PIPELINE_API_VERSION", default="auto")
    workspace_ids: Annotated[tuple[str, ...], NoDecode] = _variable("LANGSMITH_WORKSPACE_ID", default=())
    bearer_token: SecretStr | None = _variable("LANGSMITH_BEARER_TOKEN", default=None)
    data_root: str = _variable("SESSIONS_PIPELINE_DATA_ROOT", default="data")
    start_date: date = _variable("SESSIONS_PIPELINE_START_DATE", default=date(2025, 1, 1))
    lookback_days: Annotated[int, Field(ge=0, le=3650)] = _variable("SESSIONS_PIPELINE_LOOKBACK_DAYS", default=3)
    concurrency: Annotated[int, Field(ge=1, le=64)] = _variable("SESSIONS_PIPELINE_CONCURRENCY", default=8)
    requests_per_minute: Annotated[int | None, Field(ge=8)] = _variable(
        "SESSIONS_PIPELINE_REQUESTS_PER_MINUTE", default=None
    )
    rate_store: SecretStr | None = _variable("SESSIONS_PIPELINE_RATE_STORE", default=None)
    page_size: Annotated[int, Field(ge=1, le=100)] = _variable("SESSIONS_PIPELINE_PAGE_SIZE", default=100)
    query: Annotated[Mapping[str, Any], NoDecode] = _variable("SESSIONS_PIPELINE_QUERY", default={})
    max_rejected_ratio: Annotated[float, Field(ge=0, le=1)] = _variable(
        "SESSIONS_PIPELINE_MAX_REJECTED_RATIO", default=0.2
    )
    redact: Annotated[tuple[str, ...], NoDecode] = _variable("SESSIONS_PIPELINE_REDACT", default=())
    keep_readings_days: Annotated[int | None, Field(ge=1)] = _variable(
        "SESSIONS_PIPELINE_KEEP_READINGS_DAYS", default=None
    )
    deadline_minutes: Annotated[float, Field(gt=0)] = _variable("SESSIONS_PIPELINE_DEADLINE_MINUTES", default=120)

    @field_validator("workspace_ids", "redact", mode="before")
    @classmethod
    def _split_list(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("workspace_ids")
    @classmethod
    def _canonical_workspaces(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(dict.fromkeys(str(UUID(part)) for part in value))
        except ValueError:
            raise ValueError("write workspace ids as UUIDs, several separated by commas") from None

    @field_validator("query", mode="before")
    @classmethod
    def _json_object(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise ValueError('write a JSON object, such as {"name_contains": "nightly"}')  # noqa: TRY004
        return parsed

    @model_validator(mode="after")
    def _one_credential(self) -> Self:
        if self.bearer_token and self.api_key:
            raise SettingError("LANGSMITH_BEARER_TOKEN", "excludes LANGSMITH_API_KEY; set one of the two")
        return self

    @classmethod
    def load(cls) -> Self:
        """Read the environment and `.env`.

        Raises:
            SettingError: a variable is wrong; the text names it and never repeats its value.
        """
        try:
            return cls()
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            variable = str(first["loc"][0]) if first["loc"] else "settings"
            raise SettingError(variable, _plain(first["msg"])) from None


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Input should", "should")


def variable(*names: str) -> tuple[str, str] | None:
    """The first of these environment variables that is set and not empty, and its value; none of them is ours."""
    return next(((name, value) for name in names if (value := os.environ.get(name))), None)
