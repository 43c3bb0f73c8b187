"""The seam between the API's ways of paging and the pipeline: days of sessions, newest first.

Version 1 pages by offset, version 2 by cursor; each is one class with the method `days`, and `ApiSource` takes the one
that the API speaks.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from datetime import date, timedelta
from typing import Any, Protocol
from uuid import UUID

from sessions_pipeline.days import day_start_us
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.coverage import Page
from sessions_pipeline.langsmith.cursors import CursorAsk, CursorPage, CursorReader
from sessions_pipeline.langsmith.days import DayAssembler, DayReading
from sessions_pipeline.langsmith.prefetch import drive
from sessions_pipeline.langsmith.query import SessionSortableColumns, SessionsQuery
from sessions_pipeline.langsmith.redaction import Path, redact
from sessions_pipeline.langsmith.versions import SECOND, Answer
from sessions_pipeline.langsmith.window import SMALLEST_PAGE, Ask, WindowReader
from sessions_pipeline.validation.records import Record


class SessionSource(Protocol):
    """Reads days of one workspace."""

    def days(self, first: date, last: date) -> Iterator[DayReading]:
        """Every UTC day from `last` back to `first`, both included, then the sessions without a day.

        Raises:
            ApiError: a request failed for good, or the pages do not add up; days not yet handed out are not read.
        """
        ...


class Listing:
    """One workspace's sessions as the API lists them, newest first; pages of them, without what is private."""

    def __init__(
        self, client: SessionsClient, query: SessionsQuery, *, workspace: str | None, private: Sequence[Path] = ()
    ) -> None:
        """`query` narrows what is read; its sorting, paging and `include_stats` are set here.

        `private` names what is taken out of every record as soon as it arrives.
        """
        self._client = client
        self._query = query.model_copy(update={"sort_by": SessionSortableColumns.start_time, "sort_by_desc": True})
        self._workspace = workspace
        self._private = private
        self._opening: tuple[SessionsQuery, Answer] | None = None

    def open(self, page_size: int) -> bool:
        """Read the first page, whichever way of paging it will belong to; whether pages come by cursor."""
        query = self._query.model_copy(update={"limit": page_size, "include_stats": True})
        self._opening = query, self._client.fetch(query, workspace=self._workspace)
        return self._client.version is SECOND

    def page(self, *, cursor: str | None = None, **values: Any) -> Answer:
        """A page; `values` are of the query."""
        query = self._query.model_copy(update=values)
        opening, self._opening = self._opening, None
        if opening is not None and cursor is None and opening[0] == query:
            return opening[1]
        return self._client.fetch(query, workspace=self._workspace, cursor=cursor)

    def records(self, answer: Answer) -> list[Record]:
        """The answer's records without what is private."""
        return [redact(record, self._private) for record in answer.records] if self._private else answer.records


class OffsetSource:
    """Version 1 of the API: pages by offset and limit, many in flight."""

    def __init__(self, listing: Listing, executor: Executor, *, page_size: int, in_flight: int) -> None:
        self._listing = listing
        self._executor = executor
        self._page_size = page_size
        self._in_flight = in_flight

    def days(self, first: date, last: date) -> Iterator[DayReading]:
        """See `SessionSource.days`."""
        reader = WindowReader(
            start_us=day_start_us(first),
            end_us=day_start_us(last + timedelta(days=1)),
            page_size=self._page_size,
            in_flight=self._in_flight,
        )
        yield from drive(reader, self._fetch, self._executor, DayAssembler(first, last))

    def _fetch(self, ask: Ask) -> Page:
        answer = self._listing.page(offset=ask.offset, limit=ask.limit, include_stats=ask.include_stats)
        return Page(ask.offset, self._listing.records(answer), answer.total)


class CursorSource:
    """Version 2 of the API: pages by cursor, each only after the one before."""

    def __init__(self, listing: Listing, executor: Executor, *, page_size: int) -> None:
        self._listing = listing
        self._executor = executor
        self._page_size = page_size

    def days(self, first: date, last: date) -> Iterator[DayReading]:
        """See `SessionSource.days`; undated sessions are those that the pages of the window come upon."""
        reader = CursorReader(
            start_us=day_start_us(first), end_us=day_start_us(last + timedelta(days=1)), page_size=self._page_size
        )
        yield from drive(reader, self._fetch, self._executor, DayAssembler(first, last))

    def _fetch(self, ask: CursorAsk) -> CursorPage:
        only = {"id": tuple(map(UUID, ask.ids))} if ask.ids else {}
        answer = self._listing.page(cursor=ask.cursor, limit=ask.size, include_stats=ask.include_stats, **only)
        return CursorPage(self._listing.records(answer), answer.next_cursor)


class ApiSource:
    """The version that the API speaks, decided at the run's first request."""

    def __init__(self, listing: Listing, executor: Executor, *, page_size: int, in_flight: int) -> None:
        self._listing = listing
        self._executor = executor
        self._page_size = page_size
        self._in_flight = in_flight

    def days(self, first: date, last: date) -> Iterator[DayReading]:
        """See `SessionSource.days`."""
        source: SessionSource
        if self._listing.open(max(self._page_size, SMALLEST_PAGE)):
            source = CursorSource(self._listing, self._executor, page_size=self._page_size)
        else:
            source = OffsetSource(self._listing, self._executor, page_size=self._page_size, in_flight=self._in_flight)
        yield from source.days(first, last)
