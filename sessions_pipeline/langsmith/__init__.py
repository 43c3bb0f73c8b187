"""Reads the LangSmith API: requests, retries, redaction, and the proof that pages hold whole days.

This file defines the query parameters of `GET /api/v1/sessions` as one typed and validated object. Source of the rules:
`sessions.openapi.yaml`, operation `read_tracer_sessions_api_v1_sessions_get`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, ValidationError

from sessions_pipeline.errors import SettingError
from sessions_pipeline.settings import LONGEST_TEXT, first_problem

# 50 UUIDs make a URL of 2,300 characters; servers refuse URLs of 8,000 and more.
IDS_PER_REQUEST = 50

Uuids = tuple[UUID, ...]
Parameters = list[tuple[str, str]]


def batches(ids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Split ids into batches of `IDS_PER_REQUEST`, as many as one request may name."""
    return (tuple(ids[first : first + IDS_PER_REQUEST]) for first in range(0, len(ids), IDS_PER_REQUEST))


SortableColumn = Literal[
    "name", "start_time", "last_run_start_time", "latency_p50", "latency_p99", "error_rate", "feedback", "runs_count"
]
FeedbackSource = Literal["session", "run"]


class SessionsQuery(BaseModel, frozen=True, extra="forbid", hide_input_in_errors=True, str_max_length=LONGEST_TEXT):
    """All query parameters of the schema, under their own names; those that are None are not sent."""

    reference_free: Annotated[bool | None, Field(description="Only sessions without a reference dataset")] = None
    reference_dataset: Annotated[Uuids | None, Field(min_length=1, description="Experiments on these datasets")] = None
    id: Annotated[Uuids | None, Field(min_length=1, description="Only these sessions")] = None
    name: Annotated[str | None, Field(description="Only the session of exactly this name")] = None
    name_contains: Annotated[str | None, Field(description="Only sessions whose name contains this")] = None
    dataset_version: Annotated[str | None, Field(description="Only experiments on this dataset version")] = None
    sort_by: Annotated[SortableColumn, Field(description="What to sort by")] = "start_time"
    sort_by_desc: Annotated[bool, Field(description="Largest or newest first")] = True
    metadata: Annotated[str | None, Field(description="Only sessions with this metadata, a JSON object")] = None
    sort_by_feedback_key: Annotated[str | None, Field(description="Feedback key to sort by")] = None
    sort_by_feedback_source: Annotated[FeedbackSource | None, Field(description="Feedback source to sort by")] = None
    offset: Annotated[int, Field(ge=0, description="How many sessions to skip")] = 0
    limit: Annotated[int, Field(ge=1, le=100, description="Largest number of sessions to return")] = 100
    tag_value_id: Annotated[Uuids | None, Field(min_length=1, description="Only sessions with these tag values")] = None
    facets: Annotated[bool, Field(description="Compute facets of the runs")] = False
    filter: Annotated[str | None, Field(description='Filter expression, such as eq(name, "nightly")')] = None
    include_stats: Annotated[bool, Field(description="Compute counts, tokens, costs, latencies and feedback")] = False
    use_approx_stats: Annotated[bool, Field(description="Accept stats up to an hour old")] = False
    stats_start_time: Annotated[
        datetime | None, Field(description="Count only runs from this time on, 31 days back at most")
    ] = None
    stats_select: Annotated[tuple[str, ...] | None, Field(min_length=1, description="Compute only these stats")] = None
    stats_filter: Annotated[str | None, Field(description="Count only runs that match this filter")] = None

    def to_parameters(self) -> Parameters:
        """The name and value pairs to send. An array becomes several pairs of the same name.

        Sorting and paging are always sent, other parameters only if they differ from the schema's default.
        """
        sent = self.model_dump(mode="json", exclude_none=True)
        arrays = {name: value if isinstance(value, list) else [value] for name, value in sent.items()}
        return [
            (name, str(value).lower() if isinstance(value, bool) else str(value))
            for name, values in arrays.items()
            if name in ALWAYS_SENT or values != [type(self).model_fields[name].default]
            for value in values
        ]


ALWAYS_SENT = {"sort_by", "sort_by_desc", "offset", "limit"}
# The pipeline itself sets paging, sorting and stats.
FIXED = "sort_by sort_by_desc sort_by_feedback_key sort_by_feedback_source offset limit include_stats stats_start_time"
NARROWING = frozenset(SessionsQuery.model_fields) - frozenset(FIXED.split())


def parse_narrowing(values: Mapping[str, Any]) -> SessionsQuery:
    """The query in `SESSIONS_PIPELINE_QUERY`, which may only hold parameters that narrow or shape what is read.

    Raises:
        SettingError: a parameter is unknown, set by the pipeline itself (paging, sorting, stats) or of a wrong type.
    """
    if unknown := sorted(set(values) - NARROWING):
        allowed = ", ".join(sorted(NARROWING))
        raise SettingError("SESSIONS_PIPELINE_QUERY", f"{unknown[0]} can't be set here; allowed are {allowed}")
    try:
        # Strict mode refuses "yes" for true and "1" for 1.
        return SessionsQuery.model_validate_json(json.dumps(dict(values)), strict=True)
    except ValidationError as error:
        raise SettingError("SESSIONS_PIPELINE_QUERY", ": ".join(filter(None, first_problem(error)))) from None
