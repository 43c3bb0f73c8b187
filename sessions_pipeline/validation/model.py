"""A session as the API defines it: `TracerSession` of `sessions.openapi.yaml`, property by property.

A test compares the model with that file. The columns of `sessions` follow from the model, and the rule of each type
reads the values. Some values are accepted although the schema does not allow them: costs as JSON numbers and `""` for
an unknown cost (other versions of the API), and tiers and properties that the schema does not name (the API evolves).
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints
from uuid import UUID

from pydantic import BaseModel, Field, WithJsonSchema

from sessions_pipeline.validation.rules import RULES, ExperimentProgress, Rule

# How long traces are kept: 400 days or 14.
TRACE_TIERS = ("longlived", "shortlived")
Tier = Annotated[str, WithJsonSchema({"type": "string", "enum": TRACE_TIERS})]
Cost = Annotated[Decimal, WithJsonSchema({"type": "string"})]


def _optional(description: str) -> Any:
    return Field(None, description=description)


class TracerSession(BaseModel, extra="allow"):
    """A session as the schema defines it. Only `id` and `tenant_id` are required; absent properties become null.

    `name` and `start_time` may be absent, but not null. Times are in UTC, latencies in seconds, costs in US dollars.
    """

    id: UUID = Field(description="The session, canonical UUID")
    tenant_id: UUID = Field(description="The workspace that the session belongs to, canonical UUID")
    default_dataset_id: UUID | None = _optional("The dataset that new examples go to, canonical UUID")
    reference_dataset_id: UUID | None = _optional("The dataset the experiment ran against; null for a tracing project")
    name: str = _optional("The project's or experiment's name")
    description: str | None = _optional("Its description")
    trace_tier: Tier | None = _optional("Retention of its traces: longlived (400 days) or shortlived (14 days)")
    start_time: datetime = _optional("When the session started; its UTC day is the partition")
    end_time: datetime | None = _optional("When it ended, if it did")
    last_run_start_time: datetime | None = _optional("When its latest run started")
    last_run_start_time_live: datetime | None = _optional("The same, without the API's caching")
    run_count: int | None = _optional("Traces recorded; null when unknown")
    total_tokens: int | None = _optional("Tokens used, prompt and completion; null when unknown")
    prompt_tokens: int | None = _optional("Tokens in prompts; null when unknown")
    completion_tokens: int | None = _optional("Tokens in completions; null when unknown")
    test_run_number: int | None = _optional("Number of the experiment within its dataset")
    latency_p50: float | None = _optional("Median latency of a run, seconds")
    latency_p99: float | None = _optional("99th percentile of a run's latency, seconds")
    first_token_p50: float | None = _optional("Median time to the first token, seconds")
    first_token_p99: float | None = _optional("99th percentile of the time to the first token, seconds")
    error_rate: float | None = _optional("Share of runs that failed, 0 to 1")
    streaming_rate: float | None = _optional("Share of runs that streamed, 0 to 1")
    total_cost: Cost | None = _optional(
        "Total cost (can exceed prompt plus completion), US dollars, exact; null when unknown"
    )
    prompt_cost: Cost | None = _optional("Cost of the prompts, US dollars, exact; null when unknown")
    completion_cost: Cost | None = _optional("Cost of the completions, US dollars, exact; null when unknown")
    extra: dict[str, Any] | None = _optional("Free-form properties, JSON text as sent")
    feedback_stats: dict[str, Any] | None = _optional("Feedback on runs by key, JSON text as sent")
    session_feedback_stats: dict[str, Any] | None = _optional("Feedback on the session by key, JSON text as sent")
    run_facets: list[dict[str, Any]] | None = _optional("Facets of the runs, JSON text as sent")
    experiment_progress: ExperimentProgress | None = _optional("How far the experiment has come, JSON text as sent")


class Property(NamedTuple):
    """A property of the model: its rule, whether it is required and may be null, and its description."""

    name: str
    rule: Rule
    required: bool
    nullable: bool
    description: str


_TYPES = get_type_hints(TracerSession)


def _property(name: str) -> Property:
    field, options = TracerSession.model_fields[name], get_args(_TYPES[name])
    rule = next(RULES[option] for option in (_TYPES[name], *options) if option in RULES)
    return Property(name, rule, field.is_required(), type(None) in options, field.description or "")


PROPERTIES = tuple(map(_property, TracerSession.model_fields))
