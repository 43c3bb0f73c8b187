"""From a reader's asks to days: pages in flight before they are wanted, days ready before they are taken."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Protocol

from sessions_pipeline.langsmith.assembler import DayAssembler
from sessions_pipeline.langsmith.page import Ask, Page
from sessions_pipeline.validation.records import FetchedDay, Record

# Pages are read on while a day is processed, until so many days wait: enough to even out long days and short ones,
# and with 1,000 sessions a day not more than 6 MB.
MOST_DAYS_WAITING = 4


class Reader(Protocol):
    """Says which pages are wanted, and what they prove.

    `frontier` is the start time, in microseconds, above which everything in the window is proven and received.
    """

    start_us: int
    frontier: int
    received: list[Record]

    def read(self) -> Generator[Ask, Page, None]:
        """Yields what is asked for, and expects its page."""
        ...


def run(
    reader: Reader, fetch: Callable[[Ask], Page], executor: Executor, assembler: DayAssembler
) -> Iterator[FetchedDay]:
    """Answer the reader's asks, and hand out days as they are proven. `fetch` is called in the executor's threads."""
    in_flight: dict[Ask, Future[Page]] = {}
    steps, page = reader.read(), None
    try:
        while True:
            try:
                ask = next(steps) if page is None else steps.send(page)
            except StopIteration:
                break
            finally:
                assembler.add(reader.received)
                reader.received.clear()
            yield from assembler.close(reader.frontier)
            page = _answer(ask, in_flight, lambda one: executor.submit(fetch, one))
            assembler.requests += 1
    finally:
        for future in in_flight.values():
            future.cancel()
    yield from assembler.close(reader.start_us - 1)
    yield assembler.hand_out(None)


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


def read_ahead(days: Iterator[FetchedDay], *, most_waiting: int = MOST_DAYS_WAITING) -> Iterator[FetchedDay]:
    """The same days, read on in a thread while the caller is busy with one, until `most_waiting` days wait.

    Raises:
        ApiError: what reading the days raised, after the days before it.
    """
    reader = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
    try:
        waiting = deque(reader.submit(next, days, None) for _ in range(most_waiting))
        while (day := waiting.popleft().result()) is not None:
            waiting.append(reader.submit(next, days, None))
            yield day
    finally:
        # Not waited for: it may be waiting for a page that nobody needs any more.
        reader.shutdown(wait=False, cancel_futures=True)
