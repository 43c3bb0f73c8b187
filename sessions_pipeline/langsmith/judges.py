"""What the project that evaluators trace to has spent: in all, since a time, or on the experiment of one name.

The SDK gives each judge's run the experiment's name as metadata, and `stats_filter` counts only runs that match. The
official client documents it for version 2, for version 1 the same is likely; neither was tried on the real API. So a
name that nobody has is asked for first.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, TypeAlias
from uuid import uuid4

from sessions_pipeline.errors import RefusedError
from sessions_pipeline.langsmith.activity import STATS
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.query import SessionsQuery
from sessions_pipeline.validation.validate import validate

Spent: TypeAlias = Mapping[str, Any]
"""The judge project's `tenant_id` and `STATS`, as `sessions` has them."""
_LABELS = ("name", "tenant_id", "reference_dataset_id")


def read_judges(
    client: SessionsClient,
    project: str,
    *,
    workspace: str | None,
    experiment: str | None = None,
    since: datetime | None = None,
) -> Spent | None:
    """What was spent in the project by all judges, or by those of the experiments of a name; None: no such project.

    Raises:
        ApiError: no usable answer.
    """
    only = None if experiment is None else runs_of(experiment)
    query = SessionsQuery(
        name=project, include_stats=True, stats_select=STATS, stats_filter=only, stats_start_time=since
    )
    records = client.fetch(query, workspace=workspace).records
    rows = validate([record.payload for record in records]).sessions.select([*_LABELS, *STATS]).to_pylist()
    return next((row for row in rows if row["name"] == project and row["reference_dataset_id"] is None), None)


def runs_of(experiment: str) -> str:
    """The filter for runs that say that they judge the experiment of this name."""
    quoted = experiment.replace("\\", "\\\\").replace('"', '\\"')
    return f'and(eq(metadata_key, "experiment"), eq(metadata_value, "{quoted}"))'


def can_be_asked_for(name: str | None) -> bool:
    """Whether a filter may hold the name: one that is unknown or empty, or has control characters, it may not."""
    return bool(name) and not any(unicodedata.category(letter) == "Cc" for letter in name or "")


def honours_filter(client: SessionsClient, project: str, *, workspace: str | None) -> bool:
    """Whether the API finds no run at all for a name that nobody has.

    Raises:
        ApiError: no usable answer.
    """
    found = read_judges(client, project, workspace=workspace, experiment=uuid4().hex)
    return found is not None and found["run_count"] == 0


def each_judged(
    client: SessionsClient, project: str, names: Sequence[str], *, workspace: str | None, in_flight: int
) -> Iterator[Spent | None]:
    """What was spent on each of the experiments, in their order; None where the API refused the name.

    Raises:
        ApiError: no usable answer; those before it have come.
    """

    def read(name: str) -> Spent | None:
        try:
            return read_judges(client, project, workspace=workspace, experiment=name)
        except RefusedError:
            return None

    with ThreadPoolExecutor(in_flight, thread_name_prefix="judges") as executor:
        yield from executor.map(read, names)
