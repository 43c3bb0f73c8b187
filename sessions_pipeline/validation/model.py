"""What the API says a session is: `TracerSession` of `sessions.openapi.yaml`, property by property.

The models are strict: nothing is made into what it is not. They read what `json_text` gives, where a number is a
`Number` with its exact text. Kept although the schema does not say so: costs as JSON numbers and `""` for an unknown
cost (other versions of the API), tiers and properties that the schema does not name (the API moves on).
"""

import re
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from math import isfinite
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from sessions_pipeline.validation.decimals import decompose
from sessions_pipeline.validation.json_text import Number
from sessions_pipeline.validation.timestamps import parse_timestamp
from sessions_pipeline.validation.types import MONEY

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
_INT64_DIGITS = 19
_FRACTION_DIGITS = MONEY.scale
_INTEGER_DIGITS = MONEY.precision - MONEY.scale
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "a boolean",
    Number: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}


class TraceTier(StrEnum):
    """How long traces are kept: 400 days or 14."""

    longlived = "longlived"
    shortlived = "shortlived"


def kind(value: object) -> str:
    """What JSON calls such a value, with its article."""
    return _KINDS[type(value)]


def parse_uuid(value: object) -> UUID:
    """The UUID that a text of 8-4-4-4-12 hexadecimal digits names.

    Raises:
        ValueError: it is something else; also the forms with braces or without hyphens that Python reads.
    """
    if not isinstance(value, str):
        raise ValueError(f"must be a UUID, not {kind(value)}")  # noqa: TRY004
    if not _UUID.fullmatch(value):
        raise ValueError("is not a UUID")
    return UUID(value)


def parse_cost(value: object) -> Decimal | None:
    """The exact cost in US dollars, with the 18 fraction digits of its column; None for `""` and null.

    Raises:
        ValueError: it is negative, not finite, malformed, or does not fit the column.
    """
    if value is None or value == "":
        return None
    if not isinstance(value, str | Number):
        raise ValueError(f"must be a decimal number, not {kind(value)}")  # noqa: TRY004
    parts = decompose(value if isinstance(value, str) else value.text)
    if parts.is_negative and parts.digits:
        raise ValueError("is negative")
    if len(parts.digits) + parts.exponent > _INTEGER_DIGITS:
        raise ValueError(f"has more than {_INTEGER_DIGITS} digits before the decimal point")
    if parts.exponent < -_FRACTION_DIGITS:
        raise ValueError(f"has more than {_FRACTION_DIGITS} digits after the decimal point")
    return Decimal(f"{parts.digits or 0}{'0' * (parts.exponent + _FRACTION_DIGITS)}e-{_FRACTION_DIGITS}")


def _moment(value: object) -> datetime:
    if not isinstance(value, str):
        raise ValueError(f"must be a date-time, not {kind(value)}")  # noqa: TRY004
    try:
        return parse_timestamp(value)
    except ValueError as error:
        raise ValueError(f"is not a date-time: {error}") from None


def _integer(value: object) -> int:
    if not isinstance(value, Number):
        raise ValueError(f"must be an integer, not {kind(value)}")  # noqa: TRY004
    parts = decompose(value.text)
    if parts.exponent < 0:
        raise ValueError("must be an integer, not a fraction")
    if len(parts.digits) + parts.exponent <= _INT64_DIGITS:
        magnitude = int(f"{parts.digits or 0}{'0' * parts.exponent}")
        integer = -magnitude if parts.is_negative else magnitude
        if INT64_MIN <= integer <= INT64_MAX:
            return integer
    raise ValueError("is an integer beyond 64 bits")


def _double(value: object) -> float:
    if not isinstance(value, Number):
        raise ValueError(f"must be a number, not {kind(value)}")  # noqa: TRY004
    # Adding zero makes negative zero the zero that it is.
    number = float(value.text) + 0.0
    if not isfinite(number):
        raise ValueError("is a number beyond what a double can hold")
    return number


Uuid = Annotated[UUID, BeforeValidator(parse_uuid)]
DateTime = Annotated[datetime, BeforeValidator(_moment)]
Integer = Annotated[int, BeforeValidator(_integer)]
Double = Annotated[float, BeforeValidator(_double)]
Cost = Annotated[
    Decimal | None, BeforeValidator(parse_cost), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "null"}]})
]
Tier = Annotated[str, WithJsonSchema({"type": "string", "enum": list(TraceTier), "title": "TraceTier"})]
JsonObject = dict[str, Any]


class ExperimentProgress(BaseModel):
    """How far an experiment has come: runs expected, and shares from 0 to 1 of runs and of each evaluator."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    expected_run_count: Integer
    run_progress: Double
    evaluator_progress: dict[str, Double]


class TracerSession(BaseModel):
    """A session as the schema has it. Only `id` and `tenant_id` are required; absent is None.

    `start_time` and `name` may be absent, but not null. Times are UTC, latencies seconds, costs US dollars.
    """

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    id: Uuid
    tenant_id: Uuid
    default_dataset_id: Uuid | None = None
    reference_dataset_id: Uuid | None = None
    name: Annotated[str, Field(default=None)]
    description: str | None = None
    trace_tier: Tier | None = None
    start_time: Annotated[DateTime, Field(default=None)]
    end_time: DateTime | None = None
    last_run_start_time: DateTime | None = None
    last_run_start_time_live: DateTime | None = None
    run_count: Integer | None = None
    total_tokens: Integer | None = None
    prompt_tokens: Integer | None = None
    completion_tokens: Integer | None = None
    test_run_number: Integer | None = None
    latency_p50: Double | None = None
    latency_p99: Double | None = None
    first_token_p50: Double | None = None
    first_token_p99: Double | None = None
    error_rate: Double | None = None
    streaming_rate: Double | None = None
    total_cost: Cost = None
    prompt_cost: Cost = None
    completion_cost: Cost = None
    extra: JsonObject | None = None
    feedback_stats: JsonObject | None = None
    session_feedback_stats: JsonObject | None = None
    run_facets: list[JsonObject] | None = None
    experiment_progress: Annotated[ExperimentProgress, Field(strict=False)] | None = None
