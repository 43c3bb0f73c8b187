"""The seam between the API's ways of paging and the pipeline: days of sessions, newest first.

Version 1 pages by offset (`window`), version 2 by cursor (`cursors`). Whoever adds another way writes a reader beside
them and names it in `Source`. Pages are in flight before they are wanted, days ready before they are taken.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby
from threading import Lock
from uuid import UUID

from sessions_pipeline.days import DAY_US, day_of_us, day_start_us
from sessions_pipeline.errors import ApiError, CursorError
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.cursors import SMALLEST_CURSOR_PAGE, CursorReader
from sessions_pipeline.langsmith.page import Ask, Page, identity, newest
from sessions_pipeline.langsmith.query import SessionsQuery
from sessions_pipeline.langsmith.window import WindowReader
from sessions_pipeline.validation.records import SENT, FetchedDay, Record, sent
from sessions_pipeline.validation.rows import PART, Rows

# Sessions that wait while a day is processed, some 6 MB: of a slow API all that come while Dagster is loaded.
MOST_WAITING = 4096
# What is beyond these bytes of a day waits compressed: some 1,400 sessions.
WAITING_BYTES = 2 * 1024 * 1024
# Of a day's sessions this many bytes of text lie unpacked, but at least a page's, which the next page overlaps.
MOST_BYTES = 16 * 1024 * 1024
PAGE, PACKED_AT_ONCE = 100, 2048
Reader = WindowReader | CursorReader


class DayAssembler:
    """Collects records and hands out the days of a window, newest first, as soon as they are proven complete.

    `requests` counts the answered requests since the last day was handed out, `next` is the day that follows it.
    """

    def __init__(self, first: date, last: date, *, workspace: str | None, fetched_at: datetime) -> None:
        """A window of UTC days, both included, of a workspace whose reading began at `fetched_at`."""
        self.requests = 0
        self._workspace = workspace
        self._fetched_at = fetched_at
        self._first = first
        self.next = last
        self._days: defaultdict[date | None, _Sessions] = defaultdict(_Sessions)

    def add(self, records: Iterable[Record]) -> None:
        """Take records; those of days outside the window, or handed out already, are passed over."""
        # A page is sorted, so it is some runs of one day each.
        for number, some in groupby(records, lambda one: None if one.start_us is None else one.start_us // DAY_US):
            day = None if number is None else day_of_us(number * DAY_US)
            if day is None or self._first <= day <= self.next:
                self._days[day].add(some)

    def close(self, frontier_us: int, *, is_over: bool = False) -> Iterator[FetchedDay]:
        """The days wholly above the frontier, each once; if the window `is_over`, then the sessions without a day."""
        days: list[date | None] = []
        while self.next >= self._first and day_start_us(self.next) > frontier_us:
            days.append(self.next)
            self.next -= timedelta(days=1)
        for day in [*days, None] if is_over else days:
            sessions, requests = self._days.pop(day, None) or _Sessions(), self.requests
            self.requests = 0
            yield FetchedDay(day, self._workspace, self._fetched_at, sessions.rows(), sessions.received, requests)


class _Sessions:
    """The sessions of one day, each once. All but the latest are packed as soon as there are many."""

    def __init__(self) -> None:
        self.received = 0
        self._latest: dict[str, Record] = {}
        self._bytes = 0
        self._packed = Rows(SENT)
        self._names: set[str] = set()  # of those that are packed
        self._again: dict[str, Record] = {}  # those of them that came once more

    def add(self, records: Iterable[Record]) -> None:
        for record in records:
            self.received += 1
            self._bytes += len(record.payload)
            name = identity(record)
            held = self._again if name in self._names else self._latest
            held[name] = newest(held[name], record) if name in held else record
        if len(self._latest) >= 2 * PART or self._bytes > MOST_BYTES:
            # Pages overlap, so what comes again is most often among the latest.
            self._pack([*self._latest][:-PAGE])

    def rows(self) -> Rows:
        """All of them, in the order of their ids, since most tables are."""
        # Sorting names first saves sorting the texts, 2 µs a session.
        self._pack(sorted(self._latest))
        rows = Rows(SENT) if self._again else self._packed
        for part in self._packed.parts(drain=True) if self._again else ():
            held = [Record(**row, start_us=None, undated=False) for row in part.to_pylist()]
            rows.add(sent([newest(one, self._again.get(identity(one), one)) for one in held]))
        return Rows(SENT, rows.in_order("session_id", drain=True), plain=WAITING_BYTES)

    def _pack(self, names: Sequence[str]) -> None:  # some at a time, whose texts are freed then
        for first in range(0, len(names), PACKED_AT_ONCE):
            some = names[first : first + PACKED_AT_ONCE]
            self._packed.add(sent([self._latest.pop(name) for name in some]))
        self._names.update(names)
        self._bytes = 0


def run(reader: Reader, fetch: Callable[[Ask], Page], executor: Executor, days: DayAssembler) -> Iterator[FetchedDay]:
    """Answer the reader's asks, and hand out days as they are proven. `fetch` is called in the executor's threads."""
    in_flight: dict[Ask, Future[Page]] = {}
    steps = reader.read()
    try:
        ask = next(steps, None)
        while ask is not None:
            page = _answer(ask, in_flight, lambda one: executor.submit(fetch, one))
            days.requests += 1
            if ask.include_stats:
                days.add(page.records)
            try:
                ask = steps.send(page)
            except StopIteration:
                ask = None
            yield from days.close(reader.frontier)
    finally:
        for future in in_flight.values():
            future.cancel()
    yield from days.close(reader.start_us - 1, is_over=True)


def _answer(ask: Ask, in_flight: dict[Ask, Future[Page]], submit: Callable[[Ask], Future[Page]]) -> Page:
    """The page asked for, with those expected next in flight, and no others."""
    wanted = (ask._replace(ahead=()), *ask.ahead)
    # What is read by id leads aside: the pages in flight are still wanted after it.
    for other in [] if ask.ids else [other for other in in_flight if other not in wanted]:
        in_flight.pop(other).cancel()
    for one in wanted:
        if one not in in_flight:
            in_flight[one] = submit(one)
    return in_flight.pop(wanted[0]).result()


def read_ahead(days: Iterator[FetchedDay], *, most_waiting: int = MOST_WAITING) -> Iterator[FetchedDay]:
    """The same days, read on in a thread while the caller is busy with one, until `most_waiting` sessions wait.

    Raises:
        ApiError: what reading the days raised, after the days before it.
    """
    reader, lock, is_over = ThreadPoolExecutor(1, "read-ahead"), Lock(), False
    waiting, sizes = deque[Future[FetchedDay | None]](), deque[int]()  # the last one to wait may have no size yet

    def read() -> FetchedDay | None:
        day = next(days, None)
        with lock:
            sizes.append(max(1, day.rows.num_rows) if day else most_waiting)
            read_on()
        return day

    def read_on() -> None:
        # Begun by whoever makes room: a thread that waited for room would keep a program that failed from ending.
        if not is_over and len(sizes) == len(waiting) and sum(sizes) < most_waiting:
            waiting.append(reader.submit(read))

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
        # Not waited for: it may be waiting for a page that nobody needs any more.
        reader.shutdown(wait=False, cancel_futures=True)


# Timestamps and daily partitions bear a minute.
CLOCK_TOLERANCE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Source:
    """A workspace's days from the API, in the version that it speaks, which is decided at the run's first request.

    `workspace` is its id, or None for the one that the key belongs to; `query` narrows what is read. Pages of at most
    `page_size` sessions are asked for in the executor's threads, `in_flight` together.
    """

    client: SessionsClient
    query: SessionsQuery
    executor: Executor
    workspace: str | None
    page_size: int
    in_flight: int

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors of the block say which workspace they are about, where it is known."""
        try:
            yield
        except ApiError as error:
            if self.workspace is None:
                raise
            raise type(error)(f"Workspace {self.workspace}: {error}", retry_after=error.retry_after) from None

    def days(self, first: date, last: date) -> Iterator[FetchedDay]:
        """Every UTC day from `last` back to `first`, both included, then the sessions without a day; read ahead.

        Raises:
            ApiError: a request failed for good, or the pages do not add up; days not yet handed out are not read.
        """
        with self.named():
            yield from read_ahead(self._days(first, last))

    def _days(self, first: date, last: date, *, is_again: bool = False) -> Iterator[FetchedDay]:
        # The first page comes before it is known which way of paging it belongs to: it answers the reader's first ask.
        opening = Ask(max(self.page_size, SMALLEST_CURSOR_PAGE))
        began, page, ended = self.client.clock(), self._fetch(opening), self.client.clock()
        opened = {opening: page}
        fetched_at = self._fetched_at(began, page.server_time, ended)
        assembler = DayAssembler(first, last, workspace=self.workspace, fetched_at=fetched_at)
        start_us, end_us, size = day_start_us(first), day_start_us(last + timedelta(days=1)), opening.limit
        reader: Reader = (
            WindowReader(start_us=start_us, end_us=end_us, page_size=size, in_flight=self.in_flight)
            if page.next_cursor is None
            else CursorReader(start_us=start_us, end_us=end_us, page_size=size)
        )
        try:
            yield from run(reader, lambda ask: opened.pop(ask, None) or self._fetch(ask), self.executor, assembler)
        except CursorError:
            # A cursor may grow old while days are processed. If not one day came since the last time, none ever will.
            if is_again and assembler.next == last:
                raise
            self.client.warn("A cursor of the API had expired: its list was read again from the beginning")
            yield from self._days(first, assembler.next, is_again=True)

    def _fetch(self, ask: Ask) -> Page:
        only = {"id": tuple(map(UUID, ask.ids))} if ask.ids else {}
        order = {"sort_by": "start_time", "sort_by_desc": True}
        values = {"offset": ask.offset, "limit": ask.limit, "include_stats": ask.include_stats, **order, **only}
        return self.client.fetch(self.query.model_copy(update=values), workspace=self.workspace, cursor=ask.cursor)

    def _fetched_at(self, began: datetime, server_time: datetime | None, ended: datetime) -> datetime:
        """When the reading began by this machine's clock; by the server's, with a warning, where that is far off."""
        off = max(began - server_time, server_time - ended) if server_time else timedelta(0)
        if server_time is None or off <= CLOCK_TOLERANCE:
            return began
        self.client.warn(
            f"This machine's clock is {off.total_seconds():.0f} s off the API's, whose time is taken; set it"
        )
        return server_time
