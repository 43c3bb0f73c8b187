"""Every table of the lake: its columns' names, types and descriptions, written once.

The Parquet files, Dagster's column schemas and the data dictionary all follow from here.
"""

from dataclasses import dataclass, field

import pyarrow as pa

from sessions_pipeline.validation.types import MONEY, TIMESTAMP

_REPETITIVE = frozenset(
    [
        "tenant_id",
        "default_dataset_id",
        "reference_dataset_id",
        "trace_tier",
        "scope",
        "feedback_key",
        "reasons",
        "scores",
    ]
)
_LONG_TEXT = frozenset(
    [
        "payload",
        "description",
        "extra",
        "feedback_stats",
        "session_feedback_stats",
        "run_facets",
        "experiment_progress",
        "unknown_fields",
        "values",
        "reasons",
    ]
)


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, Arrow type, what it means, and whether it may be null.

    `repeats`: its values come again and again; `long_text`: nobody filters it by range.
    """

    name: str
    type: pa.DataType
    description: str
    nullable: bool = True
    repeats: bool = False
    long_text: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "repeats", self.name in _REPETITIVE)
        object.__setattr__(self, "long_text", self.name in _LONG_TEXT)


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the lake.

    `partition` is the name of the folder level that holds its days (None: a single file); `order` is the order of
    the rows in a file.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    order: tuple[str, ...]
    partition: str | None = "start_date"
    schema: pa.Schema = field(init=False)

    def __post_init__(self) -> None:
        fields = [
            pa.field(column.name, column.type, column.nullable, {"description": column.description})
            for column in self.columns
        ]
        object.__setattr__(self, "schema", pa.schema(fields))


def _text(name: str, description: str) -> Column:
    return Column(name, pa.string(), description)


def _count(name: str, description: str) -> Column:
    return Column(name, pa.int64(), description)


def _number(name: str, description: str) -> Column:
    return Column(name, pa.float64(), description)


def _money(name: str, description: str) -> Column:
    return Column(name, MONEY, f"{description}, US dollars, exact; null when unknown")


def _time(name: str, description: str) -> Column:
    return Column(name, TIMESTAMP, description)


def _sure(column: Column) -> Column:
    return Column(column.name, column.type, column.description, nullable=False)


_TENANT = _sure(_text("tenant_id", "The workspace that the session belongs to, canonical UUID"))
_SESSION = _sure(_text("id", "The session, canonical UUID"))
_FETCHED_AT = _sure(_time("fetched_at", "The latest reading that contained the session"))
_DATASET = _text("reference_dataset_id", "The dataset that the experiment ran against; null for a tracing project")
_RUN_COUNT = _count("run_count", "Traces recorded; null when unknown")
_TOTAL_TOKENS = _count("total_tokens", "Tokens used, prompt and completion; null when unknown")
_COSTS = (
    _money("prompt_cost", "Cost of the prompts"),
    _money("completion_cost", "Cost of the completions"),
    _money("total_cost", "Total cost, which may exceed prompt and completion together"),
)

RAW_SESSIONS = Table(
    "raw_sessions",
    "What the API said, before any judgement: one row per session and differing reading.",
    (
        _text("session_id", "The record's `id` as sent, if it has one that is text"),
        _text("tenant_id", "The record's `tenant_id` as sent, if it has one that is text"),
        _text("start_time", "The record's `start_time` as sent, if it has one that is text"),
        _sure(_text("payload", "The record's JSON text, verbatim: spacing, escapes and number spellings as sent")),
        _sure(_time("fetched_at", "The reading that first gave this payload")),
    ),
    order=("session_id", "fetched_at", "payload"),
)

SESSIONS = Table(
    "sessions",
    "One row per valid session, with exact costs and the time that its numbers come from.",
    (
        _SESSION,
        _TENANT,
        _text("default_dataset_id", "The dataset that new examples go to, canonical UUID"),
        _DATASET,
        _text("name", "The project's or experiment's name"),
        _text("description", "Its description"),
        _text("trace_tier", "Retention of its traces: longlived (400 days) or shortlived (14 days)"),
        _time("start_time", "When the session started; its UTC day is the partition"),
        _time("end_time", "When it ended, if it did"),
        _time("last_run_start_time", "When its latest run started"),
        _time("last_run_start_time_live", "The same, without the API's caching"),
        _RUN_COUNT,
        _TOTAL_TOKENS,
        _count("prompt_tokens", "Tokens in prompts"),
        _count("completion_tokens", "Tokens in completions"),
        _count("test_run_number", "Number of the experiment within its dataset"),
        _number("latency_p50", "Median latency of a run, seconds"),
        _number("latency_p99", "99th percentile of a run's latency, seconds"),
        _number("first_token_p50", "Median time to the first token, seconds"),
        _number("first_token_p99", "99th percentile of the time to the first token, seconds"),
        _number("error_rate", "Share of runs that failed, 0 to 1"),
        _number("streaming_rate", "Share of runs that streamed, 0 to 1"),
        _money("total_cost", "Total cost, which may exceed prompt and completion together"),
        _money("prompt_cost", "Cost of the prompts"),
        _money("completion_cost", "Cost of the completions"),
        _text("extra", "Free-form properties, JSON text as sent"),
        _text("feedback_stats", "Feedback on runs by key, JSON text as sent"),
        _text("session_feedback_stats", "Feedback on the session by key, JSON text as sent"),
        _text("run_facets", "Facets of the runs, JSON text as sent"),
        _text("experiment_progress", "How far the experiment has come, JSON text as sent"),
        _text("unknown_fields", "Properties that the schema does not name, JSON text; null when there are none"),
        _FETCHED_AT,
        _time(
            "stats_as_of",
            "The reading that counts, tokens, costs, latencies, rates and feedback come from; older than `fetched_at` "
            "when retention has emptied them since",
        ),
        _time("missing_since", "The first reading of its day that no longer contained it; null while the API has it"),
    ),
    order=("start_time", "id"),
)

REJECTED_SESSIONS = Table(
    "rejected_sessions",
    "Records that failed validation, with every reason and the payload as sent. Nothing is lost.",
    (
        _text("session_id", "The record's `id` as sent, if it has one that is text"),
        _text("tenant_id", "The record's `tenant_id` as sent, if it has one that is text"),
        _text("start_time", "The record's `start_time` as sent, if it has one that is text"),
        _sure(Column("reasons", pa.list_(pa.string()), "Every reason, as `field: what is wrong`")),
        _sure(_text("payload", "The record's JSON text, verbatim")),
        _sure(_time("fetched_at", "The latest reading that contained the record")),
    ),
    order=("session_id", "payload"),
)

SESSION_FEEDBACK = Table(
    "session_feedback",
    "One row per session, scope and feedback key.",
    (
        _sure(_text("session_id", "The session, canonical UUID")),
        _TENANT,
        _DATASET,
        _sure(_text("scope", "`run`: feedback on its runs; `session`: feedback on the session itself")),
        _sure(_text("feedback_key", "The feedback's name, such as `correctness`")),
        _count("count", "How many feedbacks"),
        _number("average", "Their average score"),
        _number("standard_deviation", "Their standard deviation"),
        _count("errors", "How many evaluations failed"),
        _text("values", "Counts by value for categorical feedback, JSON text as sent; may hold private data"),
    ),
    order=("session_id", "scope", "feedback_key"),
)

EXPERIMENT_SUMMARY = Table(
    "experiment_summary",
    "One row per experiment: what it cost, how fast it was and how it scored.",
    (
        _SESSION,
        _TENANT,
        _sure(_text("reference_dataset_id", "The dataset that the experiment ran against, canonical UUID")),
        _text("name", "The experiment's name"),
        _time("start_time", "When it started"),
        _number("duration_seconds", "From start to end, or to its latest run's start; null when neither is known"),
        _RUN_COUNT,
        _TOTAL_TOKENS,
        _money("total_cost", "Total cost"),
        _money("cost_per_run", "Total cost divided by runs, rounded half-even to 18 digits"),
        _number("latency_p50", "Median latency of a run, seconds"),
        _number("latency_p99", "99th percentile of a run's latency, seconds"),
        _number("error_rate", "Share of runs that failed, 0 to 1"),
        _number("run_progress", "Share of the expected runs that are done, 0 to 1"),
        Column(
            "scores",
            pa.list_(
                pa.struct(
                    [
                        pa.field("feedback_key", pa.string()),
                        pa.field("scope", pa.string()),
                        pa.field("average", pa.float64()),
                        pa.field("count", pa.int64()),
                    ]
                )
            ),
            "Its feedback with an average, by key and scope",
        ),
    ),
    order=("start_time", "id"),
)

_DAILY_MEASURES = (
    _sure(_count("session_count", "Experiments that started in the period")),
    _sure(_count("priced_session_count", "Those with a `total_cost`")),
    _sure(_count("unpriced_session_count", "Those without one: their cost is unknown, not zero")),
    _sure(
        _count(
            "zero_cost_with_tokens_count",
            "Those that cost 0 although tokens were used: usually a model without a price",
        )
    ),
    _RUN_COUNT,
    _count("prompt_tokens", "Tokens in prompts"),
    _count("completion_tokens", "Tokens in completions"),
    _TOTAL_TOKENS,
    *_COSTS,
)
_SURE_DATASET = _sure(_text("reference_dataset_id", "The dataset that the experiments ran against, canonical UUID"))

DAILY_COST_BY_REFERENCE_DATASET = Table(
    "daily_cost_by_reference_dataset",
    "What each reference dataset's experiments cost, by the UTC day they started: exact sums of what is known.",
    (_TENANT, _SURE_DATASET, *_DAILY_MEASURES),
    order=("tenant_id", "reference_dataset_id"),
)

_COVERAGE = (
    _sure(_count("day_count", "Days of the period that were read")),
    _sure(Column("is_complete", pa.bool_(), "Whether every day of the period was read")),
)

WEEKLY_COST_BY_REFERENCE_DATASET = Table(
    "weekly_cost_by_reference_dataset",
    "The daily costs summed by ISO week; a week with an unread day says so.",
    (
        _sure(Column("week_start", pa.date32(), "The Monday that the ISO week starts on")),
        _TENANT,
        _SURE_DATASET,
        *_DAILY_MEASURES,
        *_COVERAGE,
    ),
    order=("week_start", "tenant_id", "reference_dataset_id"),
    partition=None,
)

MONTHLY_COST_BY_REFERENCE_DATASET = Table(
    "monthly_cost_by_reference_dataset",
    "The daily costs summed by calendar month; a month with an unread day says so.",
    (
        _sure(Column("month_start", pa.date32(), "The first day of the month")),
        _TENANT,
        _SURE_DATASET,
        *_DAILY_MEASURES,
        *_COVERAGE,
    ),
    order=("month_start", "tenant_id", "reference_dataset_id"),
    partition=None,
)

DAILY_COST_BY_PROJECT = Table(
    "daily_cost_by_project",
    "What each session, tracing projects included, used on a UTC day, however long ago it started.",
    (
        _SESSION,
        _TENANT,
        _text("name", "The project's or experiment's name"),
        _DATASET,
        _count("run_count", "Runs of the day"),
        _count("total_tokens", "Tokens used on the day"),
        *_COSTS,
        _sure(
            Column(
                "is_exact", pa.bool_(), "False when the readings moved while they were taken, or the day is not over"
            )
        ),
        _sure(_time("read_at", "When the readings were taken")),
    ),
    order=("tenant_id", "id"),
    partition="usage_date",
)

TABLES = (
    RAW_SESSIONS,
    SESSIONS,
    REJECTED_SESSIONS,
    SESSION_FEEDBACK,
    EXPERIMENT_SUMMARY,
    DAILY_COST_BY_REFERENCE_DATASET,
    WEEKLY_COST_BY_REFERENCE_DATASET,
    MONTHLY_COST_BY_REFERENCE_DATASET,
    DAILY_COST_BY_PROJECT,
)
