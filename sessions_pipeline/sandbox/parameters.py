"""The query parameters of both versions' sessions and of datasets, checked as the API checks them."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Json, PlainValidator, ValidationInfo

# `stats_start_time` reaches this far back.
REACH = timedelta(days=31)
_STRING = r"""(?P<quote>["'])(?P<value>(?:\\.|(?!(?P=quote))[^\\])*)(?P=quote)"""
_NAME = re.compile(rf"\s*eq\(\s*name\s*,\s*{_STRING}\s*\)\s*", re.DOTALL)
_EXPERIMENT = re.compile(
    rf"""\s*and\(\s*eq\(\s*metadata_key\s*,\s*["']experiment["']\s*\)\s*,"""
    rf"""\s*eq\(\s*metadata_value\s*,\s*{_STRING}\s*\)\s*\)\s*""",
    re.DOTALL,
)
_SORTS = "name|start_time|last_run_start_time|latency_p50|latency_p99|error_rate"
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?")

Pairs = Sequence[tuple[str, str]]


def _value_in(expression: re.Pattern[str], example: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        match = expression.fullmatch(text)
        if not match:
            raise ValueError(f"Only {example} is understood")
        return re.sub(r"\\(.)", r"\1", match["value"], flags=re.DOTALL)

    return read


def _moment(text: str, info: ValidationInfo[datetime]) -> datetime:
    if not _DATE_TIME.fullmatch(text):
        raise ValueError("Input should be a valid datetime")
    moment = datetime.fromisoformat(text.upper())
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if info.context - moment > REACH:
        raise ValueError("stats_start_time reaches 31 days back at most")
    return moment


Id = Annotated[str, BeforeValidator(lambda text: str(UUID(text)))]
Name = Annotated[str, BeforeValidator(_value_in(_NAME, 'eq(name, "value")'))]
Experiment = Annotated[
    str,
    BeforeValidator(_value_in(_EXPERIMENT, 'and(eq(metadata_key, "experiment"), eq(metadata_value, "value"))')),
]


class _Query(BaseModel):
    """Parameters that are not named here are ignored, as the API does."""

    model_config = ConfigDict(frozen=True)

    id: tuple[Id, ...] | None = None
    name: str | None = None
    name_contains: str | None = None

    @classmethod
    def read(cls, pairs: Pairs, now: datetime) -> Self:
        """The request in typed form.

        Raises:
            pydantic.ValidationError: one or more are wrong.
        """
        values: dict[str, Any] = dict(pairs)
        for name in values.keys() & _ARRAYS:
            values[name] = [value for key, value in pairs if key == name]
        return cls.model_validate(values, context=now)


class DatasetsQuery(_Query):
    """Of `GET /api/v1/datasets`."""

    offset: int = Field(0, ge=0)
    limit: int = Field(100, ge=1, le=100)


class _Common(_Query):
    """What both versions of the sessions call the same."""

    dataset_version: str | None = None
    metadata: Json[dict[str, Any]] | None = None
    tag_value_id: tuple[Id, ...] | None = None
    filter: Name | None = None
    include_stats: bool = False
    use_approx_stats: bool = False
    stats_start_time: Annotated[datetime, PlainValidator(_moment)] | None = None
    stats_select: tuple[str, ...] | None = None
    stats_filter: Experiment | None = None
    sort_by_feedback_key: str = "correctness"


class SessionsQuery(_Common):
    """Of `GET /api/v1/sessions`."""

    reference_free: bool | None = None
    reference_dataset: tuple[Id, ...] | None = None
    facets: bool = False
    sort_by: str = Field("start_time", pattern=f"^({_SORTS}|feedback|runs_count)$")
    sort_by_desc: bool = True
    sort_by_feedback_source: Literal["session", "run"] = "run"
    offset: int = Field(0, ge=0)
    limit: int = Field(100, ge=1, le=100)


class SecondSessionsQuery(_Common):
    """Of `GET /api/v2/sessions`."""

    type: tuple[Literal["PROJECT", "AGENT", "EXPERIMENT"], ...] | None = None
    reference_dataset_id: tuple[Id, ...] | None = None
    include_facets: bool = False
    sort_by: str = Field("START_TIME", pattern=f"^({_SORTS.upper()}|FEEDBACK)$")
    sort_order: Literal["asc", "desc"] = "desc"
    sort_by_feedback_source: Literal["SESSION", "RUN"] = "RUN"
    cursor: str = ""
    page_size: int = Field(20, ge=1, le=100)

    def as_first_version(self, offset: int) -> SessionsQuery:
        """The same in the words of version 1."""
        # An experiment is a session on a dataset; this company has no agents.
        is_narrowed = self.type and ("EXPERIMENT" in self.type) is not ("PROJECT" in self.type)
        renamed: dict[str, Any] = {
            "reference_free": "PROJECT" in self.type if self.type and is_narrowed else None,
            "reference_dataset": self.reference_dataset_id,
            "facets": self.include_facets,
            "sort_by": self.sort_by.lower(),
            "sort_by_desc": self.sort_order == "desc",
            "sort_by_feedback_source": self.sort_by_feedback_source.lower(),
        }
        common = {name: getattr(self, name) for name in _Common.model_fields}
        return SessionsQuery.model_construct(**common, **renamed, offset=offset, limit=self.page_size)


_ARRAYS = {"id", "tag_value_id", "stats_select", "reference_dataset", "reference_dataset_id", "type"}
