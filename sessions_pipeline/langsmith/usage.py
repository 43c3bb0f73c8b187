"""What active sessions had used from some moment on, read three times so that a day can be cut out.

A session's totals count from its beginning and only grow; `stats_start_time` leaves out what was before. The reading
from the day's start minus the reading from its end is the day, if nothing arrived in between: the end is read again to
see whether something did.
"""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sessions_pipeline.days import midnight
from sessions_pipeline.langsmith.activity import active_since
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.lists import session_pages
from sessions_pipeline.langsmith.page import identity
from sessions_pipeline.langsmith.query import IDS_PER_REQUEST, SessionsQuery, is_uuid
from sessions_pipeline.validation.records import Record

# `stats_start_time` reaches this far back (source: the API's documentation of the parameter).
REACH = timedelta(days=31)
STATS = ("run_count", "total_tokens", "prompt_cost", "completion_cost", "total_cost")


class UsageReadings(NamedTuple):
    """Records of the same sessions, with stats from the day's end on, from its start on, and from its end again."""

    end: tuple[Record, ...]
    start: tuple[Record, ...]
    end_again: tuple[Record, ...]


def is_within_reach(day: date, now: datetime) -> bool:
    """Whether the API still tells what was used on the day."""
    return now - midnight(day) <= REACH


def read_usage(
    client: SessionsClient, query: SessionsQuery, *, workspace: str | None, day: date
) -> Iterator[UsageReadings]:
    """Readings of all sessions with runs since the day began, some at a time; every session is in one of them.

    Raises:
        ApiError: a request failed for good.
    """
    active = {activity.session for activity in active_since(client, query, workspace=workspace, since=midnight(day))}
    ids = sorted(filter(is_uuid, active))
    for first in range(0, len(ids), IDS_PER_REQUEST):
        some = ids[first : first + IDS_PER_REQUEST]
        moments = midnight(day + timedelta(days=1)), midnight(day), midnight(day + timedelta(days=1))
        yield UsageReadings(*(_stats_since(client, query, workspace, some, moment) for moment in moments))


def _stats_since(
    client: SessionsClient, query: SessionsQuery, workspace: str | None, ids: Sequence[str], moment: datetime
) -> tuple[Record, ...]:
    values = {"id": tuple(map(UUID, ids)), "include_stats": True, "stats_start_time": moment, "stats_select": STATS}
    pages = session_pages(client, query.model_copy(update=values), workspace=workspace)
    found: dict[str, Record] = {}
    for records in pages:
        found |= {name: record for record in records if (name := identity(record)) in ids}
        if len(found) == len(ids):
            break
    return tuple(found.values())
