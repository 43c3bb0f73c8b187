"""A session as the API defines it: `TracerSession` of `sessions.openapi.yaml`, property by property.

A test compares the model with that file. The columns of `sessions` follow from the model, and each type's rule reads
the values. Some values are accepted although the schema does not allow them: costs as JSON numbers and `""` for an
unknown cost (other versions of the API), and tiers and properties that the schema does not name (the API evolves).
"""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, NamedTuple, get_args
from uuid import UUID

from pydantic import BaseModel, Field, WithJsonSchema

from sessions_pipeline.validation import rules
from sessions_pipeline.validation.rules import Rule


class TraceTier(StrEnum):
    """How long traces are kept: 400 days or 14."""

    longlived = "longlived"
    shortlived = "shortlived"


class ExperimentProgress(BaseModel, extra="allow"):
    """Progress of an experiment: runs expected, and the shares (0 to 1) of runs done and of each evaluator's work."""

    expected_run_count: int
    run_progress: float
    evaluator_progress: dict[str, float]


Uuid = Annotated[UUID, rules.UUID]
Time = Annotated[datetime, rules.TIME]
String = Annotated[str, rules.STRING]
Tier = Annotated[TraceTier, rules.STRING]
Integer = Annotated[int, rules.INTEGER]
Double = Annotated[float, rules.DOUBLE]
Cost = Annotated[Decimal, WithJsonSchema({"type": "string"}), rules.COST]
Object = Annotated[dict[str, Any], rules.OBJECT]
Objects = Annotated[list[dict[str, Any]], rules.OBJECTS]
Progress = Annotated[ExperimentProgress, rules.PROGRESS]


def _optional(description: str) -> Any:
    return Field(None, description=description)


class TracerSession(BaseModel, extra="allow"):
    """A session as the schema defines it. Only `id` and `tenant_id` are required; absent properties become null.

    `name` and `start_time` may be absent, but not null. Times are in UTC, latencies in seconds, costs in US dollars.
    """

    id: Uuid = Field(description="The session, canonical UUID")
    tenant_id: Uuid = Field(description="The workspace that the session belongs to, canonical UUID")
    default_dataset_id: Uuid | None = _optional("The dataset that new examples go to, canonical UUID")
    reference_dataset_id: Uuid | None = _optional("The dataset the experiment ran against; null for a tracing project")
    name: String = _optional("The project's or experiment's name")
    description: String | None = _optional("Its description")
    trace_tier: Tier | None = _optional("Retention of its traces: longlived (400 days) or shortlived (14 days)")
    start_time: Time = _optional("When the session started; its UTC day is the partition")
    end_time: Time | None = _optional("When it ended, if it did")
    last_run_start_time: Time | None = _optional("When its latest run started")
    last_run_start_time_live: Time | None = _optional("The same, without the API's caching")
    run_count: Integer | None = _optional("Traces recorded; null when unknown")
    total_tokens: Integer | None = _optional("Tokens used, prompt and completion; null when unknown")
    prompt_tokens: Integer | None = _optional("Tokens in prompts; null when unknown")
    completion_tokens: Integer | None = _optional("Tokens in completions; null when unknown")
    test_run_number: Integer | None = _optional("Number of the experiment within its dataset")
    latency_p50: Double | None = _optional("Median latency of a run, seconds")
    latency_p99: Double | None = _optional("99th percentile of a run's latency, seconds")
    first_token_p50: Double | None = _optional("Median time to the first token, seconds")
    first_token_p99: Double | None = _optional("99th percentile of the time to the first token, seconds")
    error_rate: Double | None = _optional("Share of runs that failed, 0 to 1")
    streaming_rate: Double | None = _optional("Share of runs that streamed, 0 to 1")
    total_cost: Cost | None = _optional(
        "Total cost (can exceed prompt plus completion), US dollars, exact; null when unknown"
    )
    prompt_cost: Cost | None = _optional("Cost of the prompts, US dollars, exact; null when unknown")
    completion_cost: Cost | None = _optional("Cost of the completions, US dollars, exact; null when unknown")
    extra: Object | None = _optional("Free-form properties, JSON text as sent")
    feedback_stats: Object | None = _optional("Feedback on runs by key, JSON text as sent")
    session_feedback_stats: Object | None = _optional("Feedback on the session by key, JSON text as sent")
    run_facets: Objects | None = _optional("Facets of the runs, JSON text as sent")
    experiment_progress: Progress | None = _optional("How far the experiment has come, JSON text as sent")


class Property(NamedTuple):
    """A property of the model: its rule, whether it is required and may be null, and its description."""

    name: str
    rule: Rule
    required: bool
    nullable: bool
    description: str


def _property(name: str) -> Property:
    field = TracerSession.model_fields[name]
    options = get_args(field.annotation)
    hints = (*field.metadata, *(hint for option in options for hint in getattr(option, "__metadata__", ())))
    rule = next(hint for hint in hints if isinstance(hint, Rule))
    return Property(name, rule, field.is_required(), type(None) in options, field.description or "")


PROPERTIES = tuple(map(_property, TracerSession.model_fields))
