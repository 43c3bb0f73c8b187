"""From a reader's asks to days: pages in flight before they are wanted, days ready before they are taken."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, Generic, Protocol, Self, TypeVar

from sessions_pipeline.langsmith.assembler import DayAssembler
from sessions_pipeline.langsmith.coverage import Page
from sessions_pipeline.validation.records import FetchedDay

# Pages are read on while a day is processed, until so many records wait: 30 MB of sessions of 1.5 kB.
MOST_RECORDS_WAITING = 20_000


class Ask(Hashable, Protocol):
    """A request for a page, or for several at once."""

    @property
    def is_aside(self) -> bool:
        """Whether pages in flight are still wanted after it."""
        ...

    def expected(self) -> tuple[Self, ...]:
        """Itself and what will probably be wanted next."""
        ...


AskT = TypeVar("AskT", bound=Ask)
PageT = TypeVar("PageT")
AskT_co = TypeVar("AskT_co", bound=Ask, covariant=True)
PageT_contra = TypeVar("PageT_contra", contravariant=True)


class Reader(Protocol[AskT_co, PageT_contra]):
    """Says which pages are wanted, and what they prove.

    `frontier` is the start time, in microseconds, above which everything in the window is proven and received.
    """

    start_us: int
    frontier: int
    received: list[Page]

    def read(self) -> Generator[AskT_co, PageT_contra, None]:
        """Yields what is asked for, and expects its page."""
        ...


class Prefetcher(Generic[AskT, PageT]):
    """Pages asked for before they are wanted."""

    def __init__(self, fetch: Callable[[AskT], PageT], executor: Executor) -> None:
        """`fetch` answers an ask; it is called in the executor's threads."""
        self._fetch = fetch
        self._executor = executor
        self._in_flight: dict[Any, Future[PageT]] = {}

    def answer(self, ask: AskT) -> PageT:
        """The page asked for, with those expected next in flight."""
        wanted = ask.expected()
        if not ask.is_aside:
            for other in [other for other in self._in_flight if other not in wanted]:
                self._in_flight.pop(other).cancel()
        for one in wanted:
            if one not in self._in_flight:
                self._in_flight[one] = self._executor.submit(self._fetch, one)
        return self._in_flight.pop(wanted[0]).result()

    def cancel(self) -> None:
        """Want none of them any more."""
        for future in self._in_flight.values():
            future.cancel()


def run(
    reader: Reader[AskT, PageT], fetch: Callable[[AskT], PageT], executor: Executor, assembler: DayAssembler
) -> Iterator[FetchedDay]:
    """Answer the reader's asks, and hand out days as they are proven."""
    prefetcher = Prefetcher(fetch, executor)
    steps = reader.read()
    ask = next(steps)
    try:
        while True:
            page = prefetcher.answer(ask)
            assembler.count_request()
            try:
                ask = steps.send(page)
            except StopIteration:
                break
            finally:
                _take(reader.received, assembler)
            yield from assembler.close(reader.frontier)
    finally:
        prefetcher.cancel()
    yield from assembler.close(reader.start_us - 1)
    yield assembler.close_undated()


def _take(received: list[Page], assembler: DayAssembler) -> None:
    for page in received:
        assembler.add(page)
    received.clear()


def read_ahead(days: Iterator[FetchedDay], *, most_waiting: int = MOST_RECORDS_WAITING) -> Iterator[FetchedDay]:
    """The same days, read on in a thread while the caller is busy with one, until `most_waiting` records wait.

    Raises:
        ApiError: what reading the days raised, after the days before it.
    """
    changed, ready, held, is_over, failed = threading.Condition(), deque[FetchedDay](), 0, False, None

    def has_room() -> bool:
        return held < most_waiting or is_over

    def read() -> None:
        nonlocal held, is_over, failed
        try:
            for day in days:
                with changed:
                    ready.append(day)
                    held += len(day.records)
                    changed.notify_all()
                    changed.wait_for(has_room)
                    if is_over:
                        break
        except BaseException as error:  # noqa: BLE001 - it is raised where the days are taken
            failed = error
        with changed:
            is_over = True
            changed.notify_all()

    threading.Thread(target=read, name="days", daemon=True).start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: ready or is_over)
                if not ready:
                    break
                day = ready.popleft()
                held -= len(day.records)
                changed.notify_all()
            yield day
        if failed is not None:
            raise failed
    finally:
        with changed:
            is_over = True
            changed.notify_all()
