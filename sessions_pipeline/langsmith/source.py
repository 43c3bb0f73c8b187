"""The seam between the API's ways of paging and the pipeline: days of sessions, newest first.

Version 1 pages by offset (`window`), version 2 by cursor (`cursors`). Whoever adds another way writes a reader beside
them and names it in `ApiSource.days`.
"""

from collections.abc import Iterator
from concurrent.futures import Executor
from datetime import date, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from sessions_pipeline.days import day_start_us
from sessions_pipeline.langsmith.assembler import DayAssembler
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.coverage import Page
from sessions_pipeline.langsmith.cursors import CursorReader
from sessions_pipeline.langsmith.offsets import OffsetAsk
from sessions_pipeline.langsmith.prefetch import read_ahead, run
from sessions_pipeline.langsmith.query import SessionSortableColumns, SessionsQuery
from sessions_pipeline.langsmith.versions import SECOND, Answer
from sessions_pipeline.langsmith.walks import CursorAsk, CursorPage
from sessions_pipeline.langsmith.window import SMALLEST_PAGE, WindowReader
from sessions_pipeline.validation.records import FetchedDay

# Timestamps and daily partitions bear a minute.
CLOCK_TOLERANCE_SECONDS = 60


class Source(Protocol):
    """Reads days of one workspace."""

    def days(self, first: date, last: date) -> Iterator[FetchedDay]:
        """Every UTC day from `last` back to `first`, both included, then the sessions without a day.

        Raises:
            ApiError: a request failed for good, or the pages do not add up; days not yet handed out are not read.
        """
        ...


class Listing:
    """One workspace's sessions as the API lists them, newest first."""

    def __init__(self, client: SessionsClient, query: SessionsQuery, *, workspace: str | None) -> None:
        """`query` narrows what is read; its sorting, paging and `include_stats` are set here."""
        self.workspace = workspace
        self._client = client
        self._query = query.model_copy(update={"sort_by": SessionSortableColumns.start_time, "sort_by_desc": True})
        self._opening: tuple[SessionsQuery, Answer] | None = None

    def open(self, page_size: int) -> datetime:
        """Read the first page, whichever way of paging it will belong to; when that was.

        By this machine's clock; by the server's, with a warning, where the two differ by over a minute.
        """
        began = self._client.clock()
        query = self._query.model_copy(update={"limit": page_size, "include_stats": True})
        answer = self._client.fetch(query, workspace=self.workspace)
        self._opening = query, answer
        if answer.server_time is None or answer.clock_error_seconds <= CLOCK_TOLERANCE_SECONDS:
            return began
        self._client.warn(
            f"This machine's clock is {answer.clock_error_seconds:.0f} s off the API's, whose time is taken; set it"
        )
        return answer.server_time

    @property
    def has_cursors(self) -> bool:
        """Whether pages come by cursor; known once it is open."""
        return self._client.version is SECOND

    def page(self, *, cursor: str | None = None, **values: Any) -> Answer:
        """A page; `values` are of the query."""
        query = self._query.model_copy(update=values)
        opening, self._opening = self._opening, None
        if opening is not None and cursor is None and opening[0] == query:
            return opening[1]
        return self._client.fetch(query, workspace=self.workspace, cursor=cursor)

    def offset_page(self, ask: OffsetAsk) -> Page:
        """A page by offset."""
        answer = self.page(offset=ask.offset, limit=ask.limit, include_stats=ask.include_stats)
        return Page(ask.offset, answer.records, answer.total)

    def cursor_page(self, ask: CursorAsk) -> CursorPage:
        """A page by cursor, or of the ids asked for."""
        only = {"id": tuple(map(UUID, ask.ids))} if ask.ids else {}
        answer = self.page(cursor=ask.cursor, limit=ask.size, include_stats=ask.include_stats, **only)
        return CursorPage(answer.records, answer.next_cursor)


class ApiSource:
    """The days of a listing, by the version that the API speaks, decided at the run's first request."""

    def __init__(self, listing: Listing, executor: Executor, *, page_size: int, in_flight: int) -> None:
        """Pages of at most `page_size` sessions are asked for in the executor's threads, `in_flight` together."""
        self._listing = listing
        self._executor = executor
        self._page_size = page_size
        self._in_flight = in_flight

    def days(self, first: date, last: date) -> Iterator[FetchedDay]:
        """See `Source.days`; later days are read while the caller is busy with one."""
        return read_ahead(self._days(first, last))

    def _days(self, first: date, last: date) -> Iterator[FetchedDay]:
        listing, start_us, end_us = self._listing, day_start_us(first), day_start_us(last + timedelta(days=1))
        fetched_at = listing.open(max(self._page_size, SMALLEST_PAGE))
        assembler = DayAssembler(first, last, workspace=listing.workspace, fetched_at=fetched_at)
        if listing.has_cursors:
            by_cursor = CursorReader(start_us=start_us, end_us=end_us, page_size=self._page_size)
            yield from run(by_cursor, listing.cursor_page, self._executor, assembler)
        else:
            by_offset = WindowReader(
                start_us=start_us, end_us=end_us, page_size=self._page_size, in_flight=self._in_flight
            )
            yield from run(by_offset, listing.offset_page, self._executor, assembler)
