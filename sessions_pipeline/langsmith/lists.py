"""Whole lists, page after page, where no proof is needed that they held still: what there is, and what was used lately.

A session's totals count from its beginning and only grow; `stats_start_time` leaves out what was before. The reading
from the day's start minus the reading from its end is the day, if nothing arrived in between: the end is read again to
see whether something did.

Evaluators are traced to a project of their own. The SDK gives each of their runs the experiment's name as metadata, and
`stats_filter` counts only runs that match: documented by the official client for version 2, likely for version 1, and
tried on the real API with neither.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple
from uuid import UUID

from sessions_pipeline.days import midnight
from sessions_pipeline.errors import PagingError, RefusedError, UsageError
from sessions_pipeline.langsmith.api_versions import DATASETS, Endpoint
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.page import Page, identity, latest_run, run_count
from sessions_pipeline.langsmith.query import SessionsQuery, batches, is_uuid
from sessions_pipeline.tables.column import MEASURES
from sessions_pipeline.validation.records import Record
from sessions_pipeline.validation.validate import validate

# 100,000 datasets, or sessions with runs since the last look: more than any workspace has, so the list has no end.
MOST_LIST_PAGES = 1000
# Readings that a list of datasets which keeps changing is given.
MOST_LISTINGS = 5
# The cheapest of the stats, for the times of the latest runs. That these come with it is not documented.
CHEAPEST_STATS = ("run_count",)
# `stats_start_time` reaches this far back (source: the API's documentation of the parameter).
REACH = timedelta(days=31)


def list_pages(
    client: SessionsClient,
    query: SessionsQuery,
    *,
    workspace: str | None,
    cursor: str | None = None,
    endpoint: Endpoint | None = None,
) -> Iterator[tuple[int, Page]]:
    """The pages of the query's list, in its order, each with its offset, from the query's offset on, or from a cursor.

    Where there are no cursors, the last page is an empty one, or one with which `X-Pagination-Total` adds up.

    Raises:
        ApiError: a page could not be read.
        PagingError: the list does not end.
    """
    before: Sequence[Record] = ()
    offset = query.offset
    for _ in range(MOST_LIST_PAGES):
        asked = query.model_copy(update={"offset": offset})
        page = client.fetch(asked, workspace=workspace, cursor=cursor, endpoint=endpoint)
        if page.records and page.records == before:
            raise PagingError("The API gives the same page of its list again and again; nothing was replaced")
        before = page.records
        yield offset, page
        offset, cursor = offset + len(page.records), page.next_cursor
        if cursor == "" or (cursor is None and (not page.records or page.total == offset)):
            return
    raise PagingError(f"The API's list did not end after {MOST_LIST_PAGES} pages; nothing was replaced")


def read_datasets(client: SessionsClient, *, workspace: str | None, ids: Sequence[str] | None = None) -> list[Record]:
    """All datasets of a workspace, from `GET /api/v1/datasets`, to the list's proven end; or those of some ids.

    Raises:
        ApiError: a page could not be read; 403 or 404 where the API does not let this key read datasets.
        PagingError: the list kept changing, or does not end; what is missing from it can't be told then.
    """
    if ids is not None:
        queries = [SessionsQuery(id=tuple(map(UUID, some))) for some in batches(ids)]
        pages = [client.fetch(query, workspace=workspace, endpoint=DATASETS) for query in queries]
        return [record for page in pages for record in page.records]
    before: dict[str, Record] = {}
    for _ in range(MOST_LISTINGS):
        pages = [page for _, page in list_pages(client, SessionsQuery(), workspace=workspace, endpoint=DATASETS)]
        found = {identity(record): record for page in pages for record in page.records}
        # A change between two answers may hide a dataset from both, but hardly the same one from two readings.
        if len(pages) == 1 or found.keys() == before.keys():
            return list(found.values())
        before = found
    raise PagingError(f"The list of datasets kept changing during {MOST_LISTINGS} readings; nothing was replaced")


class Activity(NamedTuple):
    """A session, when it started (microseconds since the epoch, None if unknown) and when its latest run did."""

    session: str
    start_us: int | None
    latest_run: datetime


class Place(NamedTuple):
    """How far a listing of activity has come.

    `offset` is that of the last session listed, `reached` its latest run; `cursor` leads on in version 2. `all_stats`:
    the cheapest bring no times.
    """

    offset: int = 0
    reached: datetime | None = None
    cursor: str | None = None
    all_stats: bool = False


NEWEST = Place()


def active_since(
    client: SessionsClient, query: SessionsQuery, *, workspace: str | None, since: datetime, place: Place = NEWEST
) -> Iterator[tuple[list[Activity], Place]]:
    """Sessions whose latest run started at `since` or later, latest first, page by page, from a place on.

    With each page comes the place from which another listing, also a later one, goes on. A session that new runs move
    to the front while this pages is not in it, nor is one that a deletion hides behind a page's end; so look again
    later with an overlap.

    Raises:
        DeadlineExceededError: the client's time is over.
        ApiError: a page could not be read.
        PagingError: the list does not end.
    """
    pages, place = _pages_from(client, query, workspace, place)
    for offset, page in pages:
        found = _activity(page)
        at = found[-1].latest_run if found else place.reached
        place = Place(max(0, offset + len(page.records) - 1), at, page.next_cursor, place.all_stats)
        yield [active for active in found if active.latest_run >= since], place
        if at is not None and at < since:
            return


def _pages_from(
    client: SessionsClient, query: SessionsQuery, workspace: str | None, place: Place
) -> tuple[Iterator[tuple[int, Page]], Place]:
    """The list's pages, each with its offset, from one on that holds what stood at the place, or something before."""
    order = {"sort_by": "last_run_start_time", "sort_by_desc": True, "include_stats": True}
    back = 0
    while True:
        offset = max(0, place.offset - back)
        stats = {} if place.all_stats else {"stats_select": CHEAPEST_STATS}
        asked = query.model_copy(update={**order, **stats, "offset": offset})
        pages = list_pages(client, asked, workspace=workspace, cursor=place.cursor)
        try:
            first = next(pages)
        except (RefusedError, UsageError):
            # A cursor may have grown old, and another version of the API knows no offset.
            if not place.offset and not place.cursor:
                raise
            place = NEWEST
            continue
        found = _activity(first[1])
        if offset == 0 and first[1].records and not found and not place.all_stats:
            client.warn(f"The API gives no times of runs with stats_select={CHEAPEST_STATS[0]}; all stats are read")
            place = Place(all_stats=True)
        elif offset and not place.cursor and place.reached and all(one.latest_run < place.reached for one in found):
            # Deletions have moved up what stood there.
            back = 4 * back + 80
        else:
            return chain([first], pages), place


def _activity(page: Page) -> list[Activity]:
    timed = ((record, latest_run(record)) for record in page.records)
    return [Activity(identity(record), record.start_us, at) for record, at in timed if at is not None]


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
        ApiError: a request failed for good, or the API takes no notice of `stats_start_time`.
    """

    def stats_since(at: datetime, ids: Sequence[str]) -> tuple[Record, ...]:
        values = {"id": tuple(map(UUID, ids)), "include_stats": True, "stats_start_time": at, "stats_select": MEASURES}
        found: dict[str, Record] = {}
        for _, page in list_pages(client, query.model_copy(update=values), workspace=workspace):
            found |= {name: record for record in page.records if (name := identity(record)) in ids}
            if len(found) == len(ids):
                break
        return tuple(found.values())

    start, end = midnight(day), midnight(day + timedelta(days=1))
    # A new run moves a session past the pages to come, a deletion hides one: hardly the same one in two listings.
    listed = chain.from_iterable(active_since(client, query, workspace=workspace, since=start) for _ in range(2))
    latest = {active.session: active.latest_run for found, _ in listed for active in found}
    ended = {session for session, at in latest.items() if at < end}
    for some in batches(sorted(filter(is_uuid, latest))):
        readings = UsageReadings(*(stats_since(moment, some) for moment in (end, start, end)))
        _check_that_stats_begin(readings, ended)
        yield readings


def _check_that_stats_begin(readings: UsageReadings, ended: Container[str]) -> None:
    """Refuse readings in which sessions that ended on the day have as many runs after it as since it began.

    All of them: one may have had another run meanwhile. Else every session would have used nothing.
    """
    after, since = ({identity(one): run_count(one) for one in reading} for reading in readings[:2])
    are_equal = [since.get(name) == count for name, count in after.items() if name in ended and count]
    if are_equal and all(are_equal):
        raise RefusedError("The API ignores stats_start_time, so what was used on a day can't be told")


def read_judges(
    client: SessionsClient,
    project: str,
    *,
    workspace: str | None,
    experiment: str | None = None,
    since: datetime | None = None,
) -> Mapping[str, Any] | None:
    """`MEASURES` and `tenant_id` of the project that evaluators trace to, typed as in `sessions`; None: there is none.

    Of all its runs, of those since a time, or of those that judged the experiments of a name.

    Raises:
        ApiError: no usable answer.
    """
    values = {"name": project, "include_stats": True, "stats_select": MEASURES, "stats_start_time": since}
    if experiment is not None:
        values["stats_filter"] = runs_that_judge(experiment)
    records = client.fetch(SessionsQuery().model_copy(update=values), workspace=workspace).records
    columns = ["name", "reference_dataset_id", "tenant_id", *MEASURES]
    found = validate([record.payload for record in records]).sessions.select(columns).to_pylist()
    return next((row for row in found if row["name"] == project and row["reference_dataset_id"] is None), None)


def runs_that_judge(experiment: str) -> str:
    """The filter for runs whose metadata names this experiment."""
    quoted = experiment.replace("\\", "\\\\").replace('"', '\\"')
    return f'and(eq(metadata_key, "experiment"), eq(metadata_value, "{quoted}"))'
