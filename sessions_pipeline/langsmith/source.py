"""The seam between the API's ways of paging and the pipeline: days of sessions, newest first.

Another way of paging is one more class with the method `days`.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from datetime import date, timedelta
from typing import Protocol

from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.coverage import Page
from sessions_pipeline.langsmith.days import DayAssembler, DayReading, day_start_us
from sessions_pipeline.langsmith.window import Ask, WindowReader
from sessions_pipeline.schema.query import SessionSortableColumns, SessionsQuery
from sessions_pipeline.schema.redaction import Path, redact


class SessionSource(Protocol):
    """Reads days of one workspace."""

    def days(self, first: date, last: date) -> Iterator[DayReading]:
        """Every UTC day from `last` back to `first`, both included, then the sessions without a day.

        Raises:
            ApiError: a request failed for good, or the pages do not add up; days not yet handed out are not read.
        """
        ...


class OffsetSource:
    """Version 1 of the API: pages by offset and limit, sorted by start time, newest first."""

    def __init__(
        self,
        client: SessionsClient,
        executor: Executor,
        query: SessionsQuery,
        *,
        workspace: str | None,
        page_size: int,
        in_flight: int,
        private: Sequence[Path] = (),
    ) -> None:
        """`query` narrows what is read; its sorting, paging and `include_stats` are set here.

        `private` names what is taken out of every record as soon as it arrives.
        """
        self._client = client
        self._executor = executor
        self._query = query.model_copy(update={"sort_by": SessionSortableColumns.start_time, "sort_by_desc": True})
        self._workspace = workspace
        self._page_size = page_size
        self._in_flight = in_flight
        self._private = private

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
        query = self._query.model_copy(
            update={"offset": ask.offset, "limit": ask.limit, "include_stats": ask.include_stats}
        )
        answer = self._client.fetch(query, workspace=self._workspace)
        records = answer.records
        if self._private:
            records = [redact(record, self._private) for record in records]
        return Page(ask.offset, records, answer.total)


def drive(
    reader: WindowReader, fetch: Callable[[Ask], Page], executor: Executor, assembler: DayAssembler
) -> Iterator[DayReading]:
    """Answer the reader's asks, with the pages it expects next in flight, and hand out days as they are proven."""
    flights: dict[int, Future[Page]] = {}
    steps = reader.read()
    ask = next(steps)
    try:
        while True:
            page = _answer(ask, flights, fetch, executor)
            assembler.count_request()
            try:
                ask = steps.send(page)
            except StopIteration:
                break
            finally:
                _take(reader, assembler)
            yield from assembler.close(reader.frontier)
    finally:
        for flight in flights.values():
            flight.cancel()
    yield from assembler.close(reader.start_us - 1)
    yield assembler.close_undated()


def _answer(ask: Ask, flights: dict[int, Future[Page]], fetch: Callable[[Ask], Page], executor: Executor) -> Page:
    if not ask.include_stats:
        return fetch(ask)
    wanted = (ask.offset, *ask.ahead)
    for offset in [offset for offset in flights if offset not in wanted]:
        flights.pop(offset).cancel()
    for offset in wanted:
        if offset not in flights:
            flights[offset] = executor.submit(fetch, ask._replace(offset=offset, ahead=()))
    return flights.pop(ask.offset).result()


def _take(reader: WindowReader, assembler: DayAssembler) -> None:
    for page in reader.received:
        assembler.add(page)
    reader.received.clear()
