"""From a reader's asks to days: requests in flight, pages collected, days handed out as they are proven."""

from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any, Generic, Protocol, Self, TypeVar

from sessions_pipeline.langsmith.coverage import Page
from sessions_pipeline.langsmith.days import DayAssembler, DayReading


class Asking(Hashable, Protocol):
    """A request for a page."""

    @property
    def is_aside(self) -> bool:
        """Whether pages in flight are still wanted after it."""
        ...

    def expected(self) -> Sequence[Self]:
        """Itself and what will probably be wanted next."""
        ...


AskT = TypeVar("AskT", bound=Asking)
PageT = TypeVar("PageT")
AskT_co = TypeVar("AskT_co", bound=Asking, covariant=True)
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


class Flights(Generic[AskT, PageT]):
    """Pages asked for before they are wanted."""

    def __init__(self, fetch: Callable[[AskT], PageT], executor: Executor) -> None:
        """`fetch` answers an ask; it is called in the executor's threads."""
        self._fetch = fetch
        self._executor = executor
        self._flights: dict[Any, Future[PageT]] = {}

    def answer(self, ask: AskT) -> PageT:
        """The page asked for, with those expected next in flight."""
        if ask.is_aside:
            return self._fetch(ask)
        wanted = ask.expected()
        for other in [other for other in self._flights if other not in wanted]:
            self._flights.pop(other).cancel()
        for one in wanted:
            if one not in self._flights:
                self._flights[one] = self._executor.submit(self._fetch, one)
        return self._flights.pop(wanted[0]).result()

    def cancel(self) -> None:
        """Want none of them any more."""
        for flight in self._flights.values():
            flight.cancel()


def drive(
    reader: Reader[AskT, PageT], fetch: Callable[[AskT], PageT], executor: Executor, assembler: DayAssembler
) -> Iterator[DayReading]:
    """Answer the reader's asks, and hand out days as they are proven."""
    flights = Flights(fetch, executor)
    steps = reader.read()
    ask = next(steps)
    try:
        while True:
            page = flights.answer(ask)
            assembler.count_request()
            try:
                ask = steps.send(page)
            except StopIteration:
                break
            finally:
                _take(reader.received, assembler)
            yield from assembler.close(reader.frontier)
    finally:
        flights.cancel()
    yield from assembler.close(reader.start_us - 1)
    yield assembler.close_undated()


def _take(received: list[Page], assembler: DayAssembler) -> None:
    for page in received:
        assembler.add(page)
    received.clear()
