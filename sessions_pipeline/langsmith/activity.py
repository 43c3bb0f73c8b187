"""Which sessions had runs lately, whatever day they started."""

import json
from collections.abc import Iterator
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple

from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.lists import session_pages
from sessions_pipeline.langsmith.page import identity
from sessions_pipeline.langsmith.query import SessionSortableColumns, SessionsQuery
from sessions_pipeline.validation.records import Record
from sessions_pipeline.validation.timestamps import parse_timestamp

# The cheapest of the stats, for the times of the latest runs. That these come with it is not documented.
CHEAPEST_STATS = ("run_count",)


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
        DeadlineExceededError: the client's time is over, behind the sessions found so far: the newest ones.
        ApiError: a page could not be read.
        PagingError: the list does not end.
    """
    by_activity = {"sort_by": SessionSortableColumns.last_run_start_time, "sort_by_desc": True, "include_stats": True}
    query = query.model_copy(update=by_activity)
    pages = _pages_with_times(client, query.model_copy(update={"stats_select": CHEAPEST_STATS}), workspace)
    first = next(pages, {})
    if first and not any(first.values()):
        client.warn(f"The API gives no times of runs with stats_select={CHEAPEST_STATS[0]}, so all stats are asked for")
        pages, first = _pages_with_times(client, query, workspace), {}
    for latest_runs in chain([first], pages):
        for record, at in latest_runs.items():
            if at is not None and at >= since:
                yield Activity(identity(record), record.start_us, at)
        if any(at is not None and at < since for at in latest_runs.values()):
            return


def _pages_with_times(
    client: SessionsClient, query: SessionsQuery, workspace: str | None
) -> Iterator[dict[Record, datetime | None]]:
    for records in session_pages(client, query, workspace=workspace):
        yield {record: _latest_run(record) for record in records}


def _latest_run(record: Record) -> datetime | None:
    try:
        values: Any = json.loads(record.payload)
        times = [values.get("last_run_start_time"), values.get("last_run_start_time_live")]
        return max((parse_timestamp(time) for time in times if isinstance(time, str)), default=None)
    except (ValueError, AttributeError, RecursionError):
        return None
