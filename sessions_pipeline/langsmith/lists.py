"""Reads lists that may change while they are read: datasets, recent activity, a day's usage, judges' costs.

A session's totals count from its beginning and only grow; `stats_start_time` leaves out earlier runs. So a day's usage
is the totals since the day's start minus the totals since its end, provided that no runs arrived between the two
readings. The totals since the end are therefore read twice, before and after.

Judges (evaluators) are traced to a project of their own. The SDK adds the experiment's name to the metadata of each of
their runs, and `stats_filter` counts only runs that match. The official client documents this for version 2; it is
likely for version 1. Neither was tried on the real API.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple
from uuid import UUID

import pyarrow as pa

from sessions_pipeline.days import midnight
from sessions_pipeline.errors import PagingError, ParameterError, RefusedError, UsageError
from sessions_pipeline.langsmith import SessionsQuery, batches
from sessions_pipeline.langsmith.api_versions import DATASETS, Endpoint
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.page import Page, identity, last_active
from sessions_pipeline.langsmith.records import Record
from sessions_pipeline.tables.aggregate import tuples
from sessions_pipeline.tables.column import MEASURES
from sessions_pipeline.tables.daily_cost_by_project import NEEDED as USAGE
from sessions_pipeline.validation.rules import IS_UUID
from sessions_pipeline.validation.validate import Validator

# Readings of a list of datasets before giving up, if it keeps changing.
MOST_LISTINGS = 5
# The API's OpenAPI file names both (`RunStatsSelect`). That the list of sessions brings the time is not documented.
CHEAPEST_STATS = ("last_run_start_time", "run_count")
# How far `stats_start_time` may lie in the past (source: the API's documentation of the parameter).
REACH = timedelta(days=31)


def list_pages(
    client: SessionsClient,
    query: SessionsQuery,
    *,
    workspace: str | None,
    cursor: str | None = None,
    endpoint: Endpoint | None = None,
) -> Iterator[tuple[int, Page]]:
    """Yield the pages of the query's list, each with its offset, from the query's offset or from a cursor on.

    In version 1, which has no cursors, the list ends with an empty page, or where `X-Pagination-Total` says it does.

    Raises:
        ApiError: a page could not be read, or the client's deadline has passed.
        PagingError: a page is the same as the one before, so the list does not end.
    """
    previous: Sequence[Record] = ()
    offset = query.offset
    while True:
        asked = query.model_copy(update={"offset": offset})
        page = client.fetch(asked, workspace=workspace, cursor=cursor, endpoint=endpoint)
        if page.records and page.records == previous:
            raise PagingError("The API returned the same page of its list twice in a row; nothing was replaced")
        previous = page.records
        yield offset, page
        offset, cursor = offset + len(page.records), page.next_cursor
        if cursor == "" or (cursor is None and (not page.records or page.total == offset)):
            return


def read_datasets(client: SessionsClient, *, workspace: str | None, ids: Sequence[str] | None = None) -> list[Record]:
    """All datasets of a workspace, from `GET /api/v1/datasets` read to its proven end; or only those with these ids.

    Raises:
        ApiError: a page could not be read; 403 or 404 if the API does not let this key read datasets.
        PagingError: the list kept changing, so nobody can say which datasets are missing from it.
    """
    if ids is not None:
        queries = [SessionsQuery(id=tuple(map(UUID, batch))) for batch in batches(ids)]
        pages = [client.fetch(query, workspace=workspace, endpoint=DATASETS) for query in queries]
        return [record for page in pages for record in page.records]
    previous: dict[str, Record] = {}
    for _ in range(MOST_LISTINGS):
        pages = [page for _, page in list_pages(client, SessionsQuery(), workspace=workspace, endpoint=DATASETS)]
        found = {identity(record): record for page in pages for record in page.records}
        # A change between two pages may hide a dataset from both, but hardly the same one in two readings.
        if len(pages) == 1 or found.keys() == previous.keys():
            return list(found.values())
        previous = found
    raise PagingError(f"The list of datasets kept changing during {MOST_LISTINGS} readings; nothing was replaced")


class Activity(NamedTuple):
    """A session's identity, its start (microseconds since the epoch, None if unknown) and its latest run's start."""

    session: str
    start_us: int | None
    last_active: datetime


class Place(NamedTuple):
    """Where a listing of activity can be continued.

    `offset` is that of the last session listed, `reached` the time of its latest run, and `cursor` the next page's in
    version 2. `all_stats`: all stats must be requested, as the cheapest bring no times of runs.
    """

    offset: int = 0
    reached: datetime | None = None
    cursor: str | None = None
    all_stats: bool = False


NEWEST = Place()  # the beginning of the list


def active_since(
    client: SessionsClient, query: SessionsQuery, *, workspace: str | None, since: datetime, place: Place = NEWEST
) -> Iterator[tuple[list[Activity], Place]]:
    """Yield sessions whose latest run started at `since` or later, latest first, page by page, from `place` on.

    Each page comes with the place from which this or a later listing can continue. A session is missed if a new run
    moves it to the front meanwhile, or a deletion moves it onto a page already read. So list again later, with an
    overlap.

    Raises:
        ApiError: a page could not be read, or the client's deadline has passed.
        PagingError: see `list_pages`.
    """
    pages, place = _pages_from(client, query, workspace, place)
    for offset, page in pages:
        found = _activity(page)
        at = found[-1].last_active if found else place.reached
        place = Place(max(0, offset + len(page.records) - 1), at, page.next_cursor, place.all_stats)
        yield [active for active in found if active.last_active >= since], place
        if at is not None and at < since:
            return


def _pages_from(
    client: SessionsClient, query: SessionsQuery, workspace: str | None, place: Place
) -> tuple[Iterator[tuple[int, Page]], Place]:
    """The list's pages with their offsets, from one on that begins with the place's session, or with a later run."""
    order = {"sort_by": "last_run_start_time", "sort_by_desc": True, "include_stats": True}
    back = 0
    while True:
        offset = max(0, place.offset - back)
        stats = {} if place.all_stats else {"stats_select": CHEAPEST_STATS}
        asked = query.model_copy(update={**order, **stats, "offset": offset})
        pages = list_pages(client, asked, workspace=workspace, cursor=place.cursor)
        try:
            first = next(pages)
        except (RefusedError, UsageError) as error:
            # At the beginning, the API may not know these stats. Later, the cursor has expired, or the version changed.
            all_stats = place == NEWEST and isinstance(error, ParameterError)
            if not (all_stats or place.offset or place.cursor):
                raise
            place = Place(all_stats=all_stats)
            continue
        found = _activity(first[1])
        if offset == 0 and first[1].records and not found and not place.all_stats:
            client.warn(f"The API sends no times of runs with stats_select={CHEAPEST_STATS[0]}; all stats are read")
            place = Place(all_stats=True)
        elif offset and not place.cursor and place.reached and all(one.last_active < place.reached for one in found):
            # Deletions have moved that session further up the list.
            back = 4 * back + 80
        else:
            return chain([first], pages), place


def _activity(page: Page) -> list[Activity]:
    timed = ((record, last_active(record)) for record in page.records)
    return [Activity(identity(record), record.start_us, at) for record, at in timed if at is not None]


def read_usage(
    client: SessionsClient, query: SessionsQuery, *, workspace: str | None, day: date
) -> Iterator[tuple[pa.Table, ...]]:
    """Read the usage of all sessions with runs since the day began, in batches; each session is in one batch.

    A batch is three tables with the columns `USAGE`, typed as in `sessions`: the usage since the day's end, since its
    start, and since its end once more.

    Raises:
        ApiError: a request failed for good, or the API ignores `stats_start_time`.
    """

    def stats_since(at: datetime, ids: Sequence[str]) -> pa.Table:
        values = {"id": tuple(map(UUID, ids)), "include_stats": True, "stats_start_time": at, "stats_select": MEASURES}
        found: dict[str, Record] = {}
        for _, page in list_pages(client, query.model_copy(update=values), workspace=workspace):
            found |= {id_: record for record in page.records if (id_ := identity(record)) in ids}
            if len(found) == len(ids):
                break
        return Validator().sessions([record.payload for record in found.values()]).select(USAGE)

    start, end = midnight(day), midnight(day + timedelta(days=1))
    # A new run or a deletion may hide a session from a listing, but hardly the same one from two.
    listed = chain.from_iterable(active_since(client, query, workspace=workspace, since=start) for _ in range(2))
    latest = {active.session: active.last_active for found, _ in listed for active in found}
    ended = {session for session, at in latest.items() if at < end}
    for batch in batches(sorted(filter(IS_UUID.fullmatch, latest))):
        readings = tuple(stats_since(moment, batch) for moment in (end, start, end))
        _check_stats_start_time(readings, ended)
        yield readings


def _check_stats_start_time(readings: Sequence[pa.Table], ended: Container[str]) -> None:
    """Raise if the API ignores `stats_start_time`: then every session would seem to have used nothing.

    A session whose latest run was on the day has none after it. If such sessions count runs since the day's end all the
    same, and each as many as since its start, it does. One that differs may have had another run meanwhile.
    """
    after, since = (dict(tuples(reading, "id", "run_count")) for reading in readings[:2])
    are_equal = [since.get(id_) == count for id_, count in after.items() if id_ in ended and count]
    if are_equal and all(are_equal):
        raise RefusedError("The API ignores stats_start_time, so what was used on a day can't be measured")


def read_judges(
    client: SessionsClient,
    project: str,
    *,
    workspace: str | None,
    experiment: str | None = None,
    since: datetime | None = None,
) -> Mapping[str, Any] | None:
    """`MEASURES` and `tenant_id` of the project that judges trace to, typed as in `sessions`; None: no such project.

    They count all its runs, only those since a time, or only those that judged experiments of this name.

    Raises:
        ApiError: no usable answer.
    """
    values = {"name": project, "include_stats": True, "stats_select": MEASURES, "stats_start_time": since}
    if experiment is not None:
        values["stats_filter"] = runs_that_judge(experiment)
    records = client.fetch(SessionsQuery().model_copy(update=values), workspace=workspace).records
    columns = ["name", "reference_dataset_id", "tenant_id", *MEASURES]
    found = Validator().sessions([record.payload for record in records]).select(columns).to_pylist()
    return next((row for row in found if row["name"] == project and row["reference_dataset_id"] is None), None)


def runs_that_judge(experiment: str) -> str:
    """The `stats_filter` for runs whose metadata names this experiment."""
    quoted = experiment.replace("\\", "\\\\").replace('"', '\\"')
    return f'and(eq(metadata_key, "experiment"), eq(metadata_value, "{quoted}"))'
