"""Turns the pages of either API version into days of sessions, newest first, for the pipeline.

Version 1 pages by offset (`window`), version 2 by cursor (`cursors`). To add another way of paging, write a reader
beside them and choose it in `Source`. Pages are requested ahead of the reader, and days are read ahead of the caller.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from threading import Lock
from uuid import UUID

from msgspec.structs import replace

from sessions_pipeline.days import DAY_US, day_of_us, day_start_us, days_between
from sessions_pipeline.errors import ApiError, CursorError
from sessions_pipeline.langsmith import SessionsQuery
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.cursors import CursorReader
from sessions_pipeline.langsmith.page import LIST_END, Page, PageRequest, identity, newest
from sessions_pipeline.langsmith.records import RAW_SCHEMA, Record, records_table
from sessions_pipeline.langsmith.window import WindowReader
from sessions_pipeline.tables.readings import RawDay, Reading
from sessions_pipeline.tables.rows import Rows

# Sessions of all workspaces read ahead while the caller processes a day, some 6 MB: all that a slow API sends while
# Dagster is loading.
MOST_WAITING = 4096
# A day that waits is compressed beyond this size, some 1,400 sessions.
WAITING_BYTES = 2 * 1024 * 1024
# Beyond this size, a day's records are packed into Arrow, except the latest page's, which the next page may repeat.
UNPACKED_BYTES = 16 * 1024 * 1024
PAGE, PACKED_AT_ONCE = 100, 2048
Reader = WindowReader | CursorReader


class DayRecords:
    """The records of one day. Once they are many, all but the latest are packed into Arrow.

    A session is there once, unless it was received again after it was packed. `received` counts each time.
    """

    def __init__(self) -> None:
        self.received = 0
        self._latest: dict[str, Record] = {}
        self._bytes = 0
        self._packed = Rows(RAW_SCHEMA)

    def add(self, records: Iterable[Record]) -> None:
        """Add records as received; of two that are the same session, the newest counts."""
        for record in records:
            self.received += 1
            self._bytes += len(record.payload)
            id_ = identity(record)
            self._latest[id_] = newest(self._latest[id_], record) if id_ in self._latest else record
        if self._bytes > UNPACKED_BYTES:
            # Pages overlap, so a record that is received again is usually among the latest.
            self._pack([*self._latest][:-PAGE])
            self._bytes = 0

    def rows(self) -> Rows:
        """All records, ordered by id, as most tables are. Of two with the same id, the second was received later."""
        # Packing in the order of ids saves sorting the payloads afterwards, 2 µs a session.
        self._pack(sorted(self._latest))
        return Rows(RAW_SCHEMA, self._packed.in_order("session_id", drain=True), plain=WAITING_BYTES)

    def _pack(self, ids: Sequence[str]) -> None:
        """Pack these records, in batches, so that the texts of each are freed before the next is made."""
        for first in range(0, len(ids), PACKED_AT_ONCE):
            batch = ids[first : first + PACKED_AT_ONCE]
            self._packed.add(records_table([self._latest.pop(id_) for id_ in batch]))


def fetch_pages(
    reader: Reader, send: Callable[[PageRequest], Future[Page]], in_flight: dict[PageRequest, Future[Page]]
) -> Iterator[Sequence[Record]]:
    """Answer the reader's requests, and yield the records of each page; none if it was requested without stats.

    `send` sends a request. `in_flight` are those that the caller has sent already. Later it is the reader's request and
    those that it wants prefetched, and no others.
    """
    steps = reader.read()
    try:
        request = next(steps, None)
        while request is not None:
            wanted = (request._replace(prefetch=()), *request.prefetch)
            # A read by id is a detour: the pages in flight are still wanted after it.
            for other in [] if request.ids else [other for other in in_flight if other not in wanted]:
                in_flight.pop(other).cancel()
            for one in wanted:
                if one not in in_flight:
                    in_flight[one] = send(one)
            page, is_counted = in_flight.pop(wanted[0]).result(), request.include_stats
            try:
                request = steps.send(page)
            except StopIteration:
                request = None
            yield page.records if is_counted else ()
    finally:
        for future in in_flight.values():
            future.cancel()


def assemble(
    reader: Reader, pages: Iterator[Sequence[Record]], days: Iterable[date], reading: Reading
) -> Iterator[RawDay]:
    """Yield these days, each once the reader's pages prove it complete, then the sessions without a day.

    `pages` are those of `fetch_pages`. `days` are those of the reader's window, newest first. `reading` says in which
    workspace, and when it began.
    """
    collected: dict[date | None, DayRecords] = {day: DayRecords() for day in (*days, None)}
    for day in [*collected]:
        requests = 0
        while (day is None or day_start_us(day) <= reader.frontier) and (page := next(pages, None)) is not None:
            requests += 1
            # A page is sorted, so its records group into a few days. Those of days not in `collected` are not needed.
            for number, records in groupby(page, lambda one: None if one.start_us is None else one.start_us // DAY_US):
                start_day = None if number is None else day_of_us(number * DAY_US)
                if start_day in collected:
                    collected[start_day].add(records)
        if day is None:
            # Version 2 may list sessions without a start time at its list's end. Version 1 is always read to the end.
            is_partial = isinstance(reader, CursorReader) and reader.frontier > LIST_END
            reading = replace(reading, is_partial=is_partial, length=reader.highest_known + 1)
        reading = replace(reading, received=collected[day].received, requests=requests)
        # Popped here, so that its memory is freed while the caller processes the day.
        yield RawDay(day, collected.pop(day).rows(), [reading])


def read_ahead(days: Iterator[RawDay], most_waiting: int) -> Iterator[RawDay]:
    """The same days, read in a thread ahead of the caller until `most_waiting` sessions wait to be taken.

    Raises:
        ApiError: an error of reading the days, raised after the days that were read before it.
    """
    thread, lock, is_over = ThreadPoolExecutor(1, "read-ahead"), Lock(), False
    waiting, sizes = deque[Future[RawDay | None]](), deque[int]()  # the size of a day still being read is missing

    def read() -> RawDay | None:
        day = next(days, None)
        with lock:
            sizes.append(max(1, day.rows.num_rows) if day else most_waiting)
            read_on()
        return day

    def read_on() -> None:
        # Called by the thread that makes room. A thread that waited for room would keep a failed program from ending.
        if not is_over and len(sizes) == len(waiting) and sum(sizes) < most_waiting:
            waiting.append(thread.submit(read))

    read_on()
    try:
        while (day := waiting[0].result()) is not None:
            with lock:
                waiting.popleft()
                sizes.popleft()
                read_on()
            yield day
    finally:
        is_over = True
        # Not waited for: the thread may be waiting for a page that is no longer needed.
        thread.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Source:
    """Reads a workspace's days from the API, in the version that the client chose at the run's first request.

    `workspace` is its id, or None for the one that the key belongs to; `query` narrows what is read, newest first.
    Pages of at most `query.limit` sessions, 10 or more, are requested in the executor's threads, up to `in_flight`
    ahead. Days are read ahead until `most_waiting` sessions wait.
    """

    client: SessionsClient
    query: SessionsQuery
    executor: Executor
    workspace: str | None
    in_flight: int
    most_waiting: int = MOST_WAITING

    @contextmanager
    def named(self) -> Iterator[None]:
        """Add the workspace's id, if known, to API errors raised in the block."""
        try:
            yield
        except ApiError as error:
            if self.workspace is None:
                raise
            raise type(error)(f"Workspace {self.workspace}: {error}", retry_after=error.retry_after) from None

    def days(self, first: date, last: date, *, length: int = 0) -> Iterator[RawDay]:
        """Every UTC day from `last` back to `first`, both included, then the sessions without a day; read ahead.

        `length` is that of the whole list when it was last read; 0 if unknown.

        Raises:
            ApiError: a request failed for good, or the pages do not add up; days not yet yielded count as not read.
        """
        return read_ahead(self._days(first, last, length), self.most_waiting)

    def _days(self, first: date, last: date, length: int) -> Iterator[RawDay]:
        expired_before = None
        with self.named():
            while True:
                try:
                    for day in self._read(first, last, length):
                        last = day.day - timedelta(days=1) if day.day else last
                        yield day
                except CursorError:
                    # A cursor may expire while days are processed. If no day was read since the last time, none ever
                    # will be.
                    if last == expired_before:
                        raise
                    expired_before = last
                    self.client.warn("A cursor of the API had expired: its list was read again from the beginning")
                else:
                    return

    def _read(self, first: date, last: date, length: int) -> Iterator[RawDay]:
        # The first page shows how the API pages, and so which reader to use. It answers the reader's first request.
        request = PageRequest(self.query.limit)
        began, answer = self.client.clock(), self._send(request)
        page = answer.result()
        reading = Reading(0, self.client.now(began), asked=self.workspace)
        start_us, end_us, size = day_start_us(first), day_start_us(last + timedelta(days=1)), request.limit
        reader: Reader = (
            WindowReader(start_us=start_us, end_us=end_us, page_size=size, in_flight=self.in_flight, length=length)
            if page.next_cursor is None
            else CursorReader(start_us=start_us, end_us=end_us, page_size=size)
        )
        pages = fetch_pages(reader, self._send, {request: answer})
        return assemble(reader, pages, days_between(first, last)[::-1], reading)

    def _send(self, request: PageRequest) -> Future[Page]:
        narrowed = {"id": tuple(map(UUID, request.ids))} if request.ids else {}
        paging = {"offset": request.offset, "limit": request.limit, "include_stats": request.include_stats}
        asked = self.query.model_copy(update={**paging, **narrowed})
        return self.executor.submit(self.client.fetch, asked, workspace=self.workspace, cursor=request.cursor)
