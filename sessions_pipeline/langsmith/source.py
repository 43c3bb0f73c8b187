"""Turns the pages of either API version into days of sessions, newest first, for the pipeline.

Version 1 pages by offset (`window`), version 2 by cursor (`cursors`). To add another way of paging, write a reader
beside them and choose it in `Source`. Pages are requested ahead of the reader, and days are read ahead of the caller.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from threading import Lock
from uuid import UUID

from msgspec.structs import replace

from sessions_pipeline.days import DAY_US, day_of_us, day_start_us
from sessions_pipeline.errors import ApiError, CursorError
from sessions_pipeline.langsmith import SessionsQuery
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.cursors import CursorReader
from sessions_pipeline.langsmith.page import LIST_END, Page, PageRequest, identity, newest
from sessions_pipeline.langsmith.records import RAW_SCHEMA, Record, records_table
from sessions_pipeline.langsmith.window import WindowReader
from sessions_pipeline.tables.readings import RawDay, Reading
from sessions_pipeline.tables.rows import PART, Rows

# Sessions of all workspaces read ahead while the caller processes a day, some 6 MB: all that a slow API sends while
# Dagster is loading.
MOST_WAITING = 4096
# A day that waits is compressed beyond this size, some 1,400 sessions.
WAITING_BYTES = 2 * 1024 * 1024
# Beyond this size, a day's records are packed into Arrow, except the latest page's, which the next page may repeat.
UNPACKED_BYTES = 16 * 1024 * 1024
PAGE, PACKED_AT_ONCE = 100, 2048
Reader = WindowReader | CursorReader
Fetch = Callable[[PageRequest], Page]


class DayAssembler:
    """Collects records and hands out the days of a window, newest first, as soon as they are proven complete.

    `requests` counts the requests answered since the last day was handed out; `next` is the day to hand out next.
    """

    def __init__(self, first: date, last: date, reading: Reading) -> None:
        """A window of UTC days, `first` and `last` included; `reading` says in which workspace, and when it began."""
        self.requests = 0
        self._reading = reading
        self._first = first
        self.next = last
        self._days: defaultdict[date | None, _Sessions] = defaultdict(_Sessions)

    def add(self, records: Iterable[Record]) -> None:
        """Add records; those of days outside the window, or already handed out, are ignored."""
        # A page is sorted, so its records group into a few days.
        for number, group in groupby(records, lambda one: None if one.start_us is None else one.start_us // DAY_US):
            day = None if number is None else day_of_us(number * DAY_US)
            if day is None or self._first <= day <= self.next:
                self._days[day].add(group)

    def close(self, frontier_us: int) -> Iterator[RawDay]:
        """Hand out each day wholly above the frontier once."""
        while self.next >= self._first and day_start_us(self.next) > frontier_us:
            yield self.take(self.next)
            self.next -= timedelta(days=1)

    def take(self, day: date | None, *, is_partial: bool = False, length: int = 0) -> RawDay:
        """Hand out a day, or the sessions without one; `is_partial` and `length` are those of `Reading`."""
        sessions = self._days.pop(day, None) or _Sessions()
        rows, received = sessions.rows(), sessions.received
        counts = {"received": received, "repeated": received - rows.num_rows, "requests": self.requests}
        self.requests = 0
        return RawDay(day, rows, [replace(self._reading, **counts, is_partial=is_partial, length=length)])


class _Sessions:
    """The sessions of one day, each once. As soon as there are many, all but the latest are packed into Arrow."""

    def __init__(self) -> None:
        self.received = 0
        self._latest: dict[str, Record] = {}
        self._bytes = 0
        self._packed = Rows(RAW_SCHEMA)
        self._packed_ids: set[str] = set()
        self._repeated: dict[str, Record] = {}  # records received again after they were packed

    def add(self, records: Iterable[Record]) -> None:
        for record in records:
            self.received += 1
            self._bytes += len(record.payload)
            id_ = identity(record)
            known = self._repeated if id_ in self._packed_ids else self._latest
            known[id_] = newest(known[id_], record) if id_ in known else record
        if len(self._latest) >= 2 * PART or self._bytes > UNPACKED_BYTES:
            # Pages overlap, so a record that is received again is usually among the latest.
            self._pack([*self._latest][:-PAGE])

    def rows(self) -> Rows:
        """All sessions, ordered by id, as most tables are."""
        # Packing in the order of ids saves sorting the payloads afterwards, 2 µs a session.
        self._pack(sorted(self._latest))
        rows = Rows(RAW_SCHEMA) if self._repeated else self._packed
        for part in self._packed.parts(drain=True) if self._repeated else ():
            packed = [Record(**row, start_us=None, undated=False) for row in part.to_pylist()]
            rows.add(records_table([newest(one, self._repeated.get(identity(one), one)) for one in packed]))
        return Rows(RAW_SCHEMA, rows.in_order("session_id", drain=True), plain=WAITING_BYTES)

    def _pack(self, ids: Sequence[str]) -> None:  # in batches, so that the texts of each are freed before the next
        for first in range(0, len(ids), PACKED_AT_ONCE):
            batch = ids[first : first + PACKED_AT_ONCE]
            self._packed.add(records_table([self._latest.pop(id_) for id_ in batch]))
        self._packed_ids.update(ids)
        self._bytes = 0


def assemble(reader: Reader, fetch: Fetch, executor: Executor, days: DayAssembler) -> Iterator[RawDay]:
    """Answer the reader's requests and yield days as they are proven. `fetch` is called in the executor's threads.

    In flight are the requested page and those that the request wants prefetched, and no others.
    """
    in_flight: dict[PageRequest, Future[Page]] = {}
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
                    in_flight[one] = executor.submit(fetch, one)
            page = in_flight.pop(wanted[0]).result()
            days.requests += 1
            if request.include_stats:
                days.add(page.records)
            try:
                request = steps.send(page)
            except StopIteration:
                request = None
            yield from days.close(reader.frontier)
    finally:
        for future in in_flight.values():
            future.cancel()
    yield from days.close(reader.start_us - 1)
    # Version 2 may list sessions without a start time at its list's end. Version 1 is always read to the end.
    is_partial = isinstance(reader, CursorReader) and reader.frontier > LIST_END
    yield days.take(None, is_partial=is_partial, length=reader.highest_known + 1)


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
        with self.named():
            yield from read_ahead(self._days(first, last, length), self.most_waiting)

    def _days(self, first: date, last: date, length: int = 0, *, is_again: bool = False) -> Iterator[RawDay]:
        # The first page shows how the API pages, and so which reader to use. It answers the reader's first request.
        first_request = PageRequest(self.query.limit)
        began, page = self.client.clock(), self._fetch(first_request)
        first_page = {first_request: page}
        reading = Reading(0, self.client.fetched_at(began, page.server_time), asked=self.workspace)
        days = DayAssembler(first, last, reading)
        start_us, end_us, size = day_start_us(first), day_start_us(last + timedelta(days=1)), first_request.limit
        reader: Reader = (
            WindowReader(start_us=start_us, end_us=end_us, page_size=size, in_flight=self.in_flight, length=length)
            if page.next_cursor is None
            else CursorReader(start_us=start_us, end_us=end_us, page_size=size)
        )
        try:
            yield from assemble(reader, lambda one: first_page.pop(one, None) or self._fetch(one), self.executor, days)
        except CursorError:
            # A cursor may expire while days are processed. If no day was read since the last time, none ever will be.
            if is_again and days.next == last:
                raise
            self.client.warn("A cursor of the API had expired: its list was read again from the beginning")
            yield from self._days(first, days.next, is_again=True)

    def _fetch(self, request: PageRequest) -> Page:
        narrowed = {"id": tuple(map(UUID, request.ids))} if request.ids else {}
        paging = {"offset": request.offset, "limit": request.limit, "include_stats": request.include_stats}
        asked = self.query.model_copy(update={**paging, **narrowed})
        return self.client.fetch(asked, workspace=self.workspace, cursor=request.cursor)
