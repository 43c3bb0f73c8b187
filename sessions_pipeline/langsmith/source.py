"""The seam between the API's ways of paging and the pipeline: days of sessions, newest first.

Version 1 pages by offset (`window`), version 2 by cursor (`cursors`). Whoever adds another way writes a reader beside
them and names it in `ApiSource`.
"""

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Protocol
from uuid import UUID

from sessions_pipeline.days import day_start_us
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.cursors import CursorReader
from sessions_pipeline.langsmith.page import Ask, Page
from sessions_pipeline.langsmith.prefetch import DayAssembler, Reader, read_ahead, run
from sessions_pipeline.langsmith.query import SessionSortableColumns, SessionsQuery
from sessions_pipeline.langsmith.versions import SECOND
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


@dataclass(frozen=True, slots=True)
class ApiSource:
    """A workspace's days from the API, in the version that it speaks, which is decided at the run's first request.

    `query` narrows what is read. Pages of at most `page_size` sessions are asked for in the executor's threads,
    `in_flight` together.
    """

    client: SessionsClient
    query: SessionsQuery
    executor: Executor
    workspace: str | None
    page_size: int
    in_flight: int

    def days(self, first: date, last: date) -> Iterator[FetchedDay]:
        """See `Source.days`; later days are read while the caller is busy with one."""
        return read_ahead(self._days(first, last))

    def _days(self, first: date, last: date) -> Iterator[FetchedDay]:
        # The first page comes before it is known which way of paging it belongs to: it answers the reader's first ask.
        began, opening = self.client.clock(), Ask(max(self.page_size, SMALLEST_PAGE))
        opened = {opening: self._fetch(opening)}
        fetched_at = self._fetched_at(began, opened[opening])
        assembler = DayAssembler(first, last, workspace=self.workspace, fetched_at=fetched_at)
        start_us, end_us, size = day_start_us(first), day_start_us(last + timedelta(days=1)), self.page_size
        reader: Reader = (
            CursorReader(start_us=start_us, end_us=end_us, page_size=size)
            if self.client.version is SECOND
            else WindowReader(start_us=start_us, end_us=end_us, page_size=size, in_flight=self.in_flight)
        )
        yield from run(reader, lambda ask: opened.pop(ask, None) or self._fetch(ask), self.executor, assembler)

    def _fetch(self, ask: Ask) -> Page:
        only = {"id": tuple(map(UUID, ask.ids))} if ask.ids else {}
        order = {"sort_by": SessionSortableColumns.start_time, "sort_by_desc": True}
        values = {"offset": ask.offset, "limit": ask.limit, "include_stats": ask.include_stats, **order, **only}
        return self.client.fetch(self.query.model_copy(update=values), workspace=self.workspace, cursor=ask.cursor)

    def _fetched_at(self, began: datetime, page: Page) -> datetime:
        """When the reading began by this machine's clock; by the server's, with a warning, where that is far off."""
        off = page.clock_error_seconds
        if page.server_time is None or off <= CLOCK_TOLERANCE_SECONDS:
            return began
        self.client.warn(f"This machine's clock is {off:.0f} s off the API's, whose time is taken; set it")
        return page.server_time
