"""What active sessions had used from some moment on, read three times so that a day can be cut out.

A session's totals count from its beginning and only grow; `stats_start_time` leaves out what was before. The reading
from the day's start minus the reading from its end is the day, if nothing arrived in between: the end is read again to
see whether something did.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from sessions_pipeline.days import midnight
from sessions_pipeline.langsmith.activity import active_since
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.coverage import identity
from sessions_pipeline.langsmith.pages import pages
from sessions_pipeline.langsmith.query import IDS_PER_REQUEST, SessionsQuery, is_uuid
from sessions_pipeline.validation.records import Record

# `stats_start_time` reaches this far back (source: the API's documentation of the parameter).
REACH = timedelta(days=31)
STATS = ("run_count", "total_tokens", "prompt_cost", "completion_cost", "total_cost")


@dataclass(frozen=True, slots=True)
class UsageReadings:
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
    active = active_since(client, query, workspace=workspace, since=midnight(day))
    ids = sorted({active_session.session for active_session in active if is_uuid(active_session.session)})
    for first in range(0, len(ids), IDS_PER_REQUEST):
        some = ids[first : first + IDS_PER_REQUEST]
        end, start, end_again = (
            _stats_since(client, query, workspace, some, moment)
            for moment in (midnight(day + timedelta(days=1)), midnight(day), midnight(day + timedelta(days=1)))
        )
        yield UsageReadings(end, start, end_again)


def _stats_since(
    client: SessionsClient, query: SessionsQuery, workspace: str | None, ids: Sequence[str], moment: datetime
) -> tuple[Record, ...]:
    narrowed = query.model_copy(
        update={
            "id": tuple(UUID(session) for session in ids),
            "include_stats": True,
            "stats_start_time": moment,
            "stats_select": STATS,
            "limit": 100,
        }
    )
    found: dict[str, Record] = {}
    for records in pages(client, narrowed, workspace=workspace):
        found |= {name: record for record in records if (name := identity(record)) in ids}
        if len(found) == len(ids):
            break
    return tuple(found.values())
