"""Which sessions had runs lately, whatever day they started."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.coverage import identity
from sessions_pipeline.langsmith.pages import pages
from sessions_pipeline.langsmith.query import SessionSortableColumns, SessionsQuery
from sessions_pipeline.validation.records import Record
from sessions_pipeline.validation.types import parse_timestamp

# The cheapest of the stats, for the times of the latest runs. That these come with it is not documented.
CHEAPEST_STATS = ("run_count",)


class Activity(NamedTuple):
    """A session, when it started (microseconds since the epoch, None if unknown) and when its latest run did."""

    session: str
    start_us: int | None
    latest_run: datetime


def active_since(
    client: SessionsClient,
    query: SessionsQuery,
    *,
    workspace: str | None,
    since: datetime,
    deadline: float | None = None,
) -> Iterator[Activity]:
    """Sessions whose latest run started at `since` or later, latest first.

    New runs move a session to the front while this pages, which repeats others but skips none; a deletion may hide one
    behind a page's end, so look again later with an overlap. After `deadline` seconds, for this and whatever else the
    client is asked, the error comes behind the sessions found so far: the newest ones, those before them not looked at.

    Raises:
        DeadlineExceededError: the time is over, or will be before the API answers again.
        ApiError: a page could not be read.
        PagingError: the list does not end.
    """
    if deadline is not None:
        client.end_within(deadline)
    query = query.model_copy(
        update={"sort_by": SessionSortableColumns.last_run_start_time, "sort_by_desc": True, "include_stats": True}
    )
    for records, latest_runs in _pages_with_times(client, query, workspace):
        active = [(record, at) for record, at in zip(records, latest_runs, strict=True) if at and at >= since]
        yield from (Activity(identity(record), record.start_us, at) for record, at in active)
        if any(at is not None and at < since for at in latest_runs):
            return


def _pages_with_times(
    client: SessionsClient, query: SessionsQuery, workspace: str | None
) -> Iterator[tuple[list[Record], list[datetime | None]]]:
    """Pages and their records' latest runs, with the cheapest stats, or with all where those bring no times."""
    for records in pages(client, query.model_copy(update={"stats_select": CHEAPEST_STATS}), workspace=workspace):
        latest_runs = [_latest_run(record.payload) for record in records]
        if records and not any(latest_runs):
            break
        yield records, latest_runs
    else:
        return
    client.warn(f"The API gives no times of runs with stats_select={CHEAPEST_STATS[0]}, so all stats are asked for")
    for records in pages(client, query, workspace=workspace):
        yield records, [_latest_run(record.payload) for record in records]


def _latest_run(payload: str) -> datetime | None:
    try:
        values: Any = json.loads(payload, parse_int=str)  # Python refuses to read one of 5,000 digits
        times = [values.get("last_run_start_time"), values.get("last_run_start_time_live")]
        return max((parse_timestamp(time) for time in times if isinstance(time, str)), default=None)
    except (ValueError, AttributeError, RecursionError):
        return None
