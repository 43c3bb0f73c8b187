"""Which sessions had runs lately, whatever day they started."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.coverage import identity
from sessions_pipeline.langsmith.pages import pages
from sessions_pipeline.langsmith.query import SessionSortableColumns, SessionsQuery
from sessions_pipeline.validation.timestamps import parse_timestamp


class Activity(NamedTuple):
    """A session, when it started (microseconds since the epoch, None if unknown) and when its latest run did."""

    session: str
    start_us: int | None
    latest_run: datetime


def active_since(
    client: SessionsClient, query: SessionsQuery, *, workspace: str | None, since: datetime
) -> Iterator[Activity]:
    """Sessions whose latest run started at `since` or later, latest first.

    New runs move a session to the front while this pages, which repeats others but skips none; a deletion may hide one
    behind a page's end, so look again later with an overlap.

    Raises:
        ApiError: a page could not be read.
        PagingError: the list does not end.
    """
    query = query.model_copy(
        update={"sort_by": SessionSortableColumns.last_run_start_time, "sort_by_desc": True, "include_stats": True}
    )
    for records in pages(client, query, workspace=workspace):
        found_old = False
        for record in records:
            latest = _latest_run(record.payload)
            if latest is None:
                continue
            if latest < since:
                found_old = True
            else:
                yield Activity(identity(record), record.start_us, latest)
        if found_old:
            return


def _latest_run(payload: str) -> datetime | None:
    try:
        values: Any = json.loads(payload)
        times = [values.get("last_run_start_time"), values.get("last_run_start_time_live")]
        return max((parse_timestamp(time) for time in times if isinstance(time, str)), default=None)
    except (ValueError, AttributeError, RecursionError):
        return None
