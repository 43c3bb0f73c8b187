"""A session as the API defines it: `TracerSession` of `sessions.openapi.yaml`, property by property.

A test compares the properties with that file. The columns of `sessions` follow from them, and each type's rule reads
the values. Some values are accepted although the schema does not allow them: costs as JSON numbers and `""` for an
unknown cost (other versions of the API), and tiers and properties that the schema does not name (the API evolves).
"""

from typing import NamedTuple

from sessions_pipeline.validation import rules
from sessions_pipeline.validation.rules import Rule

# How long traces are kept: 400 days or 14.
TRACE_TIERS = ("longlived", "shortlived")


class Property(NamedTuple):
    """A property of a session: its rule, its description, and whether the schema requires it and lets it be null."""

    name: str
    rule: Rule
    description: str
    required: bool = False
    nullable: bool = True


# Times are in UTC, latencies in seconds, costs in US dollars. What is absent becomes null.
PROPERTIES = (
    Property("id", rules.UUID, "The session, canonical UUID", required=True, nullable=False),
    Property(
        "tenant_id",
        rules.UUID,
        "The workspace that the session belongs to, canonical UUID",
        required=True,
        nullable=False,
    ),
    Property("default_dataset_id", rules.UUID, "The dataset that new examples go to, canonical UUID"),
    Property("reference_dataset_id", rules.UUID, "The dataset the experiment ran against; null for a tracing project"),
    Property("name", rules.STRING, "The project's or experiment's name", nullable=False),
    Property("description", rules.STRING, "Its description"),
    Property("trace_tier", rules.STRING, "Retention of its traces: longlived (400 days) or shortlived (14 days)"),
    Property("start_time", rules.TIME, "When the session started; its UTC day is the partition", nullable=False),
    Property("end_time", rules.TIME, "When it ended, if it did"),
    Property("last_run_start_time", rules.TIME, "When its latest run started"),
    Property("last_run_start_time_live", rules.TIME, "The same, without the API's caching"),
    Property("run_count", rules.INTEGER, "Traces recorded; null when unknown"),
    Property("total_tokens", rules.INTEGER, "Tokens used, prompt and completion; null when unknown"),
    Property("prompt_tokens", rules.INTEGER, "Tokens in prompts; null when unknown"),
    Property("completion_tokens", rules.INTEGER, "Tokens in completions; null when unknown"),
    Property("test_run_number", rules.INTEGER, "Number of the experiment within its dataset"),
    Property("latency_p50", rules.DOUBLE, "Median latency of a run, seconds"),
    Property("latency_p99", rules.DOUBLE, "99th percentile of a run's latency, seconds"),
    Property("first_token_p50", rules.DOUBLE, "Median time to the first token, seconds"),
    Property("first_token_p99", rules.DOUBLE, "99th percentile of the time to the first token, seconds"),
    Property("error_rate", rules.DOUBLE, "Share of runs that failed, 0 to 1"),
    Property("streaming_rate", rules.DOUBLE, "Share of runs that streamed, 0 to 1"),
    Property(
        "total_cost", rules.COST, "Total cost (can exceed prompt plus completion), US dollars, exact; null when unknown"
    ),
    Property("prompt_cost", rules.COST, "Cost of the prompts, US dollars, exact; null when unknown"),
    Property("completion_cost", rules.COST, "Cost of the completions, US dollars, exact; null when unknown"),
    Property("extra", rules.OBJECT, "Free-form properties, JSON text as sent"),
    Property("feedback_stats", rules.OBJECT, "Feedback on runs by key, JSON text as sent"),
    Property("session_feedback_stats", rules.OBJECT, "Feedback on the session by key, JSON text as sent"),
    Property("run_facets", rules.OBJECTS, "Facets of the runs, JSON text as sent"),
    Property("experiment_progress", rules.PROGRESS, "How far the experiment has come, JSON text as sent"),
)
